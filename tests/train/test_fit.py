"""``--fit``: what depends on the number of samples and on the device."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import contralex
from contralex import memory
from contralex.errors import ContralexError
from contralex.plugins.registry import registry
from contralex.recipes.delays import too_long
from contralex.recipes.layers import Resolved, resolve
from contralex.recipes.sample_counts import misfits
from contralex.training.activation_memory import bytes_a_sample
from contralex.training.fit import _has_bf16, fit

RECIPES = [name for name in registry().recipes() if not name.startswith(("clip", "siglip", "slip", "cpc-audio", "crd"))]


def fitted(recipe: str, samples: int, *sets: str, preset: str | None = None, minutes: float | None = None) -> Resolved:
    def with_sets(more: Sequence[str]) -> Resolved:
        return resolve(recipe, preset=preset, sets=[*more, *sets])

    return fit(with_sets, samples, 1, "cpu", minutes, lambda spec: 0.5)[0]


@pytest.mark.parametrize("samples", [40, 300, 2000, 50_000])
@pytest.mark.parametrize("recipe", RECIPES)
def test_what_was_refused_fits(recipe: str, samples: int) -> None:
    run = fitted(recipe, samples).run
    assert misfits(run, samples, 1, "photos") == []
    assert too_long(run, run.train.epochs) == []
    assert run.train.precision != "fp16"
    assert samples // run.train.batch_size >= 4


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_image_recipe_has_a_preset_for_photographs(recipe: str) -> None:
    """It trains on hundreds of pictures as it stands: nothing is refused, and no warm-up takes too much of it."""
    run = resolve(recipe, preset="photos").run
    assert misfits(run, 240, 1, "photos") == []  # of 300 in class folders, a fifth is kept to evaluate on
    assert too_long(run, run.train.epochs) == []
    assert run.train.precision == "fp32"


def test_each_setting_is_a_set_that_gives_the_same_spec() -> None:
    found, settings = fit(lambda more: resolve("moco-v2", sets=more), 300, 1, "cpu")
    again = resolve("moco-v2", sets=[setting.text for setting in settings])
    assert again.digest == found.digest
    of_the_device = ("train.precision", "train.workers")
    chosen = {setting.path: setting.value for setting in settings if setting.path not in of_the_device}
    assert chosen == {
        "train.batch_size": 64,
        "train.optimizer.scaling": {"rule": "linear", "per": 256},
        "method.negatives.size": 128,
        "eval.knn.k": 9,
    }
    assert found.run.train.optimizer.scaling.factor(64) == 64 / 256


def test_what_the_user_sets_has_the_last_word() -> None:
    found, settings = fit(lambda more: resolve("moco-v2", sets=[*more, "eval.knn.k=3"]), 300, 1, "cpu")
    assert found.run.eval.knn is not None and found.run.eval.knn.k == 3
    assert "eval.knn.k" not in {setting.path for setting in settings}


def test_a_recipe_that_fits_is_left_alone() -> None:
    before = resolve("moco-v2", sets=["train.workers=4"])
    found, settings = fit(lambda more: resolve("moco-v2", sets=[*more, "train.workers=4"]), 1_281_167, 8, "mps")
    assert (found.digest, settings) == (before.digest, [])


def test_epochs_are_those_of_the_time() -> None:
    assert fitted("moco-v2", 300, minutes=1).run.train.epochs == 30  # 4 steps of half a second an epoch
    assert fitted("moco-v2", 300, minutes=1000).run.train.epochs == 200


def test_bf16_is_taken_where_the_cpu_computes_it(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("flags : fpu avx512f")
    (tmp_path / "new").write_text("flags : fpu avx512_bf16")
    assert [_has_bf16(tmp_path / name) for name in ("old", "new", "none")] == [False, True, False]


def test_a_dry_run_says_what_the_run_takes_and_leaves_nothing(images: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    found = contralex.dry_run("simclr-v1", preset="digits", data=images, epochs=3, fit=True)
    assert list(tmp_path.iterdir()) == []
    per_epoch = found.steps_an_epoch
    assert (found.steps, found.epochs, found.device) == (3 * per_epoch, 3, "cpu")
    assert found.seconds_a_step > 0 and found.peak_memory is not None and found.peak_memory > 2**27
    run = contralex.train("simclr-v1", preset="digits", data=images, epochs=3, fit=True, sets=["eval.knn=null"])
    assert run.results["steps"] == found.steps  # which trains what was announced


def test_what_cannot_go_together_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ContralexError, match="add --fit"):
        contralex.train("moco-v2", preset="digits", minutes=3)
    with pytest.raises(ContralexError, match="has its settings already"):
        contralex.train("moco-v2", preset="digits", fit=True, resume=True, out=tmp_path)


def test_micro_batches_are_taken_where_activations_need_more_memory_than_there_is(monkeypatch: Any) -> None:
    monkeypatch.setattr(memory, "available", lambda: 1000)

    def settings(*sets: str, of_a_sample: int = 10, processes: int = 1) -> dict[str, Any]:
        _, found = fit(
            lambda more: resolve("simclr-v1", sets=[*more, "train.batch_size=256", *sets]),
            100_000,
            processes,
            "cpu",
            bytes_a_sample=lambda spec: of_a_sample,
        )
        return {each.path: each.value for each in found if each.path in ("train.micro_batch", "train.batch_norm")}

    assert settings() == {"train.micro_batch": 32, "train.batch_norm": 32}
    assert settings("train.batch_norm=16") == {"train.micro_batch": 32}
    assert settings("train.batch_norm=local", of_a_sample=20) == {"train.micro_batch": 16}
    assert settings("train.batch_norm=local", processes=8) == {}
    assert settings(of_a_sample=2) == {}
    assert settings("train.micro_batch=64", "train.batch_norm=64") == {}


def test_counted_activations_are_freed() -> None:
    def live() -> int:
        gc.collect()
        return sum(isinstance(each, torch.Tensor) and each.grad_fn is not None for each in gc.get_objects())

    before = live()
    bytes_a_sample(resolve("simclr-v1", preset="digits").run)
    assert live() == before


def test_the_activations_of_a_sample_are_counted() -> None:
    """A convolution keeps its input, BatchNorm and ReLU their in- and outputs: those of two views."""
    conv = "method.encoder.backbone={kind: conv, widths: [8], strides: [1]}"
    one, wide = (
        bytes_a_sample(
            resolve("simclr-v1", preset="digits", sets=[conv.replace("8", str(width)), "train.precision=fp32"]).run
        )
        for width in (8, 16)
    )
    layer = 32 * 32 * 4 * 2  # a channel of both views
    assert 8 * layer <= wide - one <= 4 * 8 * layer
