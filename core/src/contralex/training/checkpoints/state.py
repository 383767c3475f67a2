"""What ``state.json`` of a checkpoint holds: made once when a run saves, validated once when one is read. No torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

if TYPE_CHECKING:
    from contralex.recipes.layers import Resolved

_Count = Annotated[int, Field(ge=0, lt=2**62)]
# Names and versions stand in commands that messages propose, so they are nothing but that.
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,200}$")]
_Version = Annotated[str, Field(pattern=r"^[^\s;&|<>$`'\"\\]{1,100}$")]
_LossAndAccuracy = Annotated[tuple[FiniteFloat, FiniteFloat], Field(strict=False)]  # JSON has lists


class Pending(BaseModel):
    """Sums since the last line of ``metrics.jsonl``, so that a resumed run's next line is the same."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    loss: FiniteFloat = 0.0
    accuracy: FiniteFloat = 0.0
    steps: _Count = 0
    look_ups: dict[str, _LossAndAccuracy] = {}
    """Loss and accuracy of each look-up, where there are several."""


class Forked(BaseModel):
    """Of which run a run is a fork, from which step on, and what it has changed."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    run: str
    """The folder of its parent."""
    step: _Count
    """The step of the parent from which the fork goes on."""
    digest: str = Field(pattern="^[0-9a-f]{64}$")
    """The digest of the parent's spec."""
    changes: dict[str, str] = {}
    """What the fork has changed: by the path of a value, the old and the new one."""
    recomputed_from: _Count | None = None
    """The step after which the parent's steps were computed again, because there was no later checkpoint; null: the
    parent has a checkpoint of ``step``."""


class CheckpointState(BaseModel):
    """All of a run that is no tensor. The file may hold more, which a later contralex wrote."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    format: Literal[1] = 1
    step: _Count
    """Optimiser steps that are done."""
    spec: dict[str, Any]
    """The resolved spec."""
    digest: str = Field(pattern="^[0-9a-f]{64}$")
    """Its digest."""
    plugins: dict[_Name, _Version]
    """The distributions that the run uses, with their versions."""
    optimizer: dict[str, int | FiniteFloat | bool | None] = {}
    """What the optimiser keeps in plain numbers, by ``<parameter>.<name>``."""
    metrics: dict[str, FiniteFloat] = {}
    """The figures by which the best checkpoint is chosen."""
    seconds: FiniteFloat = 0.0
    """Of training, over all starts of the run."""
    baselines: dict[str, Any] = {}
    """What the untrained encoder and raw pixels reached, by evaluator."""
    scaler: dict[str, Any] | None = None
    """The state of the loss scaler of float16."""
    skipped_steps: _Count = 0
    """Steps that were left out because their loss was no number."""
    threads: Annotated[int, Field(gt=0, le=1024)] | None = None
    """The number of threads that was the fastest of the first steps, where it was tried."""
    hooks: dict[str, dict[str, Any]] = {}
    """What the life-cycle hooks of each plugin keep. Their tensors lie beside the optimiser's."""
    pending: Pending = Pending()
    """Sums since the last line of ``metrics.jsonl``."""
    epoch: FiniteFloat = 0.0
    """Epochs that are done, with their fraction."""
    drift: list[dict[str, Any]] = []
    """What was allowed to differ from what the run was started with, each with its step."""
    forked: Forked | None = None
    """Of which run this one is a fork; null: of none."""
    imported: dict[str, Any] = {}
    """Of a checkpoint that was imported: the ``file`` and its ``sha256``, the ``layout``, and the names of the tensors
    that it had nothing for (``new``)."""
    samples: dict[str, Any] = {}
    """By what the training samples are known again: how many, and a hash of their labels."""

    @classmethod
    def make(
        cls, resolved: Resolved, step: int, metrics: Mapping[str, float] | None = None, **more: Any
    ) -> CheckpointState:
        """The state of a run with this spec. Figures that are not finite are left out of ``metrics``."""
        figures = {name: float(value) for name, value in (metrics or {}).items() if math.isfinite(value)}
        known = {"spec": resolved.data, "digest": resolved.digest, "plugins": resolved.plugins, **more}
        return cls(step=step, metrics=figures, **known)

    @property
    def without_weights(self) -> frozenset[str]:
        """The tensors of the model that nothing has trained, of a checkpoint that was imported."""
        return frozenset(self.imported.get("new", ()))

    @property
    def has_code(self) -> bool:
        """Whether the spec names Python files, so that commands need ``--allow-code``."""
        return bool(self.spec.get("code"))

    def to_json(self) -> str:
        return json.dumps(self.model_dump(), indent=1, allow_nan=False)
