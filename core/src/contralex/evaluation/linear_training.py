"""The linear evaluation of a paper: classifiers trained by SGD on a frozen encoder, through random crops or without.

Several learning rates and weight decays are trained at once. Where there are several, each learns from nine tenths of
the training samples, the best on the last tenth is chosen, and its accuracy on the test split is the figure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice, product
from typing import Any

import torch
from torch import Tensor

from contralex import progress
from contralex.data.base import Split, Subset, as_tensor, compact
from contralex.data.loading import EpochSampler, Order, ViewDataset, collate, load
from contralex.data.views import Views
from contralex.errors import ContralexError, remedy
from contralex.evaluation.base import EvalContext, Measurement, Measures
from contralex.evaluation.encoding import evaluating
from contralex.evaluation.features import Features, Which, feature_function, labelled_splits, read_features
from contralex.evaluation.linear_protocols import LinearProtocol
from contralex.evaluation.sgd_probe import Probes, Schedule, Setting, SweepTrainer, train
from contralex.kinds.views.augment import Augment, Crop, Flip, Group, Normalize
from contralex.kinds.views.parts import CropViews
from contralex.lookup.slots import Encoder
from contralex.recipes.code_files import Portable
from contralex.recipes.run_spec import RunSpec

HELD_OUT = 0.1
_ROWS = 8192

Batches = Callable[[int], Iterator[tuple[Tensor, Tensor]]]


class LinearTraining(Measurement):
    """Linear classifiers by one of :data:`contralex.evaluation.linear_protocols.PROTOCOLS`.

    ``rates`` and ``decays``: others than the protocol's, of which all pairs are trained at once. ``epochs``: others
    than the protocol's; where the rate falls in steps, they move in proportion. ``crops``: whether the encoder sees a
    new random crop of each image in each epoch, as the papers have it, or the features of the plain images, once.
    """

    name = "linear"

    def __init__(
        self,
        protocol: LinearProtocol,
        rates: Sequence[float] = (),
        decays: Sequence[float] = (),
        epochs: int | None = None,
        crops: bool = True,
        features: Which = "backbone",
        seed: int = 0,
    ) -> None:
        self.protocol, self.crops, self.features, self.seed = protocol, crops, features, seed
        self.rates = tuple(rates) or (protocol.rate,)
        self.decays = tuple(decays) or (protocol.weight_decay,)
        rates_fit, decays_fit = all(0 < r < math.inf for r in self.rates), all(0 <= d < math.inf for d in self.decays)
        if not rates_fit or not decays_fit:
            raise ContralexError("rates are numbers above 0, and decays are 0 or above")
        self.epochs = protocol.epochs if epochs is None else epochs
        self.pairs = list(product(self.rates, self.decays))

    def measure(self, encoder: Encoder, context: EvalContext, run: RunSpec) -> Measures:
        everyone, test = labelled_splits(context.source)
        learned, held = self._divide(everyone)
        classes = as_tensor(everyone.labels or ()).unique()
        batch = min(self.protocol.batch_size, len(learned))
        scale = batch / 256 if self.protocol.scaled else 1.0
        settings = [Setting(rate * scale, decay) for rate, decay in self.pairs]
        tests = read_features(encoder, test, context, self.features, "eval linear")
        held_rows = None if held is None else read_features(encoder, held, context, self.features, "eval linear")
        trainer = self._trainer(settings, tests.width, len(classes), context.device)
        batches, steps, precision = self._batches(encoder, learned, context, batch, classes)
        schedule = self._schedule()
        with progress.during("Training linear classifiers", self.epochs) as done:
            probes = train(trainer, batches, self.epochs, steps, schedule, done)
        accuracy = _accuracies(probes, tests, classes)  # (S, 2)
        chosen, details = 0, {}
        if held_rows is not None:
            on_held = _accuracies(probes, held_rows, classes)[:, 0]
            chosen = int(on_held.argmax())
            details = {"settings": self._table(accuracy, on_held)}
        first, five = accuracy[chosen].tolist()
        rate, decay = self.pairs[chosen]
        said = {
            **self.protocol.describe(),
            ("rate_per_256_samples" if self.protocol.scaled else "rate"): rate,
            "weight_decay": decay,
            **({"milestones": list(schedule.milestones)} if schedule.kind == "steps" else {}),
            "epochs": self.epochs,
            "batch_size": batch,
            "crops": self._describe_crops(context.views) if self.crops else "none: features of the plain images",
            "seed": self.seed,
            "features": self.features,
            "classes": len(classes),
            "train_samples": len(learned),
            "test_samples": tests.total,
            **precision,
        }
        if len(self.pairs) > 1:
            held_count = 0 if held_rows is None else held_rows.total
            said["chosen"] = f"of {len(self.pairs)} settings on {held_count:,} held-out training samples"
        return Measures({"top1": first, "top5": five}, said, details)

    def sentence(self, figures: Mapping[str, Any], protocol: Mapping[str, Any]) -> str:
        per = " per 256 samples" if "rate_per_256_samples" in protocol else ""
        rate = protocol["rate_per_256_samples" if per else "rate"]
        how = (
            f"{protocol['epochs']} epochs, batches of {protocol['batch_size']:,}, learning rate {rate:g}{per}, "
            f"weight decay {protocol['weight_decay']:g}, crops: {protocol['crops']}"
        )
        return (
            f"Linear classifier on {protocol['features']} features as {protocol['protocol']} ({how}): "
            f"top-1 {figures['top1']:.1%}, top-5 {figures['top5']:.1%}, {protocol['train_samples']:,} to learn from, "
            f"{protocol['test_samples']:,} to evaluate on"
        )

    def _divide(self, split: Split) -> tuple[Split, Split | None]:
        """What is learned from, and what one of several settings is chosen on."""
        if len(self.pairs) == 1:
            return split, None
        count = max(round(HELD_OUT * len(split)), 1)
        if count >= len(split):
            raise ContralexError("several settings need two labelled training images or more, one of them to choose by")
        order = torch.randperm(len(split), generator=torch.Generator().manual_seed(self.seed))
        parts = (order[count:], order[:count])
        learned, held = (Subset(split, compact(part.sort().values.tolist())) for part in parts)
        return learned, held

    def _trainer(self, settings: Sequence[Setting], width: int, classes: int, device: torch.device) -> SweepTrainer:
        protocol = self.protocol
        return SweepTrainer(
            settings,
            width,
            classes,
            momentum=protocol.momentum,
            nesterov=protocol.nesterov,
            trust=protocol.trust,
            decay_bias=protocol.decay_bias,
            trust_bias=protocol.trust_bias,
            normalize=protocol.normalize,
            init_std=protocol.init_std,
            seed=self.seed,
            device=device,
        )

    def _schedule(self) -> Schedule:
        protocol, ratio = self.protocol, self.epochs / self.protocol.epochs
        return Schedule(
            protocol.schedule,
            tuple(round(milestone * ratio) for milestone in protocol.milestones),
            round(protocol.warmup_epochs * ratio),
            protocol.per,
        )

    def _batches(
        self, encoder: Encoder, split: Split, context: EvalContext, batch: int, classes: Tensor
    ) -> tuple[Batches, int, dict[str, str]]:
        """Those of an epoch, how many there are, and what is to be said of their precision."""
        if self.crops:
            return *self._crop_batches(encoder, split, context, batch, classes), {}
        rows = read_features(encoder, split, context, self.features, "eval linear")
        batch = min(batch, len(rows))
        order = Order(len(rows), batch, self.seed)
        targets = torch.searchsorted(classes.to(rows.device), rows.labels)

        def epoch_batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
            shuffled = order.of(epoch)
            for step in range(order.steps):
                some = shuffled[step * batch : (step + 1) * batch]
                yield rows[some], targets[some.to(targets.device)]

        return epoch_batches, order.steps, rows.precision()

    def _crop_batches(
        self, encoder: Encoder, split: Split, context: EvalContext, batch: int, classes: Tensor
    ) -> tuple[Batches, int]:
        views = CropViews({"crops": Group(count=1, augment=self._augment(context.views))})
        sampler = EpochSampler(len(split), batch, self.seed, self.epochs)
        loaded = load(
            Portable(ViewDataset(split, views, self.seed, batch, twice=True)),
            collate,
            batch_sampler=sampler,
            num_workers=context.workers,
        )
        labels = torch.searchsorted(classes, as_tensor(split.labels or ()))
        function = feature_function(encoder, self.features)

        def epoch_batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
            for made in islice(loaded, sampler.order.steps):
                for path, reason in made["unreadable"].items():
                    split.skip(path, reason)
                with evaluating(function), torch.no_grad():
                    features = function(made["views"][0].to(context.device)).float()
                yield features, labels[made["index"]].to(context.device)

        return epoch_batches, sampler.order.steps

    def _augment(self, views: Views) -> Augment:
        seen = views.preprocessing()
        if seen is None:
            raise ContralexError(
                f"protocol {self.protocol.name}: its random crops are for encoders of RGB images, and the views of "
                f"this run, {type(views).__name__}, give something else. Take the plain images:{remedy('--no-crops')}"
            )
        crop = Crop(
            size=seen.crop, scale=(0.08, 1.0), interpolation=self.protocol.interpolation, drawn=self.protocol.crop
        )
        return Augment(
            order=("crop", "flip"), crop=crop, flip=Flip(), normalize=Normalize(mean=seen.mean, std=seen.std)
        )

    def _describe_crops(self, views: Views) -> str:
        crop = self._augment(views).crop
        law = "area" if crop.drawn == "area" else "height, as TensorFlow draws it"
        return f"8 to 100 % of the {law}, {crop.size} px, {crop.interpolation}, flips"

    def _table(self, accuracy: Tensor, on_held: Tensor) -> list[dict[str, float]]:
        return [
            {"rate": rate, "weight_decay": decay, "held_out_top1": held, "top1": first, "top5": five}
            for (rate, decay), held, (first, five) in zip(self.pairs, on_held.tolist(), accuracy.tolist(), strict=True)
        ]


def _accuracies(probes: Probes, features: Features, classes: Tensor) -> Tensor:
    """(S, 2) top-1 and top-5. A class that was not learned is never found."""
    known = classes.to(features.device)
    hits: Tensor = torch.zeros(len(probes.bias), 2, dtype=torch.long, device=probes.bias.device)
    for rows, labels in features.blocks(max(_ROWS // len(probes.bias), 1)):
        at = torch.searchsorted(known, labels).clamp(max=len(known) - 1)
        target = torch.where(known[at] == labels, at, torch.full_like(at, -1))
        hits += probes.hits(rows, target)
    return hits.cpu().double() / features.total
