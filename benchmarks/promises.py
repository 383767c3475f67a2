"""The figures of speed and memory that contralex promises, in groups: what is measured, and its bound."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal, TypeVar

import torch

from benchmarks import batch_in_parts, ema, end_to_end, loss, queue, startup, step, views
from benchmarks.measuring import OURS, Case, Options, Peers, compare, compare_calls
from benchmarks.photographs import SMALL, WIDE, write_folder
from contralex.plugin import PIXELS, THIS, UNTRAINED

Side = TypeVar("Side")


@dataclass
class Line:
    """One figure and its bound. ``figure``: None where it cannot be measured here, for the reason in ``note``."""

    what: str
    sense: Literal["at most", "at least"]
    bound: float
    figure: float | None = None
    note: str = ""
    spread: tuple[float, float] | None = None
    """The smallest and the largest of the rounds, of which the figure is the median."""

    @property
    def verdict(self) -> str:
        if self.figure is None:
            return "not measured"
        holds = self.figure <= self.bound if self.sense == "at most" else self.figure >= self.bound
        return "holds" if holds else "falls short"

    def __str__(self) -> str:
        figure = "" if self.figure is None else f"{self.figure:.3g}"
        spread = "" if self.spread is None else "({:.3g} to {:.3g})".format(*self.spread)
        note = f"  ({self.note})" if self.note else ""
        return f"{self.verdict:12}  {figure:>9} {spread:20}  {self.sense} {self.bound:<8.3g}  {self.what}{note}"


Rounds = list[float]
Figure = float | Rounds | None
"""One number, or one of each round; None where it cannot be measured here."""


def at_most(what: str, bound: float, figure: Figure, note: str = "") -> Line:
    return _line(what, "at most", bound, figure, note)


def at_least(what: str, bound: float, figure: Figure, note: str = "") -> Line:
    return _line(what, "at least", bound, figure, note)


def _line(what: str, sense: Literal["at most", "at least"], bound: float, figure: Figure, note: str) -> Line:
    if isinstance(figure, list):
        return Line(what, sense, bound, median(figure), note, (min(figure), max(figure)))
    return Line(what, sense, bound, figure, note)


def taken(case: Case, peer: str) -> Rounds | None:
    """The fraction of the peer's time that contralex takes; None where the peer is absent."""
    if peer not in case.rounds:
        return None
    return [own / other for own, other in zip(case.rounds[OURS], case.rounds[peer], strict=True)]


def held(case: Case, peer: str) -> float | None:
    """The fraction of the peer's memory."""
    return case.memory_ratio(peer) if peer in case.bytes else None


def faster(case: Case, peer: str, side: str = OURS) -> Rounds | None:
    """How many times as fast as the peer."""
    if peer not in case.rounds or side not in case.rounds:
        return None
    return [other / own for own, other in zip(case.rounds[side], case.rounds[peer], strict=True)]


def absent(figure: Figure, peer: str) -> str:
    return f"{peer} is absent" if figure is None else ""


def against(kind: Callable[..., Line], what: str, bound: float, figure: Figure, peer: str) -> Line:
    return kind(what, bound, figure, absent(figure, peer))


def only(sides: Mapping[str, Side], *peers: str) -> dict[str, Side]:
    """contralex and these: no line is about the other sides, and all of them take their time."""
    return {name: side for name, side in sides.items() if name in (OURS, *peers)}


def losses(options: Options, peers: Peers) -> Iterator[Line]:
    for rows in (64,) if options.small else (4096, 16384):
        case = compare_calls("", only(loss.ntxent(rows, peers, options), "lightly"), options, with_memory=True)
        less = 1 / 15 if rows <= 4096 else 1 / 60
        yield against(at_most, f"NT-Xent, {rows} rows: time against lightly", 0.25, taken(case, "lightly"), "lightly")
        yield against(at_most, f"NT-Xent, {rows} rows: memory against lightly", less, held(case, "lightly"), "lightly")
    for rows in (64,) if options.small else (256, 1024):
        hand = "cross-entropy by hand"
        case = compare_calls("", only(loss.ntxent(rows, peers, options), hand), options)
        yield at_most(f"NT-Xent, {rows} rows: time against plain cross-entropy", 0.8, taken(case, hand))
    pairs = 32 if options.small else 8192
    case = compare_calls("", loss.clip(pairs, peers, options), options, with_memory=True)
    peer = "open_clip"
    yield against(at_most, f"CLIP, {pairs} pairs: time against open_clip", 0.7, taken(case, peer), peer)
    yield against(at_most, f"CLIP, {pairs} pairs: memory against open_clip", 0.1, held(case, peer), peer)
    rows = 64 if options.small else 4096
    case = compare_calls("", loss.supcon(rows, peers, options), options, with_memory=True)
    peer = "pytorch-metric-learning"
    yield against(at_most, f"SupCon, {rows} rows: time against {peer}", 0.3, taken(case, peer), peer)
    yield against(at_most, f"SupCon, {rows} rows: memory against {peer}", 1 / 15, held(case, peer), peer)


def queues(options: Options, peers: Peers) -> Iterator[Line]:
    size, batch = (512, 64) if options.small else (65536, 256)
    case = compare_calls("", queue.look_ups(size, batch, peers, options), options, with_memory=True)
    yield against(at_most, f"queue of {size}: time against lightly", 0.4, taken(case, "lightly"), "lightly")
    yield against(at_most, f"queue of {size}: memory against lightly", 1 / 50, held(case, "lightly"), "lightly")


def averages(options: Options, peers: Peers) -> Iterator[Line]:
    name = "resnet18" if options.small else "resnet50"
    case = compare_calls("", ema.updates(name, peers, options), options)
    yield against(at_most, f"EMA of a {name}: time against lightly", 0.6, taken(case, "lightly"), "lightly")


def steps(options: Options, peers: Peers) -> Iterator[Line]:
    for method in ("simclr", "moco"):
        task = step.Task(method, method, step.CONV, 16, 32, 12 if options.small else 200)
        case = compare("", step.sides(task, peers, options), options.rounds)
        yield at_most(f"tiny {method} step: time against a bare loop", 1.05, taken(case, "bare loop"))
        figure = taken(case, "lightly")
        yield against(at_most, f"tiny {method} step: time against lightly", 0.45, figure, "lightly or Lightning")
    if options.small:
        return
    task = step.Task("", "simclr", step.RESNET, 32, 16, 8)
    case = compare("", only(step.sides(task, peers, options), "bare loop"), options.rounds)
    yield at_most("ResNet-18 step: time against a bare loop", 1.01, taken(case, "bare loop"))


def view_lines(options: Options, peers: Peers) -> Iterator[Line]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield from _view_lines(options, peers)
    finally:
        torch.set_num_threads(threads)


def _view_lines(options: Options, peers: Peers) -> Iterator[Line]:
    count = views.BATCH if options.small else 12 * views.BATCH
    fused = f"{OURS}, fused"
    case = compare("", only(views.moco(224, WIDE, count, peers), fused, "lightly"), options.rounds)
    yield against(at_least, "MoCo v2 views, exact: speed against lightly", 3.5, faster(case, "lightly"), "lightly")
    figure = faster(case, "lightly", fused)
    missing = "lightly" if fused in case.seconds else "the engine fused"
    yield against(at_least, "MoCo v2 views, fused: speed against lightly", 6, figure, missing)
    case = compare("", only(views.simclr(count, peers), "torchvision"), options.rounds)
    yield at_least("SimCLR views, exact: speed against torchvision", 5, faster(case, "torchvision"))
    many = count if options.small else 5 * count
    case = compare("", views.moco(32, SMALL, many, peers), options.rounds)
    for peer, bound in (("lightly", 8), ("albumentations", 2)):
        yield against(at_least, f"views at 32 px: speed against {peer}", bound, faster(case, peer), peer)


def ends(options: Options, peers: Peers) -> Iterator[Line]:
    task = step.Task("", "moco", end_to_end.CONV, 32, 32, 6 if options.small else 250)
    with tempfile.TemporaryDirectory() as name:
        root = write_folder(Path(name, "train"), (2 if options.small else 4) * task.count, SMALL)
        sides = only(end_to_end.sides(task, root, peers, options), "floor", "lightly")
        case = compare("", sides, options.rounds)
    figure = faster(case, "lightly")
    yield against(at_least, "end to end at 32 px: speed against lightly", 1.7, figure, "lightly or Lightning")
    yield at_least("end to end at 32 px: fraction of the speed without data", 0.92, faster(case, "floor"))


def waits(options: Options, peers: Peers) -> Iterator[Line]:
    """In the third step of each recipe, with forward, backward, optimiser and update: seen by the operations."""
    from contralex.lookup import late_checks
    from contralex.testing.host_waits import HostWaits
    from tests.distributed.invariance import METHODS
    from tests.gpu.cases import Case as OneStep

    found: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in list(METHODS)[:2] if options.small else METHODS:
            case = OneStep(name, Path(folder))
            method = case.method("cpu")
            optimizer = case.optimizer(method)
            for _ in range(3):  # what is made or read once, in the first steps, may wait
                inputs = case.inputs("cpu")  # with a Step of its own, whose cache lives no longer
                with HostWaits() as seen, late_checks.collect():  # as in training
                    result = case.step(method, inputs)
                    optimizer.step()
                    optimizer.zero_grad()
                    method.update(result.keys, inputs[2])
            found[name] = seen.total
    worst = max(found, key=lambda name: found[name])
    what = "host synchronisations of a step, the most of any recipe"
    yield at_most(what, 0, found[worst], f"{worst}; {sum(map(bool, found.values()))} of {len(found)} wait")


def micro_batches(options: Options, peers: Peers) -> Iterator[Line]:
    batch, pixels = (128, 16) if options.small else (4096, 32)
    figure = batch_in_parts.gradient_difference(batch)
    yield at_most(f"SimCLR at {batch}, micro_batch 64: relative difference of the gradient", 1e-6, figure, "float64")
    figure = batch_in_parts.peak(batch, pixels, batch_in_parts.IN_PARTS) / batch_in_parts.peak(64, pixels, {})
    yield at_most(f"SimCLR at {batch}, micro_batch 64: memory against batch 64, without pixels", 1.3, figure)
    whole = batch_in_parts.fitting(batch)
    case = batch_in_parts.times(whole, pixels)
    note = "" if whole == batch else f"too little memory for {batch} at once"
    what = f"SimCLR at {whole}, micro_batch 64: time against the full batch"
    yield at_most(what, 1.5, taken(case, "whole"), note)


def processes(options: Options, peers: Peers) -> Iterator[Line]:
    """Some rows of benchmarks/invariance.md, by its own functions."""
    from tests.distributed import invariance

    names = ["moco-v2"] if options.small else ["simclr-v1", "moco-v2", "byol", "swav"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as each of the processes has
    try:
        with tempfile.TemporaryDirectory() as name:
            one = invariance.alone(names, Path(name))
            ranks = invariance.together(2, names, Path(name))
    finally:
        torch.set_num_threads(threads)
    apart = [invariance.difference(one[name], rank[name]) for rank in ranks for name in names]
    of = f"two processes against one, {', '.join(names)}: relative difference of the"
    for what, column in (("first gradient", "gradient"), ("loss of four steps", "loss"), ("state after them", "state")):
        yield at_most(f"{of} {what}", 1e-5, max(each[column] for each in apart))


def commands(options: Options, peers: Peers) -> Iterator[Line]:
    for words in startup.COMMANDS:
        command = [*startup.contralex(), *words.split()]
        case = compare("", {OURS: lambda command=command: startup.seconds(command)}, options.rounds)  # type: ignore[misc]
        yield at_most(f"contralex {words}: seconds", 0.3, case.rounds[OURS])


def demo(options: Options, peers: Peers) -> Iterator[Line]:
    """``make demo`` once it is installed."""
    if options.small:
        return
    with tempfile.TemporaryDirectory() as name:
        out = Path(name, "run")
        words = ["train", "moco-v2", "--preset", "digits", "--epochs", "60", "--fit"]  # the Makefile's
        command = [*startup.contralex(), *words, "--out", str(out)]
        environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        minutes = (time.perf_counter() - began) / 60
        results = json.loads((out / "results.json").read_text("utf-8"))
    yield at_most("make demo: minutes", 5, minutes)
    knn = results["knn"]
    best = max(knn[each]["top1"] for each in (UNTRAINED, PIXELS))
    yield at_least("make demo: points above the better baseline", 20, 100 * (knn[THIS]["top1"] - best))


@dataclass(frozen=True)
class Group:
    lines: Callable[[Options, Peers], Iterator[Line]]
    minutes: float
    """About what it takes on two idle cores."""


GROUPS: Mapping[str, Group] = {
    "loss": Group(losses, 2.5),
    "queue": Group(queues, 0.3),
    "ema": Group(averages, 0.2),
    "commands": Group(commands, 0.2),
    "waits": Group(waits, 1.0),
    "processes": Group(processes, 0.6),
    "step": Group(steps, 2.5),
    "micro_batch": Group(micro_batches, 2.5),
    "demo": Group(demo, 2.5),
    "views": Group(view_lines, 2.5),
    "end_to_end": Group(ends, 4.0),
}
