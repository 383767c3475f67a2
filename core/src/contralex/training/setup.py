"""What a run needs before it can begin: Accelerate, its trackers, and a folder."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from contralex.errors import ContralexError, remedy
from contralex.lookup import distributed
from contralex.recipes.run_spec import RunSpec
from contralex.training import run_folder


def check_precision(spec: RunSpec, cpu: bool) -> None:
    if cpu and spec.train.precision == "fp16":
        raise ContralexError(
            "train.precision is fp16, which needs a GPU, and there is none here; take bf16:"
            + remedy("--set", "train.precision=bf16")
        )


def accelerator(spec: RunSpec, cpu: bool) -> Accelerator:
    precision = {"fp32": "no"}.get(spec.train.precision, spec.train.precision)
    # Dictionaries are buffers that every process writes alike; broadcasting them in every forward would be
    # waste, and would overwrite what differs on purpose (BatchNorm's local statistics).
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False)
    return Accelerator(
        mixed_precision=precision,
        cpu=cpu,
        log_with=_trackers(spec) or None,
        project_dir=".",  # which trackers ask for now; they begin in the run's folder, once that is there
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


def begin_in(accelerator: Accelerator, folder: Path) -> None:
    """Trackers write there."""
    directories = accelerator.project_configuration
    directories.project_dir = directories.logging_dir = str(folder)


class RunFolder:
    """Where a run is written, the same on every process. The main one locks it for all, until the context ends.

    A run that is refused before it has begun leaves nothing: what was made for it is removed again.
    """

    def __init__(self, out: Path | None, name: str, resume: bool) -> None:
        self.out = out
        self._name = name
        self._resume = resume
        self._lock: run_folder.Lock | None = None
        self._made: list[Path] = []

    def look(self, main: bool) -> None:
        """Refuses, before anything is built, a folder that holds another run or that another process writes to; a run
        that is resumed is this one's from now on."""
        _on_main(main, self._take if self._resume else self._refuse_another_run)

    def take(self, main: bool) -> Path:
        """Now the run can begin. Makes the folder of a new one."""
        return Path(_on_main(main, lambda: str(self.out if self._resume else self._begin())))

    def check(self) -> None:
        """Before something is written there."""
        if self._lock is not None:
            self._lock.check()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is None:
            return
        is_refused = isinstance(error, ContralexError) and error.exit_code == 2
        if is_refused and self._made and _has_not_begun(self._lock.folder):
            with suppress(OSError):
                (self._lock.folder / run_folder.SPEC).unlink(missing_ok=True)
        self._lock.release()
        if is_refused:
            run_folder.remove_empty(self._made)

    def _begin(self) -> Path:
        if self.out is None:
            chosen, self._made = run_folder.make_new(run_folder.named_now(self._name))
        else:
            chosen, self._made = self.out, run_folder.make(self.out)
        self._take(chosen)
        self._refuse_another_run()  # which came and went since
        return chosen

    def _take(self, chosen: Path | None = None) -> None:
        lock = run_folder.Lock(chosen or self.out or Path())
        if not lock.folder.is_dir():
            raise ContralexError(f"--resume: there is no folder {lock.folder}; see --out, or leave --resume out.")
        lock.take()
        self._lock = lock

    def _refuse_another_run(self) -> None:
        out = self.out
        if out is None:
            return
        if self._lock is None and (out / run_folder.LOCK).exists():
            with run_folder.Lock(out):  # says who has it
                pass
        if (out / "checkpoints").exists() or (out / "metrics.jsonl").exists():
            raise ContralexError(
                f"{out} already holds a run; choose another folder with --out, or go on with it:"
                + remedy("contralex", "train", "--resume", "--out", out)
            )


def _has_not_begun(path: Path) -> bool:
    return {each.name for each in path.iterdir()} <= {run_folder.SPEC, run_folder.LOCK}


def _on_main(main: bool, action: Callable[[], str | None]) -> Any:
    """What the main process's action returns, or what it refuses, on every process."""
    told: list[Any] = [None, None]
    if main:
        try:
            told = [action(), None]
        except ContralexError as error:
            told = [None, error]
    if distributed.world() > 1:
        dist.broadcast_object_list(told)
    if told[1] is not None:
        raise told[1]
    return told[0]
