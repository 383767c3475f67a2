"""A hook counts steps in a global of its module, so that a resumed run counts on from another run's steps."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from contralex.plugin import Spec, hookimpl

FAILS = "hooks_take_part"
REASON = r"after a resume its state count is another than in a run that never stopped"
STEPS: list[int] = []


class Settings(Spec):
    """How much a step counts."""

    each: int = Field(gt=0, le=10)
    example = {"each": 2}


@hookimpl
def contralex_settings() -> type[Spec]:
    return Settings


@hookimpl
def contralex_step_end(run: Any, settings: Any, state: dict[str, Any]) -> None:
    STEPS.append(run.step)
    state["count"] = settings.each * len(STEPS)
