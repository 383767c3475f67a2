"""Both towers of CLIP begin as openai/CLIP's do, by open_clip's own classes; SigLIP's as big_vision's, by its laws.

Compared are the moments of each tensor: its mean, its deviation, and its kurtosis, which is another for a uniform law.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contralex.errors import ContralexError
from contralex.recipes.layers import resolve
from contralex.training import build, optimizers
from contralex_clip.encoders import TextEncoder
from contralex_clip.initialization import clip_vit, init_as_clip, init_as_siglip
from contralex_clip.spec import ClipViTSpec

pytest.importorskip("timm")
W, LAYERS, HEADS, PATCH, SIZE, DIM = 192, 3, 4, 16, 160, 96
UNIFORM, NORMAL = 1.8, 3.0  # kurtosis


def moments(tensor: Tensor) -> tuple[float, float, float]:
    x = tensor.detach().double().flatten()
    std = float(x.std())
    return float(x.mean()), std, float(((x - x.mean()) / max(std, 1e-30)).pow(4).mean())


def alike(name: str, ours: Tensor, theirs: Tensor) -> None:
    assert ours.numel() == theirs.numel(), name
    mean, std, kurtosis = moments(ours)
    expected_mean, expected_std, expected_kurtosis = moments(theirs)
    few = 4 / math.sqrt(ours.numel())  # some deviations of what is estimated
    assert mean == pytest.approx(expected_mean, abs=few * expected_std), name
    assert std == pytest.approx(expected_std, rel=0.01 + few), name
    if expected_std:
        assert kurtosis == pytest.approx(expected_kurtosis, abs=0.1 + 6 * few), name


def timm_vit(**other: Any) -> Any:
    from timm.models.vision_transformer import VisionTransformer

    sizes = {
        "img_size": SIZE,
        "patch_size": PATCH,
        "embed_dim": W,
        "depth": LAYERS,
        "num_heads": HEADS,
        "num_classes": 0,
    }
    return VisionTransformer(**sizes, **other)


def test_the_image_tower_begins_as_clips() -> None:
    transformer = pytest.importorskip("open_clip.transformer")
    torch.manual_seed(0)
    theirs = transformer.VisionTransformer(SIZE, PATCH, W, LAYERS, HEADS, 4.0, output_dim=DIM)
    ours = timm_vit(pre_norm=True)
    init_as_clip(ours)
    alike("class token", ours.cls_token, theirs.class_embedding)
    alike("positions", ours.pos_embed, theirs.positional_embedding)
    alike("patches", ours.patch_embed.proj.weight, theirs.conv1.weight)
    for block, other in zip(ours.blocks, theirs.transformer.resblocks, strict=True):
        blocks_alike(other, qkv=block.attn.qkv, out=block.attn.proj, widen=block.mlp.fc1, narrow=block.mlp.fc2)


def blocks_alike(other: Any, **ours: Any) -> None:
    alike("qkv", ours["qkv"].weight, other.attn.in_proj_weight)
    alike("qkv bias", ours["qkv"].bias, other.attn.in_proj_bias)
    for name, theirs in (("out", other.attn.out_proj), ("widen", other.mlp.c_fc), ("narrow", other.mlp.c_proj)):
        alike(name, ours[name].weight, theirs.weight)
        alike(f"{name} bias", ours[name].bias, theirs.bias)


def test_the_text_tower_begins_as_clips() -> None:
    transformer = pytest.importorskip("open_clip.transformer")
    torch.manual_seed(0)
    theirs = transformer.TextTransformer(
        context_length=77, vocab_size=258, width=W, heads=HEADS, layers=LAYERS, output_dim=DIM
    )
    ours = TextEncoder(vocab=258, context=77, width=W, heads=HEADS, layers=LAYERS, dim=DIM)
    alike("tokens", ours.stem.tokens.weight, theirs.token_embedding.weight)
    alike("positions", ours.stem.positions, theirs.positional_embedding)
    alike("projection", ours.projection.weight, theirs.text_projection)
    for block, other in zip(ours.transformer.blocks, theirs.transformer.resblocks, strict=True):
        blocks_alike(other, qkv=block.qkv, out=block.out, widen=block.widen, narrow=block.narrow)
        assert float(block.widen.bias.detach().abs().max()) > 0


def test_the_recipes_backbone_begins_so() -> None:
    """The literal figures: deviations of .0361 for tables of 768 numbers and .0104 for an MLP's second layer."""
    torch.manual_seed(0)
    recipe: Any = resolve("clip").run.method.encoder
    backbone = recipe.towers["image"].backbone
    assert isinstance(backbone, ClipViTSpec)
    vit: Any = backbone.build()[0]
    assert moments(vit.cls_token)[1] == pytest.approx(768**-0.5, rel=0.1)
    assert moments(vit.pos_embed)[1] == pytest.approx(768**-0.5, rel=0.02)
    assert moments(vit.blocks[3].mlp.fc2.weight)[1] == pytest.approx((3 * 3072) ** -0.5, rel=0.01)


def test_clip_decays_what_open_clip_decays() -> None:
    """Its rule, of main.py: no parameter of one dimension, and of the others none that is named like a norm or bias."""
    open_clip = pytest.importorskip("open_clip")
    run = resolve("clip").run
    with torch.device("meta"):
        ours = build.look_up(run, 40)
        theirs = open_clip.model.CLIP(**open_clip.get_model_config("ViT-B-32-quickgelu"))
    marks = ("bn", "ln", "bias", "logit_scale")
    free = [p for name, p in theirs.named_parameters() if p.dim() < 2 or any(mark in name for mark in marks)]
    groups = optimizers.build(run.train.optimizer, ours).param_groups
    undecayed = [p for group in groups if group["spec"] is not None for p in group["params"]]
    assert all(group["spec"].weight_decay == 0 for group in groups if group["spec"] is not None)
    assert sum(p.numel() for p in undecayed) == sum(p.numel() for p in free)


def law(name: str, tensor: Tensor, std: float, kurtosis: float) -> None:
    few = 4 / math.sqrt(tensor.numel())
    _, found, shape = moments(tensor)
    assert found == pytest.approx(std, rel=0.01 + few), name
    assert shape == pytest.approx(kurtosis, abs=0.1 + 6 * few), name


def xavier(fan_in: int, fan_out: int) -> float:
    return math.sqrt(2 / (fan_in + fan_out))


def siglip_layers(prefix: str, linears: dict[str, nn.Linear]) -> None:
    for name, linear in linears.items():
        parts = {"qkv": 3, "kv": 2}.get(name, 1)
        law(prefix + name, linear.weight, xavier(linear.in_features, linear.out_features // parts), UNIFORM)
        if name in ("widen", "narrow"):
            law(f"{prefix}{name} bias", linear.bias, 1e-6, NORMAL)
        else:
            assert not linear.bias.any()


def test_siglips_towers_begin_as_big_visions() -> None:
    torch.manual_seed(0)
    vit = timm_vit(class_token=False, global_pool="map")
    init_as_siglip(vit)
    law("positions", vit.pos_embed, W**-0.5, NORMAL)
    law("latent", vit.attn_pool.latent, xavier(1, W), UNIFORM)
    law("patches", vit.patch_embed.proj.weight, (3 * PATCH**2) ** -0.5, 2.4)  # of a normal law that is cut at two
    for block in vit.blocks:
        mlp = {"widen": block.mlp.fc1, "narrow": block.mlp.fc2}
        siglip_layers("block ", {"qkv": block.attn.qkv, "out": block.attn.proj, **mlp})
    pool = vit.attn_pool
    siglip_layers(
        "pool ", {"q": pool.q, "kv": pool.kv, "out": pool.proj, "widen": pool.mlp.fc1, "narrow": pool.mlp.fc2}
    )
    tower = TextEncoder(
        vocab=258, context=16, width=W, heads=HEADS, layers=LAYERS, dim=DIM, init="siglip", projection_bias=True
    )
    law("tokens", tower.stem.tokens.weight, W**-0.5, NORMAL)
    law("text positions", tower.stem.positions, W**-0.5, NORMAL)
    law("projection", tower.projection.weight, W**-0.5, 2.4)
    assert not tower.projection.bias.any()
    for block in tower.transformer.blocks:
        siglip_layers("text ", {"qkv": block.qkv, "out": block.out, "widen": block.widen, "narrow": block.narrow})


def test_the_siglip_recipe_says_so() -> None:
    encoder: Any = resolve("siglip").run.method.encoder
    assert (encoder.towers["image"].backbone.init, encoder.towers["text"].init) == ("siglip", "siglip")


def test_a_network_that_is_no_vit_is_refused() -> None:
    with pytest.raises(ContralexError, match="resnet10t is no ViT of timm's"):
        clip_vit("resnet10t")
