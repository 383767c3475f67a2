"""Checks on a backbone kind: what it builds from its example."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from contralex.errors import ContralexError
from contralex.lookup.slots import Backbone
from contralex.testing.check_errors import Failed, NotApplicable
from contralex.testing.plugin_contents import Kind

_BATCH = 4
_SIZES = (32, 64, 96, 224)  # pixels of a side; the first that the network takes


def maps_images_to_features(kind: Kind) -> None:
    """What is built is a module from images (B, C, H, W) to features (B, F), and F."""
    module, width = _build_example(kind)
    found = _features(kind, module)
    if found.shape != (_BATCH, width):
        raise Failed(f"it is said to have {width} features, and {_BATCH} images become {tuple(found.shape)}")
    if not bool(torch.isfinite(found).all()):
        raise Failed("its features are not finite")


def backbone_follows_the_seed(kind: Kind) -> None:
    """The same seed makes the same weights, and a copy is a copy: a momentum key encoder holds one."""
    one, other = _build_example(kind)[0], _build_example(kind)[0]
    states = one.state_dict(), other.state_dict(), copy.deepcopy(one).state_dict()
    for state in states[1:]:
        apart = [name for name, value in states[0].items() if not torch.equal(value, state[name])]
        if apart:
            raise Failed(f"{', '.join(apart[:3])} differ; draw weights from torch's generator alone")


def backbone_learns(kind: Kind) -> None:
    """A gradient reaches every parameter that asks for one."""
    module = _build_example(kind)[0].train()
    _features(kind, module).square().sum().backward()
    still = [name for name, p in module.named_parameters() if p.requires_grad and p.grad is None]
    if still:
        raise Failed(f"no gradient reaches {', '.join(still[:5])}; leave out what is not used, or freeze it")


def _build_example(kind: Kind) -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            made: Backbone = kind.example().build()
        except ContralexError as error:
            if isinstance(error.__cause__, ImportError):  # of an extra
                raise NotApplicable(str(error)) from None
            raise
    return made


def _features(kind: Kind, module: nn.Module) -> Tensor:
    channels, stated = kind.example().image_shape()
    for size in _SIZES if stated is None else (stated,):
        images = torch.rand(_BATCH, channels, size, size, generator=torch.Generator().manual_seed(1))
        try:
            found: Tensor = module(images)
        except (RuntimeError, AssertionError):  # smaller than its strides, or not the size that it is made for
            if size == _SIZES[-1] or stated is not None:
                raise
            continue
        return found
    raise AssertionError("unreachable")
