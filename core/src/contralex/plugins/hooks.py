"""The hooks of contralex: what a plugin may offer, and where it may take part in a run.

A plugin is one module that implements some of these with ``@hookimpl``, named by an entry point in
the group ``contralex``. It imports no torch: it returns spec classes, whose ``build()`` imports the part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

import pluggy

if TYPE_CHECKING:
    import torch

    from contralex.data.loading import Batch
    from contralex.lookup.clock import Clock
    from contralex.plugins.layouts import Layout
    from contralex.plugins.spec import Spec

PROJECT = "contralex"
hookspec = pluggy.HookspecMarker(PROJECT)
_mark = pluggy.HookimplMarker(PROJECT)
LIFE_CYCLE = (
    *("contralex_run_start", "contralex_step_end", "contralex_epoch_end"),
    *("contralex_checkpoint", "contralex_run_end"),
)
_F = TypeVar("_F", bound=Callable[..., Any])


@overload
def hookimpl(function: _F) -> _F: ...


@overload
def hookimpl(*, kinds: Sequence[type[Any]] = (), uses_encoders: bool = True) -> Callable[[_F], _F]: ...


def hookimpl(function: Any = None, *, kinds: Sequence[type[Any]] = (), uses_encoders: bool = True) -> Any:
    """Marks a function of a plugin as the implementation of the hook of its name.

    ``kinds``: of a life-cycle hook, the specs to which it belongs. It then takes part in every run that uses one of
    them, and not only where ``plugins`` of the run's spec names the plugin.

    ``uses_encoders``: False for a ``contralex_step_end`` that neither calls an encoder nor reads its parameters or
    buffers. Otherwise several processes average BatchNorm's running statistics, and gather sharded parameters, after
    each step.
    """

    def mark(function: Any) -> Any:
        if kinds and function.__name__ not in LIFE_CYCLE:
            raise TypeError(f"{function.__name__} has kinds, which only life-cycle hooks have")
        if not uses_encoders and function.__name__ != "contralex_step_end":
            raise TypeError(f"{function.__name__} has uses_encoders, which only contralex_step_end has")
        function.contralex_kinds = frozenset(kinds)
        function.contralex_uses_encoders = uses_encoders
        return _mark(function)

    return mark if function is None else mark(function)


class Run(Protocol):
    """A run while it lasts, as life-cycle hooks see it.

    ``spec``: the resolved :class:`RunSpec`. ``method``: the :class:`LookUp`. ``split`` and ``views``: the training
    samples, and what makes views of them. ``step`` of ``total`` optimiser steps, ``per_epoch`` of them in an epoch.
    ``main``: whether this is the main process. ``logged``: the figures that were logged last, on every process.
    :meth:`epoch_batches`, :meth:`clock` and :meth:`autocast` are for a pass of one's own over the training data.
    """

    spec: Any
    folder: Path

    @property
    def method(self) -> Any: ...

    @property
    def optimizer(self) -> Any: ...

    @property
    def source(self) -> Any: ...

    @property
    def split(self) -> Any: ...

    @property
    def views(self) -> Any: ...

    @property
    def step(self) -> int: ...

    @property
    def total(self) -> int: ...

    @property
    def per_epoch(self) -> int: ...

    @property
    def epoch(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def main(self) -> bool: ...

    @property
    def logged(self) -> dict[str, float]: ...

    def clock(self) -> Clock:
        """Where training stands, for the :class:`Step` of a forward pass of one's own."""
        ...

    def autocast(self) -> AbstractContextManager[None]:
        """The precision in which the run's forward passes are computed."""
        ...

    def epoch_batches(self, epoch: int, views: Sequence[int] | None = None) -> Iterator[Batch]:
        """This process's part of the training batches of one epoch, counted from 0, on the run's device: ``index`` (B,)
        and for each of ``views`` (None: all) a tensor (B, ...).

        Between batches BatchNorm's running statistics become the mean over processes.
        """
        ...

    def stop(self, reason: str) -> None:
        """Asks the run to end well before its last step: it evaluates, saves a checkpoint and writes its results."""
        ...


@hookspec
def contralex_encoders() -> list[type[Spec]]:  # type: ignore[empty-body]
    """Specs whose ``build()`` returns a :class:`contralex.lookup.slots.Encoder`."""


@hookspec
def contralex_backbones() -> list[type[Spec]]:  # type: ignore[empty-body]
    """Specs whose ``build()`` returns a module from images (B, C, H, W) to features (B, F), and F."""


@hookspec
def contralex_key_encoders() -> list[type[Spec]]:  # type: ignore[empty-body]
    """Specs whose ``build(context)`` returns a :class:`contralex.lookup.slots.KeyEncoder`."""


@hookspec
def contralex_negative_sources() -> list[type[Spec]]:  # type: ignore[empty-body]
    """Specs whose ``build(context)`` returns a :class:`contralex.lookup.slots.NegativeSource`."""


@hookspec
def contralex_target_generators() -> list[type[Spec]]:  # type: ignore[empty-body]
    """Specs whose ``build(context)`` returns a :class:`contralex.lookup.slots.TargetGenerator`."""


@hookspec
def contralex_losses() -> list[type[Spec]]:  # type: ignore[empty-body]
    """Specs whose ``build(context)`` returns a :class:`contralex.lookup.slots.Loss`."""


@hookspec
def contralex_views() -> list[type[Spec]]:  # type: ignore[empty-body]
    """Specs whose ``build()`` returns a :class:`contralex.data.views.Views`."""


@hookspec
def contralex_datasets() -> list[type[Spec]]:  # type: ignore[empty-body]
    """Specs whose ``build()`` returns a :class:`contralex.data.base.Source`."""


@hookspec
def contralex_recipes() -> Traversable:  # type: ignore[empty-body]
    """The folder of the plugin's recipes (``*.yaml``), from :func:`importlib.resources.files`."""


@hookspec
def contralex_layouts() -> list[Layout]:  # type: ignore[empty-body]
    """Under which names published checkpoints hold the weights of the plugin's methods, as tables, for
    ``contralex import``."""


@hookspec
def contralex_settings() -> type[Spec]:  # type: ignore[empty-body]
    """The spec of the settings that a run may give the plugin's life-cycle hooks:
    ``plugins: [{name: contralex-mine, patience: 5}]``. It has no field ``name`` and no ``kind``."""


@hookspec
def contralex_evaluators(spec: Any) -> list[Any]:  # type: ignore[empty-body]
    """The :class:`contralex.plugin.Evaluator` objects that a run with this :class:`RunSpec` is evaluated by, beside
    those that its ``eval`` names. Asked of the plugins that the spec uses, and imports no torch."""


@hookspec
def contralex_commands() -> dict[str, Callable[..., None]]:  # type: ignore[empty-body]
    """Commands of the plugin's own, by their names: functions as typer takes them (``contralex NAME ...``).

    A name such as ``eval NAME`` adds to the commands of ``contralex eval``; ``contralex NAME`` is then an alias.
    The function imports what it needs when it is called; its docstring is its help.
    """


@hookspec
def contralex_expected_failures() -> dict[str, str]:  # type: ignore[empty-body]
    """Cases of the conformance kit that must fail, as ``check[subject]``, each with the reason. One that passes after
    all is reported, so that the list does not outlive what it excuses."""


@hookspec
def contralex_run_start(run: Run, settings: Any, state: dict[str, Any]) -> None:
    """Before the first step.

    Life-cycle hooks take part only where ``plugins`` of the run's spec names the plugin, or where the spec uses one of
    the kinds to which the hook belongs (``@hookimpl(kinds=[MySpec])``). ``run.stop("why")`` ends the run well before
    its last step. A hook that raises stops it with a checkpoint, or is reported once, as ``train.on_hook_error`` says.
    ``settings``: what the spec gives the plugin, as its ``contralex_settings`` declares; None where it declares none.
    ``state``: the plugin's own, values of JSON and tensors by names, the same on every process. Checkpoints keep it,
    and a resumed run begins with it.
    """


@hookspec
def contralex_step_end(run: Run, metrics: dict[str, float], settings: Any, state: dict[str, Any]) -> None:
    """After each optimiser step. The numbers that are added to ``metrics`` are logged, from the main process.

    They may be tensors of one number, which are not read before they are logged. ``run.logged`` has the last figures.
    """


@hookspec
def contralex_epoch_end(run: Run, epoch: int, metrics: dict[str, float], settings: Any, state: dict[str, Any]) -> None:
    """After each epoch, counted from 1. ``metrics`` has what was judged, such as ``knn_top1``; add to it likewise."""


@hookspec
def contralex_checkpoint(run: Run, folder: str, settings: Any, state: dict[str, Any]) -> None:
    """After a checkpoint was written to ``folder`` (on the main process only)."""


@hookspec
def contralex_run_end(run: Run, results: dict[str, object], settings: Any, state: dict[str, Any]) -> None:
    """After the last step and the final evaluation. What is added to ``results`` goes to ``results.json``."""


# The slots of a method, in the order in which they are built.
METHOD_SLOTS = ("encoder", "key_encoder", "negatives", "targets", "loss")
SHARED_SLOTS = ("encoder", "key_encoder")  # of all look-ups of a method; each has the others itself

# slot of a spec -> the hook that fills it
SLOTS = {
    "encoder": "contralex_encoders",
    "backbone": "contralex_backbones",  # of an encoder, not of a method
    "key_encoder": "contralex_key_encoders",
    "negatives": "contralex_negative_sources",
    "targets": "contralex_target_generators",
    "loss": "contralex_losses",
    "views": "contralex_views",
    "data": "contralex_datasets",
}

# The commands of contralex itself, which no plugin may take.
OWN_COMMANDS = frozenset(
    [
        *("methods", "plugins", "show", "diff", "why", "explain", "train", "compare", "eval"),
        *("linear", "schema", "new", "check", "doctor", "inspect", "embed", "export", "import"),
        *("eval knn", "eval linear", "eval classify", "eval quality", "eval retrieval", "eval few-label"),
        *("eval transfer", "eval segmentation"),
        *("adapt", "fork", "report", "views", "search", "cluster", "duplicates", "runs"),
    ]
)
