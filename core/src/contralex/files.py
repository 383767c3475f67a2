"""Writing files so that whoever reads them sees the old text or the new, and reading those that somebody else wrote."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_NO_FSYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES)  # a system that has none for folders
_LINKS_NOT_FOLLOWED = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # nor is a pipe waited for
JSON_LIMIT = 64 * 2**20  # bytes


def write_text(path: Path, text: str) -> None:
    """Raises OSError, which names ``path``."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Raises OSError, which names ``path``."""
    kind = stat.S_IFMT(mode(path))
    try:
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):  # a device or a pipe is written to, and never replaced
            path.write_bytes(content)
            return
        _replace(path, content)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _replace(path: Path, content: bytes) -> None:
    with replacing(path) as draft:
        draft.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """The name under which to write a file that takes the place of ``path`` when all of it is there."""
    draft = path.with_name(f".{path.name[:40]}.{os.getpid()}")  # no longer than a name may be
    try:
        yield draft
        to_disk(draft)
        draft.replace(path)
        to_disk(path.parent)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A new folder that gets the name ``path`` at the end, and is removed where something is raised. At ``path`` there
    may be an empty one."""
    if path.name in ("", ".."):
        raise OSError(errno.EINVAL, "give it a name of its own, and not that of the present folder", str(path))
    draft = path.with_name(f".{path.name[:40]}.{os.getpid()}")
    draft.mkdir()
    try:
        yield draft
        for file in draft.iterdir():
            to_disk(file)
        if path.is_dir():
            path.rmdir()
        draft.rename(path)
        to_disk(path.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def to_disk(path: Path) -> None:
    """Waits until the system has written what it holds of a file, or of the names in a folder."""
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":
        return
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError as error:
        if not is_folder or error.errno not in _NO_FSYNC:
            raise
    finally:
        os.close(file)


def expand_user(text: str) -> Path:
    """A path that somebody wrote, with ``~`` for a home; as it stands, where there is no such home."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def path_exists(text: str) -> bool:
    """Whether anything is at a path that somebody wrote; False where the text is no path."""
    return mode(expand_user(text)) != 0


def mode(path: Path) -> int:
    """What is at a path, for :mod:`stat`; 0 where nothing is, or where the text is no path."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return 0


@contextmanager
def opened(path: Path) -> Iterator[io.BufferedReader]:
    """A file that is one: no link, pipe or device. Raises OSError, with a reason in ``strerror``."""
    try:
        number = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | _LINKS_NOT_FOLLOWED)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(error.errno, "it is a symbolic link, which may lead anywhere", str(path)) from None
        raise
    with open(number, "rb") as file:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        yield file


def read_json(path: Path, limit: int = JSON_LIMIT) -> Any:
    """Raises OSError, or ValueError with a reason: too large, not JSON, nested too deeply, NaN, a number too long."""
    with opened(path) as file:
        text = file.read(limit + 1)
    if len(text) > limit:
        raise ValueError(f"it has more than {limit} bytes")
    return parse_json(text)


def parse_json(text: bytes) -> Any:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no number of JSON")

    try:
        return json.loads(text.decode("utf-8"), parse_constant=refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
