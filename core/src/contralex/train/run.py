"""One run, from a resolved spec to its results: top-down, for every method and any number of processes."""

from __future__ import annotations

import json
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor
from torch.utils.data import DataLoader

from contralex import distributed
from contralex.data.base import EpochSampler, Source, ViewDataset, check_population, collate
from contralex.errors import ContralexError
from contralex.lookup import LookUp, Step
from contralex.parts import batch_norm
from contralex.spec.layers import Resolved
from contralex.spec.run import RunSpec
from contralex.spec.schedule import Clock
from contralex.train import build, checkpoint, devices, optim
from contralex.train.lifecycle import LifeCycle
from contralex.train.report import Report


class Stopped(ContralexError):
    """The run was asked to stop; its checkpoint is written."""

    exit_code = 130
    on_every_process = True


class Run:
    """A run while it lasts. Life-cycle hooks get it: ``spec``, ``method``, ``optimizer``, ``step``, ``folder``."""

    def __init__(self, resolved: Resolved, out: Path | None, resume: bool) -> None:
        self.resolved = resolved
        self.spec: RunSpec = resolved.run
        train = self.spec.train
        cpu = not torch.cuda.is_available() and not torch.backends.mps.is_available()
        self.main = PartialState(cpu=cpu).is_main_process  # opens the process group
        _check_share(train.batch_size, distributed.world())
        self.folder = _folder(out, self.spec.name, resume, self.main)
        self.accelerator = _accelerator(self.spec, cpu, self.folder)
        self.device = self.accelerator.device
        self.found = checkpoint.open_checkpoint(self.folder) if resume else None
        if self.found is not None and self.found.state["digest"] != resolved.digest:
            raise ContralexError(
                f"{self.folder} was started with another spec (digest {self.found.state['digest'][:12]}, and now "
                f"{resolved.digest[:12]}); resume it with its own: contralex train --out {self.folder} --resume."
            )

        with self.accelerator.local_main_process_first():  # it may download or unpack what the others then read
            self.source: Source = _any(self.spec.data).build()
        self.views = _any(self.spec.method.views).build()
        self.split = self.source.train()
        population = len(self.split)
        queue = getattr(self.spec.method.negatives, "size", None)
        check_population(population, train.batch_size, queue, _where(self.spec))
        self.per_epoch = population // train.batch_size
        self.total = self.per_epoch * train.epochs

        self.method: LookUp = build.look_up(self.spec, population)
        batch_norm.convert(self.method, train.batch_norm, self.device.type)
        self.method.to(self.device)
        self.optimizer = optim.build(train.optimizer, self.method)
        self.step = 0
        self.seconds = 0.0  # of training, over all starts of this run
        self.baselines: dict[str, Any] = {}
        if self.found is not None:
            checkpoint.restore(self.found, self.method, self.optimizer)
            self.step = self.found.step
            self.seconds = float(self.found.state["seconds"])
            self.baselines = self.found.state["baselines"]
        # Prepared after loading, so that what Accelerate wraps has its final tensors.
        with warnings.catch_warnings():
            # torch 2.15 announces another name for broadcast_buffers; the old one works from 2.4 on.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            self.model, self.prepared = self.accelerator.prepare(self.method, self.optimizer)
        scaler = self.accelerator.scaler
        if self.found is not None and scaler is not None:
            scaler.load_state_dict(self.found.state["scaler"])
        # A resumed run's spec.yaml no longer says whose recipe it was; the checkpoint does.
        self.hooks = LifeCycle({**(self.found.state["plugins"] if self.found else {}), **resolved.plugins})
        self.skipped: set[str] = set()

    @property
    def epoch(self) -> int:
        return self.step // self.per_epoch

    def clock(self) -> Clock:
        return Clock(self.step, self.total, self.per_epoch)


def train(resolved: Resolved, out: Path | None = None, resume: bool = False) -> dict[str, Any]:
    """Trains what the spec says, and returns what ``results.json`` holds.

    Raises :class:`ContralexError` for what the user can mend, and :class:`Stopped` after a signal.
    """
    with devices.process_group_closed():
        run = _opened(resolved, out, resume)
        if run.main:
            checkpoint.write_text(run.folder / "spec.yaml", resolved.to_yaml())
        with Report(run) as report, _signals() as stop:
            _baselines(run, report)
            run.hooks.call("contralex_run_start", run=run)
            _train(run, report, stop)
            results = _finish(run, report)
        return results


def _opened(resolved: Resolved, out: Path | None, resume: bool) -> Run:
    try:
        return Run(resolved, out, resume)
    except ContralexError as error:
        error.on_every_process = True
        raise


def _train(run: Run, report: Report, stop: Callable[[], bool]) -> None:
    spec = run.spec.train
    if run.step >= run.total:
        report.say(f"This run is complete: {run.total} steps of {run.total}.")
        return
    run.model.train()
    began = time.perf_counter()
    before = run.seconds
    for batch in _batches(run):
        run.skipped.update(batch["unreadable"])
        clock = run.clock()
        rate = optim.set_rates(run.optimizer, spec.optimizer, clock, spec.batch_size)
        loss, accuracy = _step(run, batch, clock)
        run.step += 1
        run.seconds = before + time.perf_counter() - began
        report.step(loss, accuracy, rate)
        logging_now = run.step % spec.log_every == 0 or run.step == run.total
        run.hooks.call("contralex_step_end", run=run, metrics=report.extra)
        if logging_now:
            report.log()
        if stop() if distributed.world() == 1 else logging_now and _anyone(stop(), run.device):
            saved = save(run)
            run.accelerator.wait_for_everyone()
            raise Stopped(
                f"Stopped at step {run.step} of {run.total}, saved as {saved}; "
                f"go on with: contralex train --out {run.folder} --resume"
            )
        if run.step % run.per_epoch == 0:
            _epoch_ends(run, report)
            # Evaluation and saving are not training.
            began = time.perf_counter()
            before = run.seconds


def _step(run: Run, batch: dict[str, Any], clock: Clock) -> tuple[Tensor, Tensor]:
    """Look up, backward, the optimiser's step, and then what changes after it, once."""
    spec = run.spec.train
    moment = Step(clock, spec.seed, spec.batch_size)
    views = {view: images.to(run.device, non_blocking=True) for view, images in batch["views"].items()}
    found = run.model(views, batch["index"].to(run.device, non_blocking=True), moment)
    run.accelerator.backward(found.loss)
    optim.drop_frozen_gradients(run.optimizer, clock.step)
    if spec.clip is not None:
        run.accelerator.clip_grad_norm_(run.method.parameters(), spec.clip)
    run.prepared.step()
    run.prepared.zero_grad()
    if not run.accelerator.optimizer_step_was_skipped:  # fp16 skips a step whose gradient overflowed
        run.method.update(found.keys, moment)
    return found.loss.detach(), found.accuracy


def _epoch_ends(run: Run, report: Report) -> None:
    spec = run.spec
    metrics: dict[str, float] = {}
    knn = spec.eval.knn
    if knn is not None and knn.every and run.epoch % knn.every == 0 and run.step < run.total:
        batch_norm.average_running_statistics(run.method)
        judged = report.judge(run.method.encoder)
        if judged is not None:
            metrics["knn_top1"] = judged.top1
    run.hooks.call("contralex_epoch_end", run=run, epoch=run.epoch, metrics=metrics)
    report.epoch(metrics)
    if run.epoch % spec.train.checkpoint_every == 0 or run.step == run.total:
        save(run)
    run.model.train()


def save(run: Run) -> Path:
    """A checkpoint of this moment. Every process takes part, and the main one writes."""
    batch_norm.average_running_statistics(run.method)
    folder = run.folder / "checkpoints"
    target = folder / f"step-{run.step}"
    if run.main:
        scaler = run.accelerator.scaler
        extra = {
            "seconds": run.seconds,
            "baselines": run.baselines,
            "scaler": scaler.state_dict() if scaler is not None else None,
        }
        checkpoint.save(folder, run.step, run.method, run.optimizer, run.resolved, extra)
        checkpoint.prune(folder, run.spec.train.keep_checkpoints)
        run.hooks.call("contralex_checkpoint", run=run, folder=str(target))
    run.accelerator.wait_for_everyone()
    return target


def _baselines(run: Run, report: Report) -> None:
    """What raw pixels and the untrained encoder reach, before the first step; once in a run's life."""
    knn = run.spec.eval.knn
    if knn is not None and knn.baselines and run.found is None:
        run.baselines = report.baselines(build.encoder(run.spec).to(run.device))


def _finish(run: Run, report: Report) -> dict[str, Any]:
    results = report.results(run.baselines, _all_skipped(run))
    run.hooks.call("contralex_run_end", run=run, results=results)
    if run.main:
        checkpoint.write_text(run.folder / "results.json", json.dumps(results, indent=1) + "\n")
    report.summary(results)
    run.accelerator.wait_for_everyone()
    return results


def _batches(run: Run) -> Iterator[dict[str, Any]]:
    """This process's share of every global batch from the present step to the end of the run."""
    spec = run.spec.train
    sampler = EpochSampler(
        len(run.split),
        spec.batch_size,
        spec.seed,
        spec.epochs,
        rank=distributed.rank(),
        world=distributed.world(),
        start_step=run.step,
    )
    workers = devices.workers(spec.workers, run.device.type)
    devices.set_threads(workers, run.device.type)
    loader: DataLoader[Any] = DataLoader(
        ViewDataset(run.split, run.views, spec.seed),
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=run.device.type == "cuda",
        worker_init_fn=devices.quiet_worker,
        multiprocessing_context=devices.context() if workers else None,
    )
    return iter(loader)


def _accelerator(spec: RunSpec, cpu: bool, folder: Path) -> Accelerator:
    precision = {"fp32": "no"}.get(spec.train.precision, spec.train.precision)
    if cpu and precision == "fp16":
        raise ContralexError("train.precision: fp16 needs a GPU; on the CPU use bf16 or fp32.")
    # Dictionaries are buffers that every process writes alike; broadcasting them in every forward would be
    # waste, and would overwrite what differs on purpose (BatchNorm's local statistics).
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False)
    return Accelerator(
        mixed_precision=precision,
        cpu=cpu,
        log_with=_trackers(spec) or None,
        project_dir=str(folder),
        kwargs_handlers=[ddp],
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


def _check_share(batch: int, processes: int) -> None:
    if batch % processes:
        lower = batch - batch % processes
        raise ContralexError(
            f"train.batch_size is {batch} over all processes, which {processes} processes cannot share evenly; "
            f"set it to {lower or processes} or {lower + processes}."
        )


def _folder(out: Path | None, name: str, resume: bool, main: bool) -> Path:
    """The run's folder, the same on every process; a new run refuses one that holds another run."""
    chosen = [str(out or Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}")]
    if distributed.world() > 1:
        dist.broadcast_object_list(chosen)
    folder = Path(chosen[0])
    if resume:
        return folder
    problem: list[str | None] = [None]
    if main:
        if (folder / "checkpoints").exists() or (folder / "metrics.jsonl").exists():
            problem[0] = (
                f"{folder} already holds a run; go on with it by --resume, or choose another folder with --out."
            )
        else:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                problem[0] = f"--out {folder}: the folder cannot be made ({error.strerror})."
    if distributed.world() > 1:
        dist.broadcast_object_list(problem)
    if problem[0]:
        raise ContralexError(problem[0])
    return folder


def _anyone(mine: bool, device: torch.device) -> bool:
    """Whether any process wants to stop; all must stop at the same step."""
    return bool(distributed.sum_over_processes(torch.tensor(float(mine), device=device)) > 0)


def _all_skipped(run: Run) -> list[str]:
    if distributed.world() == 1:
        return sorted(run.skipped | set(run.split.skipped))
    everyone: list[Any] = [None] * distributed.world()
    dist.all_gather_object(everyone, sorted(run.skipped | set(run.split.skipped)))
    return sorted(set().union(*everyone))


@contextmanager
def _signals() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM ask the run to stop after its step; a second Ctrl-C stops it at once."""
    asked: list[int] = []

    def handler(number: int, frame: FrameType | None) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _where(spec: RunSpec) -> str:
    root = getattr(spec.data, "root", None)
    kind = str(getattr(spec.data, "kind", ""))
    return f"{kind} in {root}" if root else kind


def _any(spec: Any) -> Any:
    return spec
