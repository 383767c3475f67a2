"""Each benchmark runs at its smallest size and writes figures that make sense. Nothing is said of how fast it is."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import batch_in_parts, cifar, lines, workers
from benchmarks.bounds import LIMIT, measure, report
from benchmarks.bounds_plot import relative
from benchmarks.gpu_results import collect
from benchmarks.measuring import Case, Options, Peers, Report, Spread, compare, peak_bytes
from benchmarks.measuring import run as measure_into
from benchmarks.photographs import SMALL, write_folder
from benchmarks.promises import GROUPS, Group, Line, at_least, at_most, faster, taken
from contralex.lookup import batch_norm

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("step", "loss", "queue", "dense", "views", "loader", "end_to_end", "ema", "startup", "memory", "knn", "parts")
NAMES += ("evaluation", "checkpoint")
FOR_A_GPU = ("gpu", "micro_batches", "workers")


def run(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--small", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", NAMES + FOR_A_GPU)
def test_a_benchmark_writes_figures(name: str, tmp_path: Path) -> None:
    file, plot = tmp_path / "figures.json", tmp_path / "figures.svg"
    done = run(name, "--json", str(file), "--plot", str(plot))
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(file.read_text("utf-8"))
    assert report["benchmark"] == name and report["command"].startswith(f"python -m benchmarks.{name} --small")
    assert report["machine"]["torch"] == torch.__version__ and report["date"]
    for case in report["cases"]:
        assert "contralex" in case["seconds"] | case["bytes"] or name in FOR_A_GPU
        for spread in [*case["seconds"].values(), *case["ratios"].values()]:
            assert 0 < spread["low"] <= spread["median"] <= spread["high"] < math.inf
        assert all(count > 0 for count in case["bytes"].values()) and not case["failed"]
        if "contralex" in case["seconds"]:
            assert case["ratios"].keys() == case["seconds"].keys() - {"contralex"}
    assert report["cases"] and report["complete"]
    assert plot.read_text("utf-8").lstrip().startswith("<?xml")


def test_bounds_are_a_line_each(tmp_path: Path) -> None:
    file, plot = tmp_path / "bounds.json", tmp_path / "bounds.svg"
    done = run("bounds", "--only", "queue", "ema", "micro_batch", "--json", str(file), "--plot", str(plot))
    assert file.exists(), (done.returncode, done.stderr)
    found = json.loads(file.read_text("utf-8"))
    verdicts = [line["verdict"] for line in found["lines"]]
    assert set(verdicts) <= {"holds", "falls short", "not measured"} and len(verdicts) == 6
    assert found["machine"]["torch"] == torch.__version__ and found["commit"]
    assert found["minutes_by_group"].keys() == {"queue", "ema", "micro_batch"} and not found["left_out"]
    assert sum(found["minutes_by_group"].values()) == pytest.approx(found["minutes"], abs=0.02)
    assert done.returncode == int("falls short" in verdicts), done.stderr
    assert plot.read_text("utf-8").lstrip().startswith("<?xml")


def test_a_line_lies_left_of_one_where_it_holds() -> None:
    figures = [at_most("", 2.0, 1.0), at_most("", 2.0, 3.0), at_least("", 2.0, 4.0), at_least("", 2.0, 1.0)]
    assert [relative(line, line.figure or 0.0) for line in figures] == [0.5, 1.5, 0.5, 2.0]
    assert relative(at_most("", 0.0, 0.0), 0.0) < 1 < relative(at_most("", 0.0, 1.0), 1.0)


def test_lines_are_measured_while_there_is_time(capsys: pytest.CaptureFixture[str]) -> None:
    def slow(*_: object) -> Iterator[Line]:
        time.sleep(0.1)
        yield at_most("first", 1.0, 0.5)
        yield at_most("second", 1.0, 0.5)

    def quick(*_: object) -> Iterator[Line]:
        yield at_most("quick", 1.0, 0.5)

    groups = {"quick": Group(quick, 1e-9), "long": Group(quick, 5.0), "slow": Group(slow, 1e-9)}
    groups |= {"late": Group(quick, 1e-9)}
    found = report(measure(groups, Options(), Peers(), limit=0.001))
    assert [line["what"] for line in found["lines"]] == ["quick", "first"]
    assert found["left_out"] == ["long", "slow", "late"]
    assert capsys.readouterr().out.count("not measured") == 3


def test_all_groups_fit_into_twenty_minutes() -> None:
    assert sum(group.minutes for group in GROUPS.values()) < LIMIT


def test_the_gradient_of_micro_batches_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert batch_in_parts.gradient_difference(16, 4) < 1e-12
    monkeypatch.setattr(batch_norm, "convert", lambda *_: None)  # then statistics are of other samples
    assert batch_in_parts.gradient_difference(16, 4) > 1e-3


def test_a_bound_holds_on_its_own_side() -> None:
    assert [at_most("", 1.0, figure).verdict for figure in (0.9, 1.0, 1.1)] == ["holds", "holds", "falls short"]
    assert [at_least("", 1.0, figure).verdict for figure in (0.9, 1.0, 1.1)] == ["falls short", "holds", "holds"]
    assert at_most("", 1.0, None).verdict == "not measured"


def test_a_line_has_the_spread_of_its_rounds() -> None:
    seconds = iter([9.0, 9.0, 2.0, 1.0, 4.0, 1.0, 3.0, 1.0])
    case = compare("", {"contralex": lambda: next(seconds), "peer": lambda: next(seconds)}, rounds=3)
    assert taken(case, "peer") == [2.0, 0.25, 3.0] and faster(case, "peer") == [0.5, 4.0, 1 / 3]
    line = at_most("a ratio", 1.0, taken(case, "peer"))
    assert (line.figure, line.spread) == (2.0, (0.25, 3.0)) and "(0.25 to 3)" in str(line)
    assert at_most("", 1.0, 0.5).spread is None


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


def test_a_report_has_each_case_as_it_comes_and_the_one_that_is_running(tmp_path: Path) -> None:
    file = tmp_path / "report.json"

    def measure(options: Options, report: Report, peers: Peers) -> None:
        report.begin("first")
        report.add(Case("first", bytes={"contralex": 1}))
        report.begin("second")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_into("gpu", measure, Options(), file)
    found = json.loads(file.read_text("utf-8"))
    assert [case["name"] for case in found["cases"]] == ["first"]
    assert found["running"] == "second" and not found["complete"]


def test_the_gpu_check_says_what_was_cut_off(tmp_path: Path) -> None:
    codes = {"gpu": "124", "loss": "0", "queue": "137", "ema": "124", "knn": "skipped", "tests": "124"}
    for name, code in codes.items():
        (tmp_path / f"{name}.rc").write_text(f"{code}\n", "utf-8")
        (tmp_path / f"{name}.most").write_text("60\n", "utf-8")
    (tmp_path / "gpu.json").write_text(json.dumps({"running": "moco", "cases": []}), "utf-8")
    (tmp_path / "queue.json").write_text(json.dumps({"running": None, "cases": [{"name": "4096"}]}), "utf-8")
    lines = [{"test": "a"}, {"test": "a", "outcome": "passed", "when": "call", "message": ""}, {"test": "b"}]
    lines += [{"test": "c"}, {"test": "c", "outcome": "failed", "when": "call", "message": "no"}]
    (tmp_path / "tests.lines").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    found = collect(tmp_path)
    assert found["cut_off"] == {
        "gpu": "stopped after 60 s, in the case moco",
        "queue": "stopped after 60 s, after the case 4096",
        "ema": "stopped after 60 s, before its first case",
        "knn": "not begun: no time was left",
        "tests": "stopped after 60 s, in b",
    }
    assert found["tests"] == {"passed": 1, "failed": 1, "skipped": 0, "failures": ["c (call): no"], "running": ["b"]}


def test_a_side_that_fails_or_does_not_end_leaves_its_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure_side(side: str) -> list[float]:
        if side == "views by workers":
            raise RuntimeError("a worker died")
        time.sleep(30)
        return [1.0]

    monkeypatch.setattr(workers, "LIMIT", 1)
    case = workers.both_sides("training", measure_side)
    assert case.failed == {
        "views by workers": "RuntimeError: a worker died",
        "views on the device": "TimeoutError: not done after 1 s",
    }
    assert not case.seconds


def test_epochs_are_those_that_the_slower_side_trains_in_its_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []

    def run_first(job: cifar.Job, form: cifar.Form, data: Path, out: Path) -> None:
        trained.append((job.side, form.epochs))
        points = [{"epoch": 1, "minutes": {"contralex": 0.1, "lightly": 0.25}[job.side], "top1": 0.5}]
        out.mkdir(parents=True, exist_ok=True)
        found = {"method": job.method, "side": job.side, "points": points}
        (out / f"{job.name}.json").write_text(json.dumps(found), "utf-8")

    monkeypatch.setattr(cifar, "run", run_first)
    form = cifar.FORMS["gpu-short"]
    for _ in range(2):  # started again, it asks no more
        fitted = cifar.fit(form, "moco", cifar.SIDES, tmp_path, tmp_path)
        assert (fitted.epochs, fitted.points, fitted.is_published) == (4, 4, False)
    assert trained == [("contralex", 1), ("lightly", 1)]
    assert (
        cifar.FORMS["gpu"].is_published and cifar.fit(cifar.FORMS["gpu"], "moco", (), tmp_path, tmp_path).epochs == 200
    )


def test_accuracy_against_time_is_rehearsed_by_a_form_in_minutes(tmp_path: Path) -> None:
    for part, count in (("train", 400), ("test", 80)):
        write_folder(tmp_path / part, count, SMALL, classes=4)
    out = tmp_path / "out"
    options = ["--data", str(tmp_path), "--form", "tiny", "--methods", "simclr", "--sides", "contralex"]
    command = [sys.executable, "-m", "benchmarks.cifar", *options, "--minutes", "0.01", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads((out / "tiny-0.01-minutes" / "cifar.json").read_text("utf-8"))
    assert found["side"] == "contralex" and 0 <= found["points"][-1]["top1"] <= 1
    assert found["points"][-1]["epoch"] == int((out / "tiny-0.01-minutes" / "simclr.epochs").read_text("utf-8"))
