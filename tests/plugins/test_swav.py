"""DeepCluster's parts against naive loops: k-means, whitening, targets, the loss, the memory, the Sobel filter."""

from __future__ import annotations

import copy
import math
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from contralex.lookup.clock import Clock
from contralex.plugin import ContralexError, Match, Rows, Step
from contralex.recipes.layers import resolve
from contralex.training import build
from contralex_swav.alexnet import Dropout, SobelFilter, alexnet
from contralex_swav.classifier import ClassDictionary, ClusterClassifier, forget_momentum
from contralex_swav.clusters import ClusterCrossEntropy, ClusterTargets
from contralex_swav.initial_memory import fill_memory
from contralex_swav.kmeans import kmeans, whiten
from contralex_swav.memory import ClusterDictionary
from contralex_swav.spec import ClusterCrossEntropySpec, SobelSpec

POPULATION, B = 24, 4


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def points(count: int = 60, width: int = 5) -> Tensor:
    return torch.randn(count, width, generator=generator(7))


def moment(epoch: int, step: int = 0, per_epoch: int = 6) -> Step:
    return Step(Clock(epoch * per_epoch + step, 600, per_epoch), seed=0, batch=B)


def method(recipe: str = "deepcluster-v2", *sets: str) -> Any:
    small = "method.encoder.backbone={kind: conv, widths: [8, 12], strides: [2, 2]}"
    if recipe == "deepcluster":
        small = "method.encoder.backbone.backbone={kind: conv, widths: [8, 12], strides: [2, 2], channels: 2}"
    spec = resolve(recipe, preset="digits", sets=[small, f"train.batch_size={B}", "train.precision=fp32", *sets]).run
    return build.look_up(spec, POPULATION)


def naive_kmeans(x: Tensor, start: list[int], iterations: int, spherical: bool) -> tuple[list[Tensor], list[int]]:
    """Textbook: each point to its nearest centroid, each centroid to the mean of its points, one by one."""
    centroids = [x[i].clone() for i in start]
    for turn in range(iterations + 1):
        places = []
        for point in x:
            if spherical:
                near = [-float(point @ c) for c in centroids]
            else:
                near = [float((point - c).square().sum()) for c in centroids]
            places.append(near.index(min(near)))
        if turn == iterations:
            break
        for k in range(len(centroids)):
            mine = [x[i] for i in range(len(x)) if places[i] == k]
            if mine:
                centroids[k] = sum(mine[1:], mine[0]) / len(mine)
            if spherical:
                centroids[k] = centroids[k] / centroids[k].norm()
    return centroids, places


@pytest.mark.parametrize("spherical", [True, False])
def test_kmeans_is_the_textbooks(spherical: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contralex_swav.kmeans._BLOCK", 16)  # several blocks, the last one short
    x = F.normalize(points(), dim=1) if spherical else points()
    start = torch.randperm(len(x), generator=generator(3))[:6].tolist()
    expected, places = naive_kmeans(x, start, 5, spherical)
    found, assigned = kmeans(x, 6, 5, generator(3), spherical=spherical, empty="keep")
    assert_close(found, torch.stack(expected), rtol=1e-5, atol=1e-5)
    assert assigned.tolist() == places
    assert len(set(places)) > 3


def test_an_empty_centroid_stays_or_begins_anew_beside_a_full_one() -> None:
    x = torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]] * 3)  # equal points, so that centroids tie and the first gets all
    kept, places = kmeans(x, 4, 3, generator(), spherical=True, empty="keep")
    assert len(places.unique()) == 2
    assert_close(kept.norm(dim=1), torch.ones(4))
    assert {tuple(c) for c in kept.tolist()} == {(1.0, 0.0), (0.0, 1.0)}
    split, _ = kmeans(x, 4, 3, generator(), spherical=False, empty="split")
    assert len(split.unique(dim=0)) == 4  # no two alike any more
    assert all(min(float((c - p).norm()) for p in x) < 0.01 for c in split)


def test_more_clusters_than_points_leave_some_empty() -> None:
    x = F.normalize(points(5), dim=1)
    for empty in ("keep", "split"):
        centroids, places = kmeans(x, 8, 3, generator(), spherical=True, empty=empty)  # type: ignore[arg-type]
        assert centroids.shape == (8, 5) and centroids.isfinite().all() and len(places.unique()) == 5


def test_splitting_finds_clusters_that_an_unlucky_start_misses() -> None:
    """Three heaps and three centroids, of which two begin in equal points: without a split one heap is never found."""
    heaps = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]]).repeat_interleave(10, 0)
    outcomes = {}
    for empty in ("keep", "split"):
        found = [kmeans(heaps, 3, 20, generator(s), spherical=False, empty=empty)[1] for s in range(20)]  # type: ignore[arg-type]
        outcomes[empty] = sum(len(places.unique()) == 3 for places in found)
    assert outcomes["split"] > outcomes["keep"]


def test_whitened_points_are_uncorrelated_and_of_unit_length() -> None:
    stretched = points(200, 6) @ torch.randn(6, 6, generator=generator(1)) + 3.0
    centred = stretched.double() - stretched.double().mean(dim=0)
    u, _, _ = torch.linalg.svd(centred, full_matrices=False)  # another way to principal components
    expected = F.normalize(u[:, :4], dim=1).float()
    found = whiten(stretched, 4)
    assert_close((found @ found.T), (expected @ expected.T), rtol=1e-4, atol=1e-4)  # up to a rotation, which k-means
    flat = torch.cat([points(50, 2), torch.zeros(50, 2)], dim=1)  # does not see
    assert whiten(flat, 4).isfinite().all()
    assert whiten(torch.ones(10, 4), 4).isfinite().all()


def clustered(
    queries: Tensor, heads: int, count: int, assigned: list[list[int]], sizes: list[list[int]]
) -> ClusterDictionary:
    table = torch.randn(heads * count, queries.shape[1], generator=generator(5))
    return ClusterDictionary(shared=table, heads=heads, assigned=torch.tensor(assigned), sizes=torch.tensor(sizes))


def rows(vectors: Tensor) -> Rows:
    return Rows.from_view(vectors, torch.arange(len(vectors)), 0)


def test_targets_and_loss_are_cross_entropy_of_every_head_over_the_samples_that_have_a_cluster() -> None:
    vectors = points(4, 5).requires_grad_()
    assigned = [[0, 2], [1, 1], [-1, -1], [2, 0]]
    dictionary = clustered(vectors, 2, 3, assigned, [[1, 1, 1], [1, 1, 1]])
    targets = ClusterTargets()(rows(vectors), rows(vectors), dictionary, Match(0, 0), moment(0))
    loss = ClusterCrossEntropy(temperature=0.1)(rows(vectors), dictionary, targets, moment(0))
    (grad,) = torch.autograd.grad(loss, vectors)

    total = torch.zeros(())
    for head in range(2):
        scores = vectors @ dictionary.shared[3 * head : 3 * head + 3].T / 0.1
        wanted = torch.tensor([row[head] if row[head] >= 0 else -100 for row in assigned])
        total = total + F.cross_entropy(scores, wanted, ignore_index=-100)
    (expected,) = torch.autograd.grad(total / 2, vectors)
    assert_close(loss, total / 2, rtol=1e-5, atol=1e-5)
    assert_close(grad, expected, rtol=1e-5, atol=1e-5)
    assert not grad[2].any() and grad[0].any()


def test_a_batch_of_which_nothing_has_a_cluster_has_no_loss() -> None:
    vectors = points(2, 5).requires_grad_()
    dictionary = clustered(vectors, 1, 3, [[-1], [-1]], [[0, 0, 0]])
    targets = ClusterTargets(balanced=True)(rows(vectors), rows(vectors), dictionary, Match(0, 0), moment(0))
    loss = ClusterCrossEntropy(temperature=1.0)(rows(vectors), dictionary, targets, moment(0))
    loss.backward()
    assert float(loss.detach()) == 0 and vectors.grad is not None and not vectors.grad.any()


def test_balanced_weights_are_those_of_drawing_a_cluster_first() -> None:
    """Over a whole data set, each cluster that has samples weighs the same, and the mean weight is 1."""
    labels = [0] * 6 + [1] * 3 + [3]
    vectors = points(10, 5)
    dictionary = clustered(vectors, 1, 4, [[label] for label in labels], [[6, 3, 0, 1]])
    weights = ClusterTargets(balanced=True)(rows(vectors), rows(vectors), dictionary, Match(0, 0), moment(0)).weights
    assert weights is not None
    assert_close(weights.sum(dim=0) / 10, torch.tensor([1 / 3, 1 / 3, 0.0, 1 / 3]))


def test_a_classifiers_scores_are_those_of_a_linear_layer_behind_a_relu() -> None:
    layer = torch.nn.Linear(5, 3)
    queries = points(4, 5)
    none, sizes = torch.full((4, 1), -1), torch.zeros(1, 3, dtype=torch.long)
    classes = ClassDictionary(shared=layer.weight, bias=layer.bias, assigned=none, sizes=sizes)
    assert_close(classes.scores(queries), layer(F.relu(queries)))


def keys_of(model: Any, sample: Tensor, seed: int) -> Rows:
    views = model.negatives.views
    dim = model.encoder.dim
    return Rows.cat(
        [Rows.from_view(torch.randn(len(sample), dim, generator=generator(seed + v)), sample, v) for v in views]
    )


def test_clusters_change_once_an_epoch_and_follow_the_memory() -> None:
    model = method("deepcluster-v2", "method.negatives={kind: clusters, heads: 3, count: 5}")
    clusters = model.negatives
    clusters.prepare(moment(0))
    first = clusters.assigned.clone()
    sample = torch.tensor([3, 20, 7, 11, 0, 16, 5, 8])
    keys = keys_of(model, sample, 30)
    clusters.update(keys, moment(0))
    for view in (0, 1):
        assert_close(clusters.memory(view)[sample], keys.select_view(view).vectors)
    clusters.prepare(moment(0, 5))
    assert torch.equal(clusters.assigned, first)  # within the epoch nothing moves
    clusters.prepare(moment(1))
    assert not torch.equal(clusters.assigned, first)

    seen = sorted(sample.tolist())
    dropped = [index for index in range(POPULATION) if index not in seen]
    draw = moment(1).generator("contralex-swav")
    for head, view in enumerate((0, 1, 0)):  # heads take the views' memories in turn
        start = torch.randperm(len(seen), generator=draw)[:5].tolist()
        expected, places = naive_kmeans(clusters.memory(view)[seen], start, 10, spherical=True)
        assert_close(clusters.centroids[head], torch.stack(expected), rtol=1e-5, atol=1e-5)
        assert clusters.assigned[head, seen].tolist() == places
        assert clusters.assigned[head, dropped].tolist() == [-1] * len(dropped)  # the last epoch did not see them
        assert clusters.sizes[head].tolist() == [places.count(k) for k in range(5)]

    assigned = clusters.assigned.clone()
    clusters.prepare(moment(2))  # all steps of epoch 1 were left out
    assert torch.equal(clusters.assigned, assigned)


def test_the_first_deepcluster_clusters_what_the_last_epoch_dropped_as_well() -> None:
    """Its official code embeds all images before each clustering."""
    model = method("deepcluster", "method.negatives={count: 4, pca: 6, reassign: 1}")
    model.negatives.prepare(moment(0))
    model.negatives.update(keys_of(model, torch.tensor([3, 20, 7, 11]), 30), moment(0))
    model.negatives.prepare(moment(1))
    assert bool((model.negatives.assigned >= 0).all())


def test_the_memory_is_filled_crop_by_crop() -> None:
    """BatchNorm's statistics are of one crop's batch, as of ``init_memory``."""
    sizes = ("method.negatives={kind: clusters, heads: 2, count: 3}", f"train.batch_size={B}")
    model = method("deepcluster-v2", *sizes)
    crops = {view: torch.rand(B, 3, 16, 16, generator=generator(view)) for view in (0, 1)}
    batch = {"views": crops, "index": torch.tensor([5, 2, 9, 17])}
    fill_memory(
        SimpleNamespace(
            method=model,
            spec=resolve("deepcluster-v2", preset="digits", sets=sizes).run,
            per_epoch=6,
            clock=lambda: Clock(0, 600, 6),
            autocast=nullcontext,
            epoch_batches=lambda epoch, views: [batch],
        )
    )
    assert model.negatives.seen.nonzero().flatten().tolist() == [2, 5, 9, 17]
    encoder = copy.deepcopy(model.encoder).train()
    for view, images in crops.items():
        alone = F.normalize(encoder.projector(encoder.backbone(images)), dim=1)
        assert_close(model.negatives.memory(view)[batch["index"]], alone.detach(), rtol=1e-5, atol=1e-6)


def test_what_was_never_seen_is_in_no_cluster() -> None:
    model = method("deepcluster-v2", "method.negatives={kind: clusters, heads: 2, count: 3}")
    clusters = model.negatives
    clusters.forget()
    seen = torch.tensor([1, 4, 5, 9, 13, 22])
    clusters.update(keys_of(model, seen, 3), moment(0))
    clusters.prepare(moment(0))
    known = clusters.assigned >= 0
    assert known.sum(dim=1).tolist() == [6, 6] and known[:, seen].all()
    assert clusters.sizes.sum(dim=1).tolist() == [6, 6]


def test_the_classifier_begins_anew_with_the_clusters_and_steps_without_momentum() -> None:
    model = method("deepcluster", "method.negatives={count: 4, pca: 6, dtype: float16, reassign: 1}")
    part = model.negatives
    assert isinstance(part, ClusterClassifier) and part.memory(0).dtype == torch.float16
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    part.prepare(moment(0))
    fresh = part.layer.weight.detach().clone()
    assert 0.008 < float(fresh.std()) < 0.012 and not part.layer.bias.any()
    for number in range(3):
        before, grad = part.layer.weight.detach().clone(), torch.full_like(fresh, float(number + 1))
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, float(number + 1))
        optimizer.step()
        forget_momentum(optimizer, part)
        assert_close(part.layer.weight.detach(), before - 0.1 * grad)
    assert "momentum_buffer" in optimizer.state[next(model.encoder.parameters())]
    part.prepare(moment(0, 3))
    assert not torch.equal(part.layer.weight, fresh)  # within an epoch it is let alone
    part.prepare(moment(1))
    assert 0.008 < float(part.layer.weight.detach().std()) < 0.012 and not part.layer.bias.any()
    assert not torch.equal(part.layer.weight, fresh)


def test_its_clusters_are_of_whitened_embeddings() -> None:
    model = method("deepcluster", "method.negatives={kind: cluster_classifier, count: 4, pca: 6}")
    part = model.negatives
    part.prepare(moment(0))
    start = torch.randperm(POPULATION, generator=moment(0).generator("contralex-swav"))[:4].tolist()
    _, places = naive_kmeans(whiten(part.memory(0), 6), start, 20, spherical=False)
    assert part.assigned[0].tolist() == places


def test_sobel_filters_the_mean_of_the_channels() -> None:
    images = torch.rand(2, 3, 5, 6, generator=generator())
    gray = F.pad(images.mean(dim=1), (1, 1, 1, 1))
    found = SobelFilter()(images)
    for kernel, made in zip(
        ([[1, 0, -1], [2, 0, -2], [1, 0, -1]], [[1, 2, 1], [0, 0, 0], [-1, -2, -1]]), (0, 1), strict=True
    ):
        for y in range(5):
            for x in range(6):
                expected = sum(kernel[i][j] * gray[:, y + i, x + j] for i in range(3) for j in range(3))
                assert_close(found[:, made, y, x], expected)


def test_alexnet_is_of_the_size_that_the_official_code_has() -> None:
    module, width = alexnet(channels=2)
    convolutions = [(p.in_channels, p.out_channels) for p in module if isinstance(p, torch.nn.Conv2d)]
    assert width == 4096 and convolutions == [(2, 96), (96, 256), (256, 384), (384, 384), (384, 256)]
    assert module.eval()(torch.rand(1, 2, 224, 224)).shape == (1, 4096)


def test_dropout_follows_its_own_count_and_no_generator() -> None:
    drop = Dropout(0.5)
    x = torch.ones(400, 10)
    saved = {name: value.clone() for name, value in drop.state_dict().items()}
    torch.manual_seed(1)
    one, other = drop(x), drop(x)
    assert not torch.equal(one, other)
    assert math.isclose(float(one.mean()), 1.0, abs_tol=0.1) and set(one.unique().tolist()) == {0.0, 2.0}
    drop.load_state_dict(saved)
    torch.manual_seed(2)
    assert torch.equal(drop(x), one)
    assert torch.equal(drop.eval()(x), x)


def test_mistakes_are_told() -> None:
    with pytest.raises(ContralexError, match=r"method.negatives.pca \(300\) is larger than the 128 dimensions"):
        method("deepcluster", "method.negatives={kind: cluster_classifier, count: 4, pca: 300}")
    with pytest.raises(ValidationError, match="give a backbone that has channels: 2"):
        SobelSpec.model_validate({"backbone": {"kind": "conv"}})
    with pytest.raises(ValidationError, match=r"a temperature stays between 0\.0001 and 1000"):
        ClusterCrossEntropySpec(temperature=0.0)
