"""Queue and memory bank on one process: what they hold, in which precision, and in parts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.errors import ContralexError
from contralex.lookup import distributed
from contralex.lookup.clock import Clock
from contralex.lookup.dictionary import Dictionary
from contralex.lookup.sharded_state import gather_state, select_own_state
from contralex.lookup.shards import Shards, draw_table, own_range
from contralex.lookup.values import Match, Rows, Step, Targets
from contralex.plugin import MemoryBankSource, QueueSource
from contralex.recipes.layers import resolve

DIM, DATASET_SIZE = 6, 19
HALVES = {"float16": 1e-3, "bfloat16": 1e-2}  # and the largest rounding of a number below 1, with room to spare
BOTH = ("replicated", "sharded")


def queue(size: int, **fields: Any) -> QueueSource:
    torch.manual_seed(0)
    return QueueSource(size, DIM, **fields)


def bank(draws: int = 0, **fields: Any) -> MemoryBankSource:
    torch.manual_seed(0)
    return MemoryBankSource(DATASET_SIZE, DIM, draws, **fields)


def keys(count: int, seed: int = 0) -> Rows:
    """(count, D) unit vectors of samples 3, 4, ... modulo the size of the data set."""
    generator = torch.Generator().manual_seed(seed)
    vectors = F.normalize(torch.randn(count, DIM, generator=generator), dim=1)
    return Rows.from_view(vectors, (torch.arange(count) + 3 + 5 * seed) % DATASET_SIZE, 0)


def step(batch: int = 8) -> Step:
    return Step(Clock(0, 10, 5), seed=0, batch=batch)


def stored_entries(found: Dictionary) -> list[Tensor]:
    """The entries that are read from storage, in whichever part of the dictionary they are."""
    own = [found.own] if found.has_own else []
    shared = [found.shared] if found.has_shared else []
    return own + shared + ([found.shards.part] if found.has_shards else [])


def look_up(source: Any, rows: Rows) -> Dictionary:
    found: Dictionary = source(rows, rows, Match(0, 0), step(len(rows)))
    return found


# A full queue begins again at its start


@pytest.mark.parametrize("placement", BOTH)
@pytest.mark.parametrize("batches", [[8] * 5, [3, 8, 1, 20, 8], [40], [13, 13]], ids=str)
@pytest.mark.parametrize("size", [1, 5, 8, 12, 13])
def test_a_queue_holds_the_last_keys_in_their_order(size: int, batches: list[int], placement: Any) -> None:
    source = queue(size, placement=placement)
    came, samples = list(source.vectors.clone()), [-1] * size
    for seed, batch in enumerate(batches):
        source.update(keys(batch, seed), step())
        came += list(keys(batch, seed).vectors)
        samples += keys(batch, seed).sample.tolist()
    oldest_first = (torch.arange(size) + int(source.pointer)) % size
    assert torch.equal(source.vectors[oldest_first], torch.stack(came[-size:]))
    assert source.sample[oldest_first].tolist() == samples[-size:]


def test_a_bank_moves_the_rows_of_the_batch_alone() -> None:
    source, fresh = bank(), keys(8)
    before = source.bank(0).clone()
    source.update(fresh, step())
    for row in range(DATASET_SIZE):
        expected = before[row]
        for vector, sample in zip(fresh.vectors, fresh.sample, strict=True):
            if sample == row:
                mixed = 0.5 * before[row] + 0.5 * vector
                expected = mixed / mixed.square().sum().sqrt()
        torch.testing.assert_close(source.bank(0)[row], expected, rtol=1e-6, atol=1e-6)


# Where they start


@pytest.mark.parametrize("rows", [1, 3, 15, 16, 4095, 4096, 4097, 4111, 4112, 8197])
@pytest.mark.parametrize("dim", [1, 3, 16])
@pytest.mark.parametrize("draw", [torch.rand, torch.randn])
def test_blocks_draw_what_one_draw_does(draw: Callable[..., Tensor], dim: int, rows: int) -> None:
    torch.manual_seed(1)
    whole, after = draw(rows, dim), torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(draw_table(rows, dim, lambda count: draw(count, dim), torch.float32, sharded=False), whole)
    assert torch.equal(torch.get_rng_state(), after)  # so that what is built next starts as it did


@pytest.mark.parametrize("processes", [2, 3, 4, 7])
def test_parts_make_the_whole(processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for make, name in ((lambda **f: queue(5, **f), "vectors"), (bank, "bank_0")):
        whole = make().state_dict()
        monkeypatch.setattr(distributed, "world", lambda: processes)
        parts = []
        for rank in range(processes):
            monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
            source = make(placement="sharded")
            start, stop = own_range(len(whole[name]))
            assert torch.equal(select_own_state(source, whole)[name], source.state_dict()[name])
            assert not source.state_dict()[name][stop - start :].any()
            parts.append(source.state_dict()[name])
        assert len({part.shape for part in parts}) == 1 and len(parts[0]) == math.ceil(len(whole[name]) / processes)
        assert torch.equal(torch.cat(parts)[: len(whole[name])], whole[name])
        monkeypatch.undo()


# What is stored


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("placement", BOTH)
@pytest.mark.parametrize("make", [lambda **f: queue(13, **f), bank, lambda **f: bank(4, **f)])
def test_half_precision_is_in_storage_alone(make: Callable[..., Any], placement: str, dtype: str) -> None:
    exact, half = make(), make(placement=placement, dtype=dtype)
    for source in (exact, half):
        source.update(keys(8, 1), step())
        source.update(keys(8, 2), step())
    for name, stored in half.state_dict().items():
        wanted = exact.state_dict()[name]
        assert stored.dtype == (getattr(torch, dtype) if wanted.is_floating_point() else wanted.dtype)
        torch.testing.assert_close(stored.to(wanted), wanted, rtol=0, atol=2 * HALVES[dtype])
    found, rows = look_up(half, keys(8, 3)), keys(8, 3)
    for entries in stored_entries(found):
        assert entries.dtype == torch.float32
    scores = found.scores(rows.vectors)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, look_up(exact, rows).scores(rows.vectors), rtol=0, atol=DIM * HALVES[dtype])


# What a dictionary or targets do not have

PARTS: dict[str, Any] = {
    "own": torch.zeros(2, 1, DIM),
    "shared": torch.zeros(3, DIM),
    "rows": Rows.from_view(torch.zeros(3, DIM), torch.arange(3), 0),
    "mask": torch.ones(2, 4, dtype=torch.bool),
    "key_shared": torch.ones(3, DIM),
    "dataset_size": 20,
    "shards": Shards(torch.zeros(3, DIM), 3),
}


@pytest.mark.parametrize("name", PARTS)
def test_reading_an_absent_part_of_a_dictionary_raises_one_sentence(name: str) -> None:
    there = Dictionary(**{name: PARTS[name]})
    assert getattr(there, f"has_{name}") and getattr(there, name) is PARTS[name]
    absent = there.replace(**{name: None})
    assert not getattr(absent, f"has_{name}")
    with pytest.raises(RuntimeError, match=rf"^dictionary\.{name} is absent: [^.;]*; use a negative source [^.;]*$"):
        getattr(absent, name)


def test_a_dictionary_with_a_replaced_part_keeps_the_others() -> None:
    before = Dictionary(**PARTS)
    after = before.replace(own=PARTS["own"] + 1)
    assert torch.equal(after.own, before.own + 1)
    assert all(getattr(after, name) is part for name, part in PARTS.items() if name != "own")
    assert after.size == before.size == 1 + 3 + 3
    with pytest.raises(TypeError):
        before.replace(shard=PARTS["shards"])


def test_another_table_is_read_by_all_questions() -> None:
    first, second = torch.eye(DIM), torch.eye(DIM).flip(0)
    before = Dictionary(stored=first)
    assert torch.equal(before.shared, first)  # a copy, which the dictionary keeps
    after = before.replace(stored=second)
    assert torch.equal(after.scores(first), first @ second.T)
    assert torch.equal(after.find_best(first), (first @ second.T).argmax(dim=1))


def test_reading_an_absent_form_of_targets_raises_one_sentence() -> None:
    targets = Targets(index=torch.zeros(2, dtype=torch.long), weights=torch.ones(2, 3))
    assert targets.has_index and targets.has_weights and not targets.has_vectors
    assert list(targets.tensors()) == ["index", "weights"]
    sentence = r"^targets\.vectors is absent: these targets hold index and weights; use a loss that reads [^.;]*$"
    with pytest.raises(RuntimeError, match=sentence):
        targets.vectors.sum()


def test_targets_without_any_form_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^targets hold nothing: give Targets an index, weights or vectors$"):
        Targets()


# In parts, of which there is one


@pytest.mark.parametrize("make", [lambda **f: queue(13, **f), bank, lambda **f: bank(4, **f)])
def test_one_process_has_all_parts(make: Callable[..., Any]) -> None:
    rows, seen = keys(8), []
    for placement in BOTH:
        source = make(placement=placement)
        source.update(keys(8, 1), step())
        asked = rows.vectors.clone().requires_grad_()
        found = look_up(source, rows)
        scores = found.scores(asked)
        scores.square().mean().backward()
        assert asked.grad is not None
        seen.append((scores.detach(), asked.grad, found.positives(rows, Match(0, 0)), *source.state_dict().values()))
        assert found.has_shards == (placement == "sharded" and not found.has_dataset_size)
    for one, other in zip(*seen, strict=True):
        assert torch.equal(one, other)


def test_a_look_up_is_not_changed_by_what_is_written_after_it() -> None:
    source, rows = queue(5, placement="sharded"), keys(8)
    found = look_up(source, rows)
    before = found.scores(rows.vectors)
    source.update(keys(8, 1), step())
    assert torch.equal(found.scores(rows.vectors), before)


def test_a_part_of_another_number_of_processes_is_refused() -> None:
    with pytest.raises(RuntimeError, match="a part of 3 rows is not one of 1 of 6 rows"):
        Shards(torch.zeros(3, DIM), 6)


# Checkpoints


@pytest.mark.parametrize("placement", BOTH)
def test_a_whole_state_comes_back(placement: Any) -> None:
    source = queue(13, placement=placement)
    source.update(keys(8), step())
    whole = {name: tensor.clone() for name, tensor in gather_state(source).items()}
    assert whole.keys() == source.state_dict().keys() and len(whole["vectors"]) == 13
    other = queue(13, placement=placement)
    other.load_state_dict(select_own_state(other, whole))
    for name, tensor in source.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)


def test_a_whole_of_another_size_is_refused() -> None:
    with pytest.raises(ContralexError, match="vectors has 12 rows where the spec makes 13"):
        select_own_state(queue(13, placement="sharded"), {"vectors": torch.zeros(12, DIM)})


# What cannot be read is not offered

PROXIMAL = "method.loss={kind: proximal, weight: 30, base: {kind: info_nce, temperature: 0.1}}"


def test_reading_what_no_process_holds_is_refused() -> None:
    with pytest.raises(ContralexError) as refused:
        resolve("instdisc-cifar", sets=["method.negatives.placement=sharded", PROXIMAL])
    assert "method.loss (proximal) needs remembered from method.negatives" in str(refused.value)
    assert "use method.negatives of kind memory_bank with other values" in str(refused.value)


@pytest.mark.parametrize(
    ("recipe", "sets"),
    [
        ("instdisc-cifar", [PROXIMAL]),  # replicated
        ("instdisc-cifar", ["method.negatives.placement=sharded"]),  # scored, and not read
        ("instdisc", ["method.negatives.placement=sharded", PROXIMAL.replace("info_nce", "nce")]),  # rows are fetched
        ("supcon", ["method.negatives={kind: queue, size: 64, placement: sharded}"]),  # goes by the tags
    ],
)
def test_what_can_be_done_in_parts_is_not_refused(recipe: str, sets: list[str]) -> None:
    resolve(recipe, sets=sets)
