"""How a test begins processes of its own: some that compute together over gloo, or a command.

A fresh Python imports torch and what belongs to it for seconds. So each worker of pytest's has one process that has
imported them and computes nothing, a fork server of multiprocessing's, which forks itself for every process that a
test asks for. What a test asks of a fresh interpreter, of signals or of the terminal begins with ``subprocess``.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

LIMIT = 900.0  # seconds for what processes do together, on a busy machine

# torch._dynamo is imported by the first gradient of an optimizer, the others by the first views of digits.
_PRELOADED = ["torch._dynamo", "torchvision", "numba", "sklearn.datasets", "contralex.testing.process_worker"]
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(_PRELOADED)


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def join(rank: int, port: int, world: int = 2) -> None:
    """In one of the processes, on one thread: meet the others."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)


def spawn(worker: Callable[..., None], args: tuple[Any, ...], world: int = 2, limit: float = LIMIT) -> None:
    """Call ``worker(rank, *args)`` in each of ``world`` processes, and wait for them. An error of one is raised here,
    and ends the others; processes that take longer than ``limit`` seconds are killed and named."""
    inner = (worker, dict(os.environ), args)
    context = mp.start_processes(_work, args=inner, nprocs=world, join=False, start_method="forkserver")
    deadline = time.monotonic() + limit
    try:
        while not context.join(timeout=max(0.0, deadline - time.monotonic())):
            late = [rank for rank, process in enumerate(context.processes) if process.is_alive()]
            if late and time.monotonic() > deadline:
                raise TimeoutError(f"{worker.__qualname__} has not ended after {limit:g} s on ranks {late}")
    finally:
        for process in context.processes:
            process.kill()
            process.join()


def _work(rank: int, worker: Callable[..., None], environment: dict[str, str], args: tuple[Any, ...]) -> None:
    set_environment(environment)
    worker(rank, *args)


def set_environment(environment: dict[str, str]) -> None:
    """The caller's; the server has that of the first caller."""
    os.environ.clear()
    os.environ.update(environment)


def contralex(*words: object, limit: float = LIMIT) -> subprocess.CompletedProcess[str]:
    """``python -m contralex WORDS`` on one thread, with nothing to read. Killed after ``limit`` seconds."""
    command = ["contralex", *(str(word) for word in words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as name:
        written = Path(name) / "stdout", Path(name) / "stderr"
        process = SERVER.Process(target=_be_a_command, args=(environment, os.getcwd(), command, written))
        process.start()
        process.join(limit)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(command, limit)
        out, err = (file.read_text("utf-8") for file in written)
        return subprocess.CompletedProcess(command, process.exitcode, out, err)


def _be_a_command(environment: dict[str, str], folder: str, command: list[str], written: tuple[Path, Path]) -> None:
    from contralex.__main__ import main

    set_environment(environment)
    os.chdir(folder)
    torch.set_num_threads(1)
    for stream, file in enumerate(written, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), stream)
    sys.argv = command
    sys.exit(main())
