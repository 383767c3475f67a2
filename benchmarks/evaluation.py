"""Evaluation of image files: the features of a folder by ``contralex.embed``, and the baselines of a training.

2,000 small JPEG files, and 400 photographs of 500x375. Features are those of a small network. Beside contralex stand a
loop by hand, with ``ImageFolder``, torchvision's transforms and a ``DataLoader``, and lightly's ``embed``. All have the
same network, pixels, batches and number of workers, which is contralex's own for this machine; contralex has workers
for folders of 2,000 images or more. Its side also opens the checkpoint and builds the network.

The baselines, raw pixels and the untrained network, are what a run evaluates before its first step, by kNN alone or by
kNN and a linear probe. They stand beside the training epoch of the same run.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

import contralex
from benchmarks.measuring import OURS, Case, Options, Peers, Report, compare, compare_calls, main
from benchmarks.photographs import SMALL, WIDE, write_folder
from benchmarks.ready import CLOCK, ON_START
from benchmarks.step import CODE
from contralex.training import devices
from contralex.training.evaluating import RunEvaluation

BATCH = 256  # of evaluation, contralex's default
MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
RECIPE = """\
schema: 1
name: evaluation
extends: moco-v2
code: {code}
method:
  views: {{groups: {{crops: {{augment: {{crop: {{size: {pixels}}}}}}}}}}}
  encoder: {{backbone: {{kind: conv, widths: [32, 64], strides: [4, 2]}}}}
  negatives: {{size: 32}}
data: {{kind: image_folder, root: {root}}}
train: {{epochs: 1, batch_size: 32, batch_norm: local}}
eval: {{knn: {{k: 20}}}}
"""


@dataclass(frozen=True)
class Folder:
    """Image files below ``root``: four fifths in ``train``, and the others in ``test``."""

    name: str
    root: Path
    pixels: int

    def train(self, out: Path, **sets: Any) -> None:
        """A run of one epoch without printing. Threads are chosen as a run does, and are as before afterwards."""
        threads = torch.get_num_threads()
        file = out.with_suffix(".yaml")
        file.write_text(RECIPE.format(code=CODE, root=self.root, pixels=self.pixels), "utf-8")
        try:
            with redirect_stderr(StringIO()):
                contralex.train(file, out=out, sets=sets, allow_code=True)
        finally:
            torch.set_num_threads(threads)


def measure(options: Options, report: Report, peers: Peers) -> None:
    with tempfile.TemporaryDirectory() as name:
        for folder in write_folders(Path(name), options):
            report.add(extraction(folder, Path(name), options, peers))
            judges: dict[str, dict[str, Any]] = {"kNN": {}, "kNN, linear probe": {"eval.linear": {}}}
            for words, sets in list(judges.items())[-1:] if options.small else judges.items():
                report.add(baselines(f"baselines ({words}), {folder.name}", Baselines(folder, sets), options))


def write_folders(root: Path, options: Options) -> list[Folder]:
    found = []
    for number, size, pixels in ((2000, SMALL, 32), (400, WIDE, 224)):
        count = 40 if options.small else number
        folder = Folder(f"{count} files of {size[0]}x{size[1]}", root / f"photographs-{pixels}", pixels)
        write_folder(folder.root / "train", count * 4 // 5, size)
        write_folder(folder.root / "test", count // 5, size)
        found.append(folder)
    return found


def extraction(folder: Folder, root: Path, options: Options, peers: Peers) -> Case:
    run, checkpoint = root / f"run-{folder.pixels}", root / f"checkpoint-{folder.pixels}"
    folder.train(run, **{"train.max_steps": 1, "eval.knn": None})
    (run / "checkpoints" / "step-1").rename(checkpoint)  # for a checkpoint by itself no features are kept
    network = contralex.load_backbone(checkpoint, allow_code=True)
    workers = devices.workers(None, "cpu")
    found: dict[str, Tensor] = {}

    def keep(side: str, extract: Callable[[], Tensor]) -> None:
        found[side] = extract()

    sides: dict[str, Callable[[], Tensor]] = {
        OURS: lambda: contralex.embed(checkpoint, folder.root, allow_code=True).features,
        "torch by hand": lambda: by_hand(folder, network, workers),
    }
    data, embedding = peers.load("lightly.data", "lightly"), peers.load("lightly.embedding", "lightly")
    if data and embedding:
        sides["lightly"] = lambda: by_lightly(data, embedding, folder, network, workers)
    name = f"features of {folder.name}, {workers} worker{'s' if workers > 1 else ''}"
    case = compare_calls(name, {side: partial(keep, side, extract) for side, extract in sides.items()}, options)
    for side in found.keys() - {OURS}:
        difference = (found[side] - found[OURS]).norm() / found[OURS].norm()
        case.figures[f"relative difference of the features, {side}"] = float(difference)
    return case


def plain_pixels(pixels: int) -> transforms.Compose:
    """What contralex's evaluation does to an image for views of so many pixels, in torchvision's words."""
    resize: list[Any] = [transforms.Resize((pixels, pixels))]
    if pixels > 64:
        resize = [transforms.Resize(256), transforms.CenterCrop(pixels)]
    return transforms.Compose([*resize, transforms.ToTensor(), transforms.Normalize(MEAN, DEVIATION)])


@torch.no_grad()
def by_hand(folder: Folder, network: nn.Module, workers: int) -> Tensor:
    images = datasets.ImageFolder(str(folder.root), plain_pixels(folder.pixels))
    return torch.cat([network(batch) for batch, _ in DataLoader(images, BATCH, num_workers=workers)])


def by_lightly(data: Any, embedding: Any, folder: Folder, network: nn.Module, workers: int) -> Tensor:
    images = data.LightlyDataset(str(folder.root), transform=plain_pixels(folder.pixels))
    model = nn.Module()
    model.backbone = network
    with redirect_stderr(StringIO()):  # where its bar goes
        encoder = embedding.SelfSupervisedEmbedding(model, None, None, None)
        features, *_ = encoder.embed(DataLoader(images, BATCH, num_workers=workers), torch.device("cpu"))
    return torch.as_tensor(features)


class Baselines:
    """Runs, each of which gives two figures: the seconds of its baselines, and of its epoch."""

    def __init__(self, folder: Folder, sets: dict[str, Any]) -> None:
        self.folder, self.sets = folder, sets
        self._measured: dict[str, float] = {}

    def take(self, name: str) -> float:
        """A figure of the last run, or of a new one where it was taken already."""
        if name not in self._measured:
            self._measured = self._run()
        return self._measured.pop(name)

    def _run(self) -> dict[str, float]:
        seconds: list[float] = []
        starts: list[float] = []
        evaluate = RunEvaluation.before_the_first_step

        def timed(evaluation: RunEvaluation) -> None:
            began = time.perf_counter()
            evaluate(evaluation)
            seconds.append(time.perf_counter() - began)

        def start(run: Any) -> None:
            starts.append(time.perf_counter())

        CLOCK.start(1)
        ON_START.append(start)
        try:
            with patch.object(RunEvaluation, "before_the_first_step", timed), tempfile.TemporaryDirectory() as name:
                self.folder.train(Path(name, "run"), **self.sets)
        finally:
            ON_START.remove(start)
        return {"baselines": seconds[0], "epoch": CLOCK.ends[-1] - starts[0]}


def baselines(name: str, runs: Baselines, options: Options) -> Case:
    rounds = 1 if options.small else options.rounds
    return compare(name, {OURS: lambda: runs.take("baselines"), "an epoch": lambda: runs.take("epoch")}, rounds)


if __name__ == "__main__":
    main(__doc__ or "", "evaluation", measure)
