"""MAE, from masked images to loss and every gradient, against a free-standing Transformer that treats one image and
one head at a time."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.lookup.step import LookUp
from tests.parity.test_methods import B, same

pytest.importorskip("timm")

SIZE, PATCH, HIDDEN = 16, 4, 12
SIDE = SIZE // PATCH
ENCODER = (
    f"method.encoder={{backbone: {{image_size: {SIZE}, patch: {PATCH}, width: 12, depth: 2, heads: 3}}, "
    "decoder: {width: 8, depth: 2, heads: 2}}"
)


def mae(*sets: str) -> LookUp:
    from contralex.recipes.layers import resolve
    from contralex.training import build

    size = f"method.views.augment.crop.size={SIZE}"
    spec = resolve("mae", preset="digits", sets=[size, ENCODER, "train.precision=fp32", f"train.batch_size={B}", *sets])
    model = build.look_up(spec.run, 40).double().train()
    with torch.no_grad():  # biases that start at zero could be left out by either side
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)) * 0.1)
    return model


def masked(seed: int = 0) -> tuple[Tensor, list[list[int]]]:
    """Images with their mask as a fourth channel, and the places that are hidden in each."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(B, 4, SIZE, SIZE, generator=generator, dtype=torch.float64)
    images[:, 3] = 0
    hidden = [sorted(torch.randperm(SIDE**2, generator=generator)[:HIDDEN].tolist()) for _ in range(B)]
    for image, places in zip(images, hidden, strict=True):
        for place in places:
            top, left = place // SIDE * PATCH, place % SIDE * PATCH
            image[3, top : top + PATCH, left : left + PATCH] = 1
    return images, hidden


def pixels(image: Tensor, place: int) -> Tensor:
    """(48,) of one patch: its rows, in a row its pixels, of a pixel its channels."""
    top, left = place // SIDE * PATCH, place % SIDE * PATCH
    return torch.stack([image[c, top + y, left + x] for y in range(PATCH) for x in range(PATCH) for c in range(3)])


def positions(table: Tensor) -> Tensor:
    """A model's ``table`` (P, W), which is the formula's to the rounding of float32, in which it is made."""
    formula = torch.stack([position(place, table.shape[1]) for place in range(len(table))])
    torch.testing.assert_close(table.detach(), formula, rtol=0, atol=1e-6)
    return table


def position(place: int, width: int) -> Tensor:
    """Sines and cosines of the column, then of the row."""
    row, column = divmod(place, SIDE)
    quarter = width // 4
    numbers = []
    for at in (column, row):
        angles = [at / 10000 ** (i / quarter) for i in range(quarter)]
        numbers += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
    return torch.tensor(numbers, dtype=torch.float64)


def norm(x: Tensor, layer: Any) -> Tensor:
    centred = x - x.mean(dim=1, keepdim=True)
    return centred / (centred.pow(2).mean(dim=1, keepdim=True) + 1e-6).sqrt() * layer.weight + layer.bias


def block(tokens: Tensor, part: Any, heads: int) -> Tensor:
    """(T, D): attention head by head, and the MLP, each after its norm and added to what comes in."""
    width = tokens.shape[1] // heads
    q, k, v = (norm(tokens, part.norm1) @ part.attn.qkv.weight.T + part.attn.qkv.bias).chunk(3, dim=1)
    mixed = []
    for head in range(heads):
        mine = slice(head * width, (head + 1) * width)
        weights = torch.softmax(q[:, mine] @ k[:, mine].T / math.sqrt(width), dim=1)
        mixed.append(weights @ v[:, mine])
    tokens = tokens + torch.cat(mixed, dim=1) @ part.attn.proj.weight.T + part.attn.proj.bias
    inner = F.gelu(norm(tokens, part.norm2) @ part.mlp.fc1.weight.T + part.mlp.fc1.bias)
    return tokens + inner @ part.mlp.fc2.weight.T + part.mlp.fc2.bias


def predictions(model: LookUp, image: Tensor, hidden: list[int]) -> dict[int, Tensor]:
    vit, decoder = model.encoder.backbone, model.encoder.decoder
    visible = [place for place in range(SIDE**2) if place not in hidden]
    tokens = [vit.cls_token[0, 0]]
    for place in visible:
        top, left = place // SIDE * PATCH, place % SIDE * PATCH
        cut = image[:3, top : top + PATCH, left : left + PATCH]
        projected = (vit.patch_embed.proj.weight * cut).sum(dim=(1, 2, 3)) + vit.patch_embed.proj.bias
        tokens.append(projected + positions(vit.pos_embed[0, 1:])[place])
    x = torch.stack(tokens)
    for part in vit.blocks:
        x = block(x, part, heads=3)
    x = norm(x, vit.norm) @ decoder.embed.weight.T + decoder.embed.bias
    full = [x[0]]
    for place in range(SIDE**2):
        token = decoder.mask_token[0, 0] if place in hidden else x[1 + visible.index(place)]
        full.append(token + positions(decoder.positions[0, 1:])[place])
    y = torch.stack(full)
    for part in decoder.blocks:
        y = block(y, part, heads=2)
    y = norm(y, decoder.norm) @ decoder.predict.weight.T + decoder.predict.bias
    return {place: y[1 + place] for place in hidden}


@pytest.mark.parametrize("normalize", [True, False])
def test_mae(normalize: bool) -> None:
    model = mae(f"method.key_encoder.normalize={str(normalize).lower()}")
    images, hidden = masked()

    def oracle() -> Tensor:
        losses = []
        for image, places in zip(images, hidden, strict=True):
            for place, predicted in predictions(model, image, places).items():
                wanted = pixels(image, place)
                if normalize:
                    wanted = (wanted - wanted.mean()) / (wanted.var(correction=1) + 1e-6).sqrt()
                losses.append((predicted - wanted).pow(2).mean())
        return torch.stack(losses).mean()

    same(model, {0: images}, oracle)
