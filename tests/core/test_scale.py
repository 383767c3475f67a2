"""What grows with the number of samples, and by how much: evaluation, listing, the sampler, stand-ins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from contralex import memory
from contralex.data.base import Subset, as_tensor, compact
from contralex.data.loading import EvalDataset, Order
from contralex.errors import ContralexError
from contralex.evaluation import encoding, features
from contralex.evaluation.encoding import encode
from contralex.evaluation.features import baseline_splits, describe_pixels, raw_pixels, reduced, split_features
from contralex.evaluation.knn import evaluate_knn
from contralex.evaluation.linear import evaluate_linear
from contralex.recipes.run_spec import KNNSpec, LinearSpec
from tests.core.test_knn import AsIs, Pair, Rows, clear, clusters, source

KNN, LINEAR = KNNSpec(k=20), LinearSpec(weight_decay=0.01)


def clear_source() -> Pair:
    """Of the test samples those whose answer no rounding decides."""
    (bank, labels), (asked, truth) = clusters(300, 0), clusters(80, 1)
    sure = clear(bank, labels, asked, 20, 0.07, close=2e-3)
    return Pair(Rows(bank, labels.tolist()), Rows(asked[sure], truth[sure].tolist()))


@pytest.fixture(params=["memory", "file"])
def many(request: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if 300 samples were too many for float32 and, in a file, for memory; and blocks and chunks are small."""
    monkeypatch.setattr(features, "LARGE", 0)
    monkeypatch.setattr("contralex.evaluation.knn._BLOCK", 70)
    monkeypatch.setattr("contralex.evaluation.linear._ROWS", 70)
    if request.param == "file":
        monkeypatch.setattr(memory, "available", lambda: 100)


@pytest.mark.usefixtures("many")
def test_many_samples_have_the_figures_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    data = clear_source()
    knn = evaluate_knn(None, data, AsIs(), KNN, 16, "cpu")
    linear = evaluate_linear(None, data, AsIs(), LINEAR, 16, "cpu")
    assert knn.protocol.pop("kept_in") == linear.protocol.pop("kept_in") == "float16"
    monkeypatch.undo()
    assert knn == evaluate_knn(None, data, AsIs(), KNN, 16, "cpu")
    plain = evaluate_linear(None, data, AsIs(), LINEAR, 16, "cpu")
    assert linear.protocol == plain.protocol and linear.top1 == pytest.approx(plain.top1, abs=0.03)


@pytest.mark.usefixtures("many")
def test_what_is_kept_in_half_precision_neither_overflows_nor_loses_digits() -> None:
    rows = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 8, 40)[:, None]
    kept = split_features(None, Rows(rows, [0] * 40), AsIs(), "backbone", 7, "cpu", 0, "eval.knn")
    assert kept.rows.dtype == torch.float16 and kept.total == 40
    assert (
        torch.cat([block for block, _ in kept.blocks(9)]).sub(rows).div(rows.norm(dim=1, keepdim=True)).abs().max()
        < 1e-3
    )


def first_tokens(images: Tensor) -> Tensor:
    """As a ViT's backbone gives its class token: a part of the tensor of all tokens."""
    return images.unsqueeze(1).repeat(1, 50, 1)[:, 0]


@pytest.mark.parametrize("function", [raw_pixels, first_tokens, torch.nn.Identity()])
@pytest.mark.parametrize("workers", [0, 1])
def test_features_that_are_kept_hold_no_memory_but_their_own(
    function: Callable[[Tensor], Tensor], workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "_WORTH_WORKERS", 0)
    rows = torch.randn(8, 1 << 17)  # a batch of which travels in shared memory
    dataset = EvalDataset(Rows(rows, None), AsIs())
    blocks = [block for block, _ in encode(function, dataset, 4, "cpu", workers)]
    assert torch.cat(blocks).equal(rows)
    for block in blocks:
        assert block.untyped_storage().nbytes() == block.nbytes and not block.is_shared()


def test_features_that_fit_nowhere_are_refused_with_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "LARGE", 0)
    monkeypatch.setattr(memory, "available", lambda: 100)
    monkeypatch.setattr(memory, "available_on_disk", lambda: 200)
    words = r"eval\.linear: the features of 300 samples, of 8 dimensions, take 4\.69 KiB, and .* 100 bytes of memory"
    with pytest.raises(ContralexError, match=rf"(?s){words} and 200 bytes in .*\n  --set eval\.linear=null"):
        evaluate_linear(None, clear_source(), AsIs(), LINEAR, 16, "cpu")


def test_memory_is_known_here() -> None:
    free = memory.available()
    assert free is None or 2**20 < free < 2**50
    assert memory.available_on_disk() > 0
    assert [memory.in_words(n) for n in (5, 3_000, 655_957_504)] == ["5 bytes", "2.93 KiB", "626 MiB"]
    assert memory.in_words(5.5e9) == "5.12 GiB" and memory.in_words(7.71e11) == "718 GiB"


def test_baselines_are_measured_on_a_fixed_part_which_the_protocol_states(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "BASELINE_TRAIN", 30)
    monkeypatch.setattr(features, "BASELINE_TEST", 10)
    train, test = source().train(), source().test()
    assert test is not None
    few, asked, of = baseline_splits(train, test)
    assert of == {"train_of": 60, "test_of": 40} and (len(few), len(asked)) == (30, 10)
    assert isinstance(few, Subset) and list(few.indices) == sorted(set(few.indices))
    again = baseline_splits(train, test)[0]
    assert isinstance(again, Subset) and list(again.indices) == list(few.indices)
    for judge, spec in ((evaluate_knn, KNN), (evaluate_linear, LINEAR)):
        protocol = judge(None, source(), AsIs(), spec, 16, "cpu").protocol
        kept = {name: protocol[name] for name in ("train_samples", "train_of", "test_samples", "test_of")}
        assert kept == {"train_samples": 30, "train_of": 60, "test_samples": 10, "test_of": 40}
    assert len(baseline_splits(train, test, least=45)[0]) == 45  # neighbours are never fewer than k


@pytest.mark.parametrize(
    ("shape", "small", "words"),
    [
        ((3, 32, 32), (3, 32, 32), "pixels"),
        ((1, 8, 8), (1, 8, 8), "pixels"),
        ((3, 224, 224), (3, 32, 32), "pixels, reduced to 32×32"),
        ((49, 3, 64, 64), (49, 3, 10, 10), "pixels, reduced to 49×3×10×10"),
        ((16, 3, 14, 14), (16, 3, 14, 14), "pixels"),  # CPC's patches of the digits
        ((1, 20480), (1, 16384), "pixels, reduced to 1×16384"),
        ((8,), (8,), "pixels"),
    ],
)
def test_raw_pixels_are_of_a_bounded_size_which_the_protocol_states(
    shape: tuple[int, ...], small: tuple[int, ...], words: str
) -> None:
    assert reduced(torch.rand(2, *shape)).shape[1:] == small
    assert describe_pixels(Rows(torch.rand(1, *shape), [0]), AsIs()) == words


def test_a_picture_is_reduced_by_means() -> None:
    picture = torch.arange(64.0).repeat_interleave(64).view(1, 1, 64, 64)  # row r is r
    assert torch.equal(reduced(picture)[0, 0, :, 0], torch.arange(32.0) * 2 + 0.5)


def test_labels_are_compact_and_read_at_once() -> None:
    labels = compact(number % 1000 for number in range(100_000))
    assert memoryview(labels).nbytes == 800_000  # type: ignore[arg-type]
    assert torch.equal(as_tensor(labels), torch.arange(100_000) % 1000)
    subset = Subset(Rows(torch.zeros(4, 1), [5, 6, 7, 8]), [3, 0])
    assert list(subset.labels or ()) == [8, 5]


def test_an_unreadable_image_is_replaced_without_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    of = Order.of

    def counted(order: Order, epoch: int) -> Tensor:
        drawn.append(epoch)
        return of(order, epoch)

    monkeypatch.setattr(Order, "of", counted)
    order = Order(1000, 10, 5)
    for index in range(50):
        epochs = of(order, 3)
        step, place = divmod(int((epochs == index).nonzero()), 10)
        expected = [int(epochs[(step + later) % 100 * 10 + place]) for later in range(1, 100)]
        assert list(order.stand_ins(3, index)) == expected
    assert drawn == [3]  # once an epoch, not once an image
