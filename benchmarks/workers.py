"""JPEG files to a network that trains, by forked workers: images/s with the views made by them, and on the device.

python -m benchmarks.workers --device cuda               generated photographs of 500x375, each file linked 64 times
python -m benchmarks.workers --device cuda --data DIR    your folder of images, as it is

A case of *training* is MoCo v2 (batch 256, bfloat16) with as many workers as it chooses. A side that fails, or that has
not ended after two minutes, leaves its sentence in the report. A case of *data alone* has batches and no network: it
says how many workers more would have to make the views to be as fast as so many with the device, which is how many
cores the device replaces.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from PIL import Image

import contralex
from benchmarks.measuring import Case, Options, Peers, Report, Spread, main
from benchmarks.photographs import SMALL, WIDE, write_folder
from contralex.training import devices
from contralex.training.batches import batches

SIDES = {"views by workers": "workers", "views on the device": "accelerator"}
LIMIT = 120  # seconds that a side of a case has
LINKS = 64


@dataclass(frozen=True)
class Files:
    """A folder of images, and how MoCo v2 is set to read them. ``preset``: ``cifar`` for images of about 32 pixels."""

    root: Path
    preset: str | None

    def sets(self, side: str) -> dict[str, Any]:
        return {"method.views.device": SIDES[side], "eval.knn": None, "train.batch_norm": "local"}


def measure(options: Options, report: Report, peers: Peers) -> None:
    with tempfile.TemporaryDirectory() as name:
        files = find_files(options, Path(name))
        for network in ("conv",) if options.small else ("resnet18", "resnet50"):
            case = f"training, {network}"
            report.begin(case)
            report.add(training(case, network, files, options))
        most = devices.workers(None, options.device)
        for count in (1,) if options.small else sorted({min(2, most), min(4, most), most}):
            case = f"data alone, {count} workers"
            report.begin(case)
            report.add(data_alone(case, count, files, options))


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, help="A folder of images. Without it, photographs are generated.")


def find_files(options: Options, folder: Path) -> Files:
    """The folder that is given, or photographs. Links to a file are files of their own here, and cost as much."""
    data: Path | None = options.own.get("data")
    if data is None:
        root = folder / "photographs"
        write_folder(root, 16 if options.small else 256, SMALL if options.small else WIDE)
        for file in sorted(root.rglob("*.jpg")):
            for number in range(1, 4 if options.small else LINKS):
                os.link(file, file.with_name(f"{file.stem}-{number}.jpg"))
        return Files(root, "cifar" if options.small else None)
    first = next(iter(sorted(data.rglob("*.[jp][pn]*g"))), None)
    if first is None:
        raise SystemExit(f"--data: {data} has no JPEG or PNG file")
    with Image.open(first) as image:
        return Files(data, "cifar" if max(image.size) <= 64 else None)


def training(name: str, network: str, files: Files, options: Options) -> Case:
    """Seconds for an image, from one logged line to the next, once the batches that workers made in advance are used.

    A line waits for the device, so that nothing is counted that it has not done.
    """

    def measure_side(side: str) -> list[float]:
        with tempfile.TemporaryDirectory() as folder, redirect_stderr(StringIO()):
            lines = train(network, files, side, Path(folder, "run"), options)
        return [1 / line["images_per_second"] for line in lines[len(lines) // 2 :]]

    return both_sides(name, measure_side)


def both_sides(name: str, measure_side: Callable[[str], list[float]]) -> Case:
    """The seconds for an image of each side, or why there are none."""
    case = Case(name)
    for side in SIDES:
        began = time.perf_counter()
        try:
            with time_limit(LIMIT):
                case.seconds[side] = Spread.over(measure_side(side))
        except Exception as error:  # whatever it is, it is what the case is to say
            case.failed[side] = f"{type(error).__name__}: {error}"[:500]
            continue
        case.figures[f"images/s, {side}"] = 1 / case.seconds[side].median
        case.figures[f"seconds in all, {side}"] = time.perf_counter() - began
    return case


def train(network: str, files: Files, side: str, out: Path, options: Options) -> list[dict[str, float]]:
    """The lines that were logged."""
    stem = {"stem": "small"} if files.preset else {}
    backbone = {"kind": "torchvision", "name": network, **stem}
    sets = files.sets(side) | {
        "method.encoder.backbone": {"kind": "conv", "widths": [8], "strides": [4]} if options.small else backbone,
        "method.negatives.size": 16 if options.small else 4096,
        "train.batch_size": 16 if options.small else 256,
        "train.log_every": 2 if options.small else 10,
        "train.max_steps": 8 if options.small else 80,  # 15 workers make 30 batches in advance
        "train.precision": "fp32" if options.small else "bf16",
    }
    run = contralex.train("moco-v2", preset=files.preset, data=files.root, sets=sets, out=out)
    return [line for line in run.metrics() if "images_per_second" in line]


def data_alone(name: str, workers: int, files: Files, options: Options) -> Case:
    """Seconds for an image of batches of 64, which are ready on the device."""
    case = both_sides(name, lambda side: [read(workers, files, side, options)])
    if len(case.seconds) == len(SIDES):
        by_workers, on_device = (case.seconds[side].median for side in SIDES)
        case.figures["cores that the device replaces"] = workers * (by_workers / on_device - 1)
    return case


def read(workers: int, files: Files, side: str, options: Options) -> float:
    sets = files.sets(side) | {"train.batch_size": 8 if options.small else 64, "train.workers": workers}
    sets["method.negatives.size"] = sets["train.batch_size"]
    run = contralex.resolve("moco-v2", preset=files.preset, data=files.root, sets=sets).run
    split, views, device = run.data.build().train(), run.method.views.build(), torch.device(options.device)
    stream = batches(split, views, run.train, device, epochs=10**6)
    counted = 6 * workers
    take(stream, 3 * workers, options)  # two batches of each worker were made in advance, and one is copied
    began = time.perf_counter()
    take(stream, counted, options)
    return (time.perf_counter() - began) / (counted * run.train.batch_size)


def take(stream: Iterator[object], count: int, options: Options) -> None:
    for _ in islice(stream, count):
        pass
    if options.device == "cuda":
        torch.cuda.synchronize()


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Within, a wait of Python's that lasts longer is a TimeoutError."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    main(__doc__ or "", "workers", measure, add_options)
