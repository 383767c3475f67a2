"""What ``accelerate launch`` is configured for, and contralex does not do, is refused before anything is done."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from packaging.version import Version

from contralex.errors import ContralexError
from contralex.recipes.layers import resolve
from contralex.training.accelerate_check import FIRST_TORCH, ShardingPlan, sharding_plan
from contralex.training.run import train
from tests.train.tiny import TINY


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("ACCELERATE_USE_FSDP", "true", "Accelerate is configured for FSDP"),
        ("ACCELERATE_USE_DEEPSPEED", "true", "Accelerate is configured for DeepSpeed"),
        ("ACCELERATE_USE_MEGATRON_LM", "true", "Accelerate is configured for Megatron-LM"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "accumulate the gradients of 4 steps"),
    ],
)
def test_what_a_run_does_not_do_is_refused_at_its_start(
    variable: str, value: str, sentence: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ContralexError, match=sentence) as error:
        train(resolve("simclr-v1", preset="digits", data=str(images), sets=TINY), tmp_path / "run")
    assert "--set train.micro_batch=64" in str(error.value)
    assert ("--set train.accumulate=4" in str(error.value)) == ("GRADIENT" in variable)
    assert not (tmp_path / "run").exists()
    assert not dist.is_initialized()


@pytest.mark.skipif(Version(torch.__version__) < FIRST_TORCH, reason="refused with this torch")
@pytest.mark.parametrize(
    ("variables", "sets", "sentence"),
    [
        ({"FSDP_OFFLOAD_PARAMS": "true"}, [], r"fsdp_offload_params(.|\n)*--set train.micro_batch=64"),
        ({"FSDP_ACTIVATION_CHECKPOINTING": "true"}, [], r"fsdp_activation_checkpointing(.|\n)*train.micro_batch=64"),
        ({}, ["train.precision=fp16"], r"train.precision is fp16(.|\n)*--set train.precision=bf16"),
        ({}, ["train.compile=true"], r"train.compile is true(.|\n)*--set train.compile=false"),
        ({}, ["train.channels_last=true"], r"train.channels_last is true(.|\n)*--set train.channels_last=null"),
    ],
)
def test_what_sharded_encoders_cannot_do_is_refused(
    variables: dict[str, str],
    sets: list[str],
    sentence: str,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable, value in {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", **variables}.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(ContralexError, match=sentence):
        train(resolve("simclr-v1", preset="digits", data=str(images), sets=[*TINY, *sets]), tmp_path / "run")


@pytest.mark.skipif(Version(torch.__version__) < FIRST_TORCH, reason="refused with this torch")
def test_fsdp_of_one_process_is_no_sharding(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable, value in {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}.items():
        monkeypatch.setenv(variable, value)
    train(resolve("simclr-v1", preset="digits", data=str(images), sets=[*TINY, "train.epochs=1"]), tmp_path / "run")
    assert "FSDP" not in capsys.readouterr().out
    assert os.environ["ACCELERATE_USE_FSDP"] == "true"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ShardingPlan()),
        ({"FSDP_AUTO_WRAP_POLICY": "SIZE_BASED_WRAP", "FSDP_MIN_NUM_PARAMS": "1000"}, ShardingPlan(least=1000)),
        (
            {"FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP", "FSDP_TRANSFORMER_CLS_TO_WRAP": "Block, Layer"},
            ShardingPlan(frozenset(("Block", "Layer"))),
        ),
        ({"FSDP_RESHARD_AFTER_FORWARD": "false"}, ShardingPlan(reshard_after_forward=False)),
    ],
)
def test_the_plan_is_what_accelerate_is_configured_for(
    variables: dict[str, str], expected: ShardingPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sharding_plan() is None
    for variable, value in {"ACCELERATE_USE_FSDP": "true", **variables}.items():
        monkeypatch.setenv(variable, value)
    assert sharding_plan() == expected


def test_sharding_with_an_older_torch_is_refused(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.6.0")
    for variable, value in {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(ContralexError, match=r"FSDP 2, which needs torch 2.7, and this is torch 2.6.0"):
        train(resolve("simclr-v1", preset="digits", data=str(images), sets=TINY), tmp_path / "run")
