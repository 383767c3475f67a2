"""contralex-clip: what it offers. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING

from contralex.plugin import Layout, Spec, hookimpl
from contralex_clip.command import zero_shot
from contralex_clip.data_spec import DigitCaptionsSpec, ImageCaptionsSpec, WebDatasetSpec
from contralex_clip.layouts import LAYOUTS
from contralex_clip.spec import (
    ClipLossSpec,
    ClipViTSpec,
    ImageTextSpec,
    SharedTransformerSpec,
    SigmoidLossSpec,
    TextEncoderSpec,
    has_captions,
)

if TYPE_CHECKING:
    from torch import Tensor

    from contralex.plugin import Evaluator, Run, RunSpec


@hookimpl
def contralex_backbones() -> list[type[Spec]]:
    return [ClipViTSpec]


@hookimpl
def contralex_encoders() -> list[type[Spec]]:
    return [TextEncoderSpec, SharedTransformerSpec]


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [ClipLossSpec, SigmoidLossSpec]


@hookimpl
def contralex_views() -> list[type[Spec]]:
    return [ImageTextSpec]


@hookimpl
def contralex_datasets() -> list[type[Spec]]:
    return [ImageCaptionsSpec, WebDatasetSpec, DigitCaptionsSpec]


@hookimpl
def contralex_layouts() -> list[Layout]:
    return LAYOUTS


@hookimpl
def contralex_recipes() -> Traversable:
    return files("contralex_clip") / "recipes"


@hookimpl
def contralex_commands() -> dict[str, Callable[..., None]]:
    return {"eval zero-shot": zero_shot}


@hookimpl(kinds=(ClipLossSpec, SigmoidLossSpec), uses_encoders=False)
def contralex_step_end(run: Run, metrics: dict[str, float | Tensor]) -> None:
    """Logs the learned scale, and SigLIP's bias."""
    from contralex_clip.losses import ScaledLoss

    if isinstance(run.method.loss, ScaledLoss):
        metrics.update(run.method.loss.learned())


@hookimpl
def contralex_evaluators(spec: RunSpec) -> list[Evaluator]:
    """Zero-shot classification of the test split, for encoders of images and captions."""
    from contralex_clip.evaluator import ZeroShotEvaluator

    return [ZeroShotEvaluator()] if has_captions(spec.method.views) else []


@hookimpl
def contralex_expected_failures() -> dict[str, str]:
    return {
        "builds_alike[encoder text, nothing that fits]": "a text tower is one of two: it is used in `towers`, "
        "beside that of the images, which the recipes try"
    }
