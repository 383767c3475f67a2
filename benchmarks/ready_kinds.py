"""The kinds of :mod:`benchmarks.ready`, as a recipe's ``code`` names them, with the hooks that stop its clock."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl


class ReadyData(Spec):
    """Images of noise, in memory."""

    kind: Literal["ready"] = "ready"
    builds = "benchmarks.ready:ReadySource"
    count: int
    size: int
    gives = frozenset({"images"})


class Pictures(Spec):
    """Photographs in memory."""

    kind: Literal["pictures"] = "pictures"
    builds = "benchmarks.ready:PictureSource"
    count: int
    width: int
    height: int
    gives = frozenset({"images"})


class ReadyViews(Spec):
    """Two views that are the sample itself."""

    kind: Literal["ready"] = "ready"
    builds = "benchmarks.ready:ReadyViews"
    needs = {"data": frozenset({"images"})}
    gives = frozenset({"images"})

    def key_flags(self) -> list[bool]:
        return [True, True]


@hookimpl
def contralex_datasets() -> list[type[Spec]]:
    return [ReadyData, Pictures]


@hookimpl
def contralex_views() -> list[type[Spec]]:
    return [ReadyViews]


@hookimpl
def contralex_run_start(run: Any) -> None:
    import torch

    from benchmarks.ready import CLOCK, ON_START

    CLOCK.forget_reads()  # a run tries one batch before it begins
    last = torch.channels_last
    kernels = [parameter for parameter in run.method.parameters() if parameter.dim() == 4 and parameter.shape[2] > 1]
    CLOCK.channels_last = any(
        kernel.is_contiguous(memory_format=last) and not kernel.is_contiguous() for kernel in kernels
    )
    for call in ON_START:
        call(run)


@hookimpl
def contralex_step_end(run: Any, metrics: Any) -> None:
    from benchmarks.ready import CLOCK

    CLOCK.end_step()
