"""The core as a plugin of itself: its vocabulary, through the hooks that every plugin uses."""

from __future__ import annotations

from contralex.kinds.backbones.specs import ConvBackboneSpec, TimmBackboneSpec, TorchvisionBackboneSpec, ViTSpec
from contralex.kinds.datasets.specs import (
    AircraftSpec,
    CIFAR10Spec,
    CIFAR100Spec,
    DigitsSpec,
    DTDSpec,
    Flowers102Spec,
    Food101Spec,
    HuggingFaceSpec,
    ImageFolderSpec,
    ImageNetSpec,
    LabelledSpec,
    OxfordPetsSpec,
    STL10Spec,
)
from contralex.kinds.encoders.specs import ImageSpec, TowersSpec
from contralex.kinds.key_encoders.specs import FrozenSpec, MomentumSpec, SharedSpec
from contralex.kinds.layouts import LAYOUTS
from contralex.kinds.losses.specs import (
    CosineSpec,
    InfoNCESpec,
    KoLeoSpec,
    MeanEntropySpec,
    NCESpec,
    SoftCrossEntropySpec,
)
from contralex.kinds.negatives.specs import (
    BorrowedSpec,
    ClassesSpec,
    InBatchSpec,
    MemoryBankSpec,
    NoNegativesSpec,
    PrototypesSpec,
    QueueSpec,
)
from contralex.kinds.targets.specs import ClassLabelSpec, InstanceSpec, KeySoftmaxSpec, KeyVectorSpec, TeacherLogitsSpec
from contralex.kinds.views.specs import CropsSpec
from contralex.plugins.hooks import hookimpl
from contralex.plugins.layouts import Layout
from contralex.plugins.spec import Spec


@hookimpl
def contralex_encoders() -> list[type[Spec]]:
    return [ImageSpec, TowersSpec]


@hookimpl
def contralex_backbones() -> list[type[Spec]]:
    return [TorchvisionBackboneSpec, TimmBackboneSpec, ConvBackboneSpec, ViTSpec]


@hookimpl
def contralex_key_encoders() -> list[type[Spec]]:
    return [SharedSpec, MomentumSpec, FrozenSpec]


@hookimpl
def contralex_negative_sources() -> list[type[Spec]]:
    return [
        NoNegativesSpec,
        InBatchSpec,
        QueueSpec,
        MemoryBankSpec,
        PrototypesSpec,
        BorrowedSpec,
        ClassesSpec,
    ]


@hookimpl
def contralex_target_generators() -> list[type[Spec]]:
    return [InstanceSpec, KeyVectorSpec, ClassLabelSpec, TeacherLogitsSpec, KeySoftmaxSpec]


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [InfoNCESpec, NCESpec, CosineSpec, SoftCrossEntropySpec, KoLeoSpec, MeanEntropySpec]


@hookimpl
def contralex_views() -> list[type[Spec]]:
    return [CropsSpec]


@hookimpl
def contralex_datasets() -> list[type[Spec]]:
    return [
        DigitsSpec,
        ImageFolderSpec,
        CIFAR10Spec,
        CIFAR100Spec,
        STL10Spec,
        ImageNetSpec,
        Flowers102Spec,
        OxfordPetsSpec,
        Food101Spec,
        DTDSpec,
        AircraftSpec,
        HuggingFaceSpec,
        LabelledSpec,
    ]


@hookimpl
def contralex_layouts() -> list[Layout]:
    return LAYOUTS
