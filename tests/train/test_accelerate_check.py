"""What ``accelerate launch`` is configured for, and contralex does not do, is refused before anything is done."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch.distributed as dist

from contralex.errors import ContralexError
from contralex.recipes.layers import resolve
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
