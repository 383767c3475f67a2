"""The author's door: all that a plugin needs, from one import.

    from contralex.plugin import Loss, Spec, hookimpl

Nothing else of contralex is promised to plugins. Importing this module imports no torch; names that need it are
imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contralex import progress
    from contralex.cli import options as commands
    from contralex.cli.starting import train_resolved
    from contralex.comparison import figure as figures
    from contralex.comparison.runs import train_or_reuse
    from contralex.data import headers, images, layout
    from contralex.data.base import Source, Split, Subset, Unreadable, compact, printable
    from contralex.data.loading import EvalDataset, mix_seed
    from contralex.data.paths import Paths
    from contralex.data.photographs import Photograph, open_image
    from contralex.data.preprocessing import Preprocessing
    from contralex.data.texts import Texts
    from contralex.data.views import Views
    from contralex.errors import ContralexError, error_at, remedy
    from contralex.evaluation.base import PIXELS, THIS, UNTRAINED, Accuracy, EvalContext, Evaluator, NoLabels
    from contralex.evaluation.encoding import evaluating, extract_features
    from contralex.evaluation.hits import count_hits
    from contralex.files import expand_user, path_exists, read_json, write_text
    from contralex.kinds.backbones.parts import conv_backbone, timm_backbone, torchvision_backbone
    from contralex.kinds.backbones.specs import ViTSpec
    from contralex.kinds.backbones.vit import sincos_positions, vit_backbone
    from contralex.kinds.datasets.digits import DigitsSource
    from contralex.kinds.datasets.folder import FolderSource, FolderSplit, write_tiny_folder
    from contralex.kinds.datasets.limits import MAX_PIXELS, MaxPixels
    from contralex.kinds.encoders.coordinates import locate_places
    from contralex.kinds.encoders.image import ImageEncoder, mlp
    from contralex.kinds.encoders.specs import JigsawHead, Layer, OutputName
    from contralex.kinds.encoders.towers import TowersEncoder
    from contralex.kinds.key_encoders.parts import FrozenEncoder, MomentumEncoder, SharedKeyEncoder
    from contralex.kinds.layouts import rename_dinov2_backbone
    from contralex.kinds.losses.parts import NCE, CosineLoss, InfoNCE, KoLeo, MeanEntropy, SoftCrossEntropy
    from contralex.kinds.negatives.parts import (
        ClassSource,
        InBatchSource,
        MemoryBankSource,
        NoNegatives,
        PrototypeSource,
        QueueSource,
    )
    from contralex.kinds.negatives.specs import Placement, StoredIn
    from contralex.kinds.targets.parts import (
        ClassLabelTargets,
        InstanceTargets,
        KeySoftmaxTargets,
        KeyVectorTargets,
        TeacherLogitsTargets,
    )
    from contralex.kinds.views.augment import (
        Augment,
        Blur,
        Crop,
        Flip,
        Gray,
        Group,
        InOrder,
        Jigsaw,
        Jitter,
        Normalize,
        RandAugment,
        Solarize,
    )
    from contralex.kinds.views.company import Companion, ViewsInCompany
    from contralex.kinds.views.mask_specs import Masks
    from contralex.kinds.views.masks import MaskCompanion
    from contralex.kinds.views.parts import CropViews
    from contralex.kinds.views.transforms import describe_steps, read_preprocessing, to_tensor_steps, trim_long_image
    from contralex.lookup import distributed
    from contralex.lookup.clock import Clock, Schedule, value_at
    from contralex.lookup.dictionary import Dictionary
    from contralex.lookup.host_copies import to_device
    from contralex.lookup.host_mirror import HostMirror
    from contralex.lookup.late_checks import refuse_if
    from contralex.lookup.micro_batches import encode_in_parts, slice_of_batch
    from contralex.lookup.precision import at_least_float32
    from contralex.lookup.question import Question
    from contralex.lookup.ring_buffer import write_to_ring
    from contralex.lookup.slots import (
        Backbone,
        Encoder,
        KeyEncoder,
        Loss,
        NegativeSource,
        PlacesBackbone,
        TargetGenerator,
    )
    from contralex.lookup.step import LookUp
    from contralex.lookup.values import Answer, Match, Rows, Step, StepResult, Targets
    from contralex.lookup.view import View, ViewBatch, company_of, map_pixels, pixels_of
    from contralex.lookup.weights import TiledWeights, weigh_by_sample
    from contralex.plugins.architecture import Architecture, Library
    from contralex.plugins.building import BuildContext
    from contralex.plugins.company import ViewCompany, draw_scattered
    from contralex.plugins.hooks import Run, hookimpl
    from contralex.plugins.layouts import Adaptation, Layout, PublishedEncoder, Rename, rename_weight_norm
    from contralex.plugins.spec import Delay, Least, Slot, Spec
    from contralex.recipes.code_files import permission
    from contralex.recipes.data_files import check_present
    from contralex.recipes.layers import Resolved, resolve_data
    from contralex.recipes.paths import LocalPath
    from contralex.recipes.run_spec import LookUpSpec, RunSpec
    from contralex.recipes.schedules import Fraction, Number, Rate, Temperature, bounds
    from contralex.training.build import read_source
    from contralex.training.checkpoints.read import Checkpoint, open_checkpoint
    from contralex.training.evaluate_run import evaluate
    from contralex.training.folders import lock_folder

_WHERE = {
    "contralex.cli.starting": ("train_resolved",),
    "contralex.comparison.runs": ("train_or_reuse",),
    "contralex.data.base": (
        "Source",
        "Split",
        "Subset",
        "Unreadable",
        "compact",
        "printable",
    ),
    "contralex.data.loading": (
        "EvalDataset",
        "mix_seed",
    ),
    "contralex.data.paths": ("Paths",),
    "contralex.data.photographs": (
        "Photograph",
        "open_image",
    ),
    "contralex.data.preprocessing": ("Preprocessing",),
    "contralex.data.texts": ("Texts",),
    "contralex.data.views": ("Views",),
    "contralex.errors": (
        "ContralexError",
        "error_at",
        "remedy",
    ),
    "contralex.evaluation.base": (
        "Accuracy",
        "EvalContext",
        "Evaluator",
        "NoLabels",
        "PIXELS",
        "THIS",
        "UNTRAINED",
    ),
    "contralex.evaluation.encoding": (
        "evaluating",
        "extract_features",
    ),
    "contralex.evaluation.hits": ("count_hits",),
    "contralex.files": (
        "expand_user",
        "path_exists",
        "read_json",
        "write_text",
    ),
    "contralex.kinds.backbones.parts": (
        "conv_backbone",
        "timm_backbone",
        "torchvision_backbone",
    ),
    "contralex.kinds.backbones.specs": ("ViTSpec",),
    "contralex.kinds.backbones.vit": (
        "sincos_positions",
        "vit_backbone",
    ),
    "contralex.kinds.datasets.digits": ("DigitsSource",),
    "contralex.kinds.datasets.folder": (
        "FolderSource",
        "FolderSplit",
        "write_tiny_folder",
    ),
    "contralex.kinds.datasets.limits": (
        "MAX_PIXELS",
        "MaxPixels",
    ),
    "contralex.kinds.encoders.coordinates": ("locate_places",),
    "contralex.kinds.encoders.image": (
        "ImageEncoder",
        "mlp",
    ),
    "contralex.kinds.encoders.specs": (
        "JigsawHead",
        "Layer",
        "OutputName",
    ),
    "contralex.kinds.encoders.towers": ("TowersEncoder",),
    "contralex.kinds.key_encoders.parts": (
        "FrozenEncoder",
        "MomentumEncoder",
        "SharedKeyEncoder",
    ),
    "contralex.kinds.layouts": ("rename_dinov2_backbone",),
    "contralex.kinds.losses.parts": (
        "CosineLoss",
        "InfoNCE",
        "KoLeo",
        "MeanEntropy",
        "NCE",
        "SoftCrossEntropy",
    ),
    "contralex.kinds.negatives.parts": (
        "ClassSource",
        "InBatchSource",
        "MemoryBankSource",
        "NoNegatives",
        "PrototypeSource",
        "QueueSource",
    ),
    "contralex.kinds.negatives.specs": (
        "Placement",
        "StoredIn",
    ),
    "contralex.kinds.targets.parts": (
        "ClassLabelTargets",
        "InstanceTargets",
        "KeySoftmaxTargets",
        "KeyVectorTargets",
        "TeacherLogitsTargets",
    ),
    "contralex.kinds.views.augment": (
        "Augment",
        "Blur",
        "Crop",
        "Flip",
        "Gray",
        "Group",
        "InOrder",
        "Jigsaw",
        "Jitter",
        "Normalize",
        "RandAugment",
        "Solarize",
    ),
    "contralex.kinds.views.company": (
        "Companion",
        "ViewsInCompany",
    ),
    "contralex.kinds.views.mask_specs": ("Masks",),
    "contralex.kinds.views.masks": ("MaskCompanion",),
    "contralex.kinds.views.parts": ("CropViews",),
    "contralex.kinds.views.transforms": (
        "describe_steps",
        "read_preprocessing",
        "to_tensor_steps",
        "trim_long_image",
    ),
    "contralex.lookup.clock": (
        "Clock",
        "Schedule",
        "value_at",
    ),
    "contralex.lookup.dictionary": ("Dictionary",),
    "contralex.lookup.host_copies": ("to_device",),
    "contralex.lookup.host_mirror": ("HostMirror",),
    "contralex.lookup.late_checks": ("refuse_if",),
    "contralex.lookup.micro_batches": (
        "encode_in_parts",
        "slice_of_batch",
    ),
    "contralex.lookup.precision": ("at_least_float32",),
    "contralex.lookup.question": ("Question",),
    "contralex.lookup.ring_buffer": ("write_to_ring",),
    "contralex.lookup.slots": (
        "Backbone",
        "Encoder",
        "KeyEncoder",
        "Loss",
        "NegativeSource",
        "PlacesBackbone",
        "TargetGenerator",
    ),
    "contralex.lookup.step": ("LookUp",),
    "contralex.lookup.values": (
        "Answer",
        "Match",
        "Rows",
        "Step",
        "StepResult",
        "Targets",
    ),
    "contralex.lookup.view": (
        "View",
        "ViewBatch",
        "company_of",
        "map_pixels",
        "pixels_of",
    ),
    "contralex.lookup.weights": (
        "TiledWeights",
        "weigh_by_sample",
    ),
    "contralex.plugins.architecture": (
        "Architecture",
        "Library",
    ),
    "contralex.plugins.building": ("BuildContext",),
    "contralex.plugins.company": (
        "ViewCompany",
        "draw_scattered",
    ),
    "contralex.plugins.hooks": (
        "Run",
        "hookimpl",
    ),
    "contralex.plugins.layouts": (
        "Adaptation",
        "Layout",
        "PublishedEncoder",
        "Rename",
        "rename_weight_norm",
    ),
    "contralex.plugins.spec": (
        "Delay",
        "Least",
        "Slot",
        "Spec",
    ),
    "contralex.recipes.code_files": ("permission",),
    "contralex.recipes.data_files": ("check_present",),
    "contralex.recipes.layers": (
        "Resolved",
        "resolve_data",
    ),
    "contralex.recipes.paths": ("LocalPath",),
    "contralex.recipes.run_spec": (
        "LookUpSpec",
        "RunSpec",
    ),
    "contralex.recipes.schedules": (
        "Fraction",
        "Number",
        "Rate",
        "Temperature",
        "bounds",
    ),
    "contralex.training.build": ("read_source",),
    "contralex.training.checkpoints.read": (
        "Checkpoint",
        "open_checkpoint",
    ),
    "contralex.training.evaluate_run": ("evaluate",),
    "contralex.training.folders": ("lock_folder",),
}
_MODULE = {name: module for module, names in _WHERE.items() for name in names}
_MODULES = {
    "commands": "contralex.cli.options",
    "distributed": "contralex.lookup.distributed",
    "figures": "contralex.comparison.figure",
    "headers": "contralex.data.headers",
    "images": "contralex.data.images",
    "layout": "contralex.data.layout",
    "progress": "contralex.progress",
}

__all__ = [
    "MAX_PIXELS",
    "NCE",
    "PIXELS",
    "THIS",
    "UNTRAINED",
    "Accuracy",
    "Adaptation",
    "Answer",
    "Architecture",
    "Augment",
    "Backbone",
    "Blur",
    "BuildContext",
    "Checkpoint",
    "ClassLabelTargets",
    "ClassSource",
    "Clock",
    "Companion",
    "ContralexError",
    "CosineLoss",
    "Crop",
    "CropViews",
    "Delay",
    "Dictionary",
    "DigitsSource",
    "Encoder",
    "EvalContext",
    "EvalDataset",
    "Evaluator",
    "Flip",
    "FolderSource",
    "FolderSplit",
    "Fraction",
    "FrozenEncoder",
    "Gray",
    "Group",
    "HostMirror",
    "ImageEncoder",
    "InBatchSource",
    "InOrder",
    "InfoNCE",
    "InstanceTargets",
    "Jigsaw",
    "JigsawHead",
    "Jitter",
    "KeyEncoder",
    "KeySoftmaxTargets",
    "KeyVectorTargets",
    "KoLeo",
    "Layer",
    "Layout",
    "Least",
    "Library",
    "LocalPath",
    "LookUp",
    "LookUpSpec",
    "Loss",
    "MaskCompanion",
    "Masks",
    "Match",
    "MaxPixels",
    "MeanEntropy",
    "MemoryBankSource",
    "MomentumEncoder",
    "NegativeSource",
    "NoLabels",
    "NoNegatives",
    "Normalize",
    "Number",
    "OutputName",
    "Paths",
    "Photograph",
    "Placement",
    "PlacesBackbone",
    "Preprocessing",
    "PrototypeSource",
    "PublishedEncoder",
    "Question",
    "QueueSource",
    "RandAugment",
    "Rate",
    "Rename",
    "Resolved",
    "Rows",
    "Run",
    "RunSpec",
    "Schedule",
    "SharedKeyEncoder",
    "Slot",
    "SoftCrossEntropy",
    "Solarize",
    "Source",
    "Spec",
    "Split",
    "Step",
    "StepResult",
    "StoredIn",
    "Subset",
    "TargetGenerator",
    "Targets",
    "TeacherLogitsTargets",
    "Temperature",
    "Texts",
    "TiledWeights",
    "TowersEncoder",
    "Unreadable",
    "ViTSpec",
    "View",
    "ViewBatch",
    "ViewCompany",
    "Views",
    "ViewsInCompany",
    "at_least_float32",
    "bounds",
    "check_present",
    "commands",
    "compact",
    "company_of",
    "conv_backbone",
    "count_hits",
    "describe_steps",
    "distributed",
    "draw_scattered",
    "encode_in_parts",
    "error_at",
    "evaluate",
    "evaluating",
    "expand_user",
    "extract_features",
    "figures",
    "headers",
    "hookimpl",
    "images",
    "layout",
    "locate_places",
    "lock_folder",
    "map_pixels",
    "mix_seed",
    "mlp",
    "open_checkpoint",
    "open_image",
    "path_exists",
    "permission",
    "pixels_of",
    "printable",
    "progress",
    "read_json",
    "read_preprocessing",
    "read_source",
    "refuse_if",
    "remedy",
    "rename_dinov2_backbone",
    "rename_weight_norm",
    "resolve_data",
    "sincos_positions",
    "slice_of_batch",
    "timm_backbone",
    "to_device",
    "to_tensor_steps",
    "torchvision_backbone",
    "train_or_reuse",
    "train_resolved",
    "trim_long_image",
    "value_at",
    "vit_backbone",
    "weigh_by_sample",
    "write_text",
    "write_tiny_folder",
    "write_to_ring",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value: Any = import_module(_MODULES[name])
    elif name in _MODULE:
        value = getattr(import_module(_MODULE[name]), name)
    else:
        raise AttributeError(f"module 'contralex.plugin' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
