"""CLIP, SigLIP and the shared transformer: loss and every gradient, from the encoders to the loss.

The oracles are written here with torch's own multi-head attention and loops over pairs, on the same weights; and the
losses of open_clip, where that is installed. Everything is float32, to 1e-5.
"""

from __future__ import annotations

import math
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.lookup.entries import Entries
from contralex.lookup.step import LookUp
from contralex.recipes.layers import resolve
from contralex.training import build
from contralex_clip.tokens import Tokens
from tests.parity.test_methods import POPULATION, B, equal, normal, same

CONTEXT = 32
SETS = ("train.precision=fp32", f"train.batch_size={B}")
SMALL = (
    "method.encoder.towers.image.backbone={kind: conv, widths: [8, 12], strides: [2, 2]}",
    "method.encoder.towers.image.projector=[{width: 10, bias: false}]",
    "method.encoder.towers.text.width=12",
    "method.encoder.towers.text.dim=10",
)
SHARED = tuple(f"method.encoder.{change}" for change in ("width=12", "dim=10", "image_size=32", "patch=16"))
CAPTIONS = (
    "a seven",
    "",
    "the digit two",
    "zero",
    "a caption that is longer than there is room for it",
    "é",
    "x y",
    "x",
)


def made(recipe: str, *sets: str) -> LookUp:
    spec = resolve(recipe, preset="digits", sets=[*SETS, *sets]).run
    model = build.look_up(spec, POPULATION).double().train()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "text" in name or "stem" in name:  # they start so small that the norms would magnify rounding
                parameter.mul_(30 if parameter.dim() > 1 else 1)
    return model


def pairs() -> dict[int, Tensor]:
    spec: Any = resolve("clip", preset="digits").run.method.views
    tokens = Tokens(spec.tokenizer.build(), CONTEXT)
    images = torch.rand(B, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return {0: images, 1: torch.stack([tokens(caption) for caption in CAPTIONS])}


# The oracles


def attention(block: Any, x: Tensor, causal: bool) -> Tensor:
    """torch's multi-head attention with the block's weights."""
    width, places = x.shape[2], x.shape[1]
    hidden = torch.full((places, places), float("-inf"), dtype=x.dtype).triu(1) if causal else None
    found, _ = F.multi_head_attention_forward(
        *[x.transpose(0, 1)] * 3,
        width,
        block.heads,
        block.qkv.weight,
        block.qkv.bias,
        None,
        None,
        False,
        0.0,
        block.out.weight,
        block.out.bias,
        attn_mask=hidden,
        need_weights=False,
    )
    return found.transpose(0, 1)


def layer_norm(norm: Any, x: Tensor) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    return centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt() * norm.weight + norm.bias


def transformer(module: Any, x: Tensor, causal: bool, activation: str) -> Tensor:
    for block in module.blocks:
        x = x + attention(block, layer_norm(block.norm_1, x), causal)
        wide = layer_norm(block.norm_2, x) @ block.widen.weight.T + block.widen.bias
        bent = wide / (1 + torch.exp(-1.702 * wide)) if activation == "quick_gelu" else F.gelu(wide)
        x = x + bent @ block.narrow.weight.T + block.narrow.bias
    return x


def text_oracle(tower: Any, stem: Any, tokens: Tensor, causal: bool, last: bool, activation: str) -> Tensor:
    """One caption after the other; the end's mark is looked for by its number."""
    rows = []
    for ids in tokens:
        x = torch.stack(
            [stem.tokens.weight[number] + stem.positions[place] for place, number in enumerate(ids.tolist())]
        )
        places = layer_norm(tower.norm, transformer(tower.transformer, x.unsqueeze(0), causal, activation)[0])
        end = CONTEXT - 1 if last else ids.tolist().index(257)
        rows.append(places[end])
    found = torch.stack(rows) @ tower.projection.weight.T
    return found if tower.projection.bias is None else found + tower.projection.bias


def two_towers(model: LookUp, views: dict[int, Tensor], **text: Any) -> tuple[Tensor, Tensor]:
    image, words = model.encoder.towers
    x = normal(image.projector(image.backbone(views[0])))
    return x, normal(text_oracle(words, words.stem, views[1], **text))


def one_transformer(model: LookUp, views: dict[int, Tensor]) -> tuple[Tensor, Tensor]:
    encoder, patch = model.encoder, 16
    stem = encoder.image_stem
    rows = []
    for image in views[0]:
        places = [stem.whole]
        for top in range(0, 32, patch):
            for left in range(0, 32, patch):
                piece = image[:, top : top + patch, left : left + patch]
                places.append((stem.patches.weight * piece).sum(dim=(1, 2, 3)))
        x = layer_norm(stem.norm, torch.stack(places) + stem.positions).unsqueeze(0)
        rows.append(layer_norm(encoder.norm, transformer(encoder.transformer, x, False, "quick_gelu")[0])[0])
    image = torch.stack(rows) @ encoder.projection.weight.T
    text = text_oracle(encoder, encoder.text_stem, views[1], causal=True, last=False, activation="quick_gelu")
    return normal(image), normal(text)


def clip_oracle(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
    """½(rows + columns), pair after pair."""
    logits = [[t.exp() * (x[i] @ y[j]) for j in range(B)] for i in range(B)]
    rows = sum(torch.logsumexp(torch.stack(logits[i]), 0) - logits[i][i] for i in range(B))
    columns = sum(torch.logsumexp(torch.stack([logits[i][j] for i in range(B)]), 0) - logits[j][j] for j in range(B))
    return (rows + columns) / (2 * B)


def siglip_oracle(x: Tensor, y: Tensor, t: Tensor, b: Tensor) -> Tensor:
    total = torch.zeros(())
    for i in range(B):
        for j in range(B):
            z = 1.0 if i == j else -1.0
            total = total + torch.log(1 / (1 + torch.exp(-z * (t.exp() * (x[i] @ y[j]) + b))))
    return -total / B


CLIP_TEXT = {"causal": True, "last": False, "activation": "quick_gelu"}
SIGLIP_TEXT = {"causal": False, "last": True, "activation": "gelu"}


def test_clip() -> None:
    model, views = made("clip", *SMALL), pairs()
    assert float(model.loss.log_scale.detach()) == pytest.approx(math.log(1 / 0.07))
    with mock.patch.object(Entries, "cross_entropy", None):  # not asked: one pass serves both directions
        same(model, views, lambda: clip_oracle(*two_towers(model, views, **CLIP_TEXT), model.loss.log_scale))


def test_siglip() -> None:
    model, views = made("siglip", *SMALL, "method.loss.bias=-10"), pairs()
    published: Any = resolve("siglip").run.method.loss
    assert (published.scale, published.bias) == (10, -10)
    assert float(model.loss.log_scale.detach()) == pytest.approx(math.log(10))
    assert float(model.loss.bias.detach()) == -10
    same(
        model,
        views,
        lambda: siglip_oracle(*two_towers(model, views, **SIGLIP_TEXT), model.loss.log_scale, model.loss.bias),
    )


def test_clip_with_one_transformer() -> None:
    model, views = made("clip-shared", *SHARED), pairs()
    same(model, views, lambda: clip_oracle(*one_transformer(model, views), model.loss.log_scale))


def test_clip_loss_equals_open_clips() -> None:
    losses = pytest.importorskip("open_clip.loss")
    model, views = made("clip", *SMALL), pairs()
    same(
        model,
        views,
        lambda: losses.ClipLoss()(*two_towers(model, views, **CLIP_TEXT), model.loss.log_scale.exp()),
    )


def test_sigmoid_loss_equals_open_clips() -> None:
    losses = pytest.importorskip("open_clip.loss")
    model, views = made("siglip", *SMALL), pairs()
    same(
        model,
        views,
        lambda: losses.SigLipLoss()(
            *two_towers(model, views, **SIGLIP_TEXT), model.loss.log_scale.exp(), model.loss.bias
        ),
    )


def test_the_text_tower_equals_open_clips() -> None:
    """The published architecture, by its own code, with our weights."""
    pytest.importorskip("open_clip")
    from open_clip.transformer import QuickGELU, TextTransformer

    tower = made("clip", *SMALL).encoder.towers[1]
    theirs = TextTransformer(
        context_length=CONTEXT, vocab_size=258, width=12, heads=4, layers=2, output_dim=10, act_layer=QuickGELU
    ).double()
    with torch.no_grad():
        theirs.token_embedding.weight.copy_(tower.stem.tokens.weight)
        theirs.positional_embedding.copy_(tower.stem.positions)
        theirs.ln_final.load_state_dict(tower.norm.state_dict())
        theirs.text_projection.copy_(tower.projection.weight.T)
        for block, other in zip(tower.transformer.blocks, theirs.transformer.resblocks, strict=True):
            other.ln_1.load_state_dict(block.norm_1.state_dict())
            other.ln_2.load_state_dict(block.norm_2.state_dict())
            other.attn.in_proj_weight.copy_(block.qkv.weight)
            other.attn.in_proj_bias.copy_(block.qkv.bias)
            other.attn.out_proj.load_state_dict(block.out.state_dict())
            other.mlp.c_fc.load_state_dict(block.widen.state_dict())
            other.mlp.c_proj.load_state_dict(block.narrow.state_dict())
    tokens = pairs()[1]
    equal(tower({1: tokens})[1], theirs(tokens), "the vectors")


def test_the_bpe_tokens_are_open_clips() -> None:
    tokenizer = pytest.importorskip("open_clip.tokenizer")
    spec: Any = resolve("clip").run.method.views
    ours, theirs = Tokens(spec.tokenizer.build(), 77), tokenizer.SimpleTokenizer()
    for caption in (*CAPTIONS, "word " * 100):
        assert torch.equal(ours(caption), theirs([caption])[0].long())


@pytest.mark.parametrize(
    ("name", "sets"),
    [
        ("ViT-B-32-quickgelu", []),
        (
            "RN50",
            [
                "method.encoder.towers.image.backbone={kind: timm, name: resnet50_clip}",
                "method.encoder.towers.image.projector=[{width: 1024}]",
                "method.encoder.towers.text.dim=1024",
            ],
        ),
    ],
)
def test_the_published_models_have_as_many_parameters(name: str, sets: list[str]) -> None:
    pytest.importorskip("timm")
    open_clip = pytest.importorskip("open_clip")
    with torch.device("meta"):  # which computes nothing
        ours = build.look_up(resolve("clip", sets=sets).run, POPULATION)
        theirs = open_clip.model.CLIP(**open_clip.get_model_config(name))
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
