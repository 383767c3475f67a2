"""Compiled encoders compute what others do, and leave the same files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import contralex
from contralex.errors import ContralexError
from contralex.training import compiling
from tests.distributed.invariance import METHODS
from tests.train.first_step import take_first_step
from tests.train.tiny import TINY

CPU = torch.device("cpu")
QUICK = ("moco-v2, BatchNorm in groups of 4, shuffled", "swav")


def step_is_the_same(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    monkeypatch.setattr(compiling, "BACKEND", backend)
    step = take_first_step(name, folder, lambda method: compiling.compile_encoders(method, CPU))
    assert len(graphs) > 1  # the probe, and what encoders compute
    step.assert_equals(take_first_step(name, folder, lambda method: None))


@pytest.mark.parametrize("name", QUICK)
def test_a_compiled_step_is_the_same(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step_is_the_same(name, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in METHODS if name not in QUICK])
def test_a_compiled_step_of_every_method_is_the_same(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step_is_the_same(name, tmp_path, monkeypatch)


def test_files_of_a_compiled_run_are_those_of_any_other(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        calls.append(len(inputs))
        return graph.forward

    monkeypatch.setattr(compiling, "BACKEND", backend)
    options: Any = {"preset": "digits", "data": images}
    for name in ("true", "false"):
        sets = [*TINY, "method.negatives.size=16", "train.batch_norm=4", f"train.compile={name}"]
        contralex.train("moco-v2", sets=sets, out=tmp_path / name, **options)
        if name == "true":
            assert len(calls) > 1  # the probe, and the encoders
            calls.clear()
    assert calls == []
    files = [load_file(tmp_path / name / "checkpoints/step-10/model.safetensors") for name in ("true", "false")]
    assert files[0].keys() == files[1].keys()
    for key, tensor in files[0].items():
        torch.testing.assert_close(tensor, files[1][key], rtol=1e-3, atol=1e-4)
    assert contralex.load_encoder(tmp_path / "true")(torch.rand(2, 3, 32, 32)).shape == (2, 128)
    more = [*TINY, "method.negatives.size=16", "train.batch_norm=4", "train.epochs=3", "train.compile=true"]
    contralex.train("moco-v2", sets=more, out=tmp_path / "false", resume=True, allow_drift=True, **options)
    assert len(calls) > 1
    assert contralex.open(tmp_path / "false").results["steps"] == 15


def test_without_a_compiler_it_is_said_at_once(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def backend(graph: object, inputs: object) -> Any:
        raise RuntimeError("No working C++ compiler found\nand many lines more")

    monkeypatch.setattr(compiling, "BACKEND", backend)
    with pytest.raises(ContralexError, match=r"compile is true.*No working C\+\+ compiler found.*\n  --set") as error:
        contralex.train(
            "simclr-v1", preset="digits", data=images, sets=[*TINY, "train.compile=true"], out=tmp_path / "run"
        )
    assert "many lines" not in str(error.value)
    assert not (tmp_path / "run").exists()
