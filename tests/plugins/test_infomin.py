"""How much two views share: the bound against cases whose answer is known, and the command on tiny runs."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from contralex import resolve
from contralex.cli.app import app
from contralex.plugin import ContralexError
from contralex_infomin.bound import tightest
from contralex_infomin.study import changes, study

TINY = [
    "method.encoder.backbone={kind: conv, widths: [8, 12], strides: [2, 2]}",
    "train.epochs=1",
    "train.max_steps=2",
    "train.precision=fp32",
    "train.workers=0",
    "eval.knn.baselines=false",
]


def test_the_bound_is_log_k_for_views_that_are_the_same_and_nothing_for_strangers() -> None:
    one, other = torch.randn(2, 64, 128, generator=torch.Generator().manual_seed(0))
    assert tightest(one, one) == pytest.approx(6.0, abs=1e-3)  # log2 64
    assert tightest(one, other) < 0.1
    assert tightest(one, one + 2 * other) > tightest(one, one + 4 * other) > tightest(one, one + 8 * other)


def test_the_bound_is_log_k_less_the_loss() -> None:
    q, k = (
        torch.nn.functional.normalize(x, dim=1)
        for x in torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(1))
    )
    losses = []
    for temperature in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0):
        each = [
            -math.log(math.exp(q[i] @ k[i] / temperature) / sum(math.exp(q[i] @ k[j] / temperature) for j in range(8)))
            for i in range(8)
        ]
        losses.append(sum(each) / 8)
    assert tightest(q, k) == pytest.approx(math.log2(8) - min(losses) / math.log(2), abs=1e-4)


def test_strength_scales_what_the_recipe_has() -> None:
    base = resolve("simclr-v1")
    assert changes(base, "colour", 0.5)[0] == "method.views.groups.crops.augment.jitter.brightness=0.4"
    assert changes(base, "colour", 4)[-1] == "method.views.groups.crops.augment.jitter.hue=0.5"  # no more is possible
    assert changes(base, "crop", 0.3) == ["method.views.groups.crops.augment.crop.scale=[0.3, 1]"]
    resolve("simclr-v1", sets=changes(base, "colour", 0.5))
    with pytest.raises(ContralexError, match="has no jitter whose strength could vary"):
        changes(resolve("simclr-v1", sets=["method.views.groups.crops.augment.jitter=null"]), "colour", 1)


def test_a_study_of_two_strengths(tmp_path: Path) -> None:
    rows = study("simclr-v1", "digits", None, TINY, "crop", [0.9, 0.2], tmp_path)
    assert [row["strength"] for row in rows] == [0.9, 0.2]
    assert all(math.isfinite(row["information"]) and 0 <= row["knn_top1"] <= 1 for row in rows)
    assert json.loads((tmp_path / "information.json").read_text())["rows"] == rows
    assert (tmp_path / "information.md").read_text().count("\n") == 4
    before = (tmp_path / "crop-0.2" / "results.json").stat().st_mtime_ns
    assert study("simclr-v1", "digits", None, TINY, "crop", [0.9, 0.2], tmp_path) == rows  # nothing is trained again
    assert (tmp_path / "crop-0.2" / "results.json").stat().st_mtime_ns == before
    with pytest.raises(ContralexError, match="holds a run with other settings"):
        study("simclr-v1", "digits", None, [*TINY, "train.seed=1"], "crop", [0.9, 0.2], tmp_path)
    with pytest.raises(ContralexError, match=r"information\.json is of simclr-v1 with --vary crop; choose another"):
        study("simclr-v1", "digits", None, TINY, "colour", [0.5, 1], tmp_path)
    assert json.loads((tmp_path / "information.json").read_text())["rows"] == rows


def test_what_could_not_be_judged_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(ContralexError, match=r"it needs eval\.knn, and data with labels"):
        study("simclr-v1", "digits", None, [*TINY, "eval.knn=null"], "crop", [0.9, 0.2], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("strengths", ["1", "a,b", "-1,2", "nan,1", "2,0.5 --vary crop"])
def test_strengths_that_are_none(strengths: str) -> None:
    given, *more = strengths.split()
    done = CliRunner().invoke(app, ["view-information", "simclr-v1", "--preset=digits", f"--strengths={given}", *more])
    assert isinstance(done.exception, ContralexError)
    assert "--strengths" in str(done.exception)
