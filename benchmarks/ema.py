"""The moving average of a network, as momentum methods update it after each step: a ResNet-50's."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torchvision
from torch import nn

import contralex
from benchmarks.loss import moment
from benchmarks.measuring import OURS, Options, Peers, Report, compare_calls, main

MOMENTUM = 0.999


def measure(options: Options, report: Report, peers: Peers) -> None:
    for name in ("resnet18",) if options.small else ("resnet18", "resnet50"):
        report.add(compare_calls(f"EMA, {name}", updates(name, peers, options), options))


def updates(name: str, peers: Peers, options: Options) -> dict[str, Callable[[], object]]:
    network: nn.Module = getattr(torchvision.models, name)(weights=None).to(options.device)
    encoder = contralex.ImageEncoder(contralex.Backbone(network, dim=1000))
    ours = contralex.MomentumEncoder(encoder, momentum=MOMENTUM).to(options.device)
    twin = copy.deepcopy(network)

    @torch.no_grad()
    def by_hand() -> None:  # the loop of MoCo's code
        for mine, theirs in zip(twin.parameters(), network.parameters(), strict=True):
            mine.data = mine.data * MOMENTUM + theirs.data * (1.0 - MOMENTUM)

    step = moment(256)
    calls: dict[str, Callable[[], object]] = {OURS: lambda: ours.update(step), "MoCo's loop": by_hand}
    if utils := peers.load("lightly.models.utils", "lightly"):
        other = copy.deepcopy(network)
        utils.deactivate_requires_grad(other)
        calls["lightly"] = lambda: utils.update_momentum(network, other, MOMENTUM)
    return calls


if __name__ == "__main__":
    main(__doc__ or "", "ema", measure)
