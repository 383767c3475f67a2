"""Checkpoints of MoCo v2 on a ResNet-50, about 370 MB: encoder, momentum encoder, queue, and SGD's momentum.

Saving is what a run does: it looks whether every number is finite, writes two safetensors files, hashes them, waits for
the disk, and renames the folder. Beside it stands ``torch.save`` of the same tensors, with fsync. Loading is of what
evaluation and ``init`` take of a checkpoint, the query encoder; the model's file is compared with its hash. Beside it
stands ``torch.load`` of the whole file. Files are read from the system's memory, not from the disk.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmarks.measuring import OURS, Options, Peers, Report, compare, compare_calls, main, time_calls
from contralex import load_backbone
from contralex.lookup import sharded_state
from contralex.recipes.layers import Resolved, resolve
from contralex.training import build, health, optimizers
from contralex.training.checkpoints import write
from contralex.training.checkpoints.manifest import MODEL
from contralex.training.checkpoints.read import open_checkpoint
from contralex.training.checkpoints.state import CheckpointState

SMALL = ("method.encoder.backbone={kind: torchvision, name: resnet18}", "method.negatives.size=1024")
SAMPLES = 1_281_167  # ImageNet's, which the queue is to be smaller than
NUMBERS = count(1)


class Trained:
    """A method, and an optimiser that has taken a step."""

    def __init__(self, resolved: Resolved) -> None:
        self.resolved = resolved
        self.method: nn.Module = build.look_up(resolved.run, SAMPLES)
        self.optimizer: Optimizer = optimizers.build(resolved.run.train.optimizer, self.method)
        for parameter in self.method.parameters():
            parameter.grad = torch.full_like(parameter, 1e-3) if parameter.requires_grad else None
        self.optimizer.step()
        self.optimizer.zero_grad()

    def save(self, folder: Path) -> Path:
        """As :meth:`contralex.training.loop.TrainingLoop.save`, on one process."""
        tensors = sharded_state.gather_state(self.method)
        if health.blown_up(tensors) or health.blown_up(write.flatten_optimizer(self.optimizer)[0]):
            raise AssertionError("the weights are finite")
        return self.write(folder, tensors)

    def write(self, folder: Path, tensors: dict[str, Tensor]) -> Path:
        return write.save(folder, CheckpointState.make(self.resolved, 1), tensors, self.optimizer)

    def torch_save(self, path: Path) -> None:
        with path.open("wb") as file:
            torch.save({"model": self.method.state_dict(), "optimizer": self.optimizer.state_dict()}, file)
            file.flush()
            os.fsync(file.fileno())


def measure(options: Options, report: Report, peers: Peers) -> None:
    trained = Trained(resolve("moco-v2", sets=SMALL if options.small else ()))
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        checkpoint, file = trained.save(root), root / "torch.pt"
        trained.torch_save(file)
        size = f"{sum(each.stat().st_size for each in checkpoint.iterdir()) / 1e6:.0f} MB"
        report.add(compare(f"save a checkpoint of {size}", saves(trained, root), options.rounds))
        report.add(compare_calls(f"the encoder's tensors of {size}", tensors(checkpoint, file), options))
        network = "resnet18" if options.small else "resnet50"
        report.add(compare_calls(f"a backbone with weights of {size}", backbones(checkpoint, file, network), options))


def saves(trained: Trained, root: Path) -> dict[str, Callable[[], float]]:
    state = trained.method.state_dict()
    return {
        OURS: lambda: seconds(trained.save, root),
        "contralex, the files alone": lambda: seconds(partial(trained.write, tensors=state), root),
        "torch.save + fsync": lambda: seconds(lambda folder: trained.torch_save(folder / "torch.pt"), root),
    }


def seconds(save: Callable[[Path], object], root: Path) -> float:
    """In a folder of its own, whose removal is not timed. What the system has yet to write is written before."""
    folder = root / f"save-{next(NUMBERS)}"
    folder.mkdir()
    os.sync()
    try:
        return time_calls(lambda: save(folder), 1, "cpu")
    finally:
        shutil.rmtree(folder)


def tensors(checkpoint: Path, file: Path) -> dict[str, Callable[[], object]]:
    """What ``init`` reads of a checkpoint."""
    return {
        OURS: lambda: open_checkpoint(checkpoint, [MODEL]).tensors(prefix="encoder."),
        "torch.load of all": lambda: load(file),
    }


def backbones(checkpoint: Path, file: Path, network: str) -> dict[str, Callable[[], object]]:
    start = "encoder.backbone."

    def by_hand() -> nn.Module:
        made: nn.Module = getattr(torchvision.models, network)(weights=None)
        made.fc = nn.Identity()
        stored = load(file)["model"].items()
        made.load_state_dict({name.removeprefix(start): tensor for name, tensor in stored if name.startswith(start)})
        return made

    return {OURS: lambda: load_backbone(checkpoint), "torch.load, torchvision": by_hand}


def load(file: Path) -> Any:
    return torch.load(file, weights_only=True)


if __name__ == "__main__":
    main(__doc__ or "", "checkpoint", measure)
