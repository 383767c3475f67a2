"""The parts of a report by themselves: curves, labels, markup, neighbours, the plane, attention."""

from __future__ import annotations

import base64
import io
import json
import math
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from contralex.evaluation.knn import weighted_knn
from contralex.evaluation.neighbours import find_neighbours
from contralex.reporting import attention, projection
from contralex.reporting.confusion import confuse, vote
from contralex.reporting.curves import Chart, Series, find_signs, make_charts, thin
from contralex.reporting.markup import Markup, join, json_script, tag
from contralex.reporting.plots import draw_chart, spread, ticks
from contralex.reporting.samples import choose_queries
from contralex.reporting.subjects import label_runs
from contralex.reporting.thumbnails import data_uri, heat_map, make_sprite, to_image
from tests.noise import noise
from tests.pages import parse_page

# Curves


def lines(losses: list[float], **more: float) -> list[dict[str, Any]]:
    return [{"step": step, "epoch": step / 10, "loss": loss, **more} for step, loss in enumerate(losses, 1)]


def test_a_chart_holds_the_points_of_every_run() -> None:
    one, other = lines([3.0, 2.0, 1.0], lr=0.1), lines([4.0, math.nan, 2.0])
    charts = {chart.key: chart for chart in make_charts([one, other], [{}, {}])}
    assert list(charts) == ["loss", "lr"]
    assert [(series.run, series.x, series.y) for series in charts["loss"].series] == [
        (0, [0.1, 0.2, 0.3], [3.0, 2.0, 1.0]),
        (1, [0.1, 0.3], [4.0, 2.0]),  # what is no number is left out
    ]


def test_the_last_accuracy_is_that_of_the_results_with_its_baselines() -> None:
    logged = [*lines([1.0, 1.0]), {"step": 2, "epoch": 1, "knn_top1": 0.3}]
    reached = {"epochs": 2, "knn": {"this run": {"top1": 0.5}, "raw pixels": {"top1": 0.2}}}
    chart = next(chart for chart in make_charts([logged], [reached]) if chart.key == "knn_top1")
    assert chart.series[0].y == [0.5] or chart.series[0].y == [0.3, 0.5]
    assert chart.levels == {"raw pixels": 0.2}


def test_thinned_curves_keep_ends_and_peaks() -> None:
    points = [(float(x), random.Random(x).random()) for x in range(5000)]
    points[1234] = (1234.0, 99.0)
    points[4321] = (4321.0, -99.0)
    kept = thin(points)
    assert len(kept) <= 300
    assert kept[0] == points[0] and kept[-1] == points[-1]
    assert {(1234.0, 99.0), (4321.0, -99.0)} <= set(kept)
    assert kept == sorted(kept)
    assert thin(points[:300]) == points[:300]


def test_a_sign_stands_where_the_doctor_sees_it() -> None:
    logged = lines([1.0] * 5 + [4.0] * 20)
    (sign,) = find_signs([lines([1.0] * 30), logged])
    assert (sign.run, sign.step) == (1, 15)  # the tenth period in a row
    assert "training diverges" in sign.text


@pytest.mark.parametrize("seed", range(20))
def test_labels_never_collide(seed: int) -> None:
    draw = random.Random(seed)
    positions = [draw.uniform(-20, 220) for _ in range(draw.randint(1, 12))]
    found = spread(positions, 12.0, 0.0, 200.0)
    assert all(-1e-9 <= place <= 200 + 1e-9 for place in found)
    places = sorted(found)
    assert all(upper - lower >= 12 - 1e-9 for lower, upper in pairwise(places))
    assert sorted(range(len(found)), key=found.__getitem__) == sorted(range(len(found)), key=positions.__getitem__)


def test_too_many_labels_share_the_room() -> None:
    assert spread([5.0] * 3, 100.0, 0.0, 10.0) == [0.0, 5.0, 10.0]
    assert spread([], 1.0, 0.0, 1.0) == []


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, 0.00037), (-3.0, 12.5), (1e6, 1.2e6), (0.55, 0.56)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 8
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in found)


@pytest.mark.parametrize("values", [[1.0], [0.0, 0.0], [1.0, 1.0, 1.0], [-2.0, -2.0], [1e-12, 5e7], [0.25, 0.5]])
def test_a_chart_of_any_values_is_drawn_within_its_frame(values: list[float]) -> None:
    chart = Chart("loss", "Loss", "", series=[Series(0, [float(x) for x in range(len(values))], values)])
    page = parse_page(draw_chart(chart, ["run"]))
    for element in page.elements:
        if "curve" in element.attributes.get("class", ""):
            numbers = [float(number) for number in element.attributes["d"].replace("M", "").replace("L", " ").split()]
            assert all(-0.01 <= number <= 360 for number in numbers)


def test_several_runs_have_a_label_each_beside_their_curve() -> None:
    labels = ["moco", "simclr-v1-with-a-long-name", "byol"]
    series = [Series(run, [0.0, 1.0], [2.0, 1.0 + run * 1e-3]) for run in range(3)]
    page = parse_page(draw_chart(Chart("loss", "Loss", "", series=series), labels))
    names = [element for element in page.elements if element.attributes.get("class", "").startswith("name ")]
    assert [element.text for element in names] == ["moco", "simclr-v1-wit…", "byol"]
    heights = sorted(float(element.attributes["y"]) for element in names)
    assert min(upper - lower for lower, upper in pairwise(heights)) >= 11.9


def test_runs_are_told_apart_by_as_little_as_needed() -> None:
    assert label_runs([Path("/a/runs/x"), Path("/a/runs/y")]) == ["x", "y"]
    assert label_runs([Path("/a/one/x"), Path("/a/two/x")]) == ["one/x", "two/x"]
    assert label_runs([Path("/a/x"), Path("/a/x")]) == ["x", "x (2)"]


# Markup


def test_text_and_attributes_are_escaped_and_markup_is_not() -> None:
    hostile = '<script>alert("1")</script>'
    found = tag("p", hostile, tag("b", "&"), title=hostile, hidden=True, lang=None)
    assert found == (
        '<p title="&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;" hidden>'
        "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;<b>&amp;</b></p>"
    )
    assert join([Markup("<i>"), "<i>", None]) == "<i>&lt;i&gt;"
    assert tag("img", src="x") == '<img src="x">'
    assert tag("p", data_number=0, hidden=False, tabindex=0) == '<p data-number="0" tabindex="0"></p>'


def test_data_of_the_script_cannot_end_it() -> None:
    hostile = "</script><!--<script>\u2028"
    text = json_script("data", {"name": hostile})
    inside = text[text.index(">") + 1 : text.rindex("</script>")]
    assert "<" not in inside and "\u2028" not in inside
    assert json.loads(inside) == {"name": hostile}


# Neighbours


@pytest.fixture
def clusters() -> tuple[torch.Tensor, torch.Tensor]:
    """Features of three classes that overlap, and their labels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 3
    return torch.randn(120, 8, generator=generator) + 1.2 * F.one_hot(labels, 8), labels


def test_votes_give_the_accuracy_of_the_knn_evaluation(clusters: tuple[torch.Tensor, torch.Tensor]) -> None:
    features, labels = clusters
    cosine, found = find_neighbours(features[80:], features[:80], 20)
    predicted = vote(cosine, labels[:80][found], 0.07, 3)
    expected = weighted_knn(features[:80], labels[:80], features[80:], labels[80:], k=20, temperature=0.07, classes=3)
    confusion = confuse(labels[80:], predicted, 3)
    assert confusion.right / confusion.total == expected["top1"]
    counted = [[0] * 3 for _ in range(3)]
    for true, taken in zip(labels[80:].tolist(), predicted.tolist(), strict=True):
        counted[true][taken] += 1
    assert confusion.counts == counted
    assert all(confusion.pairs[0][2] >= pair[2] and pair[0] != pair[1] for pair in confusion.pairs)


def test_many_classes_are_listed_by_pairs() -> None:
    truth = torch.arange(50)
    confusion = confuse(truth, truth.roll(1), 50)
    assert confusion.counts is None
    assert len(confusion.pairs) == 20
    assert confuse(truth, truth, 50).pairs == []


def test_queries_are_of_every_class_in_its_turn() -> None:
    assert choose_queries([2, 2, 0, -1, 1, 0, 2], 5) == [2, 4, 0, 5, 1]
    assert choose_queries([-1] * 9, 3) == [0, 3, 6]
    assert choose_queries([-1], 8) == [0]


# The plane


def test_principal_components_are_scikit_learns() -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    values = torch.randn(60, 7, generator=torch.Generator().manual_seed(1)) * torch.arange(1.0, 8.0)
    points, explained = projection.principal_components(values, 3)
    reference = decomposition.PCA(3)
    expected = reference.fit_transform(values.numpy())
    signs = np.sign((expected * points.numpy()).sum(axis=0))
    np.testing.assert_allclose(points.numpy(), expected * signs, atol=1e-3)
    np.testing.assert_allclose(explained.numpy(), reference.explained_variance_ratio_, atol=1e-4)


def test_components_beyond_the_rank_are_zero() -> None:
    points, explained = projection.principal_components(torch.tensor([[1.0], [2.0], [4.0]]), 2)
    assert points.shape == (3, 2)
    assert points[:, 1].tolist() == [0.0, 0.0, 0.0]
    assert explained.tolist() == pytest.approx([1.0, 0.0])
    assert bool(torch.isfinite(projection.principal_components(torch.ones(4, 3), 2)[0]).all())


def test_points_are_packed_as_they_lie() -> None:
    points = torch.tensor([[0.0, 0.0], [4.0, 1.0], [2.0, 2.0]])
    numbers = np.frombuffer(base64.b64decode(projection.pack(points)), dtype="<u2").reshape(3, 2) / 65535
    np.testing.assert_allclose(numbers, [[0, 0.25], [1, 0.5], [0.5, 0.75]], atol=1e-4)


def test_umap_gives_the_same_points_for_the_same_seed() -> None:
    pytest.importorskip("umap")
    values = torch.randn(30, 6, generator=torch.Generator().manual_seed(2))
    one, two = projection.umap_points(values, 0), projection.umap_points(values, 0)
    assert one.shape == (30, 2)
    torch.testing.assert_close(one, two)


# Pictures


def opened(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_thumbnails_are_small_and_keep_their_shape() -> None:
    image = noise((640, 320), 90).convert("RGB")
    uri = data_uri(image)
    assert uri.startswith("data:image/") and len(uri) < 12_000
    assert opened(uri).size == (96, 48)
    assert opened(data_uri(Image.new("RGB", (5, 900)))).size == (1, 96)


def test_a_sprite_holds_each_image_in_its_place() -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255)]
    sprite = make_sprite((Image.new("RGB", (50, 30), colour) for colour in colours), 5, 16)
    sheet = opened(sprite.uri).convert("RGB")
    assert (sprite.columns, sheet.size) == (3, (48, 32))
    for number, colour in enumerate(colours):
        found = sheet.getpixel((number % 3 * 16 + 8, number // 3 * 16 + 8))
        assert np.abs(np.array(found) - np.array(colour)).max() < 60


def test_pictures_of_tensors() -> None:
    grey = to_image(torch.tensor([[[0.0, 1.0]]]))
    assert (grey.mode, grey.size, grey.getpixel((1, 0))) == ("RGB", (2, 1), (255, 255, 255))
    mosaic = to_image(torch.zeros(5, 3, 4, 4))
    assert mosaic.size == (3 * 4 + 2 * 2, 2 * 4 + 2)
    colours = heat_map(torch.tensor([[0.0, 0.5, 1.0]]))
    assert colours.shape == (3, 1, 3)
    assert colours[:, 0, 0].sum() < colours[:, 0, 1].sum() < colours[:, 0, 2].sum()
    assert bool(torch.isfinite(heat_map(torch.ones(2, 2))).all())


# Attention


def test_attention_is_what_timm_computes() -> None:
    timm = pytest.importorskip("timm.models.vision_transformer")
    vit = timm.VisionTransformer(
        img_size=16, patch_size=4, embed_dim=16, depth=2, num_heads=2, num_classes=0, dynamic_img_size=True
    ).eval()
    images = torch.rand(3, 3, 16, 24)
    assert attention.is_transformer(vit)
    vit.train()
    seen = attention.look(vit, images)
    assert vit.training
    vit.eval()
    assert seen.attention.shape == (3, 2, 4, 6) and seen.has_class_token
    tokens = vit.forward_features(images)
    torch.testing.assert_close(seen.tokens, tokens[:, 1:].unflatten(1, (4, 6)).detach())
    # By hand: what the class token of the last block pays, from the tokens before it.
    held = vit._pos_embed(vit.patch_embed(images))
    before = vit.blocks[-1].norm1(vit.blocks[0](held))
    block = vit.blocks[-1].attn
    for head in range(2):
        of = slice(head * 8, head * 8 + 8)
        query, key, _ = block.qkv(before).chunk(3, dim=2)
        scores = query[:, :1, of] @ key[:, :, of].transpose(1, 2) / 8**0.5
        expected = scores.softmax(dim=2)[:, 0, 1:].unflatten(1, (4, 6))
        torch.testing.assert_close(seen.attention[:, head], expected.detach())


def test_attention_of_torchvisions_transformer() -> None:
    from torchvision.models import VisionTransformer

    vit = VisionTransformer(image_size=16, patch_size=4, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=16)
    seen = attention.look(vit, torch.rand(2, 3, 16, 16))
    assert seen.attention.shape == (2, 2, 4, 4)
    assert bool((seen.attention.sum(dim=(2, 3)) < 1).all())  # the rest goes to the class token itself
    assert seen.tokens.shape == (2, 4, 4, 16)
    assert not attention.is_transformer(torch.nn.Linear(2, 2))
    assert not attention.is_transformer(None)


def test_patches_are_coloured_by_their_components() -> None:
    tokens = torch.zeros(2, 3, 3, 5)
    tokens[0, ..., 0] = 1
    colours = attention.colour_patches(tokens)
    assert colours.shape == (2, 3, 3, 3)
    assert float((colours[0, 0] - colours[1, 0]).abs().min()) > 0.9
    assert 0 <= float(colours.min()) <= float(colours.max()) <= 1
