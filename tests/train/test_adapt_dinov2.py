"""Published encoders go on with methods that hide patches: DINOv2's and iBOT's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import contralex
from contralex.api.adaptation import Adapted
from contralex.errors import ContralexError
from contralex.importing import published
from contralex.kinds.datasets.folder import write_tiny_folder
from contralex.plugin import PlacesBackbone
from contralex.plugins.registry import registry
from contralex.training.checkpoints.read import open_checkpoint
from contralex.training.feature_cache import read_weights_digest
from contralex.training.stop_errors import RunStopped
from tests.official_dinov2 import forward, official_state
from tests.train.tiny_vit import DEPTH, GRID, HEAD, HEADS, PATCH, TINY_VIT, WIDTH

pytest.importorskip("timm")

SIZE = 24
DINOV2 = {
    "method.encoder.outputs.patches.projector": HEAD,
    "method.look_ups.patches.negatives.count": 16,
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_tiny_folder(str(folder), samples=32)
    return folder


def write_weights(folder: Path, registers: int = 0) -> Path:
    """As the smaller networks are published: of the mask token there are zeros."""
    file = folder / "weights.pth"
    state = official_state(WIDTH, DEPTH, PATCH, GRID, registers=registers, dtype=torch.float32)
    torch.save({**state, "mask_token": torch.zeros(1, WIDTH)}, file)
    return file


def adapt(encoder: str, images: Path, weights: Path, out: Path, sets: dict[str, Any], **options: Any) -> Adapted:
    given: dict[str, Any] = {"epochs": 1, "every": 1, "size": SIZE} | options
    return contralex.adapt(encoder, images, weights=weights, out=out, sets=TINY_VIT | sets, **given)


@pytest.fixture(scope="module")
def adapted(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Adapted:
    folder = tmp_path_factory.mktemp("dinov2")
    return adapt("dinov2-vits14", images, write_weights(folder), folder / "out", DINOV2, epochs=3)


def test_dinov2s_encoders_go_on_with_dinov2_or_with_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert published.choose("dinov2-vitb14").adaptation.recipe == "dinov2"
    assert published.choose("dinov2-vitb14-reg", "dino").adaptation.recipe == "dino"
    assert published.choose("dino-vits8", "ibot").adaptation.recipe == "ibot"
    there = registry().recipes()
    monkeypatch.setattr(registry(), "recipes", lambda: {n: at for n, at in there.items() if n != "dinov2"})
    assert published.choose("dinov2-vitb14").adaptation.recipe == "dino"
    monkeypatch.setattr(registry(), "recipes", dict)
    with pytest.raises(ContralexError, match=r"by dinov2 or dino, and neither is .*\n.*pip install contralex-dinov2"):
        published.choose("dinov2-vitb14")


def test_the_untouched_network_is_the_official_one(adapted: Adapted) -> None:
    """At other sizes than that of the weights' positions, and with hidden patches."""
    state = torch.load(adapted.folder.parent / "weights.pth", weights_only=True)
    backbone = contralex.load_backbone(adapted.folder / "published")
    assert set(backbone.state_dict()) == set(state)  # the mask token, too
    assert isinstance(backbone, PlacesBackbone)
    pixels, mask = torch.rand(3, 3, SIZE, 3 * PATCH), torch.rand(3, 18) < 0.3
    with torch.no_grad():
        found, expected = (
            backbone.encode_places(pixels, mask),
            forward(state, pixels, HEADS, PATCH, antialias=False, mask=mask),
        )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_mask_token_moves_and_the_stem_stays(adapted: Adapted) -> None:
    before, after = (
        contralex.load_backbone(adapted.folder / name).state_dict()
        for name in ("published", adapted.rows[-1].checkpoint)
    )
    moved = {name: float((after[name] - before[name]).abs().mean()) for name in before}
    assert not before["mask_token"].any() and moved["patch_embed.proj.weight"] == 0
    assert moved["mask_token"] > moved["cls_token"] > 0  # it has the whole rate, the other 0.75^3 of it


def test_its_settings_follow_the_encoder_and_the_data(adapted: Adapted) -> None:
    method = open_checkpoint(adapted.folder / adapted.rows[-1].checkpoint).resolved().data["method"]
    views = method["views"]
    sizes = [views["groups"][name]["augment"]["crop"]["size"] for name in ("globals", "second", "locals")]
    assert sizes == [SIZE, SIZE, 12] and views["masks"]["patch"] == PATCH  # 24 * 7/16 in whole patches
    assert [*method["look_ups"]] == ["patches", "spread"] and method["encoder"]["backbone"]["mask_token"]


def test_features_are_kept_of_kept_checkpoints_alone(adapted: Adapted) -> None:
    run = adapted.folder / "adapted"
    kept = [path for path in (run / "checkpoints").iterdir() if path.is_dir() and not path.is_symlink()]
    weights = {read_weights_digest(open_checkpoint(path)) for path in kept}
    assert len(kept) < 3  # some were removed
    stored = [json.loads(path.read_text("utf-8"))["key"]["weights"] for path in run.glob("features/*/entry.json")]
    assert {*stored} == weights
    assert len([*(run / "features").iterdir()]) == len(stored)  # no folder is left of the others
    assert [*(adapted.folder / "published" / "features").glob("*/entry.json")]


def test_a_signal_names_the_command_that_goes_on(
    adapted: Adapted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise RunStopped("Stopped at step 3; go on with: contralex train --resume", 15)

    begun = replace(adapted, folder=tmp_path, rows=adapted.rows[:1], stopped=False)
    (tmp_path / "adaptation.json").write_text(json.dumps(begun.to_dict()), "utf-8")
    monkeypatch.setattr("contralex.training.run.train_in_folder", stop)
    with pytest.raises(RunStopped, match=r"Go on with:\n +contralex adapt --resume --out ") as found:
        contralex.adapt(resume=True, out=tmp_path)
    assert found.value.exit_code == 143 and "contralex train" not in str(found.value)


def test_it_stops_where_it_does_not_help(images: Path, tmp_path: Path) -> None:
    """With a rate of 0, no evaluation is better than that of the untouched weights."""
    still = {"train.optimizer.lr": 0, "train.optimizer.weight_decay": 0}
    found = adapt(
        *("dinov2-vits14", images, write_weights(tmp_path), tmp_path / "out", DINOV2 | still), epochs=5, patience=2
    )
    assert [row.epoch for row in found.rows] == [0, 1, 2] and found.stopped and not found.helped
    assert found.sentences()[0] == (
        "It stopped there, after epoch 2: kNN top-1 has not become better since the untouched weights, 2 evaluations."
    )
    assert Path(found) == tmp_path / "out" / "published"
    again = contralex.adapt(resume=True, out=tmp_path / "out")  # which does not begin anew
    assert again.rows == found.rows and again.sentences() == found.sentences()


def test_registers_go_on_too(images: Path, tmp_path: Path) -> None:
    found = adapt("dinov2-vits14-reg", images, write_weights(tmp_path, registers=4), tmp_path / "out", DINOV2)
    backbone = contralex.load_backbone(found.folder / "published")
    state = torch.load(tmp_path / "weights.pth", weights_only=True)
    assert torch.equal(backbone.state_dict()["reg_token"], state["register_tokens"])
    pixels = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        expected = forward(state, pixels, HEADS, PATCH, antialias=True)[0]
    torch.testing.assert_close(backbone(pixels), expected, rtol=1e-4, atol=1e-5)
    assert found.rows[-1].step > 0


@pytest.mark.parametrize(
    ("encoder", "recipe"), [("ibot-vits16", None), ("dino-vits8", "ibot"), ("dino-vits8", "dinov2")]
)
def test_encoders_of_dino_and_ibot_hide_patches(encoder: str, recipe: str | None, images: Path, tmp_path: Path) -> None:
    state = official_state(WIDTH, DEPTH, PATCH, GRID, dtype=torch.float32)
    kept = {name: tensor for name, tensor in state.items() if name != "mask_token" and ".gamma" not in name}
    student = {"masked_embed": torch.ones(1, WIDTH)} if encoder.startswith("ibot") else {}
    file = tmp_path / "checkpoint_teacher.pth"
    torch.save({"state_dict": kept | student}, file)
    few = {"train.max_steps": 2} | (DINOV2 if recipe == "dinov2" else {})
    found = adapt(encoder, images, file, tmp_path / "out", few, recipe=recipe)
    assert found.plan.recipe == (recipe or "ibot") and [row.step for row in found.rows] == [0, 2]
    untouched = contralex.load_backbone(found.folder / "published").state_dict()
    assert all(torch.equal(untouched[name], tensor) for name, tensor in kept.items())
    assert untouched.keys() - kept.keys() == {"mask_token"}
    assert torch.equal(untouched["mask_token"], student.get("masked_embed", torch.zeros(1, WIDTH)))
