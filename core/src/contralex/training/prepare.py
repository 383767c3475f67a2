"""From a resolved spec to a run that can begin: refuses what cannot work before anything is trained or written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor
from torch.optim import Optimizer

from contralex import compat
from contralex.data.views import Views
from contralex.errors import ContralexError, remedy
from contralex.lookup import batch_norm, distributed, sharded_state
from contralex.lookup.step import LookUp
from contralex.recipes.layers import Resolved
from contralex.recipes.run_spec import RunSpec
from contralex.recipes.sample_counts import check_counts, check_micro_batch, check_share
from contralex.training import (
    accelerate_check,
    build,
    compiling,
    devices,
    forking,
    optimizers,
    resuming,
    sharding,
    trial_forward,
    warm_start,
)
from contralex.training.checkpoints import read, write
from contralex.training.checkpoints.read import Checkpoint
from contralex.training.forking import ForkStart
from contralex.training.run_folder import RunFolder
from contralex.training.run_state import Machine, PreparedMethod, Progress, Run, TrainingData


def prepare_run(
    resolved: Resolved,
    place: RunFolder,
    resume: bool,
    allow_drift: bool = False,
    fork: ForkStart | None = None,
    until_epoch: int | None = None,
) -> Run:
    """Every process calls this, and a mistake is raised on all of them alike. ``fork``: what the run begins with, where
    it goes on from another one. ``until_epoch``: how many it has done when it pauses."""
    try:
        return _prepare(resolved, place, resume, allow_drift, fork, until_epoch)
    except ContralexError as error:
        error.on_every_process = True
        raise


def _prepare(
    resolved: Resolved,
    place: RunFolder,
    resume: bool,
    allow_drift: bool,
    fork: ForkStart | None,
    until_epoch: int | None,
) -> Run:
    spec = resolved.run
    machine = _open_machine(spec, place)
    found = fork.checkpoint if fork is not None else _find_own(place, resume)
    drift: list[dict[str, Any]] = []
    if fork is None and found is not None:
        drift = resuming.check(found, resolved, allow_drift, say=machine.main)
    elif found is not None:
        resuming.check_groups(found, resolved)

    data = _read_data(spec, machine)
    if fork is not None:
        forking.check_samples(fork, data.samples)
    elif found is not None:
        drift += resuming.check_samples(found, data.samples, allow_drift)
    check_counts(spec, len(data.split), distributed.world(), _name_data(spec))

    init = spec.init if found is None else None
    start = warm_start.open_start(init) if init is not None else None
    method = build.look_up(spec, len(data.split), data.split.labels, fresh=found is None, start=start)
    trial_forward.check(spec, method, data, machine)
    batch_norm.convert(method, spec.train.batch_norm, machine.device.type)
    plan = accelerate_check.sharding_plan() if distributed.world() > 1 else None
    fused = plan is None and optimizers.can_fuse(method, machine.device.type, spec.train.precision)
    optimizer = optimizers.build(spec.train.optimizer, method, fused=fused)
    progress = Progress()
    if fork is not None:
        progress = _restore_fork(fork, method, optimizer)
    elif found is not None:
        write.restore(found, method, optimizer, lambda tensors: _fit(tensors, method, resized=bool(drift)))
        progress = Progress.restored(found, drift)
    devices.tune_convolutions(machine.device)
    devices.keep_memory(machine.device)
    if spec.train.compile:
        compiling.compile_encoders(method, machine.device)
    # Prepared after loading, so that what Accelerate wraps has its final tensors.
    prepared = _wrap(method, optimizer, machine.accelerator, plan)
    _restore_scaler(machine.accelerator, found)
    used = resuming.used_versions(found, resolved)
    until = fork.until if fork is not None else None if until_epoch is None else until_epoch * data.per_epoch
    run = Run(resolved, machine, data, prepared, progress, used, place, start, until)
    _write_trackers_to(machine.accelerator, run.folder)
    return run


def _find_own(place: RunFolder, resume: bool) -> Checkpoint | None:
    """The checkpoint that a run goes on from which is resumed."""
    return read.find(place.out) if resume and place.out is not None else None


def _restore_fork(fork: ForkStart, method: LookUp, optimizer: Optimizer) -> Progress:
    """A fork has the state of its parent, and its own place in the world."""
    found = fork.checkpoint
    if found is None:
        return Progress(threads=fork.threads, forked=fork.forked)

    def fit(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return forking.fit_state(_fit(tensors, method, resized=True), method)

    write.restore(found, method, optimizer, fit, forking.WAY_OUT)
    progress = Progress.restored(found, list(found.state.drift))
    progress.forked = fork.forked
    progress.threads = progress.threads or fork.threads
    return progress


def _wrap(
    method: LookUp, optimizer: Optimizer, accelerator: Accelerator, plan: accelerate_check.ShardingPlan | None
) -> PreparedMethod:
    if plan is not None:
        return sharding.shard(method, optimizer, accelerator, plan)
    with compat.broadcast_buffers_argument():
        return PreparedMethod.wrap(method, optimizer, accelerator)


def _open_machine(spec: RunSpec, place: RunFolder) -> Machine:
    accelerate_check.check(spec.train)
    cpu = devices.kind() == "cpu"
    with accelerate_check.without_sharding():
        main = PartialState(cpu=cpu).is_main_process  # opens the process group
    check_share(spec.train.batch_size, distributed.world(), spec.train.accumulate)
    check_micro_batch(spec.train.look_up_size, spec.train.micro_batch, distributed.world())
    devices.check_workers(spec.train.workers)
    _check_precision(spec, cpu)
    place.check_free(main)
    precision = {"fp32": "no"}.get(spec.train.precision, spec.train.precision)
    # Dictionaries are buffers that every process writes alike; broadcasting them in every forward would be
    # waste, and would overwrite what differs on purpose (BatchNorm's local statistics).
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False)
    with accelerate_check.without_sharding():
        accelerator = Accelerator(
            mixed_precision=precision,
            cpu=cpu,
            log_with=_trackers(spec) or None,
            project_dir=".",  # which trackers ask for now; they begin in the run's folder, once that is there
            kwargs_handlers=[ddp],
        )
    return Machine(accelerator, main)


def _check_precision(spec: RunSpec, cpu: bool) -> None:
    if cpu and spec.train.precision == "fp16":
        raise ContralexError(
            "train.precision is fp16, which needs a GPU, and there is none here; take bf16:"
            + remedy("--set", "train.precision=bf16")
        )


def _trackers(spec: RunSpec) -> list[str]:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    ready = [str(getattr(name, "value", name)) for name in get_available_trackers()]
    for name in spec.train.trackers:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise ContralexError(
                f"train.trackers: Accelerate knows no tracker {name!r}; it knows {', '.join(LOGGER_TYPE_TO_CLASS)}."
            )
        if name not in ready:
            raise ContralexError(f"train.trackers: the package of {name} is not installed; pip install {name}.")
    return list(spec.train.trackers)


def _write_trackers_to(accelerator: Accelerator, folder: Path) -> None:
    directories = accelerator.project_configuration
    directories.project_dir = directories.logging_dir = str(folder)


def _read_data(spec: RunSpec, machine: Machine) -> TrainingData:
    with machine.accelerator.local_main_process_first():  # it may download or unpack what the others then read
        source = build.read_source(spec.data)
    machine.accelerator.wait_for_everyone()  # the others ask the main process what it found
    views = spec.method.views.build()
    _check_accelerator(spec, views)
    split = source.train()
    per_epoch = len(split) // spec.train.batch_size
    total = per_epoch * spec.train.epochs
    if spec.train.max_steps is not None:
        total = min(total, spec.train.max_steps)
    return TrainingData(source, split, views, resuming.describe_samples(split), per_epoch, total)


def _check_accelerator(spec: RunSpec, views: Views) -> None:
    """A batch that is encoded in parts is there for want of memory, which views of the whole batch would take."""
    field = "micro_batch" if spec.train.micro_batch is not None else "accumulate"
    if views.on_accelerator and (spec.train.micro_batch is not None or spec.train.accumulate > 1):
        raise ContralexError(
            f"method.views.device is accelerator, which makes the views of a whole batch at once, and "
            f"train.{field} divides the batch to save memory. Try:" + remedy("--set", "method.views.device=workers")
        )


def _fit(tensors: Mapping[str, Tensor], method: LookUp, resized: bool) -> dict[str, Tensor]:
    """A checkpoint's tensors as this process has them: a queue of another size, and the own parts of what is shared
    out. A checkpoint knows nothing of processes."""
    return sharded_state.select_own_state(
        method, resuming.resize_sources(tensors, method) if resized else dict(tensors)
    )


def _restore_scaler(accelerator: Accelerator, found: Checkpoint | None) -> None:
    if found is not None and found.state.scaler is not None and accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(found.state.scaler)


def _name_data(spec: RunSpec) -> str:
    kind, origin = spec.data.kind_name(), spec.data.read_from()
    return f"{kind} in {origin}" if origin else kind
