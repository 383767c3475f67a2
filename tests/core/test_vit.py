"""The backbone vit: its positions, its first weights, what is not trained, and what it says of an image's size."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contralex.errors import ContralexError
from contralex.vocabulary.backbones import ViT

pytest.importorskip("timm")


def vit(**fields: Any) -> Any:
    torch.manual_seed(0)
    model, width = ViT(**{"image_size": 24, "patch": 8, "width": 16, "depth": 2, "heads": 2} | fields).build()
    assert width == fields.get("width", 16)
    return model


def images(size: int = 24) -> Tensor:
    return torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(1))


def attention(block: Any, x: Tensor) -> Tensor:
    """Softmax attention of two heads, head by head and sample by sample."""
    q, k, v = (part.unflatten(2, (2, -1)) for part in block.attn.qkv(x).chunk(3, dim=2))  # (B, L, 2, D/2) each
    out = torch.zeros_like(v)
    for sample in range(len(x)):
        for head in range(2):
            scores = q[sample, :, head] @ k[sample, :, head].T / math.sqrt(q.shape[-1])
            out[sample, :, head] = scores.softmax(dim=1) @ v[sample, :, head]
    mixed: Tensor = block.attn.proj(out.flatten(2))
    return mixed


@pytest.mark.parametrize("pool", ["token", "mean"])
def test_equals_the_formulas(pool: str) -> None:
    model, x = vit(pool=pool), images()
    weight, bias = model.patch_embed.proj.weight.flatten(1), model.patch_embed.proj.bias
    places = [x[:, :, r : r + 8, c : c + 8].flatten(1) @ weight.T + bias for r in (0, 8, 16) for c in (0, 8, 16)]
    tokens = torch.stack([model.cls_token[0].expand(3, -1), *places], dim=1) + model.pos_embed
    for block in model.blocks:
        tokens = tokens + attention(block, block.norm1(tokens))
        tokens = tokens + block.mlp.fc2(nn.functional.gelu(block.mlp.fc1(block.norm2(tokens))))
    tokens = nn.functional.layer_norm(tokens, (16,), eps=1e-6)
    expected = tokens[:, 0] if pool == "token" else tokens[:, 1:].mean(dim=1)
    torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)


def test_fixed_positions() -> None:
    model = vit(positions="sincos")
    assert not model.pos_embed.requires_grad
    assert torch.equal(model.pos_embed[0, 0], torch.zeros(16))
    for row in range(3):
        for column in range(3):
            found = model.pos_embed[0, 1 + 3 * row + column]
            wave = [
                function(place / 10000 ** (i / 4))
                for place in (column, row)
                for function in (math.sin, math.cos)
                for i in range(4)
            ]
            torch.testing.assert_close(found, torch.tensor(wave))


def test_weights_at_first() -> None:
    normal, xavier = vit(width=64), vit(width=64, init="xavier")
    for model, spread in ((normal, 0.02), (xavier, math.sqrt(6 / (64 + 64)) / math.sqrt(3))):
        assert model.blocks[0].attn.qkv.weight.std().item() == pytest.approx(spread, rel=0.05)  # as of 64 to 64, thrice
        assert not model.blocks[0].attn.qkv.bias.any()
    assert xavier.blocks[0].mlp.fc1.weight.abs().max() <= math.sqrt(6 / (64 + 256))
    assert xavier.patch_embed.proj.weight.std().item() == pytest.approx(math.sqrt(2 / (3 * 64 + 64)), rel=0.05)
    assert normal.cls_token.std().item() == pytest.approx(0.02, rel=0.5)


def test_frozen_patches_and_fixed_positions_get_no_gradient() -> None:
    model = vit(positions="sincos", frozen_patches=True)
    model(images()).sum().backward()
    still = {name for name, p in model.named_parameters() if p.grad is None}
    assert still == {"pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}


def test_drop_path_rises_to_the_last_block_and_is_for_training() -> None:
    model, x = vit(depth=3, drop_path=0.4), images()
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in model.blocks]
    assert rates == pytest.approx([0.0, 0.2, 0.4])
    assert not torch.equal(model.train()(x), model(x))
    assert torch.equal(model.eval()(x), model(x))


def test_any_size_takes_other_crops() -> None:
    model = vit(any_size=True).eval()
    assert model(images(16)).shape == (3, 16)
    fixed = vit().eval()
    fixed.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(images()), fixed(images()))


@pytest.mark.parametrize(
    ("fields", "size", "said"),
    [
        ({}, 16, "image_size is 24, and an image of 16x16 pixels arrived"),
        ({"any_size": True}, 20, "patch is 8, which does not divide an image of 20x20 pixels"),
        ({"image_size": 20}, 20, "image_size is 20, and patch, 8, does not divide it"),
        ({"heads": 3}, 24, "width is 16, and heads, 3, does not divide it"),
        ({"width": 18, "positions": "sincos"}, 24, "need a multiple of 4"),
    ],
)
def test_sizes_that_do_not_fit_are_said(fields: dict[str, Any], size: int, said: str) -> None:
    with pytest.raises(ContralexError, match=said):
        vit(**fields)(images(size))


def test_without_timm_the_cure_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "contralex.parts.vit", None)
    with pytest.raises(ContralexError, match="pip install 'contralex"):
        vit()
