"""Checkpoints: safetensors and JSON in a folder that is complete or absent, and never pickle.

``checkpoints/step-N/`` holds ``model.safetensors`` (the whole method: encoder, key encoder, queue or bank,
prototypes, normalisers), ``optimizer.safetensors`` and ``state.json`` (the step, the optimiser's numbers, the
resolved spec with its digest, the plugins' versions). ``checkpoints/last`` is a text file naming the newest.
Randomness is a function of the step, so no generator's state needs to be kept.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from contralex.errors import ContralexError
from contralex.files import to_disk, write_text

if TYPE_CHECKING:
    from contralex.parts.base import Encoder
    from contralex.spec.layers import Resolved

MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk: its folder, and what ``state.json`` says."""

    folder: Path
    state: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.state["step"])

    def resolved(self) -> Resolved:
        """The spec that the run had; plugins that are missing or have another version are named."""
        from contralex.spec.layers import resolve_data

        self._same_plugins()
        return resolve_data(self.state["spec"], where=str(self.folder / STATE))

    def tensors(self, name: str = MODEL) -> dict[str, Tensor]:
        try:
            return load_file(self.folder / name)
        except (OSError, SafetensorError) as error:
            raise ContralexError(
                f"{self.folder / name} cannot be read ({error}); choose another checkpoint."
            ) from error

    def _same_plugins(self) -> None:
        import logging

        from contralex.registry import registry

        for name, version in self.state["plugins"].items():
            plugin = registry().plugins.get(name)
            if plugin is None:
                raise ContralexError(
                    f"{self.folder} was made with {name} {version}, which is missing: pip install {name}=={version}."
                )
            if not plugin.usable:
                raise ContralexError(f"{self.folder} needs {name}, which is {plugin.state}: {plugin.reason}.")
            if plugin.version != version:
                logging.getLogger("contralex").warning(
                    "%s was made with %s %s, and %s is installed.", self.folder, name, version, plugin.version
                )


def save(
    folder: Path, step: int, model: nn.Module, optimizer: Optimizer, resolved: Resolved, extra: dict[str, Any]
) -> Path:
    """Writes ``folder/step-N`` at once: under another name first, then renamed, then named in ``last``."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"step-{step}"
    draft = Path(tempfile.mkdtemp(prefix=f".step-{step}-", dir=folder))
    draft.chmod(0o755)
    tensors, numbers = _flat(optimizer)
    state = {
        "format": 1,
        "step": step,
        "spec": resolved.data,
        "digest": resolved.digest,
        "plugins": resolved.plugins,
        "optimizer": numbers,
        **extra,
    }
    save_file(_contiguous(model.state_dict()), draft / MODEL)
    save_file(_contiguous(tensors), draft / OPTIMIZER)
    write_text(draft / STATE, json.dumps(state, indent=1))
    for file in draft.iterdir():
        to_disk(file)
    if target.exists():
        shutil.rmtree(target)
    draft.rename(target)
    write_text(folder / "last", target.name + "\n")
    return target


def open_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint from its own folder, from ``checkpoints``, from ``checkpoints/last``, or from a run's folder."""
    folder = _folder(path)
    file = folder / STATE
    try:
        state = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ContralexError(
            f"{path} is no checkpoint: {file} is missing; give a run's folder or one of its checkpoints/step-N."
        ) from error
    except ValueError as error:
        raise ContralexError(f"{file} is damaged ({error}); choose another checkpoint.") from error
    if state.get("format") != 1:
        raise ContralexError(f"{file} has format {state.get('format')}, and this contralex reads 1; update contralex.")
    return Checkpoint(folder, state)


def restore(checkpoint: Checkpoint, model: nn.Module, optimizer: Optimizer) -> None:
    """Puts a checkpoint's tensors into a model and an optimiser built from the same spec."""
    load_into(model, checkpoint.tensors(), checkpoint.folder)
    tensors = checkpoint.tensors(OPTIMIZER)
    state: dict[int, dict[str, Any]] = {}
    for key, value in [*tensors.items(), *checkpoint.state["optimizer"].items()]:
        place, name = key.split(".", 1)
        state.setdefault(int(place), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def load_into(model: nn.Module, tensors: dict[str, Tensor], where: Path) -> None:
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ContralexError(
            f"{where} does not fit the spec: {' '.join(str(error).split())[:300]}; "
            "resume with the spec that the run was started with, or start a new run."
        ) from error


def load_encoder(path: str | Path, *, allow_code: bool = False) -> Encoder:
    """The query encoder of a checkpoint, in evaluation mode.

    ``allow_code``: the Python files that its spec names in ``code`` may be run.
    """
    from contralex.spec.code import permission
    from contralex.train import build

    checkpoint = open_checkpoint(Path(path))
    with permission(allow_code):
        encoder = build.encoder(checkpoint.resolved().run)
    prefix = "encoder."
    mine = {name[len(prefix) :]: t for name, t in checkpoint.tensors().items() if name.startswith(prefix)}
    load_into(encoder, mine, checkpoint.folder)
    return encoder.eval()


def load_backbone(path: str | Path, *, allow_code: bool = False) -> nn.Module:
    """The backbone of a checkpoint's encoder, in evaluation mode: images (B, C, H, W) to features (B, F).

    For torchvision and timm backbones it is their own model without its classifier, so its ``state_dict`` goes
    into a model of theirs with ``strict=False``.
    """
    encoder = load_encoder(path, allow_code=allow_code)
    backbone = getattr(encoder, "backbone", None)
    if not isinstance(backbone, nn.Module):
        raise ContralexError(
            f"{path}: the encoder {type(encoder).__name__} has no backbone of its own; use load_encoder(...).features."
        )
    return backbone


def prune(folder: Path, keep: int) -> None:
    """Removes all but the newest ``keep`` checkpoints, and drafts that a killed run left."""
    steps = sorted((path for path in folder.glob("step-*")), key=lambda path: int(path.name.split("-")[1]))
    for path in [*steps[:-keep], *folder.glob(".step-*")]:
        shutil.rmtree(path, ignore_errors=True)


def _folder(path: Path) -> Path:
    if (path / STATE).exists():
        return path
    base = path if path.name == "checkpoints" else path / "checkpoints"
    last = path if path.name == "last" else base / "last"
    if last.is_file():
        return last.parent / last.read_text("utf-8").strip()
    return path


def _flat(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The optimiser's state as tensors and plain numbers, keyed ``<parameter>.<name>``."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for place, entries in optimizer.state_dict()["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{place}.{name}"] = value
            elif value is not None:
                numbers[f"{place}.{name}"] = value
    return tensors, numbers


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    # A clone for what shares storage, which safetensors refuses to write twice.
    return {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
