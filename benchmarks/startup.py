"""What one waits for before anything happens: commands that only answer, and the first step of a training."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.measuring import OURS, Options, Peers, Report, compare, main

COMMANDS = ("--help", "methods", "show moco-v2")
FIRST_STEP = """
import contralex
contralex.train("moco-v2", preset="digits", out={out!r}, sets={{"train.max_steps": 1, "eval.knn": None,
    "train.workers": 0}})
"""
PLAIN = """
import torch
import torchvision
from torch.nn import functional as F
network = torchvision.models.resnet18(num_classes=128)
optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
a, b = (F.normalize(network(torch.rand(64, 3, 32, 32)), dim=1) for _ in range(2))
F.cross_entropy(a @ b.T / 0.1, torch.arange(64)).backward()
optimizer.step()
"""


def measure(options: Options, report: Report, peers: Peers) -> None:
    for words in COMMANDS[:1] if options.small else COMMANDS:
        sides: dict[str, Callable[[], float]] = {OURS: lambda words=words: seconds([*contralex(), *words.split()])}  # type: ignore[misc]
        command = Path(sys.executable).with_name("lightly-ssl-train")
        if words == "--help" and peers.load("lightly", "lightly") and command.exists():
            sides["lightly"] = partial(seconds, [str(command), "--help"])
        report.add(compare(f"contralex {words}", sides, options.rounds))
    rounds = 1 if options.small else options.rounds
    report.add(compare("a process that takes one step", {OURS: first_step, "plain script": plain}, rounds))


def contralex() -> list[str]:
    return [sys.executable, "-m", "contralex"]


def first_step() -> float:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        return seconds([sys.executable, "-c", FIRST_STEP.format(out=str(Path(name, "run")))])


def plain() -> float:
    return seconds([sys.executable, "-c", PLAIN])


def seconds(command: list[str]) -> float:
    """With Python's bytecode on disk, as pip leaves it: without it every module is compiled at each start."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - began


if __name__ == "__main__":
    main(__doc__ or "", "startup", measure)
