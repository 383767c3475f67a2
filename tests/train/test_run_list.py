"""``contralex runs``: the runs of a folder, their states and figures, in any order."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import contralex
from contralex import ContralexError
from contralex.__main__ import main
from contralex.errors import command_to_resume
from contralex.training import folders
from contralex.training.failures import RunFailed
from contralex.training.run_folder import RunFolder
from contralex.training.stop_errors import RunStopped


def write_run(folder: Path, *, results: dict[str, Any] | None = None, metrics: str = "", name: str = "moco-v2") -> Path:
    folder.mkdir(parents=True)
    (folder / "spec.yaml").write_text(f"schema: 1\nname: {name}\nmethod: {{}}\n", "utf-8")
    (folder / "metrics.jsonl").write_text(metrics, "utf-8")
    if results is not None:
        (folder / "results.json").write_text(json.dumps(results), "utf-8")
    return folder


@pytest.fixture
def some(tmp_path: Path) -> Path:
    ended = {"name": "byol", "steps": 30, "last_loss": 1.5, "seconds": 100.0, "knn": {"this run": {"top1": 0.5}}}
    write_run(tmp_path / "ended", results=ended, name="another name")
    lines = ['{"step": 10, "loss": 3.0}', '{"step": 20, "loss": 2.0}', '{"step": 20, "knn_top1": 0.25}', '{"step": 3']
    write_run(tmp_path / "comparison" / "moco-v2" / "seed-1", metrics="\n".join(lines))
    (tmp_path / "comparison" / "results.json").write_text("{}", "utf-8")
    write_run(tmp_path / "begun")
    (tmp_path / "no-run").mkdir()
    (tmp_path / "a-file").touch()
    return tmp_path


def lock(folder: Path, **who: Any) -> None:
    said = {"pid": os.getpid(), "host": socket.gethostname(), "since": "2025-01-01 00:00:00", **who}
    (folder / folders.LOCK).write_text(json.dumps(said), "utf-8")


def test_every_run_is_listed_with_its_figures(some: Path) -> None:
    found = {run.name: run for run in contralex.runs(some)}
    assert set(found) == {"ended", os.path.join("comparison", "moco-v2", "seed-1"), "begun"}
    ended = found["ended"]
    assert (ended.recipe, ended.state, ended.steps, ended.loss) == ("byol", "ended", 30, 1.5)
    assert (ended.knn, ended.seconds) == (0.5, 100.0)
    assert ended.size == sum(each.stat().st_size for each in (some / "ended").iterdir())
    stopped = found[os.path.join("comparison", "moco-v2", "seed-1")]
    assert (stopped.recipe, stopped.state, stopped.steps, stopped.loss) == ("moco-v2", "stopped", 20, 2.0)
    assert (stopped.knn, stopped.seconds) == (0.25, None)
    assert (found["begun"].state, found["begun"].steps, found["begun"].loss) == ("stopped", None, None)
    assert [run.name for run in contralex.runs(some / "ended")] == ["ended"]
    assert repr(contralex.runs(some / "no-run")) == f"{some / 'no-run'} holds no runs."


@pytest.mark.parametrize(
    ("sort", "first", "last"),
    [("name", "begun", "ended"), ("loss", "ended", "begun"), ("steps", "ended", "begun"), ("knn", "ended", "begun")],
)
def test_runs_are_sorted_and_those_without_the_figure_come_last(sort: Any, first: str, last: str, some: Path) -> None:
    found = contralex.runs(some, sort=sort)
    assert (found[0].name, found[-1].name) == (first, last)


def test_the_newest_is_first(some: Path) -> None:
    os.utime(some / "ended" / "results.json", (1, 1))
    assert contralex.runs(some)[-1].name == "ended"
    os.utime(some / "ended" / "results.json", (2**33, 2**33))
    assert contralex.runs(some)[0].name == "ended"


def test_a_lock_says_whether_a_run_is_running(some: Path) -> None:
    def state() -> tuple[str, str | None]:
        found = next(run for run in contralex.runs(some) if run.name == "begun")
        return found.state, found.reason

    lock(some / "begun")
    assert state() == ("running", None)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    lock(some / "begun", pid=gone.pid)
    assert state() == ("failed", "its process was killed")
    lock(some / "begun", host="elsewhere")
    assert state() == ("failed", "its process was killed")  # nobody has its lock
    (some / "begun" / folders.LOCK).unlink()
    with folders.Lock(some / "begun"):
        lock(some / "begun", host="elsewhere")
        assert state() == ("running", None)
    assert state() == ("stopped", None)
    assert not (some / "begun" / folders.LOCK).exists()


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (
            RunFailed(f"The disk is full; go on with:{command_to_resume('x')}"),
            ("failed", "The disk is full; go on with:"),
        ),
        (ValueError("a defect"), ("failed", "a defect")),
        (RunStopped("Stopped at step 3", 15), ("stopped", None)),
        (KeyboardInterrupt(), ("stopped", None)),
    ],
)
def test_a_run_that_failed_says_why_until_it_goes_on(
    error: BaseException, state: tuple[str, str | None], tmp_path: Path
) -> None:
    out = tmp_path / "mine"
    with suppress(type(error)), RunFolder(out, "mine", resume=False) as place:
        (place.begin(True) / "metrics.jsonl").touch()
        raise error
    (found,) = contralex.runs(tmp_path)
    assert (found.state, found.reason) == state
    assert found.state == "stopped" or f"mine failed: {found.reason}" in repr(contralex.runs(tmp_path))
    with RunFolder(out, "mine", resume=True) as place:
        place.check_free(True)
        place.begin(True)
    assert contralex.runs(tmp_path)[0].state == "stopped"


def test_only_the_end_of_long_metrics_is_read(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps({"step": step, "loss": 1.0 * step}) for step in range(1, 9000))
    assert len(lines) > 1 << 17
    write_run(tmp_path / "long", metrics=lines)
    assert (contralex.runs(tmp_path)[0].steps, contralex.runs(tmp_path)[0].loss) == (8999, 8999.0)


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"steps": "many", "last_loss": true}', "\x00\xff", '{"knn": [3]}'])
def test_a_damaged_file_is_no_obstacle(text: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "odd", metrics=text)
    for name in ("results.json", "failure.json", "spec.yaml"):
        (folder / name).write_text(text, "utf-8")
    (found,) = contralex.runs(tmp_path)
    assert (found.steps, found.loss, found.knn) == (None, None, None)


def test_what_cannot_be_listed_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ContralexError, match=r"there is no folder .*nowhere; give the folder that holds runs"):
        contralex.runs(tmp_path / "nowhere")
    with pytest.raises(ContralexError, match="must be one of changed, name, recipe"):
        contralex.runs(tmp_path, sort="colour")  # type: ignore[arg-type]


def test_the_command_prints_a_table_or_json_without_torch(
    some: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["contralex", "runs", str(some), "--sort", "name"])
    assert main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "run\trecipe\tstate\tsteps\tlast loss\tkNN\ttime\tsize"
    assert lines[-1].split("\t")[:7] == ["ended", "byol", "ended", "30", "1.500", "50.0%", "2 min"]
    monkeypatch.setattr(sys, "argv", ["contralex", "runs", str(some), "--json"])
    assert main() == 0
    assert {each["name"] for each in json.loads(capsys.readouterr().out)} >= {"ended", "begun"}
    code = "import sys, contralex; contralex.runs(sys.argv[1]); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, str(some)], check=True)


def test_a_run_that_ended_and_then_went_on_has_the_state_of_its_last_start(tmp_path: Path) -> None:
    out = write_run(tmp_path / "mine", results={"name": "byol", "steps": 30})
    with suppress(RunFailed), RunFolder(out, "mine", resume=True) as place:
        place.check_free(True)
        place.begin(True)
        raise RunFailed("The disk is full")
    (found,) = contralex.runs(tmp_path)
    assert (found.state, found.reason) == ("failed", "The disk is full")
    (out / folders.FAILURE).unlink()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    lock(out, pid=gone.pid)
    assert contralex.runs(tmp_path)[0].reason == "its process was killed"


def test_a_run_that_begins_where_another_failed_has_not_failed(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / folders.FAILURE).write_text('{"reason": "The disk is full"}', "utf-8")
    with RunFolder(tmp_path / "mine", "mine", resume=False) as place:
        (place.begin(True) / "metrics.jsonl").touch()
    assert contralex.runs(tmp_path)[0].state == "stopped"
