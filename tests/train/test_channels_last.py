"""Convolutions whose channels are last in memory compute what others do, and nothing of it is seen in a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import contralex
from contralex.lookup.batch_norm import GroupedBatchNorm
from contralex.recipes.layers import resolve
from contralex.training import build, devices
from tests.distributed.invariance import METHODS
from tests.train.first_step import take_first_step
from tests.train.tiny import TINY

CPU = torch.device("cpu")


def lies_so(module: nn.Module) -> list[bool]:
    convs = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    return [layer.weight.is_contiguous(memory_format=torch.channels_last) for layer in convs]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_computes_the_same(name: str, tmp_path: Path) -> None:
    steps = [
        take_first_step(name, tmp_path, lambda method, on=on: devices.place(method, CPU, on))  # type: ignore[misc]
        for on in (True, False)
    ]
    steps[0].assert_equals(steps[1])


def test_it_is_the_default_where_it_pays_and_reaches_the_key_encoder() -> None:
    spec = resolve("moco-v2", preset="digits").run
    method = devices.place(build.look_up(spec, 100), CPU, None)
    assert lies_so(method.encoder) == [True] * 5
    assert lies_so(method.key_encoder) == [True] * 5
    other = devices.place(build.look_up(spec, 100), CPU, False)
    assert not any(lies_so(other))
    for name, tensor in other.state_dict().items():
        assert torch.equal(method.state_dict()[name], tensor), name


@pytest.mark.parametrize("groups", [1, 4, 32])
def test_batch_norm_in_groups_keeps_the_order(groups: int) -> None:
    norm, first = GroupedBatchNorm(5), GroupedBatchNorm(5)
    norm.group = first.group = 64 // groups
    x = torch.randn(64, 5, 6, 6)
    last = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    out = norm(last)
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, first(x))
    torch.testing.assert_close(norm.running_var, first.running_var)
    (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
    assert last.grad is not None and last.grad.is_contiguous(memory_format=torch.channels_last)


def test_a_checkpoint_is_contiguous_and_serves_both(images: Path, tmp_path: Path) -> None:
    def run(name: str, on: str, *, resume: bool = False) -> Path:
        sets = [*TINY, "method.negatives.size=16", "train.batch_norm=4", f"train.channels_last={on}"]
        sets += ["train.epochs=3"] if resume else []
        options = {"allow_drift": True, "resume": True} if resume else {}
        contralex.train("moco-v2", preset="digits", data=images, sets=sets, out=tmp_path / name, **options)  # type: ignore[arg-type]
        return tmp_path / name

    tensors = []
    for name, on in (("last", "true"), ("first", "false")):
        newest = run(name, on) / "checkpoints/step-10"
        tensors.append(load_file(newest / "model.safetensors") | load_file(newest / "optimizer.safetensors"))
        assert all(tensor.is_contiguous() for tensor in tensors[-1].values())
    assert tensors[0].keys() == tensors[1].keys()
    for name, tensor in tensors[0].items():
        torch.testing.assert_close(tensor, tensors[1][name], rtol=1e-3, atol=1e-4)
    run("last", "false", resume=True)  # which is no drift
    assert contralex.open(tmp_path / "last").results["steps"] == 15
