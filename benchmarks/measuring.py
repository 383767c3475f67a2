"""How every benchmark here measures: sides in turn, medians with quartiles, exact memory, JSON and a figure.

A *case* is one task; its *sides* are the libraries that do it. In each round every side runs once, in an order that
rotates, so that a machine that slows down slows all of them. A ratio is taken within a round and then summarised, so it
is steadier than the seconds are.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # the profiler writes its own life to stderr; read when torch is loaded

import torch

OURS = "contralex"
LONG = 4.0  # seconds
PEERS = ("lightly", "pytorch-lightning", "open_clip_torch", "pytorch-metric-learning", "albumentations", "torchvision")


@dataclass
class Spread:
    """The median of some figures, and their quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def over(cls, values: Sequence[float]) -> Spread:
        if len(values) < 2:
            return cls(values[0], values[0], values[0])
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(middle, low, high)


@dataclass
class Case:
    """One task: what each side took for it."""

    name: str
    seconds: dict[str, Spread] = field(default_factory=dict)
    """By side: the seconds of one repetition."""
    bytes: dict[str, int] = field(default_factory=dict)
    """By side: the most memory that was live at once beyond what was live before."""
    ratios: dict[str, Spread] = field(default_factory=dict)
    """By peer: contralex's seconds over the peer's, within each round."""
    rounds: dict[str, list[float]] = field(default_factory=dict)
    """By side: its seconds in each round."""
    figures: dict[str, float] = field(default_factory=dict)
    """What else was measured, by name."""
    failed: dict[str, str] = field(default_factory=dict)
    """By side: why it has no figures."""

    def memory_ratio(self, peer: str) -> float:
        return self.bytes[OURS] / self.bytes[peer]


@dataclass
class Report:
    """What one benchmark found, with all that is needed to repeat it."""

    benchmark: str
    cases: list[Case] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    """Peers that are not installed, and were left out."""
    command: str = ""
    date: str = ""
    machine: dict[str, Any] = field(default_factory=dict)
    running: str | None = None
    """The case that is measured just now, where the benchmark names it before."""
    complete: bool = False
    file: Path | None = None
    """Where all of this is written after each case, so that a benchmark that is killed loses one case alone."""

    def begin(self, name: str) -> None:
        self.running = name
        self.save()

    def add(self, case: Case) -> Case:
        self.cases.append(case)
        self.running = None
        for line in lines(case):
            print(line, flush=True)
        self.save()
        return case

    def end(self) -> None:
        self.complete = True
        self.save()

    def save(self) -> None:
        if self.file is None:
            return
        found = {name: value for name, value in asdict(self).items() if name != "file"}
        beside = self.file.with_name(self.file.name + ".new")
        beside.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
        beside.replace(self.file)  # a file that is read is never half of one


@dataclass(frozen=True)
class Options:
    """The options that every benchmark has, and its own."""

    small: bool = False
    """The smallest sizes, which only show that everything runs."""
    rounds: int = 7
    device: str = "cpu"
    own: Mapping[str, Any] = field(default_factory=dict)
    """All that the command line gave, by name, the options of this benchmark alone among them."""


class Peers:
    """Imports the libraries to compare with, and remembers which are absent."""

    def __init__(self) -> None:
        self.absent: list[str] = []

    def load(self, module: str, distribution: str) -> ModuleType | None:
        try:
            return importlib.import_module(module)
        except ImportError:
            if distribution not in self.absent:
                self.absent.append(distribution)
                print(f"{distribution} is not installed, and is left out", flush=True)
            return None


def main(
    description: str,
    benchmark: str,
    measure: Callable[[Options, Report, Peers], None],
    add_options: Callable[[argparse.ArgumentParser], None] = lambda _: None,
) -> None:
    """The command line of a benchmark: its options, and where its report goes. ``add_options``: of its own."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{benchmark}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, help="Write the figures to this file, after each case.")
    parser.add_argument("--plot", type=Path, help="Draw the ratios into this SVG file.")
    parser.add_argument("--rounds", type=int, default=7, help="Times that each side runs after its warm-up.")
    parser.add_argument("--threads", type=int, help="Threads of torch. Without it, torch chooses.")
    parser.add_argument("--device", default="cpu", help="cpu or cuda.")
    parser.add_argument("--small", action="store_true", help="Run the smallest sizes, to see that everything works.")
    add_options(parser)
    arguments = parser.parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    rounds = 2 if arguments.small else arguments.rounds
    options = Options(arguments.small, rounds, arguments.device, vars(arguments))
    report = run(benchmark, measure, options, arguments.json)
    if arguments.plot is not None:
        draw(report, arguments.plot)


def run(
    benchmark: str, measure: Callable[[Options, Report, Peers], None], options: Options, file: Path | None = None
) -> Report:
    """The report of one benchmark, which ``file`` holds after each case."""
    peers = Peers()
    command = shlex.join(["python", "-m", f"benchmarks.{benchmark}", *sys.argv[1:]])
    report = Report(benchmark, absent=peers.absent, command=command, file=file)
    report.date = datetime.now(UTC).isoformat(timespec="minutes")
    report.machine = describe_machine(options.device)
    report.save()
    measure(options, report, peers)
    report.end()
    return report


def compare(name: str, sides: Mapping[str, Callable[[], float]], rounds: int, *, warm_up: bool = True) -> Case:
    """Run the sides in turn. Each returns its own seconds, and its first run, a warm-up, is not counted.

    Where a turn of all sides takes long, there are three rounds. Without ``warm_up`` every run is counted, because each
    warms up by itself.
    """
    if warm_up and sum(side() for side in sides.values()) > LONG:
        rounds = min(rounds, 3)
    found: dict[str, list[float]] = {each: [] for each in sides}
    order = list(sides)
    for turn in range(rounds):
        start = turn % len(order)
        for each in [*order[start:], *order[:start]]:
            found[each].append(sides[each]())
    case = Case(name, {each: Spread.over(values) for each, values in found.items()}, rounds=found)
    for peer in found.keys() - {OURS} if OURS in found else ():
        case.ratios[peer] = Spread.over([own / other for own, other in zip(found[OURS], found[peer], strict=True)])
    return case


def compare_calls(
    name: str,
    calls: Mapping[str, Callable[[], object]],
    options: Options,
    *,
    with_memory: bool = False,
    least: float = 0.05,
) -> Case:
    """As :func:`compare`, of calls that are timed here. Short ones are repeated until they take ``least`` seconds."""
    sides = {each: timed(call, options, least) for each, call in calls.items()}
    case = compare(name, sides, options.rounds)
    if with_memory:
        case.bytes = {each: peak_bytes(call, options.device) for each, call in calls.items()}
    return case


def timed(call: Callable[[], object], options: Options, least: float = 0.05) -> Callable[[], float]:
    """A function that times ``call`` and returns the seconds of one repetition."""
    once = time_calls(call, 1, options.device)
    if once < 1:  # the first may be slower, and is not to decide that there is only one
        once = min(once, time_calls(call, 1, options.device))
    repeats = 1 if options.small else max(1, int(least / max(once, 1e-7)))
    return lambda: time_calls(call, repeats, options.device) / repeats


def time_calls(call: Callable[[], object], repeats: int, device: str) -> float:
    """The seconds of all repetitions together."""
    _wait(device)
    began = time.perf_counter()
    for _ in range(repeats):
        call()
    _wait(device)
    return time.perf_counter() - began


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def peak_bytes(call: Callable[[], object], device: str = "cpu", *, warm_up: bool = True) -> int:
    """The most bytes that torch's allocator had handed out at once during ``call``, beyond those before it.

    On the CPU every allocation and release of torch's allocator is recorded by its profiler, so temporaries inside an
    operation count as well; what other libraries allocate for themselves (NumPy, OpenCV, oneDNN's scratch) does not.
    Without ``warm_up`` the first call is measured, not the second.
    """
    if warm_up:
        call()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    options: dict[str, Any] = {"activities": [torch.profiler.ProfilerActivity.CPU], "profile_memory": True}
    if "acc_events" in inspect.signature(torch.profiler.profile).parameters:  # which later ones warn without
        options["acc_events"] = True
    with _quiet(), torch.profiler.profile(**options) as profiler:
        call()
    recorded = profiler.profiler.kineto_results.events()
    changes = sorted((each.start_ns(), each.nbytes()) for each in recorded if each.name() == "[memory]")
    live = most = 0
    for _, change in changes:
        live += change
        most = max(most, live)
    return most


@contextmanager
def _quiet() -> Iterator[None]:
    """Within, the process's stderr is thrown away: the profiler's C++ code warns of memory that it did not see made."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def describe_machine(device: str = "cpu") -> dict[str, Any]:
    """What a figure must carry: the processor, its cores, the versions."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numba": _version("numba"),
        "versions": {name: version for name in (OURS, *PEERS) if (version := _version(name))},
    }


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    models = [line for line in file.read_text("utf-8").splitlines() if "model name" in line] if file.exists() else []
    return models[0].split(":", 1)[1].strip() if models else platform.processor() or platform.machine()


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def lines(case: Case) -> list[str]:
    """A case as text: a line for each side, with its ratio to contralex."""
    found = [f"\n{case.name}"]
    for side, spread in case.seconds.items():
        memory = f"  {case.bytes[side] / 1e6:10.1f} MB" if side in case.bytes else ""
        ratio = ""
        if side in case.ratios:
            by = case.ratios[side]
            ratio = f"  contralex takes {by.median:.2f} of it ({by.low:.2f} to {by.high:.2f})"
        found.append(f"  {side:24} {_unit(spread.median):>10}{memory}{ratio}")
    found += [
        f"  {side:24} {'':>10}  {count / 1e6:10.1f} MB"
        for side, count in case.bytes.items()
        if side not in case.seconds
    ]
    found += [f"  {name}: {value:.4g}" for name, value in case.figures.items()]
    found += [f"  {side} failed: {why}" for side, why in case.failed.items()]
    return found


def _unit(seconds: float) -> str:
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
        if seconds * factor >= 1 or unit == "µs":
            return f"{seconds * factor:.3g} {unit}"
    raise AssertionError


def draw(report: Report, file: Path) -> None:
    """The seconds of each case relative to contralex's, as bars."""
    from matplotlib.figure import Figure

    cases = [case for case in report.cases if OURS in case.seconds and len(case.seconds) > 1]
    sides = list(dict.fromkeys(side for case in cases for side in case.seconds))
    figure = Figure(figsize=(8, 0.6 + 0.28 * sum(len(case.seconds) + 1 for case in cases)), layout="constrained")
    axes = figure.subplots()
    at, marks = 0.0, []
    for case in cases:
        marks.append((at + (len(case.seconds) - 1) / 2, case.name))
        for side, spread in case.seconds.items():
            length = spread.median / case.seconds[OURS].median
            error = [[(spread.median - spread.low) / case.seconds[OURS].median],
                     [(spread.high - spread.median) / case.seconds[OURS].median]]  # fmt: skip
            axes.barh(at, length, xerr=error, color=f"C{sides.index(side)}", height=0.8)
            axes.text(length, at, f" {_unit(spread.median)}", va="center", fontsize=7)
            at += 1
        at += 1
    axes.set_yticks([mark for mark, _ in marks], [name for _, name in marks], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("time, contralex = 1 (shorter is better)")
    axes.axvline(1.0, color="black", linewidth=0.6)
    handles = [axes.barh(0, 0, color=f"C{number}") for number in range(len(sides))]
    axes.legend(handles, sides, fontsize=8, loc="lower right")
    figure.savefig(file, format="svg", metadata={"Date": None})
