"""InvaSpread's loss where its input is at its limits, and with other dictionaries."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from contralex.lookup.clock import Clock
from contralex.plugin import ContralexError, Dictionary, Rows, Step, Targets
from contralex.recipes.layers import resolve
from contralex.training import build
from contralex_invaspread.loss import SpreadLoss

STEP = Step(Clock(0, 10, 5), seed=0, batch=4)


def spread(
    scores: list[list[float]], place: list[int], mask: Tensor | None = None, m: float = 1.0
) -> tuple[Tensor, Tensor]:
    """The loss, and its gradient by the scores (N, M): the entries are unit axes, so that queries are scores."""
    vectors = torch.tensor(scores, requires_grad=True)
    queries = Rows.from_view(vectors, torch.arange(len(scores)), 0)
    entries = torch.eye(vectors.shape[1])
    loss = SpreadLoss(temperature=1.0, m=m)
    found = loss(queries, Dictionary(shared=entries, mask=mask), Targets(index=torch.tensor(place)), STEP)
    found.backward()
    assert vectors.grad is not None
    return found.detach(), vectors.grad


def precise(scores: list[list[float]], place: list[int], m: float = 1.0) -> tuple[Tensor, Tensor]:
    """The same in 64 bits: 1 − P is a sum of the others' exponentials, whole."""
    vectors = torch.tensor(scores, dtype=torch.float64, requires_grad=True)
    total = torch.zeros((), dtype=torch.float64)
    for row, own in zip(vectors, place, strict=True):
        e = torch.exp(row - row.max().detach())
        wrong = [j for j in range(len(e)) if j != own]
        denominator = e[own] + m * sum(e[j] for j in wrong)
        total = total - torch.log(e[own] / denominator)
        for j in wrong:
            left = e[own] + (m - 1) * e[j] + m * sum(e[k] for k in wrong if k != j)
            total = total - m * torch.log(left / denominator)
    total = total / len(vectors)
    total.backward()
    assert vectors.grad is not None
    return total.detach(), vectors.grad


@pytest.mark.parametrize("m", [1.0, 2.0])
@pytest.mark.parametrize(
    "row",
    [
        [10.0, -10.0, -10.0, -10.0],  # all is well
        [-10.0, 10.0, -10.0, -10.0],  # one wrong entry has all but e⁻²⁰: 1 − P is zero in float32
        [-10.0, 10.0, 10.0, -10.0],  # two share it
        [-40.0, 40.0, 39.0, -40.0],
        [0.0, 0.0, 0.0, 0.0],
    ],
)
def test_it_is_exact_where_one_entry_has_nearly_all(row: list[float], m: float) -> None:
    (found, grad), (expected, by_hand) = spread([row], [0], m=m), precise([row], [0], m)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(grad.double(), by_hand, rtol=1e-5, atol=1e-6)


def test_masked_entries_are_none() -> None:
    mask = torch.tensor([[True, True, False, True], [True, False, True, True]])
    found, grad = spread([[1.0, 2.0, 9.0, 0.5], [0.3, 7.0, 1.0, -1.0]], [0, 2], mask)
    expected, by_hand = precise([[1.0, 2.0, 0.5], [0.3, 1.0, -1.0]], [0, 1])
    torch.testing.assert_close(found.double(), expected)
    assert grad[0, 2] == grad[1, 1] == 0
    torch.testing.assert_close(grad[mask].double(), by_hand.flatten())


def test_nothing_is_wrong_where_nothing_but_the_positive_is_left() -> None:
    mask = torch.tensor([[True, False]])
    found, grad = spread([[3.0, 5.0]], [0], mask)
    assert found == 0 and bool((grad == 0).all())


def test_every_wrong_entry_is_pushed_by_a_term_of_its_own() -> None:
    """Two wrong entries: softmax cross-entropy alone would give log 3 where all are equal."""
    found, grad = spread([[0.0, 0.0, 0.0]], [0])
    assert math.isclose(float(found), math.log(3) - 2 * math.log(2 / 3), rel_tol=1e-6)
    torch.testing.assert_close(grad, torch.tensor([[-1.0, 0.5, 0.5]]))


@pytest.mark.parametrize(
    "negatives",
    [
        "{kind: in_batch, views: matched}",
        "{kind: queue, size: 24}",
        "{kind: memory_bank, draws: 8}",
        "{kind: memory_bank, draws: 0}",
    ],
)
def test_it_takes_any_dictionary_in_which_the_sample_has_a_place(negatives: str) -> None:
    small = "method.encoder.backbone={kind: conv, widths: [6, 8], strides: [2, 2]}"
    run = resolve(
        "invaspread", preset="digits", sets=[small, "train.batch_size=8", f"method.negatives={negatives}"]
    ).run
    model = build.look_up(run, 40).train()
    views = {view: torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(view)) for view in (0, 1)}
    loss = model(views, torch.arange(8), Step(Clock(0, 10, 5), seed=0, batch=8)).loss
    loss.backward()
    assert loss.isfinite() and loss > 0
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())


def test_what_cannot_work_is_refused() -> None:
    for change, sentence in (
        ("method.loss.m=0.5", "method.loss.m.*1"),
        ("method.loss.temperature=0", "a temperature stays between 0.0001 and 1000"),
        ("method.negatives=none", "needs positive from method.negatives"),
        ("method.targets=key_vector", "needs index from method.targets"),
    ):
        with pytest.raises(ContralexError, match=sentence):
            resolve("invaspread", preset="digits", sets=[change])


def test_the_rate_is_that_of_the_code_relative_to_its_start() -> None:
    rate = resolve("invaspread").run.train.optimizer.lr
    found = [rate.value(Clock(epoch, 301, 1)) / 0.03 for epoch in (0, 119, 120, 159, 160, 199, 200, 300)]  # type: ignore[union-attr]
    assert found == pytest.approx([1, 1, 0.1, 0.1, 0.05, 0.05, 0.01, 0.01])
