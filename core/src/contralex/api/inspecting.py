"""What a checkpoint holds, and whether it is whole. Imports no torch, and runs nothing of it."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contralex import progress
from contralex.api.arguments import checked
from contralex.api.runs import Run
from contralex.api.settings import PathLike
from contralex.errors import ContralexError
from contralex.files import opened
from contralex.training.checkpoints import header, manifest, read

if TYPE_CHECKING:
    from contralex.training.checkpoints.header import Stored
    from contralex.training.checkpoints.state import CheckpointState


@checked
def inspect(checkpoint: PathLike) -> dict[str, Any]:
    """What a checkpoint holds, and any damage, as plain data. Nothing of it is run, and torch is not imported.

    ``checkpoint``: its folder, or a run's, of which the checkpoint is taken that the run would go on from.

    >>> import contralex
    >>> found = contralex.inspect("runs/my-run")
    >>> found["step"], found["problems"]
    (2, [])
    """
    with progress.listening("stderr"), progress.during(f"Reading {checkpoint}"):
        return contents(Run(checkpoint).path)


def contents(path: Path) -> dict[str, Any]:
    """What :func:`inspect` returns."""
    folder = path if read.names_a_step(path) else read.open_checkpoint(path, read.TENSORS).folder
    files = manifest.files_of(folder)
    problems = [f"{folder / file.name}: {file.problem}" for file in files if file.problem]
    state: CheckpointState | None = None
    try:
        state = read.read_state(folder)
        read.open_checkpoint(folder, read.TENSORS)
    except ContralexError as error:
        if not problems:
            problems.append(str(error))
    listed: dict[str, list[dict[str, Any]]] = {}
    for name in (manifest.MODEL, manifest.OPTIMIZER):
        try:
            listed[name] = [_plain(tensor) for tensor in header.read(folder / name)]
        except ContralexError as error:
            if not problems:
                problems.append(str(error))
    return {
        "folder": str(folder),
        **{key: getattr(state, key, None) for key in ("step", "epoch", "digest", "metrics", "drift", "spec")},
        "forked": state.forked.model_dump() if state is not None and state.forked is not None else None,
        "plugins": [_plugin(name, version) for name, version in (state.plugins if state else {}).items()],
        "code": [_code(entry) for entry in _entries(state.spec if state else {})],
        "tensors": listed,
        "files": [asdict(file) for file in files],
        "problems": problems,
    }


def _plain(tensor: Stored) -> dict[str, Any]:
    return {**asdict(tensor), "shape": list(tensor.shape)}


def _plugin(name: str, version: str) -> dict[str, Any]:
    try:
        installed: str | None = metadata.version(name)
    except metadata.PackageNotFoundError:
        installed = None
    return {"name": name, "version": version, "installed": installed}


def _entries(spec: dict[str, Any]) -> list[dict[str, str]]:
    code = spec.get("code")
    entries = code if isinstance(code, list) else []
    return [entry for entry in entries if isinstance(entry, dict) and all(isinstance(v, str) for v in entry.values())]


def _code(entry: dict[str, str]) -> dict[str, Any]:
    """A code file, and whether what lies at its path is still what was run."""
    now = "missing"
    try:
        with opened(Path(entry["file"])) as file:
            same = hashlib.file_digest(file, "sha256").hexdigest() == entry.get("sha256")
        now = "unchanged" if same else "changed"
    except (OSError, ValueError, KeyError):
        pass
    return {"file": entry.get("file"), "sha256": entry.get("sha256"), "now": now}
