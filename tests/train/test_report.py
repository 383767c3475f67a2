"""What a run says while it lasts: on a terminal of any width, in a log, and to an output that takes nothing."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from contralex.plugin import progress
from contralex.training.progress_bar import Bar
from tests.train.tiny import TINY

CONTRALEX = [sys.executable, "-m", "contralex"]
SETS = [f"--set={text}" for text in TINY]


def train(images: Path, out: Path, *more: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [
        *CONTRALEX,
        "train",
        "simclr-v1",
        "--preset",
        "digits",
        "--data",
        str(images),
        "--out",
        str(out),
        *SETS,
        *more,
    ]
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run(command, text=True, check=False, **given)  # type: ignore[call-overload,no-any-return]


def test_a_log_tells_a_run_from_its_start_to_what_comes_next(images: Path, tmp_path: Path) -> None:
    """In a folder whose name is markup to rich, and needs quotes in a shell."""
    out = tmp_path / "mk[/b] [red]q 1"
    done = train(images, out, "--set=eval.knn={k: 5, baselines: false}")
    assert done.returncode == 0, done.stderr
    start, data, folder, *_ = done.stdout.splitlines()
    assert start == "simclr-v1 on the CPU, fp32, 1 process: 10 steps of 8 images, 2 epochs"
    assert data.startswith("image_folder: 40 images to train on in 2 classes (one, other); 10 to evaluate on")
    assert folder == f"Folder: {out}"
    assert "│ this run" in done.stdout
    *_, saved, load, evaluate, diagnose = done.stdout.splitlines()
    assert saved.startswith(f"Saved in {out}. ")
    assert load == f"  backbone = contralex.load_backbone({str(out)!r})"
    assert shlex.split(evaluate) == ["contralex", "eval", "knn", str(out)]
    assert shlex.split(diagnose) == ["contralex", "doctor", str(out)]


def test_a_line_comes_every_period_where_there_is_no_bar(images: Path, tmp_path: Path) -> None:
    code = (
        "import sys, contralex.progress as progress; progress.PERIOD = 0.0; "
        "from contralex.__main__ import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", code, "train", "simclr-v1", "--preset", "digits", "--data", str(images)]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "run"), *SETS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("step ")]
    pattern = r"step (\d+) of 10, epoch (\d)/2: loss \d+\.\d{3}, [\d,]+ images/s, \d+ s left"
    found = [re.fullmatch(pattern, line) for line in lines]
    assert [(one[1], one[2]) for one in found if one] == [("2", "1"), ("4", "1"), ("6", "2"), ("8", "2"), ("10", "2")]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_run_outlives_its_output(images: Path, tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = train(images, tmp_path / "full", stdout=full)
    assert done.returncode == 0
    said = "Warning: the output cannot be written (No space left on device); the work goes on without it.\n"
    assert done.stderr.count("Warning: the output") == 1 and said in done.stderr
    assert (tmp_path / "full" / "results.json").is_file()

    reader, writer = os.pipe()
    os.close(reader)
    done = train(images, tmp_path / "closed", stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "closed" / "results.json").is_file()


def test_results_in_an_encoding_without_arrows(images: Path, tmp_path: Path) -> None:
    done = train(images, tmp_path / "run", env={**os.environ, "PYTHONIOENCODING": "cp1252"})
    assert done.returncode == 0, done.stderr
    assert re.search(r"loss \d\.\d{3} -> \d\.\d{3}", done.stdout)


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (40, []),
        (60, ["epoch 7/100", "loss 6.123"]),
        (80, ["epoch 7/100", "loss 6.123"]),
        (100, ["epoch 7/100", "loss 6.123", "1,234 images/s", "look-up 12%"]),
        (120, ["simclr-v2-memory epoch 7/100", "loss 6.123", "1,234 images/s", "look-up 12%"]),
        (140, ["simclr-v2-memory epoch 7/100", "loss 6.123", "1,234 images/s", "look-up 12%", "lr 0.03"]),
    ],
)
def test_what_matters_least_goes_first_on_a_narrow_terminal(width: int, shown: list[str]) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=width, color_system=None)
    bar = Bar(console, "simclr-v2-memory", 100, 20_000, 0, shown=True)
    bar.at(1234, 7)
    bar.show(["loss 6.123", "1,234 images/s", "look-up 12%", "lr 0.03"])
    console.print(bar._progress.get_renderable())
    (line,) = file.getvalue().splitlines()
    assert len(line) <= width
    words = re.sub(r"[━╸╺]+ +", "", line)  # without the bar itself
    head, figures = [shown[0]] if shown else [], "  ".join(shown[1:])
    assert words.strip() == " ".join([*head, "1234/20000 -:--:--", figures]).strip()


def test_signs_of_life(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "FIRST", 0.05)
    monkeypatch.setattr(progress, "PERIOD", 0.05)
    progress.listen("stderr")
    with progress.during("Outer"), progress.during("Encoding", 8) as done:
        done(2)
        time.sleep(0.2)
    out, err = capsys.readouterr()
    assert out == "" and "Outer" not in err
    assert re.fullmatch(r"(Encoding: 2 of 8, \d+ s left\n)+", err)
    progress.listen("stdout")
    with progress.during("Quick", 8):
        pass
    progress.say("[b]as it is[/b]")
    assert capsys.readouterr() == ("[b]as it is[/b]\n", "")

    monkeypatch.setenv("RANK", "1")
    with progress.during("Another process"):
        time.sleep(0.1)
    progress.say("another process")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (89, "89 s"), (600, "10 min"), (12_000, "3 h 20 min"), (352_800, "4 days 2 h")],
)
def test_durations(seconds: float, said: str) -> None:
    assert progress.duration(seconds) == said
