"""The errors by which a check says that it does not hold or does not apply, and any error as one sentence."""

from __future__ import annotations

import os
import traceback
from types import TracebackType

from contralex.errors import ContralexError

_NOT_THE_PART = ("torch", "torchvision", "numpy", "pydantic", "pydantic_core", "pluggy", "contralex")


class Failed(Exception):
    """The check does not hold; the message says what is wrong and what to do."""


class NotApplicable(Exception):
    """The check does not apply to this subject; the message says why."""


def explain_error(error: Exception) -> str:
    """One sentence. Of an error that a part raised by mistake, with the input (a note) and the part's file and line."""
    text = " ".join(str(error).split())
    if isinstance(error, Failed | ContralexError):
        return text
    return ", ".join([f"it raised {type(error).__name__}: {text}", *_read_notes(error), f"at {find_line(error)}"])


def _read_notes(error: Exception) -> list[str]:
    found: list[str] = getattr(error, "__notes__", [])
    return found


def format_traceback(error: Exception) -> str:
    """The whole of it, for ``-v``; nothing of an error that is a sentence."""
    return "" if isinstance(error, Failed | ContralexError) else "".join(traceback.format_exception(error))


def find_line(error: Exception) -> str:
    """``file:line`` of the innermost call in the part that is checked: in no library and, if there is one, not in the
    core."""
    frames = [_locate(trace) for trace in _list_frames(error.__traceback__)]
    own = [place for module, place in frames if module.partition(".")[0] not in _NOT_THE_PART]
    core = [place for module, place in frames if f"{module}.".startswith("contralex.") and ".testing." not in module]
    return (own or core or [place for _, place in frames] or ["no line that is known"])[-1]


def _list_frames(trace: TracebackType | None) -> list[TracebackType]:
    return [] if trace is None else [trace, *_list_frames(trace.tb_next)]


def _locate(trace: TracebackType) -> tuple[str, str]:
    """A frame's module, and its file and line; the file from the working folder on, where it lies there."""
    file = trace.tb_frame.f_code.co_filename
    near = os.path.relpath(file) if os.path.isabs(file) and file.startswith(os.getcwd() + os.sep) else file
    return str(trace.tb_frame.f_globals.get("__name__", "")), f"{near}:{trace.tb_lineno}"
