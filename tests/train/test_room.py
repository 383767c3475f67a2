"""What no memory holds is refused before it is taken, and memory that runs out is one sentence."""

from __future__ import annotations

import copy
import multiprocessing
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from contralex import memory, resolve
from contralex.data.loading import collate
from contralex.lookup.step import LookUp
from contralex.plugin import ContralexError
from contralex.recipes.layers import Resolved
from contralex.training import batches, memory_checks
from contralex.training.run import train

MIB = 2**20
CONV = "method.encoder.backbone={kind: conv, widths: [4, 8], strides: [2, 2]}"
FAR_TOO_MUCH = 2**45  # numbers, which torch's own allocator refuses


def resolved(recipe: str, *sets: str) -> Resolved:
    common = (CONV, "train.workers=0", "train.precision=fp32", "train.max_steps=1", "eval={knn: null}")
    return resolve(recipe, preset="digits", sets=[*common, *sets])


def have(monkeypatch: pytest.MonkeyPatch, amount: int) -> None:
    monkeypatch.setattr(memory, "available", lambda: amount)


@pytest.mark.parametrize(
    ("recipe", "sets", "amount", "sentence", "field"),
    [
        (
            "simclr-v1",
            ("method.encoder.projector=[{width: 4096}, {width: 4096}]",),
            40 * MIB,
            "method.encoder: a tensor of 4,096 x 4,096 numbers takes 64 MiB; this process may have 40 MiB of memory.",
            "method.encoder.projector.0.width",
        ),
        (
            "swav",
            ("method.negatives.count=262144",),
            60 * MIB,
            "method.negatives: a tensor of 262,144 x 128 numbers takes 128 MiB",
            "method.negatives.count",
        ),
        (
            "instdisc",
            ("method.encoder.projector=[{width: 4096}]", "method.negatives.draws=64"),
            20 * MIB,
            "method.negatives: a tensor of 1,437 x 4,096 numbers takes 22.5 MiB; this process may have 20 MiB",
            "method.encoder.projector.0.width",
        ),
        (
            "moco-v2",
            ("method.encoder.projector=[{width: 2048}, {width: 2048}]",),
            30 * MIB,
            "method.encoder: it is the largest part of the method, with 16",  # and as much for the key encoder
            "method.encoder.projector.0.width",
        ),
        (
            "simclr-v1",
            (),
            MIB,
            "train.batch_size is 64: the views of a sample take",
            "train.batch_size",
        ),
    ],
)
def test_what_memory_does_not_hold_is_refused_with_a_setting_that_trains(
    recipe: str,
    sets: tuple[str, ...],
    amount: int,
    sentence: str,
    field: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    have(monkeypatch, amount)
    with pytest.raises(ContralexError) as error:
        train(resolved(recipe, *sets), tmp_path / "one")
    said, remedy = str(error.value).split("\n")
    assert said.startswith(sentence) and error.value.exit_code == 2
    assert not (tmp_path / "one").exists()
    option, setting = shlex.split(remedy)
    assert option == "--set" and setting.startswith(f"{field}=")
    assert train(resolved(recipe, *sets, setting), tmp_path / "less")["steps"] == 1


def test_views_of_which_memory_does_not_hold_two(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, 1024 * MIB)
    view = torch.empty(2, 3, 4096, 4096, device="meta")
    spec = resolved("simclr-v1", "method.views.groups.crops.augment.crop.size=4096").run
    with pytest.raises(ContralexError) as error:
        memory_checks.check_batch(spec, {0: view, 1: view}, 8)
    assert str(error.value).endswith("--set method.views.groups.crops.augment.crop.size=64")


def test_a_copy_takes_memory_and_a_system_that_does_not_say_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = resolved("simclr-v1").run
    layer = nn.Linear(4096, 4096)
    have(monkeypatch, 40 * MIB)
    with pytest.raises(ContralexError) as error, memory_checks.Guard(spec, "method.key_encoder"):
        copy.deepcopy(layer)
    assert str(error.value).startswith("method.key_encoder: a tensor of 4,096 x 4,096 numbers takes 64 MiB;")
    monkeypatch.setattr(memory, "available", lambda: None)
    with memory_checks.Guard(spec, "method.key_encoder"):
        assert torch.equal(copy.deepcopy(layer).weight, layer.weight)


@pytest.mark.parametrize("where", ["step", "worker"])
def test_memory_that_runs_out_in_training(where: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def greedy(items: Sequence[Any]) -> Any:
        return torch.empty(FAR_TOO_MUCH) if len(items) > 2 else collate(items)

    if where == "step":
        monkeypatch.setattr(LookUp, "encode", lambda *_: torch.empty(FAR_TOO_MUCH))
    else:
        monkeypatch.setattr(batches, "collate", greedy)
    with pytest.raises(ContralexError) as error:
        train(resolved("simclr-v1", f"train.workers={int(where == 'worker')}"), tmp_path / "run")
    fewer = (
        "Encode fewer samples at once, and look the same batch up:\n"
        "  --set train.micro_batch=32 --set train.batch_norm=32\n"
        "Or take a smaller batch:\n"
        if where == "step"
        else "Try:\n"
    )
    assert str(error.value) == (
        f"Memory ran out in step 1, with a train.batch_size of 64. {fewer}  --set train.batch_size=32"
    )
    assert error.value.exit_code == 2
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert not multiprocessing.active_children()  # the end of the process would wait for them


def test_another_mistake_of_torch_is_left_as_it_is() -> None:
    with (
        pytest.raises(RuntimeError, match="shapes"),
        memory_checks.explain_batch_memory(resolved("simclr-v1").run, lambda: 1),
    ):
        raise RuntimeError("shapes")
