"""The folder that a run or a comparison is written to: made when it can begin, and written by one process at a time.

The lock is the system's (``flock``, or Windows' file regions), so it ends with the process that has it, however that
ends. Where a file system has no locks, the lock file's words are believed: its process, if that still lives.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from contralex.errors import ContralexError
from contralex.files import read_json

LOCK = ".lock"
FAILURE = "failure.json"  # the reason why a run failed, until it goes on
SPEC = "spec.yaml"
_HELD = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
_CHILD_SECONDS = 10.0  # what a child that a killed process had just forked may need until it lets go
_FAR = 2**30  # Windows forbids others to read a region that is locked, so it is one beyond the words

_open_locks: set[int] = set()  # descriptors


class Gone(ContralexError):
    """A folder is no longer the one that was being written."""

    exit_code = 1


class Lock:
    """``folder`` is this process's alone to write, from :meth:`acquire` to :meth:`release`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / LOCK
        self._open: int | None = None

    def acquire(self) -> None:
        """Raises :class:`ContralexError` that says who has it."""
        while self._open is None:
            try:
                number = os.open(self.file, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
            except OSError as error:
                raise ContralexError(f"{self.folder} cannot be written to ({error.strerror}).") from None
            try:
                self._lock(number)
                if not _is_at(number, self.file):  # who had it has removed its file in the meantime
                    continue
                os.ftruncate(number, 0)
                os.lseek(number, 0, os.SEEK_SET)
                os.write(number, json.dumps(_this_process()).encode())
                self._open = number
            except OSError as error:
                raise ContralexError(f"{self.folder} cannot be written to ({error.strerror}).") from None
            finally:
                if self._open is None:
                    os.close(number)
        _open_locks.add(self._open)

    def check(self) -> None:
        """Before anything is written: raises :class:`Gone` where the folder was removed, moved or begun anew."""
        if self._open is not None and not _is_at(self._open, self.file):
            raise Gone(
                f"{self.folder} is no longer the folder that this run was writing: it, or {LOCK} in it, was removed, "
                "renamed or replaced. The run has stopped, and wrote nothing more there."
            )

    def release(self) -> None:
        if self._open is None:
            return
        number, self._open = self._open, None
        _open_locks.discard(number)
        with contextlib.suppress(OSError):
            if _is_at(number, self.file):
                self.file.unlink()
        os.close(number)

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _lock(self, number: int) -> None:
        until = time.monotonic() + _CHILD_SECONDS
        while True:
            try:
                return _lock_file(number)
            except OSError as error:
                who = _who(self.file)
                if error.errno in _NO_LOCKS:
                    return self._believe(who)
                if error.errno not in _HELD:
                    raise
                if not _has_ended(who) or time.monotonic() > until:
                    raise self._held(who) from None
            time.sleep(0.05)

    def _believe(self, who: dict[str, Any] | None) -> None:
        """On a file system without locks."""
        if who is None or _has_ended(who):
            return
        held = self._held(who)
        held.args = (f"{held} If that process has ended, remove {self.file}.",)
        raise held

    def _held(self, who: dict[str, Any] | None) -> ContralexError:
        by = f"process {who['pid']} on {who['host']}, since {who['since']}" if who else "another process"
        return ContralexError(
            f"{self.folder} is being written to by {by}; wait until that has ended, or choose another --out."
        )


def is_being_written(folder: Path) -> bool | None:
    """Whether a process has the folder's lock. None where there is no lock file; False where the process that made it
    has ended without removing it, as one does that is killed. Nothing is locked or changed."""
    file = folder / LOCK
    if not os.path.lexists(file):
        return None
    who = _who(file)
    if who is not None and who["host"] == socket.gethostname():
        return _lives(who["pid"])
    try:
        number = os.open(file, os.O_RDWR)
    except OSError as error:  # it was removed meanwhile, or is another user's
        return None if error.errno == errno.ENOENT else True
    try:
        _lock_file(number)
    except OSError:
        return True
    finally:
        os.close(number)
    return False


def make(folder: Path) -> list[Path]:
    """Makes a folder and what is missing above it; returns what was made, the innermost first."""
    missing = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ContralexError(f"--out {folder}: the folder cannot be made ({error.strerror}).") from None
    return missing


def make_new(folder: Path) -> tuple[Path, list[Path]]:
    """Makes a folder that was not there, under this name or the first of ``-2``, ``-3``, ... that is free; returns it,
    and what was made."""
    above = make(folder.parent)
    number = 1
    while True:
        chosen = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        try:
            chosen.mkdir()
            return chosen, [chosen, *above]
        except FileExistsError:
            number += 1
        except OSError as error:
            raise ContralexError(f"--out {chosen}: the folder cannot be made ({error.strerror}).") from None


def remove_empty(folders: list[Path]) -> None:
    """Those that :func:`make` made, as far as nothing was put into them."""
    with contextlib.suppress(OSError):
        for path in folders:
            path.rmdir()


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Make a folder and let no other process lock it meanwhile. It is removed again where nothing was put into it."""
    made = make(folder)
    try:
        with Lock(folder):
            yield
    finally:
        remove_empty(made)


def name_by_time(name: str) -> Path:
    """The folder of a run or comparison that has no ``--out``."""
    return Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def _this_process() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}


def _who(file: Path) -> dict[str, Any] | None:
    """Of whom a lock file speaks, or None where it does not say, as in the moment in which it is made."""
    try:
        said = read_json(file, 4096)
    except (OSError, ValueError):
        return None
    fits = isinstance(said, dict) and type(said.get("pid")) is int and 0 < said["pid"] < 2**31
    words = fits and all(isinstance(said.get(key), str) and said[key].isprintable() for key in ("host", "since"))
    return said if words else None


def _has_ended(who: dict[str, Any] | None) -> bool:
    """Whether the process of which a lock file speaks is known to have ended."""
    return who is not None and who["host"] == socket.gethostname() and not _lives(who["pid"])


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True


def _is_at(number: int, path: Path) -> bool:
    """Whether an open file is the one that lies at a path."""
    try:
        return os.path.samestat(os.fstat(number), os.stat(path))
    except OSError:
        return False


if sys.platform == "win32":
    import msvcrt

    def _lock_file(number: int) -> None:
        os.lseek(number, _FAR, os.SEEK_SET)
        msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock_file(number: int) -> None:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _close_in_child() -> None:
    """A data worker that outlives a killed run for a moment must not keep its lock, but for the instant until this has
    run (``_CHILD_SECONDS``)."""
    for number in _open_locks:
        with contextlib.suppress(OSError):
            os.close(number)
    _open_locks.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
