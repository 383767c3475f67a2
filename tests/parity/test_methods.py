"""Each first-party method equals an independent implementation, in its loss and in its gradients.

The oracles are naive loops over samples, written from the papers, on the same weights and inputs.
Everything is float64, to 1e-9 (:func:`equal`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.lookup.clock import Clock
from contralex.lookup.step import LookUp
from contralex.lookup.values import Step
from contralex.recipes.layers import resolve
from contralex.training import build

B, POPULATION = 8, 40
SMALL = [
    "method.encoder.backbone={kind: conv, widths: [8, 12], strides: [2, 2]}",
    "train.precision=fp32",
    f"train.batch_size={B}",
]
SAMPLE = torch.arange(3, 3 + B)
LABELS = [index % 3 for index in range(POPULATION)]


def made(recipe: str, *sets: str) -> LookUp:
    image = [] if recipe.startswith("cpc") else SMALL
    spec = resolve(recipe, preset=None if recipe == "cpc-audio" else "digits", sets=[*image, *sets]).run
    return build.look_up(spec, POPULATION, LABELS).double().train()


def images(count: int, size: int = 16) -> dict[int, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {view: torch.rand(B, 3, size, size, generator=generator, dtype=torch.float64) for view in range(count)}


def step(number: int = 0, per_epoch: int = 5) -> Step:
    return Step(Clock(number, 100, per_epoch), seed=0, batch=B)


def gradients(model: LookUp, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def same(model: LookUp, views: dict[int, Tensor], oracle: Callable[[], Tensor], moment: Step | None = None) -> None:
    """The framework's loss and gradients equal the oracle's. BatchNorm's running statistics play no part."""
    ours = model(views, SAMPLE, moment or step()).loss
    mine = gradients(model, ours)
    theirs = oracle()
    expected = gradients(model, theirs)
    equal(ours, theirs, "the loss")
    assert mine.keys() == expected.keys()
    assert any(grad.abs().max() > 1e-4 for grad in expected.values())  # an oracle without gradients proves nothing
    for name, grad in expected.items():
        equal(mine[name], grad, f"the gradient of {name}")


def take_equal_steps(
    ours: LookUp,
    theirs: LookUp,
    shown: Callable[[int], Any],
    official: Callable[[Any], Tensor],
    *,
    rate: float,
) -> Iterator[tuple[Any, dict[str, Tensor]]]:
    """Three steps of ours, and of the ``official`` loss on the weights of ``theirs``, in float64: losses and gradients
    are equal, and after each step all parameters. ``shown``: the views of each step. Yields the views and our gradients
    when ours has followed the step, for what follows it on the other side (a teacher, a centre)."""
    for number in range(3):
        views, moment = shown(number), step(number)
        found, loss = ours(views, SAMPLE, moment), official(views)
        equal(found.loss, loss, "the loss")
        mine, wanted = gradients(ours, found.loss), gradients(theirs, loss)
        assert mine.keys() == wanted.keys()
        for name, gradient in wanted.items():
            equal(mine[name], gradient, f"the gradient of {name}")
        with torch.no_grad():
            for model in (ours, theirs):
                for p in model.parameters():
                    if p.grad is not None:
                        p -= rate * p.grad
        ours.update(found.keys, moment)
        yield views, mine
        for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            equal(one, other, name)


def equal(found: Tensor | None, wanted: Tensor | None, what: str) -> None:
    """Two tensors of float64 are equal to rounding: an element to 1e-9 of itself, or to 1e-12."""
    assert found is not None and wanted is not None and found.dtype == torch.float64, what
    torch.testing.assert_close(
        found.detach(), wanted.detach().reshape(found.shape), rtol=1e-9, atol=1e-12, msg=lambda text: f"{what}: {text}"
    )


def normal(x: Tensor) -> Tensor:
    return x / x.pow(2).sum(dim=1, keepdim=True).sqrt()


def embed(encoder: Any, x: Tensor) -> Tensor:
    return encoder.projector(encoder.backbone(x))


# InstDisc


def instdisc_oracle(model: LookUp, views: dict[int, Tensor], temperature: float) -> Tensor:
    v = normal(embed(model.encoder, views[0]))
    bank = model.negatives.bank(0)
    drawn = torch.randint(POPULATION, (B, 16), generator=step().generator(2))
    raw = [[torch.exp(v[i] @ bank[j] / temperature) for j in [SAMPLE[i], *drawn[i]]] for i in range(B)]
    z = torch.stack([s for row in raw for s in row]).mean().detach() * POPULATION
    noise = 16 / POPULATION
    total = torch.zeros(())
    for row in raw:
        p = row[0] / z
        total = total - torch.log(p / (p + noise + 1e-7))
        for s in row[1:]:
            total = total - torch.log(noise / (s / z + noise + 1e-7))
    return total / B


def test_instdisc_nce() -> None:
    model, views = made("instdisc", "method.negatives.draws=16", "method.loss.temperature=0.1"), images(1)
    same(model, views, lambda: instdisc_oracle(model, views, 0.1))


def test_instdisc_z_is_set_once() -> None:
    model = made("instdisc", "method.negatives.draws=16")
    model(images(1), SAMPLE, step())
    first = model.loss.z.clone()
    assert first > 0
    model({0: torch.rand(B, 3, 16, 16, dtype=torch.float64)}, SAMPLE, step(1))
    assert torch.equal(model.loss.z, first)


def test_instdisc_proximal_term() -> None:
    loss = "method.loss={kind: proximal, weight: 30, base: {kind: nce, temperature: 0.1}}"
    model, views = made("instdisc", "method.negatives.draws=16", loss), images(1)

    def oracle() -> Tensor:
        v = normal(embed(model.encoder, views[0]))
        distance = sum((v[i] - model.negatives.bank(0)[SAMPLE[i]]).pow(2).sum() for i in range(B)) / B
        return instdisc_oracle(model, views, 0.1) + 30 * distance

    same(model, views, oracle)


def test_instdisc_cifar_softmax_over_the_bank() -> None:
    model, views = made("instdisc-cifar", "method.loss.temperature=0.1"), images(1)

    def oracle() -> Tensor:
        v = normal(embed(model.encoder, views[0]))
        bank = model.negatives.bank(0)
        total = torch.zeros(())
        for i in range(B):
            scores = torch.stack([v[i] @ row / 0.1 for row in bank])
            total = total - (scores[SAMPLE[i]] - torch.logsumexp(scores, 0))
        return total / B

    same(model, views, oracle)


def test_instdisc_memory_moves_by_half_and_stays_unit() -> None:
    model, views = made("instdisc"), images(1)
    before = model.negatives.bank(0).clone()
    moment = step()
    found = model(views, SAMPLE, moment)
    model.update(found.keys, moment)
    v = normal(embed(model.encoder, views[0])).detach()
    after = model.negatives.bank(0)
    for place, index in enumerate(SAMPLE.tolist()):
        mixed = 0.5 * before[index] + 0.5 * v[place]
        equal(after[index], mixed / mixed.norm(), "what is remembered")
    others = [index for index in range(POPULATION) if index not in SAMPLE.tolist()]
    assert torch.equal(after[others], before[others])


# MoCo


@pytest.mark.parametrize(("recipe", "temperature"), [("moco-v1", 0.1), ("moco-v2", 0.2)])
def test_moco(recipe: str, temperature: float) -> None:
    sets = ("method.negatives.size=24", f"method.loss.temperature={temperature}", "method.key_encoder.shuffle_bn=false")
    model, views = made(recipe, *sets), images(2)

    def oracle() -> Tensor:
        q = normal(embed(model.encoder, views[0]))
        with torch.no_grad():
            k = normal(embed(model.key_encoder.encoder, views[1]))
        total = torch.zeros(())
        for i in range(B):
            scores = torch.stack([q[i] @ k[i], *(q[i] @ row for row in model.negatives.vectors)]) / temperature
            total = total - (scores[0] - torch.logsumexp(scores, 0))
        return total / B

    same(model, views, oracle)


def test_moco_queue_and_momentum_after_the_step() -> None:
    model, views = made("moco-v2", "method.negatives.size=20", "method.key_encoder.momentum=0.9"), images(2)
    queue = model.negatives
    expected = queue.vectors.clone()
    for turn in range(3):  # 24 keys through 20 places: the third batch wraps around
        moment = step(turn)
        found = model(views, SAMPLE, moment)
        for place, key in enumerate(found.keys.vectors):
            expected[(turn * B + place) % 20] = key
        with torch.no_grad():
            for parameter in model.encoder.parameters():
                parameter += 0.1
        twins = [p.clone() for p in model.key_encoder.encoder.parameters()]
        model.update(found.keys, moment)
        torch.testing.assert_close(queue.vectors, expected)
        for twin, old, online in zip(
            model.key_encoder.encoder.parameters(), twins, model.encoder.parameters(), strict=True
        ):
            torch.testing.assert_close(twin, 0.9 * old + 0.1 * online)
    assert int(queue.pointer) == 24 % 20


def test_moco_keys_return_in_their_order_after_shuffling() -> None:
    shuffled = made("moco-v2", "method.key_encoder.shuffle_bn=true", "method.negatives.size=24").eval()
    views = images(2)
    _, keys = shuffled.encode(views, SAMPLE, step())
    plain = normal(embed(shuffled.key_encoder.encoder, views[1]))  # eval mode: batch statistics play no part
    assert torch.equal(keys.sample, SAMPLE)
    equal(keys.vectors, plain, "the keys")


# CPC


def test_cpc_patches() -> None:
    model = made("cpc")
    down = model.encoder.directions["down"]
    side = 4  # of the grid
    patches = torch.rand(B, side**2, 3, 14, 14, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for block in model.encoder.network.modules():  # branches that start at zero would hide their gradients
        if hasattr(block, "expand"):
            torch.nn.init.normal_(block.expand.weight, std=0.05)

    def oracle() -> Tensor:
        z = torch.stack([model.encoder.network(patches[:, p]) for p in range(side**2)], dim=1)  # (B, 16, D)
        everything = z.flatten(0, 1)
        losses = []
        for column in range(side):
            contexts, _ = down.context.gru(torch.stack([z[:, row * side + column] for row in range(side)], dim=1))
            for k, linear in enumerate(down.predict, 1):
                for row in range(side - k):
                    scores = linear(contexts[:, row]) @ everything.T
                    truth = torch.arange(B) * side**2 + (row + k) * side + column
                    losses += list(torch.logsumexp(scores, 1) - scores[torch.arange(B), truth])
        return torch.stack(losses).mean()

    same(model, {0: patches}, oracle)


def test_cpc_sequence() -> None:
    small = ["width=6", "context=5", "steps=3", "kernels=[4, 4]", "strides=[2, 2]"]
    model = made("cpc-audio", "data.root=unused", f"train.batch_size={B}", *(f"method.encoder.{s}" for s in small))
    sound = torch.randn(B, 1, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def oracle() -> Tensor:
        z = model.encoder.network(sound).transpose(1, 2)
        contexts, _ = model.encoder.context(z)
        length = z.shape[1]
        losses = []
        for t in range(length - 3):
            for k, linear in enumerate(model.encoder.predict, 1):
                for i in range(B):
                    scores = torch.stack([linear(contexts[i, t]) @ other for other in z.flatten(0, 1)])
                    losses.append(torch.logsumexp(scores, 0) - scores[i * length + t + k])
        return torch.stack(losses).mean()

    same(model, {0: sound}, oracle)


def test_cpc_context_sees_nothing_below() -> None:
    from contralex_cpc.network import PixelCNNContext

    torch.manual_seed(0)  # of other weights, the last ReLU may leave nothing of the place
    context = PixelCNNContext(dim=4, blocks=3, width=5)
    latents = torch.randn(1, 5, 5, 4, requires_grad=True)
    context(latents)[0, 2, 2].sum().backward()
    assert latents.grad is not None
    assert latents.grad[0, 3:].abs().max() == 0  # rows below
    assert latents.grad[0, :3].abs().max() > 0


# SwAV


def naive_sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    q = torch.exp(scores.double() / epsilon).T  # (K, B), as in the paper
    q = q / q.sum()
    for _ in range(iterations):
        for k in range(len(q)):
            q[k] = q[k] / q[k].sum() / q.shape[0]
        for b in range(q.shape[1]):
            q[:, b] = q[:, b] / q[:, b].sum() / q.shape[1]
    return (q * q.shape[1]).T


def swav_oracle(model: LookUp, views: dict[int, Tensor], queue: dict[int, Tensor]) -> Tensor:
    features = torch.cat(
        [
            model.encoder.backbone(torch.cat([views[0], views[1]])),
            model.encoder.backbone(torch.cat([views[2], views[3]])),
        ]
    )
    z = normal(model.encoder.projector(features)).split(B)
    weight = model.negatives.layer.weight
    losses = []
    for assign in (0, 1):
        scored = torch.cat([queue[assign], z[assign].detach()]) if queue else z[assign].detach()
        codes = naive_sinkhorn(scored @ weight.detach().T, 0.05, 3)[-B:]
        for crop in range(4):
            if crop != assign:
                scores = z[crop] @ weight.T / 0.1
                losses.append(-sum((codes[i] * F.log_softmax(scores[i], 0)).sum() for i in range(B)) / B)
    return torch.stack(losses).mean()


def test_swav() -> None:
    model = made("swav", "method.negatives.count=10")
    views = {**images(2), **{v + 2: x for v, x in images(2, 12).items()}}
    same(model, views, lambda: swav_oracle(model, views, {}))
    norms = model.negatives.layer.weight.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))


def test_swav_small_batch_queue() -> None:
    sets = ("method.negatives.count=10", "method.targets.queue={size: 16, start_epoch: 1}", f"train.batch_size={B}")
    model = made("swav-small-batch", *sets)
    views = {**images(2), **{v + 2: x for v, x in images(2, 12).items()}}
    for number in range(3):  # epochs of two steps: the first epoch fills nothing, then the queue is half full
        moment = step(number, per_epoch=2)
        found = model(views, SAMPLE, moment)
        model.update(found.keys, moment)
    assert int(model.targets.filled) == B
    moment = step(3, per_epoch=2)
    same(model, views, lambda: swav_oracle(model, views, {}), moment)  # not full: not used
    found = model(views, SAMPLE, step(3, per_epoch=2))
    model.update(found.keys, moment)
    queue = {view: model.targets.get_buffer(f"queue_{view}").clone() for view in (0, 1)}
    same(model, views, lambda: swav_oracle(model, views, queue), step(4, per_epoch=2))


# BYOL


def test_byol() -> None:
    model, views = made("byol"), images(2)

    def oracle() -> Tensor:
        total = torch.zeros(())
        for mine, other in ((0, 1), (1, 0)):
            p = normal(model.encoder.predictor(embed(model.encoder, views[mine])))
            with torch.no_grad():
                z = normal(embed(model.key_encoder.encoder, views[other]))
            total = total + sum((p[i] - z[i]).pow(2).sum() for i in range(B)) / B
        return total

    same(model, views, oracle)


def test_byol_target_starts_elsewhere_and_momentum_follows_its_cosine() -> None:
    start = "method.key_encoder.init=random"  # the paper's; the preset copies
    model = made("byol", start, "method.key_encoder.momentum={kind: cosine, start: 0.9, end: 1.0}")
    online, target = model.encoder.projector[0].weight, model.key_encoder.encoder.projector[0].weight
    assert not torch.equal(online, target)
    before = target.clone()
    moment = step(50)
    model.update(model(images(2), SAMPLE, moment).keys, moment)
    m = 1 - 0.1 * (1 + math.cos(math.pi * 0.5)) / 2
    torch.testing.assert_close(target, m * before + (1 - m) * online)


# Barlow Twins and VICReg

EXPANDER = "method.encoder.projector=[{width: 12, norm: batch, activation: relu}, {width: 10, bias: false}]"


def test_barlow_twins() -> None:
    model, views = made("barlow", EXPANDER), images(2)

    def oracle() -> Tensor:
        one, other = (embed(model.encoder, views[view]) for view in (0, 1))
        a, b = (
            torch.stack([(z[:, d] - z[:, d].mean()) / (z[:, d].var(correction=0) + 1e-5).sqrt() for d in range(10)], 1)
            for z in (one, other)
        )
        total = torch.zeros(())
        for i in range(10):
            for j in range(10):
                c = sum(a[n, i] * b[n, j] for n in range(B)) / B
                total = total + ((1 - c) ** 2 if i == j else 0.0051 * c**2)
        return total

    same(model, views, oracle)


def test_vicreg() -> None:
    model, views = made("vicreg", EXPANDER), images(2)

    def oracle() -> Tensor:
        x, y = (embed(model.encoder, views[view]) for view in (0, 1))
        total = 25 * F.mse_loss(x, y)
        for z in (x, y):
            total = total + 25 * torch.relu(1 - torch.sqrt(z.var(dim=0) + 1e-4)).mean() / 2
            covariance = torch.cov(z.T)
            total = total + sum(covariance[i, j] ** 2 for i in range(10) for j in range(10) if i != j) / 10
        return total

    same(model, views, oracle)


# SupCon


@pytest.mark.parametrize("positives", ["outside", "inside"])
def test_supcon(positives: str) -> None:
    model, views = made("supcon", f"method.loss.positives={positives}"), images(2)
    label = [LABELS[index] for index in SAMPLE.tolist()] * 2

    def oracle() -> Tensor:
        z = normal(embed(model.encoder, torch.cat([views[0], views[1]])))
        total = torch.zeros(())
        for i in range(2 * B):
            others = [j for j in range(2 * B) if j != i]
            log_p = {
                j: z[i] @ z[j] / 0.1 - torch.logsumexp(torch.stack([z[i] @ z[k] / 0.1 for k in others]), 0)
                for j in others
            }
            right = torch.stack([log_p[j] for j in others if label[j] == label[i]])
            total = total - (right.mean() if positives == "outside" else right.exp().mean().log())
        return total / (2 * B) * 0.1 / 0.07

    same(model, views, oracle)


def test_supcon_equals_pytorch_metric_learning() -> None:
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    model, views = made("supcon", "method.loss.base_temperature=null"), images(2)
    label = torch.tensor([LABELS[index] for index in SAMPLE.tolist()]).repeat(2)

    def oracle() -> Tensor:
        z = embed(model.encoder, torch.cat([views[0], views[1]]))
        loss: Tensor = losses.SupConLoss(temperature=0.1)(z, label)
        return loss

    same(model, views, oracle)
