"""A folder in the layout of timm's models on the hub: ``config.json`` and ``model.safetensors``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from contralex.errors import ContralexError, remedy
from contralex.exporting.formats import Written
from contralex.exporting.original import Original
from contralex.exporting.tensors import write_tensors
from contralex.kinds.backbones.parts import make_timm_model
from contralex.plugins.architecture import Architecture

LOWEST = "1.0.16"  # the first timm that opens a folder by local-dir:
TOLERANCE = 1e-5


def write(original: Original, folder: Path, file: str) -> Written:
    architecture = original.architecture("timm")
    if isinstance(architecture, str):
        raise original.refuse("timm", architecture)
    timm = import_timm()
    arguments = write_folder(original, architecture, folder)
    with torch.inference_mode():
        model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        features = model(original.images)
    comparison = original.compare(features, TOLERANCE, f"timm's {architecture.name}", architecture.note)
    made = f" ({', '.join(f'{name}={value!r}' for name, value in arguments.items())})" if arguments else ""
    return Written(
        comparison,
        'import timm\nmodel = timm.create_model("local-dir:{path}", pretrained=True).eval()\nfeatures = model(images)',
        "timm",
        f"timm>={LOWEST}",
        " ".join(filter(None, [f"The architecture is timm's {architecture.name}{made}.", architecture.note])),
    )


def write_folder(original: Original, architecture: Architecture, folder: Path) -> dict[str, Any]:
    """Write ``config.json`` and ``model.safetensors``; returns the arguments with which timm makes the model."""
    preprocessing = original.preprocessing
    if preprocessing is None:
        raise ContralexError(
            f"--to timm: evaluation of views of kind {original.spec.method.views.kind_name()} does more to an image "
            "than timm's transforms can; the formats onnx and torch-export hold the network alone."
        )
    any_size = {"dynamic_img_size": True} if architecture.any_size else {}
    model, arguments = make_timm_model(architecture.name, **{**architecture.arguments, **any_size})
    tensors = {
        name: tensor for name, tensor in original.backbone.state_dict().items() if name not in architecture.left_out
    }
    model.load_state_dict(tensors)  # to say here what does not fit
    cfg = model.pretrained_cfg
    if cfg.get("fixed_input_size"):  # the size that its positions are for, which timm else takes from `input_size`
        arguments = {"img_size": list(cfg["input_size"][1:]), **arguments}
    channels = original.images.shape[1]
    pretrained = {
        "tag": "contralex",
        "custom_load": False,
        "input_size": list(original.images.shape[1:]),
        "fixed_input_size": bool(cfg.get("fixed_input_size", False)) and not arguments.get("dynamic_img_size", False),
        "interpolation": preprocessing.interpolation,
        "crop_pct": preprocessing.crop_fraction,
        "crop_mode": "squash" if preprocessing.squash else "center",
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
        "num_classes": 0,
        "pool_size": None,
        # What timm would adapt to other channels, where they are those of published weights.
        "first_conv": cfg.get("first_conv") if channels == 3 else None,
        "classifier": cfg.get("classifier"),
    }
    config = {
        "architecture": architecture.name,
        "num_classes": 0,
        "num_features": int(model.num_features),
        **({"model_args": arguments} if arguments else {}),
        "pretrained_cfg": pretrained,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    write_tensors(tensors, folder / "model.safetensors")
    return arguments


def import_timm() -> Any:
    from packaging.version import Version

    try:
        import timm
    except ImportError:
        raise ContralexError(
            "--to timm opens what it writes with timm, which is not installed:"
            + remedy("pip", "install", f"timm>={LOWEST}")
        ) from None
    if Version(timm.__version__) < Version(LOWEST):
        raise ContralexError(
            f"timm {timm.__version__} does not open folders; {LOWEST} is the first that does:"
            + remedy("pip", "install", f"timm>={LOWEST}")
        )
    return timm
