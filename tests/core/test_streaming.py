"""What a dictionary answers tile by tile, beside the plain formula on all scores in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from contralex.lookup import own_entries, streaming, twins
from contralex.lookup.clock import Clock
from contralex.lookup.entries import Entries
from contralex.lookup.own_entries import DrawnEntries, read_own
from contralex.lookup.shards import Shards
from contralex.lookup.twins import Twins
from contralex.lookup.weights import DenseWeights
from contralex.plugin import (
    Backbone,
    Dictionary,
    ImageEncoder,
    InBatchSource,
    InfoNCE,
    InstanceTargets,
    LookUp,
    Match,
    PrototypeSource,
    QueueSource,
    Rows,
    SharedKeyEncoder,
    SoftCrossEntropy,
    Step,
    TargetGenerator,
    Targets,
)

N, P, M, D = 37, 3, 113, 24
STEP = Step(Clock(0, 10, 5), seed=0, batch=N)


@pytest.fixture(params=["tiles", "one tile"])
def tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Tiles that end in the middle of queries and entries, or one, whose scores are kept."""
    monkeypatch.setattr(streaming, "_ROWS", 16)
    monkeypatch.setattr(streaming, "_COLUMNS", 50)
    monkeypatch.setattr(own_entries, "_NUMBERS", 4 * P * D)
    monkeypatch.setattr(streaming, "KEPT", 0 if request.param == "tiles" else N * M)
    return str(request.param)


def units(*shape: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


OWN, SHARED, QUERIES = units(N, P, D, seed=1), units(M, D, seed=2), units(N, D, seed=3)
INDEX = torch.arange(N) * 3 % M
BESIDE = (INDEX + 7) % M
MASK = torch.rand(N, M, generator=torch.Generator().manual_seed(4)) > 0.2
MASK[torch.arange(N), INDEX] = True
DRAWN = torch.randint(M, (N, P), generator=torch.Generator().manual_seed(6))
OTHER = units(M, D, seed=7).bfloat16()
LONE = MASK.clone()
LONE[5] = torch.arange(M) == INDEX[5]  # a query that sees nothing but its positive

FORMS: dict[str, tuple[dict[str, Any], Tensor]] = {
    "shared": ({"shared": SHARED}, INDEX),
    "shared, hidden": ({"shared": SHARED, "hidden": torch.where(INDEX % 2 == 0, BESIDE, -1)}, INDEX),
    "shared, mask": ({"shared": SHARED, "mask": MASK}, INDEX),
    "nothing else to see": ({"shared": SHARED, "mask": LONE}, INDEX),
    "own": ({"own": OWN}, INDEX % P),
    "own, mask": ({"own": OWN, "mask": MASK[:, :P] | (torch.arange(P) == 0)}, 0 * INDEX),
    "own and shared": ({"own": OWN, "shared": SHARED}, 0 * INDEX),
    "own of one and shared": ({"own": OWN[:, :1], "shared": SHARED}, 0 * INDEX),
    "own and shared, found in both": ({"own": OWN, "shared": SHARED}, torch.where(INDEX % 2 == 0, 1, INDEX + P)),
    "own and shared, hidden": ({"own": OWN, "shared": SHARED, "hidden": INDEX % (M + P)}, (INDEX + 1) % (M + P)),
    "shards": ({"shards": Shards(SHARED, M)}, INDEX),
    "own and shards": ({"own": OWN, "shards": Shards(SHARED, M)}, torch.where(INDEX % 2 == 0, 1, INDEX + P)),
    "shards, hidden": ({"shards": Shards(SHARED, M), "hidden": torch.where(INDEX % 2 == 0, BESIDE, -1)}, INDEX),
    "shards, mask": ({"shards": Shards(SHARED, M), "mask": MASK}, INDEX),
    "shared and shards": (
        {"shared": OTHER.float(), "shards": Shards(SHARED, M)},
        torch.where(INDEX % 2 == 0, INDEX, INDEX + M),
    ),
    "drawn": ({"own": DrawnEntries(SHARED, DRAWN)}, INDEX % P),
    "drawn, mask": ({"own": DrawnEntries(SHARED, DRAWN), "mask": LONE[:, :P] | (torch.arange(P) == 1)}, 0 * INDEX + 1),
    "drawn and shared": ({"own": DrawnEntries(OTHER, DRAWN), "shared": SHARED}, torch.where(INDEX % 2 == 0, 1, INDEX)),
    "stored": ({"stored": SHARED}, INDEX),
    "stored in bfloat16": ({"own": OWN[:, :1], "stored": SHARED.bfloat16()}, 0 * INDEX),
}


def plain(queries: Tensor, parts: dict[str, Any]) -> Tensor:
    """(N, P+M) scores, as the dictionary's definition says."""
    tables = [parts[name] for name in ("shared", "stored") if name in parts]
    if "shards" in parts:
        tables.append(parts["shards"].part)
    scores = []
    if "own" in parts:
        scores.append((queries[:, None] * read_own(parts["own"]).double()).sum(dim=2))
    scores += [queries @ table.double().T for table in tables]
    together = torch.cat(scores, dim=1)
    if "mask" in parts:
        together = together.masked_fill(~parts["mask"], float("-inf"))
    if "hidden" in parts:
        here = torch.arange(together.shape[1]) == parts["hidden"].unsqueeze(1)
        together = together.masked_fill(here, float("-inf"))
    return together


def trained(parts: dict[str, Any], names: tuple[str, ...], dtype: torch.dtype) -> dict[str, Any]:
    """The parts, with those that are learned as leaves of ``dtype``."""
    leaves = {name: parts[name] for name in names if isinstance(parts.get(name), Tensor)}
    return parts | {name: leaf.to(dtype).clone().requires_grad_() for name, leaf in leaves.items()}


def close(found: Tensor | None, wanted: Tensor | None, bound: float) -> None:
    assert found is not None and wanted is not None and found.isfinite().all()
    assert float((found.double() - wanted).norm()) <= bound * float(wanted.norm()) + 1e-12


@pytest.mark.parametrize("learned", [("own", "shared"), ()], ids=["entries learn", "entries are fixed"])
@pytest.mark.parametrize("temperature", [1.0, 0.1])
@pytest.mark.parametrize("form", FORMS)
def test_cross_entropy_is_the_plain_one(form: str, temperature: float, learned: tuple[str, ...], tiles: str) -> None:
    parts, index = FORMS[form]
    factor = torch.linspace(0.5, 2, N)
    queries, mine = QUERIES.clone().requires_grad_(), trained(parts, learned, torch.float32)
    found = Dictionary(**mine).cross_entropy(queries, index, temperature)
    (found * factor).sum().backward()
    exact, theirs = QUERIES.double().requires_grad_(), trained(parts, learned, torch.float64)
    wanted = F.cross_entropy(plain(exact, theirs) / temperature, index, reduction="none")
    (wanted * factor).sum().backward()
    assert found.dtype == torch.float32
    close(found.detach(), wanted.detach(), 1e-6)
    close(queries.grad, exact.grad, 1e-6)
    for name in learned:
        if isinstance(parts.get(name), Tensor):
            close(mine[name].grad, theirs[name].grad, 1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_the_best_entry_is_that_of_the_scores(form: str, tiles: str) -> None:
    parts, index = FORMS[form]
    best = Dictionary(**parts).scores(QUERIES).argmax(dim=1)
    assert torch.equal(Dictionary(**parts).find_best(QUERIES), best)
    for asked in (index, best):
        dictionary = Dictionary(**parts)
        dictionary.cross_entropy(QUERIES, asked, 0.1)
        assert torch.equal(dictionary.finds(QUERIES, asked), best == asked)
        assert torch.equal(Dictionary(**parts).finds(QUERIES, asked), best == asked)


def test_of_equal_scores_the_first_is_the_best(tiles: str) -> None:
    """A collapsed encoder finds its key by chance alone, and the figure has to say so."""
    same = torch.ones(N, D) / D**0.5
    dictionary = Dictionary(shared=torch.cat([same, same])[: 2 * N])
    index = torch.arange(N)
    dictionary.cross_entropy(same, index, 0.1)
    assert dictionary.finds(same, index).sum() == 1 and dictionary.finds(same, index)[0]


@pytest.mark.parametrize("learned", [True, False])
def test_aligned_pairs_at_a_low_temperature_keep_their_digits(learned: bool, tiles: str) -> None:
    """The loss is about 1e-17, where 1 − p is 0 in float32."""
    entries = torch.eye(D)
    queries = entries.clone().requires_grad_()
    shared = entries.clone().requires_grad_(learned)
    found = Dictionary(shared=shared).cross_entropy(queries, torch.arange(D), 0.02)
    found.sum().backward()
    exact = entries.double().requires_grad_()
    others = (exact @ entries.double().T / 0.02).fill_diagonal_(float("-inf")).logsumexp(dim=1)
    wanted = F.softplus(others - (exact * entries.double()).sum(dim=1) / 0.02, threshold=100)
    wanted.sum().backward()
    assert 0 < float(wanted.detach().max()) < 1e-17
    close(found.detach(), wanted.detach(), 1e-5)
    close(queries.grad, exact.grad, 1e-5)
    if learned:
        close(shared.grad, exact.grad.T, 1e-5)  # type: ignore[union-attr]


def test_float64_is_answered_in_float64(tiles: str) -> None:
    queries, shared = QUERIES.double().requires_grad_(), SHARED.double().requires_grad_()
    found = Dictionary(shared=shared).cross_entropy(queries, INDEX, 0.1)
    exact, entries = QUERIES.double().requires_grad_(), SHARED.double().requires_grad_()
    wanted = F.cross_entropy(exact @ entries.T / 0.1, INDEX, reduction="none")
    for loss in (found, wanted):
        assert loss.dtype == torch.float64
        loss.sum().backward()
    torch.testing.assert_close(found, wanted, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(queries.grad, exact.grad, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(shared.grad, entries.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_a_learned_temperature_gets_its_gradient(form: str, tiles: str) -> None:
    parts, index = FORMS[form]
    mine, theirs = (torch.tensor(0.3, dtype=dtype, requires_grad=True) for dtype in (torch.float32, torch.float64))
    scores = plain(QUERIES.double(), parts)
    absent = scores == float("-inf")
    divided = (scores.masked_fill(absent, 0) / theirs).masked_fill(absent, float("-inf"))
    (wanted,) = torch.autograd.grad(F.cross_entropy(divided, index), theirs, retain_graph=True)
    (found,) = torch.autograd.grad(Dictionary(**parts).cross_entropy(QUERIES, index, mine).mean(), mine)
    close(found, wanted, 1e-5)
    weights = F.one_hot(index, scores.shape[1]).float()
    (found,) = torch.autograd.grad(Dictionary(**parts).soft_cross_entropy(QUERIES, weights, mine).mean(), mine)
    close(found, wanted, 1e-5)
    sums = torch.autograd.grad(divided.logsumexp(dim=1).mean(), theirs)
    (found,) = torch.autograd.grad(Dictionary(**parts).log_sum_exp(QUERIES, mine).mean(), mine)
    close(found, sums[0], 1e-5)


def test_a_hidden_positive_costs_without_end(tiles: str) -> None:
    assert Dictionary(shared=SHARED, hidden=INDEX).cross_entropy(QUERIES, INDEX).isinf().all()


@pytest.mark.parametrize("index", [-1, M])
def test_an_entry_that_is_not_there_is_refused(index: int) -> None:
    with pytest.raises(IndexError, match=f"^a query should find entry {index}, and there are {M}, counted from 0$"):
        Dictionary(shared=SHARED).cross_entropy(QUERIES, torch.where(INDEX == 0, index, INDEX))


@pytest.mark.parametrize("learned", [True, False])
def test_a_second_derivative_is_refused(learned: bool, tiles: str) -> None:
    queries = QUERIES.clone().requires_grad_()
    loss = Dictionary(shared=SHARED.clone().requires_grad_(learned)).cross_entropy(queries, INDEX).sum()
    with pytest.raises(RuntimeError, match=r"^the streaming look-up has no second derivative: .*dictionary.scores"):
        torch.autograd.grad(loss, queries, create_graph=True)


def test_backward_may_be_called_twice(tiles: str) -> None:
    queries, shared = QUERIES.clone().requires_grad_(), SHARED.clone().requires_grad_()
    loss = Dictionary(shared=shared).cross_entropy(queries, INDEX, 0.1).sum()
    first = torch.autograd.grad(loss, (queries, shared), retain_graph=True)
    again = torch.autograd.grad(loss, (queries, shared))
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


# Weights, and the sigmoid

WEIGHTS = torch.rand(N, M, generator=torch.Generator().manual_seed(5)) * (torch.arange(M) % 5 == 0)
WEIGHTS = WEIGHTS / WEIGHTS.sum(dim=1, keepdim=True)
WEIGHTS[3] = 0  # a query that is to find nothing
WEIGHED: dict[str, tuple[dict[str, Any], Tensor]] = {
    "shared": ({"shared": SHARED}, WEIGHTS),
    "shared, hidden": ({"shared": SHARED, "hidden": INDEX - INDEX % 5 + 1}, WEIGHTS),
    "shared, mask": ({"shared": SHARED, "mask": (WEIGHTS > 0) | MASK}, WEIGHTS),
    "nothing to see": ({"shared": SHARED, "mask": WEIGHTS > 0}, WEIGHTS),
    "own and shared": ({"own": OWN, "shared": SHARED}, torch.cat([0 * WEIGHTS[:, :P], WEIGHTS], dim=1)),
    "own and shared, nothing to see": (
        {"own": OWN, "shared": SHARED, "mask": torch.cat([WEIGHTS[:, :P] < 0, WEIGHTS > 0], dim=1)},
        torch.cat([0 * WEIGHTS[:, :P], WEIGHTS], dim=1),
    ),
    "shards": ({"shards": Shards(SHARED, M)}, WEIGHTS),
    "shards, mask": ({"shards": Shards(SHARED, M), "mask": (WEIGHTS > 0) | MASK}, WEIGHTS),
    "stored": ({"stored": SHARED}, WEIGHTS),
}


@pytest.mark.parametrize("learned", [("own", "shared"), ()], ids=["entries learn", "entries are fixed"])
@pytest.mark.parametrize("temperature", [1.0, 0.1])
@pytest.mark.parametrize("form", WEIGHED)
def test_soft_cross_entropy_is_the_plain_one(
    form: str, temperature: float, learned: tuple[str, ...], tiles: str
) -> None:
    parts, weights = WEIGHED[form]
    factor = torch.linspace(0.5, 2, N)
    queries, mine = QUERIES.clone().requires_grad_(), trained(parts, learned, torch.float32)
    dictionary = Dictionary(**mine)
    found = dictionary.soft_cross_entropy(queries, weights, temperature)
    sums = dictionary.log_sum_exp(queries, temperature, weights)
    both = dictionary.log_sum_exp(queries, temperature)
    seen = weights.sum(dim=1) > 0
    ((found + both.masked_fill(~seen, 0) - sums.masked_fill(~seen, 0)) * factor).sum().backward()
    exact, theirs = QUERIES.double().requires_grad_(), trained(parts, learned, torch.float64)
    scores = plain(exact, theirs) / temperature
    log_p = scores.log_softmax(dim=1)[seen]
    wanted = -(weights[seen].double() * log_p.masked_fill(weights[seen] == 0, 0)).sum(dim=1)
    inside = -(log_p + weights[seen].double().log()).logsumexp(dim=1)
    ((wanted + inside) * factor[seen]).sum().backward()
    close(found.detach()[seen], wanted.detach(), 1e-6)
    assert (found[~seen] == 0).all() and (sums[~seen] == float("-inf")).all()
    close((both - sums).detach()[seen], inside.detach(), 1e-6)
    close(queries.grad, exact.grad, 1e-6)
    for name in learned:
        if isinstance(parts.get(name), Tensor):
            close(mine[name].grad, theirs[name].grad, 1e-6)
    assert torch.equal(dictionary.find_best(queries)[seen], scores.argmax(dim=1)[seen])


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("form", ["shared", "shared, hidden", "shared, mask", "stored", "shards"])
def test_each_group_has_a_softmax_of_its_own(form: str, tiled: bool, tiles: str) -> None:
    groups, size = 4, 28
    parts = {name: part[..., : groups * size] if name == "mask" else part for name, part in WEIGHED[form][0].items()}
    for name in ("shared", "stored"):
        if name in parts:
            parts[name] = parts[name][: groups * size].clone().requires_grad_(name == "shared")
    if "shards" in parts:
        parts["shards"] = Shards(SHARED[: groups * size], groups * size)
    weights = WEIGHTS[:, : groups * size]
    queries, exact = QUERIES.clone().requires_grad_(), QUERIES.double().requires_grad_()
    dictionary = Dictionary(**parts)
    found = dictionary.soft_cross_entropy(queries, DenseWeights(weights) if tiled else weights, 0.1, groups=groups)
    found.sum().backward()
    scores = plain(exact, parts) / 0.1
    log_p = scores.unflatten(1, (groups, size)).log_softmax(dim=2).flatten(1).masked_fill(weights == 0, 0)
    wanted = -(weights.double() * log_p).sum(dim=1)
    (of_queries,) = torch.autograd.grad(wanted.sum(), exact)
    close(found.detach(), wanted.detach(), 1e-6)
    close(queries.grad, of_queries, 1e-6)
    assert torch.equal(dictionary.find_best(queries), scores.argmax(dim=1))


def test_groups_are_of_equal_size() -> None:
    with pytest.raises(ValueError, match=r"^113 entries do not divide into 2 groups of equal size$"):
        Dictionary(shared=SHARED).soft_cross_entropy(QUERIES, WEIGHTS, groups=2)


def count_products(compute: Callable[[], object]) -> int:
    """Products of at least N·M scores, or of as many weights with entries, that ``compute`` makes."""
    counted = 0

    class Counter(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal counted
            counted += function in (torch.ops.aten.mm.default, torch.ops.aten.mm.out, torch.ops.aten.addmm_.default)
            return function(*args, **(kwargs or {}))

    with Counter():  # type: ignore[no-untyped-call]
        compute()
    return counted


@pytest.mark.parametrize("learned", ["entries learn", "temperature learns", "neither"])
@pytest.mark.parametrize("temperature", [0.1, 0.02])
def test_matches_share_scores_and_mean_entries(temperature: float, learned: str, tiles: str) -> None:
    """Two views that each look up both targets, as in multi-crop."""
    views, weights = [QUERIES, units(N, D, seed=8)], [WEIGHTS, WEIGHTS.roll(5, dims=1)]
    factor, found, wanted = torch.linspace(0.5, 2, N), [], []  # type: ignore[var-annotated]

    def leaves(dtype: torch.dtype) -> tuple[list[Tensor], Tensor, Tensor]:
        asked = [view.to(dtype).clone().requires_grad_() for view in views]
        entries = SHARED.to(dtype).clone().requires_grad_(learned == "entries learn")
        return asked, entries, torch.tensor(temperature, dtype=dtype, requires_grad=learned == "temperature learns")

    asked, entries, divisor = leaves(torch.float32)
    cache: dict[Any, Any] = {}
    for queries in asked:
        for each in weights:
            dictionary = Dictionary(shared=entries)
            dictionary.share_answers(cache)
            divided_by = divisor if divisor.requires_grad else temperature
            loss = dictionary.soft_cross_entropy(queries, each, divided_by)
            assert torch.equal(dictionary.find_best(queries), (queries @ entries.T).argmax(dim=1))
            found.append(loss)
    exact, theirs, theirs_by = leaves(torch.float64)
    for queries in exact:
        log_p = (queries @ theirs.T / theirs_by).log_softmax(dim=1)
        wanted.extend(-(each.double() * log_p).sum(dim=1) for each in weights)
    for losses in (found, wanted):
        sum((loss * factor).sum() for loss in losses).backward()  # type: ignore[union-attr]
    close(torch.cat(found).detach(), torch.cat(wanted).detach(), 1e-6)
    for mine, other in zip([*asked, entries, divisor], [*exact, theirs, theirs_by], strict=True):
        if mine.requires_grad:
            close(mine.grad, other.grad, 1e-6)


def test_each_view_is_scored_once_and_each_target_averaged_once() -> None:
    entries, views = SHARED.clone().requires_grad_(), [QUERIES.clone().requires_grad_() for _ in range(3)]
    weights, cache = [WEIGHTS.clone(), WEIGHTS.clone()], {}  # type: ignore[var-annotated]

    def ask_all() -> None:
        for queries in views:
            for each in weights:
                dictionary = Dictionary(shared=entries)
                dictionary.share_answers(cache)
                dictionary.soft_cross_entropy(queries, each, 0.1)

    assert count_products(ask_all) == len(views) + len(weights)
    assert count_products(ask_all) == 0
    with torch.no_grad():
        entries.mul_(0.5)  # an optimiser's step
    assert count_products(ask_all) == len(views) + len(weights)


class SharedWeights(TargetGenerator):
    """One distribution for each key view."""

    def forward(self, queries: Rows, keys: Rows, dictionary: Dictionary, match: Match, step: Step) -> Targets:
        return step.cache.setdefault(match.key, Targets(weights=WEIGHTS.clone()))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("crops", "products"), [(2, 2), (5, 5 + 2)])
def test_matches_share_where_it_saves_products(crops: int, products: int) -> None:
    """Crops beyond the second are queries alone."""
    encoder = ImageEncoder(Backbone(torch.nn.Identity(), dim=D))
    matches = [Match(query, key) for query in range(crops) for key in (0, 1) if query != key]
    prototypes, loss = PrototypeSource(M, D), SoftCrossEntropy(0.1)
    method = LookUp(encoder, SharedKeyEncoder(gradient=False), prototypes, SharedWeights(), loss, matches=matches)
    step, views = Step(Clock(0, 10, 5), seed=0, batch=N), {view: units(N, D, seed=view) for view in range(crops)}
    queries, keys = method.encode(views, torch.arange(N), step)
    results = []

    def look_up() -> None:
        results.append(method.look_up(queries, keys, step))

    assert count_products(look_up) == products
    scores = [units(N, D, seed=match.query) @ prototypes.layer.weight.T / 0.1 for match in matches]
    wanted = torch.stack([-(WEIGHTS * each.log_softmax(dim=1)).sum(dim=1).mean() for each in scores]).mean()
    torch.testing.assert_close(results[0].loss, wanted)


def test_weights_that_learn_get_their_gradient() -> None:
    weights = WEIGHTS.clone().requires_grad_()
    loss = Dictionary(shared=SHARED).soft_cross_entropy(QUERIES, weights)
    loss.sum().backward()
    assert weights.grad is not None and bool(weights.grad.any())


@pytest.mark.parametrize("learned", [("shared", "own"), ()], ids=["entries learn", "entries are fixed"])
@pytest.mark.parametrize("form", ["shared", "shared, hidden", "shared, mask", "own and shared", "shards", "stored"])
def test_sigmoid_cross_entropy_is_the_plain_one(form: str, learned: tuple[str, ...], tiles: str) -> None:
    parts, index = FORMS[form]
    numbers = [torch.tensor([0.2, -3.0], dtype=dtype, requires_grad=True) for dtype in (torch.float32, torch.float64)]
    queries, mine = QUERIES.clone().requires_grad_(), trained(parts, learned, torch.float32)
    dictionary = Dictionary(**mine)
    found = dictionary.sigmoid_cross_entropy(queries, index, numbers[0][0], numbers[0][1])
    found.mean().backward()
    exact, theirs = QUERIES.double().requires_grad_(), trained(parts, learned, torch.float64)
    scores = plain(exact, theirs)
    absent = scores == float("-inf")
    logits = scores.masked_fill(absent, 0) / numbers[1][0] + numbers[1][1]
    sign = 2.0 * F.one_hot(index, scores.shape[1]) - 1
    wanted = F.softplus(-sign * logits, threshold=100).masked_fill(absent, 0).sum(dim=1)
    wanted.mean().backward()
    close(found.detach(), wanted.detach(), 1e-6)
    close(queries.grad, exact.grad, 1e-6)
    close(numbers[0].grad, numbers[1].grad, 2e-6)
    for name in learned:
        if isinstance(parts.get(name), Tensor):
            close(mine[name].grad, theirs[name].grad, 1e-6)
    assert torch.equal(dictionary.finds(queries, index), scores.argmax(dim=1) == index)


@pytest.mark.parametrize("form", ["own", "drawn"])
def test_a_fixed_bias_is_added_to_the_scores_of_own_entries(form: str, tiles: str) -> None:
    """As noise-contrastive estimation asks: the table may be written before the backward."""
    parts, index = FORMS[form]
    table = SHARED.clone()
    mine = {"own": DrawnEntries(table, DRAWN)} if form == "drawn" else parts
    queries, exact, bias = QUERIES.clone().requires_grad_(), QUERIES.double().requires_grad_(), torch.tensor(-7.5)
    dictionary = Dictionary(**mine)
    found = dictionary.sigmoid_cross_entropy(queries, index, 0.07, bias)
    sums = dictionary.log_sum_exp(queries, 0.07)
    assert torch.equal(dictionary.finds(queries, index), dictionary.scores(queries).argmax(dim=1) == index)
    table.zero_()
    (found + sums).sum().backward()
    logits = plain(exact, parts) / 0.07
    sign = 2.0 * F.one_hot(index, logits.shape[1]) - 1
    wanted = F.softplus(-sign * (logits + bias.double()), threshold=100).sum(dim=1)
    (wanted + logits.logsumexp(dim=1)).sum().backward()
    close(found.detach(), wanted.detach(), 1e-6)
    close(sums.detach(), logits.logsumexp(dim=1).detach(), 1e-6)
    close(queries.grad, exact.grad, 1e-6)
    asked = QUERIES.clone().requires_grad_()
    again = Dictionary(**parts).sigmoid_cross_entropy(asked, index, 0.07, bias).sum()
    with pytest.raises(RuntimeError, match=r"^the streaming look-up has no second derivative"):
        torch.autograd.grad(again, asked, create_graph=True)


# Two views that look each other up among all


def simclr(temperature: float, size: int = 4) -> LookUp:
    encoder = ImageEncoder(Backbone(torch.nn.Linear(size, D), dim=D), normalize=True)
    keys = SharedKeyEncoder(gradient=True)
    matches = [Match(0, 1), Match(1, 0)]
    return LookUp(encoder, keys, InBatchSource("all"), InstanceTargets(), InfoNCE(temperature), matches)


def two_views(vectors: Tensor) -> Rows:
    half = len(vectors) // 2
    rows = Rows.from_views({0: (vectors[:half], None), 1: (vectors[half:], None)}, torch.arange(half) + 5)
    return replace(rows, vectors=vectors)


@pytest.mark.parametrize("tile", [16, 1024])
@pytest.mark.parametrize("count", [2, 6, 2 * N])
@pytest.mark.parametrize("temperature", [0.5, 0.07])
def test_half_of_a_symmetric_matrix_is_enough(
    temperature: float, count: int, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twins, "_TILE", tile)
    monkeypatch.setattr(twins, "_SMALL", 70)  # on either side of the largest count
    monkeypatch.setattr(streaming, "KEPT", tile**2)
    monkeypatch.setattr(Entries, "cross_entropy", None)  # not asked
    vectors = units(count, D, seed=6)
    vectors[count // 2 :] = F.normalize(vectors[: count // 2] + vectors[count // 2 :], dim=1)
    mine, exact = vectors.clone().requires_grad_(), vectors.double().requires_grad_()
    rows, model = two_views(mine), simclr(temperature)
    found = model.look_up(rows, rows, STEP)
    found.loss.backward()
    scores = (exact @ exact.T / temperature).fill_diagonal_(float("-inf"))
    partner = (torch.arange(count) + count // 2) % count
    wanted = F.cross_entropy(scores, partner)
    wanted.backward()
    close(found.loss.detach(), wanted.detach(), 1e-6)
    close(mine.grad, exact.grad, 1e-6) if count > 2 else None
    assert float(found.accuracy) == float((scores.argmax(dim=1) == partner).float().mean())


def test_the_half_is_taken_in_training_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, views = simclr(0.2), {0: torch.randn(8, 4), 1: torch.randn(8, 4)}
    step, seen = Step(Clock(0, 10, 5), seed=0, batch=8), []
    for is_same in (True, False):
        model.key_encoder.passes_embeddings = is_same
        model.zero_grad()
        asked: list[bool] = []
        with mock.patch.object(Twins, "cross_entropy", autospec=True, side_effect=Twins.cross_entropy) as counted:
            result = model(views, torch.arange(8), step)
            asked.append(counted.called)
        assert asked == [is_same]
        result.loss.backward()
        seen.append([result.loss.detach(), result.accuracy, *(p.grad for p in model.parameters())])
    for one, other in zip(*seen, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_a_collapsed_batch_finds_by_chance_alone() -> None:
    rows = two_views(torch.ones(2 * N, D).mul(0.3).requires_grad_())
    found = simclr(0.2).look_up(rows, rows, STEP)
    found.loss.backward()
    assert float(found.accuracy) <= 2 / (2 * N)


@pytest.mark.parametrize("tile", [16, 1024])
@pytest.mark.parametrize("temperature", [0.1, 0.02, 0.003])
def test_one_pass_serves_both_directions_of_two_towers(
    temperature: float, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As CLIP's, with its learned temperature; where scores are large, their exponentials are taken in float64."""
    monkeypatch.setattr(twins, "_TILE", tile)
    monkeypatch.setattr(streaming, "KEPT", tile**2)
    monkeypatch.setattr(Entries, "cross_entropy", None)  # not asked
    vectors = units(2 * N, D, seed=6)
    vectors[N:] = F.normalize(0.3 * vectors[:N] + vectors[N:], dim=1)
    mine, exact = vectors.clone().requires_grad_(), vectors.double().requires_grad_()
    learned, wide = (torch.tensor(temperature, dtype=each, requires_grad=True) for each in (mine.dtype, exact.dtype))
    rows, source, losses, found = two_views(mine), InBatchSource("matched"), [], []
    both = Twins.find(rows, rows)
    assert both is not None
    for match in (Match(0, 1), Match(1, 0)):
        asked = rows.select_view(match.query)
        dictionary = source(asked, rows, match, STEP)
        dictionary.meet_twins(asked.vectors, both)
        index = dictionary.positives(asked, match)
        losses.append(dictionary.cross_entropy(asked.vectors, index, learned).mean())
        found.append(dictionary.finds(asked.vectors, index))
    (losses[0] + 2 * losses[1]).backward()
    scores = exact[:N] @ exact[N:].T / wide
    index = torch.arange(N)
    wanted = [F.cross_entropy(each, index) for each in (scores, scores.T)]
    (wanted[0] + 2 * wanted[1]).backward()
    bound = 1e-6 if temperature == 0.1 else 1e-5  # the scores themselves are rounded
    for loss, right in zip(losses, wanted, strict=True):
        close(loss.detach(), right.detach(), bound)
    close(mine.grad, exact.grad, bound)
    close(learned.grad, wide.grad, 2 * bound)
    assert torch.equal(found[0], scores.argmax(dim=1) == index) and torch.equal(found[1], scores.argmax(dim=0) == index)


@pytest.mark.parametrize("temperature", [0.02, 0.004])
def test_aligned_views_at_a_low_temperature_keep_their_digits(temperature: float) -> None:
    vectors = torch.eye(D).repeat(2, 1)
    mine, exact = vectors.clone().requires_grad_(), vectors.double().requires_grad_()
    rows, model = two_views(mine), simclr(temperature)
    with mock.patch.object(Entries, "cross_entropy", None):  # not asked
        loss = model.look_up(rows, rows, STEP).loss
    loss.backward()
    twin = (torch.arange(2 * D) + D) % (2 * D)
    scores = exact @ exact.T / temperature
    hidden = torch.zeros_like(scores).fill_diagonal_(float("-inf")).scatter(1, twin.unsqueeze(1), float("-inf"))
    wanted = F.softplus((scores + hidden).logsumexp(dim=1) - scores[torch.arange(2 * D), twin], threshold=1000).mean()
    wanted.backward()
    assert 0 < float(wanted.detach()) < 1e-17
    close(loss.detach(), wanted.detach(), 1e-5)
    close(mine.grad, exact.grad, 1e-5)


def test_scores_too_large_for_one_pass_are_summed_with_a_running_maximum() -> None:
    vectors = units(2 * N, D, seed=6)
    mine, exact = (20 * vectors).requires_grad_(), (20 * vectors.double()).requires_grad_()
    rows = two_views(mine)
    found = simclr(0.5).look_up(rows, rows, STEP).loss
    scores = (exact @ exact.T / 0.5).fill_diagonal_(float("-inf"))
    wanted = F.cross_entropy(scores, (torch.arange(2 * N) + N) % (2 * N))
    found.backward()
    wanted.backward()
    close(found.detach(), wanted.detach(), 1e-5)
    close(mine.grad, exact.grad, 1e-4)


def test_a_symmetric_batch_has_no_second_derivative_either() -> None:
    vectors = units(2 * N, D, seed=6).requires_grad_()
    rows = two_views(vectors)
    with pytest.raises(RuntimeError, match=r"^the streaming look-up has no second derivative"):
        torch.autograd.grad(simclr(0.5).look_up(rows, rows, STEP).loss, vectors, create_graph=True)


# A subclass with scores of its own


class Doubled(Dictionary):
    def scores(self, queries: Tensor) -> Tensor:
        return 2 * super().scores(queries)


def test_scores_of_a_subclass_answer_all_questions() -> None:
    dictionary = Doubled(shared=SHARED)
    wanted = F.cross_entropy(2 * QUERIES @ SHARED.T / 0.1, INDEX, reduction="none")
    torch.testing.assert_close(dictionary.cross_entropy(QUERIES, INDEX, 0.1), wanted)
    assert torch.equal(dictionary.finds(QUERIES, INDEX), (QUERIES @ SHARED.T).argmax(dim=1) == INDEX)


# A queue that is written before the backward


def test_a_queue_is_read_where_it_is_and_may_be_written_before_the_backward() -> None:
    rows = Rows.from_view(QUERIES, torch.arange(N), 0)
    source = QueueSource(64, D)
    grads = []
    for written in (False, True):
        queries = QUERIES.clone().requires_grad_()
        dictionary = source(rows, rows, Match(0, 0), STEP)
        loss = InfoNCE(0.2)(Rows.from_view(queries, rows.sample, 0), dictionary, Targets(index=0 * INDEX), STEP)
        if written:
            source.update(rows, STEP)
        loss.backward()
        grads.append(queries.grad)
    assert torch.equal(*grads)  # type: ignore[arg-type]


def test_a_queue_of_the_same_keys_is_read_once() -> None:
    vectors, match = torch.eye(N), Match(0, 0)
    rows, source = Rows.from_view(vectors, torch.arange(N), 0), QueueSource(64, N)
    source.update(rows, STEP)  # each query's key, which is its positive as well, and comes first as that
    dictionary = source(rows, rows, match, STEP)
    index = dictionary.positives(rows, match)
    dictionary.cross_entropy(vectors, index, 0.2)
    with mock.patch.object(Entries, "find_best", side_effect=AssertionError("a second pass")):
        assert dictionary.finds(vectors, index).all()
    assert (source(rows, rows, match, STEP).find_best(vectors) == index).all()


# Memory


class Largest(TorchDispatchMode):
    """The largest tensor, in bytes of its storage, that an operation within makes; views of what it reads are none."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        read = {each.untyped_storage().data_ptr() for each in args if isinstance(each, Tensor)}
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if (
                isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in read
            ):  # no view of what it reads
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return out


def largest(compute: Callable[[], Tensor]) -> int:
    with Largest() as seen:
        compute().backward()
    return int(seen.bytes)


@pytest.mark.parametrize("count", [2048, 4096])
@pytest.mark.parametrize("learned", [True, False])
def test_memory_grows_with_queries_plus_entries(count: int, learned: bool) -> None:
    dim = 16
    queries = units(count, dim, seed=0).requires_grad_()
    entries = units(count, dim, seed=1).requires_grad_(learned)
    index, factor = torch.arange(count), 4 * max(count * dim, streaming._ROWS * streaming._COLUMNS)
    loss = InfoNCE(0.1)
    step, targets = Step(Clock(0, 10, 5), seed=0, batch=count), Targets(index=index)
    rows = Rows.from_view(queries, index, 0)
    hidden = (index + 1) % count
    assert largest(lambda: loss(rows, Dictionary(shared=entries, hidden=hidden), targets, step)) <= factor
    assert largest(lambda: F.cross_entropy(queries @ entries.T, index)) >= 4 * count**2


def test_drawn_entries_are_read_a_few_queries_at_a_time() -> None:
    count, drawn, dim = 256, 64, 128
    queries, table = units(count, dim, seed=0).requires_grad_(), units(512, dim, seed=1)
    index = torch.randint(512, (count, drawn), generator=torch.Generator().manual_seed(2))

    def look_up(bias: float) -> Tensor:
        dictionary = Dictionary(own=DrawnEntries(table, index))
        found = dictionary.sigmoid_cross_entropy(queries, 0 * index[:, 0], 0.1, bias).sum()
        return found + dictionary.finds(queries, 0 * index[:, 0]).sum()

    assert largest(lambda: look_up(-5.0)) <= 4 * own_entries._NUMBERS < 4 * count * drawn * dim
    assert torch.equal(Dictionary(own=DrawnEntries(table, index)).read_own(3), table[index[:, 3]])


def test_a_queue_is_not_copied() -> None:
    size, dim = 8192, 64
    queries, index = units(8, dim, seed=0).requires_grad_(), torch.arange(8)
    rows, source = Rows.from_view(queries, index, 0), QueueSource(size, dim)
    step, targets = Step(Clock(0, 10, 5), seed=0, batch=8), Targets(index=0 * index)

    def look_up() -> Tensor:
        loss: Tensor = InfoNCE(0.2)(rows, source(rows, rows.detach(), Match(0, 0), step), targets, step)
        return loss

    assert largest(look_up) < 4 * size * dim / 4
