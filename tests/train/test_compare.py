"""``contralex compare``: what it plans, refuses, trains, goes on with, and shows."""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contralex.api.comparing import Comparison
from contralex.comparison.figure import draw, has_figures
from contralex.comparison.plan import Budget, misfits, plan
from contralex.comparison.runs import list_slots
from contralex.comparison.table import cells, markdown, summary
from contralex.comparison.variants import list_variants, split_values
from contralex.errors import ContralexError
from contralex.recipes.layers import resolve
from tests.processes import contralex

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
    return contralex("compare", *words, *(f"--set={text}" for text in TINY))


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


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,2,3", ["1", "2", "3"]),
        ("[1,2]", ["[1,2]"]),
        ("[1,2],[3]", ["[1,2]", "[3]"]),
        ("{a: 1, b: [2, 3]},null", ["{a: 1, b: [2, 3]}", "null"]),
        ('"x, y",z', ['"x, y"', "z"]),
        ("['a,]', b]", ["['a,]', b]"]),
        ("it's, ok", ["it's", " ok"]),
        ("", [""]),
    ],
)
def test_values_are_split_at_commas_outside_brackets_and_quotes(text: str, values: list[str]) -> None:
    assert split_values(text) == values


def test_a_sweep_is_every_combination_with_each_seed(two: list[str]) -> None:
    sets = ("method.loss.temperature=0.1,0.2", "train.optimizer.weight_decay=0, 1e-4", "eval.knn.k=3")
    entries = plan(two[:1], Budget(sets=sets, seeds=(0, 7))).entries
    assert len(entries) == len({entry.folder for entry in entries}) == 4 * 2
    last = entries[7]
    assert last.name == "small temperature=0.2 weight_decay=1e-4 seed 7"
    assert last.folder == "small-temperature=0.2-weight_decay=1e-4/seed-7"
    assert last.resolved is not None
    run = last.resolved.run
    assert (run.train.seed, run.method.model_dump()["loss"]["temperature"]) == (7, 0.2)
    assert run.eval.knn is not None and run.eval.knn.k == 3
    assert [entry.name for entry in plan(two, Budget(seed=7)).entries] == ["small", "other"]


def test_long_values_and_paths_that_end_alike_have_names_of_their_own() -> None:
    widths = "{kind: conv, widths: [8], strides: [4], x: 1},{kind: conv, widths: [8], strides: [4], x: 2}"
    found = list_variants([f"a.backbone={widths}", "b.lr=1,2", "c.lr=3,4"])
    assert len({variant.name for variant in found}) == len({variant.folder for variant in found}) == 8
    assert "b.lr=1 c.lr=3" in found[0].name
    assert all(re.fullmatch(r"[\w.=+-]+", variant.folder) for variant in found)


@pytest.mark.parametrize(
    ("sets", "sentence"),
    [
        (("train.epochs=1,",), "a value between the commas is empty"),
        (("train.epochs=1,2,1",), "1 stands there twice"),
        (tuple(f"a{number}=1,2" for number in range(11)), "more than 1000 combinations"),
    ],
)
def test_an_impossible_sweep_is_a_sentence(sets: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ContralexError, match=sentence):
        list_variants(sets)


def test_groups_of_gpus_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert list_slots(1, None) == [{}]
    assert len(list_slots(1, 2)) == 2 and all("OMP_NUM_THREADS" in slot for slot in list_slots(1, 2))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 5)
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in list_slots(2, None)] == ["0,1", "2,3"]
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in list_slots(2, 3)] == ["0,1", "2,3", "0,1"]
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in list_slots(8, None)] == ["0,1,2,3,4"]  # which the run refuses
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-ab")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in list_slots(1, None)] == ["3", "GPU-ab"]


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


def test_seeds_and_values_two_at_once_and_going_on_with_one_seed_more(two: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [two[0], "--epochs=1", f"--out={out}", "--set=method.loss.temperature=0.1,0.5", "--at-once=2"]
    done = compare(*words, "--seeds=1")
    assert done.returncode == 0, done.stderr
    first = results(out)
    assert "small temperature=0.1 seed 1: " in done.stderr
    assert {row["name"] for row in first["rows"]} == {"small temperature=0.1", "small temperature=0.5"}
    assert all(row["deviations"] == {} for row in first["rows"])
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/seed-1/results.json")}
    assert len(before) == 2
    done = compare(*words, "--seeds=1,2", "--resume")
    assert done.returncode == 0, done.stderr
    assert all(path.stat().st_mtime_ns == time_ for path, time_ in before.items())
    found = results(out)
    for row in found["rows"]:
        assert row["seeds"] == [1, 2]
        own = [results(out / folder) for folder in row["folders"]]
        for name in ("knn", "linear"):
            values = [each[name]["this run"]["top1"] for each in own]
            assert row[name] == pytest.approx(sum(values) / 2)
            assert row["deviations"][name] == pytest.approx(statistics.stdev(values))
    assert " ± " in done.stdout and "over the seeds 1, 2." in done.stdout
    assert " ± " in (out / "figure.svg").read_text("utf-8") or not any(
        row["deviations"]["knn"] for row in found["rows"]
    )
    table = Comparison(out, found)
    assert table.run("small temperature=0.5", seed=2).folder == out / "small-temperature=0.5" / "seed-2"
    with pytest.raises(ContralexError, match="was trained with these seeds: 1, 2; seed is None"):
        table.run("small temperature=0.5")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--seeds=1,x"], "--seeds 1,x: write whole numbers"),
        (["--seeds=1,1"], "--seeds 1,1: a number stands there twice"),
        (["--seeds=1", "--seed=2"], "leave --seed or --seeds out"),
        (["--seeds=1,2", "--set=train.seed=3"], "--set train.seed: it is said twice; leave this out, or --seeds 1,2"),
    ],
)
def test_wrong_seeds_are_a_sentence(
    words: list[str],
    sentence: str,
    two: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from contralex.__main__ import main

    monkeypatch.setattr(sys, "argv", ["contralex", "compare", two[0], *words])
    assert main() == 2
    assert sentence in capsys.readouterr().err


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


def test_means_and_deviations_are_over_the_seeds_that_ended(two: list[str]) -> None:
    planned = plan(two[:1], Budget(seeds=(0, 1, 2)))
    done: dict[str, Any] = {f"small seed {seed}": example(**{"this run": 0.4 + seed / 10}) for seed in (0, 2)}
    made = summary(planned, {**done, "small seed 1": "it failed"})
    (row,) = made["rows"]
    assert row["knn"] == pytest.approx(0.5)
    assert row["deviations"]["knn"] == pytest.approx(statistics.stdev([0.4, 0.6]))
    assert cells(row, made["columns"])[:3] == ["small", "50.0 ± 14.1", "50.0 ± 14.1"]
    lines = markdown(made, "contralex compare x")
    assert "small: over 2 of 3 seeds." in lines and "small seed 1 failed: it failed" in lines


def test_nothing_in_the_figure_collides(two: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts of the axes and of the bars, drawn: none overlaps another, and none leaves the picture."""
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    def row(name: str, value: float | None, deviations: dict[str, float]) -> dict[str, Any]:
        accuracies = {"knn": value, "linear": value, "untrained_knn": 0.3, "untrained_linear": 0.5}
        return {"name": name, **accuracies, "pixels_knn": 0.99, "pixels_linear": None, "deviations": deviations}

    rows = [row("a-method-of-a-long-name temperature=0.1 weight_decay=0.0001 batch=4096", 1.0, {"knn": 0.001})]
    rows += [row(f"moco-v{number}", number / 20, {"knn": 0.05, "linear": 0.01}) for number in range(9)]
    rows += [row("without", None, {})]
    drawn: list[Figure] = []
    save = Figure.savefig

    def save_and_keep(figure: Figure, *words: Any, **named: Any) -> None:
        drawn.append(figure)
        save(figure, *words, **named)

    monkeypatch.setattr(Figure, "savefig", save_and_keep)
    for count in (1, 2, len(rows)):
        draw(rows[:count], "preset digits", tmp_path / f"{count}.svg")
        figure = drawn[-1]
        (axes,) = figure.axes
        texts = [*axes.texts, *axes.get_yticklabels(), *axes.get_xticklabels(), axes.xaxis.label]
        texts += [*figure.legends[0].get_texts(), figure._suptitle]  # type: ignore[attr-defined]
        boxes = [text.get_window_extent() for text in texts if text.get_text()]
        assert len(boxes) > 8
        for number, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[number + 1 :])
            assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
            assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1
    assert not has_figures([row("without", None, {})])


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
    monkeypatch.setattr("contralex.comparison.runs._train", lambda argv, name, machine: (1, "no luck"))
    monkeypatch.setattr(sys, "argv", ["contralex", "compare", two[0], f"--out={tmp_path / 'out'}"])
    assert main() == 1
    out, err = capsys.readouterr()
    assert "no figure will be drawn, for matplotlib is not installed: pip install 'contralex[figures]'" in err
    assert "small failed: no luck" in out
    assert not (tmp_path / "out" / "figure.svg").exists()
