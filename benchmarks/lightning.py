"""lightly's modules under Lightning, as its documentation writes them, on the task of :mod:`benchmarks.step`."""

from __future__ import annotations

import copy
import logging
import tempfile
import warnings
from collections.abc import Iterable
from typing import Any

import pytorch_lightning as lightning
import torch
from lightly.loss import NTXentLoss
from lightly.models.utils import deactivate_requires_grad, update_momentum
from torch import Tensor

from benchmarks.measuring import Options
from benchmarks.ready import CLOCK, PERIOD
from benchmarks.step import MOMENTUM, QUEUE, RATE, TEMPERATURE, Network, Task, ready_loader

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)


class Module(lightning.LightningModule):  # type: ignore[misc]
    def __init__(self, task: Task, encoder: Any) -> None:
        super().__init__()
        self.is_moco = task.method == "moco"
        self.network = Network(encoder)
        bank = (QUEUE, encoder.dim) if self.is_moco else 0
        self.loss = NTXentLoss(temperature=TEMPERATURE, memory_bank_size=bank)
        if self.is_moco:
            self.twin = copy.deepcopy(self.network)
            deactivate_requires_grad(self.twin)

    def training_step(self, views: tuple[Tensor, Tensor], number: int) -> Tensor:
        a, b = views
        if self.is_moco:
            update_momentum(self.network, self.twin, MOMENTUM)
            with torch.no_grad():
                keys = self.twin(b)
            loss = self.loss(self.network(a), keys)
        else:
            loss = self.loss(self.network(a), self.network(b))
        self.log("loss", loss)
        return loss  # type: ignore[no-any-return]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return torch.optim.SGD(trained, lr=RATE, momentum=0.9)


class EndOfStep(lightning.Callback):  # type: ignore[misc]
    def on_train_batch_end(self, *_: Any) -> None:
        CLOCK.end_step()


def train(task: Task, encoder: Any, options: Options, loader: Iterable[Any] | None = None) -> float:
    """The seconds of a step. Lean: no progress bar, no checkpoint, no sanity check; a line of CSV every tenth step.

    ``loader``: of pairs of views; without it, of free data.
    """
    CLOCK.start(task.batch)
    loader = loader or ready_loader(task)
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            accelerator="gpu" if options.device == "cuda" else "cpu",
            devices=1,
            max_steps=task.steps,
            logger=lightning.loggers.CSVLogger(name),
            log_every_n_steps=PERIOD,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[EndOfStep()],
            default_root_dir=name,
        )
        trainer.fit(Module(task, encoder), loader)
    return CLOCK.seconds()
