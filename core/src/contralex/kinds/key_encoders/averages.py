"""The moving average of parameters that a momentum encoder is."""

from __future__ import annotations

from operator import is_
from typing import Any

import torch
from torch import Tensor, nn

from contralex.compat import lerp_each, module_tables


class MovingAverage:
    """Moves the parameters of twins towards those of their originals: θ_t ← θ_t + w·(θ_o − θ_t).

    The parameters are listed at the first update, and again where a module or a parameter has been replaced since.
    """

    def __init__(self) -> None:
        self._modules: list[tuple[nn.Module, nn.Module]] = []
        self._tables: list[dict[str, Any]] = []
        self._entries: list[Any] = []
        self._alike: list[tuple[list[Tensor], list[Tensor]]] = []
        self._unlike: list[tuple[Tensor, Tensor]] = []

    def add(self, original: nn.Module, twin: nn.Module) -> None:
        self._modules.append((original, twin))
        self._tables = []

    @torch.no_grad()
    def update(self, weight: float) -> None:
        """``weight`` (w, from 0 to 1): the weight of the originals."""
        if not self._is_current():
            self._list_parameters()
        for twins, originals in self._alike:
            lerp_each(twins, originals, weight)
        for twin, original in self._unlike:
            if twin.is_floating_point():
                twin.lerp_(original.to(twin), weight)
            else:  # no numbers that an average could lie between
                twin.copy_(original)

    def _is_current(self) -> bool:
        entries = _entries(self._tables)
        return bool(entries) and len(entries) == len(self._entries) and all(map(is_, entries, self._entries))

    def _list_parameters(self) -> None:
        """One list for all parameters of a type, on a device, as a kernel takes them: mostly there is but one."""
        self._tables = [table for pair in self._modules for module in pair for table in module_tables(module)]
        self._entries = _entries(self._tables)
        alike: dict[Any, tuple[list[Tensor], list[Tensor]]] = {}
        self._unlike = []
        for original_module, twin_module in self._modules:
            for original, twin in zip(original_module.parameters(), twin_module.parameters(), strict=True):
                kind = _kind(twin)
                if _kind(original) == kind and twin.is_floating_point():
                    twins, originals = alike.setdefault(kind, ([], []))
                    twins.append(twin)
                    originals.append(original)
                else:
                    self._unlike.append((twin, original))
        self._alike = list(alike.values())


def _entries(tables: list[dict[str, Any]]) -> list[Any]:
    return [entry for table in tables for entry in table.values()]


def _kind(parameter: Tensor) -> Any:
    """A sharded parameter has a type of its own, and no kernel takes it beside others."""
    return type(parameter), parameter.device, parameter.dtype
