"""Rates by layer, parts that are clipped by themselves, and groups that wait with a rate of 0."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from contralex.errors import ContralexError
from contralex.kinds.backbones.parts import torchvision_backbone
from contralex.lookup.clock import Clock
from contralex.recipes import run_spec as specs
from contralex.recipes.layers import resolve
from contralex.training import optimizers
from contralex.training.run import train
from tests.train.tiny import TINY


class Method(nn.Module):
    """The names that a method's parameters have."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({"backbone": backbone, "projector": nn.Linear(8, 4)})
        self.negatives = nn.Linear(4, 6)


def vit() -> nn.Module:
    pytest.importorskip("timm")
    from contralex.kinds.backbones.vit import vit_backbone

    return vit_backbone(16, 8, 8, 3, 2, registers=1, mask_token=True, layer_scale=1e-5).module


def rates(spec: specs.Optimizer, model: nn.Module, step: int = 5) -> dict[str, float]:
    optimizer = optimizers.build(spec, model)
    optimizers.set_rates(optimizer, spec, Clock(step, 10, 1), batch=1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]}


def official_rate(name: str, decay: float, blocks: int) -> float:
    """After DINOv2's code (utils/param_groups.py): by the names in a backbone."""
    layer = blocks + 1
    if any(word in name for word in ("pos_embed", "patch_embed", "mask_token", "cls_token", "reg_token")):
        layer = 0
    elif "blocks." in name:
        layer = int(name[name.find("blocks.") :].split(".")[1]) + 1
    return decay ** (blocks + 1 - layer) * (0.2 if "patch_embed" in name else 1.0)


def test_each_layer_has_dinov2s_rate() -> None:
    groups = (
        specs.ParamGroup(match="encoder.backbone.patch_embed.*", lr_scale=0.2),
        specs.ParamGroup(match="norm_and_bias", weight_decay=0),
    )
    model = Method(vit())
    found = rates(specs.AdamW(lr=0.5, layer_decay=0.9, groups=groups), model)
    assert found.keys() == {name for name, _ in model.named_parameters()}
    for name, rate in found.items():
        wanted = 0.5 * official_rate(name, 0.9, 3) if name.startswith("encoder.backbone") else 0.5
        assert rate == pytest.approx(wanted), name
    assert found["encoder.backbone.mask_token"] == pytest.approx(0.5 * 0.9**4)
    assert found["encoder.backbone.norm.weight"] == found["negatives.weight"] == 0.5


def test_a_group_may_have_the_rate_of_no_layer() -> None:
    new = specs.ParamGroup(match="encoder.backbone.mask_token", lr_scale=2.0, layer_decay=False)
    found = rates(specs.AdamW(lr=0.5, layer_decay=0.9, groups=(new,)), Method(vit()))
    assert found["encoder.backbone.mask_token"] == 1.0
    assert found["encoder.backbone.cls_token"] == pytest.approx(0.5 * 0.9**4)
    assert "layer_decay" in new.model_dump() and "layer_decay" not in specs.ParamGroup(match="a").model_dump()


def test_without_a_decay_the_groups_are_those_of_before() -> None:
    group = specs.ParamGroup(match="norm_and_bias", weight_decay=0)
    optimizer = optimizers.build(specs.AdamW(lr=0.5, groups=(group,)), Method(vit()))
    assert [each["spec"] for each in optimizer.param_groups] == [group, None]


def test_torchvisions_transformers_have_blocks_and_resnets_have_none() -> None:
    transformer = torchvision_backbone("vit_b_16").module
    found = rates(specs.AdamW(lr=1.0, layer_decay=0.5), Method(transformer))
    assert found["encoder.backbone.encoder.layers.encoder_layer_11.ln_1.weight"] == 0.5
    assert found["encoder.backbone.class_token"] == found["encoder.backbone.conv_proj.weight"] == 0.5**13
    assert found["encoder.backbone.encoder.ln.weight"] == 1.0
    with pytest.raises(ContralexError, match="layer_decay=1"):
        rates(specs.AdamW(lr=1.0, layer_decay=0.5), Method(torchvision_backbone("resnet18").module))


def test_a_group_may_wait_with_a_rate_of_zero() -> None:
    """The averages of AdamW move meanwhile, as in DINOv2's first epoch."""
    group = specs.ParamGroup(match="1.*", frozen_epochs=1, frozen_by="rate")
    spec = specs.AdamW(lr=0.1, weight_decay=0.1, groups=(group,))
    last = nn.Linear(3, 2)
    model = nn.Sequential(nn.Linear(4, 3), last)
    optimizer = optimizers.build(spec, model)
    before = last.weight.clone()
    for step in range(3):
        clock = Clock(step, 10, 2)
        optimizers.set_rates(optimizer, spec, clock, batch=1)
        model(torch.ones(2, 4)).square().sum().backward()
        optimizers.drop_frozen_gradients(optimizer, clock)
        optimizer.step()
        assert torch.equal(last.weight, before) == (step < 2)
    assert optimizer.state[last.weight]["step"] == 3


def test_parts_are_clipped_by_their_own_norms() -> None:
    model = Method(nn.Linear(3, 8))
    parts = optimizers.clip_parts(model, [["encoder.backbone.*"], ["encoder.projector.*"]])
    assert [len(part) for part in parts] == [2, 2, 2]  # the rest is a part
    for length, part in zip((4.0, 30.0, 0.5), parts, strict=True):
        for parameter in part:
            parameter.grad = torch.full_like(parameter, length / sum(p.numel() for p in part) ** 0.5)
        optimizers.clip_norm(part, 3.0)
    norms = [torch.cat([p.grad.flatten() for p in part if p.grad is not None]).norm() for part in parts]
    torch.testing.assert_close(torch.stack(norms), torch.tensor([3.0, 3.0, 0.5]), rtol=1e-5, atol=0)
    with pytest.raises(
        ContralexError, match=r"clip_parts\.1: encoder\.backbone\.weight matches no trainable parameter"
    ):
        optimizers.clip_parts(model, [["encoder.*"], ["encoder.backbone.weight"]])


def test_a_step_is_as_long_as_the_parts_allow(tmp_path: Path, images: Path) -> None:
    clip = 0.01
    sets = [
        *TINY,
        *("train.epochs=1", "train.max_steps=1", f"train.clip={clip}", "train.clip_parts=[[encoder.backbone.*]]"),
        "train.optimizer={kind: sgd, lr: 1.0, momentum: 0, weight_decay: 0, scaling: {rule: none}, groups: []}",
    ]
    resolved = resolve("simclr-v1", preset="digits", data=str(images), sets=sets)
    train(resolved, tmp_path / "run")
    from contralex.training import build

    ended, began = build.load_encoder(str(tmp_path / "run")), build.encoder(resolved.run)
    moved = {
        name: float((after - before).detach().norm())
        for (name, after), before in zip(ended.named_parameters(), began.parameters(), strict=True)
    }
    for part in ("backbone", "projector"):
        assert sum(m**2 for n, m in moved.items() if n.startswith(part)) ** 0.5 == pytest.approx(clip, rel=1e-3)


def test_parts_need_a_bound() -> None:
    with pytest.raises(ContralexError, match="clip_parts says how clip is meant"):
        resolve("simclr-v1", sets=["train.clip_parts=[[encoder.*]]"])


@pytest.mark.parametrize(
    "setting",
    ["train.clip_parts=[]", "train.optimizer.layer_decay=1.0", "train.optimizer.groups=[{match: a, frozen_by: rate}]"],
)
def test_what_was_added_changes_a_digest_only_where_it_is_used(setting: str) -> None:
    before, now = resolve("simclr-v1").digest, resolve("simclr-v1", sets=[setting]).digest
    assert (before == now) == ("rate" not in setting)


def test_a_group_has_the_digest_of_before_where_layers_lower_its_rate() -> None:
    digests = [
        resolve("simclr-v1", sets=[f"train.optimizer.groups=[{{match: a{said}}}]"]).digest
        for said in ("", ", layer_decay: true", ", layer_decay: false")
    ]
    assert digests[0] == digests[1] != digests[2]
