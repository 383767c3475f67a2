"""Starting several processes of a command that trains."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from contralex.errors import ContralexError, command_to_resume
from contralex.training.folders import SPEC

Stream = Literal["stdout", "stderr"]


def is_launched() -> bool:
    """Whether torchrun, accelerate or our own launcher has started this process as one of several."""
    return "LOCAL_RANK" in os.environ or "WORLD_SIZE" in os.environ


def is_main() -> bool:
    """Whether this is the process that speaks and writes for all, which is known before and after training too."""
    return os.environ.get("RANK", "0") == "0"


def check_processes(processes: int) -> None:
    if processes < 1:
        raise ContralexError(f"processes is {processes}, and must be at least 1")


def launch(argv: list[str], processes: int, to: Stream) -> int:
    """The exit code of ``contralex`` with these words in so many processes, which report to a stream of this one."""
    from contralex.training.launch import launch

    return launch(argv, processes, to_stderr=to == "stderr")


def train_launched(argv: list[str], out: Path, processes: int, to: Stream) -> None:
    """Trains in processes what the words say. Raises :class:`ContralexError` where they do not end well."""
    code = launch(argv, processes, to)
    if code:
        has_begun = (out / SPEC).is_file()
        if not has_begun and out.is_dir() and not any(out.iterdir()):
            out.rmdir()
        raise ContralexError(
            f"training in {processes} processes ended with {code}; the reason is printed above"
            + (f". Go on with:{command_to_resume(out)}" if has_begun else "")
        )
