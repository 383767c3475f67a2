"""What DINOv2's networks have beside a Vision Transformer's sizes, compared with a module written after the official
one (facebookresearch/dinov2, dinov2/models/vision_transformer.py and layers/), on state dicts of its layout."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contralex.errors import ContralexError
from contralex.importing.fitting import fit
from contralex.kinds.backbones.parts import make_timm_model
from contralex.kinds.backbones.specs import ViTSpec, swiglu_width
from contralex.kinds.layouts import LAYOUTS
from contralex.plugins.architecture import Architecture
from tests.official_dinov2 import forward, official_state

pytest.importorskip("timm")

WIDTH, PATCH, DEPTH, HEADS, GRID = 24, 4, 3, 2, 5
SMALL = {"image_size": GRID * PATCH, "patch": PATCH, "width": WIDTH, "depth": DEPTH, "heads": HEADS}
OURS = {**SMALL, "any_size": True, "layer_scale": 1e-5, "mask_token": True, "init": "dinov2"}
REGISTERS = {"registers": 4, "resampling": "antialias"}


def vit(**fields: Any) -> Any:
    torch.manual_seed(0)
    model, width = ViTSpec(**OURS | fields).build()
    assert width == WIDTH
    return model


def images(height: int = GRID * PATCH, width: int = GRID * PATCH, count: int = 2) -> Tensor:
    chance = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, height, width, generator=chance, dtype=torch.float64)


def filled(state: dict[str, Tensor], model: nn.Module) -> None:
    """The model with the file's weights, by the layout that `contralex import` has of it."""
    layout = next(layout for layout in LAYOUTS if layout.name == "dinov2")
    ours = {f"encoder.backbone.{name}": tensor for name, tensor in model.state_dict().items()}
    found = fit(layout, {n: tuple(t.shape) for n, t in state.items()}, {n: tuple(t.shape) for n, t in ours.items()})
    assert not found.problems and not found.left_out and not found.new
    assert len(found.read) == len(state)
    for name, (theirs, how) in found.read.items():
        assert how == "as it is"
        ours[name].copy_(state[theirs])


@pytest.mark.parametrize("chunks", [0, 1, 3])
@pytest.mark.parametrize("feed_forward", ["mlp", "swiglu"])
@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("size", [(20, 20), (12, 28)])
def test_equals_the_official_network(chunks: int, feed_forward: str, registers: int, size: tuple[int, int]) -> None:
    state = official_state(WIDTH, DEPTH, PATCH, GRID, feed_forward=feed_forward, registers=registers, chunks=chunks)
    model = vit(feed_forward=feed_forward, **(REGISTERS if registers else {})).double().eval()
    filled(state, model)
    x = images(*size)
    mask = torch.rand(2, x.shape[2] * x.shape[3] // PATCH**2, generator=torch.Generator().manual_seed(2)) < 0.4
    with torch.no_grad():
        token, places = forward(state, x, HEADS, PATCH, antialias=registers > 0)
        torch.testing.assert_close(model(x), token, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(model.encode_places(x), (token, places), rtol=1e-10, atol=1e-10)
        hidden = forward(state, x, HEADS, PATCH, antialias=registers > 0, mask=mask)
        torch.testing.assert_close(model.encode_places(x, mask), hidden, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(hidden[0], token)
    assert model.grid(x) == (size[0] // PATCH, size[1] // PATCH)


def test_a_teacher_of_its_training_is_read_without_its_heads() -> None:
    """``teacher_checkpoint.pth`` of facebookresearch/dinov2, train/train.py: blocks in chunks, and both heads."""
    layout = next(layout for layout in LAYOUTS if layout.name == "dinov2")
    state = official_state(WIDTH, DEPTH, PATCH, GRID, registers=4, chunks=3)
    theirs = {f"teacher/backbone.{name}": tuple(tensor.shape) for name, tensor in state.items()}
    heads = {"teacher/dino_head.mlp.0.weight": (8, WIDTH), "teacher/ibot_head.last_layer.weight_g": (16, 1)}
    ours = {f"encoder.backbone.{name}": tuple(t.shape) for name, t in vit(**REGISTERS).state_dict().items()}
    found = fit(layout, theirs | heads, ours)
    assert not found.problems and not found.new and len(found.read) == len(state)
    assert found.read["encoder.backbone.blocks.2.attn.qkv.weight"][0] == "teacher/backbone.blocks.2.2.attn.qkv.weight"
    assert found.left_out.keys() == heads.keys()
    wrong = fit(layout, theirs | {"teacher/backbone.norm.weight": (WIDTH + 1,)}, ours)
    assert wrong.problems.keys() == {"teacher/backbone.norm.weight"}  # and nothing of the backbone is left out


def test_nothing_changes_where_nothing_is_asked() -> None:
    plain = vit(layer_scale=None, mask_token=False, init="trunc_normal")
    assert not {"mask_token", "reg_token"} & set(plain.state_dict())
    assert not any(".ls" in name for name in plain.state_dict())
    features, places = plain.eval().encode_places(images().float())
    torch.testing.assert_close(features, plain(images().float()))
    assert places.shape == (2, GRID**2, WIDTH)


def test_the_features_are_the_mean_of_the_patches_without_registers() -> None:
    model = vit(pool="mean", **REGISTERS).eval()
    features, places = model.encode_places(images().float())
    torch.testing.assert_close(features, places.mean(dim=1))


def test_first_weights() -> None:
    model = vit(**REGISTERS)
    assert 0 < model.cls_token.std() < 1e-5 and 0 < model.reg_token.std() < 1e-5
    assert not model.mask_token.any() and model.mask_token.shape == (1, WIDTH)
    assert model.pos_embed.shape == (1, 1 + GRID**2, WIDTH)
    assert model.pos_embed.std().item() == pytest.approx(0.02, rel=0.1)
    gammas = [parameter for name, parameter in model.named_parameters() if name.endswith("gamma")]
    assert len(gammas) == 2 * DEPTH and all(torch.equal(each, torch.full((WIDTH,), 1e-5)) for each in gammas)


def test_a_swiglu_begins_as_other_layers_do() -> None:
    """dinov2/models/vision_transformer.py, ``init_weights_vit_timm``: each linear layer of w12 and w3 alike."""
    for block in vit(feed_forward="swiglu").blocks:
        for weight in (*block.mlp.fc1.weight.chunk(2), block.mlp.fc2.weight):
            assert weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert not block.mlp.fc1.bias.any() and not block.mlp.fc2.bias.any()


@pytest.mark.parametrize(("width", "hidden"), [(384, 1024), (1024, 2736), (1536, 4096), (24, 64)])
def test_the_hidden_layer_of_a_swiglu_is_a_multiple_of_eight(width: int, hidden: int) -> None:
    assert swiglu_width(width, 4.0) == hidden == 8 * math.ceil(int(4 * width * 2 / 3) / 8)


def test_a_uniform_drop_path_computes_a_part_of_the_batch() -> None:
    """By hand: of 7 samples, ⌊7·0.6⌋ = 4 get the output of a branch, 7/4 times."""
    model = vit(drop_path=0.4, drop_path_rule="uniform", layer_scale=1.0)
    assert [block.drop_path1.drop_prob for block in model.blocks] == [0.4] * DEPTH
    block, x = model.blocks[0].train(), torch.randn(7, 5, WIDTH, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(4)
    found = block(x)
    torch.manual_seed(4)
    expected = x.clone()
    for norm, layers in ((block.norm1, block.attn), (block.norm2, block.mlp)):
        chosen, before = torch.randperm(7)[:4], expected.clone()
        for sample in chosen:
            expected[sample] += 7 / 4 * layers(norm(before[sample : sample + 1]))[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    whole = block.eval()(x)
    torch.testing.assert_close(whole, super(type(block), block).forward(x))
    assert torch.equal(block.train()(x[:1]).isfinite(), torch.ones(1, 5, WIDTH, dtype=torch.bool))  # of one, one


def test_a_small_uniform_rate_computes_a_part_of_the_batch_too() -> None:
    """layers/block.py, ``forward_nested``: above 0, and not above .1 as in ``forward``, which training does not use."""
    model = vit(drop_path=0.1, drop_path_rule="uniform", layer_scale=1.0)
    block = model.blocks[0].train()
    x = torch.randn(20, 2, WIDTH, generator=torch.Generator().manual_seed(3))
    calls = []
    block.mlp.register_forward_hook(lambda module, given, made: calls.append(len(made)))
    assert block(x).isfinite().all() and calls == [18]
    assert len(block.eval()(x)) == 20 and calls == [18, 20]


@pytest.mark.parametrize("feed_forward", ["mlp", "swiglu"])
def test_timm_has_the_same_network_without_registers(feed_forward: str) -> None:
    """What an export to timm writes: by its arguments, without the mask token."""
    spec = ViTSpec(**OURS | {"feed_forward": feed_forward})
    found = spec.architecture("timm")
    assert isinstance(found, Architecture) and found.left_out == ("mask_token",)
    theirs, _ = make_timm_model(found.name, **found.arguments)
    ours = vit(feed_forward=feed_forward).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(6))
    theirs.load_state_dict({name: tensor for name, tensor in ours.state_dict().items() if name not in found.left_out})
    torch.testing.assert_close(theirs.eval()(images().float()), ours(images().float()))
    assert "registers come after the positions" in str(ViTSpec(**OURS | REGISTERS).architecture("timm"))


def test_hiding_without_a_mask_token_is_said() -> None:
    model = vit(mask_token=False)
    with pytest.raises(ContralexError, match="mask_token=true"):
        model.encode_places(images().float(), torch.zeros(2, GRID**2, dtype=torch.bool))
