"""The backbone vit: its positions, its first weights, what is not trained, and what it says of an image's size."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contralex.errors import ContralexError
from contralex.kinds.backbones.specs import ViTSpec

pytest.importorskip("timm")


def vit(**fields: Any) -> Any:
    torch.manual_seed(0)
    model, width = ViTSpec(**{"image_size": 24, "patch": 8, "width": 16, "depth": 2, "heads": 2} | fields).build()
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


def cubic(distance: float) -> float:
    """Keys' kernel with a = -3/4, which is torch's."""
    x, a = abs(distance), -0.75
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def sampling(old: int, new: int) -> Tensor:
    """(new, old) how much of each old position is in each new one. The new ones are old / (new + .1) apart."""
    weights = torch.zeros(new, old, dtype=torch.float64)
    for i in range(new):
        at = (i + 0.5) * old / (new + 0.1) - 0.5
        for place in range(math.floor(at) - 1, math.floor(at) + 3):
            weights[i, min(max(place, 0), old - 1)] += cubic(at - place)  # beyond the edge stands the edge
    return weights


@pytest.mark.parametrize(("height", "width"), [(96, 96), (160, 160), (288, 288), (96, 160), (448, 112), (208, 240)])
def test_positions_of_another_size_are_sampled_as_in_dinos_code(height: int, width: int) -> None:
    model = vit(image_size=224, patch=16, any_size=True).double()
    nn.init.normal_(model.pos_embed)
    with torch.no_grad():
        images = torch.zeros(1, 3, height, width, dtype=torch.float64)
        found = model._pos_embed(model.patch_embed(images)) - model.patch_embed.proj.bias  # patches of black are alike
    rows, columns = sampling(14, height // 16), sampling(14, width // 16)
    wanted = torch.einsum("ri,cj,ijd->rcd", rows, columns, model.pos_embed[0, 1:].unflatten(0, (14, 14)))
    torch.testing.assert_close(found[0, 1:], wanted.flatten(0, 1), rtol=1e-10, atol=1e-10)
    token = model.cls_token[0, 0] + model.pos_embed[0, 0] - model.patch_embed.proj.bias
    torch.testing.assert_close(found[0, 0], token)


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

    monkeypatch.delitem(sys.modules, "contralex.kinds.backbones.vit", raising=False)
    monkeypatch.setitem(sys.modules, "timm.models", None)
    with pytest.raises(ContralexError, match="pip install 'contralex"):
        vit()
