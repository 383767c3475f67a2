"""What a few batches of a run show: how easily its views are told apart, how its vectors lie, how its key encoder lags,
and where a step's time goes. The run is restored from its newest checkpoint in a folder that is removed again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from contralex.data.loading import EvalDataset, collate_plain
from contralex.lookup.slots import Encoder
from contralex.lookup.view import pixels_of
from contralex.recipes.layers import Resolved
from contralex.training import build, devices, health
from contralex.training.batches import batches
from contralex.training.checkpoints.read import Checkpoint
from contralex.training.checkpoints.state import Forked
from contralex.training.diagnosis import colours
from contralex.training.diagnosis.timing import time_parts
from contralex.training.forking import ForkStart
from contralex.training.prepare import prepare_run
from contralex.training.run_folder import RunFolder
from contralex.training.run_state import Run

_BATCHES = 8
_SAMPLES = 512  # after which no further batch is looked at
_AUGMENTED = 4  # dimensions of a batch of images


@dataclass
class Measured:
    """Figures of some batches; None where a figure means nothing for the method."""

    samples: int = 0
    chance: float | None = None
    """Of finding a sample's other view among those that are compared."""
    mean_colour: float | None = None
    """How often the other view of a sample has the nearest mean colour."""
    histogram: float | None = None
    """... the nearest histogram of colours."""
    pixels: float | None = None
    """... the nearest pixels, at 8×8."""
    untrained: float | None = None
    """... the nearest features of the encoder with its first weights."""
    feature_std: float | None = None
    """Of the backbone's features of the samples as evaluation sees them, as of keys in ``metrics.jsonl``."""
    effective_rank: float | None = None
    """The effective rank of those features, less their mean."""
    features: int = 0
    """Their dimensions."""
    query_moved: float | None = None
    """How far the query encoder is from its first weights, relative to them."""
    key_moved: float | None = None
    """The same of a key encoder that follows it."""
    key_apart: float | None = None
    """How far the key encoder is from the query encoder, relative to that."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Of an average step, by part."""
    device: str = "cpu"
    workers: int = 0

    @property
    def waiting(self) -> float | None:
        """The fraction of a step in which data are waited for."""
        total = sum(self.seconds.values())
        return self.seconds["data"] / total if total else None


def measure(resolved: Resolved, checkpoint: Checkpoint) -> Measured:
    """Refuses, with a sentence, what a run could not be resumed with: other data, parts that are not installed."""
    run_folder = checkpoint.folder.parents[1]
    forked = Forked(run=str(run_folder), step=checkpoint.step, digest=resolved.digest)
    start = ForkStart(run_folder, checkpoint, forked, checkpoint.state.threads)
    with (
        TemporaryDirectory() as folder,
        devices.close_process_group(),
        RunFolder(Path(folder) / "run", resolved.run.name, resume=False) as place,
    ):
        run = prepare_run(resolved.anchored(), place, resume=False, fork=start)
        torch.set_num_threads(checkpoint.state.threads or devices.thread_choices(run.spec.train, run.device.type)[0])
        found = Measured(device=run.device.type, workers=devices.workers(run.spec.train.workers, run.device.type))
        _compare_encoders(run, found)
        _look_at_batches(run, found)
        found.seconds = time_parts(run)  # last, for it trains
        return found


def _compare_encoders(run: Run, found: Measured) -> None:
    """Of a key encoder that follows the query encoder: how far each has come."""
    follower = next((each for each in run.method.key_encoder.children() if isinstance(each, Encoder)), None)
    if run.spec.method.key_encoder.key_weights != "following" or follower is None or run.spec.init is not None:
        return
    first, first_key = build.first_encoders(run.spec, len(run.split), run.split.labels)
    first_follower = next(each for each in first_key.children() if isinstance(each, Encoder))
    found.query_moved = _distance(first, run.method.encoder)
    found.key_moved = _distance(first_follower, follower)
    found.key_apart = _distance(run.method.encoder, follower)


@torch.no_grad()
def _distance(one: nn.Module, other: nn.Module) -> float:
    """‖θ_other − θ_one‖/‖θ_one‖ over the parameters of one name and shape that are trained in neither or in either."""
    there = dict(other.named_parameters())
    both = [
        (mine.detach().cpu().double(), there[name].detach().cpu().double())
        for name, mine in one.named_parameters()
        if name in there and there[name].shape == mine.shape
    ]
    apart = sum(float((b - a).square().sum()) for a, b in both)
    size = sum(float(a.square().sum()) for a, _ in both)
    return (apart / size) ** 0.5 if size else 0.0


@torch.no_grad()
def _look_at_batches(run: Run, found: Measured) -> None:
    """Of batches that the run would see next."""
    pair = _pair(run)
    untrained = devices.place(build.encoder(run.spec), run.device, run.spec.train.channels_last).eval()
    encoder = run.method.encoder.eval()
    counts: dict[str, list[int]] = {name: [0, 0] for name in ("mean_colour", "histogram", "pixels", "untrained")}
    features: list[Tensor] = []
    stream = batches(run.split, run.views, run.spec.train, run.device, epochs=run.epoch + 100, start_step=run.step)
    for batch in islice(stream, _BATCHES):
        views = {view: pixels_of(inputs).to(run.device) for view, inputs in batch["views"].items()}
        plain = _plain(run, batch["index"])
        with run.autocast():
            if plain is not None:
                features.append(encoder.features(plain).float().cpu())
            embed = untrained.features
            if pair is not None and _are_alike(*(views[view] for view in pair)):
                _count(counts, views[pair[0]], views[pair[1]], embed)
        found.samples += len(batch["index"])
        if found.samples >= _SAMPLES:
            break
    if features:
        _describe_features(torch.cat(features), found)
    if counts["pixels"][1]:
        for name, (right, total) in counts.items():
            setattr(found, name, right / total)
        found.chance = 1 / min(colours.GROUP, run.spec.train.batch_size)


def _plain(run: Run, index: Tensor) -> Tensor | None:
    """(B', ...) the samples as evaluation sees them, without those that cannot be read; None where none can."""
    dataset = EvalDataset(run.split, run.views)
    _, inputs, _ = collate_plain([dataset[at] for at in index.tolist()])
    return inputs.to(run.device) if inputs is not None else None


def _pair(run: Run) -> tuple[int, int] | None:
    """The first match of two different views."""
    return next(((match.query, match.key) for match in run.method.matches if match.query != match.key), None)


def _are_alike(query: Tensor, key: Tensor) -> bool:
    """Whether both are images of the same channels."""
    images = query.dim() == key.dim() == _AUGMENTED and query.is_floating_point() and key.is_floating_point()
    return images and query.shape[1] == key.shape[1]


def _count(counts: dict[str, list[int]], query: Tensor, key: Tensor, embed: Callable[[Tensor], Tensor]) -> None:
    both = torch.cat([query.float().amin(dim=(2, 3)), key.float().amin(dim=(2, 3))]).amin(dim=0)
    high = torch.cat([query.float().amax(dim=(2, 3)), key.float().amax(dim=(2, 3))]).amax(dim=0)
    looked_up: dict[str, Callable[[Tensor], Tensor]] = {
        "mean_colour": colours.mean_colour,
        "histogram": lambda view: colours.histogram(view, both, high),
        "pixels": colours.pixels,
        "untrained": lambda view: nn.functional.normalize(embed(view).float(), dim=1),
    }
    for name, describe in looked_up.items():
        right, total = colours.count_found(describe(query), describe(key))
        counts[name][0] += right
        counts[name][1] += total


def _describe_features(features: Tensor, found: Measured) -> None:
    found.features = features.shape[1]
    if len(features) > 1 and bool(torch.isfinite(features).all()):
        found.feature_std = health.measure_keys(features, 0).get("feature_std")
        centred = features - features.mean(dim=0)
        found.effective_rank = health.effective_rank(centred) if float(centred.abs().max()) > 0 else 1.0
