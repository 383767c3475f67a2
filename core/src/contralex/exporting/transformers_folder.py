"""A folder that ``transformers.AutoModel`` opens: ResNets as its own, anything else that timm has by its wrapper."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from contralex.data.preprocessing import Preprocessing
from contralex.errors import ContralexError, remedy
from contralex.exporting import timm_folder
from contralex.exporting.formats import Written
from contralex.exporting.original import Original
from contralex.exporting.tensors import write_tensors
from contralex.plugins.architecture import Architecture
from contralex.plugins.layouts import Rename

_LOADING = (
    "import transformers\n"
    'model = transformers.AutoModel.from_pretrained("{path}").eval()\n'
    "features = model(images).pooler_output.flatten(1)"
)
_PIL = {"bilinear": 2, "bicubic": 3}
# From torchvision's names of a ResNet's tensors to transformers'. A block's layers are counted from 1 there.
_RESNET = [
    Rename("conv1.*", "embedder.embedder.convolution.*"),
    Rename("bn1.*", "embedder.embedder.normalization.*"),
    Rename("layer{n}.{n}.downsample.0.*", "encoder.stages.{n}.layers.{n}.shortcut.convolution.*"),
    Rename("layer{n}.{n}.downsample.1.*", "encoder.stages.{n}.layers.{n}.shortcut.normalization.*"),
    *(
        Rename(f"layer{{n}}.{{n}}.{ours}{place}.*", f"encoder.stages.{{n}}.layers.{{n}}.layer.{place - 1}.{theirs}.*")
        for place in (1, 2, 3)
        for ours, theirs in (("conv", "convolution"), ("bn", "normalization"))
    ),
]


def write(original: Original, folder: Path, file: str) -> Written:
    native, wrapped = original.architecture("transformers"), original.architecture("timm")
    transformers = _import_transformers()
    note = ""
    if isinstance(native, Architecture):
        _write_resnet(original, native, folder)
        what, needs = "ResNetModel", "transformers"
    elif isinstance(wrapped, Architecture):
        timm_folder.import_timm()
        timm_folder.write_folder(original, wrapped, folder)
        what, needs, note = "TimmWrapperModel", f"transformers timm>={timm_folder.LOWEST}", wrapped.note
    else:
        raise original.refuse("transformers", native or wrapped)
    transformers.utils.logging.disable_progress_bar()
    with torch.inference_mode():
        model = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
        features = model(original.images).pooler_output.flatten(1)
    comparison = original.compare(features, timm_folder.TOLERANCE, f"transformers' {what}", note)
    return Written(comparison, _LOADING, "transformers", needs, " ".join(filter(None, [f"It is a {what}.", note])))


def _write_resnet(original: Original, architecture: Architecture, folder: Path) -> None:
    config = {"architectures": ["ResNetModel"], "model_type": "resnet", **architecture.arguments}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    if original.preprocessing is not None:
        steps = _processor(original.preprocessing)
        (folder / "preprocessor_config.json").write_text(json.dumps(steps, indent=2) + "\n", "utf-8")
    tensors = {_their_name(name): tensor for name, tensor in original.backbone.state_dict().items()}
    write_tensors(tensors, folder / "model.safetensors")


def _their_name(name: str) -> str:
    found = next(new for rename in _RESNET if (new := rename.apply(name)) is not None)
    # Stages are counted from 0 there.
    return ".".join(
        str(int(part) - 1) if before == "stages" else part
        for before, part in zip(["", *found.split(".")], found.split("."), strict=False)
    )


def _processor(steps: Preprocessing) -> dict[str, Any]:
    """What ``AutoImageProcessor`` makes of an image: the same."""
    size = {"height": steps.resize, "width": steps.resize} if steps.squash else {"shortest_edge": steps.resize}
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": size,
        "resample": _PIL[steps.interpolation],
        "do_center_crop": True,
        "crop_size": {"height": steps.crop, "width": steps.crop},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(steps.mean),
        "image_std": list(steps.std),
    }


def _import_transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise ContralexError(
            "--to transformers opens what it writes with transformers, which is not installed:"
            + remedy("pip", "install", "contralex[transformers]")
        ) from None
    return transformers
