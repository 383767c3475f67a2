"""Starting several processes of the same command on this machine.

``accelerate launch --cpu --num_processes 2`` starts one process and says nothing; this starts as many as asked,
on the GPUs where there are any, else with gloo on the CPU, and ends when they do.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

from contralex.errors import ContralexError
from contralex.training import parent, signals


def launch(argv: list[str], processes: int, *, to_stderr: bool = False) -> int:
    """Runs ``python -m contralex argv`` in each of ``processes`` processes, and returns the first bad exit code.
    ``to_stderr``: what they print on stdout goes to stderr."""
    import torch

    devices = torch.cuda.device_count()
    if 0 < devices < processes:
        raise ContralexError(
            f"--processes {processes}: this machine has {devices} GPU(s); ask for at most {devices}, "
            "or hide them with CUDA_VISIBLE_DEVICES= to run on the CPU."
        )
    store = _rendezvous()
    common = {
        **parent.child_environment(),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # torch's way to say that the store is there, and none of them opens it
        "TORCHELASTIC_RESTART_COUNT": "0",  # which older releases of torch read beside it
    }
    common.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    command = [sys.executable, "-m", "contralex", *argv]
    children = [
        # A session of their own, so that Ctrl-C reaches them once, through the handler below.
        subprocess.Popen(
            command,
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=2 if to_stderr else None,
            start_new_session=True,
        )
        for rank in range(processes)
    ]
    with pass_signals_to(children):
        return wait(children)


def wait(children: Sequence[subprocess.Popen[bytes]]) -> int:
    """Waits for all; when one fails, the others would wait for it for ever, so they are asked to end."""
    while True:
        codes = [child.poll() for child in children]
        failed = next((rank for rank, code in enumerate(codes) if code), None)
        if failed is not None:
            late = _end(children)
            # One that was killed comes before those that ended because they lost it, in whatever order they were seen;
            # an abort may itself be how a process ends that lost another (NCCL's watchdog does so).
            gone = [rank for rank in range(len(children)) if rank not in late]
            killed = [rank for rank in gone if children[rank].returncode < 0]
            failed = next((rank for rank in killed if children[rank].returncode != -signal.SIGABRT), failed)
            code = children[failed].returncode
            if late or code < 0:
                print(_what_happened(failed, code, len(children)), file=sys.stderr)
            return code if code > 0 else 128 - code
        if all(code == 0 for code in codes):
            return 0
        time.sleep(0.1)


def _what_happened(rank: int, code: int, processes: int) -> str:
    if code > 0:
        how = f"ended with {code}"
    else:
        how = f"was killed by {signal.Signals(-code).name}"
        if -code == signal.SIGKILL:
            how += " (the system does that where memory runs out)"
    return f"Process {rank} of {processes} {how}, and the others were stopped. The run goes on by --resume."


def _end(children: Sequence[subprocess.Popen[bytes]], patience: float = 10.0) -> set[int]:
    """The ranks of those that had to be killed."""
    deadline = time.monotonic() + patience
    # Those that stop of their own accord (all of them saw the same signal) may finish what they are writing.
    while time.monotonic() < deadline and any(child.poll() is None for child in children):
        time.sleep(0.1)
    late = {rank for rank, child in enumerate(children) if child.poll() is None}
    for rank in late:
        children[rank].kill()
    for child in children:
        child.wait()
    return late


@contextlib.contextmanager
def pass_signals_to(children: Sequence[subprocess.Popen[Any]]) -> Iterator[list[int]]:
    """Within, SIGINT, SIGTERM and SIGHUP go to the children; what is yielded holds those that came."""
    came: list[int] = []

    def passed_on(number: int, frame: FrameType | None) -> None:
        came.append(number)
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    with signals.handle_with(passed_on):
        yield came


def _rendezvous() -> Any:
    """Where the processes meet. It has its port from the start: one that was looked for, and opened later by the first
    process, might be another launch's by then."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
