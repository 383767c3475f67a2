"""lightly's modules, losses, transforms and optimisers under Lightning, as in its own benchmark of CIFAR-10.

Its ``MoCo`` has neither BatchNorm in parts nor a shuffle here, because the network is the one that contralex trains.
"""

from __future__ import annotations

import copy
import logging
import time
import warnings
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
from lightly import loss as losses
from lightly import transforms
from lightly.data import LightlyDataset
from lightly.models.modules import NNMemoryBankModule, heads
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.utils.lars import LARS
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

import contralex
from benchmarks.cifar import METHODS, Form, Job, settings
from contralex.evaluation.knn import weighted_knn

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
Pairs = list[Tensor]
EMA = 0.99


class Method(lightning.LightningModule):  # type: ignore[misc]
    """What the methods share: a backbone, a loss of its views, and the optimiser of the benchmark."""

    moving: tuple[str, ...] = ()
    """The modules that have a moving average, whose name ends in ``_momentum``."""

    def __init__(self, backbone: nn.Module, width: int, form: Form) -> None:
        super().__init__()
        self.backbone, self.form = backbone, form
        self.build(width)
        for name in self.moving:
            twin = self.twin(name)
            deactivate_requires_grad(twin)
            setattr(self, f"{name}_momentum", twin)

    def build(self, width: int) -> None:
        raise NotImplementedError

    def twin(self, name: str) -> nn.Module:
        """A copy of the module of this name."""
        return copy.deepcopy(getattr(self, name))  # type: ignore[no-any-return]

    def measure(self, views: Pairs) -> Tensor:
        """The loss of the views of a batch."""
        raise NotImplementedError

    def features(self, images: Tensor) -> Tensor:
        return self.backbone(images).flatten(1)  # type: ignore[no-any-return]

    def momentum_features(self, images: Tensor) -> Tensor:
        return self.backbone_momentum(images).flatten(1)  # type: ignore[no-any-return, operator]

    def training_step(self, batch: Any, number: int) -> Tensor:
        for name in self.moving:
            update_momentum(getattr(self, name), getattr(self, f"{name}_momentum"), EMA)
        found = self.measure(batch[0])
        self.log("loss", found)
        return found

    def trained(self) -> list[Tensor]:
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.trained(), lr=0.06 * self.form.batch / 128, momentum=0.9, weight_decay=5e-4)

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer()
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.form.epochs)]


class SimCLR(Method):
    def build(self, width: int) -> None:
        self.head = heads.SimCLRProjectionHead(width, 512, 128, batch_norm=False)
        self.loss = losses.NTXentLoss(temperature=0.5)

    def measure(self, views: Pairs) -> Tensor:
        a, b = (self.head(self.features(view)) for view in views)
        return self.loss(a, b)  # type: ignore[no-any-return]


class MoCo(Method):
    moving = ("backbone", "head")

    def build(self, width: int) -> None:
        self.head = heads.MoCoProjectionHead(width, 512, 128)
        self.loss = losses.NTXentLoss(temperature=0.1, memory_bank_size=(self.form.memory, 128))

    def measure(self, views: Pairs) -> Tensor:
        def one_way(query: Tensor, key: Tensor) -> Tensor:
            with torch.no_grad():
                keys = self.head_momentum(self.momentum_features(key))  # type: ignore[operator]
            return self.loss(self.head(self.features(query)), keys)  # type: ignore[no-any-return]

        return 0.5 * (one_way(views[0], views[1]) + one_way(views[1], views[0]))


class BYOL(Method):
    moving = ("backbone", "head")

    def build(self, width: int) -> None:
        self.head = heads.BYOLProjectionHead(width, 1024, 256)
        self.predictor = heads.BYOLPredictionHead(256, 1024, 256)
        self.loss = losses.NegativeCosineSimilarity()

    def measure(self, views: Pairs) -> Tensor:
        p0, p1 = (self.predictor(self.head(self.features(view))) for view in views)
        with torch.no_grad():
            z0, z1 = (self.head_momentum(self.momentum_features(view)) for view in views)  # type: ignore[operator]
        return 0.5 * (self.loss(p0, z1) + self.loss(p1, z0))  # type: ignore[no-any-return]


class SimSiam(Method):
    def build(self, width: int) -> None:
        self.head = heads.ProjectionHead(
            [(width, 2048, nn.BatchNorm1d(2048), nn.ReLU()), (2048, 2048, nn.BatchNorm1d(2048), None)]
        )
        self.predictor = heads.SimSiamPredictionHead(2048, 512, 2048)
        self.loss = losses.NegativeCosineSimilarity()

    def measure(self, views: Pairs) -> Tensor:
        z0, z1 = (self.head(self.features(view)) for view in views)
        p0, p1 = self.predictor(z0), self.predictor(z1)
        return 0.5 * (self.loss(z0.detach(), p1) + self.loss(z1.detach(), p0))  # type: ignore[no-any-return]

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.trained(), lr=0.06, momentum=0.9, weight_decay=5e-4)


class SwAV(Method):
    def build(self, width: int) -> None:
        self.head = heads.SwaVProjectionHead(width, 512, 128)
        self.prototypes = heads.SwaVPrototypes(128, 512)
        self.loss = losses.SwaVLoss()

    def measure(self, views: Pairs) -> Tensor:
        self.prototypes.normalize()
        scores = [self.prototypes(F.normalize(self.head(self.features(view)), dim=1)) for view in views]
        return self.loss(scores, [])  # type: ignore[no-any-return]

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.trained(), lr=1e-3 * self.form.batch / 128, weight_decay=1e-6)


class BarlowTwins(Method):
    def build(self, width: int) -> None:
        self.head = heads.ProjectionHead([(width, 2048, nn.BatchNorm1d(2048), nn.ReLU()), (2048, 2048, None, None)])
        self.loss = losses.BarlowTwinsLoss()

    def measure(self, views: Pairs) -> Tensor:
        a, b = (self.head(self.features(view)) for view in views)
        return self.loss(a, b)  # type: ignore[no-any-return]


class VICReg(Method):
    """In the setting of solo-learn, as lightly's benchmark has none."""

    def build(self, width: int) -> None:
        blocks: list[Any] = [(width, 2048, nn.BatchNorm1d(2048), nn.ReLU(), True)]
        blocks += [(2048, 2048, nn.BatchNorm1d(2048), nn.ReLU(), True), (2048, 2048, None, None)]
        self.head = heads.ProjectionHead(blocks)
        self.loss = losses.VICRegLoss()

    def measure(self, views: Pairs) -> Tensor:
        a, b = (self.head(self.features(view)) for view in views)
        return self.loss(a, b)  # type: ignore[no-any-return]

    def configure_optimizers(self) -> Any:
        flat = [parameter for parameter in self.parameters() if parameter.dim() <= 1]
        whole = [parameter for parameter in self.parameters() if parameter.dim() > 1]
        groups = [{"params": whole}, {"params": flat, "weight_decay": 0.0}]
        rate = 0.3 * self.form.batch / 256
        optimizer = LARS(groups, lr=rate, momentum=0.9, weight_decay=1e-4, trust_coefficient=0.02)
        steps = int(self.trainer.estimated_stepping_batches)
        warmup = max(1, int(steps * min(10, self.form.epochs / 10) / self.form.epochs))
        first = torch.optim.lr_scheduler.LinearLR(optimizer, 1e-4, total_iters=warmup)
        second = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps - warmup))
        both = torch.optim.lr_scheduler.SequentialLR(optimizer, [first, second], [warmup])
        return [optimizer], [{"scheduler": both, "interval": "step"}]


class DINO(Method):
    moving = ("backbone", "head")

    def build(self, width: int) -> None:
        self.width = width
        self.head = self.make_head()
        self.loss = losses.DINOLoss(output_dim=2048)

    def make_head(self) -> nn.Module:
        head = heads.DINOProjectionHead(self.width, 2048, 256, 2048, batch_norm=True)
        two = [(self.width, 2048, nn.BatchNorm1d(2048), nn.GELU()), (2048, 256, None, None)]
        head.layers = heads.ProjectionHead(two).layers  # two layers are enough for small images
        return head  # type: ignore[no-any-return]

    def twin(self, name: str) -> nn.Module:
        if name == "backbone":
            return super().twin(name)
        head = self.make_head()  # weight normalisation cannot be copied once it was used
        head.load_state_dict(self.head.state_dict())
        return head

    def measure(self, views: Pairs) -> Tensor:
        with torch.no_grad():
            teacher = [self.head_momentum(self.momentum_features(view)) for view in views[:2]]  # type: ignore[operator]
        student = [self.head(self.features(view)) for view in views]
        return self.loss(teacher, student, epoch=self.current_epoch)  # type: ignore[no-any-return]


class NNCLR(Method):
    def build(self, width: int) -> None:
        self.head = heads.ProjectionHead(
            [(width, 2048, nn.BatchNorm1d(2048), nn.ReLU()), (2048, 256, nn.BatchNorm1d(256), None)]
        )
        self.predictor = heads.NNCLRPredictionHead(256, 4096, 256)
        self.loss = losses.NTXentLoss(temperature=0.5)
        self.memory = NNMemoryBankModule(size=(self.form.memory, 256))

    def measure(self, views: Pairs) -> Tensor:
        z0, z1 = (self.head(self.features(view)) for view in views)
        p0, p1 = self.predictor(z0), self.predictor(z1)
        n0, n1 = self.memory(z0.detach(), update=False), self.memory(z1.detach(), update=True)
        return 0.5 * (self.loss(n0, p1) + self.loss(n1, p0))  # type: ignore[no-any-return]


CLASSES: dict[str, type[Method]] = {
    "simclr": SimCLR,
    "moco": MoCo,
    "byol": BYOL,
    "simsiam": SimSiam,
    "swav": SwAV,
    "barlow": BarlowTwins,
    "vicreg": VICReg,
    "dino": DINO,
    "nnclr": NNCLR,
}


def views_of(method: str) -> Callable[[Any], Pairs]:
    if method == "swav":
        return transforms.SwaVTransform(  # type: ignore[no-any-return]
            crop_sizes=(32,), crop_counts=(2,), crop_min_scales=(0.14,), crop_max_scales=(1.0,), gaussian_blur=0.0
        )
    if method == "dino":
        return transforms.DINOTransform(global_crop_size=32, n_local_views=0, gaussian_blur=(0.0, 0.0, 0.0))  # type: ignore[no-any-return]
    if method == "vicreg":
        return transforms.VICRegTransform(input_size=32, min_scale=0.2, gaussian_blur=0.0)  # type: ignore[no-any-return]
    return transforms.SimCLRTransform(input_size=32, cj_strength=0.5, gaussian_blur=0.0)  # type: ignore[no-any-return]


class Plain(Dataset[Tensor]):
    """The images of a split as they are evaluated."""

    def __init__(self, split: Any, plain: Callable[[Any], Tensor]) -> None:
        self.split, self.plain = split, plain

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Tensor:
        return self.plain(self.split[index])


class Evaluation(lightning.Callback):  # type: ignore[misc]
    """kNN every few epochs, and the minutes of training until then."""

    def __init__(self, splits: tuple[Any, Any], plain: Callable[[Any], Tensor], form: Form, workers: int) -> None:
        self.splits, self.plain, self.form, self.workers = splits, plain, form, workers
        self.every = max(1, form.epochs // form.points)
        self.seconds, self.began = 0.0, 0.0
        self.points: list[dict[str, float]] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        self.began = time.perf_counter()

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        self.seconds += time.perf_counter() - self.began
        epoch = trainer.current_epoch + 1
        if epoch % self.every == 0 or epoch == self.form.epochs:
            self.points.append({"epoch": epoch, "minutes": self.seconds / 60, "top1": self.top1(module)})

    @cached_property
    def images(self) -> list[Tensor]:
        """Of both splits, read once."""
        loaders = [DataLoader(Plain(split, self.plain), 500, num_workers=self.workers) for split in self.splits]
        return [torch.cat(list(loader)) for loader in loaders]

    @torch.no_grad()
    def top1(self, module: Any) -> float:
        module.eval()
        features = []
        for images in self.images:
            rows = [module.features(part.to(module.device)).float().cpu() for part in images.split(500)]
            features.append(torch.cat(rows))
        module.train()
        labels = [torch.tensor(list(split.labels)) for split in self.splits]
        classes = 1 + int(max(each.max() for each in labels))
        found = weighted_knn(features[0], labels[0], features[1], labels[1], self.form.k, 0.1, classes)
        return float(found["top1"])


def train(job: Job, form: Form, data: Path) -> list[dict[str, float]]:
    """The points of one run."""
    lightning.seed_everything(job.seed)
    resolved = contralex.resolve(METHODS[job.method], preset="cifar", data=data, sets=settings(job, form))
    encoder = resolved.run.method.encoder.build()
    source, views = resolved.run.data.build(), resolved.run.method.views.build()
    module = CLASSES[job.method](encoder.backbone, encoder.feature_dim, form)
    files = LightlyDataset(str(data / "train"), transform=views_of(job.method))
    workers = resolved.run.train.workers or torch.get_num_threads()  # faster than half of them, on two cores
    loader = DataLoader(files, form.batch, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=True)
    evaluation = Evaluation((source.train(), source.test()), views.plain, form, workers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lightning.Trainer(
            max_epochs=form.epochs,
            precision="bf16-mixed" if form.precision == "bf16" else "32-true",
            accelerator="auto",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[evaluation],
        ).fit(module, loader)
    return evaluation.points
