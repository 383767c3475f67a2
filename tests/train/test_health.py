"""Collapse and standstill are noticed, in a run's lines and by the doctor."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from contralex.cli.app import app
from contralex.errors import ContralexError
from contralex.training import health


def line(step: int, **other: Any) -> dict[str, Any]:
    sound = {"loss": 3.0, "lookup_top1": 0.5, "entries": 64, "feature_std": 0.9, "effective_rank": 40.0}
    return {"step": step, **sound, **other}


def test_keys_that_point_everywhere_and_keys_that_are_alike() -> None:
    everywhere = torch.randn(512, 64, generator=torch.Generator().manual_seed(0))
    found = health.measure_keys(everywhere, 7)
    assert found["entries"] == 7
    assert found["feature_std"] == pytest.approx(1, abs=0.02)
    assert 50 < found["effective_rank"] <= 64
    alike = health.measure_keys(torch.ones(64, 64) + 1e-4 * everywhere[:64], 7)
    assert alike["feature_std"] < 0.01 and alike["effective_rank"] < 1.1
    one_line = health.measure_keys(torch.randn(64, 1, generator=torch.Generator().manual_seed(1)) * everywhere[:1], 7)
    assert one_line["effective_rank"] == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"feature_std": 0.01, "effective_rank": 1.0}, "the keys are nearly all alike"),
        ({"effective_rank": 1.2}, "the keys lie along one direction"),
        ({"loss": math.log(64), "lookup_top1": 0.01}, r"stays at ln 64, where chance is"),
        ({"loss": 2 * math.log(64), "lookup_top1": 0.01, "added": 2}, r"stays at 2·ln 64, where chance is"),
        ({"loss": 2 * math.log(2), "added": 2}, r"stays at 2·ln 2 while the dictionary has 64 entries"),
        ({"loss": 9.1}, "is more than three times what it was at first"),
        ({"loss": 0.0}, "the loss is exactly 0, so nothing is learnt"),
        ({"loss": math.log(2)}, r"stays at ln 2 while the dictionary has 64 entries"),
    ],
)
def test_each_sign_is_said_once_after_ten_lines_in_a_row(wrong: dict[str, float], sentence: str) -> None:
    watch = health.Watch()
    watch.new_signs(line(0))
    assert [sign for step in range(9) for sign in watch.new_signs(line(step, **wrong))] == []
    assert watch.new_signs(line(9)) == []  # all is well for once: counted anew
    said = [sign for step in range(10, 40) for sign in watch.new_signs(line(step, **wrong))]
    assert len(said) == 1 and sentence in said[0] and "at step 19" in said[0]
    assert watch.signs == said


def test_a_sound_run_has_no_signs() -> None:
    assert health.find_signs(line(step) for step in range(100)) == []


def test_the_doctor_reads_a_run(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    lines = [line(step, feature_std=0.01, effective_rank=1.0) for step in range(20)]
    file.write_text("".join(f"{json.dumps(each)}\n" for each in lines) + '{"step": 20, "lo')  # as a kill leaves it
    done = CliRunner().invoke(app, ["doctor", str(tmp_path), "--json"])
    found = json.loads(done.stdout)
    assert (done.exit_code, found["last"]["step"], len(found["problems"])) == (1, 19, 1)
    file.write_text("".join(f"{json.dumps(line(step))}\n" for step in range(20)))
    done = CliRunner().invoke(app, ["doctor", str(tmp_path)])
    assert done.exit_code == 0 and "Nothing is wrong in 20 logged periods." in done.stdout
    with pytest.raises(ContralexError, match=r"is no run's folder, for it has no metrics\.jsonl"):
        CliRunner().invoke(app, ["doctor", str(tmp_path / "nowhere")], catch_exceptions=False)


def test_the_lines_of_each_look_up_are_watched_alone() -> None:
    both = {**line(1), "main.loss": 1.0, "dense.loss": 3.0, "dense.entries": 7, "dense.lookup_top1": 0.5}
    found = health.split_look_ups(both)
    assert found.keys() == {"main", "dense"} and found["main"]["loss"] == 1.0
    assert found["main"]["entries"] == line(1)["entries"]
    assert found["dense"] == {"step": both["step"], "loss": 3.0, "entries": 7, "lookup_top1": 0.5}


def test_a_figure_of_a_hook_is_no_look_up() -> None:
    logged = {**line(1), "validation.loss": 9.0}
    assert health.split_look_ups(logged) == {"main": logged}
