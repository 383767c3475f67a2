"""A run: what it is made of, which stays, and its progress, which changes and is in every checkpoint.

:mod:`contralex.training.prepare` makes a :class:`Run` in four stages, each of which has a type: the machine is opened
(:class:`Machine`), the data is read (:class:`TrainingData`), the method is built from the spec or restored from a
checkpoint, with its :class:`Progress`, and prepared for the processes (:class:`PreparedMethod`). A run has all of these
from its first moment to its last. :mod:`contralex.training.loop` then changes its progress, until it has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from contralex.data.base import Source, Split
from contralex.data.loading import Batch
from contralex.data.views import Views
from contralex.evaluation.base import Evaluator
from contralex.evaluation.evaluators import evaluators
from contralex.lookup import batch_norm
from contralex.lookup.clock import Clock
from contralex.lookup.step import LookUp
from contralex.recipes import delays
from contralex.recipes.code_files import used_plugins
from contralex.recipes.layers import Resolved
from contralex.recipes.run_spec import RunSpec
from contralex.training import micro_batch_check, optimizers, pixel_check
from contralex.training.batches import batches
from contralex.training.checkpoints.hook_state import PREFIX, join_states
from contralex.training.checkpoints.manifest import OPTIMIZER
from contralex.training.checkpoints.state import CheckpointState, Forked, Pending
from contralex.training.checkpoints.write import KeptState
from contralex.training.hook_calls import LifeCycle
from contralex.training.loss_check import LossCheck
from contralex.training.run_folder import RunFolder
from contralex.training.stopping import Stopping

if TYPE_CHECKING:
    from contralex.plugins import hooks
    from contralex.training.checkpoints.read import Checkpoint


# Kinds of processes, in Accelerate's words, in which torch's own optimiser takes the step.
_PLAIN = frozenset(("NO", "MULTI_CPU", "MULTI_GPU", "FSDP"))


@dataclass(frozen=True)
class Machine:
    """Where a run is computed."""

    accelerator: Accelerator
    main: bool
    """Whether this is the main process."""

    @property
    def device(self) -> torch.device:
        device: torch.device = self.accelerator.device
        return device


@dataclass(frozen=True)
class TrainingData:
    """What a run is trained on."""

    source: Source
    split: Split
    views: Views
    samples: dict[str, Any]
    """By what the samples are known again: how many, and a hash of their labels."""
    per_epoch: int
    """Steps of an epoch."""
    total: int
    """Steps of the run."""


@dataclass(frozen=True)
class PreparedMethod:
    """A method and its optimiser, as they are and as a step uses them."""

    method: LookUp
    optimizer: Optimizer
    wrapped_method: nn.Module
    wrapped_optimizer: Any
    """Accelerate's, or the optimiser itself where Accelerate adds nothing to it."""
    backward: Callable[[Tensor], None]
    """Computes the gradients of a loss: Accelerate's, or the loss's own where Accelerate adds nothing to it."""
    accelerator: Accelerator
    is_sharded: ClassVar[bool] = False
    """Whether each process has a part of the encoders alone."""

    @classmethod
    def wrap(cls, method: LookUp, optimizer: Optimizer, accelerator: Accelerator) -> PreparedMethod:
        """Wrap them for the processes.

        Accelerate's optimiser looks for an installed package and reads a signature at each step, which takes longer
        than the step of a small model. It does more than call torch where gradients are scaled or accumulated, or
        where an engine has optimisers of its own.
        """
        wrapped_method, wrapped_optimizer = accelerator.prepare(method, optimizer)
        if (
            accelerator.scaler is None
            and accelerator.gradient_accumulation_steps == 1
            and accelerator.distributed_type.value in _PLAIN
        ):
            return cls(method, optimizer, wrapped_method, optimizer, Tensor.backward, accelerator)
        return cls(method, optimizer, wrapped_method, wrapped_optimizer, accelerator.backward, accelerator)

    def without_reduction(self) -> AbstractContextManager[None]:
        """Within, processes do not exchange gradients, which are added up: they do with the step's last look-up."""
        return self.accelerator.no_sync(self.wrapped_method)  # type: ignore[no-any-return]

    def clip_gradients(self, largest: float) -> None:
        """Shorten the gradient of all parameters together to this norm."""
        self.accelerator.clip_grad_norm_(self.method.parameters(), largest)

    def end_backward(self) -> None:
        """After the last backward pass of a step, and before the optimiser moves."""

    def whole(self) -> AbstractContextManager[None]:
        """Within, each process has all parameters, for what is done with an encoder beside training. Changes of them
        are lost where they are sharded. A collective."""
        return nullcontext()

    def gather_optimizer(self) -> KeptState:
        """What the optimiser keeps, complete on the main process. A collective."""
        return self.optimizer


@dataclass
class Progress:
    """What changes while a run lasts. A checkpoint keeps all of it but ``logged``, ``saved_at`` and
    ``skipped_in_a_row``."""

    step: int = 0
    """Optimiser steps that are done."""
    seconds: float = 0.0
    """Of training, over all starts of the run."""
    skipped_steps: int = 0
    """Steps that were left out because their loss was no number."""
    threads: int | None = None
    """The number of threads that was the fastest of the first steps, where it was tried."""
    baselines: dict[str, Any] = field(default_factory=dict)
    """What the untrained encoder and raw pixels reached, by evaluator."""
    drift: list[dict[str, Any]] = field(default_factory=list)
    """What was allowed to differ from what the run was started with, each with its step."""
    forked: Forked | None = None
    """Of which run this one is a fork."""
    hook_states: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the life-cycle hooks of each plugin kept in the checkpoint that the run goes on from."""
    pending: Pending = field(default_factory=Pending)
    """Sums since the last line of ``metrics.jsonl``, where the run goes on."""
    logged: dict[str, float] = field(default_factory=dict)
    """The figures that were logged last."""
    saved_at: int | None = None
    """The step of the newest checkpoint."""
    skipped_in_a_row: int = 0

    @classmethod
    def restored(cls, found: Checkpoint, drift: list[dict[str, Any]]) -> Progress:
        state = found.state
        return cls(
            step=state.step,
            seconds=state.seconds,
            skipped_steps=state.skipped_steps,
            threads=state.threads,
            baselines=state.baselines,
            drift=drift,
            forked=state.forked,
            hook_states=join_states(state.hooks, found.tensors(OPTIMIZER, prefix=PREFIX)),
            pending=state.pending,
            saved_at=state.step,
        )


class Run:
    """A run from the moment in which it can begin. Life-cycle hooks get it as :class:`contralex.plugin.Run`."""

    def __init__(
        self,
        resolved: Resolved,
        machine: Machine,
        data: TrainingData,
        prepared: PreparedMethod,
        progress: Progress,
        plugins: dict[str, str],
        place: RunFolder,
        warm_start: Checkpoint | None,
        until: int | None = None,
    ) -> None:
        self.resolved = resolved
        self.spec: RunSpec = resolved.run
        self.machine = machine
        self.data = data
        self.prepared = prepared
        self.progress = progress
        self.plugins = plugins  # names and versions of those that the spec uses
        self.warm_start = warm_start  # the checkpoint of `init`, where the run begins from one
        self.until = until  # the step at which a fork, or a part of a run, ends before the last
        self.resumed = progress.saved_at is not None
        self.warnings = [
            *delays.too_long(self.spec, data.total / data.per_epoch),
            *micro_batch_check.warnings(self.spec, prepared.method),
            *pixel_check.warnings(self.spec),
        ]
        self.parts_to_clip = optimizers.clip_parts(prepared.method, self.spec.train.clip_parts)
        self.stopping = Stopping()
        self.loss_check = LossCheck(self.stopping)
        used = used_plugins(plugins, resolved.code)
        self.evaluators: list[Evaluator] = evaluators(self.spec, used)
        own_metrics = [f"{evaluator.name}_top1" for evaluator in self.evaluators]
        self.hooks = LifeCycle(used, self.spec, self.stopping, progress.hook_states, own_metrics)
        self.place = place
        self.folder: Path = place.begin(machine.main)  # last, so that a run that cannot begin leaves no folder

    # What it is made of

    @property
    def accelerator(self) -> Accelerator:
        return self.machine.accelerator

    @property
    def main(self) -> bool:
        return self.machine.main

    @property
    def device(self) -> torch.device:
        return self.machine.device

    @property
    def source(self) -> Source:
        return self.data.source

    @property
    def split(self) -> Split:
        return self.data.split

    @property
    def views(self) -> Views:
        return self.data.views

    @property
    def per_epoch(self) -> int:
        return self.data.per_epoch

    @property
    def total(self) -> int:
        return self.data.total

    @property
    def method(self) -> LookUp:
        return self.prepared.method

    @property
    def optimizer(self) -> Optimizer:
        return self.prepared.optimizer

    # Where it stands

    @property
    def step(self) -> int:
        return self.progress.step

    @property
    def epoch(self) -> int:
        return self.step // self.per_epoch

    @property
    def epochs(self) -> int:
        """Epochs that are begun before the last step."""
        return -(-self.total // self.per_epoch)

    @property
    def logged(self) -> dict[str, float]:
        return self.progress.logged

    @property
    def ends_epoch(self) -> bool:
        return self.step % self.per_epoch == 0

    def clock(self) -> Clock:
        return Clock(self.step, self.total, self.per_epoch)

    # What hooks may do

    def autocast(self) -> AbstractContextManager[None]:
        """The precision in which the run's forward passes are computed."""
        return self.accelerator.autocast()  # type: ignore[no-any-return]

    def epoch_batches(self, epoch: int, views: Sequence[int] | None = None) -> Iterator[Batch]:
        """This process's part of the batches of one epoch, counted from 0, on the run's device. They are for
        a plugin's pass over the training data. ``views``: those that are made; None: all.

        Between batches BatchNorm's running statistics become the mean over processes.
        """
        train, start = self.spec.train, epoch * self.per_epoch
        for batch in batches(
            self.split, self.views, train, self.device, epochs=epoch + 1, start_step=start, only=views
        ):
            yield {
                "index": batch["index"].to(self.device),
                "views": {view: inputs.to(self.device) for view, inputs in batch["views"].items()},
                "unreadable": batch["unreadable"],
            }
            batch_norm.average_running_statistics(self.method)

    def stop(self, reason: str) -> None:
        """Asks the run to end well before its last step: it evaluates, saves a checkpoint and writes its results.

        On several processes one may ask for all; they stop together, at the end of this step or of the next.
        """
        self.stopping.ask(self.hooks.calling or "the caller", reason)

    # What it writes

    def checkpoint_state(
        self, pending: Pending, metrics: dict[str, float], hooks: dict[str, dict[str, Any]]
    ) -> CheckpointState:
        """What a checkpoint of this moment holds beside tensors. ``metrics``: the epoch's, if it ends one. ``hooks``:
        what they keep."""
        scaler = self.accelerator.scaler
        return CheckpointState.make(
            self.resolved,
            self.step,
            {**self.logged, **metrics},
            plugins=self.plugins,
            seconds=self.progress.seconds,
            baselines=self.progress.baselines,
            scaler=scaler.state_dict() if scaler is not None else None,
            skipped_steps=self.progress.skipped_steps,
            hooks=hooks,
            threads=self.progress.threads,
            pending=pending,
            epoch=self.step / self.per_epoch,
            drift=self.progress.drift,
            forked=self.progress.forked,
            samples=self.data.samples,
        )


if TYPE_CHECKING:

    def _as_hooks_see_it(run: Run) -> hooks.Run:
        return run  # mypy says where the two differ
