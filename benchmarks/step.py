"""A step of training with free data: contralex beside a bare loop, and beside lightly's modules under Lightning.

contralex runs as ``contralex.train`` does, with logging every tenth step and a plugin's hook after each. The networks,
batches and optimisers are the same on all sides. The tiny network shows what a framework costs; the ResNet-18 shows
what of that is left where a step is large.
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

import contralex
from benchmarks.measuring import OURS, Options, Peers, Report, compare, main
from benchmarks.ready import CLOCK, PERIOD, ReadyDataset

CODE = Path(__file__).resolve().with_name("ready_kinds.py")
TEMPERATURE, MOMENTUM, QUEUE, RATE = 0.1, 0.99, 1024, 0.01
RECIPE = """\
schema: 1
name: {method}
code: {code}
method:
  views: {{kind: ready}}
  encoder: {{kind: image, backbone: {backbone}, projector: [{{width: 64, activation: relu}}, {{width: 32}}]}}
  {slots}
  targets: instance
  loss: {{kind: info_nce, temperature: {temperature}}}
data: {{kind: ready, count: {count}, size: {size}}}
train:
  epochs: 1000000
  max_steps: {steps}
  batch_size: {batch}
  optimizer: {{kind: sgd, lr: {rate}}}
  workers: 0
  threads: {threads}
eval: {{knn: null}}
"""
SLOTS = {
    "simclr": "key_encoder: {kind: shared, gradient: true}\n  negatives: {kind: in_batch, views: all}\n"
    "  matches: every",
    "moco": f"key_encoder: {{kind: momentum, momentum: {MOMENTUM}}}\n"
    f"  negatives: {{kind: queue, size: {QUEUE}}}\n  matches: forward",
}


@dataclass(frozen=True)
class Task:
    """A method on a network, for so many steps."""

    name: str
    method: str
    backbone: str
    size: int
    batch: int
    steps: int

    @property
    def count(self) -> int:
        """Samples: enough for the queue, and whole batches of them."""
        return max(QUEUE, 2 * self.batch)


CONV = "{kind: conv, widths: [16, 32], strides: [2, 2]}"
RESNET = "{kind: torchvision, name: resnet18, stem: small}"


def measure(options: Options, report: Report, peers: Peers) -> None:
    steps = 12 if options.small else 200
    for method in ("simclr", "moco"):
        task = Task(f"tiny {method} step", method, CONV, 16, 32, steps)
        report.add(compare(task.name, sides(task, peers, options), options.rounds))
    if not options.small:
        task = Task("ResNet-18 simclr step", "simclr", RESNET, 32, 16, 8)
        report.add(compare(task.name, sides(task, peers, options), options.rounds))


def sides(task: Task, peers: Peers, options: Options) -> dict[str, Callable[[], float]]:
    found: dict[str, Callable[[], float]] = {OURS: lambda: ours(task), "bare loop": lambda: by_hand(task, options)}
    loss, lightning = peers.load("lightly.loss", "lightly"), peers.load("pytorch_lightning", "pytorch-lightning")
    if loss and lightning:
        from benchmarks.lightning import train

        found["lightly"] = lambda: train(task, encoder(task), options)
    return found


def recipe(task: Task) -> str:
    return RECIPE.format(
        **vars(task) | {"method": task.method, "slots": SLOTS[task.method]},
        count=task.count,
        temperature=TEMPERATURE,
        rate=RATE,
        threads=torch.get_num_threads(),  # as all sides have
        code=CODE,
    )


def ours(task: Task, sets: Mapping[str, Any] | None = None) -> float:
    """``sets``: what is different from the recipe of the task."""
    CLOCK.start(task.batch)
    train_text(recipe(task), sets)
    return CLOCK.seconds()


def train_text(text: str, sets: Mapping[str, Any] | None = None) -> None:
    """Trains a recipe, given as its text, without printing."""
    with tempfile.TemporaryDirectory() as name, redirect_stderr(StringIO()):
        file = Path(name, "task.yaml")
        file.write_text(text, "utf-8")
        contralex.train(file, out=Path(name, "run"), sets=dict(sets or {}), allow_code=True)


def encoder(task: Task) -> Any:
    """The network that contralex trains, with the same first weights."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name, "task.yaml")
        file.write_text(recipe(task), "utf-8")
        return contralex.build(file, dataset_size=task.count, allow_code=True).encoder


def by_hand(task: Task, options: Options, loader: Iterable[Any] | None = None) -> float:
    """The loop that one would write: a loader, the loss, SGD, and a line of JSON every tenth step.

    ``loader``: of pairs of views; without it, of free data.
    """
    CLOCK.start(task.batch)
    network: nn.Module = Network(encoder(task)).to(options.device)
    if CLOCK.channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE, momentum=0.9)
    loss = SimCLR(network) if task.method == "simclr" else MoCo(network, options.device)
    loader = loader or ready_loader(task)
    done, total = 0, torch.zeros((), device=options.device)
    with tempfile.TemporaryFile("w") as log:
        while done < task.steps:
            for views in loader:
                a, b = (view.to(options.device) for view in views)
                if CLOCK.channels_last:
                    a, b = (view.contiguous(memory_format=torch.channels_last) for view in (a, b))
                found = loss(a, b)
                found.backward()
                optimizer.step()
                optimizer.zero_grad()
                loss.update()
                total += found.detach()
                done += 1
                if done % PERIOD == 0:
                    log.write(json.dumps({"step": done, "loss": float(total) / PERIOD}) + "\n")
                    total.zero_()
                CLOCK.end_step()
                if done == task.steps:
                    break
    return CLOCK.seconds()


def ready_loader(task: Task) -> DataLoader[tuple[Tensor, Tensor]]:
    return DataLoader(ReadyDataset(task.count, task.size), task.batch, shuffle=True, drop_last=True)


class Network(nn.Module):
    """A contralex encoder as plain torch: images to unit vectors."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.backbone, self.projector = encoder.backbone, encoder.projector

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(self.projector(self.backbone(images).flatten(1)), dim=1)


class SimCLR:
    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        vectors = torch.cat([self.network(a), self.network(b)])
        scores = (vectors @ vectors.T / TEMPERATURE).fill_diagonal_(float("-inf"))
        return F.cross_entropy(scores, torch.arange(len(vectors), device=a.device).roll(len(a)))

    def update(self) -> None:
        pass


class MoCo:
    def __init__(self, network: nn.Module, device: str) -> None:
        self.network, self.twin = network, copy.deepcopy(network).requires_grad_(False)
        width = network.projector[-1].out_features  # type: ignore[union-attr, index]
        self.queue, self.at = F.normalize(torch.randn(QUEUE, width, device=device), dim=1), 0  # type: ignore[arg-type]

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        queries = self.network(a)
        with torch.no_grad():
            self.keys = self.twin(b)
        scores = torch.cat([(queries * self.keys).sum(dim=1, keepdim=True), queries @ self.queue.T], dim=1)
        return F.cross_entropy(scores / TEMPERATURE, torch.zeros(len(a), dtype=torch.long, device=a.device))

    @torch.no_grad()
    def update(self) -> None:
        for mine, theirs in zip(self.twin.parameters(), self.network.parameters(), strict=True):
            mine.mul_(MOMENTUM).add_(theirs, alpha=1 - MOMENTUM)
        self.queue[self.at : self.at + len(self.keys)] = self.keys
        self.at = (self.at + len(self.keys)) % QUEUE


if __name__ == "__main__":
    main(__doc__ or "", "step", measure)
