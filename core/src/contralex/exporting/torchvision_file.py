"""A state dict that a model of torchvision loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from contralex.exporting.formats import Written
from contralex.exporting.original import Original
from contralex.exporting.tensors import write_tensors
from contralex.kinds.backbones.parts import find_classifier
from contralex.plugins.architecture import NewLayer

_TOLERANCE = 1e-5


def write(original: Original, folder: Path, file: str) -> Written:
    from torchvision import models

    architecture = original.architecture("torchvision")
    if isinstance(architecture, str):
        raise original.refuse("torchvision", architecture)
    model = models.get_model(architecture.name, weights=None, **architecture.arguments)
    classifier, _ = find_classifier(model, architecture.name)
    layers = {**architecture.layers, classifier: NewLayer("Identity")}
    for place, layer in layers.items():
        parent, _, name = place.rpartition(".")
        setattr(model.get_submodule(parent), name, _make(layer))
    path = folder / file
    tensors = original.backbone.state_dict()
    if path.suffix == ".pth":
        torch.save({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path)
        loaded, read = torch.load(path, weights_only=True), 'torch.load("{path}", weights_only=True)'
        imports = "import torch, torchvision"
    else:
        from safetensors.torch import load_file

        write_tensors(tensors, path)
        loaded, read = load_file(path), 'safetensors.torch.load_file("{path}")'
        imports = "import safetensors.torch, torch, torchvision"
    model.load_state_dict(loaded)
    with torch.inference_mode():
        comparison = original.compare(model.eval()(original.images), _TOLERANCE, f"torchvision's {architecture.name}")
    given = "".join(f", {name}={value!r}" for name, value in architecture.arguments.items())
    replaced = [f"model.{_index(place)} = {layer.code()}" for place, layer in layers.items()]
    lines = [
        imports,
        f'model = torchvision.models.get_model("{architecture.name}"{given})',
        *replaced,
        f"model.load_state_dict({read})",
        "features = model.eval()(images)",
    ]
    return Written(comparison, "\n".join(lines), "torchvision", "torchvision safetensors", architecture.note)


def _make(layer: NewLayer) -> nn.Module:
    made: Any = getattr(nn, layer.module)
    module: nn.Module = made(*layer.arguments, **layer.options)
    return module


def _index(path: str) -> str:
    """``classifier.6`` as Python writes it, ``classifier[6]``."""
    first, *rest = path.split(".")
    return first + "".join(f"[{part}]" if part.isdecimal() else f".{part}" for part in rest)
