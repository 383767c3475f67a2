"""Checkpoints: safetensors and JSON in a folder that is complete or absent, and never pickle.

``checkpoints/step-N/`` holds ``model.safetensors`` (the whole method: encoder, key encoder, queue or bank,
prototypes, normalisers), ``optimizer.safetensors``, ``state.json`` (the step, the optimiser's numbers, the resolved
spec with its digest, the plugins' versions, the metrics) and ``manifest.json`` (every file's size and SHA-256).
``checkpoints/last`` is a text file naming the newest. Randomness is a function of the step, so no generator's state
needs to be kept. :mod:`contralex.training.checkpoints.read` finds one that is whole.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from contralex.errors import ContralexError, command_to_resume
from contralex.files import to_disk, write_text
from contralex.training.checkpoints import manifest, read, retention
from contralex.training.checkpoints.hook_state import PREFIX
from contralex.training.checkpoints.manifest import MODEL, OPTIMIZER, STATE
from contralex.training.checkpoints.read import Checkpoint
from contralex.training.checkpoints.state import CheckpointState
from contralex.training.checkpoints.tensor_file import save_file
from contralex.training.optimizers import LARS, match_layout

# What each optimiser keeps of a parameter once that has moved.
_KEPT: dict[type[Optimizer], set[str]] = {
    SGD: {"momentum_buffer"},
    LARS: {"momentum_buffer"},
    Adam: {"step", "exp_avg", "exp_avg_sq"},
    AdamW: {"step", "exp_avg", "exp_avg_sq"},
}


_RESUME = "resume with the spec that the run was started with, or start a new run"


class KeptState(Protocol):
    """What a checkpoint keeps of an optimiser."""

    def state_dict(self) -> dict[str, Any]: ...


class NotSaved(ContralexError):
    """A checkpoint could not be written; those from before are whole."""

    exit_code = 1


def save(
    folder: Path,
    state: CheckpointState,
    tensors: dict[str, Tensor],
    optimizer: KeptState,
    of_hooks: Mapping[str, Tensor] | None = None,
) -> Path:
    """Writes ``folder/step-N`` at once: under another name first, then renamed, then named in ``last``.

    ``tensors``: the model's. ``of_hooks``: what life-cycle hooks keep, under names of :mod:`.hook_state`. The
    optimiser's numbers are added to ``state``.
    """
    moments, numbers = flatten_optimizer(optimizer)
    text = state.model_copy(update={"optimizer": numbers}).to_json()
    target = folder / f"step-{state.step}"
    draft = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f".{target.name}-{os.getpid()}_{time.time_ns()}"
        draft.mkdir()
        (draft / STATE).write_text(text, "utf-8")
        files = {MODEL: tensors, OPTIMIZER: {**moments, **(of_hooks or {})}}
        manifest.write(draft, {name: save_file(content, draft / name) for name, content in files.items()})
        _put(draft, target)
        write_text(folder / "last", target.name + "\n")
    except OSError as error:
        raise _not_saved(target, error, state) from error
    finally:
        if draft is not None and draft.exists():
            retention.remove(draft)
    return target


def _put(draft: Path, target: Path) -> None:
    """Gives a draft its name. One that has it already is set aside first, and goes when the new one is in place."""
    aside = None
    if os.path.lexists(target):
        aside = target.with_name(f".{target.name}-before_{os.getpid()}")
        target.rename(aside)
    try:
        draft.rename(target)
        to_disk(target.parent)
    except OSError:
        if aside is not None and not os.path.lexists(target):
            aside.rename(target)
        raise
    if aside is not None:
        retention.remove(aside)


def _not_saved(target: Path, error: OSError, state: CheckpointState) -> NotSaved:
    folder = target.parent
    reason = error.strerror or str(error)
    good = next((path for path in read.steps(folder) if read.is_whole(path)), None) if folder.is_dir() else None
    onward = command_to_resume(folder.parent, *(["--allow-code"] if state.has_code else []))
    way = f"the last good one is {good}, and the run goes on from it with:{onward}" if good else "there is no other"
    return NotSaved(f"The checkpoint {target} could not be written ({reason}); make room or mend the disk; {way}")


def restore(
    checkpoint: Checkpoint,
    model: nn.Module,
    optimizer: Optimizer,
    transform: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict,
    way_out: str = _RESUME,
) -> None:
    """Puts a checkpoint's tensors into a model and an optimiser built from the same spec, or nothing where one does not
    fit. ``transform`` is what becomes of the model's tensors before they are compared and loaded. ``way_out``: what to
    do where they do not fit."""
    tensors = transform(checkpoint.tensors())
    state: dict[int, dict[str, Any]] = {}
    moments = {key: value for key, value in checkpoint.tensors(OPTIMIZER).items() if not key.startswith(PREFIX)}
    for key, value in [*moments.items(), *checkpoint.state.optimizer.items()]:
        place, _, name = key.partition(".")
        state.setdefault(int(place) if place.isdecimal() and len(place) < 10 else -1, {})[name] = value
    _check_tensors(model, tensors, checkpoint.folder / MODEL, way_out)
    _check_optimizer(optimizer, state, checkpoint.folder / OPTIMIZER, way_out)
    model.load_state_dict(tensors)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    # Sums over what is kept of a parameter are then those of an uninterrupted run, and one kernel serves both.
    for parameter, kept in optimizer.state.items():
        match_layout(parameter, kept)


def load_into(model: nn.Module, tensors: dict[str, Tensor], where: Path) -> None:
    """Tensors that have the names, shapes and types of the model's own, or nothing."""
    _check_tensors(model, tensors, where, _RESUME)
    model.load_state_dict(tensors)


def _check_tensors(model: nn.Module, tensors: Mapping[str, Tensor], where: Path, way_out: str) -> None:
    own = model.state_dict()
    problems = [f"it has no {name}" for name in own if name not in tensors]
    problems += [f"the spec has no {name}" for name in tensors if name not in own]
    for name in own.keys() & tensors.keys():
        found, wanted = tensors[name], own[name]
        if found.shape != wanted.shape or found.dtype != wanted.dtype:
            problems.append(f"{name} is {_shown(found)}, and the spec makes {_shown(wanted)}")
    _refuse(where, sorted(problems), way_out)


def _check_optimizer(optimizer: Optimizer, state: dict[int, dict[str, Any]], where: Path, way_out: str) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    kept = _KEPT.get(type(optimizer))
    problems = []
    for place, entries in sorted(state.items()):
        if not 0 <= place < len(parameters):
            problems.append(f"it has the state of a parameter {place}, and the spec makes {len(parameters)}")
            continue
        if kept is not None and entries.keys() != kept:
            problems.append(
                f"parameter {place} has {', '.join(sorted(entries))} where {type(optimizer).__name__} keeps "
                f"{', '.join(sorted(kept))}"
            )
        for name, value in entries.items():
            wanted = parameters[place]
            is_number = not isinstance(value, Tensor) or (name == "step" and value.shape == ())
            if not is_number and (value.shape != wanted.shape or value.dtype != wanted.dtype):
                problems.append(f"{place}.{name} is {_shown(value)}, and the parameter {_shown(wanted)}")
    _refuse(where, problems, way_out)


def _refuse(where: Path, problems: list[str], way_out: str) -> None:
    if problems:
        more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ContralexError(f"{where} does not fit the spec: {'; '.join(problems[:5])}{more}; {way_out}.")


def _shown(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"


def flatten_optimizer(optimizer: KeptState) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The optimiser's state as tensors and plain numbers, keyed ``<parameter>.<name>``."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for place, entries in optimizer.state_dict()["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{place}.{name}"] = value
            elif value is not None:
                numbers[f"{place}.{name}"] = value
    return tensors, numbers
