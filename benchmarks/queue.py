"""The look-up in a queue of MoCo's size, with its update: forward, backward, enqueue; beside lightly and a bare one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import contralex
from benchmarks.loss import DIM, TEMPERATURE, backward, moment, two_views
from benchmarks.measuring import OURS, Options, Peers, Report, compare_calls, main
from contralex.plugin import SharedKeyEncoder


def measure(options: Options, report: Report, peers: Peers) -> None:
    for size in (512,) if options.small else (4096, 65536):
        batch = 64 if options.small else 256
        calls = look_ups(size, batch, peers, options)
        report.add(compare_calls(f"queue, {size} keys, batch {batch}", calls, options, with_memory=True))


def look_ups(size: int, batch: int, peers: Peers, options: Options) -> dict[str, Callable[[], object]]:
    query, key = two_views(batch, options.device)
    key = key.detach()
    method = contralex.LookUp(
        contralex.ImageEncoder(contralex.Backbone(nn.Identity(), dim=DIM)),
        SharedKeyEncoder(gradient=False),
        contralex.QueueSource(size=size, dim=DIM),
        contralex.InstanceTargets(),
        contralex.InfoNCE(TEMPERATURE),
        matches=[contralex.Match(0, 1)],
    ).to(options.device)
    sample = torch.arange(batch, device=options.device)

    def ours() -> None:
        step = moment(batch)
        result = method({0: query, 1: key}, sample, step)
        backward(result.loss, query)
        method.update(result.keys, step)

    queue, pointer = F.normalize(torch.randn(size, DIM, device=options.device), dim=1), [0]

    def by_hand() -> None:
        q, k = F.normalize(query, dim=1), F.normalize(key, dim=1)
        scores = torch.cat([(q * k).sum(dim=1, keepdim=True), q @ queue.T], dim=1) / TEMPERATURE
        backward(F.cross_entropy(scores, torch.zeros(batch, dtype=torch.long, device=q.device)), query)
        queue[pointer[0] : pointer[0] + batch] = k
        pointer[0] = (pointer[0] + batch) % size

    calls: dict[str, Callable[[], object]] = {OURS: ours, "by hand": by_hand}
    if lightly := peers.load("lightly.loss", "lightly"):
        loss = lightly.NTXentLoss(temperature=TEMPERATURE, memory_bank_size=(size, DIM)).to(options.device)

        def theirs() -> Tensor:
            return loss(query, key)  # type: ignore[no-any-return]  # normalises, and writes the keys when it is asked

        calls["lightly"] = lambda: backward(theirs(), query)
    return calls


if __name__ == "__main__":
    main(__doc__ or "", "queue", measure)
