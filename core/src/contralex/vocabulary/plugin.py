"""The core as a plugin of itself: its vocabulary, through the hooks that every plugin uses."""

from __future__ import annotations

from contralex.hooks import hookimpl
from contralex.spec.base import Spec
from contralex.vocabulary import backbones, datasets, encoders, key_encoders, losses, negatives, targets, views


@hookimpl
def contralex_encoders() -> list[type[Spec]]:
    return [encoders.Image, encoders.Towers]


@hookimpl
def contralex_backbones() -> list[type[Spec]]:
    return [backbones.TorchvisionBackbone, backbones.TimmBackbone, backbones.ConvBackbone, backbones.ViT]


@hookimpl
def contralex_key_encoders() -> list[type[Spec]]:
    return [key_encoders.Shared, key_encoders.Momentum, key_encoders.Frozen]


@hookimpl
def contralex_negative_sources() -> list[type[Spec]]:
    return [
        negatives.Nothing,
        negatives.InBatch,
        negatives.Queue,
        negatives.MemoryBank,
        negatives.Prototypes,
        negatives.Classes,
    ]


@hookimpl
def contralex_target_generators() -> list[type[Spec]]:
    return [targets.Instance, targets.KeyVector, targets.ClassLabel, targets.TeacherLogits]


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [losses.InfoNCE, losses.NCE, losses.Cosine, losses.SoftCrossEntropy]


@hookimpl
def contralex_views() -> list[type[Spec]]:
    return [views.Crops]


@hookimpl
def contralex_datasets() -> list[type[Spec]]:
    return [
        datasets.Digits,
        datasets.ImageFolder,
        datasets.CIFAR10,
        datasets.CIFAR100,
        datasets.STL10,
        datasets.ImageNet,
        datasets.HuggingFace,
        datasets.Labelled,
    ]
