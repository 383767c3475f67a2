"""What has changed between a checkpoint and the run that goes on from it: its spec, its plugins, its queue.

A resumed run insists on what it was started with. With ``--allow-drift`` it takes what there is now; what that changed
is said, and stands in every later checkpoint's ``state.json`` under ``drift``, with the step.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from contralex.errors import ContralexError, command_to_resume, remedy
from contralex.training.checkpoints.plugin_versions import plugin_changes

if TYPE_CHECKING:
    from torch import Tensor

    from contralex.data.base import Split
    from contralex.lookup.step import LookUp
    from contralex.recipes.layers import Resolved
    from contralex.training.checkpoints.read import Checkpoint


def check(found: Checkpoint, resolved: Resolved, allowed: bool, *, say: bool) -> list[dict[str, Any]]:
    """The ``drift`` of the checkpoints to come. Refuses what differs unless it is ``allowed``, which is warned of."""
    plugins = list(plugin_changes(found.folder, found.state.plugins, needed=resolved.plugins if allowed else None))
    changes = [*spec_changes(found, resolved, allowed), *plugins]
    before = list(found.state.drift)
    if not changes:
        return before
    listed = "; ".join(changes)
    out = found.folder.parents[1]
    if not allowed:
        raise ContralexError(
            f"{out} was started with another spec or other versions: {listed}; go on with its own (pip install "
            "those versions), or take the present ones:"
            + command_to_resume(out)
            + command_to_resume(out, "--allow-drift")
        )
    check_groups(found, resolved)
    if say:
        logging.getLogger("contralex").warning("%s goes on from step %d with: %s.", out, found.step, listed)
    return [*before, {"step": found.step, "changes": changes}]


def spec_changes(found: Checkpoint, resolved: Resolved, allowed: bool) -> list[str]:
    """Every value that differs, as ``train.optimizer.lr: 0.03 → 0.06``."""
    from contralex.recipes.diff import changes, diff
    from contralex.recipes.layers import NOT_COMPUTED, resolve_data

    if found.state.digest == resolved.digest:
        return []
    # Resolved again: a default that was added to a spec since changes an older run's digest as it changes this one's.
    try:
        begun = resolve_data(found.state.spec, where=str(found.folder / "state.json"))
    except ContralexError:
        if not allowed:
            raise
        found_changes = changes(found.state.spec, resolved.data)  # its parts are not all installed any more
    else:
        if begun.digest == resolved.digest:
            return []
        found_changes = diff(begun, resolved)
    free = [f"train.{name}" for name in NOT_COMPUTED]
    listed = [str(each) for each in found_changes if ".".join(each.path.split(".")[:2]) not in free]
    return listed or ["the order of the keys of a block differs"]


def describe_samples(split: Split) -> dict[str, Any]:
    """By which the samples that a run is trained on are known again, wherever they lie: how many, and their labels."""
    labels = None if split.labels is None else hashlib.sha256(repr(list(split.labels)).encode()).hexdigest()[:16]
    return {"count": len(split), "labels": labels}


def samples_change(found: Checkpoint, now: dict[str, Any]) -> str | None:
    """How the samples differ from those that a run began with; None where they do not."""
    before = found.state.samples or now  # of an older run it is not known
    if before == now:
        return None
    counts = f"{before.get('count')} samples → {now['count']}"
    return f"data: {counts}" if before.get("count") != now["count"] else f"data: other labels of {now['count']} samples"


def check_samples(found: Checkpoint, now: dict[str, Any], allowed: bool) -> list[dict[str, Any]]:
    """What to add to the ``drift``. A step's samples go by their number, so more or fewer of them are another run."""
    change = samples_change(found, now)
    if change is None:
        return []
    if not allowed:
        raise ContralexError(
            f"{found.folder.parents[1]} was started on other data ({change}); bring them back, say with --data where "
            "they are now, or go on with these by --allow-drift."
        )
    return [{"step": found.step, "changes": [change]}]


def used_versions(found: Checkpoint | None, resolved: Resolved) -> dict[str, str]:
    """What a run uses, in the versions that are there.

    A resumed run's ``spec.yaml`` no longer says whose recipe it was; its checkpoint does.
    """
    from contralex.plugins.registry import registry

    used = {**(found.state.plugins if found is not None else {}), **resolved.plugins}
    known = {name: registry().find_plugin(name) for name in used}
    return {name: plugin.version for name, plugin in known.items() if plugin is not None and plugin.usable}


def check_groups(found: Checkpoint, resolved: Resolved) -> None:
    """The optimiser's state goes by the order of its parameters, which the groups make."""
    optimizer = found.state.spec.get("train", {}).get("optimizer", {})
    before = [group.get("match") for group in optimizer.get("groups", [])]
    now = [group.match for group in resolved.run.train.optimizer.groups]
    if before != now:
        raise ContralexError(
            f"train.optimizer.groups: {found.folder} has the optimiser's state in the order of the groups {before}, "
            f"and not of {now}; leave what each group matches as it was, or start a new run."
        )
    decay, own_decay = optimizer.get("layer_decay", 1.0), resolved.run.train.optimizer.layer_decay
    if (decay == 1) != (own_decay == 1):
        raise ContralexError(
            f"train.optimizer.layer_decay: {found.folder} has the optimiser's state in the order of the layers of "
            f"{decay:g}, and not of {own_decay:g}; leave it as it was, or start a new run:"
            + remedy("--set", f"train.optimizer.layer_decay={decay:g}")
        )


def resize_sources(tensors: Mapping[str, Tensor], model: LookUp) -> dict[str, Tensor]:
    """A checkpoint's tensors, with what negative sources remember in the sizes that ``model``, as built, has."""
    from contralex.lookup.slots import NegativeSource

    made = dict(tensors)
    for path, part in model.named_modules():
        if isinstance(part, NegativeSource):
            names = {
                f"{path}.{name}": name for name, _ in part.named_buffers(recurse=False) if f"{path}.{name}" in made
            }
            found = part.resize_buffers({name: made[full] for full, name in names.items()})
            made.update({f"{path}.{name}": value for name, value in found.items()})
    return made
