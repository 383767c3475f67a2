"""A backbone that begins with published weights sees pixels that are normalised as those were trained, or a warning."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from torchvision import models

import contralex
from contralex.recipes.layers import resolve
from contralex.training import pixel_check
from tests.train.tiny import TINY

_BACKBONE = "method.encoder.backbone"
_TORCHVISION = f"{_BACKBONE}={{kind: torchvision, name: resnet18, pretrained: true}}"
_HALF = f"{_BACKBONE}={{kind: timm, name: vit_base_patch16_224, pretrained: true}}"
_IMAGENET = f"{_BACKBONE}={{kind: timm, name: resnet50, pretrained: true}}"


def warnings(recipe: str, *sets: str) -> list[str]:
    return pixel_check.warnings(resolve(recipe, sets=sets).run)


@pytest.mark.parametrize(
    ("recipe", "backbone", "mean", "groups"),
    [
        ("simclr-v1", _TORCHVISION, "[0.485, 0.456, 0.406]", ["crops"]),
        ("simclr-v1", _IMAGENET, "[0.485, 0.456, 0.406]", ["crops"]),
        ("dino", _HALF, "[0.5, 0.5, 0.5]", ["globals", "second", "locals"]),
    ],
)
def test_the_settings_that_a_warning_names_mend_it(recipe: str, backbone: str, mean: str, groups: list[str]) -> None:
    if "timm" in backbone:
        pytest.importorskip("timm")
    (warning,) = warnings(recipe, backbone)
    sentence, *settings = warning.splitlines()
    assert sentence.startswith(f"{_BACKBONE} begins with published weights") and f"of mean {mean} and" in sentence
    sets = [shlex.split(line)[1] for line in settings]
    assert [each.partition("=")[0] for each in sets] == [
        f"method.views.groups.{group}.augment.normalize" for group in groups
    ]
    assert warnings(recipe, backbone, *sets) == []


@pytest.mark.parametrize(
    ("recipe", "sets"),
    [
        ("moco-v2", [_TORCHVISION]),
        ("simclr-v1", [f"{_BACKBONE}={{kind: torchvision, name: resnet18}}"]),
        ("simclr-v1", [_TORCHVISION, "init.checkpoint=runs/other"]),
    ],
)
def test_what_is_as_it_was_trained_or_has_no_published_weights_is_not_warned_of(recipe: str, sets: list[str]) -> None:
    assert warnings(recipe, *sets) == []


def test_a_run_says_it_at_its_start(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: Any = models.get_model
    monkeypatch.setattr(models, "get_model", lambda name, weights=None, **options: made(name, weights=None, **options))
    own = [each for each in TINY if not each.startswith(_BACKBONE)]
    found = contralex.train(
        "simclr-v1", data=images, sets=[*own, _TORCHVISION, "train.max_steps=1"], out=tmp_path / "run"
    )
    said = "method.encoder.backbone begins with published weights"
    assert f"Warning: {said}" in "".join(capsys.readouterr())
    assert any(each.startswith(said) for each in found.results["warnings"])
