"""An export: written beside its place, opened again and compared with the encoder, and only then put there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contralex.errors import ContralexError
from contralex.exporting.card import write_card
from contralex.exporting.formats import Format, Written, find_format
from contralex.exporting.original import Original
from contralex.files import to_disk, whole_folder

TRANSFORM, CARD = "transform.json", "README.md"


@dataclass(frozen=True)
class Target:
    """Where an export goes: a ``folder``, or beside the ``file`` that was named, under names that begin as its."""

    folder: Path
    file: str
    is_folder: bool

    @property
    def path(self) -> Path:
        return self.folder if self.is_folder else self.folder / self.file

    @property
    def opened(self) -> Path:
        """What is opened: the folder itself, where the format is one, or the file in it."""
        return self.folder / self.file if self.file else self.folder

    def names(self) -> dict[str, str]:
        """The last name of each file that belongs to the export, by its name in a folder."""
        if self.is_folder:
            return {}
        stem = Path(self.file).stem
        return {TRANSFORM: f"{stem}.{TRANSFORM}", CARD: f"{stem}.md"}


def find_target(kind: Format, out: Path) -> Target:
    """Refuses, before anything is computed, a place that nothing can be written to, or that holds something."""
    is_file = bool(kind.suffixes) and out.suffix in kind.suffixes
    if not is_file and out.suffix in (".safetensors", ".pth", ".onnx", ".pt2", ".bin", ".pt"):
        wanted = f"a file that ends in {' or '.join(kind.suffixes)}, or a folder" if kind.suffixes else "a folder"
        raise ContralexError(f"--out {out}: --to {kind.name} writes {wanted}; give another name")
    name = out.name if is_file else f"model{kind.suffixes[0]}" if kind.suffixes else ""
    target = Target(out.parent if is_file else out, name, not is_file)
    above = target.folder if is_file else target.folder.parent
    if not above.is_dir():
        raise ContralexError(f"--out {out}: there is no folder {above}; make it first")
    taken = [out] if not is_file else [out, *(target.folder / name for name in target.names().values())]
    there = next((path for path in taken if os.path.lexists(path)), None)
    if there is not None and not (target.is_folder and there.is_dir() and not any(there.iterdir())):
        raise ContralexError(f"--out {out}: {there} is there already; give another name, or remove it first")
    return target


def write_export(path: Path, to: str, out: Path) -> tuple[Target, Written, dict[str, Any]]:
    """Export the encoder of a run. Returns where it lies, what was written, and what is done to an image before."""
    kind = find_format(to)
    target = find_target(kind, out)
    original = Original(path)
    try:
        with _draft(target) as draft:
            written = kind.write(original, draft, target.file)
            transform = _transform(original)
            name = str(target.opened.relative_to(target.path.parent))
            (draft / TRANSFORM).write_text(json.dumps(transform, indent=2) + "\n", "utf-8")
            (draft / CARD).write_text(write_card(original, written, name, transform), "utf-8")
    except OSError as error:
        raise ContralexError(f"--out {out}: it cannot be written ({error.strerror or error})") from None
    return target, written, transform


def _transform(original: Original) -> dict[str, Any]:
    steps = [" ".join(step.split()) for step in original.views.plain_steps()]
    known = original.preprocessing.to_dict() if original.preprocessing is not None else {}
    return {"input_size": list(original.images.shape[1:]), **known, "steps": steps}


@contextmanager
def _draft(target: Target) -> Iterator[Path]:
    """A folder whose files are put into their place at the end, or nowhere where something is raised."""
    if target.is_folder:
        with whole_folder(target.path) as draft:
            yield draft
        return
    draft = target.path.with_name(f".{target.path.name[:40]}.{os.getpid()}")
    draft.mkdir()
    try:
        yield draft
        for file in draft.iterdir():
            to_disk(file)
        names = target.names()
        for file in sorted(draft.iterdir(), key=lambda file: file.name == target.file):  # the network last
            file.replace(target.folder / names.get(file.name, file.name))
        to_disk(target.folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
