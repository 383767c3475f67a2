"""NNCLR against loops, against third parties' formulas in whole matrices, and against pytorch-metric-learning."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.lookup.step import LookUp
from tests.parity.test_methods import SAMPLE, B, embed, images, made, normal, same, step

SIZE, TEMPERATURE = 24, 0.2
Views = dict[int, Tensor]
Oracle = Callable[[LookUp, Views], Tensor]


def trained(turns: int, symmetric: bool = False) -> LookUp:
    """After some steps, so that the support set holds keys beside random vectors."""
    loss = f"method.loss={{kind: neighbour_nce, temperature: {TEMPERATURE}, symmetric: {symmetric}}}"
    model = made("nnclr", f"method.targets.size={SIZE}", loss)
    support: Tensor = model.targets.support
    support.copy_(normal(support))  # drawn in float32, whose rounding some oracles take out and some do not
    for turn in range(turns):
        views = {view: x.roll(turn + 1, dims=0) ** (turn + 1) for view, x in images(2).items()}
        moment = step(turn)
        model.update(model(views, SAMPLE, moment).keys, moment)
    return model


def loops(model: LookUp, views: Views) -> Tensor:
    z = [normal(embed(model.encoder, views[view])).detach() for view in (0, 1)]
    p = [normal(model.encoder.predictor(embed(model.encoder, views[view]))) for view in (0, 1)]
    total = torch.zeros(())
    for key, query in ((0, 1), (1, 0)):
        for i in range(B):
            near = min(model.targets.support, key=lambda s: float((s - z[key][i]).pow(2).sum()))
            scores = torch.stack([near @ p[query][k] / TEMPERATURE for k in range(B)])
            total = total - (scores[i] - torch.logsumexp(scores, 0))
    return total / (2 * B)


def matrices(model: LookUp, views: Views) -> Tensor:
    """lightly's neighbours (argmax of normalised products), solo-learn's loss (rows of NN·pᵀ, the diagonal right)."""
    z = [embed(model.encoder, views[view]) for view in (0, 1)]
    p = [model.encoder.predictor(each) for each in z]
    bank = F.normalize(model.targets.support, dim=1)
    near = [bank[torch.einsum("nd,md->nm", F.normalize(each, dim=1), bank).argmax(dim=1)].detach() for each in z]
    halves = [
        F.cross_entropy(near[key] @ F.normalize(p[query], dim=1).T / TEMPERATURE, torch.arange(B))
        for key, query in ((0, 1), (1, 0))
    ]
    return (halves[0] + halves[1]) / 2


def metric_learning(model: LookUp, views: Views) -> Tensor:
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    criterion, places = losses.NTXentLoss(temperature=TEMPERATURE), torch.arange(B)
    z = [normal(embed(model.encoder, views[view])) for view in (0, 1)]
    p = [model.encoder.predictor(embed(model.encoder, views[view])) for view in (0, 1)]
    near = [model.targets.support[(each @ model.targets.support.T).argmax(dim=1)] for each in z]
    one, other = (criterion(near[k], places, ref_emb=p[1 - k], ref_labels=places.clone()) for k in (0, 1))
    loss: Tensor = (one + other) / 2
    return loss


@pytest.mark.parametrize("oracle", [loops, matrices, metric_learning])
@pytest.mark.parametrize("turns", [0, 2, 4])  # random vectors; keys beside them; keys that went round the end
def test_nnclr(oracle: Oracle, turns: int) -> None:
    model, views = trained(turns), images(2)
    same(model, views, lambda: oracle(model, views), step(9))


def vissl(model: LookUp, views: Views) -> Tensor:
    """Four blocks of scores, each of neighbours and predictions of opposite views, one mean over all their rows."""
    z = [normal(embed(model.encoder, views[view])).detach() for view in (0, 1)]
    p = [normal(model.encoder.predictor(embed(model.encoder, views[view]))) for view in (0, 1)]
    near = [model.targets.support[torch.cdist(each, model.targets.support).argmin(dim=1)] for each in z]
    blocks = [near[0] @ p[1].T, near[1] @ p[0].T, p[0] @ near[1].T, p[1] @ near[0].T]
    return F.cross_entropy(torch.cat(blocks) / TEMPERATURE, torch.arange(B).repeat(4))


@pytest.mark.parametrize("turns", [0, 4])
def test_nnclr_that_also_asks_the_other_way(turns: int) -> None:
    model, views = trained(turns, symmetric=True), images(2)
    same(model, views, lambda: vissl(model, views), step(9))


def test_the_softmax_is_over_queries_and_all_of_them_learn() -> None:
    model, views = trained(2), images(2)
    queries, keys = model.encode(views, SAMPLE, step(9))
    match = model.matches[0]
    asked = queries.select_view(match.query)
    dictionary = model.negatives(asked, keys, match, step(9))
    targets = model.targets(asked, keys, dictionary, match, step(9))
    vectors = asked.vectors.detach().requires_grad_()
    assert not targets.vectors.requires_grad
    only_first = F.cross_entropy(targets.vectors[:1] @ vectors.T / TEMPERATURE, torch.tensor([0]))
    only_first.backward()
    assert vectors.grad is not None and bool((vectors.grad.abs().sum(dim=1) > 0).all())  # negatives are pushed, too
