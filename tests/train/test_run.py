"""Runs from end to end, small: what they leave on disk, resuming, stopping, composing, and their refusals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import contralex
from contralex.errors import ContralexError
from contralex.recipes.layers import resolve
from contralex.training.run import train
from tests.noise import noise

TINY = [
    "method.encoder.backbone={kind: conv, widths: [8, 12], strides: [2, 2]}",
    "train.epochs=2",
    "train.batch_size=256",
    "train.precision=fp32",
    "train.workers=0",
    "train.log_every=2",
    "eval.knn.every=1",
]
RECIPES = [
    *("instdisc", "instdisc-cifar", "moco-v1", "moco-v2", "simclr-v1", "byol", "swav", "swav-small-batch"),
    *("barlow", "vicreg", "supcon", "moco-v3", "dino", "dino-resnet50", "invaspread", "simsiam", "nnclr"),
    *("pirl", "infomin", "deepcluster-v2", "simclr-v2", "densecl", "tico"),
]


def tiny(recipe: str, *sets: str) -> Any:
    cpc = recipe == "cpc"
    base = [text for text in TINY if not (cpc and "backbone" in text)]
    if cpc:
        base += [
            "method.encoder.network={blocks: [1, 1], widths: [4, 6], stem: small}",
            "method.encoder.context.width=8",
        ]
    return resolve(recipe, preset="digits", sets=[*base, *sets])


@pytest.mark.parametrize("recipe", [*RECIPES, "cpc"])
def test_every_recipe_trains(recipe: str, tmp_path: Path) -> None:
    resolved = tiny(recipe, "train.epochs=1", "eval.knn.every=null", "eval.knn.baselines=false")
    results = train(resolved, tmp_path / "run")
    assert results["steps"] == 5
    assert 0 < results["knn"]["this run"]["top1"] <= 1


def test_what_a_run_leaves(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    results = train(tiny("moco-v2"), folder)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [2, 4, 6, 8, 10]
    assert [line["epoch"] for line in lines if "knn_top1" in line] == [1]  # the last epoch's is in the results
    assert json.loads((folder / "results.json").read_text()) == results
    assert set(results["knn"]) == {"this run", "untrained encoder", "raw pixels"}
    protocol = results["knn"]["this run"]["protocol"]
    assert (protocol["k"], protocol["temperature"], protocol["test_samples"]) == (20, 0.07, 360)
    assert (folder / "checkpoints" / "last").read_text() == "step-10\n"
    state = json.loads((folder / "checkpoints" / "step-10" / "state.json").read_text())
    assert state["plugins"]["contralex-moco"] == contralex.__version__
    again = resolve(str(folder / "spec.yaml"))
    assert again.digest == state["digest"] == tiny("moco-v2").digest
    assert not list(folder.rglob("*.pkl"))
    assert not list(folder.rglob("*.pt"))


@pytest.mark.parametrize("recipe", ["moco-v2", "instdisc", "swav-small-batch", "byol", "cpc"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = ["eval.knn=null", "train.checkpoint={every: 1, keep_last: 9}"]
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    train(tiny(recipe, *sets), whole)
    # The second run is cut after its first epoch, as a killed process leaves it.
    train(tiny(recipe, *sets), parted)
    (parted / "checkpoints" / "last").write_text("step-5\n")
    (parted / "results.json").unlink()
    train(tiny(recipe, *sets), parted, resume=True)
    one, two = (load_file(run / "checkpoints" / "step-10" / "model.safetensors") for run in (whole, parted))
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.equal(value, two[name]), name
    assert [json.loads(line)["step"] for line in (parted / "metrics.jsonl").open()] == [2, 4, 6, 8, 10]


def test_adamw_state_survives_a_resume(tmp_path: Path) -> None:
    sets = [
        "eval.knn=null",
        "train.checkpoint={every: 1, keep_last: 9}",
        "train.optimizer={kind: adamw, lr: 1e-3}",
    ]
    for name in ("a", "b"):
        train(tiny("simclr-v1", *sets), tmp_path / name)
    (tmp_path / "b" / "checkpoints" / "last").write_text("step-5\n")
    train(tiny("simclr-v1", *sets), tmp_path / "b", resume=True)
    one, two = (load_file(tmp_path / n / "checkpoints" / "step-10" / "optimizer.safetensors") for n in ("a", "b"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_swav_targets_with_a_momentum_key_encoder_train(tmp_path: Path) -> None:
    sets = ("method.key_encoder={kind: momentum, momentum: 0.99}", "eval.knn=null", "train.optimizer.groups=[]")
    composed = tiny("swav", *sets)
    results = train(composed, tmp_path / "run")
    assert results["last_loss"] > 0
    tensors = load_file(tmp_path / "run" / "checkpoints" / "step-10" / "model.safetensors")
    online, twin = tensors["negatives.layer.weight"], tensors["key_encoder.twins.0.weight"]
    assert not torch.equal(online, twin)


def test_a_frozen_key_encoder_from_another_run(tmp_path: Path) -> None:
    train(tiny("simclr-v1", "eval.knn=null"), tmp_path / "teacher")
    frozen = f"method.key_encoder={{kind: frozen, checkpoint: {tmp_path / 'teacher'}}}"
    train(tiny("byol", frozen, "eval.knn=null"), tmp_path / "student")
    teacher = load_file(tmp_path / "teacher" / "checkpoints" / "step-10" / "model.safetensors")
    student = load_file(tmp_path / "student" / "checkpoints" / "step-10" / "model.safetensors")
    name = "encoder.backbone.0.weight"
    assert torch.equal(teacher[name], student[f"key_encoder.{name}"])
    assert not torch.equal(teacher[name], student[name])


def test_the_backbone_comes_back(tmp_path: Path) -> None:
    train(tiny("simclr-v1", "eval.knn=null"), tmp_path / "run")
    backbone = contralex.load_backbone(tmp_path / "run")
    assert backbone(torch.rand(2, 3, 32, 32)).shape == (2, 12)
    assert not backbone.training


def test_sequences_train(tmp_path: Path) -> None:
    import wave

    import numpy as np

    rng = np.random.default_rng(0)
    for note in ("low", "high"):
        (tmp_path / "sounds" / note).mkdir(parents=True)
        for number in range(12):
            pitch = (220 if note == "low" else 880) * rng.uniform(0.95, 1.05)
            sound = np.sin(2 * np.pi * pitch * np.arange(4000) / 16000) + 0.05 * rng.normal(size=4000)
            with wave.open(str(tmp_path / "sounds" / note / f"{number}.wav"), "wb") as file:
                file.setparams((1, 2, 16000, 4000, "NONE", ""))
                file.writeframes((sound * 12000).astype("<i2").tobytes())
    sets = [
        f"data.root={tmp_path / 'sounds'}",
        "method.views.length=3200",
        "method.encoder.width=16",
        "method.encoder.context=16",
        "method.encoder.steps=3",
        "train.batch_size=8",
        "train.epochs=4",
        "train.optimizer.lr=0.003",
        "train.workers=0",
        "train.log_every=2",
        "eval.knn.k=3",
    ]
    results = train(resolve("cpc-audio", sets=sets), tmp_path / "run")
    assert results["last_loss"] < results["first_loss"]


def test_unlabelled_images_with_a_broken_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:

    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(20):
        noise((40, 40), 80, number).convert("RGB").save(folder / f"{number:02}.png")
    whole = (folder / "07.png").read_bytes()
    (folder / "07.png").write_bytes(whole[: len(whole) // 2])  # the header is fine, the rest is missing
    sets = ["data.root=" + str(folder), "train.batch_size=10", "method.negatives.size=16", "train.batch_norm=local"]
    resolved = tiny("moco-v2", f"data={{kind: image_folder, root: {folder}}}", *sets[1:])
    results = train(resolved, tmp_path / "run")
    assert results["skipped_images"] == [str(folder / "07.png")]
    assert "knn" not in results
    said = capsys.readouterr().out
    assert "1 item left out: unreadable." in said
    assert said.count("So there is no kNN figure to report. ") == 1


def test_tensorboard_gets_the_metrics(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    train(tiny("simclr-v1", "eval.knn=null", "train.trackers=[tensorboard]"), tmp_path / "run")
    assert list((tmp_path / "run").rglob("events.out.tfevents.*"))


@pytest.mark.parametrize(
    ("recipe", "sets", "sentence"),
    [
        ("moco-v2", ["train.precision=fp16"], "fp16, which needs a GPU"),
        ("moco-v2", ["train.batch_size=2048"], "fewer than one batch of 2048"),
        ("moco-v2", ["method.negatives.size=2000"], "larger than the data set"),
        ("simclr-v1", ["train.trackers=[nothing]"], "knows no tracker 'nothing'"),
        ("simclr-v1", ["train.optimizer.groups=[{match: encoder.nobody.*}]"], "matches no trainable parameter"),
        ("simclr-v1", ["method.encoder.backbone={kind: torchvision, name: resnet51}"], "did you mean"),
        ("simclr-v1", ["train.batch_norm=100"], "does not divide"),
        ("simclr-v1", ["train.optimizer.lr=1e30", "eval.knn=null"], "the loss is nan"),
        ("byol", ["method.encoder.predictor=[{width: 7}]"], "ends in 7 dimensions and the projector in 128"),
    ],
)
def test_refusals(recipe: str, sets: list[str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ContralexError) as error:
        train(tiny(recipe, *sets), tmp_path / "run")
    assert sentence in str(error.value)


def test_a_run_is_never_overwritten(tmp_path: Path) -> None:
    train(tiny("simclr-v1", "eval.knn=null", "train.epochs=1"), tmp_path / "run")
    with pytest.raises(ContralexError, match=r"or go on with it:\n  contralex train --resume --out \S+"):
        train(tiny("simclr-v1"), tmp_path / "run")
    with pytest.raises(ContralexError, match="was started with another spec"):
        train(tiny("simclr-v1", "train.seed=1"), tmp_path / "run", resume=True)


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "contralex", "train", "simclr-v1", "--preset", "digits", "--out", str(folder)]
    sets = [f"--set={text}" for text in [*TINY, "train.epochs=500", "eval.knn=null"]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, *sets, *arguments], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_signal_saves_and_the_run_goes_on(processes: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    running = start(folder, "--processes", processes)
    deadline = time.monotonic() + 120
    while not (folder / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    running.send_signal(signal.SIGTERM)
    said, _ = running.communicate(timeout=120)
    assert running.returncode == 128 + signal.SIGTERM, said
    assert said.count("Stopped at step") == 1, said
    assert "Traceback" not in said
    step = int((folder / "checkpoints" / "last").read_text().strip().removeprefix("step-"))
    assert step > 0
    assert list((folder / "checkpoints").glob(".step-*")) == []


def test_a_signal_to_every_process_of_a_job_saves_too(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    running = start(folder, "--set=train.workers=1")
    deadline = time.monotonic() + 120
    while not (folder / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
    if not children.exists():
        running.kill()
        pytest.skip("/proc does not name a process's children here")
    for child in children.read_text().split():  # a cluster signals the workers as well
        os.kill(int(child), signal.SIGTERM)
    running.send_signal(signal.SIGTERM)
    said, _ = running.communicate(timeout=120)
    assert running.returncode == 128 + signal.SIGTERM, said
    assert (folder / "checkpoints" / "last").exists()


def test_max_steps_ends_a_run_and_its_schedules(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    results = train(tiny("simclr-v1", "train.max_steps=3", "train.log_every=1", "eval.knn=null"), folder)
    assert results["steps"] == 3
    assert (folder / "checkpoints" / "last").read_text() == "step-3\n"
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rates = [line["lr"] for line in lines if "lr" in line]
    assert len(rates) == 3 and rates[2] < rates[0] / 2
