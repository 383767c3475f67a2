"""NNCLR's support set: what it holds, when it is written, and that it is saved."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from contralex.lookup.clock import Clock
from contralex.lookup.step import LookUp
from contralex.lookup.values import Match
from contralex.plugin import ContralexError, Dictionary, Rows, Step
from contralex.recipes.layers import resolve
from contralex.training import build

B, SIZE = 6, 16
SETS = ["method.encoder.backbone={kind: conv, widths: [6, 8], strides: [2, 2]}", f"method.targets.size={SIZE}"]
SAMPLE = torch.arange(B)


def made(*sets: str) -> LookUp:
    torch.manual_seed(0)
    return build.look_up(resolve("nnclr", preset="digits", sets=[*SETS, *sets]).run, 40).train()


def step(number: int = 0) -> Step:
    return Step(Clock(number, 100, 10), seed=0, batch=B)


def keys_of(*views: torch.Tensor) -> Rows:
    return Rows.cat([Rows.from_view(vectors, SAMPLE[: len(vectors)], view) for view, vectors in enumerate(views)])


def unit(rows: int, dim: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_it_starts_as_unit_vectors() -> None:
    support = made().targets.support
    assert support.shape == (SIZE, 128)
    torch.testing.assert_close(support.norm(dim=1), torch.ones(SIZE))
    assert support.std() > 0.05  # and in all directions


def test_it_holds_the_last_keys_of_the_first_view_and_goes_round_at_its_end() -> None:
    targets = made().targets
    expected = targets.support.clone()
    place = 0
    for turn in range(5):  # 30 keys through 16 places
        first, second = unit(B, 128, turn), unit(B, 128, 100 + turn)
        targets.update(keys_of(first, second), step(turn))
        for key in first:
            expected[place % SIZE] = key
            place += 1
        assert torch.equal(targets.support, expected)
    assert int(targets.pointer) == 30 % SIZE


def test_a_batch_larger_than_it_leaves_its_newest_keys() -> None:
    targets = made("method.targets.size=4").targets
    first = unit(B, 128, 1)
    targets.update(keys_of(first, unit(B, 128, 2)), step())
    assert torch.equal(targets.support, first[-4:])


def neighbours(targets: torch.nn.Module, keys: Rows, match: Match) -> torch.Tensor:
    queries = Rows.from_view(torch.zeros(B, 128), SAMPLE, match.query)
    found: torch.Tensor = targets(queries, keys, Dictionary(), match, step()).vectors
    return found


def test_no_sample_is_its_own_neighbour_in_the_step_in_which_it_arrives() -> None:
    """Were the set written before the look-up, each key of view 0 would find itself: SimCLR with a stopped gradient."""
    model = made()
    views = {view: torch.rand(B, 3, 16, 16, generator=torch.Generator().manual_seed(view)) for view in (0, 1)}
    queries, keys = model.encode(views, SAMPLE, step())
    own = keys.select_view(0).vectors
    before = neighbours(model.targets, keys, Match(query=1, key=0))
    assert not bool(torch.isclose(before, own, atol=1e-4).all(dim=1).any())
    moment = step()
    found = model.look_up(queries, keys, moment)

    model.update(found.keys, moment)  # and now each is there, so the order of the two is all that keeps them apart
    after = neighbours(model.targets, keys, Match(query=1, key=0))
    torch.testing.assert_close(after, own)


def test_a_look_up_writes_nothing_and_what_it_finds_is_a_copy() -> None:
    targets = made().targets
    before = targets.support.clone()
    found = neighbours(targets, keys_of(unit(B, 128, 1), unit(B, 128, 2)), Match(query=1, key=0))
    assert torch.equal(targets.support, before)
    targets.support.zero_()
    assert found.norm() > 1


def test_it_is_part_of_the_state() -> None:
    model, other = made(), made()
    model.targets.update(keys_of(unit(B, 128, 1), unit(B, 128, 2)), step())
    assert not torch.equal(model.targets.support, other.targets.support)
    other.load_state_dict(model.state_dict())
    assert torch.equal(model.targets.support, other.targets.support)
    assert int(other.targets.pointer) == B


def test_what_cannot_work_is_refused() -> None:
    for change, sentence in (
        ("method.encoder.normalize=false", "needs unit length from method.encoder"),
        ("method.negatives={kind: queue, size: 8}", "needs no entries from method.negatives"),
        (
            "method.loss={kind: info_nce, temperature: 0.1}",
            "needs index from method.targets .* and entries from method.negatives",
        ),
        ("method.loss.temperature=0", "a temperature stays between 0.0001 and 1000"),
        ("method.targets.size=0", "method.targets.size"),
    ):
        with pytest.raises(ContralexError, match=sentence):
            resolve("nnclr", preset="digits", sets=[*SETS, change])


def test_neighbours_go_with_other_regressions() -> None:
    model = made("method.loss=cosine")
    views = {view: torch.rand(B, 3, 16, 16, generator=torch.Generator().manual_seed(view)) for view in (0, 1)}
    assert model(views, SAMPLE, step()).loss.isfinite()
