"""The check on a plugin's life-cycle hooks."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from contralex.errors import ContralexError
from contralex.plugins.hooks import LIFE_CYCLE, PROJECT
from contralex.plugins.registry import Plugin, registry
from contralex.plugins.spec import Spec
from contralex.recipes.layers import Resolved, resolve_data
from contralex.recipes.walk import walk
from contralex.testing import matching_parts
from contralex.testing.check_errors import Failed, NotApplicable
from contralex.testing.plugin_contents import Kind, list_kinds
from contralex.testing.trials import list_trials, try_kind

_STEPS, _HALF = 4, 2


def hooks_take_part(plugin: Plugin) -> None:
    """The life-cycle hooks run in a real run of a few steps, and a run that is stopped and resumed ends with the same
    state of theirs: what they keep between steps is in ``state``."""
    for data in _runs(plugin):
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            _check_state(_make_small(data, Path(folder)), Path(folder))


def has_hooks(plugin: Plugin) -> bool:
    return any(name in LIFE_CYCLE for name in plugin.hooks)


def _runs(plugin: Plugin) -> Iterator[dict[str, Any]]:
    """The resolved data of runs in which each hook takes part in one: where the plugin is named, or one of the kinds is
    used to which hooks belong."""
    kinds = {name: getattr(plugin.module, name).contralex_kinds for name in LIFE_CYCLE if name in plugin.hooks}
    if not all(kinds.values()):
        yield {**_plain_run(), "plugins": [{"name": plugin.name, **_example(plugin.settings)}]}
    waiting = {name: specs for name, specs in kinds.items() if specs}
    for trial in list_trials(plugin) if waiting else []:
        if not trial.data:
            continue
        used = {type(value) for _, value in walk(trial.spec) if isinstance(value, Spec)}
        settled = [name for name, specs in waiting.items() if specs & used]
        if settled:
            settings = _example(plugin.settings)
            yield {**trial.data, "plugins": [{"name": plugin.name, **settings}]} if settings else trial.data
        for name in settled:
            del waiting[name]
    if waiting:
        raise NotApplicable(f"no small method uses a kind to which {' and '.join(waiting)} belongs")


def _example(settings: type[Spec] | None) -> Mapping[str, Any]:
    if settings is None:
        return {}
    try:
        return settings.model_validate(settings.example).model_dump(mode="json")
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, one["loc"])) or one["msg"] for one in error.errors())
        raise Failed(
            f"{settings.__name__}.example makes no valid settings ({fields}); give it the values of a tiny run"
        ) from None


def _plain_run() -> dict[str, Any]:
    """A small method of the core's parts."""
    core = registry().plugins[PROJECT]
    kinds: list[Kind] = list_kinds(core)
    loss = next(kind for kind in kinds if str(kind) == "loss info_nce")
    return next(trial.data for trial in try_kind(loss, kinds))


def _make_small(data: dict[str, Any], folder: Path) -> Resolved:
    steps = [f"train.max_steps={_STEPS}", f"train.epochs={_STEPS}", "train.batch_size=8", "train.precision=fp32"]
    kept = [f"train.checkpoint={{every_steps: {_HALF}, keep_last: {_STEPS}}}", "train.on_hook_error=stop"]
    quiet = ["train.workers=0", "train.log_every=1", "train.trackers=[]", "eval.knn=null", "eval.linear=null"]
    spec = resolve_data(data).run.data
    tiny = matching_parts.write_tiny_data(spec, str(folder / "data")).model_dump(mode="json")
    return resolve_data({**data, "data": tiny}, sets=[*steps, *kept, *quiet])


def _check_state(resolved: Resolved, folder: Path) -> None:
    from contralex.training.run import train

    whole, stopped = folder / "whole", folder / "stopped"
    train(resolved, whole)
    expected = _state(whole)
    shutil.copytree(whole, stopped)
    for step in range(_HALF + 1, _STEPS + 1):
        shutil.rmtree(stopped / "checkpoints" / f"step-{step}", ignore_errors=True)
    (stopped / "checkpoints" / "last").write_text(f"step-{_HALF}\n", "utf-8")
    try:
        train(resolved, stopped, resume=True)
    except ContralexError as error:
        raise Failed(f"a run that is resumed from step {_HALF} fails: {error}") from None
    found = _state(stopped)
    odd = [name for name in dict.fromkeys([*expected, *found]) if not _are_equal(expected.get(name), found.get(name))]
    if odd:
        raise Failed(
            f"after a resume its state {' and '.join(odd[:3])} is another than in a run that never stopped; keep what "
            "outlives a step in state, and begin from what is there"
        )


def _state(folder: Path) -> dict[str, Any]:
    from contralex.training.checkpoints.hook_state import PREFIX, join_states
    from contralex.training.checkpoints.manifest import OPTIMIZER
    from contralex.training.checkpoints.read import open_checkpoint

    found = open_checkpoint(folder)
    states = join_states(found.state.hooks, found.tensors(OPTIMIZER, prefix=PREFIX))
    return {name: value for state in states.values() for name, value in state.items()}


def _are_equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return type(one) is type(other) and bool(one == other)
