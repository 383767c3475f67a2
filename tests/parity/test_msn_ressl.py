"""Targets that are the key's own distribution (ReSSL, MSN), and MSN's mean entropy, against loops, in float64."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from contralex.errors import ContralexError
from contralex.kinds.losses.parts import MeanEntropy
from contralex.kinds.targets.parts import KeySoftmaxTargets
from contralex.lookup import distributed
from contralex.plugin import Clock, Dictionary, Match, Rows, Step, Targets
from tests.parity.test_methods import SAMPLE, B, embed, images, made, normal, same, step
from tests.processes import free_port, join, spawn

K, D = 6, 5
TINY = (
    "method.negatives={kind: queue, size: 24, positive: false}",
    "method.targets={kind: key_softmax, temperature: 0.04}",
    "method.loss={kind: soft_cross_entropy, temperature: 0.1}",
)
MSN = (
    "method.negatives={kind: prototypes, count: 10}",
    "method.targets={kind: key_softmax, temperature: 0.025, sinkhorn: 3}",
    "method.loss={kind: soft_cross_entropy, temperature: 0.1}",
    "method.look_ups.memax={negatives: borrowed, targets: key_vector, loss: {kind: mean_entropy, temperature: 0.1}, "
    "matches: forward}",
)


def unit(rows: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, D, generator=generator, dtype=torch.float64), dim=1)


def moment() -> Step:
    return Step(Clock(0, 10, 5), seed=0, batch=B)


def test_ressl_is_moco_with_three_other_kinds() -> None:
    """Both views are scored against one queue, before this batch enters it and without the own key (official code)."""
    model: Any = made("moco-v2", *TINY, "method.key_encoder.shuffle_bn=false")
    views = images(2)
    queue = model.negatives.vectors.clone()

    def oracle() -> Tensor:
        query, key = normal(embed(model.encoder, views[0])), normal(embed(model.key_encoder.encoder, views[1])).detach()
        total = torch.zeros(())
        for i in range(B):
            wanted = [math.exp(float(key[i] @ entry) / 0.04) for entry in queue]
            scores = torch.stack([query[i] @ entry / 0.1 for entry in queue])
            for weight, score in zip(wanted, scores, strict=True):
                total = total - weight / sum(wanted) * (score - torch.logsumexp(scores, 0))
        return total / B

    now = step()
    same(model, views, oracle, now)
    model.update(model(views, SAMPLE, now).keys, now)
    assert not torch.equal(model.negatives.vectors[:B], queue[:B])
    assert torch.equal(model.negatives.vectors[B:], queue[B:])


def sinkhorn(rows: list[list[float]], iterations: int) -> list[list[float]]:
    """As the official code has it: a matrix that sums to 1, columns (prototypes) to 1/K, rows (samples) to 1/B."""
    total = sum(map(sum, rows))
    table = [[each / total for each in row] for row in rows]
    for _ in range(iterations):
        sums = [sum(row[k] for row in table) for k in range(len(table[0]))]
        table = [[each / sums[k] / len(row) for k, each in enumerate(row)] for row in table]
        table = [[each / sum(row) / len(table) for each in row] for row in table]
    return [[each * len(table) for each in row] for row in table]


@pytest.mark.parametrize("iterations", [0, 1, 3])
def test_targets_are_the_sharpened_and_balanced_distribution(iterations: int) -> None:
    key, prototypes = unit(B, 0), unit(K, 1)
    keys = Rows.from_view(key, SAMPLE, 1)
    queries = Rows.from_view(unit(B, 2), SAMPLE, 0)
    made = KeySoftmaxTargets(temperature=0.1 * 0.25, sinkhorn=iterations)
    found = made(queries, keys, Dictionary(shared=prototypes), Match(0, 1), moment()).weights
    rows = []
    for each in key:
        p = [math.exp(float(each @ prototype) / 0.1) for prototype in prototypes]
        sharp = [(one / sum(p)) ** (1 / 0.25) for one in p]
        rows.append([one / sum(sharp) for one in sharp])
    expected = sinkhorn(rows, iterations) if iterations else rows
    torch.testing.assert_close(found.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=1e-6)


def test_mean_entropy_equals_loops_with_its_gradient() -> None:
    asked, prototypes = unit(2 * B, 0), unit(K, 1)
    mine, theirs = (asked.clone().requires_grad_() for _ in range(2))
    queries = Rows.from_views({0: (mine[:B], None), 1: (mine[B:], None)}, SAMPLE)
    now = moment()
    now.queries = {"image": queries}
    dictionary = Dictionary(shared=prototypes)
    found = MeanEntropy(temperature=0.1)(queries.select_view(0), dictionary, Targets(vectors=prototypes), now)
    mean = torch.zeros(K, dtype=torch.float64)
    for each in theirs:
        p = torch.stack([torch.exp(each @ prototype / 0.1) for prototype in prototypes])
        mean = mean + p / p.sum() / (2 * B)
    expected = math.log(K) + sum(p * p.log() for p in mean)
    assert isinstance(expected, Tensor)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    gradients = [torch.autograd.grad(loss, x)[0] for loss, x in ((found, mine), (expected, theirs))]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)
    even = Dictionary(shared=torch.zeros(K, D))
    assert abs(float(MeanEntropy(0.1)(queries.detach(), even, Targets(vectors=prototypes), moment()))) < 1e-6


def test_msns_targets_and_regulariser_for_any_method() -> None:
    model: Any = made("moco-v2", *MSN, "method.key_encoder.shuffle_bn=false")
    found = model(images(2), SAMPLE, step())
    found.loss.backward()
    assert set(found.answers) == {"main", "memax"}
    assert 0 <= float(found.answers["memax"].loss) < math.log(10)
    assert model.negatives.layer.weight.grad.abs().sum() > 0
    assert len([name for name in model.state_dict() if "layer.weight" in name and "negatives" in name]) == 1


def test_a_queue_with_the_own_key_has_no_such_targets() -> None:
    with pytest.raises(ContralexError, match=r"method\.targets \(key_softmax\) needs"):
        made("moco-v2", *TINY, "method.negatives.positive=true")
    with pytest.raises(ContralexError, match="needs positive"):
        made("moco-v2", "method.negatives.positive=false")


def on_rank(key: Tensor, sample: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The weights of these samples' targets, the loss, and its gradient."""
    x = key.clone().requires_grad_()
    rows, now = Rows.from_view(x, sample, 0), moment()
    now.queries = {"image": rows}
    everyone = Rows.from_view(x.detach(), sample, 0).gather(gradient=False)
    dictionary = Dictionary(shared=unit(K, 1))
    weights = KeySoftmaxTargets(0.05, sinkhorn=3)(rows, everyone, dictionary, Match(0, 0), now).weights
    loss = MeanEntropy(0.1)(rows, dictionary, Targets(vectors=x.detach()), now)
    return weights, loss.detach(), torch.autograd.grad(loss, x)[0]


def worker(rank: int, port: int, folder: str) -> None:
    join(rank, port)
    mine = distributed.own_slice(B // 2)
    torch.save(on_rank(unit(B, 0)[mine], SAMPLE[mine]), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_equal_one(tmp_path: Path) -> None:
    port = free_port()
    spawn(worker, (port, str(tmp_path)))
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    weights, loss, gradient = on_rank(unit(B, 0), SAMPLE)
    torch.testing.assert_close(torch.cat([part[0] for part in parts]), weights, rtol=1e-5, atol=1e-6)
    for part in parts:
        torch.testing.assert_close(part[1], loss, rtol=1e-5, atol=1e-6)
    # Each process's loss is that of the whole batch: DistributedDataParallel's mean over the processes halves the sum.
    torch.testing.assert_close(torch.cat([part[2] for part in parts]) / 2, gradient, rtol=1e-4, atol=1e-7)
