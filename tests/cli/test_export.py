"""The commands that write an encoder for other libraries, and read published weights."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import contralex
from contralex.training import build

Result = tuple[int, str, str]
BATCH_NORM = ("bias", "running_mean", "running_var", "weight")
TINY = "method.encoder.backbone={kind: conv, widths: [8], strides: [4]}"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the weights of a backbone, and of a classifier."""
    run = contralex.resolve("moco-v2", preset="digits", sets=[TINY]).run
    state = build.encoder(run).backbone.state_dict()  # type: ignore[union-attr]
    file = tmp_path_factory.mktemp("published") / "weights.safetensors"
    save_file({**state, "fc.weight": torch.zeros(10, 8)}, file)
    return file


def test_weights_are_imported_and_the_encoder_exported(
    weights: Path, tmp_path: Path, call: Callable[..., Result]
) -> None:
    run, out = tmp_path / "my run", tmp_path / "encoder.pt2"
    words = ("import", str(weights), "--as", "moco-v2", "--preset", "digits", "--set", TINY)
    code, said, _ = call(*words, "--dry-run")
    assert code == 0 and "layout backbone: 6 tensors are read\n  left out: fc.weight (a classifier" in said
    assert not list(tmp_path.iterdir())
    code, said, _ = call(*words, "--out", str(run))
    begin, resume = (shlex.split(line) for line in said.splitlines()[-2:])
    settings = ("--set", TINY, "--set", f"init.checkpoint={run}")  # without which the networks have other sizes
    assert code == 0 and begin == ["contralex", "train", "moco-v2", "--preset=digits", *settings]
    assert resume == ["contralex", "train", "--out", str(run), "--resume"]
    code, said, _ = call("export", str(run), "--to", "torch-export", "--out", str(out))
    assert code == 0 and "largest difference from the encoder" in said and "Images: Resize to 32 x 32" in said
    code, said, _ = call("export", str(run), "--to", "torch-export", "--out", str(tmp_path / "other"), "--json")
    found = json.loads(said)
    assert code == 0 and found["difference"] <= found["bound"] and found["path"] == str(tmp_path / "other")


def test_a_dry_run_that_finds_a_misfit_exits_with_1(weights: Path, call: Callable[..., Result]) -> None:
    words = ("import", str(weights), "--as", "moco-v2", "--preset", "digits", "--set", TINY.replace("[8]", "[9]"))
    code, said, _ = call(*words, "--dry-run", "--json")
    assert code == 1 and set(json.loads(said)["problems"]) == {
        "0.weight",
        "1.bias",
        "1.running_mean",
        "1.running_var",
        "1.weight",
    }
    code, said, error = call(*words)
    assert code == 2 and "does not fit moco-v2 by the layout backbone: " in error and "\n  --skip" in error


def test_the_present_folder_is_no_place_to_write_a_folder_to(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[..., Result]
) -> None:
    run = tmp_path / "run"
    words = ("import", str(weights), "--as", "moco-v2", "--preset", "digits", "--set", TINY)
    assert call(*words, "--out", str(run))[0] == 0
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    for command in (words, ("export", str(run), "--to", "torch-export")):
        code, _, error = call(*command, "--out", ".")
        assert code == 2 and "--out .: " in error and "(give it a name of its own, and not that of" in error
    assert not list(Path().iterdir())
