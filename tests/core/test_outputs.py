"""Further outputs of an image encoder: layers on the backbone's features, or on those of each place."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contralex.errors import ContralexError
from contralex.kinds.backbones.parts import conv_backbone
from contralex.kinds.encoders.image import ImageEncoder
from contralex.kinds.encoders.specs import ImageSpec, Layer, Output
from contralex.kinds.encoders.towers import TowersEncoder
from contralex.lookup.clock import Clock
from contralex.lookup.slots import Backbone
from contralex.lookup.values import Step
from contralex.recipes.layers import resolve
from contralex.training import build

HIDDEN = Layer(width=6, norm="batch", activation="relu")
LAYERS = (HIDDEN, Layer(width=5))
OUTPUTS = {
    "dense": Output(reads="places", projector=LAYERS, predictor=(Layer(width=5),)),
    "dense_mean": Output(reads="places", head="dense", mean=True),
    "map": Output(reads="places", normalize=False),
    "pooled": Output(projector=LAYERS, normalize=False),
    "same": Output(head="image"),
}


def make(batching: Any = "apart", outputs: dict[str, Output] = OUTPUTS) -> ImageEncoder:
    torch.manual_seed(0)
    return ImageEncoder(conv_backbone((4, 8), (2, 2)), (Layer(width=7),), batching=batching, outputs=outputs)


def images(size: int = 12, seed: int = 0) -> Tensor:
    return torch.rand(4, 3, size, size, generator=torch.Generator().manual_seed(seed))


def each_row(layers: nn.Module, places: Tensor) -> Tensor:
    """1x1 convolutions as a loop over the places; BatchNorm takes its statistics over all of them."""
    rows: Tensor = layers(torch.cat([places[:, place] for place in range(places.shape[1])]))
    return torch.stack(rows.split(len(places)), dim=1)


def test_names_and_widths() -> None:
    assert make().outputs == {"image": 7, "dense": 5, "dense_mean": 5, "map": 8, "pooled": 5, "same": 7}
    assert ImageEncoder(conv_backbone()).outputs == {"image": 256}


def test_each_output_equals_its_formula() -> None:
    encoder, other, view = make(), make(), images()
    embedded = encoder({0: view})
    pooled, places = other.backbone.encode_places(view)  # type: ignore[operator]
    dense: Any = other.heads["dense"]
    on_places = each_row(dense.projector, places)
    image = F.normalize(other.projector(pooled), dim=1)
    expected_keys = {
        "image": image,
        "dense": F.normalize(on_places, dim=2),
        "dense_mean": F.normalize(on_places.mean(dim=1), dim=1),
        "map": places,
        "pooled": other.heads["pooled"].projector(pooled),  # type: ignore[union-attr, operator]
        "same": image,
    }
    expected_queries = {
        **expected_keys,
        "dense": F.normalize(dense.predictor(on_places), dim=2),
        "dense_mean": F.normalize(dense.predictor(on_places).mean(dim=1), dim=1),
    }
    for name in encoder.outputs:
        vectors, positions = encoder.keys_of(name, embedded)[0]
        assert positions is None
        torch.testing.assert_close(vectors, expected_keys[name])
        torch.testing.assert_close(encoder.queries_of(name, embedded)[0][0], expected_queries[name])
    torch.testing.assert_close(dict(encoder.named_buffers()), dict(other.named_buffers()))  # a shared head runs once
    assert torch.equal(encoder(view), encoder.keys({0: encoder({0: view})[0]})[0][0])


def test_the_main_output_is_that_of_an_encoder_without_others() -> None:
    for batching in ("apart", "together"):
        several, alone = make(batching), make(batching, outputs={})
        views = {0: images(), 1: images(seed=1)}
        one, other = several.queries(several(views)), alone.queries(alone(views))
        assert all(torch.equal(one[view][0], other[view][0]) for view in views)
        assert list(alone.state_dict()) == [name for name in several.state_dict() if not name.startswith("heads.")]


def test_together_views_share_statistics() -> None:
    together, apart = make("together"), make()
    one, other = images(), images(seed=1)
    both = together.queries_of("dense", together({0: one, 1: other}))
    joined = apart.queries_of("dense", apart({0: torch.cat([one, other])}))[0][0]
    torch.testing.assert_close(torch.cat([both[0][0], both[1][0]]), joined)
    alone = apart.queries_of("dense", apart({0: one}))[0][0]
    assert not torch.allclose(both[0][0], alone)


def test_together_views_of_two_sizes() -> None:
    encoder = make("together")
    embedded = encoder({0: images(), 1: images(8), 2: images(seed=2)})
    found = encoder.queries_of("dense", embedded)
    assert {view: tuple(vectors.shape) for view, (vectors, _) in found.items()} == {
        0: (4, 9, 5),
        1: (4, 4, 5),
        2: (4, 9, 5),
    }
    assert torch.equal(encoder.keys_of("image", embedded)[1][0], encoder.keys(embedded)[1][0])


def test_batch_norm_of_places_counts_samples() -> None:
    """In groups of two samples, a head on places sees the rows of two samples, as a loop over the groups does."""
    from contralex.lookup.batch_norm import convert

    encoder = make()
    plain = copy.deepcopy(encoder)
    convert(encoder, 2)
    view = images()
    found = encoder.keys_of("dense", encoder({0: view}))[0][0]
    groups = [plain.keys_of("dense", plain({0: part}))[0][0] for part in view.split(2)]
    torch.testing.assert_close(found, torch.cat(groups))


def test_who_has_the_same_sides() -> None:
    assert not make().has_same_sides
    assert make(outputs={"map": Output(reads="places")}).has_same_sides


def test_refusals() -> None:
    with pytest.raises(ContralexError, match=r"outputs\.dense\.predictor ends in 3 dimensions"):
        make(outputs={"dense": Output(projector=LAYERS, predictor=(Layer(width=3),))})
    flat = Backbone(nn.Flatten(), 3 * 8 * 8)
    with pytest.raises(ContralexError, match="Flatten gives none"):
        ImageEncoder(flat, outputs={"dense": Output(reads="places")})
    with pytest.raises(ValueError, match="leave projector and predictor out"):
        Output(head="image", projector=LAYERS)
    with pytest.raises(ValueError, match="set reads to places"):
        Output(mean=True)
    conv = {"kind": "conv"}
    with pytest.raises(ValueError, match="image is the name"):
        ImageSpec(backbone=conv, outputs={"image": {}})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="those with are image, dense"):
        ImageSpec(backbone=conv, outputs={"dense": {}, "mean": {"head": "men"}})  # type: ignore[arg-type]


def test_a_spec_without_outputs_is_written_as_before() -> None:
    spec = ImageSpec(backbone={"kind": "conv"})  # type: ignore[arg-type]
    assert "outputs" not in spec.model_dump()
    assert spec.output_names() == ("image",)
    with_one = ImageSpec(backbone={"kind": "conv"}, outputs={"dense": {"reads": "places"}})  # type: ignore[arg-type]
    assert with_one.model_dump()["outputs"]["dense"]["reads"] == "places"
    assert ImageSpec(**with_one.model_dump()) == with_one
    assert with_one.offers_of("dense") == {"unit length", "queries at positions"}
    assert with_one.offers_of("image") == spec.offers()
    assert ("encoder.backbone", frozenset({"places"})) in with_one.requires()


def test_towers_give_the_outputs_of_each() -> None:
    towers = TowersEncoder({"one": make(), "other": make(outputs={})}, features="first")
    assert towers.outputs == make().outputs
    embedded = towers({0: images(), 1: images(seed=1)})
    found = towers.queries_of("dense", {0: embedded[0]})[0][0]
    assert torch.equal(found, make().queries_of("dense", make()({0: images()}))[0][0])
    assert set(towers.queries(embedded)) == {0, 1}


KOLEO = "method.look_ups.koleo={negatives: none, targets: key_vector, loss: koleo, matches: forward, weight: 0.1}"
TINY = ("method.encoder.backbone={kind: conv, widths: [8, 12], strides: [2, 2]}", "method.negatives.size=12")


def test_moco_with_koleo_is_one_line() -> None:
    """The loss of MoCo v2, and a tenth of KoLeo's on its queries, before which no layer and no pass is added."""
    run = resolve("moco-v2", preset="digits", sets=[*TINY, KOLEO]).run
    method, plain = build.look_up(run, 40), build.look_up(resolve("moco-v2", preset="digits", sets=TINY).run, 40)
    assert list(method.state_dict()) == list(plain.state_dict())
    views, sample = {0: images(16), 1: images(16, seed=1)}, torch.arange(4)
    moment = Step(Clock(0, 10, 5), seed=0, batch=4)
    found = method(views, sample, moment)
    expected = plain(views, sample, Step(Clock(0, 10, 5), seed=0, batch=4)).loss
    queries = moment.queries["image"].vectors
    distances = torch.cdist(queries, queries).fill_diagonal_(9.0).min(dim=1).values
    torch.testing.assert_close(found.loss, expected - 0.1 * distances.log().mean(), rtol=1e-4, atol=1e-4)
    assert found.answers["koleo"].entries == 0


def _tower(backbone: str) -> str:
    return f"{{kind: image, backbone: {backbone.partition('=')[2]}, outputs: {{dense: {{reads: places}}}}}}"


def test_a_dense_look_up_needs_a_backbone_with_places() -> None:
    dense = "method.encoder.outputs={dense: {reads: places, projector: [{width: 8}]}}"
    asks = "method.look_ups.dense={negatives: none, targets: key_vector, loss: cosine, matches: forward, of: dense}"
    resolve("moco-v2", preset="digits", sets=[*TINY, dense, asks])
    alexnet = "method.encoder.backbone={kind: torchvision, name: alexnet}"
    with pytest.raises(ContralexError, match=r"needs places from method\.encoder\.backbone \(torchvision"):
        resolve("moco-v2", preset="digits", sets=[alexnet, TINY[1], dense, asks])
    towers = f"method.encoder={{kind: towers, features: first, towers: {{a: {_tower(alexnet)}, b: {_tower(TINY[0])}}}}}"
    with pytest.raises(ContralexError, match=r"from method\.encoder\.towers\.a\.backbone \(torchvision"):
        resolve("moco-v2", preset="digits", sets=[towers, TINY[1], asks])
    with pytest.raises(ContralexError, match="asks for the output dense"):
        resolve("moco-v2", preset="digits", sets=[*TINY, asks])


def test_a_run_with_two_outputs_trains_in_micro_batches_as_in_one() -> None:
    dense = "method.encoder.outputs={dense: {reads: places, projector: [{width: 8}]}}"
    asks = "method.look_ups.dense={negatives: none, targets: key_vector, loss: cosine, matches: forward, of: dense}"
    run = resolve("moco-v2", preset="digits", sets=[*TINY, dense, asks]).run
    losses, gradients = [], []
    for micro_batch in (None, 2):
        method = build.look_up(run, 40)
        for norm in [each for each in method.modules() if isinstance(each, nn.BatchNorm2d)]:
            norm.eval()
        step = Step(Clock(0, 10, 5), seed=0, batch=4, micro_batch=micro_batch)
        result = method({0: images(16), 1: images(16, seed=1)}, torch.arange(4), step)
        result.loss.backward()
        losses.append(result.loss.detach())
        gradients.append({name: p.grad for name, p in method.named_parameters() if p.grad is not None})
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(gradients[0], gradients[1])
    assert any(name.startswith("encoder.heads.dense") for name in gradients[0])
