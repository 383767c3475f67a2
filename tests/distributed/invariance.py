"""What several processes must reproduce of one: a few real steps of a method, from the data's order to its state.

Used by the tests and by ``python -m benchmarks.invariance``, which makes the table of differences.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from contralex import compat
from contralex.data.loading import EpochSampler, ViewDataset, collate
from contralex.lookup import batch_norm, distributed
from contralex.lookup.clock import Clock
from contralex.lookup.values import Step
from contralex.lookup.view import pixels_of
from contralex.recipes.layers import Resolved, resolve
from contralex.recipes.run_spec import RunSpec
from contralex.training import build, optimizers
from contralex_cpc.sequences import write_tiny
from tests.margins import undecided
from tests.processes import free_port, join, spawn

B, STEPS, FIRST = 16, 4, 20  # the first step is late enough for schedules to have begun, and prototypes to thaw
_CONV = "method.encoder.backbone={kind: conv, widths: [8, 12], strides: [2, 2]}"
_TOWER = "method.encoder.towers.image.backbone={kind: conv, widths: [8, 12], strides: [2, 2]}"
_VIT = "method.encoder.backbone={kind: vit, image_size: 32, patch: 4, width: 16, depth: 1, heads: 2}"
_SYNC = "train.batch_norm=sync"
# Where weights are moved by gradient/|gradient|, as Adam's first steps do, rounding decides the sign of a gradient that
# is zero but for rounding; so methods with Adam are compared under SGD here. The rate is low, as later steps multiply
# what rounding does to one.
_SGD = "train.optimizer={kind: sgd, lr: 0.005}"
_SGD_OF_A_SUM = "train.optimizer={kind: sgd, lr: 0.0025}"  # a loss that adds two directions takes the same steps so
_TOWERS = tuple(
    f"method.encoder.towers.{name}.backbone={{kind: conv, widths: [8, 12], strides: [2, 2], channels: {channels}}}"
    for name, channels in (("l", 1), ("ab", 2))
)
Case = tuple[str, tuple[str, ...]]
_CLASSIFIER = (
    _CONV,
    _SGD,
    "method.encoder.projector=[{width: 32, norm: batch, activation: relu}, {width: 10}]",
    "method.encoder.normalize=false",
    "method.negatives={kind: classes, count: 10}",
    "method.matches=self",
)

_SMALL_VIT = (
    "method.encoder.backbone={kind: vit, image_size: 32, patch: 8, width: 16, depth: 1, heads: 2, any_size: true, "
    "mask_token: true}"
)
METHODS: dict[str, Case] = {
    "instdisc": ("instdisc", (_CONV, _SYNC, "method.negatives.draws=16")),
    "instdisc-cifar": ("instdisc-cifar", (_CONV, _SYNC)),
    "moco-v1": ("moco-v1", (_CONV, _SYNC, _SGD, "method.negatives.size=24")),
    "moco-v2": ("moco-v2", (_CONV, _SYNC, _SGD, "method.negatives.size=24")),
    "moco-v2, BatchNorm in groups of 4, shuffled": (
        "moco-v2",
        (_CONV, _SGD, "train.batch_norm=4", "method.negatives.size=24"),
    ),
    "moco-v2 with KoLeo": (
        "moco-v2",
        (
            *(_CONV, _SYNC, _SGD, "method.negatives.size=24"),
            "method.look_ups.koleo={negatives: none, targets: key_vector, loss: koleo, matches: forward, weight: 0.1}",
        ),
    ),
    "densecl": (
        "densecl",
        (_CONV, _SYNC, _SGD, "method.negatives.size=24", "method.look_ups.dense.negatives.size=24"),
    ),
    "densecl, BatchNorm in groups of 4, shuffled": (
        "densecl",
        (_CONV, _SGD, "train.batch_norm=4", "method.negatives.size=24", "method.look_ups.dense.negatives.size=24"),
    ),
    "simclr-v1 with a look-up of places": (
        "simclr-v1",
        (
            *(_CONV, _SGD_OF_A_SUM),
            "method.encoder.outputs={map: {reads: places}, dense: {reads: places, projector: [{width: 8}]}}",
            "method.look_ups.dense={of: dense, negatives: {kind: in_batch, views: matched}, "
            "targets: {kind: best_place, match: map}, loss: {kind: info_nce, temperature: 0.5}, matches: every}",
        ),
    ),
    "moco-v3": ("moco-v3", (_CONV, _SGD)),
    "moco-v3-vit": ("moco-v3-vit", (_VIT, _SGD)),
    "dino": ("dino", (_CONV, "method.negatives.count=10", "method.negatives.gain=trained")),
    "ibot": (
        "ibot",
        (
            *(_SMALL_VIT, _SGD, "method.encoder.projector=[{width: 16, activation: gelu}, {width: 8}]"),
            *("method.negatives.count=10", "method.negatives.gain=trained"),
        ),
    ),
    "dinov2": (
        "dinov2",
        (
            *(
                "method.encoder.backbone={kind: vit, image_size: 32, patch: 8, width: 16, depth: 1, heads: 2, "
                "any_size: true, mask_token: true, layer_scale: 0.5}",
                "train.optimizer={kind: sgd, lr: 1e-4}",
                "method.encoder.projector=[{width: 16, activation: gelu}, {width: 8}]",
            ),
            "method.encoder.outputs.patches.projector=[{width: 16, activation: gelu}, {width: 6}]",
            *("method.negatives.count=10", "method.look_ups.patches.negatives.count=10"),
        ),
    ),
    **{name: (name, ()) for name in ("dinov2-vits14", "dinov2-vitb14", "dinov2-vitg14", "dinov2-high-resolution")},
    "dino-resnet50": ("dino-resnet50", (_CONV, "method.negatives.count=10")),
    "simclr-v1": ("simclr-v1", (_CONV, _SGD_OF_A_SUM)),
    "simclr-v2": ("simclr-v2", (_CONV, _SGD_OF_A_SUM)),
    "simclr-v2-memory": ("simclr-v2-memory", (_CONV, "method.negatives.size=24")),
    "a classifier on labels": (
        "simclr-v2",
        (
            *_CLASSIFIER,
            "method.key_encoder={kind: shared, gradient: false}",
            "method.targets=class_label",
            "method.loss={kind: info_nce, temperature: 1}",
            "data={kind: labelled, of: digits, share: 0.1}",
        ),
    ),
    "a classifier on what a teacher is sure of": (
        "simclr-v2",
        (
            *_CLASSIFIER,
            "method.key_encoder={kind: frozen, checkpoint: null}",
            "method.targets={kind: teacher_logits, temperature: 0.5, threshold: 0.15}",
            "method.loss={kind: soft_cross_entropy, temperature: 0.5}",
        ),
    ),
    "a classifier on labels and on a teacher": (
        "simclr-v2",
        (
            *_CLASSIFIER,
            "method.key_encoder={kind: frozen, checkpoint: null}",
            "method.targets={kind: teacher_logits, temperature: 0.5}",
            "method.loss={kind: soft_cross_entropy, temperature: 0.5}",
            "method.weight=0.6",
            "method.look_ups.labels={negatives: borrowed, targets: {kind: class_label, share: 0.3}, weight: 0.4, "
            "loss: {kind: soft_cross_entropy, temperature: 1}, matches: self}",
        ),
    ),
    "cpc": ("cpc", (_SGD, _SYNC)),
    "cpc-v2": ("cpc-v2", (_SGD,)),
    "cpc-audio": ("cpc-audio", (_SGD,)),
    "mae": ("mae", (_SGD,)),
    "ijepa": (
        "ijepa",
        (
            _SGD,
            "method.encoder.backbone={image_size: 32, patch: 4, width: 16, depth: 1, heads: 2}",
            "method.encoder.predictor={width: 8, depth: 1}",
        ),
    ),
    **{name: (name, ()) for name in ("ijepa-vitl16", "ijepa-vith14")},
    "swav": ("swav", (_CONV, "method.negatives.count=10")),
    "swav-small-batch": (
        "swav-small-batch",
        (_CONV, "method.negatives.count=10", "method.targets.queue={size: 32, start_epoch: 0}"),
    ),
    "deepcluster-v2": ("deepcluster-v2", (_CONV, "method.negatives.count=10")),
    "deepcluster": (
        "deepcluster",
        (
            "method.encoder.backbone.backbone={kind: conv, widths: [8, 12], strides: [2, 2], channels: 2}",
            _SYNC,
            "method.negatives={count: 10, pca: 16}",
        ),
    ),
    "byol": ("byol", (_CONV, _SGD)),
    "byol-300": ("byol-300", (_CONV, _SGD)),
    "barlow": ("barlow", (_CONV, _SGD)),
    "vicreg": ("vicreg", (_CONV, _SGD)),
    "vicreg with a look-up of places": (
        "vicreg",
        (
            *(_CONV, _SGD),
            "method.encoder.outputs={dense: {reads: places, normalize: false, projector: [{width: 8}]}}",
            "method.look_ups.dense={of: dense, negatives: none, targets: nearest_place, "
            "loss: {kind: local_vicreg, keep: 20}, matches: every, weight: 0.25}",
        ),
    ),
    "vicregl": (
        "vicregl",
        (
            *(_CONV, _SGD, "method.encoder.outputs.dense.projector=[{width: 8}]"),
            *(f"method.views.groups.{group}.augment.flip={{p: 0.5}}" for group in ("first", "second")),
        ),
    ),
    "supcon": ("supcon", (_CONV, _SYNC, _SGD)),
    "pirl": ("pirl", (_CONV, _SYNC, "method.negatives.draws=16")),
    "infomin": ("infomin", (_CONV, _SYNC, _SGD, "method.negatives.size=24")),
    "invaspread": ("invaspread", (_CONV, _SYNC)),
    "simsiam": ("simsiam", (_CONV, _SGD)),
    "tico": ("tico", (_CONV, _SGD)),
    "nnclr": ("nnclr", (_CONV, "method.targets.size=40")),
    "clip": ("clip", (_TOWER, _SYNC, _SGD)),
    "siglip": ("siglip", (_TOWER, _SYNC, _SGD)),
    "clip-shared": ("clip-shared", (_SGD,)),
    "slip": ("slip", (_CONV, _SYNC, _SGD)),
    "cmc": ("cmc", (*_TOWERS, _SYNC, _SGD, "method.negatives.draws=16")),
    "cmc-alexnet": ("cmc-alexnet", (*_TOWERS, _SYNC, _SGD, "method.negatives.draws=16")),
    "crd": ("crd", (_CONV, _SYNC, "method.negatives.draws=16")),
    "crd, any sample of the class": (
        "crd",
        (_CONV, _SYNC, "method.negatives={kind: other_classes, draws: 16, positive: relax}"),
    ),
    "crd-teacher": ("crd-teacher", (_CONV, _SYNC)),
    "swav's targets with momentum keys": (
        "swav",
        (_CONV, "method.negatives.count=10", "method.key_encoder={kind: momentum, momentum: 0.9}"),
    ),
}
_KEYS = {
    "shared, with gradient": "{kind: shared, gradient: true}",
    "shared": "{kind: shared, gradient: false}",
    "momentum": "{kind: momentum, momentum: 0.9, shuffle_bn: false, init: copy}",
    "momentum, shuffled": "{kind: momentum, momentum: 0.9, shuffle_bn: true, init: copy}",
    "frozen": "{kind: frozen, checkpoint: null}",
}
_INSTANCE = ("method.targets={kind: instance}", "method.loss={kind: info_nce, temperature: 0.2}")
_NEGATIVES = {
    "none": ("{kind: none}", ("method.targets={kind: key_vector}", "method.loss={kind: cosine}")),
    "in_batch, matched": ("{kind: in_batch, views: matched}", _INSTANCE),
    "in_batch, all": ("{kind: in_batch, views: all}", _INSTANCE),
    "queue": ("{kind: queue, size: 24}", _INSTANCE),
    "memory_bank, drawn": (
        "{kind: memory_bank, draws: 16}",
        ("method.targets={kind: instance}", "method.loss={kind: nce, temperature: 0.5}"),
    ),
    "memory_bank, whole": ("{kind: memory_bank, draws: 0}", _INSTANCE),
    "prototypes": (
        "{kind: prototypes, count: 10}",
        (
            "method.targets={kind: sinkhorn, epsilon: 0.05, iterations: 3}",
            "method.loss={kind: soft_cross_entropy, temperature: 0.1}",
        ),
    ),
}
# A loss that adds two directions, so the rate of one.
PAIRS: dict[str, Case] = {
    f"{keys} × {negatives}": (
        "simclr-v1",
        (
            _CONV,
            _SYNC,
            _SGD_OF_A_SUM,
            f"method.key_encoder={_KEYS[keys]}",
            f"method.negatives={_NEGATIVES[negatives][0]}",
        )
        + _NEGATIVES[negatives][1],
    )
    for keys in _KEYS
    for negatives in _NEGATIVES
}
IN_MICRO_BATCHES: dict[str, Case] = {
    "simclr-v1, in micro-batches": ("simclr-v1", (_CONV, _SGD_OF_A_SUM, "train.batch_norm=4", "train.micro_batch=4")),
    "moco-v2, BatchNorm in groups, shuffled, in micro-batches": (
        "moco-v2",
        (_CONV, _SGD, "train.batch_norm=2", "train.micro_batch=4", "method.negatives.size=24"),
    ),
    "momentum keys and a queue, in micro-batches": (
        "moco-v2",
        (
            *(_CONV, _SGD, "train.batch_norm=4", "train.micro_batch=4", "method.negatives.size=24"),
            "method.key_encoder={kind: momentum, momentum: 0.9, shuffle_bn: false, init: copy}",
        ),
    ),
    "dino, small crops included, in micro-batches": (
        "dino",
        (_CONV, "train.batch_norm=4", "train.micro_batch=4", "method.negatives.count=10"),
    ),
    "swav, small crops included, in micro-batches": (
        "swav",
        (_CONV, "train.batch_norm=4", "train.micro_batch=4", "method.negatives.count=10"),
    ),
}
CASES = METHODS | PAIRS | IN_MICRO_BATCHES


def small_run(name: str, folder: Path, more: Sequence[str] = ()) -> Resolved:
    """The case of this name as a run in small; data that must be written lies in ``folder``. ``more``: settings."""
    recipe, sets = CASES[name]
    every = ("train.precision=fp32", f"train.batch_size={B}", "train.epochs=50", *more)
    if recipe == "cpc-audio":
        return resolve(recipe, preset="tiny", sets=[*sets, *every, f"data.root={_sequences(folder)}"])
    return resolve(recipe, preset="digits", sets=[*sets, *every])


def spec_of(name: str, folder: Path) -> RunSpec:
    return small_run(name, folder).run


def _sequences(folder: Path) -> str:
    if not (folder / "sequences").exists():
        write_tiny(str(folder / "sequences"), samples=60)
    return str(folder / "sequences")


def record(name: str, folder: Path) -> dict[str, Any]:
    """Some steps on this process's share of real batches: samples, views, losses, gradients, state."""
    spec = spec_of(name, folder)
    source, views = spec.data.build(), spec.method.views.build()
    split = source.train()
    model = build.look_up(spec, len(split), split.labels)
    batch_norm.convert(model, spec.train.batch_norm)
    optimizer = optimizers.build(spec.train.optimizer, model)
    module: nn.Module = model
    if distributed.world() > 1:
        with compat.broadcast_buffers_argument():
            module = nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)
    data = ViewDataset(split, views, spec.train.seed, B)
    first = min(FIRST, data.order.steps * 2 - 2)  # the steps cross the end of an epoch where there are few
    sampler = EpochSampler(len(split), B, spec.train.seed, 50, distributed.rank(), distributed.world(), first)
    out: dict[str, Any] = {"samples": [], "views": [], "loss": [], "accuracy": [], "undecided": [], "grad": []}
    for number, batch in zip(range(STEPS), sampler, strict=False):
        items = collate([data[at] for at in batch])
        clock = Clock(first + number, 50 * data.order.steps, data.order.steps)
        moment = Step(clock, spec.train.seed, B, micro_batch=spec.train.micro_batch)
        optimizers.set_rates(optimizer, spec.train.optimizer, moment.clock, B)
        optimizer.zero_grad()
        with undecided(out["undecided"], close=5e-3):  # the bound on the loss after four steps, five times over
            found = module(items["views"], items["index"], moment)
        found.loss.backward()
        optimizers.drop_frozen_gradients(optimizer, moment.clock)
        out["samples"].append(distributed.gather(items["index"]))
        out["views"].append(distributed.gather(torch.stack([x.double().sum() for x in pixels_of(items["views"][0])])))
        out["loss"].append(distributed.mean_over_processes(found.loss.detach()))
        out["accuracy"].append(distributed.mean_over_processes(found.accuracy))
        out["grad"].append({key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None})
        optimizer.step()
        model.update(found.keys, moment)
        batch_norm.average_running_statistics(model)
    out["state"] = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    return out


def alone(names: Sequence[str], folder: Path) -> dict[str, Any]:
    return {name: record(name, folder) for name in names}


def together(world: int, names: Sequence[str], folder: Path) -> list[dict[str, Any]]:
    """What each of ``world`` gloo processes records of each case."""
    _sequences(folder)
    port = free_port()
    spawn(_worker, (world, port, list(names), folder), world)
    return [torch.load(folder / f"{world}-{rank}.pt", weights_only=True) for rank in range(world)]


def _worker(rank: int, world: int, port: int, names: list[str], folder: Path) -> None:
    join(rank, port, world)
    torch.save(alone(names, folder), folder / f"{world}-{rank}.pt")
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # not through Python's shutdown, which a thread of gloo's can abort


def difference(one: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """The largest relative differences: of a step's loss, of the first step's gradient and of the last one's (‖Δ‖/‖g‖
    over all parameters), and of the final state (‖Δ‖/‖state‖, of the slot where it is largest).

    The first gradient is what the processes compute; later ones are of weights that rounding has set apart, and jump
    where it turns a ReLU's input from one side of zero to the other.
    """
    losses = [float(abs(a - b) / abs(a).clamp_min(1e-12)) for a, b in zip(one["loss"], other["loss"], strict=True)]
    grads = [_apart(a, b) for a, b in zip(one["grad"], other["grad"], strict=True)]
    slots = {key.split(".")[0] for key in one["state"]}
    states = [
        _apart(*({k: v for k, v in each["state"].items() if k.split(".")[0] == slot} for each in (one, other)))
        for slot in slots
    ]
    return {"loss": max(losses), "gradient": grads[0], "last gradient": grads[-1], "state": max(states)}


def _apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    flat, theirs = (torch.cat([each[key].double().flatten() for key in sorted(one)]) for each in (one, other))
    return float((flat - theirs).norm() / flat.norm().clamp_min(1e-12))
