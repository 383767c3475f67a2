"""contralex-NAME: what it offers. Imports no torch.

Installing it changes no run. It takes part where a run names it, in ``plugins``.
"""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from contralex.plugin import Run, Spec, hookimpl
from contralex_IDENTIFIER.spec import SpreadSettings


@hookimpl
def contralex_settings() -> type[Spec]:
    return SpreadSettings


@hookimpl
def contralex_run_start(run: Run) -> None:
    from contralex_IDENTIFIER.spread import watch  # imports torch

    watch(run.method.loss)


@hookimpl
def contralex_step_end(run: Run, metrics: dict[str, Any], settings: SpreadSettings, state: dict[str, Any]) -> None:
    metrics["spread"] = run.method.loss.spread
    # What was logged last is the same on every process, and reading it makes no GPU wait.
    state["low"] = state.get("low", 0) + 1 if run.logged.get("spread", 1.0) < settings.floor else 0
    if state["low"] == settings.patience:
        run.stop("every sample is mapped to one point")


@hookimpl
def contralex_recipes() -> Traversable:
    return files("contralex_IDENTIFIER") / "recipes"
