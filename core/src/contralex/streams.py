"""The streams that a command prints to: characters that their encoding lacks, and streams that take nothing more."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from collections.abc import Sequence
from typing import IO

_PLAIN = {
    "→": "->", "←": "<-", "·": "*", "−": "-", "‖": "||", "×": "x", "²": "^2", "≤": "<=", "≥": ">=", "…": "...",
    "τ": "tau", "θ": "theta", "λ": "lambda",
}  # fmt: skip
_HANDLER = "contralex.plain"
# What a system says of a file or a stream that is no fault of the program.
_OUTSIDE = frozenset(
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EROFS", "EIO", "ENAMETOOLONG", "EACCES", "EPERM", "ENOTDIR", "EMFILE", "EFBIG")
    if hasattr(errno, name)
)
_LONGEST = 300  # characters of a path in a sentence


def accept_any_text() -> None:
    """Makes both streams print every text. A redirect on Windows, or ``PYTHONIOENCODING=ascii``, lacks characters."""
    codecs.register_error(_HANDLER, _replace)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started this
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def can_print(text: str, stream: IO[str]) -> bool:
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def explain_os_error(error: OSError) -> str | None:
    """The sentence for a disk, a stream or a path that the system refuses; None for any other error."""
    if error.errno not in _OUTSIDE:
        return None
    where = "the output cannot be written" if error.filename is None else os.fsdecode(error.filename)
    return f"{where if len(where) <= _LONGEST else where[:_LONGEST] + '...'}: {error.strerror}"


def align(table: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, whose columns stand below each other."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def write_line(stream: IO[str], text: str) -> None:
    """Writes a line at once. A stream that takes no more is said so once, on stderr, and what it was for goes on."""
    try:
        stream.write(text + "\n")
        stream.flush()
    except OSError as error:
        give_up(stream, error)


def give_up(stream: IO[str], error: OSError) -> None:
    """After ``error`` nothing is written to the stream any more. Whoever closed its other end knows already."""
    discard(stream)
    if not isinstance(error, BrokenPipeError) and stream is not sys.stderr:
        print(
            f"Warning: the output cannot be written ({error.strerror}); the work goes on without it.", file=sys.stderr
        )


def finish() -> str | None:
    """Writes what stdout holds back; the reason where it cannot. Python itself would say so in a traceback."""
    try:
        sys.stdout.flush()
    except OSError as error:
        discard(sys.stdout)
        return None if isinstance(error, BrokenPipeError) else explain_os_error(error) or str(error)
    return None


def discard(stream: IO[str]) -> None:
    """Lets what is held back go nowhere, so that Python does not try again when it ends."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()
    except (OSError, ValueError):
        pass


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    assert isinstance(error, UnicodeEncodeError)
    plain = "".join(
        _PLAIN.get(character, "") or _escape(character) for character in error.object[error.start : error.end]
    )
    return plain, error.end


def _escape(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode("ascii")
