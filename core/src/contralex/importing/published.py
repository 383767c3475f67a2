"""Encoders that somebody published, by the names that ``contralex adapt`` takes; and their files on this disk."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contralex.errors import ContralexError, did_you_mean, find_similar, remedy
from contralex.plugins.layouts import Adaptation, PublishedEncoder
from contralex.plugins.registry import registry

_TIMM = "timm/"


@dataclass(frozen=True)
class Choice:
    """An encoder, and how the recipe that is chosen goes on with it."""

    encoder: PublishedEncoder
    adaptation: Adaptation


def choose(name: str, recipe: str | None = None) -> Choice:
    """``recipe``: the one to go on with; None: the first of the encoder's that is installed."""
    encoder = _find(name)
    adaptations = {each.recipe: each for layout in registry().layouts() for each in layout.adaptations}
    if recipe is not None:
        if recipe not in adaptations:
            raise ContralexError(
                f"--recipe {recipe}: nothing says how it goes on with a published encoder; there are "
                f"{', '.join(sorted(adaptations))}"
            )
        return Choice(encoder, adaptations[recipe])
    found = next((each for each in encoder.recipes if each in registry().recipes() and each in adaptations), None)
    if found is None:
        raise ContralexError(
            f"{name} is trained further by {' or '.join(encoder.recipes)}, and neither is installed:"
            + remedy("pip", "install", f"contralex-{encoder.recipes[0].partition('-')[0]}")
        )
    return Choice(encoder, adaptations[found])


def find_weights(encoder: PublishedEncoder, weights: Path | None) -> Path:
    """The file ``weights``; or without it one of the published name, here or where ``torch.hub`` keeps its downloads.
    Nothing is downloaded."""
    if weights is not None:
        if not weights.is_file():
            raise ContralexError(f"--weights {weights} is no file; give the file that is published at {encoder.url}")
        return weights
    places = [place / encoder.file for place in (Path(), _hub())]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise ContralexError(
            f"The weights of {encoder.name} are read from {encoder.file}, which is neither in this folder nor in "
            f"{places[1].parent}. Download it from {encoder.url}, or say where it lies with --weights:"
            + remedy("curl", "-L", *_how_to_save(encoder), encoder.url)
        )
    return found


def _how_to_save(encoder: PublishedEncoder) -> list[str]:
    """The options of curl, by which the file gets the name by which it is found."""
    return ["-O"] if encoder.url.endswith(f"/{encoder.file}") else ["-o", encoder.file]


def _find(name: str) -> PublishedEncoder:
    known = {each.name: each for each in _published()}
    if name in known:
        return known[name]
    if name.startswith(_TIMM) and len(name) > len(_TIMM):
        return _of_timm(name.removeprefix(_TIMM))
    way = did_you_mean(find_similar(name, known, 3))
    raise ContralexError(
        f"There is no published encoder {name!r}{f' ({way})' if way else ''}; there are {', '.join(known)}, and "
        "timm/NAME for a model of timm's with its file."
    )


def _published() -> Iterator[PublishedEncoder]:
    for layout in registry().layouts():
        yield from layout.published


def _of_timm(name: str) -> PublishedEncoder:
    """A model of timm's, whose file of safetensors the hub has. timm says which it takes without a tag, and with which
    mean and deviation of pixel values it was trained."""
    if not re.fullmatch(r"[\w.]+", name):
        raise ContralexError(f"timm/{name} is no name of a model; write it like timm/vit_small_patch14_dinov2")
    config = _read_timm_config(name)
    repository = getattr(config, "hf_hub_id", None) or _TIMM + name
    return PublishedEncoder(
        name=_TIMM + name,
        file=f"{name}.safetensors",
        url=f"https://huggingface.co/{repository}/resolve/main/model.safetensors",
        recipes=("dino",),
        backbone={"kind": "timm", "name": name.partition(".")[0]},
        normalize={"mean": list(config.mean), "std": list(config.std)} if config is not None else {},
    )


def _read_timm_config(name: str) -> Any:
    """What timm knows of published weights; None without timm or its model, which is said when that is built."""
    try:
        from timm.models import get_pretrained_cfg

        return get_pretrained_cfg(name)
    except ImportError:
        return None
    except RuntimeError as error:
        way = "Give the name with the tag of your file, or without one."
        raise ContralexError(f"timm/{name}: {error} {way}") from None


def _hub() -> Path:
    """Where ``torch.hub`` downloads to, without torch."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("TORCH_HOME") or cache / "torch") / "hub" / "checkpoints"
