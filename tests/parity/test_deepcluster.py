"""Both DeepClusters equal free-standing re-implementations: clusters, loss and every gradient, from images on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.lookup.step import LookUp
from contralex.recipes.layers import resolve
from contralex.training import build
from tests.parity.test_methods import LABELS, SAMPLE, B, images, normal, same, step

POPULATION = 40


def made(recipe: str, *sets: str) -> LookUp:
    sizes = f"train.batch_size={B}"
    spec = resolve(recipe, preset="digits", sets=[sizes, "train.precision=fp32", *sets]).run
    return build.look_up(spec, POPULATION, LABELS).double().train()


def nearest(x: Tensor, start: Tensor, iterations: int, spherical: bool) -> tuple[Tensor, Tensor]:
    """k-means as it is in textbooks; no cluster is lost in these data, or the test would say so."""
    centroids = x[start].clone()
    for _ in range(iterations):
        places = (x @ centroids.T).argmax(1) if spherical else torch.cdist(x, centroids).argmin(1)
        for k in range(len(centroids)):
            assert (places == k).any()
            centroids[k] = x[places == k].mean(dim=0)
        if spherical:
            centroids = normal(centroids)
    return centroids, (x @ centroids.T).argmax(1) if spherical else torch.cdist(x, centroids).argmin(1)


def after_two_epochs(model: LookUp, views: dict[int, Tensor]) -> dict[int, Tensor]:
    """Trains nothing, and remembers: the memory as it is when the next epoch begins."""
    clusters: Any = model.negatives
    remembered = {view: clusters.memory(view).clone() for view in clusters.views}
    for number in (0, 7):
        moment = step(number)
        found = model(views, SAMPLE, moment)
        model.update(found.keys, moment)
    for view, memory in remembered.items():
        memory[SAMPLE] = found.keys.select_view(view).vectors
    return remembered


def test_deepcluster_v2() -> None:
    conv = "method.encoder.backbone={kind: conv, widths: [8, 12], strides: [2, 2]}"
    model = made("deepcluster-v2", conv, "method.negatives={kind: clusters, heads: 3, count: 4}")
    views = {**images(2), **{v + 2: x for v, x in images(2, 12).items()}}
    memory = after_two_epochs(model, views)
    moment = step(10)
    draws = moment.generator("contralex-swav")
    # Of the samples that the last epoch saw, and in their order
    heads = [nearest(memory[v][SAMPLE], torch.randperm(B, generator=draws)[:4], 10, True) for v in (0, 1, 0)]

    def oracle() -> Tensor:
        features = torch.cat(
            [
                model.encoder.backbone(torch.cat([views[0], views[1]])),
                model.encoder.backbone(torch.cat([views[2], views[3]])),
            ]
        )
        z = normal(model.encoder.projector(features))  # every crop of every sample, as main_deepclusterv2.py has them
        total = torch.zeros(())
        for centroids, places in heads:
            total = total + F.cross_entropy(z @ centroids.T / 0.1, places.repeat(4))
        return total / 3

    same(model, views, oracle, moment)
    assert not [name for name, _ in model.negatives.named_parameters()]


def test_deepcluster() -> None:
    conv = "method.encoder.backbone.backbone={kind: conv, widths: [8, 12], strides: [2, 2], channels: 2}"
    negatives = "method.negatives={kind: cluster_classifier, count: 3, pca: 5, reassign: 1}"
    model = made("deepcluster", conv, negatives, "method.loss.temperature=1")
    views = images(1)
    memory = after_two_epochs(model, views)[0]
    moment = step(10)
    generator = moment.generator("contralex-swav")

    centred = (memory - memory.mean(dim=0)).double()
    _, s, v = torch.linalg.svd(centred, full_matrices=False)
    assert s[4] > 1e-3
    white = normal(centred @ v[:5].T / s[:5])
    _, places = nearest(white, torch.randperm(POPULATION, generator=generator)[:3], 20, False)
    weight = (torch.randn(3, model.encoder.dim, generator=generator) * 0.01).double()
    sizes = [int((places == k).sum()) for k in range(3)]
    sobel = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]], dtype=torch.float64)

    def oracle() -> Tensor:
        layer = model.negatives.layer
        torch.testing.assert_close(layer.weight.detach(), weight)
        gray = views[0].mean(dim=1, keepdim=True)
        edges = torch.cat([F.conv2d(gray, kernel[None, None], padding=1) for kernel in (sobel, sobel.T)], dim=1)
        logits = layer(F.relu(model.encoder.projector(model.encoder.backbone[1](edges))))
        total = torch.zeros(())
        for i, sample in enumerate(SAMPLE.tolist()):
            k = int(places[sample])
            total = total - POPULATION / (3 * sizes[k]) * F.log_softmax(logits[i], 0)[k]
        return total / B

    same(model, views, oracle, moment)
