"""A run's folder: whose it is, when it is made, and what a run finds again from another place."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from contralex.cli.app import app
from contralex.comparison.runs import differences
from contralex.errors import ContralexError
from contralex.recipes.layers import Resolved, resolve
from contralex.training import folders, health
from contralex.training.checkpoints import read
from contralex.training.run import train
from contralex.training.stop_errors import BadLoss
from tests.train.tiny import TINY


def tiny(images: object, *sets: str) -> Resolved:
    return resolve("simclr-v1", preset="digits", data=str(images), sets=[*TINY, *sets])


# Whose it is


def test_a_folder_that_is_being_written_to_is_refused_with_who_has_it(images: Path, tmp_path: Path) -> None:
    with folders.Lock(tmp_path):
        for resume in (False, True):
            with pytest.raises(ContralexError, match=rf"is being written to by process {os.getpid()} on .*, since 20"):
                train(tiny(images), tmp_path, resume)
        with pytest.raises(ContralexError, match="is being written to by"):
            folders.Lock(tmp_path).acquire()
    assert not list(tmp_path.iterdir())  # nothing of those that were refused, nor of the lock
    train(tiny(images, "train.max_steps=1"), tmp_path)
    assert not (tmp_path / folders.LOCK).exists()


HOLD = "from pathlib import Path; import sys, time; from contralex.training.folders import Lock\n"


# A busy machine: the forked process lets go of the lock only after a second.
LATE = "import os, time; os.register_at_fork(after_in_child=lambda: time.sleep(1))\n"
FORK = "import os\nif os.fork() == 0: time.sleep(60); os._exit(0)\n"


@pytest.mark.parametrize(("before", "code"), [("", ""), ("", FORK), (LATE, FORK)])
def test_the_lock_of_a_killed_process_is_never_in_the_way(before: str, code: str, tmp_path: Path) -> None:
    # Some leave a forked process behind, as a data worker that has not seen yet that it is alone.
    text = before + HOLD + f"Lock(Path(sys.argv[1])).acquire()\n{code}print('has it', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", text, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "has it\n"
    with pytest.raises(ContralexError, match=f"by process {process.pid} on"):
        folders.Lock(tmp_path).acquire()
    process.kill()
    process.wait()
    with folders.Lock(tmp_path):
        assert json.loads((tmp_path / folders.LOCK).read_text())["pid"] == os.getpid()


def test_without_locks_of_the_file_system_the_lock_file_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(number: int) -> None:
        raise OSError(folders._NO_LOCKS[0], "no locks")

    monkeypatch.setattr(folders, "_lock_file", none)
    with folders.Lock(tmp_path), pytest.raises(ContralexError, match=r"If that process has ended, remove .*\.lock"):
        folders.Lock(tmp_path).acquire()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    words = {**folders._this_process(), "pid": gone.pid}
    (tmp_path / folders.LOCK).write_text(json.dumps(words))
    with folders.Lock(tmp_path):
        pass
    (tmp_path / folders.LOCK).write_text(json.dumps({**words, "host": "elsewhere"}))
    with pytest.raises(ContralexError, match="on elsewhere"):
        folders.Lock(tmp_path).acquire()


def test_default_folders_of_one_second_have_names_of_their_own(tmp_path: Path) -> None:
    made = [folders.make_new(tmp_path / "runs" / "tiny-1")[0].name for _ in range(3)]
    assert made == ["tiny-1", "tiny-1-2", "tiny-1-3"]


@pytest.mark.parametrize("command", ["compare", "view-information"])
def test_a_study_in_a_folder_of_another_that_runs_is_refused(command: str, images: Path, tmp_path: Path) -> None:
    words = [command, "simclr-v1", "--preset", "digits", "--data", str(images), "--out", str(tmp_path)]
    sets = [word for text in TINY if "knn" not in text for word in ("--set", text)]
    with folders.Lock(tmp_path):
        done = CliRunner().invoke(app, [*words, *sets])
    assert f"{tmp_path} is being written to by process {os.getpid()}" in str(done.exception)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_removed_or_begun_anew_stops_the_run(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contralex.training import metrics

    written = metrics.Metrics.add_step
    for again in (False, True):
        out = tmp_path / f"run-{again}"

        def step(self: Any, *values: Any, out: Path = out, again: bool = again) -> None:
            written(self, *values)
            if self.run.step == 3:
                shutil.rmtree(out)
                if again:
                    out.mkdir()
                    folders.Lock(out).acquire()

        monkeypatch.setattr(metrics.Metrics, "add_step", step)
        with pytest.raises(folders.Gone, match=r"was removed, renamed or replaced") as error:
            train(tiny(images), out)
        assert error.value.exit_code == 1
        assert not out.exists() or [path.name for path in out.iterdir()] == [folders.LOCK]


# When it is made


@pytest.mark.parametrize(
    "sets",
    [
        ["train.batch_size=4000"],
        ["train.trackers=[nothing]"],
        ["data.labels=folders", "data.root=/nowhere"],
        ["init.checkpoint=/nowhere"],
    ],
)
def test_a_run_that_is_refused_leaves_nothing(
    sets: list[str], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for out in (None, Path("a/b/c")):
        with pytest.raises(ContralexError):
            train(tiny(images, *sets), out)
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_refused_after_its_folder_was_made_takes_it_back(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contralex.training.evaluating import RunEvaluation

    def refuse(*values: Any) -> None:
        assert (tmp_path / "a" / "b" / "spec.yaml").exists()
        raise ContralexError("these data cannot be judged")

    monkeypatch.setattr(RunEvaluation, "before_the_first_step", refuse)
    with pytest.raises(ContralexError, match="cannot be judged"):
        train(tiny(images), tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())


# Before the first checkpoint, and files that somebody changed


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(images: Path, tmp_path: Path) -> None:
    whole = train(tiny(images), tmp_path / "whole")
    out = tmp_path / "killed"
    out.mkdir()
    shutil.copy(tmp_path / "whole" / "spec.yaml", out)
    (out / "metrics.jsonl").write_text('{"step": 2, "loss": 9.0}\n')
    draft = out / "checkpoints" / ".step-5-4242_1"
    draft.mkdir(parents=True)
    (draft / "model.safetensors").write_bytes(b"half")
    assert read.find(out) is None
    with pytest.raises(ContralexError, match="has not saved a checkpoint yet"):
        read.open_checkpoint(_without(out))
    found = train(resolve(str(out / "spec.yaml")), out, resume=True)
    assert (found["steps"], found["last_loss"]) == (whole["steps"], whole["last_loss"])
    ends = [path / "checkpoints" / "step-10" / "model.safetensors" for path in (out, tmp_path / "whole")]
    assert ends[0].read_bytes() == ends[1].read_bytes()
    assert not draft.exists()


def _without(out: Path) -> Path:
    """The same run before it made a folder for its checkpoints."""
    other = out.with_name("earlier")
    other.mkdir()
    shutil.copy(out / "spec.yaml", other)
    return other


EDITED = [
    '{"step": "x", "loss": 1.0}',
    '{"step": 1, "loss": "low"}',
    '{"step": true, "loss": 1.0}',
    '{"step": 1, "loss": null}',
    '{"step": 1, "loss": [1]}',
    '{"step": 1' + "0" * 400 + ', "loss": 1.0}',
    "[" * 100_000,
    '{"a":' * 100_000,
    "[1]",
    "\x00",
]


def test_lines_of_metrics_that_somebody_edited_are_left_out(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(tiny(images, "train.epochs=4", "train.checkpoint.every=1"), out)
    file = out / "metrics.jsonl"
    good = file.read_text().splitlines()
    file.write_text("\n".join([*EDITED, *good, *EDITED]) + "\n")
    assert [json.dumps(line) for line in health.read_lines(file)] == good
    shown = CliRunner().invoke(app, ["doctor", str(out), "--no-batches"])
    assert shown.exit_code == 0, shown.output
    (out / "checkpoints" / "last").write_text("step-15\n")
    shutil.rmtree(out / "checkpoints" / "step-20")
    results = train(resolve(str(out / "spec.yaml")), out, resume=True)
    assert results["steps"] == 20
    assert [line["step"] for line in health.read_lines(file)] == [json.loads(line)["step"] for line in good]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_files_of_a_checkpoint_follow_the_umask(images: Path, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        train(tiny(images, "train.max_steps=1"), tmp_path / "run")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "run").rglob("*")}
    files = {name: mode for name, mode in modes.items() if "." in name or name == "last"}
    assert {"model.safetensors", "optimizer.safetensors", "state.json", "manifest.json", "spec.yaml"} <= files.keys()
    assert set(files.values()) == {0o640}
    assert {mode for name, mode in modes.items() if name not in files} == {0o750}


# Weights that a step blew up


@pytest.mark.parametrize("rate", ["1e30", "1e38"])
def test_weights_that_a_step_blew_up_are_not_saved(rate: str, images: Path, tmp_path: Path) -> None:
    sets = [f"train.optimizer.lr={rate}", "train.checkpoint.every_steps=1"]
    with pytest.raises(BadLoss, match=r"weights are not finite after step 1 \(.* none was written yet"):
        train(tiny(images, *sets), tmp_path / "run")
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def test_steps_are_not_left_out_for_ever(images: Path, tmp_path: Path) -> None:
    sets = ["train.optimizer.lr=1e30", "train.on_bad_loss=skip"]
    with pytest.raises(BadLoss, match=r"weights are not finite before step 2") as error:
        train(tiny(images, *sets), tmp_path / "run")
    assert "on_bad_loss" not in str(error.value)


def test_a_checkpoint_of_the_weights_of_a_bad_loss_is_not_recommended(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _bad_from(monkeypatch, 3)
    with pytest.raises(BadLoss, match=r"step-3 has the weights that gave this loss; step-2, from before, is whole"):
        train(tiny(images, "train.checkpoint.every_steps=1"), tmp_path / "run")


def test_many_bad_losses_in_a_row_stop_the_run_and_some_are_warned_of(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _bad_from(monkeypatch, 3)
    skip = ["train.on_bad_loss=skip", "train.epochs=3"]
    with pytest.raises(BadLoss, match="the loss was no number in 10 steps in a row, up to step 13"):
        train(tiny(images, *skip), tmp_path / "many")
    found = train(tiny(images, *skip, "train.max_steps=8"), tmp_path / "some")
    assert found["warnings"] == ["5 of 8 steps were left out, because their loss was no number"]


def _bad_from(monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    from contralex.plugin import InfoNCE

    forward = InfoNCE.forward

    def bad(self: Any, queries: Any, dictionary: Any, targets: Any, step: Any) -> torch.Tensor:
        loss: torch.Tensor = forward(self, queries, dictionary, targets, step)
        return loss * float("nan") if step.clock.step >= first else loss

    monkeypatch.setattr(InfoNCE, "forward", bad)


def test_state_with_what_is_not_finite_is_named() -> None:
    good = torch.ones(3)
    tensors = {"a": good, "b": good * float("nan"), "c": good * 1e30, "d": torch.tensor([2**62]), "e": good * 1e18}
    assert health.blown_up(tensors) == ["b", "c"]


# From another place


def test_a_run_is_found_again_from_any_folder(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(images, "photos")
    short = tiny("photos", "train.max_steps=4")
    assert short.data["data"]["root"] == "photos"  # as it was said, for `show`
    train(short, Path("run"))
    there = resolve("run/spec.yaml")
    assert there.data["data"]["root"] == str(tmp_path / "photos")
    assert there.digest == short.digest == tiny(images, "train.max_steps=4").digest
    (tmp_path / "else").mkdir()
    monkeypatch.chdir("else")
    run = Path("../run")
    assert train(resolve(str(run / "spec.yaml")), run, resume=True)["steps"] == 4
    command = ["finetune", "../run", "--labels", "1", "--epochs", "1", "--out", "tuned"]
    sets = [word for text in ("train.batch_size=8", "train.workers=0", "train.max_steps=2") for word in ("--set", text)]
    done = CliRunner().invoke(app, [*command, *sets])
    assert done.exit_code == 0, done.exception
    assert resolve("tuned/spec.yaml").data["init"]["checkpoint"] == str(tmp_path / "run" / "checkpoints" / "step-4")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["distill", "else/tuned", "--epochs", "1", "--out", "student", *sets])
    assert done.exit_code == 0, done.exception

    # Moved, they are found by --data, and recognised.
    Path("photos").rename("moved")
    for words in (["linear", "run"], ["train", "--resume", "--out", "run"], ["distill", "else/tuned"]):
        done = CliRunner().invoke(app, words)
        assert "moved from" in str(done.exception) and "say where they are with --data" in str(done.exception)
    done = CliRunner().invoke(app, ["train", "--resume", "--out", "run", "--data", "moved"])
    assert done.exit_code == 0, done.exception
    assert resolve("run/spec.yaml").data["data"]["root"] == str(tmp_path / "moved")
    for number in range(3):
        shutil.copy("moved/one/1.png", f"moved/one/new-{number}.png")
    done = CliRunner().invoke(app, ["train", "--resume", "--out", "run", "--data", "moved"])
    assert "was started on other data (data: 40 samples → " in str(done.exception)


def test_other_data_of_a_finished_run_are_noticed(images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    results = train(tiny(images, "train.max_steps=1"), run)
    assert differences(run, results, tiny(images, "train.max_steps=1")) == []
    other = shutil.copytree(images, tmp_path / "other")
    assert differences(run, results, tiny(other, "train.max_steps=1")) == [f"data.root: {images} → {other}"]
