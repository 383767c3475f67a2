"""Published weights as a checkpoint of ours: a run's folder of step 0, whose weights are those of the file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from contralex.errors import ContralexError, did_you_mean, find_similar, remedy
from contralex.files import whole_folder
from contralex.importing.fitting import Fit, best_fit, fit
from contralex.importing.weights_file import read_weights
from contralex.lookup.slots import Encoder
from contralex.plugins.layouts import How, Layout
from contralex.plugins.registry import registry
from contralex.recipes.layers import Resolved
from contralex.training import build, folders, optimizers
from contralex.training.checkpoints import write
from contralex.training.checkpoints.state import CheckpointState

_ENCODER = "encoder."
_SHOWN = 6


@dataclass(frozen=True)
class Candidate:
    """A file that fits a recipe: ``found`` says which tensor becomes which, ``tensors`` are the file's, ``shapes`` the
    recipe's, for ``samples`` of training with their ``labels``."""

    file: Path
    resolved: Resolved
    found: Fit
    tensors: Mapping[str, Tensor]
    shapes: Mapping[str, tuple[int, ...]]
    samples: int
    labels: Sequence[int] | None
    data_given: bool


def layouts_for(recipes: Sequence[str]) -> list[Layout]:
    """Those of the recipe or of one that it extends, then those of backbones alone."""
    known = sorted(registry().layouts(), key=lambda layout: not layout.recipes)
    return [layout for layout in known if not layout.recipes or set(layout.recipes) & set(recipes)]


def match(
    file: Path,
    resolved: Resolved,
    recipes: Sequence[str],
    name: str | None = None,
    skip: Sequence[str] = (),
    *,
    data_given: bool = False,
) -> Candidate:
    """Find the layout by which a file fits a recipe. ``recipes``: its name, and those that it extends. ``name``: of the
    layout; None: the one that accounts for most. ``data_given``: the recipe's data are read, for the number of samples.
    """
    candidates = _chosen(layouts_for(recipes), name, resolved.run.name)
    if resolved.run.init is not None:
        raise ContralexError("init: the weights of an imported checkpoint are the file's; take init out of the recipe")
    tensors = read_weights(file)
    count, labels = 1, None
    if data_given:
        split = build.read_source(resolved.run.data).train()
        count, labels = len(split), split.labels
    method = build.look_up(resolved.run, count, labels)
    ours = {name: tuple(tensor.shape) for name, tensor in method.state_dict().items()}
    theirs = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    fits = [fit(layout, theirs, ours, skip) for layout in candidates]
    found = best_fit(fits)
    if found is None:
        raise ContralexError(
            f"{file} has no tensor that fits {resolved.run.name} by any layout that is known for it "
            f"({', '.join(layout.name for layout in candidates)}); its tensors are called {_first(theirs)}"
        )
    return Candidate(file, resolved, found, tensors, ours, count, labels, data_given)


def check(candidate: Candidate, way_out: str = "") -> None:
    """Raises :class:`ContralexError` where a tensor of the file is neither read nor left out for a reason.

    ``way_out``: the sentence that says what mends it; without it, that of ``contralex import``.
    """
    found = candidate.found
    if not found.problems:
        return
    listed = "; ".join(f"{name}: {problem}" for name, problem in list(found.problems.items())[:_SHOWN])
    more = f"; and {len(found.problems) - _SHOWN} more" if len(found.problems) > _SHOWN else ""
    note = f" {found.layout.note}" if found.layout.note else ""
    skip = remedy("--skip", next(iter(found.problems)))
    way_out = way_out or f"Give the recipe the sizes of the file by --set, or leave tensors out:{skip}"
    raise ContralexError(
        f"{candidate.file} does not fit {candidate.resolved.run.name} by the layout {found.layout.name}: {listed}"
        f"{more}.{note} {way_out}"
    )


def write_run(candidate: Candidate, out: Path | None) -> Path:
    """Write the run's folder, whole or not at all. Returns it."""
    resolved = candidate.resolved.anchored()
    found = candidate.found
    values = {name: _converted(candidate.tensors[theirs], how) for name, (theirs, how) in found.read.items()}
    # Without data any number of samples does, so that what depends on it is seen by a second one.
    samples = candidate.samples + (not candidate.data_given)
    model = build.look_up(resolved.run, samples, candidate.labels, begin=_loader(values))
    state = model.state_dict()
    _check_sizes(candidate, state)
    for name, value in values.items():
        state[name].copy_(value.reshape(state[name].shape))
    optimizer = optimizers.build(resolved.run.train.optimizer, model)
    with candidate.file.open("rb") as file:  # a link, too, as those of a hub's cache
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    imported = {"file": candidate.file.name, "sha256": digest, "layout": found.layout.name, "new": found.new}
    place, made = folders.make_new(folders.name_by_time(resolved.run.name)) if out is None else (out, folders.make(out))
    try:
        with whole_folder(place) as draft:
            (draft / folders.SPEC).write_text(resolved.to_yaml(), "utf-8")
            write.save(draft / "checkpoints", CheckpointState.make(resolved, 0, imported=imported), state, optimizer)
    except OSError as error:
        raise ContralexError(f"--out {place}: the run cannot be written ({error.strerror or error})") from None
    finally:
        folders.remove_empty(made)
    return place


def _check_sizes(candidate: Candidate, state: Mapping[str, Tensor]) -> None:
    """Refuses a method that keeps something of each sample, where it is not known how many there are."""
    depends = next((name for name, tensor in state.items() if tuple(tensor.shape) != candidate.shapes[name]), None)
    if depends is not None:
        raise ContralexError(
            f"{candidate.resolved.run.name} keeps something of each sample of its data ({depends}), so their number "
            "must be known; name the data that it is trained on:" + remedy("--data", "FOLDER")
        )


def _loader(values: Mapping[str, Tensor]) -> Callable[[Encoder], None]:
    """Puts the encoder's weights into it before a key encoder copies them."""

    def begin(encoder: Encoder) -> None:
        state = encoder.state_dict()
        for name, tensor in state.items():
            if _ENCODER + name in values:
                tensor.copy_(values[_ENCODER + name].reshape(tensor.shape))

    return begin


def _converted(tensor: Tensor, how: How) -> Tensor:
    return tensor.T if how == "transposed" else tensor


def _chosen(candidates: list[Layout], name: str | None, recipe: str) -> list[Layout]:
    if name is None:
        return candidates
    chosen = [layout for layout in candidates if layout.name == name]
    if not chosen:
        names = [layout.name for layout in candidates]
        way = did_you_mean(find_similar(name, names)) or f"there are {', '.join(names)}"
        raise ContralexError(f"--layout {name}: {recipe} has no layout of this name; {way}")
    return chosen


def _first(names: Mapping[str, object]) -> str:
    return ", ".join(list(names)[:3]) + (", ..." if len(names) > 3 else "")
