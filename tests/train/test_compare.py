"""``contralex compare``: what it plans, refuses, trains, goes on with, and shows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contralex.comparison.figure import draw
from contralex.comparison.plan import Budget, misfits, plan
from contralex.comparison.table import cells, markdown, summary
from contralex.errors import ContralexError
from contralex.recipes.layers import resolve

TINY = (
    "method.encoder.backbone={kind: conv, widths: [8], strides: [4]}",
    "train.precision=fp32",
    "train.workers=0",
    "train.log_every=1",
    "train.checkpoint={every: 1, keep_last: 9}",
    "eval.knn.k=3",
    "eval.linear={weight_decay: 0.1}",
)


@pytest.fixture
def two(recipe: Callable[..., str], images: Path) -> list[str]:
    """Two recipes on a folder of fifty small images in two classes."""
    first = (
        Path(recipe())
        .read_text("utf-8")
        .replace("data: {kind: digits}", f"data: {{kind: image_folder, root: {images}}}")
    )
    first = first.replace("batch_size: 32", "batch_size: 8").replace("at: [1]", "at: []")
    one = recipe(first)
    other = recipe("schema: 1\nextends: small.yaml\nmethod: {loss: {temperature: 0.5}}\n", "other.yaml")
    return [one, other]


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "contralex", "compare", *words, *(f"--set={text}" for text in TINY)]


def compare(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command(*words), env=environment, capture_output=True, text=True, check=False, timeout=400)


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text("utf-8"))
    return found


# Planning


def test_one_budget_is_every_methods(two: list[str]) -> None:
    found = plan(two, Budget(epochs=3, seed=7, sets=("eval.knn.k=3",)))
    assert [entry.name for entry in found.entries] == ["small", "other"]
    for entry in found.entries:
        assert entry.resolved is not None and not entry.problem
        run = entry.resolved.run
        assert (run.train.epochs, run.train.seed, run.eval.knn and run.eval.knn.k) == (3, 7, 3)
        assert run.eval.linear is not None
    assert found.notes == []


def test_without_a_budget_each_recipe_says_its_own_epochs(two: list[str], recipe: Callable[..., str]) -> None:
    longer = recipe("schema: 1\nextends: small.yaml\ntrain: {epochs: 9, optimizer: {lr: {at: [8]}}}\n", "longer.yaml")
    entries = plan([two[0], longer], Budget()).entries
    assert [entry.resolved.run.train.epochs for entry in entries if entry.resolved] == [2, 9]
    assert not any(entry.problem for entry in entries)


@pytest.mark.parametrize(
    ("lr", "sentence"),
    [
        (
            "{kind: steps, start: 1, at: [2, 5, 9]}",
            "train.optimizer.lr.at.1 is 5, and the budget is 4 epochs: the value never changes there",
        ),
        ("{kind: cosine, start: 1, warmup_epochs: 4}", "train.optimizer.lr.warmup_epochs is 4, and the budget is 4"),
        ("{kind: linear, start: 1, end: 0, epochs: 6}", "train.optimizer.lr.epochs is 6, and the budget is 4 epochs"),
    ],
)
def test_what_is_tied_to_more_epochs_is_said(lr: str, sentence: str, two: list[str]) -> None:
    (entry,) = plan(two[:1], Budget(epochs=4, sets=(f"train.optimizer.lr={lr}",))).entries
    assert entry.problem.startswith(sentence)
    (fits,) = plan(two[:1], Budget(epochs=40, sets=(f"train.optimizer.lr={lr}",))).entries
    assert not fits.problem


def test_a_queue_that_starts_later_and_a_group_that_stays_frozen_are_noticed() -> None:
    run = resolve("swav-small-batch", preset="digits", sets=["train.epochs=3"]).run
    assert any(".start_epoch is " in sentence for sentence in misfits(run))
    group = "train.optimizer.groups=[{match: encoder.*, frozen_epochs: 5}]"
    for epochs, said in ((6, []), (5, ["train.optimizer.groups.0.frozen_epochs is 5, and the budget is 5 epochs"])):
        run = resolve("moco-v2", preset="digits", sets=[group, f"train.epochs={epochs}"]).run
        assert [sentence.split(":")[0] for sentence in misfits(run) if "groups" in sentence] == said


def test_all_is_what_has_the_preset() -> None:
    found = plan(["all"], Budget(preset="digits"))
    names = [entry.name for entry in found.entries]
    assert {"moco-v2", "simclr-v1", "cpc"} <= set(names)
    assert "cpc-audio" in found.skipped and not set(names) & set(found.skipped)
    assert any(
        note.startswith("cpc") and "other data" in note
        for note in plan(["moco-v2", "byol", "cpc"], Budget("digits")).notes
    )
    with pytest.raises(ContralexError, match="compare all: say at which size with --preset"):
        plan(["all"], Budget())
    with pytest.raises(ContralexError, match="--preset nothing: no installed recipe"):
        plan(["all"], Budget(preset="nothing"))


def test_the_same_run_twice_is_named(recipe: Callable[..., str], fake_plugin: Callable[..., Path]) -> None:
    text = "schema: 1\nextends: moco-v2\nsummary: the same again\ntrain: {seed: 0}\n"
    same = recipe(text, "same.yaml")
    with pytest.raises(ContralexError, match=rf"^moco-v2 and {same} are the same run under this budget"):
        plan(["moco-v2", same], Budget("digits"))
    folders = [recipe(f"{text}data: {{kind: image_folder, root: {at}}}\n", f"{at}.yaml") for at in ("here", "there")]
    assert len(plan(folders, Budget()).entries) == 2  # on other data
    module = """
    from importlib.resources import files
    from contralex.plugin import hookimpl

    @hookimpl
    def contralex_recipes():
        return files("foo_recipes")
    """
    fake_plugin("foo", module, recipes={"same": text})
    assert "moco-v2 and same are the same run under this budget." in plan(["all"], Budget("digits")).notes


def test_mistakes_show_before_anything_is_trained(two: list[str], recipe: Callable[..., str], tmp_path: Path) -> None:
    with pytest.raises(ContralexError, match="no preset of this name"):
        plan(two, Budget(preset="huge"))
    with pytest.raises(ContralexError, match=r"^mae: method.loss.temperature: there is no such field"):
        plan(["moco-v2", "mae"], Budget(preset="digits", sets=("method.loss.temperature=0.3",)))
    with pytest.raises(ContralexError, match="two methods are called small"):
        plan([two[0], recipe(Path(two[0]).read_text("utf-8"), "again.yaml")], Budget())
    for words, sentence in (
        (["--resume"], "say which comparison with --out"),
        (["--resume", f"--out={tmp_path / 'nothing'}"], "nothing; give the comparison's --out"),
        (["--epochs=3", "--set=train.epochs=4"], "--set train.epochs: it is said twice"),
    ):
        done = compare(two[0], *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert sentence in done.stderr
    (tmp_path / "out" / "small").mkdir(parents=True)
    (tmp_path / "out" / "small" / "metrics.jsonl").touch()
    done = compare(two[0], "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "already holds a run; go on with the comparison by --resume" in done.stderr


# Training


def test_two_methods_one_table_and_going_on(two: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = compare(*two, "--epochs=2", "--seed=1", f"--out={out}", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == results(out)
    assert {row["name"] for row in found["rows"]} == {"small", "other"}
    for row in found["rows"]:
        own = results(out / row["name"])
        assert row["epochs"] == 2
        assert row["knn"] == own["knn"]["this run"]["top1"]
        assert row["linear"] == own["linear"]["this run"]["top1"]
        assert row["untrained_linear"] == own["linear"]["untrained encoder"]["top1"]
        assert row["pixels_knn"] == own["knn"]["raw pixels"]["top1"]
        assert own["linear"]["this run"]["protocol"]["weight_decay"] == 0.1
    # The same seed and encoder: what is not trained is the same.
    first, second = found["rows"]
    assert [first[name] for name in first if "_" in name and name != "images_per_second"] == [
        second[name] for name in second if "_" in name and name != "images_per_second"
    ]
    assert (out / "table.md").read_text("utf-8").startswith("`contralex compare ")
    assert "<svg" in (out / "figure.svg").read_text("utf-8")

    # One that was killed after an epoch, and one that is finished.
    written = (out / "small" / "checkpoints" / "last").read_bytes()
    before = (out / "small" / "results.json").stat().st_mtime_ns
    (out / "other" / "results.json").unlink()
    (out / "other" / "checkpoints" / "last").write_text("step-5\n")
    done = compare(*two, "--epochs=2", "--seed=1", f"--out={out}", "--resume")
    assert done.returncode == 0, done.stderr
    assert "small is finished." in done.stderr
    assert (out / "small" / "results.json").stat().st_mtime_ns == before
    assert (out / "small" / "checkpoints" / "last").read_bytes() == written
    lines = [json.loads(line) for line in (out / "other" / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 11))
    again = {row["name"]: row for row in results(out)["rows"]}
    for row in found["rows"]:
        assert again[row["name"]]["knn"] == row["knn"]
    assert len([line for line in done.stdout.splitlines() if line.split("\t")[0] in ("small", "other")]) == 2

    done = compare(*two, "--epochs=3", "--seed=1", f"--out={out}", "--resume")
    assert done.returncode == 2
    assert "is a finished run with another spec: train.epochs: 2 → 3; repeat" in done.stderr

    # The digest is another where a spec got a default since.
    there = json.loads((out / "small" / "results.json").read_text("utf-8"))
    (out / "small" / "results.json").write_text(json.dumps({**there, "digest": "sha256:0"}), "utf-8")
    done = compare(*two, "--epochs=2", "--seed=1", f"--out={out}", "--resume")
    assert done.returncode == 0, done.stderr
    assert "small is finished." in done.stderr


def test_one_that_fails_is_named_and_the_others_go_on(
    two: list[str], recipe: Callable[..., str], tmp_path: Path
) -> None:
    large = recipe("schema: 1\nextends: small.yaml\ntrain: {batch_size: 4096}\n", "large.yaml")
    late = "schema: 1\nextends: small.yaml\ntrain: {optimizer: {lr: {kind: steps, start: 0.1, at: [50]}}}\n"
    out = tmp_path / "out"
    done = compare(large, recipe(late, "late.yaml"), two[0], "--epochs=1", f"--out={out}")
    assert done.returncode == 1
    found = results(out)
    assert [row["name"] for row in found["rows"]] == ["small"]
    assert "fewer than one batch of 4096" in found["failed"]["large"]
    assert "at.0 is 50, and the budget is 1 epochs: the value never changes there" in found["failed"]["late"]
    assert "large failed: " in done.stdout and "late failed: " in done.stdout
    assert (done.stdout + done.stderr).count("fewer than one batch of 4096") == 2  # as it ends, and under the table
    assert "large failed: " in (out / "table.md").read_text("utf-8")


def test_a_signal_stops_the_comparison_and_it_goes_on(two: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [two[0], "--epochs=600", "--set=eval.knn.baselines=false", f"--out={out}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(command(*words), env=environment, text=True, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 200
    while not (out / "small" / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate(timeout=200)
    assert running.returncode == 128 + signal.SIGTERM, said
    assert f"Stopped in small; to go on, repeat the command with:\n  --resume --out {out}" in said
    assert (out / "small" / "checkpoints" / "last").exists()
    assert not (out / "results.json").exists()


# Showing


def example(**rows: float) -> dict[str, Any]:
    judged = {name: {"top1": share, "protocol": {}} for name, share in rows.items()}
    knn = {
        who: {**result, "protocol": {"k": 3, "temperature": 0.1, "features": "backbone"}}
        for who, result in judged.items()
    }
    linear = {
        who: {**result, "protocol": {"features": "backbone", "weight_decay": 0.1}} for who, result in judged.items()
    }
    return {"knn": knn, "linear": linear, "steps": 10, "epochs": 2, "seconds": 4.0}


def test_the_best_is_first_and_a_missing_figure_is_a_dash(two: list[str]) -> None:
    planned = plan(two, Budget())
    bare = {"steps": 10, "epochs": 2, "seconds": 4.0}
    made = summary(planned, {"small": bare, "other": example(**{"this run": 0.5, "raw pixels": 0.25})})
    assert [row["name"] for row in made["rows"]] == ["other", "small"]
    assert cells(made["rows"][0], made["columns"]) == [
        "other",
        "50.0",
        "50.0",
        "-",
        "-",
        "25.0",
        "25.0",
        "2",
        "4",
        "20",
    ]
    assert cells(made["rows"][1], made["columns"]) == ["small", *["-"] * 6, "2", "4", "20"]
    lines = markdown(made, "contralex compare x").splitlines()
    assert lines[4] == "| other | 50.0 | 50.0 | - | - | 25.0 | 25.0 | 2 | 4 | 20 |"
    assert lines[7].startswith("* kNN: top-1 %, k=3, temperature 0.1, backbone.")


def test_the_figure_is_the_same_for_the_same_rows(two: list[str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = {"small": example(**{"this run": 0.5, "untrained encoder": 0.2}), "other": example(**{"this run": 0.123})}
    rows = summary(plan(two, Budget()), found)["rows"]
    draw(rows, "a title", tmp_path / "a.svg")
    draw(rows, "a title", tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_without_matplotlib_there_is_a_table_and_a_sentence(
    two: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from contralex.__main__ import main

    monkeypatch.setattr("contralex.comparison.figure.find_spec", lambda name: None)
    monkeypatch.setattr("contralex.comparison.runs._train", lambda argv, quiet: (1, 0, "no luck"))
    monkeypatch.setattr(sys, "argv", ["contralex", "compare", two[0], f"--out={tmp_path / 'out'}"])
    assert main() == 1
    out, err = capsys.readouterr()
    assert "no figure will be drawn, for matplotlib is not installed: pip install 'contralex[figures]'" in err
    assert "small failed: no luck" in out
    assert not (tmp_path / "out" / "figure.svg").exists()
