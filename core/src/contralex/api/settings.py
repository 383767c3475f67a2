"""Settings as Python has them, ``{"train.epochs": 5}``, as the texts of ``--set``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from contralex.errors import ContralexError

Sets = Mapping[str, Any] | Sequence[str] | str | None
"""Values by their paths, or texts as ``--set`` takes them, such as ``"train.epochs=5"``."""
PathLike = str | os.PathLike[str]


def set_texts(sets: Sets, epochs: int | None = None) -> list[str]:
    """``["train.epochs=5"]`` of ``{"train.epochs": 5}``. ``epochs``: as ``--epochs``."""
    texts = _texts(sets)
    if epochs is None:
        return texts
    if any(text.partition("=")[0].strip() == "train.epochs" for text in texts):
        raise ContralexError(f"train.epochs is set twice; leave out the --set, or --epochs {epochs}")
    return [f"train.epochs={epochs}", *texts]


def path_text(path: PathLike | None) -> str | None:
    return None if path is None else os.fspath(path)


def _texts(sets: Sets) -> list[str]:
    if sets is None:
        return []
    if isinstance(sets, str):
        return [sets]
    if isinstance(sets, Mapping):
        return [_text(path, value) for path, value in sets.items()]
    return list(sets)


def _text(path: str, value: Any) -> str:
    if not isinstance(path, str) or "=" in path:
        raise ContralexError(f'sets: {path!r} is no path of a value; write it as {{"train.epochs": 5}}')
    try:
        return f"{path}={json.dumps(value, ensure_ascii=False, default=_plain)}"
    except (TypeError, ValueError, AttributeError, RecursionError):
        raise ContralexError(
            f"sets: {path} is {value!r:.80}, and a value is None, a number, a text, a list or a dict of them"
        ) from None


def _plain(value: Any) -> Any:
    """A path as its text, and a number of numpy or torch as Python's."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.item()
