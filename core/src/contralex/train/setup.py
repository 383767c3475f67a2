"""What a run needs before it can begin: Accelerate, its trackers, and a folder."""

from __future__ import annotations

import time
from pathlib import Path

import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from contralex import distributed
from contralex.errors import ContralexError, remedy
from contralex.spec.run import RunSpec


def check_precision(spec: RunSpec, cpu: bool) -> None:
    if cpu and spec.train.precision == "fp16":
        raise ContralexError(
            "train.precision is fp16, which needs a GPU, and there is none here; take bf16:"
            + remedy("--set", "train.precision=bf16")
        )


def accelerator(spec: RunSpec, cpu: bool, folder: Path) -> Accelerator:
    precision = {"fp32": "no"}.get(spec.train.precision, spec.train.precision)
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


def run_folder(out: Path | None, name: str, resume: bool, main: bool) -> Path:
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
                f"{folder} already holds a run; go on with it by contralex train --resume --out {folder}, or choose "
                "another folder with --out."
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
