"""Barlow Twins, VICReg and SupCon against other people's implementations, and where their input is at its limits.

Naive loops over the same methods are in ``test_methods.py``. Here the oracles are the pseudocode of Barlow Twins on
torch's own BatchNorm, and pytorch-metric-learning; and the positives of SupCon are counted one by one, for every
kind of dictionary whose entries stand for samples.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contralex.lookup.step import LookUp
from contralex.plugin import ContralexError, Dictionary, Rows, Targets
from contralex.recipes.layers import resolve
from contralex.training import build
from tests.parity.test_methods import EXPANDER, LABELS, POPULATION, SAMPLE, SMALL, B, embed, images, made, same, step

# Barlow Twins and VICReg


def test_barlow_twins_is_the_papers_pseudocode() -> None:
    model, views = made("barlow", EXPANDER), images(2)
    standard = nn.BatchNorm1d(10, affine=False).double()

    def oracle() -> Tensor:
        one, other = (standard(embed(model.encoder, views[view])) for view in (0, 1))
        difference = (one.T @ other / B - torch.eye(10)).pow(2)
        off_diagonal = ~torch.eye(10, dtype=torch.bool)
        return torch.where(off_diagonal, 0.0051 * difference, difference).sum()

    same(model, views, oracle)


def test_vicreg_equals_pytorch_metric_learning() -> None:
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    model, views = made("vicreg", EXPANDER), images(2)

    def oracle() -> Tensor:
        one, other = (embed(model.encoder, views[view]) for view in (0, 1))
        loss: Tensor = losses.VICRegLoss(invariance_lambda=25, variance_mu=25, covariance_v=1)(one, ref_emb=other)
        return loss

    same(model, views, oracle)


@pytest.mark.parametrize("recipe", ["barlow", "vicreg"])
@pytest.mark.parametrize("rows", [1, 4])
def test_vectors_without_variance_give_a_finite_loss_and_gradient(recipe: str, rows: int) -> None:
    loss = made(recipe, EXPANDER).loss
    vectors = torch.ones(rows, 10, requires_grad=True)  # one sample, or the same vector for each
    queries = Rows.from_view(vectors, torch.arange(rows), view=0)
    found = loss(queries, Dictionary(), Targets(vectors=2 * vectors), step())
    found.backward()
    assert found.isfinite()
    assert vectors.grad is not None and vectors.grad.isfinite().all()


def test_what_cannot_work_is_refused() -> None:
    for recipe, change, sentence in (
        ("vicreg", "method.encoder.normalize=true", "needs any length from method.encoder"),
        ("vicreg", "method.key_encoder.gradient=false", "needs keys with gradient from method.key_encoder"),
        ("barlow", "method.key_encoder={kind: momentum, momentum: 0.9}", "needs keys with gradient"),
        ("barlow", "method.negatives={kind: queue, size: 8}", "needs no entries from method.negatives"),
        ("supcon", "method.negatives={kind: prototypes, count: 5}", "needs tagged entries from method.negatives"),
        ("supcon", "method.negatives={kind: memory_bank, draws: 4}", "needs tagged entries from method.negatives"),
        ("supcon", "method.loss={kind: info_nce, temperature: 0.1}", "needs index from method.targets"),
    ):
        with pytest.raises(ContralexError, match=sentence):
            resolve(recipe, preset="digits", sets=[change])


# SupCon


def test_supcon_outside_is_the_core_cross_entropy() -> None:
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    model, views = made("supcon", "method.loss={kind: soft_cross_entropy, temperature: 0.1}"), images(2)

    def oracle() -> Tensor:
        z = embed(model.encoder, torch.cat([views[0], views[1]]))
        label = torch.tensor([LABELS[index] for index in SAMPLE.tolist()])
        loss: Tensor = losses.SupConLoss(temperature=0.1)(z, label.repeat(2))
        return loss

    same(model, views, oracle)


def labelled(negatives: str, labels: list[int]) -> LookUp:
    sets = [*SMALL, f"method.negatives={negatives}"]
    return build.look_up(resolve("supcon", preset="digits", sets=sets).run, POPULATION, labels).double().train()


@pytest.mark.parametrize(
    "negatives",
    [
        "{kind: in_batch, views: all}",
        "{kind: in_batch, views: matched}",
        "{kind: queue, size: 24}",
        "{kind: memory_bank, draws: 0}",
    ],
)
def test_positives_are_all_entries_of_the_class(negatives: str) -> None:
    labels = [-1 if index % 4 == 0 else index % 3 for index in range(POPULATION)]
    labels[-1] = labels[int(SAMPLE[1])]  # a row of sample -1 must not be taken for the last sample
    model, views = labelled(negatives, labels), images(2)
    before = step()
    with torch.no_grad():  # 16 keys go into the queue, whose other 8 places stay unwritten
        model.update(model(views, SAMPLE + 2, before).keys, before)
    queries, keys = model.encode(views, SAMPLE, step(1))
    for match in model.matches:
        asked = queries.select_view(match.query)
        dictionary = model.negatives(asked, keys, match, step(1))
        weights = model.targets(asked, keys, dictionary, match, step(1)).weights
        own = dictionary.own.shape[1] if dictionary.has_own else 0
        assert weights.shape == (B, own + len(dictionary.rows))
        for row, mine in zip(weights, asked.sample.tolist(), strict=True):
            right = [True] * own
            for theirs, view in zip(dictionary.rows.sample.tolist(), dictionary.rows.view.tolist(), strict=True):
                itself = "all" in negatives and theirs == mine and view == match.query
                of_the_class = theirs >= 0 and labels[theirs] >= 0 and labels[theirs] == labels[mine]
                right.append((of_the_class or theirs == mine) and not itself)
            expected = torch.tensor(right, dtype=torch.float64)
            torch.testing.assert_close(row, expected / expected.sum())


def test_data_without_labels_are_refused_in_one_sentence() -> None:
    spec = resolve("supcon", preset="digits", sets=SMALL).run
    with pytest.raises(ContralexError, match="labels") as refusal:
        build.look_up(spec, POPULATION)
    assert str(refusal.value).count(". ") == 0


@pytest.mark.parametrize("positives", ["outside", "inside"])
def test_supcon_neither_underflows_nor_divides_by_nothing(positives: str) -> None:
    sets = ("method.loss.temperature=0.005", "method.loss.base_temperature=null")
    loss: Any = made("supcon", f"method.loss.positives={positives}", *sets).loss
    generator = torch.Generator().manual_seed(0)
    asked = F.normalize(torch.randn(3, 6, generator=generator), dim=1)
    entries = torch.cat([-asked, asked])  # the positives are as far from the query as can be: exp(-400) of the rest
    weights = torch.tensor([[1.0, 0, 0, 0, 0, 0], [0, 0.5, 0.5, 0, 0, 0], [0, 0, 0, 0, 0, 0]])  # the third has none
    vectors = asked.clone().requires_grad_()
    queries = Rows.from_view(vectors, torch.arange(3), view=0)
    found = loss(queries, Dictionary(shared=entries), Targets(weights=weights), step())
    found.backward()

    precise = asked.double().requires_grad_()
    log_p = F.log_softmax(precise @ entries.double().T / 0.005, dim=1)
    one, two = log_p[0, 0], log_p[1, 1:3]
    several = two.mean() if positives == "outside" else torch.logsumexp(two, 0) - torch.tensor(2.0).log()
    expected = -(one + several) / 3
    expected.backward()
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    assert vectors.grad is not None and precise.grad is not None
    torch.testing.assert_close(vectors.grad.double(), precise.grad, rtol=1e-5, atol=1e-4)
