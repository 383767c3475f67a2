"""From a spec to the modules that run it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from contralex import progress
from contralex.data.base import Source
from contralex.errors import ContralexError
from contralex.lookup.clock import Schedule
from contralex.lookup.names import IMAGE, MAIN
from contralex.lookup.question import Question
from contralex.lookup.slots import Encoder, KeyEncoder, Loss, NegativeSource, TargetGenerator
from contralex.lookup.step import LookUp
from contralex.lookup.values import Match
from contralex.plugins.building import BuildContext
from contralex.plugins.registry import registry
from contralex.plugins.spec import Spec
from contralex.recipes import data_option
from contralex.recipes.code_files import permission
from contralex.recipes.paths import missing
from contralex.recipes.run_spec import RunSpec
from contralex.recipes.slot_paths import named_in_look_up, slot_path
from contralex.training import memory_checks, warm_start
from contralex.training.checkpoints.manifest import MODEL
from contralex.training.checkpoints.read import Checkpoint, open_checkpoint
from contralex.training.checkpoints.write import load_into


def look_up(
    spec: RunSpec,
    dataset_size: int,
    labels: Sequence[int] | None = None,
    *,
    fresh: bool = True,
    start: Checkpoint | None = None,
    begin: Callable[[Encoder], None] | None = None,
) -> LookUp:
    """The method of a spec, for a training set of ``dataset_size`` samples with these labels, if it has any. Weights
    are a function of the seed, and of the checkpoint that ``init`` names, which is only read for a ``fresh`` run.
    ``start``: that checkpoint, where it is open already. ``begin``: puts other weights into the encoder, before a key
    encoder copies them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.train.seed)
        if spec.init is not None and fresh:
            begin = partial(warm_start.load, spec=spec.init, checkpoint=start or warm_start.open_start(spec.init))
        return assemble(spec if fresh else _unloaded(spec), dataset_size, labels, begin)


def read_source(spec: Spec) -> Source:
    """Read the data that a spec names. Where a folder of a stored spec is gone, the mistake says how to find it."""
    try:
        with progress.during("Reading the data"):
            made: Source = spec.build()
    except ContralexError as error:
        if "--data" not in str(error) and (gone := missing(spec)):
            error.args = (f"{error} If the data have moved from {gone[0]}, say where they are with --data.",)
        raise
    return made


def evaluation_data(spec: RunSpec, data: str | None) -> Spec:
    """The spec of what ``--data`` names, without what the run's views need of data to train, such as captions; without
    it, of the run's own data."""
    if data is None:
        return spec.data
    block = data_option.block(data, {})
    kind = registry().find("data", block["kind"])
    if kind is None:
        raise ContralexError(f"data: {registry().hint('data', block['kind'])}")
    return kind.model_validate(block)


def encoder(spec: RunSpec) -> Encoder:
    """The query encoder alone, with the random weights that :func:`look_up` starts from."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.train.seed)
        made: Encoder = _part(spec, "encoder")
        return made


def assemble(
    spec: RunSpec,
    dataset_size: int,
    labels: Sequence[int] | None,
    begin: Callable[[Encoder], None] | None = None,
) -> LookUp:
    """As :func:`look_up`, with weights that are drawn from torch's generator as it stands."""
    made, key_encoder, context = _encoders(spec, dataset_size, labels, begin)
    built: dict[str, _Slots] = {}
    for name in spec.method.questions():
        sources = {question: slots.negatives for question, slots in built.items()}
        built[name] = _Slots.build(spec, name, BuildContext(**{**vars(context), "sources": sources}))
    own = built.pop(MAIN)
    look_ups = {name: Question(**vars(slots)) for name, slots in built.items()}
    return LookUp(made, key_encoder, **vars(own), look_ups=look_ups)


@dataclass(frozen=True)
class _Slots:
    """What a look-up has of its own."""

    negatives: NegativeSource
    targets: TargetGenerator
    loss: Loss
    matches: Sequence[Match]
    reduction: str
    weight: float | Schedule
    of: str

    @classmethod
    def build(cls, spec: RunSpec, question: str, context: BuildContext) -> _Slots:
        asked = spec.method.questions()[question]
        matches = [Match(query, key) for query, key in spec.matches(question)]
        own = {
            **vars(context),
            "dim": _width(context.encoder, asked.of),
            "key_views": tuple(sorted({match.key for match in matches})),
            "query_views": tuple(sorted({match.query for match in matches})),
        }
        negatives = _part(spec, "negatives", BuildContext(**own), question=question)
        targets, loss = (
            _part(spec, slot, BuildContext(**{**own, "negatives": negatives}), question=question)
            for slot in ("targets", "loss")
        )
        return cls(negatives, targets, loss, matches, asked.reduction, asked.weight, asked.of)


def _width(encoder: Encoder, output: str) -> int:
    return encoder.dim if output == IMAGE else encoder.outputs[output]


def _unloaded(spec: RunSpec) -> RunSpec:
    """For weights that are read from a checkpoint next: a backbone loads no published ones before."""
    return spec.model_copy(update={"method": spec.method.without_published_weights()})


def first_encoders(spec: RunSpec, dataset_size: int, labels: Sequence[int] | None) -> tuple[Encoder, KeyEncoder]:
    """The query encoder and the key encoder alone, with the random weights that :func:`look_up` starts from."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.train.seed)
        return _encoders(spec, dataset_size, labels, None)[:2]


def _encoders(
    spec: RunSpec,
    dataset_size: int,
    labels: Sequence[int] | None,
    begin: Callable[[Encoder], None] | None,
) -> tuple[Encoder, KeyEncoder, BuildContext]:
    """Both encoders, and the context in which the other parts are built."""
    made: Encoder = _part(spec, "encoder")
    if begin is not None:  # before a key encoder copies the weights
        begin(made)
    matches = [pair for question in spec.method.questions() for pair in spec.matches(question)]
    context = BuildContext(
        dim=made.dim,
        dataset_size=dataset_size,
        batch_size=spec.train.look_up_size,
        key_views=tuple(sorted({key for _, key in matches})),
        encoder=made,
        fresh_encoder=spec.method.encoder.build,
        labels=None if labels is None else torch.as_tensor(labels),
        query_views=tuple(sorted({query for query, _ in matches})),
        load_encoder=load_encoder,
    )
    key_encoder: KeyEncoder = _part(spec, "key_encoder", context)
    return made, key_encoder, BuildContext(**{**vars(context), "key_encoder": key_encoder})


def _part(spec: RunSpec, slot: str, *context: BuildContext, question: str = MAIN) -> Any:
    with memory_checks.Guard(spec, slot_path(question, slot)), named_in_look_up(question):
        return getattr(spec.method.questions()[question], slot).build(*context)


def load_encoder(path: str | Path, *, allow_code: bool = False) -> Encoder:
    """The query encoder of a checkpoint, in evaluation mode.

    ``allow_code``: the Python files that its spec names in ``code`` may be run.

    >>> import contralex, torch
    >>> encoder = contralex.load_encoder("runs/my-run")
    >>> encoder(torch.rand(2, 3, 32, 32)).shape, encoder.features(torch.rand(2, 3, 32, 32)).shape
    (torch.Size([2, 128]), torch.Size([2, 256]))
    """
    checkpoint = open_checkpoint(Path(path), [MODEL])
    with permission(allow_code):
        return encoder_of(checkpoint, checkpoint.resolved().run)


def encoder_of(checkpoint: Checkpoint, spec: RunSpec) -> Encoder:
    """The query encoder of a checkpoint that is open, and whose spec is resolved, in evaluation mode."""
    made = encoder(_unloaded(spec))
    prefix = "encoder."
    mine = {name.removeprefix(prefix): tensor for name, tensor in checkpoint.tensors(prefix=prefix).items()}
    load_into(made, mine, checkpoint.folder / MODEL)
    return made.eval()


def load_backbone(path: str | Path, *, allow_code: bool = False) -> nn.Module:
    """The backbone of a checkpoint's encoder, in evaluation mode: images (B, C, H, W) to features (B, F).

    For torchvision and timm backbones it is their own model without its classifier, so its ``state_dict`` goes
    into a model of theirs with ``strict=False``.

    >>> import contralex, torch
    >>> contralex.load_backbone("runs/my-run")(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 256])
    """
    made = load_encoder(path, allow_code=allow_code)
    if made.backbone is None:
        raise ContralexError(
            f"{path}: the encoder {type(made).__name__} has no backbone of its own; use load_encoder(...).features."
        )
    return made.backbone
