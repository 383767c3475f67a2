"""PIRL and InfoMin against naive loops: the image's term and the pieces' term, on the same weights."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from contralex import resolve
from contralex.lookup import batch_norm
from contralex.lookup.step import LookUp
from contralex.lookup.values import Match, Rows
from contralex.plugin import ContralexError
from tests.parity.test_methods import POPULATION, SAMPLE, B, embed, gradients, images, made, normal, same, step


def pieces(count: int = 4, size: int = 8) -> Tensor:
    return torch.rand(B, count, 3, size, size, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def embed_pieces(model: LookUp, x: Tensor) -> Tensor:
    """Piece by piece; BatchNorm, if any, sees all pieces of the batch together, as one batch."""
    encoder = model.encoder
    features = encoder.backbone(torch.cat([x[:, place] for place in range(x.shape[1])]))
    vectors = encoder.jigsaw.piece(features.view(x.shape[1], B, -1).transpose(0, 1).reshape(B * x.shape[1], -1))
    row = torch.stack([torch.cat([vectors[i * x.shape[1] + place] for place in range(x.shape[1])]) for i in range(B)])
    return encoder.jigsaw.joined(row)


def rows_drawn(query: int) -> Tensor:
    return torch.randint(POPULATION, (B, 16), generator=step().generator(f"memory_bank {query}->0"))


def test_pirl() -> None:
    model, views = made("pirl", "method.negatives.draws=16"), {**images(1), 1: pieces()}

    def oracle() -> Tensor:
        bank, noise, z, terms = model.negatives.bank(0), 16 / POPULATION, None, []
        for view, v in ((1, normal(embed_pieces(model, views[1]))), (0, normal(embed(model.encoder, views[0])))):
            drawn = rows_drawn(view)  # each term has rows of its own (VISSL: nce_loss.py)
            raw = [[torch.exp(v[i] @ bank[j] / 0.5) for j in [SAMPLE[i], *drawn[i]]] for i in range(B)]
            if z is None:  # set once, by the pieces' term, which comes first
                z = torch.stack([s for row in raw for s in row]).mean().detach() * POPULATION
            loss = torch.zeros(())
            for row in raw:
                loss = loss - torch.log(row[0] / z / (row[0] / z + noise + 1e-7))
                loss = loss - sum(torch.log(noise / (s / z + noise + 1e-7)) for s in row[1:])
            terms.append(loss / B)
        return 0.5 * terms[0] + 0.5 * terms[1]

    same(model, views, oracle)


def test_matches_share_the_rows_that_are_drawn_unless_each_draws_its_own() -> None:
    model, match = made("pirl", "method.negatives.draws=16"), (Match(0, 0), Match(1, 0))
    queries = Rows.from_view(torch.zeros(B, 128), SAMPLE, 0)
    for redraw in (True, False):
        model.negatives.redraw = redraw
        first, second = (model.negatives(queries, queries, one, step()).own for one in match)
        assert torch.equal(first[:, 0], second[:, 0])  # the positive is the same
        assert torch.equal(first[:, 1:], second[:, 1:]) != redraw
        assert torch.equal(first, model.negatives(queries, queries, match[0], step()).own)  # a function of the step


def test_pirl_remembers_the_image_and_never_its_pieces() -> None:
    model, views = made("pirl", "method.negatives.draws=16"), {**images(1), 1: pieces()}
    bank = model.negatives.bank(0).clone()
    moment = step()
    found = model(views, SAMPLE, moment)
    model.update(found.keys, moment)
    image = normal(embed(model.encoder, views[0])).detach()
    torch.testing.assert_close(model.negatives.bank(0)[SAMPLE], normal(0.5 * bank[SAMPLE] + 0.5 * image))
    assert set(found.keys.view.tolist()) == {0}


def test_infomin() -> None:
    model = made("infomin", "method.negatives.size=24", "method.key_encoder.shuffle_bn=false")
    views = {**images(2), 2: pieces()}

    def oracle() -> Tensor:
        twin = model.key_encoder.encoder
        with torch.no_grad():
            k = normal(embed(twin, views[1]))
        terms = []
        for q in (normal(embed(model.encoder, views[0])), normal(embed_pieces(model, views[2]))):
            loss = torch.zeros(())
            for i in range(B):
                positive = torch.exp(q[i] @ k[i] / 0.1)
                others = sum(torch.exp(q[i] @ row / 0.1) for row in model.negatives.vectors)
                loss = loss - torch.log(positive / (positive + others))
            terms.append(loss / B)
        return (terms[0] + terms[1]) / 2

    same(model, views, oracle)


def test_the_pieces_of_infomin_may_have_a_weight_of_their_own() -> None:
    """As the card says it: a second look-up of the same queue. With half of the weight each it is the recipe."""
    views = {**images(2), 2: pieces()}
    small = ("method.negatives.size=24", "method.key_encoder.shuffle_bn=false")
    card = (Path(__file__).parents[2] / "plugins/infomin/README.md").read_text("utf-8")
    sets = [line.strip(" \\").removeprefix("--set ").strip("'") for line in card.splitlines() if "  --set" in line]
    losses = {}
    for weight in (0.5, 0.3):
        parts = ("method.look_ups.pieces.loss.temperature=0.1", f"method.look_ups.pieces.weight={weight}")
        model = made("infomin", *small, *sets, *parts, f"method.weight={1 - weight}")
        found = model(views, SAMPLE, step())
        losses[weight] = found.loss, gradients(model, found.loss), found.answers
    plain = made("infomin", *small)
    found = plain(views, SAMPLE, step())
    loss, given, _ = losses[0.5]
    torch.testing.assert_close(loss, found.loss)
    torch.testing.assert_close(given, gradients(plain, found.loss))
    other, _, answers = losses[0.3]
    torch.testing.assert_close(other.detach(), 0.7 * answers["main"].loss + 0.3 * answers["pieces"].loss)


def test_batch_norm_in_groups_of_images_keeps_the_pieces_of_one_together() -> None:
    plain = made("pirl", "method.encoder.jigsaw.piece=[{width: 8, norm: batch, activation: relu}]").encoder
    grouped = copy.deepcopy(plain)
    batch_norm.convert(grouped, 2)
    x = pieces()
    found = grouped({1: x})[1]
    torch.testing.assert_close(found, torch.cat([plain({1: part})[1] for part in x.split(2)]), rtol=1e-4, atol=1e-4)


# The pieces themselves

GRID = {
    "crop": {"size": 30, "scale": [1, 1], "ratio": [1, 1]},
    "jigsaw": {"grid": 3, "cell": 10},
    "order": ["crop", "jigsaw"],
}


def cut(augment: dict[str, object], image: Image.Image, seed: int = 0) -> Tensor:
    spec = resolve("pirl", preset="digits").run.method.views
    group = {"augment": augment}
    views = type(spec).model_validate({"groups": {"jigsaw": group}})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made: Tensor = views.build().make(image, 0)
    return made


def test_pieces_are_the_image_in_another_order() -> None:
    """Cells as large as their pieces: every pixel is there once, and in the order in which a seed puts them."""
    image = Image.new("RGB", (30, 30))
    for place in range(9):
        image.paste((20 * place, 0, 0), (place % 3 * 10, place // 3 * 10, place % 3 * 10 + 10, place // 3 * 10 + 10))
    found = cut(GRID, image)
    assert found.shape == (9, 3, 10, 10)
    colours = [round(float(piece[0].mean()) * 255 / 20) for piece in found]
    assert sorted(colours) == list(range(9))
    assert colours != list(range(9))
    assert torch.equal(found, cut(GRID, image))
    assert not torch.equal(found, cut(GRID, image, seed=1))


def test_what_stands_after_the_jigsaw_happens_to_each_piece() -> None:
    image = Image.new("RGB", (30, 30), (200, 80, 40))
    jitter = {"brightness": 0.8, "contrast": 0, "saturation": 0, "hue": 0}
    each = cut({**GRID, "order": ["crop", "jigsaw", "jitter"], "jitter": jitter}, image)
    whole = cut({**GRID, "order": ["crop", "jitter", "jigsaw"], "jitter": jitter}, image)
    assert len({round(float(piece.mean()), 4) for piece in each}) > 1
    assert len({round(float(piece.mean()), 4) for piece in whole}) == 1


@pytest.mark.parametrize(
    ("recipe", "change", "sentence"),
    [
        ("pirl", "method.encoder.jigsaw=null", "needs a head for pieces from method.encoder"),
        ("pirl", "method.views.groups.jigsaw.augment.jigsaw.cell=20", "a crop of 32 pixels has cells of 16"),
        (
            "pirl",
            "method.views.groups.jigsaw.augment.order=[jigsaw, crop, jitter, gray]",
            "order has jigsaw before crop",
        ),
        (
            "moco-v2",
            "method.encoder.jigsaw={piece: [{width: 4}], joined: [{width: 128}]}",
            "needs pieces from method.views",
        ),
    ],
)
def test_what_cannot_work_is_refused(recipe: str, change: str, sentence: str) -> None:
    with pytest.raises(ContralexError, match=sentence):
        resolve(recipe, preset="digits", sets=[change])


def test_heads_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ContralexError, match="joined ends in 64 dimensions and the projector in 128"):
        made("pirl", "method.encoder.jigsaw.joined=[{width: 64}]")
    model = made("pirl", "method.encoder.jigsaw.pieces=9")
    with pytest.raises(ContralexError, match=r"pieces is 9, and method\.views cuts 4 pieces"):
        model({**images(1), 1: pieces()}, SAMPLE, step())
