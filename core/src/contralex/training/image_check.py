"""Before a run starts: does every backbone take the images that the views make?

What a backbone says of a size that it does not take is its library's assertion, or a shape that does not fit somewhere
inside; here it becomes a sentence, with a size that it does take.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from contralex.errors import ContralexError, remedy
from contralex.kinds.views.augment import Augment, Crop
from contralex.lookup.slots import Encoder
from contralex.plugins.spec import Spec
from contralex.recipes.run_spec import RunSpec
from contralex.recipes.walk import walk
from contralex.training import memory_checks

_USUAL = (32, 64, 96, 112, 128, 160, 192, 224, 240, 256, 288, 299, 320, 336, 384, 448, 512, 518, 1024)


@contextmanager
def watch(spec: RunSpec, encoder: Encoder, place: str) -> Iterator[None]:
    """Within, samples go through an encoder; what a backbone says of an image becomes a sentence.

    ``place``: the encoder's block of the spec. An error that is no backbone's is raised as it is.
    """
    entered: list[tuple[str, Tensor]] = []
    try:
        with _note_backbones(encoder, entered):
            yield
    except ContralexError:
        raise
    except Exception as error:
        if not entered or memory_checks.ran_out(error):
            raise
        path, image = entered[0]
        raise ContralexError(_sentence(spec, place, path, encoder.get_submodule(path), image, error)) from error


@contextmanager
def _note_backbones(encoder: Encoder, entered: list[tuple[str, Tensor]]) -> Iterator[None]:
    """``entered``: the backbones that were given an image and have not returned, with the image."""
    hooks = []
    for path, module in encoder.named_modules():
        if path.rpartition(".")[2] == "backbone":
            hooks.append(module.register_forward_pre_hook(lambda _, given, path=path: entered.append((path, given[0]))))
            hooks.append(module.register_forward_hook(lambda *_: _drop(entered)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _drop(entered: list[tuple[str, Tensor]]) -> None:
    entered.pop()


def _sentence(spec: RunSpec, place: str, path: str, backbone: nn.Module, image: Tensor, error: Exception) -> str:
    channels, height, width = image.shape[-3:]
    node, where = _spec_of(getattr(spec.method, place.rpartition(".")[2]), place, path)
    fields = type(node).model_fields
    name = next((getattr(node, field) for field in ("name", "kind") if field in fields), type(backbone).__name__)
    said = str(error).strip().split("\n")[0].rstrip(".")
    start = f"{where} ({name}) cannot take the {width}x{height} images of {channels} channels that method.views makes"
    start = f"{start} ({said})"
    meta = copy.deepcopy(backbone).to("meta").eval()
    others = [count for count in range(1, 17) if count != channels and _takes(meta, count, height, width)]
    if others:
        mended = f"Change it:{remedy('--set', f'{where}.channels={channels}')}" if "channels" in fields else ""
        return f"{start}. It takes {others[0]} channels. {mended or 'Take another backbone.'}"
    size = next((size for size in _sizes(height) if _takes(meta, channels, size, size)), None)
    settings = []
    if size is not None:
        settings = _settings(spec.method.views, size, lambda side: _takes(meta, channels, side, side))
    if not settings:
        return f"{start}. Take another backbone:{remedy('--set', f'{where}={{kind: torchvision, name: resnet50}}')}"
    return f"{start}. It takes {size}x{size}. Make them so, or take another backbone:{remedy(*settings)}"


def _spec_of(node: Spec, where: str, path: str) -> tuple[Spec, str]:
    """The block of the spec that a module was made from, and its place: where the two are called alike, or a list of
    modules is a mapping of blocks."""
    found: Any = node
    for part in path.split("."):
        if isinstance(found, dict) and part.isdigit():
            part, found = list(found.items())[int(part)]
        else:
            found = dict(found).get(part)  # a spec's fields, as a mapping has them
        if found is None:
            break
        where = f"{where}.{part}"
        node = found if isinstance(found, Spec) else node
    return node, where


def _takes(backbone: nn.Module, channels: int, height: int, width: int) -> bool:
    """Without computing anything. False as well where the backbone cannot be tried so."""
    try:
        with torch.no_grad():
            backbone(torch.empty(1, channels, height, width, device="meta"))
    except Exception:
        return False
    return True


def _sizes(size: int) -> Sequence[int]:
    """Other sizes, the likely ones first: a little larger, larger, smaller."""
    larger, smaller = [one for one in _USUAL if one > size], [one for one in _USUAL if one < size]
    return list(dict.fromkeys(chain(range(size + 1, size + 33), larger, reversed(smaller))))


def _settings(views: BaseModel, wanted: int, fits: Callable[[int], bool]) -> list[str]:
    """What to set, so that all views that do not fit get another size."""
    settings = []
    for path, node in walk(views, "method.views"):
        if isinstance(node, Augment) and node.jigsaw is not None and not fits(node.jigsaw.cell):
            settings += [f"{path}.crop.size={wanted * node.jigsaw.grid}", f"{path}.jigsaw.cell={wanted}"]
        elif isinstance(node, Augment) and node.jigsaw is None and not fits(node.crop.size):
            settings.append(f"{path}.crop.size={wanted}")
        elif isinstance(node, Crop) and not path.endswith("augment.crop") and not fits(node.size):
            settings.append(f"{path}.size={wanted}")
    return [word for setting in settings for word in ("--set", setting)]
