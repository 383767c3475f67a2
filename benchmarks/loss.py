"""The losses that compare a batch with itself: forward and backward, from vectors to their gradients.

NT-Xent beside lightly and a hand-written one, CLIP's loss beside open_clip, SupCon beside pytorch-metric-learning. All
sides get the same vectors and normalise them. contralex's side is its complete step without a network, so its look-up
accuracy is part of it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import contralex
from benchmarks.measuring import OURS, Options, Peers, Report, compare_calls, main
from contralex.plugin import Clock, InBatchSource, Loss, SharedKeyEncoder, TargetGenerator

DIM = 128
TEMPERATURE = 0.1
CLASSES = 100


def measure(options: Options, report: Report, peers: Peers) -> None:
    for rows in (64,) if options.small else (256, 1024, 4096, 8192, 16384):
        report.add(compare_calls(f"NT-Xent, {rows} rows", ntxent(rows, peers, options), options, with_memory=True))
    for pairs in (32,) if options.small else (1024, 8192):
        report.add(compare_calls(f"CLIP, {pairs} pairs", clip(pairs, peers, options), options, with_memory=True))
    for rows in (64,) if options.small else (1024, 4096):
        report.add(compare_calls(f"SupCon, {rows} rows", supcon(rows, peers, options), options, with_memory=True))


def ntxent(rows: int, peers: Peers, options: Options) -> dict[str, Callable[[], object]]:
    a, b = two_views(rows // 2, options.device)
    ours = in_batch_step(contralex.InfoNCE(TEMPERATURE), contralex.InstanceTargets(), options, "all")

    def by_hand(a: Tensor, b: Tensor) -> Tensor:
        vectors = F.normalize(torch.cat([a, b]), dim=1)
        scores = (vectors @ vectors.T / TEMPERATURE).fill_diagonal_(float("-inf"))
        return F.cross_entropy(scores, torch.arange(rows, device=a.device).roll(rows // 2))

    calls = {OURS: lambda: backward(ours(a, b), a, b), "cross-entropy by hand": lambda: backward(by_hand(a, b), a, b)}
    if lightly := peers.load("lightly.loss", "lightly"):
        loss = lightly.NTXentLoss(temperature=TEMPERATURE)
        calls["lightly"] = lambda: backward(loss(a, b), a, b)
    return calls


def clip(pairs: int, peers: Peers, options: Options) -> dict[str, Callable[[], object]]:
    from contralex_clip.losses import ClipLoss

    a, b = two_views(pairs, options.device)
    own = ClipLoss(temperature=0.07).to(options.device)
    ours = in_batch_step(own, contralex.InstanceTargets(), options, "matched")
    calls: dict[str, Callable[[], object]] = {OURS: lambda: backward(ours(a, b), a, b, own.log_scale)}
    if open_clip := peers.load("open_clip", "open_clip_torch"):
        loss, scale = open_clip.ClipLoss(), nn.Parameter(torch.tensor(2.659, device=options.device))

        def theirs() -> Tensor:
            return loss(F.normalize(a, dim=1), F.normalize(b, dim=1), scale.exp())  # type: ignore[no-any-return]

        calls["open_clip"] = lambda: backward(theirs(), a, b, scale)
    return calls


def supcon(rows: int, peers: Peers, options: Options) -> dict[str, Callable[[], object]]:
    from contralex_supcon.parts import LabelTargets, SupConLoss

    a, b = two_views(rows // 2, options.device)
    labels = torch.arange(rows // 2) % CLASSES
    targets = LabelTargets(labels).to(options.device)
    ours = in_batch_step(SupConLoss(TEMPERATURE), targets, options, "all")
    calls: dict[str, Callable[[], object]] = {OURS: lambda: backward(ours(a, b), a, b)}
    if pml := peers.load("pytorch_metric_learning.losses", "pytorch-metric-learning"):
        loss, both = pml.SupConLoss(temperature=TEMPERATURE), labels.repeat(2).to(options.device)
        calls["pytorch-metric-learning"] = lambda: backward(loss(torch.cat([a, b]), both), a, b)
    return calls


def two_views(samples: int, device: str) -> tuple[Tensor, Tensor]:
    """Two views of each sample, as vectors (B, D) that are near one another, with a gradient."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(samples, DIM, generator=generator)
    b = a + 0.5 * torch.randn(samples, DIM, generator=generator)
    return a.to(device).requires_grad_(), b.to(device).requires_grad_()


def in_batch_step(
    loss: Loss, targets: TargetGenerator, options: Options, views: str
) -> Callable[[Tensor, Tensor], Tensor]:
    """contralex's step with the identity as its network, both views being looked up."""
    method = contralex.LookUp(
        contralex.ImageEncoder(contralex.Backbone(nn.Identity(), dim=DIM)),
        SharedKeyEncoder(gradient=True),
        InBatchSource("all" if views == "all" else "matched"),
        targets,
        loss,
        matches=[contralex.Match(0, 1), contralex.Match(1, 0)],
    ).to(options.device)

    def step(a: Tensor, b: Tensor) -> Tensor:
        sample = torch.arange(len(a), device=a.device)
        return method({0: a, 1: b}, sample, moment(len(a))).loss  # type: ignore[no-any-return]

    return step


def moment(batch: int) -> contralex.Step:
    return contralex.Step(Clock(step=0, total=10, per_epoch=2), seed=0, batch=batch)


def backward(loss: Tensor, *leaves: Tensor) -> None:
    loss.backward()
    for leaf in leaves:
        leaf.grad = None


if __name__ == "__main__":
    main(__doc__ or "", "loss", measure)
