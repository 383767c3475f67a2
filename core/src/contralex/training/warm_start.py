"""The weights that a run begins with where its spec has ``init``: those of another run's encoder, where they fit."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from contralex.errors import ContralexError, error_at
from contralex.training.checkpoints import header
from contralex.training.checkpoints.manifest import MODEL
from contralex.training.checkpoints.read import Checkpoint, open_checkpoint

if TYPE_CHECKING:
    from contralex.lookup.slots import Encoder
    from contralex.recipes.run_spec import InitSpec

_PREFIX = "encoder."  # of the query encoder's tensors in a checkpoint


@dataclass(frozen=True)
class WarmStart:
    """Where an encoder's first weights are from."""

    checkpoint: Checkpoint
    loaded: list[str]
    """The names of the encoder's tensors that are read from the checkpoint."""
    new: list[str]
    """The names of the others."""

    def sentence(self) -> str:
        modules = list(dict.fromkeys(_module(name) for name in self.new))
        more = f" and {len(modules) - 6} more" if len(modules) > 6 else ""
        new = f"new: {', '.join(modules[:6])}{more}" if modules else "none is new"
        return f"The encoder starts from {self.checkpoint.folder}: {len(self.loaded)} tensors; {new}."


def open_start(spec: InitSpec) -> Checkpoint:
    """The checkpoint that ``init`` names, once everything in it is checked."""
    with error_at("init.checkpoint"):
        return open_checkpoint(Path(spec.checkpoint), [MODEL])


def match(encoder: Encoder, spec: InitSpec, checkpoint: Checkpoint) -> WarmStart:
    """What fits by name and shape, and is not to be left out. Reads headers alone."""
    there = {stored.name: stored.shape for stored in header.read(checkpoint.folder / MODEL)}
    own = {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}
    loaded = [
        name
        for name, shape in own.items()
        if there.get(_PREFIX + name) == shape
        and _PREFIX + name not in checkpoint.state.without_weights
        and not any(fnmatchcase(name, pattern) for pattern in spec.skip)
    ]
    # BatchNorm's count of batches is one number in any layer, and goes with the layer's statistics.
    modules = {_module(name) for name in loaded if own[name]}
    loaded = [name for name in loaded if _module(name) in modules]
    if not loaded:
        raise ContralexError(
            f"init.checkpoint: no tensor of the encoder in {checkpoint.folder} has the name and the shape of one of "
            "method.encoder, so nothing would be taken; give method.encoder the backbone that the checkpoint has."
        )
    return WarmStart(checkpoint, loaded, [name for name in own if name not in loaded])


def load(encoder: Encoder, spec: InitSpec, checkpoint: Checkpoint) -> None:
    """Puts what fits of a checkpoint's query encoder into an encoder."""
    found = match(encoder, spec, checkpoint)
    tensors = checkpoint.tensors(prefix=_PREFIX)
    encoder.load_state_dict({**encoder.state_dict(), **{name: tensors[_PREFIX + name] for name in found.loaded}})


def _module(name: str) -> str:
    return name.rpartition(".")[0] or name
