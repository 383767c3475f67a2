"""Published weights in the layouts of the official code: every tensor is read or accounted for, and training goes on.

The modules here have the names and shapes of the official ones (the source of each stands with its layout), in small
widths; their weights are random, and so is where a number must arrive.
"""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

import contralex
from contralex import ContralexError
from contralex.importing.fitting import fit
from contralex.importing.weights_file import read_weights
from contralex.plugin import Layout, Rename, torchvision_backbone
from contralex.plugins.registry import registry
from contralex.training import build
from contralex.training.checkpoints.read import open_checkpoint
from tests.official_dinov2 import official_state

FEW = {"train.max_steps": 1, "train.workers": 0, "train.batch_size": 8, "train.batch_norm": "local"}
FEW |= {"train.precision": "fp32", "eval.knn": None}
WIDTH = 0.125
NARROW = {"kind": "torchvision", "name": "resnet18", "width": WIDTH}
RESNET = {"method.encoder.backbone": NARROW}
VIT = {"kind": "vit", "image_size": 32, "patch": 8, "width": 16, "depth": 2, "heads": 2}
F, HIDDEN, DIM, PROTOTYPES = 64, 24, 12, 20


def mlp(*widths: int, bias: bool, norm: bool, last_bias: bool | None = None, last_norm: bool = False) -> nn.Sequential:
    """Linear, BatchNorm, ReLU, ..., Linear: as most projectors are built."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths[:-1]):
        layers += [nn.Linear(before, after, bias=bias), *([nn.BatchNorm1d(after)] if norm else []), nn.ReLU()]
    layers.append(nn.Linear(widths[-2], widths[-1], bias=bias if last_bias is None else last_bias))
    return nn.Sequential(*layers, *([nn.BatchNorm1d(widths[-1], affine=False)] if last_norm else []))


def resnet(fc: nn.Module | None = None) -> nn.Module:
    """torchvision's ResNet-18 of an eighth of the channels, to F features, or to what ``fc`` makes of them."""
    model = torchvision_backbone("resnet18", width=WIDTH).module
    model.fc = fc or nn.Identity()
    return model


def vit(head: nn.Module | None = None) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=0, global_pool="token"
    )
    model.head = head or nn.Identity()
    return model  # type: ignore[no-any-return]


class Wrapper(nn.Module):
    """What DistributedDataParallel does to names."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def module(**parts: nn.Module | Tensor) -> nn.Module:
    """Parts by their names; tensors are buffers."""
    made = nn.Module()
    for name, part in parts.items():
        if isinstance(part, Tensor):
            made.register_buffer(name, part)
        else:
            made.add_module(name, part)
    return made


def state(model: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """A state dict in which every number is its own."""
    chance = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, tensor in model.state_dict().items():
        is_float = tensor.is_floating_point()
        drawn = (
            torch.rand(tensor.shape, generator=chance) + 0.1
            if is_float
            else torch.randint(1, 9, tensor.shape, generator=chance)
        )
        tensors[name] = drawn.to(tensor.dtype)
    return tensors


# The official modules


def moco(mlp_head: bool) -> dict[str, Any]:
    """facebookresearch/moco: moco/builder.py, main_moco.py."""

    def encoder() -> nn.Module:
        return resnet(mlp(F, F, DIM, bias=True, norm=False) if mlp_head else nn.Linear(F, DIM))

    model = module(
        encoder_q=encoder(), encoder_k=encoder(), queue=torch.zeros(DIM, 32), queue_ptr=torch.zeros(1, dtype=torch.long)
    )
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": np.float64(0.03)}]}
    return {"epoch": 200, "arch": "resnet18", "state_dict": state(Wrapper(model)), "optimizer": optimizer}


def moco_v3(with_vit: bool) -> dict[str, Any]:
    """facebookresearch/moco-v3: moco/builder.py, main_moco.py."""

    def head(*widths: int) -> nn.Sequential:
        return mlp(*widths, bias=False, norm=True, last_norm=True)

    if with_vit:
        encoders = [vit(head(16, HIDDEN, HIDDEN, DIM)) for _ in range(2)]
    else:
        encoders = [resnet(head(F, HIDDEN, DIM)) for _ in range(2)]
    predictor = head(DIM, HIDDEN, DIM)
    model = module(base_encoder=encoders[0], momentum_encoder=encoders[1], predictor=predictor)
    return {"epoch": 300, "arch": "vit", "state_dict": state(Wrapper(model)), "scaler": {"scale": torch.tensor(2.0)}}


def simsiam() -> dict[str, Any]:
    """facebookresearch/simsiam: simsiam/builder.py."""
    projector = mlp(F, F, F, DIM, bias=False, norm=True, last_bias=True, last_norm=True)
    model = module(encoder=resnet(projector), predictor=mlp(DIM, HIDDEN, DIM, bias=False, norm=True, last_bias=True))
    return {"epoch": 100, "state_dict": state(Wrapper(model))}


def barlow(bias: bool) -> dict[str, Any]:
    """facebookresearch/barlowtwins: main.py; facebookresearch/vicreg: main_vicreg.py, whose projector has biases."""
    parts = {"backbone": resnet(), "projector": mlp(F, HIDDEN, HIDDEN, DIM, bias=bias, norm=True, last_bias=False)}
    model = module(**parts, **({} if bias else {"bn": nn.BatchNorm1d(DIM, affine=False)}))
    return {"epoch": 1000, "model": state(Wrapper(model)), "optimizer": {"state": {0: {"mu": torch.zeros(2)}}}}


def vicregl() -> dict[str, Any]:
    """facebookresearch/VICRegL: main_vicregl.py, utils.py (MLP)."""
    model = module(
        backbone=resnet(),
        maps_projector=mlp(F, HIDDEN, HIDDEN, DIM, bias=True, norm=True, last_bias=False),
        projector=mlp(F, HIDDEN, HIDDEN, DIM, bias=True, norm=True, last_bias=False),
        classifier=nn.Linear(F, 10),
    )
    return {"epoch": 300, "model": state(Wrapper(model)), "optimizer": {"state": {0: {"mu": torch.zeros(2)}}}}


def swav(prototypes: nn.Module) -> dict[str, Any]:
    """facebookresearch/swav: src/resnet50.py, main_swav.py, main_deepclusterv2.py."""
    model = resnet()
    model.add_module("projection_head", mlp(F, HIDDEN, DIM, bias=True, norm=True))
    model.add_module("prototypes", prototypes)
    return {"epoch": 400, "state_dict": state(Wrapper(model)), "amp": {"loss_scaler0": {"loss_scale": 1.0}}}


def dino() -> dict[str, Any]:
    """facebookresearch/dino: main_dino.py, vision_transformer.py, utils.py (MultiCropWrapper)."""

    def network() -> nn.Module:
        head = nn.Sequential(
            nn.Linear(16, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, DIM)
        )
        last = module(weight_g=torch.zeros(PROTOTYPES, 1), weight_v=torch.zeros(PROTOTYPES, DIM))
        return module(backbone=vit(), head=module(mlp=head, last_layer=last))

    return {
        "student": state(Wrapper(network())),
        "teacher": state(network(), seed=1),
        "optimizer": {"state": {}, "param_groups": []},
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_small", lr=0.0005),
        "dino_loss": {"center": torch.rand(1, PROTOTYPES)},
    }


def dinov2() -> dict[str, Any]:
    """facebookresearch/dinov2: train/train.py (do_test), train/ssl_meta_arch.py, layers/dino_head.py."""

    def head() -> nn.Module:
        last = module(weight_g=torch.zeros(PROTOTYPES, 1), weight_v=torch.zeros(PROTOTYPES, DIM))
        return module(mlp=nn.Sequential(nn.Linear(16, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, DIM)), last_layer=last)

    heads = {"dino_head": head(), "ibot_head": head()}
    backbone = official_state(16, 2, 8, 4, chunks=1, dtype=torch.float32)
    return {"teacher": {**{f"backbone.{name}": tensor for name, tensor in backbone.items()}, **state(module(**heads))}}


def mae() -> dict[str, Any]:
    """facebookresearch/mae: models_mae.py, util/misc.py."""
    from timm.models.vision_transformer import Block

    model = vit()
    del model.head
    model.add_module("decoder_embed", nn.Linear(16, 8))
    model.register_buffer("mask_token", torch.zeros(1, 1, 8))
    model.register_buffer("decoder_pos_embed", torch.zeros(1, 17, 8))
    model.add_module("decoder_blocks", nn.ModuleList(Block(8, 2, qkv_bias=True) for _ in range(2)))
    model.add_module("decoder_norm", nn.LayerNorm(8))
    model.add_module("decoder_pred", nn.Linear(8, 192))
    return {"model": state(model), "epoch": 799, "scaler": {}, "args": argparse.Namespace(model="mae_vit")}


def byol() -> dict[str, Any]:
    """lucidrains/byol-pytorch: byol_pytorch.py."""

    def side(net: nn.Module) -> nn.Module:
        return module(net=net, projector=mlp(F, HIDDEN, DIM, bias=True, norm=True))

    net, target = resnet(nn.Linear(F, 10)), side(resnet(nn.Linear(F, 10)))
    predictor = mlp(DIM, HIDDEN, DIM, bias=True, norm=True)
    return state(module(net=net, online_encoder=side(net), target_encoder=target, online_predictor=predictor))


def simclr() -> dict[str, Any]:
    """sthalles/SimCLR: models/resnet_simclr.py."""
    return {"state_dict": state(module(backbone=resnet(mlp(F, F, DIM, bias=True, norm=False))))}


def clip() -> dict[str, Tensor]:
    """mlfoundations/open_clip's own class."""
    open_clip = pytest.importorskip("open_clip")
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    assert open_clip
    vision = CLIPVisionCfg(layers=2, width=64, head_width=32, patch_size=16, image_size=160)
    text = CLIPTextCfg(context_length=32, vocab_size=258, width=16, heads=2, layers=2)
    return state(CLIP(embed_dim=DIM, vision_cfg=vision, text_cfg=text, quick_gelu=True))


def head(*layers: tuple[int, dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"width": width, **rest} for width, rest in layers]


NORM: dict[str, Any] = {"norm": "batch", "activation": "relu"}
V3 = {"bias": False, **NORM}, {"bias": False, "norm": "batch", "affine": "none"}


@dataclass(frozen=True)
class Case:
    """An official file, and the settings that give a recipe its sizes. ``left_out``: the names that are not read."""

    file: Callable[[], Mapping[str, Any]]
    recipe: str
    layout: str
    sets: Mapping[str, Any] = field(default_factory=dict)
    left_out: Sequence[str] = ()
    asked: str | None = None


ENCODER = "method.encoder"
QUEUE = "method.negatives.size"
LOCALS = "method.views.groups.locals.augment.crop.size"
CASES = {
    "moco-v1": Case(
        lambda: moco(mlp_head=False),
        "moco-v1",
        "moco",
        {**RESNET, f"{ENCODER}.projector": head((DIM, {})), QUEUE: 32},
        ["optimizer/state/0/momentum_buffer"],
    ),
    "moco-v2": Case(
        lambda: moco(mlp_head=True),
        "moco-v2",
        "moco",
        {**RESNET, f"{ENCODER}.projector": head((F, {"activation": "relu"}), (DIM, {})), QUEUE: 32},
        ["optimizer/state/0/momentum_buffer"],
    ),
    "moco-v3": Case(
        lambda: moco_v3(with_vit=False),
        "moco-v3",
        "moco-v3",
        {
            **RESNET,
            f"{ENCODER}.projector": head((HIDDEN, V3[0]), (DIM, V3[1])),
            f"{ENCODER}.predictor": head((HIDDEN, V3[0]), (DIM, V3[1])),
        },
        ["scaler/scale"],
    ),
    "moco-v3-vit": Case(
        lambda: moco_v3(with_vit=True),
        "moco-v3-vit",
        "moco-v3",
        {
            f"{ENCODER}.backbone": {**VIT, "positions": "sincos", "init": "xavier"},
            f"{ENCODER}.projector": head((HIDDEN, V3[0]), (HIDDEN, V3[0]), (DIM, V3[1])),
            f"{ENCODER}.predictor": head((HIDDEN, V3[0]), (DIM, V3[1])),
        },
        ["scaler/scale"],
    ),
    "simsiam": Case(
        simsiam,
        "simsiam",
        "simsiam",
        {
            **RESNET,
            f"{ENCODER}.projector": head((F, V3[0]), (F, V3[0]), (DIM, V3[1])),
            f"{ENCODER}.predictor": head((HIDDEN, V3[0]), (DIM, {})),
        },
        ["state_dict/encoder.fc.6.bias"],
    ),
    "barlow": Case(
        lambda: barlow(bias=False),
        "barlow",
        "barlow",
        {**RESNET, f"{ENCODER}.projector": head((HIDDEN, V3[0]), (HIDDEN, V3[0]), (DIM, {"bias": False}))},
        [
            *(f"model/bn.{name}" for name in ("num_batches_tracked", "running_mean", "running_var")),
            "optimizer/state/0/mu",
        ],
    ),
    "vicreg": Case(
        lambda: barlow(bias=True),
        "vicreg",
        "barlow",
        {**RESNET, f"{ENCODER}.projector": head((HIDDEN, NORM), (HIDDEN, NORM), (DIM, {"bias": False}))},
        ["optimizer/state/0/mu"],
    ),
    "vicregl": Case(
        vicregl,
        "vicregl",
        "barlow",
        {
            **RESNET,
            f"{ENCODER}.projector": head((HIDDEN, NORM), (HIDDEN, NORM), (DIM, {"bias": False})),
            f"{ENCODER}.outputs.dense.projector": head((HIDDEN, NORM), (HIDDEN, NORM), (DIM, {"bias": False})),
        },
        ["model/classifier.bias", "model/classifier.weight", "optimizer/state/0/mu"],
    ),
    "swav": Case(
        lambda: swav(nn.Linear(DIM, PROTOTYPES, bias=False)),
        "swav",
        "swav",
        {
            **RESNET,
            f"{ENCODER}.projector": head((HIDDEN, NORM), (DIM, {})),
            "method.negatives.count": PROTOTYPES,
        },
    ),
    "deepcluster-v2": Case(
        lambda: swav(module(prototypes0=nn.Linear(DIM, PROTOTYPES, bias=False))),
        "deepcluster-v2",
        "swav",
        {**RESNET, f"{ENCODER}.projector": head((HIDDEN, NORM), (DIM, {})), "method.negatives.count": 4},
        ["state_dict/prototypes.prototypes0.weight"],
    ),
    "dino": Case(
        dino,
        "dino",
        "dino",
        {
            f"{ENCODER}.backbone": {**VIT, "any_size": True},
            f"{ENCODER}.projector": head((HIDDEN, {"activation": "gelu"}), (HIDDEN, {"activation": "gelu"}), (DIM, {})),
            "method.negatives.count": PROTOTYPES,
            "method.negatives.gain": "trained",
            LOCALS: 16,
        },
    ),
    "dino's teacher": Case(
        dino,
        "dino",
        "dino-teacher",
        {
            f"{ENCODER}.backbone": {**VIT, "any_size": True},
            f"{ENCODER}.projector": head((HIDDEN, {"activation": "gelu"}), (HIDDEN, {"activation": "gelu"}), (DIM, {})),
            "method.negatives.count": PROTOTYPES,
            LOCALS: 16,
        },
        [*(f"student/{name.removeprefix('module.')}" for name in dino()["student"]), "dino_loss/center"],
        asked="dino-teacher",
    ),
    "dinov2's teacher": Case(
        dinov2,
        "dinov2",
        "dinov2-teacher",
        {
            **{f"{ENCODER}.backbone.{name}": value for name, value in VIT.items()},
            f"{ENCODER}.projector": head((HIDDEN, {"activation": "gelu"}), (DIM, {})),
            f"{ENCODER}.outputs.patches.projector": head((HIDDEN, {"activation": "gelu"}), (DIM, {})),
            "method.negatives.count": PROTOTYPES,
            "method.look_ups.patches.negatives.count": PROTOTYPES,
        },
    ),
    "mae": Case(
        mae,
        "mae",
        "mae",
        {
            f"{ENCODER}.backbone": {**VIT, "positions": "sincos"},
            "method.views.patch": 8,
            f"{ENCODER}.decoder": {"width": 8, "depth": 2, "heads": 2},
        },
        ["model/decoder_pos_embed"],
    ),
    "byol": Case(
        byol,
        "byol",
        "byol-pytorch",
        {
            **RESNET,
            f"{ENCODER}.projector": head((HIDDEN, NORM), (DIM, {})),
            f"{ENCODER}.predictor": head((HIDDEN, NORM), (DIM, {})),
        },
        [
            *(f"net.{name}" for name in resnet(nn.Linear(F, 10)).state_dict()),
            *(f"{side}_encoder.net.fc.{name}" for side in ("online", "target") for name in ("weight", "bias")),
        ],
    ),
    "simclr": Case(
        simclr,
        "simclr-v1",
        "simclr-pytorch",
        RESNET,
        [f"state_dict/backbone.fc.{number}.{name}" for number in (0, 2) for name in ("weight", "bias")],
    ),
    "clip": Case(
        clip,
        "clip",
        "clip",
        {
            f"{ENCODER}.towers.image": {
                "kind": "image",
                "backbone": {"kind": "clip_vit", "name": "test_clip_vit"},
                "projector": head((DIM, {"bias": False})),
            },
            f"{ENCODER}.towers.text.width": 16,
            f"{ENCODER}.towers.text.layers": 2,
            f"{ENCODER}.towers.text.heads": 2,
            f"{ENCODER}.towers.text.dim": DIM,
        },
    ),
    "torchvision's own": Case(
        lambda: state(models.resnet18(weights=None)),
        "moco-v2",
        "backbone",
        {f"{ENCODER}.backbone": {"kind": "torchvision", "name": "resnet18"}, QUEUE: 32},
        ["fc.weight", "fc.bias"],
    ),
    "timm's own": Case(
        lambda: {**state(vit()), "head.weight": torch.zeros(10, 16), "head.bias": torch.zeros(10)},
        "moco-v3-vit",
        "backbone",
        {f"{ENCODER}.backbone": VIT},
        ["head.weight", "head.bias"],
    ),
}


@pytest.fixture(scope="module", autouse=True)
def _a_small_clip() -> None:
    """timm's ViT of CLIP's kind, in the sizes of :func:`clip`."""
    timm = pytest.importorskip("timm")
    from timm.models import vision_transformer as vits

    def test_clip_vit(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        sizes = {"img_size": 160, "patch_size": 16, "embed_dim": 64, "depth": 2, "num_heads": 2, "pre_norm": True}
        options = {**sizes, "norm_layer": nn.LayerNorm, "act_layer": "quick_gelu", **kwargs}
        return vits._create_vision_transformer("test_clip_vit", pretrained=pretrained, **options)  # type: ignore[no-any-return]

    if not timm.is_model("test_clip_vit"):
        test_clip_vit.__module__ = vits.__name__
        vits.default_cfgs["test_clip_vit"] = vits.default_cfgs["test_vit"]
        timm.models.register_model(test_clip_vit)


def sets_of(case: Case) -> dict[str, Any]:
    return {**FEW, **case.sets}


@pytest.mark.parametrize("name", CASES)
def test_an_official_file_is_read_whole_and_trained_on(name: str, images: Path, tmp_path: Path) -> None:
    case = CASES[name]
    data = None if case.recipe == "clip" else images  # which has captions of its own
    file = tmp_path / "published.pth"
    torch.save(case.file(), file)
    made = contralex.import_weights(
        file, case.recipe, tmp_path / "run", preset="digits", data=data, sets=sets_of(case), layout=case.asked
    )
    there = read_weights(file)
    assert made.layout == case.layout and made.problems == {}
    assert {*made.left_out} == {*case.left_out}
    assert {*made.read.values()} | {*made.left_out} == {*there}  # every tensor of the file is accounted for
    # Each number is where it belongs: of the same values, in some order.
    stored = open_checkpoint(tmp_path / "run").tensors()
    for ours, theirs in made.read.items():
        assert torch.equal(
            stored[ours].flatten().sort().values, there[theirs].to(stored[ours]).flatten().sort().values
        ), ours
    # Every weight of the encoder is the file's, but for what the layout says it lacks.
    if case.layout not in ("backbone", "simclr-pytorch"):
        assert [new for new in made.new if new.startswith("encoder.")] == []
    # It goes on from there.
    results = contralex.train(resume=True, out=tmp_path / "run").results
    assert results["steps"] == 1 and np.isfinite(results["last_loss"])


def load(case: Case, folder: Path) -> tuple[contralex.LookUp, dict[str, Any]]:
    """The method with the weights of an official file, and the file."""
    official = dict(case.file())
    torch.save(official, folder / "published.pth")
    contralex.import_weights(
        folder / "published.pth", case.recipe, folder / "run", preset="digits", sets=sets_of(case), layout=case.asked
    )
    checkpoint = open_checkpoint(folder / "run")
    method = build.look_up(checkpoint.resolved().run, 40)
    method.load_state_dict(checkpoint.tensors())
    return method.eval(), official


# The same vectors as the official modules give


def test_moco_v2_gives_the_vectors_of_the_official_module(tmp_path: Path) -> None:
    method, official = load(CASES["moco-v2"], tmp_path)
    images = torch.rand(4, 3, 32, 32)
    for side, ours in (("q", method.encoder), ("k", method.key_encoder.encoder)):
        theirs = resnet(mlp(F, F, DIM, bias=True, norm=False)).eval()
        prefix = f"module.encoder_{side}."
        theirs.load_state_dict(
            {k.removeprefix(prefix): v for k, v in official["state_dict"].items() if k.startswith(prefix)}
        )
        with torch.inference_mode():
            expected = nn.functional.normalize(theirs(images), dim=1)
            torch.testing.assert_close(ours(images), expected, rtol=0, atol=1e-6)
    assert torch.equal(method.negatives.vectors, official["state_dict"]["module.queue"].T)
    assert method.negatives.pointer == official["state_dict"]["module.queue_ptr"][0]


def test_dino_has_the_last_layers_and_the_centre_of_both_sides(tmp_path: Path) -> None:
    method, official = load(CASES["dino"], tmp_path)
    student, teacher = official["student"], official["teacher"]
    sides = (
        (
            method.negatives.layer,
            student["module.head.last_layer.weight_g"],
            student["module.head.last_layer.weight_v"],
        ),
        (method.key_encoder.twins[0], teacher["head.last_layer.weight_g"], teacher["head.last_layer.weight_v"]),
    )
    for layer, length, direction in sides:
        expected = length * nn.functional.normalize(direction, dim=1)
        torch.testing.assert_close(layer.weight, expected)
    assert torch.equal(method.targets.centre, official["dino_loss"]["center"][0])


def test_clip_gives_the_vectors_of_open_clip(tmp_path: Path) -> None:
    method, official = load(CASES["clip"], tmp_path)
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    vision = CLIPVisionCfg(layers=2, width=64, head_width=32, patch_size=16, image_size=160)
    text = CLIPTextCfg(context_length=32, vocab_size=258, width=16, heads=2, layers=2)
    theirs = CLIP(embed_dim=DIM, vision_cfg=vision, text_cfg=text, quick_gelu=True).eval()
    theirs.load_state_dict(official)
    images, tokens = torch.rand(2, 3, 160, 160), torch.randint(1, 250, (2, 32))
    with torch.inference_mode():
        ours = method.encoder({"image": images, "text": tokens})
        torch.testing.assert_close(ours["image"], theirs.encode_image(images, normalize=True), rtol=0, atol=1e-4)
        torch.testing.assert_close(ours["text"], theirs.encode_text(tokens, normalize=True), rtol=0, atol=1e-4)
        torch.testing.assert_close(method.loss.log_scale, theirs.logit_scale)


def test_a_backbone_alone_leaves_the_key_side_a_copy_of_the_query_side(tmp_path: Path) -> None:
    method, official = load(CASES["torchvision's own"], tmp_path)
    for encoder in (method.encoder, method.key_encoder.encoder):
        assert torch.equal(encoder.backbone.conv1.weight, official["conv1.weight"])
    both = zip(method.encoder.parameters(), method.key_encoder.encoder.parameters(), strict=True)
    assert all(torch.equal(query, key) for query, key in both)


def test_a_run_that_begins_from_an_import_reads_what_the_file_had(images: Path, tmp_path: Path) -> None:
    case = CASES["torchvision's own"]
    load(case, tmp_path)
    sets = {**sets_of(case), "init.checkpoint": str(tmp_path / "run"), "train.seed": 7}
    resolved = contralex.resolve(case.recipe, preset="digits", sets=sets).run
    began = build.look_up(resolved, 40).encoder.state_dict()
    fresh = build.encoder(resolved).state_dict()
    stored = open_checkpoint(tmp_path / "run").tensors(prefix="encoder.")
    assert torch.equal(began["backbone.conv1.weight"], stored["encoder.backbone.conv1.weight"])
    assert torch.equal(began["projector.0.weight"], fresh["projector.0.weight"])  # the file had none
    begun = contralex.train(case.recipe, preset="digits", data=images, sets=sets, out=tmp_path / "begun")
    assert begun.results["steps"] == 1


def test_a_method_that_remembers_samples_asks_for_the_data(images: Path, tmp_path: Path) -> None:
    case = CASES["deepcluster-v2"]
    torch.save(case.file(), tmp_path / "w.pth")
    with pytest.raises(ContralexError, match=r"keeps something of each sample .*\(negatives\..*\n  --data FOLDER"):
        contralex.import_weights(tmp_path / "w.pth", case.recipe, tmp_path / "run", preset="digits", sets=sets_of(case))
    assert not (tmp_path / "run").exists()


# Files


def test_safetensors_and_half_precision_are_read(tmp_path: Path) -> None:
    case = CASES["torchvision's own"]
    tensors = {name: t.half() if t.is_floating_point() else t for name, t in case.file().items()}
    save_file(tensors, tmp_path / "w.safetensors")
    made = contralex.import_weights(
        tmp_path / "w.safetensors", case.recipe, tmp_path / "runs" / "new", preset="digits", sets=sets_of(case)
    )
    assert made.run is not None
    assert torch.equal(made.run.backbone.conv1.weight, tensors["conv1.weight"].float())


def test_a_link_to_a_file_is_read_as_those_of_a_hubs_cache_are(tmp_path: Path) -> None:
    case = CASES["torchvision's own"]
    save_file(case.file(), tmp_path / "blob")
    (tmp_path / "w.safetensors").symlink_to(tmp_path / "blob")
    made = contralex.import_weights(
        tmp_path / "w.safetensors", case.recipe, tmp_path / "run", preset="digits", sets=sets_of(case)
    )
    assert made.run is not None
    assert torch.equal(made.run.backbone.conv1.weight, case.file()["conv1.weight"])


class Trap:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("sprung"),)


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (
            lambda file: torch.save({"a": torch.zeros(2), "trap": Trap()}, file),
            "cannot be read by torch with weights_only",
        ),
        (lambda file: file.write_bytes(pickle.dumps(Trap())), "cannot be read by torch with weights_only"),
        (lambda file: file.write_bytes(b"no weights"), "cannot be read by torch with weights_only"),
        (lambda file: torch.save({"epoch": 3}, file), "holds no tensors by name"),
        (lambda file: torch.save(torch.zeros(3), file), "holds no tensors by name"),
        (
            lambda file: torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), file),
            "is a TorchScript archive, which is a program",
        ),
        (lambda file: None, "is no file; give a published checkpoint"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_file_that_is_none_or_holds_code_is_refused(
    write: Callable[[Path], Any], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "published.pth")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ContralexError, match=sentence):
        contralex.import_weights("published.pth", "moco-v2", "run", preset="digits")
    assert sorted(tmp_path.iterdir()) == before


def test_a_pickle_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "w.pth")
    save_file({"a": torch.zeros(2)}, tmp_path / "w.safetensors")
    assert read_weights(tmp_path / "w.safetensors").keys() == {"a"} and not caplog.records
    assert read_weights(tmp_path / "w.pth").keys() == {"a"}
    assert "is a pickle, a kind of file that can hold code" in caplog.text


def test_numbers_of_numpy_and_arguments_beside_the_weights_are_passed_over(tmp_path: Path) -> None:
    value = {"m": {"module.a": torch.ones(2)}, "lr": np.float64(0.1), "n": np.int64(3), "args": argparse.Namespace(x=1)}
    torch.save({**value, "list": [torch.zeros(1)]}, tmp_path / "w.pth")
    assert read_weights(tmp_path / "w.pth").keys() == {"m/a", "list/0"}


# What does not fit


def test_other_sizes_are_a_sentence_and_a_dry_run_lists_them(tmp_path: Path) -> None:
    case = CASES["moco-v2"]
    torch.save(case.file(), tmp_path / "w.pth")
    sets = {**sets_of(case), "method.encoder.projector": head((F, {"activation": "relu"}), (DIM + 1, {}))}
    with pytest.raises(ContralexError) as caught:
        contralex.import_weights(tmp_path / "w.pth", "moco-v2", tmp_path / "run", preset="digits", sets=sets)
    text = str(caught.value)
    assert "by the layout moco: " in text
    assert f"fc.2.weight: it is (12, {F}), and encoder.projector.2.weight is (13, {F})" in text
    assert not (tmp_path / "run").exists()
    found = contralex.import_weights(tmp_path / "w.pth", "moco-v2", preset="digits", sets=sets, dry_run=True)
    assert found.run is None and {*found.problems} == {
        *(f"state_dict/encoder_{side}.fc.2.{name}" for side in "qk" for name in ("weight", "bias")),
        "state_dict/queue",
    }
    assert "does not fit: state_dict/encoder_q.fc.2.weight" in repr(found)


def test_tensors_are_left_out_when_asked(tmp_path: Path) -> None:
    case = CASES["moco-v2"]
    torch.save(case.file(), tmp_path / "w.pth")
    sets = {**sets_of(case), "method.negatives.size": 64}
    found = contralex.import_weights(
        tmp_path / "w.pth", "moco-v2", preset="digits", sets=sets, skip=["queue*"], dry_run=True
    )
    assert found.problems == {} and found.left_out["state_dict/queue_ptr"] == "it was asked to be left out"
    again = contralex.import_weights(
        tmp_path / "w.pth", "moco-v2", preset="digits", sets=sets, skip="queue*", dry_run=True
    )
    assert again.left_out == found.left_out and again.read == found.read
    assert {"negatives.vectors", "negatives.pointer"} <= {*found.new}


def test_a_file_of_another_method_is_a_sentence(tmp_path: Path) -> None:
    torch.save({"state_dict": {"something.else": torch.zeros(2)}}, tmp_path / "w.pth")
    with pytest.raises(
        ContralexError, match=r"fits moco-v2 by any layout .*\(moco, backbone.*; its tensors are called .*else"
    ):
        contralex.import_weights(tmp_path / "w.pth", "moco-v2", tmp_path / "run", preset="digits")
    with pytest.raises(ContralexError, match=r"--layout mocco: moco-v2 has no layout .*did you mean moco\?"):
        contralex.import_weights(tmp_path / "w.pth", "moco-v2", preset="digits", layout="mocco")


def test_a_folder_that_is_taken_is_refused_first(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "file").touch()
    with pytest.raises(ContralexError, match="is there already; choose another folder"):
        contralex.import_weights(tmp_path / "none.pth", "moco-v2", tmp_path / "run")


# Tables


def test_a_rename_stands_for_numbers_and_a_rest() -> None:
    rename = Rename("a.{n}.b_{n}.*", "x.{n}.{n}.y.*")
    assert rename.apply("a.3.b_12.weight.g") == "x.3.12.y.weight.g"
    assert rename.apply("a.3.b_x.weight") is None and rename.apply("z.a.3.b_1.w") is None
    assert Rename("a.b", "c").apply("aab") is None  # a dot is a dot


def test_no_two_tensors_become_one() -> None:
    layout = Layout("mine", "", [Rename("a.*", "w"), Rename("b", "w")])
    found = fit(layout, {"a.1": (2,), "b": (2,), "c": (1,)}, {"w": (2,)})
    assert found.read == {"w": ("a.1", "as it is")}
    assert found.problems == {"b": "a.1 is read for w already", "c": "the layout mine has no such name"}


def test_every_layout_names_recipes_that_there_are() -> None:
    recipes = registry().recipes()
    for layout in registry().layouts():
        assert set(layout.recipes) <= set(recipes) and layout.source and layout.renames
