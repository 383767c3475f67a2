"""VICRegL's local criterion against loops, in float64, on one process and on two."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from contralex.errors import ContralexError
from contralex.lookup import distributed
from contralex.plugin import Clock, Dictionary, Match, Rows, Step
from contralex.recipes.layers import resolve
from contralex.training import build
from contralex_barlow.losses import LocalVICRegLoss
from contralex_barlow.places import NearestPlaceTargets
from tests.parity.test_methods import SAMPLE, B, images, made

P, Q, D, WEIGHTS = 6, 4, 5, (25.0, 20.0, 3.0)


def maps() -> tuple[Tensor, Tensor]:
    """(B, P, D) and (B, Q, D) of one batch: the views differ in size, and every hinge is at work on some dimensions."""
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(B, places, D, generator=generator, dtype=torch.float64) for places in (P, Q))
    return one, other * torch.linspace(0.5, 2, D, dtype=torch.float64)


def local(one: Tensor, other: Tensor, sample: Tensor, keep: int | None) -> Tensor:
    step, match = Step(Clock(0, 10, 5), seed=0, batch=B), Match(0, 1)
    queries, keys = Rows.from_view(one, sample, 0), Rows.from_view(other, sample, 1)
    targets = NearestPlaceTargets()(queries, keys, Dictionary(), match, step)
    return LocalVICRegLoss(*WEIGHTS, keep=keep)(queries, Dictionary(), targets, step)


def loops(one: Tensor, other: Tensor, keep: int | None) -> Tensor:
    """main_vicregl.py's ``neirest_neighbores_on_l2`` and ``_vicreg_loss``, number by number."""
    samples, places, dim = one.shape
    mine, theirs = [], []
    for i in range(samples):
        gaps = [
            [float((one[i, s] - other[i, t]).detach().norm()) for t in range(other.shape[1])] for s in range(places)
        ]
        closest = sorted(range(places), key=lambda s: min(gaps[s]))[:keep]
        mine.append([one[i, s] for s in sorted(closest)])
        theirs.append([other[i, gaps[s].index(min(gaps[s]))] for s in sorted(closest)])
    slots = len(mine[0])
    invariance, variance, covariance = WEIGHTS
    total = torch.zeros((), dtype=one.dtype)
    for i in range(samples):
        for s in range(slots):
            total = total + invariance * (mine[i][s] - theirs[i][s]).square().sum() / (samples * slots * dim)
    for side in (mine, theirs):
        for s in range(slots):
            x = torch.stack([side[i][s] for i in range(samples)])
            x = x - x.mean(dim=0)
            cov = [[(x[:, a] * x[:, b]).sum() / (samples - 1) for b in range(dim)] for a in range(dim)]
            for a in range(dim):
                total = total + variance * torch.relu(1 - (cov[a][a] + 1e-4).sqrt()) / (2 * slots * dim)
                for b in range(dim):
                    total = total + (covariance * cov[a][b] ** 2 / (2 * slots * dim) if a != b else 0.0)
    return total


def gradients(sides: tuple[Tensor, Tensor], loss: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, sides)


def leaves() -> tuple[Tensor, Tensor]:
    one, other = maps()
    return one.requires_grad_(), other.requires_grad_()


@pytest.mark.parametrize("keep", [None, 3, 50])
def test_equals_loops_with_the_gradient_of_both_sides(keep: int | None) -> None:
    mine, theirs = leaves(), leaves()
    found, expected = local(*mine, SAMPLE, keep), loops(*theirs, keep)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for ours, other in zip(gradients(mine, found), gradients(theirs, expected), strict=True):
        assert other.abs().max() > 1e-3
        torch.testing.assert_close(ours, other, rtol=1e-10, atol=1e-12)


def test_fewer_pairs_are_the_closest() -> None:
    one, other = maps()
    apart = [float(LocalVICRegLoss(1, 0, 0, keep=keep)(*_matched(one, other))) for keep in (1, 3, None)]
    assert apart == sorted(apart) and apart[0] < apart[2]


def _matched(one: Tensor, other: Tensor) -> Any:
    step = Step(Clock(0, 10, 5), seed=0, batch=B)
    queries, keys = Rows.from_view(one, SAMPLE, 0), Rows.from_view(other, SAMPLE, 1)
    return queries, Dictionary(), NearestPlaceTargets()(queries, keys, Dictionary(), Match(0, 1), step), step


def test_a_place_meets_those_of_its_own_image_alone() -> None:
    """Keys of every process, in another order: each query finds its image's."""
    one, other = maps()
    step, order = Step(Clock(0, 10, 5), seed=0, batch=B), torch.randperm(B, generator=torch.Generator().manual_seed(1))
    queries = Rows.from_view(one, SAMPLE, 0)
    straight, mixed = (
        NearestPlaceTargets()(queries, Rows.from_view(keys, sample, 1), Dictionary(), Match(0, 1), step).vectors
        for keys, sample in ((other, SAMPLE), (other[order], SAMPLE[order]))
    )
    assert torch.equal(straight, mixed)


def worker(rank: int, port: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    own = distributed.own_slice(B // 2)
    one, other = (side[own].detach().requires_grad_() for side in maps())
    loss = local(one, other, SAMPLE[own], 3)
    found = gradients((one, other), loss)
    torch.save((distributed.mean_over_processes(loss.detach()), *found), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_are_one(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(worker, (port, str(tmp_path)), nprocs=2)
    sides = leaves()
    expected = local(*sides, SAMPLE, 3)
    whole = gradients(sides, expected)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for loss, *_ in ranks:
        torch.testing.assert_close(loss, expected.detach(), rtol=1e-12, atol=1e-12)
    for side in (0, 1):  # DistributedDataParallel takes the mean over the processes
        found = torch.cat([rank[1 + side] for rank in ranks]) / 2
        torch.testing.assert_close(found, whole[side], rtol=1e-10, atol=1e-12)


OUTPUT = (
    "method.encoder.outputs={dense: {reads: places, normalize: false, "
    "projector: [{width: 12, norm: batch, activation: relu}, {width: 6, bias: false}]}}"
)
LOOK_UP = (
    "method.look_ups.dense={of: dense, negatives: none, targets: nearest_place, loss: {kind: local_vicreg, keep: 4}, "
    "matches: every, weight: 0.25}"
)


@pytest.mark.parametrize("recipe", ["vicreg", "simclr-v1", "moco-v2"])
def test_any_method_with_a_dense_look_up_is_a_few_lines(recipe: str) -> None:
    """Both directions have half the weight, and the places of the backbone get the gradient."""
    model: Any = made(recipe, OUTPUT, LOOK_UP)
    moment = Step(Clock(0, 100, 5), seed=0, batch=B)
    found = model(images(2), SAMPLE, moment)
    asked, keys = moment.queries["dense"], moment.keys["dense"]
    sides = [
        tuple(rows.select_view(view).vectors.unflatten(0, (B, -1)) for rows, view in ((asked, a), (keys, b)))
        for a, b in ((0, 1), (1, 0))
    ]
    defaults = LocalVICRegLoss()
    weights = (defaults.invariance, defaults.variance, defaults.covariance)
    assert weights == (25, 25, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "WEIGHTS", weights)
        expected = sum(loops(one.double(), other.double(), 4) for one, other in sides) / 2
    torch.testing.assert_close(found.answers["dense"].loss.double(), expected.detach(), rtol=1e-5, atol=1e-5)
    total = found.answers["main"].loss + 0.25 * found.answers["dense"].loss
    torch.testing.assert_close(found.loss.detach(), total, rtol=1e-5, atol=1e-5)
    found.loss.backward()
    assert model.encoder.heads["dense"].projector[0].weight.grad.abs().max() > 1e-6


def test_simclr_of_a_resnet_takes_a_step() -> None:
    run = resolve(
        "simclr-v1",
        sets=["method.encoder.backbone={kind: torchvision, name: resnet18}", "train.precision=fp32", OUTPUT, LOOK_UP],
    ).run
    model: Any = build.look_up(run, 40).train()
    optimizer = torch.optim.SGD(model.encoder.parameters(), lr=0.1)
    views = images(2, size=64)
    before = model.encoder.heads["dense"].projector[0].weight.detach().clone()
    moment = Step(Clock(0, 100, 5), seed=0, batch=B)
    found = model(views, SAMPLE, moment)
    assert moment.queries["dense"].per_sample == 4  # 64 pixels are 2 x 2 places
    found.loss.backward()
    optimizer.step()
    model.update(found.keys, moment)
    assert torch.isfinite(found.loss) and not torch.equal(before, model.encoder.heads["dense"].projector[0].weight)


def test_unit_vectors_are_refused() -> None:
    with pytest.raises(ContralexError, match=r"needs any length from method\.encoder"):
        made("vicreg", OUTPUT.replace("normalize: false", "normalize: true"), LOOK_UP)
