"""Backbones that begin with the weights which torchvision and timm publish: from their caches, or a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torchvision import models

import contralex
from contralex import ContralexError
from contralex.kinds.backbones import parts
from contralex.training import build, optimizers
from contralex.training.checkpoints import write
from contralex.training.checkpoints.state import CheckpointState

SETS = {"method.encoder.backbone": {"kind": "torchvision", "name": "resnet18", "pretrained": True}}


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """A cache of torch's hub that holds weights of a ResNet-18, under the name of torchvision's file."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    weights = models.resnet18(weights=None).state_dict()
    file = tmp_path / "torch" / "hub" / "checkpoints" / models.ResNet18_Weights.DEFAULT.url.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    torch.save(weights, file)
    return dict(weights)


def no_network(*args: Any, **kwargs: Any) -> Any:
    raise URLError("no route to host")


def test_torchvisions_weights_are_read_from_its_cache(published: dict[str, torch.Tensor]) -> None:
    run = contralex.resolve("moco-v2", preset="digits", sets=SETS).run
    backbone = build.encoder(run).backbone
    assert backbone is not None and torch.equal(backbone.state_dict()["conv1.weight"], published["conv1.weight"])


def test_without_a_network_there_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", no_network)
    with pytest.raises(ContralexError, match=r"torchvision could not load .* resnet18 .*no route.*\n  --set .*=false"):
        parts.torchvision_backbone("resnet18", pretrained=True)


@pytest.mark.parametrize("values", [{"stem": "small"}, {"width": 0.5}, {"channels": 1}])
def test_the_weights_are_for_the_network_as_it_is(values: dict[str, Any]) -> None:
    with pytest.raises(ContralexError, match="leave stem, width and channels at imagenet, 1 and 3"):
        parts.torchvision_backbone("resnet18", pretrained=True, **values)


def test_timms_weights_are_read_and_what_it_cannot_load_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    weights = timm.create_model("test_resnet").state_dict()
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *args, **kwargs: dict(weights))
    module = parts.timm_backbone("test_resnet", pretrained=True).module
    assert torch.equal(module.state_dict()["conv1.0.weight"], weights["conv1.0.weight"])
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", no_network)
    with pytest.raises(ContralexError, match=r"timm could not load its published weights of test_resnet .*no route"):
        parts.timm_backbone("test_resnet", pretrained=True)


def test_a_checkpoint_is_opened_without_the_published_weights(
    published: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = contralex.resolve("moco-v2", preset="digits", sets=SETS)
    method = build.look_up(resolved.run, 64)
    assert torch.equal(method.key_encoder.encoder.backbone.conv1.weight, published["conv1.weight"])  # type: ignore[attr-defined,union-attr]
    optimizer = optimizers.build(resolved.run.train.optimizer, method)
    write.save(tmp_path / "checkpoints", CheckpointState.make(resolved, 1), method.state_dict(), optimizer)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "none"))
    monkeypatch.setattr("torch.hub.download_url_to_file", no_network)
    opened = contralex.load_backbone(tmp_path / "checkpoints" / "step-1").state_dict()
    assert torch.equal(opened["conv1.weight"], published["conv1.weight"])
    build.look_up(resolved.run, 64, fresh=False)  # as a resumed run does


def test_a_digest_does_not_know_the_field_where_it_has_its_default() -> None:
    plain = contralex.resolve("moco-v2")
    said = contralex.resolve("moco-v2", sets={"method.encoder.backbone.pretrained": False})
    other = contralex.resolve("moco-v2", sets={"method.encoder.backbone.pretrained": True})
    assert plain.digest == said.digest != other.digest
