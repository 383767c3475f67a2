"""What is done to runs from outside: their parents are killed, they are stopped and go on, disks fill, clocks jump.

Most take minutes: ``pytest -m slow tests/distributed/test_attacks.py``.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from contralex.recipes.layers import resolve
from contralex.training import launch
from contralex.training.run import train
from tests.noise import noise
from tests.train.tiny import TINY

Start = Callable[..., "subprocess.Popen[str]"]
LONG = ["--set=train.epochs=5000", "--set=train.workers=1"]


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(50):
        name = folder / ("one" if number % 2 else "other") / f"{number}.png"
        name.parent.mkdir(exist_ok=True)
        noise((32, 32), 80, number).convert("RGB").save(name)
    return folder


@pytest.fixture
def start(photos: Path, tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def begin(*words: str, **options: Any) -> subprocess.Popen[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **options.pop("env", {})}
        command = [sys.executable, *options.pop("python", ["-m", "contralex"]), *words]
        pipe = subprocess.PIPE
        # Processes inherit what is done about a signal: these tests too may have been started with nohup.
        before = signal.signal(signal.SIGHUP, options.pop("hang_up", signal.SIG_DFL))
        try:
            started.append(subprocess.Popen(command, env=environment, text=True, stdout=pipe, stderr=pipe, **options))
        finally:
            signal.signal(signal.SIGHUP, before)
        return started[-1]

    yield begin
    for process in started:
        for pid in family(process.pid):
            with_pid(pid, signal.SIGKILL)
        process.wait()


def tiny(photos: Path, out: Path, *more: str, command: str = "train") -> list[str]:
    words = [command, "simclr-v1", "--preset=digits", f"--data={photos}", f"--out={out}"]
    return [*words, *(f"--set={text}" for text in TINY), *more]


def family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for each in found:
        file = Path(f"/proc/{each}/task/{each}/children")
        found += [int(child) for child in file.read_text().split()] if file.exists() else []
    return found


def with_pid(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def until(true: Callable[[], bool], seconds: float = 120) -> bool:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.1)
    return true()


def lives(pid: int) -> bool:
    file = Path(f"/proc/{pid}/stat")
    return file.exists() and file.read_text().rpartition(")")[2].split()[0] != "Z"


def saved(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "checkpoints").glob("step-*"))


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="/proc does not name processes here")


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "compare"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_when_the_parent_dies_all_below_it_end_and_have_saved(
    command: str, number: int, start: Start, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    run = out if command == "train" else out / "simclr-v1"
    process = start(*tiny(photos, out, *LONG, "--processes=2", command=command))
    assert until((run / "metrics.jsonl").exists)
    below = family(process.pid)[1:]
    assert len(below) >= 4  # two processes, each with a data worker
    os.kill(process.pid, number)
    assert until(lambda: not any(lives(pid) for pid in below), 60)
    assert process.wait() == (-number if number == signal.SIGKILL else 128 + number)
    assert len(saved(run)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("ignored", [False, True])
def test_a_hang_up_saves_unless_the_run_was_started_with_nohup(
    ignored: bool, start: Start, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = start(*tiny(photos, out, *LONG), hang_up=signal.SIG_IGN if ignored else signal.SIG_DFL)
    assert until((out / "metrics.jsonl").exists)
    process.send_signal(signal.SIGHUP)
    if ignored:
        time.sleep(3)
        assert process.poll() is None
        return
    _, said = process.communicate(timeout=60)
    assert process.returncode == 129 and said.startswith("Stopped at step ")
    assert len(saved(out)) == 1 and "Traceback" not in said


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_at_any_moment_of_the_start_is_a_sentence(
    number: int, start: Start, photos: Path, tmp_path: Path
) -> None:
    for after in (0.4, 1.5, 3.0):
        process = start(*tiny(photos, tmp_path / "run", *LONG))
        time.sleep(after)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        assert process.returncode in (128 + number, -number), said  # the latter before Python runs a line of ours
        if process.returncode > 0:
            assert said.startswith(("Stopped by SIG", "Stopped at step ")) and "Traceback" not in said, said


@pytest.mark.slow
def test_a_run_that_the_terminal_left_saves(photos: Path, tmp_path: Path) -> None:
    """As where ssh breaks: the terminal is gone, and every write to it fails."""
    import pty

    out = tmp_path / "run"
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        os.environ["OMP_NUM_THREADS"] = "1"
        os.execv(sys.executable, [sys.executable, "-m", "contralex", *tiny(photos, out, *LONG)])
    assert until((out / "metrics.jsonl").exists)
    os.close(terminal)
    done: list[int] = []
    assert until(lambda: bool(done) or bool(os.waitpid(pid, os.WNOHANG)[0] and not done.append(1)), 60)
    assert len(saved(out)) == 1
    assert resolve(str(out / "spec.yaml")).digest


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_that_is_stopped_and_goes_on_ends_as_the_other(
    processes: int, start: Start, photos: Path, tmp_path: Path
) -> None:
    ends = {}
    for name in ("whole", "stopped"):
        out = tmp_path / name
        words = ["--set=train.epochs=20", "--set=train.workers=1", f"--processes={processes}"]
        process = start(*tiny(photos, out, *words))
        if name == "stopped":
            assert until(lambda out=out: (out / "metrics.jsonl").exists())  # type: ignore[misc]
            for _ in range(3):
                below = family(process.pid)
                for pid in below:
                    with_pid(pid, signal.SIGSTOP)
                time.sleep(7)  # longer than a data worker waits before it looks for its parent
                for pid in below:
                    with_pid(pid, signal.SIGCONT)
                time.sleep(0.3)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
        ends[name] = (out / "checkpoints" / "step-100" / "model.safetensors").read_bytes()
    assert ends["whole"] == ends["stopped"]


# A run whose write number N of a checkpoint is the last thing that it does.
DIES = """
import os, signal, sys
from contralex.training.checkpoints import manifest, write as checkpoint
from contralex import files
count = 0
def dying(function):
    def call(*values, **named):
        global count
        count += 1
        if count == int(os.environ["DIES_AT"]):
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*values, **named)
    return call
checkpoint.save_file = dying(checkpoint.save_file)
checkpoint.write_text = dying(checkpoint.write_text)
checkpoint._put = dying(checkpoint._put)
manifest.write = dying(manifest.write)
manifest.to_disk = dying(manifest.to_disk)
checkpoint.to_disk = dying(checkpoint.to_disk)
from contralex.__main__ import main
sys.exit(main())
"""


@pytest.mark.slow
def test_killed_inside_the_writing_of_a_checkpoint_a_run_goes_on(start: Start, photos: Path, tmp_path: Path) -> None:
    more = ["--set=train.checkpoint.every_steps=3"]
    whole = start(*tiny(photos, tmp_path / "whole", *more))
    _, said = whole.communicate(timeout=120)
    assert whole.returncode == 0, said
    expected = (tmp_path / "whole" / "checkpoints" / "step-10" / "model.safetensors").read_bytes()
    for moment in range(1, 25, 2):
        out = tmp_path / f"killed-{moment}"
        process = start(*tiny(photos, out, *more), python=["-c", DIES], env={"DIES_AT": str(moment)})
        assert process.wait(timeout=120) == -signal.SIGKILL
        process = start("train", "--resume", f"--out={out}")
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
        assert (out / "checkpoints" / "step-10" / "model.safetensors").read_bytes() == expected
        assert not list((out / "checkpoints").glob(".*"))


@pytest.mark.slow
def test_a_disk_that_fills_in_the_middle_of_a_checkpoint(start: Start, photos: Path, tmp_path: Path) -> None:
    """By the limit on a file's size, at which a write fails in its middle as on a full disk."""
    out = tmp_path / "run"
    process = start(*tiny(photos, out, "--set=train.checkpoint.every_steps=3", "--set=train.max_steps=3"))
    assert process.wait(timeout=120) == 0
    size = max(path.stat().st_size for path in (out / "checkpoints").rglob("*.safetensors"))
    limited = (
        f"import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size // 2}, {size // 2})); "
        "from contralex.__main__ import main; sys.exit(main())"
    )
    full = tmp_path / "full"
    process = start(*tiny(photos, full, "--set=train.checkpoint.every_steps=3"), python=["-c", limited])
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1 and "could not be written" in said and "Traceback" not in said, said
    assert not saved(full) and not list((full / "checkpoints").glob(".*"))
    process = start(*tiny(photos, out, "--resume", "--allow-drift"), python=["-c", limited])
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1 and f"the last good one is {out / 'checkpoints' / 'step-3'}" in said, said
    process = start(*tiny(photos, out, "--resume", "--allow-drift"))
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said


@pytest.mark.slow
@pytest.mark.parametrize("command", ["finetune", "distill"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_classifiers_under_signals_save_and_go_on(
    command: str, number: int, start: Start, photos: Path, tmp_path: Path
) -> None:
    small = ["--set=train.batch_size=8", "--set=train.workers=0"]
    train(resolve("simclr-v1", preset="digits", data=str(photos), sets=[*TINY, "train.max_steps=2"]), tmp_path / "run")
    words = ["finetune", str(tmp_path / "run"), "--labels=1"]
    if command == "distill":
        assert start(*words, "--epochs=1", f"--out={tmp_path / 'tuned'}", *small).wait(timeout=120) == 0
        words = ["distill", str(tmp_path / "tuned")]
    ends = {}
    for name in ("whole", "stopped"):
        out = tmp_path / name
        process = start(*words, "--epochs=40", f"--out={out}", *small, "--set=train.log_every=1")
        if name == "stopped":
            assert until(lambda out=out: (out / "metrics.jsonl").exists())  # type: ignore[misc]
            process.send_signal(number)
            _, said = process.communicate(timeout=60)
            assert process.returncode == 128 + number and "Stopped at step" in said, said
            process = start("train", "--resume", f"--out={out}")
        _, said = process.communicate(timeout=240)
        assert process.returncode == 0, said
        ends[name] = (out / "checkpoints" / "step-200" / "model.safetensors").read_bytes()
    assert ends["whole"] == ends["stopped"]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["moco-v2", "instdisc"])
def test_a_run_of_two_processes_goes_on_with_one(recipe: str, start: Start, photos: Path, tmp_path: Path) -> None:
    sets = {
        "moco-v2": ["method.negatives={size: 32, placement: sharded}", "train.batch_norm=4"],
        "instdisc": ["method.negatives.draws=16", "method.negatives.placement=sharded", "train.batch_norm=4"],
    }
    losses = {}
    for name, ways in {"one": (1, 1), "two, then one": (2, 1), "one, then two": (1, 2)}.items():
        out = tmp_path / name
        words = ["train", recipe, "--preset=digits", f"--data={photos}", f"--out={out}"]
        words += [f"--set={text}" for text in [*TINY, *sets[recipe], "train.max_steps=5"]]
        process = start(*words, f"--processes={ways[0]}")
        _, said = process.communicate(timeout=240)
        assert process.returncode == 0, said
        more = ["--allow-drift", "--set=train.max_steps=null", f"--processes={ways[1]}"]
        process = start("train", "--resume", f"--out={out}", *more)
        _, said = process.communicate(timeout=240)
        assert process.returncode == 0, said
        losses[name] = [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert losses["two, then one"] == pytest.approx(losses["one"], rel=1e-4)
    assert losses["one, then two"] == pytest.approx(losses["one"], rel=1e-4)


def test_a_clock_that_jumps_changes_nothing(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wall clocks jump; the run's seconds and figures go by the monotonic one."""
    ends = []
    for name in ("still", "jumping"):
        found = train(resolve("simclr-v1", preset="digits", data=str(photos), sets=TINY), tmp_path / name)
        ends.append((tmp_path / name / "checkpoints" / "step-10" / "model.safetensors").read_bytes())
        assert 0 <= found["seconds"] < 600
        jumps = iter(range(10**6))
        monkeypatch.setattr(time, "time", lambda jumps=jumps: 2e9 * (-1) ** next(jumps))
    assert ends[0] == ends[1]


def test_default_folders_do_not_go_by_a_clock_that_went_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from contralex.training import folders

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda form: "20300101-000000")
    assert [folders.make_new(folders.name_by_time("a"))[0].name for _ in range(2)] == [
        "a-20300101-000000",
        "a-20300101-000000-2",
    ]


@pytest.mark.slow
def test_launches_at_once_do_not_take_each_others_port(start: Start, photos: Path, tmp_path: Path) -> None:
    outs = [tmp_path / f"run-{number}" for number in range(4)]
    processes = [start(*tiny(photos, out, "--processes=2")) for out in outs]
    for out, process in zip(outs, processes, strict=True):
        _, said = process.communicate(timeout=500)
        assert process.returncode == 0, said
        assert json.loads((out / "results.json").read_text())["processes"] == 2


def test_each_launch_has_its_port_before_its_processes_start() -> None:
    stores = [launch._rendezvous() for _ in range(5)]
    assert len({store.port for store in stores}) == 5
    for store in stores:
        with pytest.raises(OSError, match=r"in use"), socket.socket() as other:
            other.bind(("127.0.0.1", store.port))
