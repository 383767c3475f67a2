"""Each benchmark runs at its smallest size and writes figures that make sense. Nothing is said of how fast it is."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import lines
from benchmarks.bounds import at_least, at_most
from benchmarks.measuring import Spread, compare, peak_bytes

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("step", "loss", "queue", "dense", "views", "loader", "end_to_end", "ema", "startup", "memory", "knn")


def run(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--small", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_writes_figures(name: str, tmp_path: Path) -> None:
    file, plot = tmp_path / "figures.json", tmp_path / "figures.svg"
    done = run(name, "--json", str(file), "--plot", str(plot))
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(file.read_text("utf-8"))
    assert report["benchmark"] == name and report["command"].startswith(f"python -m benchmarks.{name} --small")
    assert report["machine"]["torch"] == torch.__version__ and report["date"]
    for case in report["cases"]:
        assert "contralex" in case["seconds"] | case["bytes"]
        for spread in [*case["seconds"].values(), *case["ratios"].values()]:
            assert 0 < spread["low"] <= spread["median"] <= spread["high"] < math.inf
        assert all(count > 0 for count in case["bytes"].values())
        assert case["ratios"].keys() == case["seconds"].keys() - {"contralex"}
    assert report["cases"]
    assert plot.read_text("utf-8").lstrip().startswith("<?xml")


def test_bounds_are_a_line_each(tmp_path: Path) -> None:
    file = tmp_path / "bounds.json"
    done = run("bounds", "--only", "queue", "ema", "micro_batch", "--json", str(file))
    found = json.loads(file.read_text("utf-8"))
    verdicts = [line["verdict"] for line in found["lines"]]
    assert set(verdicts) <= {"holds", "falls short", "not measured"} and len(verdicts) == 6
    assert done.returncode == int("falls short" in verdicts), done.stderr


def test_a_bound_holds_on_its_own_side() -> None:
    assert [at_most("", 1.0, figure).verdict for figure in (0.9, 1.0, 1.1)] == ["holds", "holds", "falls short"]
    assert [at_least("", 1.0, figure).verdict for figure in (0.9, 1.0, 1.1)] == ["falls short", "holds", "holds"]
    assert at_most("", 1.0, None).verdict == "not measured"


def test_peak_memory_is_exact() -> None:
    def two_at_once_then_one() -> None:
        first = torch.empty(1000, dtype=torch.float32)
        second = torch.empty(500, dtype=torch.float32)
        del first, second
        torch.empty(1200, dtype=torch.float32)

    assert peak_bytes(two_at_once_then_one) == 6000


def test_a_ratio_is_taken_within_a_round() -> None:
    # Both sides slow down together, so each ratio is one half though the seconds are far apart.
    seconds = iter([1.0, 2.0, 1.0, 2.0, 20.0, 10.0, 3.0, 6.0])  # the order turns from round to round
    case = compare("", {"contralex": lambda: next(seconds), "peer": lambda: next(seconds)}, rounds=3)
    assert case.ratios["peer"] == Spread(0.5, 0.5, 0.5)
    assert case.seconds["peer"].median == 6.0


def test_the_size_of_every_plugin_is_counted() -> None:
    rows = [line.split(" | ") for line in lines.page().splitlines() if line.startswith("| ")]
    sizes = {row[0].removeprefix("| "): int(row[2]) for row in rows[1:-1]}
    assert sizes.keys() == {path.parent.name for path in ROOT.glob("plugins/*/pyproject.toml")}
    assert all(size > 0 for size in sizes.values())
