"""Tests of the kernels on any device. Without a GPU they need ``TRITON_INTERPRET=1`` before Triton is imported, so
``test_triton_sums.py`` runs them in a process of their own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.lookup import streaming, triton_sums
from contralex.lookup.streaming import Hidden, Others
from contralex.lookup.triton_sums import Blocks

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Queries, entries, dimensions, and indices that each query hides.
SHAPES = [(1, 1, 8, 0), (37, 113, 24, 0), (37, 113, 24, 1), (37, 113, 24, 2), (64, 64, 16, 1), (70, 33, 200, 2)]
SHAPES += [(16, 300, 64, 0), (90, 17, 128, 1), (3, 130, 256, 1)]


@pytest.fixture(autouse=True, params=[1, 7], ids=["one chunk", "chunks"])
def _kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels for every size, whose tiles end within queries and entries."""
    monkeypatch.setattr(triton_sums, "FORCED", True)
    monkeypatch.setattr(triton_sums, "PROGRAMS", request.param)
    monkeypatch.setattr(triton_sums, "BLOCKS", {128: Blocks(32, 16, 4, 2), 256: Blocks(16, 32, 4, 2)})


def make_units(count: int, dim: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=1).to(DEVICE)


def draw_indices(count: int, low: int, high: int, seed: int) -> Tensor:
    return torch.randint(low, high, (count,), generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def compare_plainly(queries: Tensor, entries: Tensor, picked: Tensor, hidden: tuple[Tensor, ...]) -> Others:
    """Written as all scores at once."""
    scores = queries @ entries.to(queries.dtype).T
    columns = torch.arange(len(entries), device=scores.device)
    for index in hidden:
        scores = scores.masked_fill(columns == index.unsqueeze(1), float("-inf"))
    is_picked = columns == picked.unsqueeze(1)
    own = scores.masked_fill(~is_picked, float("-inf")).amax(dim=1)
    others = scores.masked_fill(is_picked, float("-inf"))
    return Others(sum_or_nothing(others), own, own.detach(), others.detach().amax(dim=1))


def sum_or_nothing(scores: Tensor) -> Tensor:
    """log Σ exp, with a gradient of 0 where all are -inf."""
    none = (scores == float("-inf")).all(dim=1, keepdim=True)
    return scores.masked_fill(none, 0.0).logsumexp(dim=1).masked_fill(none.squeeze(1), float("-inf"))


def measure_loss(others: Others) -> Tensor:
    """The sum of −log softmax of the picked entries, with unequal weights, over the queries that find theirs."""
    finds = others.picked.isfinite() & others.sum.isfinite()
    gap = torch.where(finds, others.sum.double() - others.picked.double(), 0.0)
    return (F.softplus(gap, threshold=40.0) * torch.linspace(0.5, 2, len(gap), device=gap.device) * finds).sum()


def check_close(found: Tensor | None, wanted: Tensor | None, bound: float) -> None:
    assert found is not None and wanted is not None
    assert torch.equal(found.isneginf(), wanted.isneginf())
    found, wanted = (each.double().masked_fill(each.isneginf(), 0.0) for each in (found, wanted))
    assert float((found - wanted).norm()) <= bound * float(wanted.norm()) + 1e-12


def check_others(
    queries: Tensor, entries: Tensor, picked: Tensor, hidden: tuple[Tensor, ...], learns: bool, bound: float = 1e-6
) -> None:
    mine = queries.float().requires_grad_(), entries.clone().requires_grad_(learns)
    theirs = mine[0].detach().double().requires_grad_(), entries.double().requires_grad_(learns)
    found = streaming.sum_others(*mine, picked, Hidden(hidden))
    wanted = compare_plainly(*theirs, picked, hidden)
    losses = measure_loss(found), measure_loss(wanted)
    if losses[0].requires_grad:
        for loss in losses:
            loss.backward()
    for one, other in zip(found, wanted, strict=True):
        check_close(one.detach(), other.detach(), 1e-6)
    check_close(losses[0].detach(), losses[1].detach(), 1e-6)
    check_close(mine[0].grad, theirs[0].grad, bound)
    if learns:
        assert mine[1].grad is not None and mine[1].grad.dtype == entries.dtype
        check_close(mine[1].grad, theirs[1].grad, bound)


@pytest.mark.parametrize("learns", [True, False], ids=["entries learn", "entries are fixed"])
@pytest.mark.parametrize(("queries", "entries", "dim", "hides"), SHAPES)
def test_sums_and_gradients_are_the_plain_ones(queries: int, entries: int, dim: int, hides: int, learns: bool) -> None:
    hidden = tuple(draw_indices(queries, -2, entries + 2, seed=3 + at) for at in range(hides))
    picked = draw_indices(queries, -1, entries + 1, seed=7)
    check_others(make_units(queries, dim, 1) / 0.1, make_units(entries, dim, 2), picked, hidden, learns)


@pytest.mark.parametrize("learns", [True, False], ids=["entries learn", "entries are fixed"])
def test_aligned_pairs_at_a_low_temperature_keep_their_digits(learns: bool) -> None:
    vectors, index = make_units(80, 64, 1), torch.arange(80, device=DEVICE)
    close = F.normalize(vectors + 0.02 * make_units(80, 64, 2), dim=1)
    check_others(vectors / 0.02, close, index, (index.roll(1),), learns, bound=1e-5)


@pytest.mark.parametrize("learns", [True, False], ids=["entries learn", "entries are fixed"])
def test_a_query_that_sees_nothing_has_no_gradient(learns: bool) -> None:
    """Two entries: the picked one, and one that is hidden."""
    queries, entries = make_units(20, 32, 1), make_units(2, 32, 2)
    queries, entries = queries.requires_grad_(), entries.requires_grad_(learns)
    picked = torch.zeros(20, dtype=torch.long, device=DEVICE)
    found = streaming.sum_others(queries, entries, picked, Hidden((picked + 1,)))
    assert found.sum.isneginf().all() and found.best.isneginf().all() and found.picked.isfinite().all()
    F.softplus(found.sum - found.picked).sum().backward()
    assert queries.grad is not None and not queries.grad.any()
    both = streaming.sum_others(queries, entries, picked, Hidden((picked, picked + 1)))
    assert both.picked.isneginf().all() and both.rounded.isneginf().all()


@pytest.mark.parametrize("learns", [True, False], ids=["entries learn", "entries are fixed"])
@pytest.mark.parametrize("hides", [0, 2])
def test_the_logarithm_of_the_sum_and_the_best_entry(hides: int, learns: bool) -> None:
    queries, entries = make_units(37, 48, 1) * 20, make_units(113, 48, 2)
    hidden = tuple(draw_indices(37, -2, 113, seed=3 + at) for at in range(hides))
    mine = queries.clone().requires_grad_(), entries.clone().requires_grad_(learns)
    theirs = queries.double().requires_grad_(), entries.double().requires_grad_(learns)
    found, best = streaming.log_sum_exp_and_best(*mine, Hidden(hidden))
    assert torch.equal(streaming.log_sum_exp(*mine, None, Hidden(hidden)), found.float())
    scores = theirs[0] @ theirs[1].T
    for index in hidden:
        scores = scores.masked_fill(torch.arange(113, device=DEVICE) == index.unsqueeze(1), float("-inf"))
    assert torch.equal(best, scores.argmax(dim=1))
    check_close(found.detach(), scores.detach().logsumexp(dim=1), 1e-6)
    factor = torch.linspace(0.5, 2, 37, device=DEVICE)
    (found * factor).sum().backward()
    (scores.logsumexp(dim=1) * factor).sum().backward()
    for one, other in zip(mine[: 1 + learns], theirs, strict=False):
        check_close(one.grad, other.grad, 1e-6)


def test_of_equal_entries_the_first_is_the_best() -> None:
    entries = draw_indices(40 * 24, -2, 3, seed=1).view(40, 24).float().repeat(3, 1)
    queries = draw_indices(30 * 24, -2, 3, seed=2).view(30, 24).float()
    hidden = draw_indices(30, 0, 120, seed=3)
    scores = (queries @ entries.T).masked_fill(torch.arange(120, device=DEVICE) == hidden.unsqueeze(1), float("-inf"))
    firsts = [int((row == row.max()).nonzero()[0]) for row in scores]
    assert streaming.log_sum_exp_and_best(queries, entries, Hidden((hidden,)))[1].tolist() == firsts


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_entries_in_16_bits(dtype: torch.dtype) -> None:
    entries, picked = make_units(75, 40, 2).to(dtype), draw_indices(30, 0, 75, seed=3)
    check_others(make_units(30, 40, 1) / 0.1, entries, picked, (), learns=False)
    queries, table = make_units(30, 40, 1).requires_grad_(), entries.clone().requires_grad_()
    measure_loss(streaming.sum_others(queries, table, picked, Hidden())).backward()
    exact, wide = queries.detach().double().requires_grad_(), entries.double().requires_grad_()
    measure_loss(compare_plainly(exact, wide, picked, ())).backward()
    assert table.grad is not None and wide.grad is not None and table.grad.dtype == dtype
    assert torch.allclose(table.grad.double(), wide.grad, rtol=1e-2, atol=1e-6)


def test_a_table_may_be_written_before_backward() -> None:
    queries, entries, picked = make_units(20, 32, 1), make_units(50, 32, 2), draw_indices(20, 0, 50, seed=3)
    gradients = []
    for writes in (False, True):
        mine, table = queries.clone().requires_grad_(), entries.clone()
        loss = measure_loss(streaming.sum_others(mine, table, picked, Hidden()))
        if writes:
            table.zero_()
        loss.backward()
        gradients.append(mine.grad)
    assert gradients[0] is not None and gradients[1] is not None and torch.equal(gradients[0], gradients[1])


def test_only_what_needs_a_gradient_gets_one() -> None:
    queries, entries = make_units(20, 32, 1), make_units(50, 32, 2).requires_grad_()
    picked = draw_indices(20, 0, 50, seed=3)
    measure_loss(streaming.sum_others(queries, entries, picked, Hidden())).backward()
    assert entries.grad is not None and entries.grad.any() and queries.grad is None


def test_rows_may_lie_apart() -> None:
    """A part of a wider table, and vectors that lie across."""
    wide, across = make_units(60, 80, 2), make_units(24, 20, 1)
    check_others(across.T / 0.1, wide[5:45, 3:27], draw_indices(20, 0, 40, seed=3), (), learns=False)


def test_not_a_number_is_not_lost() -> None:
    queries = make_units(20, 32, 1)
    queries[3, 5] = float("nan")
    found = streaming.sum_others(queries, make_units(50, 32, 2), draw_indices(20, 0, 50, seed=3), Hidden())
    assert found.sum[3].isnan() and found.sum.isnan().sum() == 1
    if DEVICE == "cuda":  # the interpreter finds no largest number where one is none
        _, best = streaming.log_sum_exp_and_best(queries, make_units(50, 32, 2), Hidden())
        assert best.ge(0).all() and best.lt(50).all()


def test_twice_the_same_bits() -> None:
    queries, entries, picked = make_units(70, 48, 1), make_units(130, 48, 2), draw_indices(70, 0, 130, seed=3)
    found = []
    for _ in range(2):
        mine = queries.clone().requires_grad_(), entries.clone().requires_grad_()
        measure_loss(streaming.sum_others(*mine, picked, Hidden())).backward()
        found.append([each.grad for each in mine])
    for one, other in zip(*found, strict=True):
        assert one is not None and other is not None and torch.equal(one, other)


def test_no_second_derivative() -> None:
    queries = make_units(20, 32, 1).requires_grad_()
    loss = measure_loss(streaming.sum_others(queries, make_units(50, 32, 2), draw_indices(20, 0, 50, 3), Hidden()))
    with pytest.raises(RuntimeError, match=r"^the streaming look-up has no second derivative"):
        torch.autograd.grad(loss, queries, create_graph=True)
