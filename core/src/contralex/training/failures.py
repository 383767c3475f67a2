"""What befalls a run from outside, each as one sentence: a lost process, a dead worker, a full disk."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contralex.data.workers import WorkerDied
from contralex.errors import ContralexError, command_to_resume
from contralex.lookup import distributed

_DISK = {errno.ENOSPC: "is full", errno.EDQUOT: "is over its quota", errno.EROFS: "is read-only", errno.EIO: "fails"}
# What the collectives say when another process is gone or does not come; gloo, NCCL and the store each in their words.
_LOST = ("Connection closed by peer", "Connection reset", "Broken pipe", "Timed out", "timed out", "NCCL", "Gloo")


class RunFailed(ContralexError):
    """The run cannot go on here; what it had saved is whole."""

    exit_code = 1


@contextmanager
def explain_failures(folder: Path) -> Iterator[None]:
    """Around training: ``folder`` is the run's."""
    try:
        yield
    except FileNotFoundError as error:
        if folder.is_dir():
            raise
        raise RunFailed(f"The run's folder {folder} was removed or renamed, so the run has stopped.") from error
    except WorkerDied as error:
        raise RunFailed(
            f"A data worker died ({error.reason:.120}), most often because memory ran out; set train.workers to a "
            f"lower number, and {_onward(folder)}"
        ) from error
    except OSError as error:
        if error.errno not in _DISK:
            raise
        where = error.filename or folder
        raise RunFailed(
            f"The disk that holds {where} {_DISK[error.errno]}; make room, then {_onward(folder)}"
        ) from error
    except RuntimeError as error:
        if distributed.world() == 1 or not any(word in str(error) for word in _LOST):
            raise
        raise RunFailed(
            f"Process {distributed.rank()} of {distributed.world()} has lost another one, which ended or came to a "
            f"standstill ({str(error).splitlines()[0]:.150}); see what that one said, then {_onward(folder)}"
        ) from error


def _onward(folder: Path) -> str:
    saved = any((folder / "checkpoints").glob("step-*"))
    how = "go on from the last checkpoint" if saved else "begin it again"
    return f"{how} with:{command_to_resume(folder)}"
