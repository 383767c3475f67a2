"""Writing files so that whoever reads them sees the old text or the new, and never a part."""

from __future__ import annotations

import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(text, "utf-8")
        to_disk(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def to_disk(path: Path) -> None:
    """Waits until the system has written what it holds of a file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
