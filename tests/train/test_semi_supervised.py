"""Pre-training, fine-tuning on some labels, distilling: whole runs by their commands, on images of two classes."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import contralex
from contralex.__main__ import main
from contralex.errors import ContralexError
from contralex.recipes.layers import resolve, resolve_data
from contralex.training import build
from contralex.training.run import train
from contralex_simclr.resolving import resolve_distillation, resolve_finetuning
from tests.noise import noise

Call = Callable[..., dict[str, Any]]
_QUIET = ["train.workers=0", "train.precision=fp32", "eval.knn={k: 4, baselines: false}"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dark and bright ones, which noise covers: 40 of each to train on, and 10 to judge with."""
    folder = tmp_path_factory.mktemp("pictures")
    for split, count in (("train", 40), ("val", 10)):
        for number in range(2 * count):
            name = folder / split / ("bright" if number % 2 else "dark") / f"{number}.png"
            name.parent.mkdir(parents=True, exist_ok=True)
            light = [min(max(value + (20 if number % 2 else -20), 0), 255) for value in range(256)]
            noise((16, 16), 30, number if split == "train" else 1000 + number).point(light).convert("RGB").save(name)
    return folder


@pytest.fixture(scope="module")
def pretrained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "pretrained"
    backbone = "method.encoder.backbone={kind: conv, widths: [8], strides: [2]}"
    small = [backbone, "method.views.groups.crops.augment.crop.size=16", "train.epochs=1", "train.batch_size=40"]
    train(resolve("simclr-v2", preset="digits", data=str(pictures), sets=[*small, *_QUIET]), folder)
    return folder


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs ``contralex ...`` in this process, and returns the results of the run in the folder after ``--out``."""

    def run(*words: object) -> dict[str, Any]:
        said = [str(word) for word in words]
        monkeypatch.setattr(sys, "argv", ["contralex", *said])
        code = main()
        if code:
            raise AssertionError(f"exit code {code}")
        found: dict[str, Any] = json.loads((Path(said[said.index("--out") + 1]) / "results.json").read_text())
        return found

    return run


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The sentence with which ``contralex ...`` ends."""

    def run(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["contralex", *map(str, words)])
        assert main() == 2
        return capsys.readouterr().err

    return run


def sets(*values: str) -> list[str]:
    return [word for value in values for word in ("--set", value)]


def test_a_classifier_is_tuned_and_then_teaches(
    call: Call, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned = call("finetune", pretrained, "--labels", "0.2", "--epochs", "20", "--out", tmp_path / "tuned")
    said = capsys.readouterr().out
    # 1 + 5 of the convolution and its norm, 1 + 5 of the projector's first layer
    assert "16 labels of 2 classes (20 %, and at least one of each class)." in said
    assert "The encoder starts from" in said and "12 tensors; new: projector.3." in " ".join(said.split())
    assert tuned["classify"]["top1"] >= 0.9
    assert tuned["classify"]["protocol"] == {"logits": "the encoder's vectors", "classes": 2, "test_samples": 20}
    assert tuned["knn"]["this run"]["protocol"]["train_samples"] == 16
    again = contralex.load_encoder(tmp_path / "tuned")
    assert again.dim == 2
    for student in (["self"], [pretrained], ["simclr-v1", "--preset", "digits"]):
        out = tmp_path / f"student-{len(student)}-{student[0] == 'self'}"
        learnt = call("distill", tmp_path / "tuned", "--student", *student, "--epochs", "12", "--out", out)
        assert learnt["classify"]["top1"] >= 0.9, student
        assert learnt["knn"]["this run"]["protocol"]["train_samples"] == 80  # all images, and no label of theirs


def test_the_optimisers_files_may_be_deleted(call: Call, pretrained: Path, tmp_path: Path) -> None:
    begun = tmp_path / "pretrained"
    shutil.copytree(pretrained, begun)
    _delete_optimizer(begun)
    one = sets("train.max_steps=1")
    call("finetune", begun, "--labels", "0.5", *one, "--out", tmp_path / "tuned")
    _delete_optimizer(tmp_path / "tuned")
    call("distill", tmp_path / "tuned", "--student", begun, *one, "--out", tmp_path / "taught")
    assert contralex.open(begun).knn().figures


def _delete_optimizer(run: Path) -> None:
    (_last(run) / "optimizer.safetensors").unlink()


def test_it_starts_from_the_checkpoint_and_without_an_opinion(call: Call, pretrained: Path, tmp_path: Path) -> None:
    still = sets("train.optimizer.lr=0", "train.optimizer.weight_decay=0", "train.max_steps=1")
    call("finetune", pretrained, "--labels", "0.5", *still, "--out", tmp_path / "tuned")
    before, after = (load_file(_last(run) / "model.safetensors") for run in (pretrained, tmp_path / "tuned"))
    parts = ("encoder.backbone", "encoder.projector.0", "encoder.projector.1")
    kept = [name for name in after if name.startswith(parts) and name.endswith(("weight", "bias"))]
    assert len(kept) == 6  # running statistics have moved on
    assert all(torch.equal(before[name], after[name]) for name in kept)
    assert not after["encoder.projector.3.weight"].any() and after["encoder.projector.3.weight"].shape == (2, 256)


def test_noisy_student_hard_labels_and_a_threshold(call: Call, pretrained: Path, tmp_path: Path) -> None:
    call("finetune", pretrained, "--labels", "0.2", "--epochs", "20", "--out", tmp_path / "tuned")
    how = ["--noisy", "--hard", "--threshold", "0.6"]
    learnt = call("distill", tmp_path / "tuned", *how, "--epochs", "12", "--out", tmp_path / "student")
    assert learnt["classify"]["top1"] >= 0.8
    spec = resolve(str(tmp_path / "student" / "spec.yaml")).run
    views: Any = spec.method.views
    assert views.groups["student"].augment.order[-1] == "rand_augment"
    assert views.groups["teacher"].augment.order == ("crop",)
    assert views.key_flags() == [False, True]
    student = tmp_path / "student" / "spec.yaml"
    shutil.rmtree(tmp_path / "tuned")
    with pytest.raises(ContralexError, match=r"^method\.key_encoder\.checkpoint: .*tuned.* is missing"):
        build.look_up(resolve(str(student)).run, 80)
    gone = resolve(str(student), sets=[f"init={{checkpoint: {tmp_path / 'tuned'}}}"]).run
    with pytest.raises(ContralexError, match=r"^init\.checkpoint: .*tuned.* is missing"):
        build.look_up(gone, 80)


def test_a_tuned_run_resumes_without_what_it_began_with(call: Call, pretrained: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(pretrained, base)
    for name in ("whole", "parted"):
        short = sets("train.checkpoint={every: 1, keep_last: 9}")
        call("finetune", base, "--labels", "0.5", "--epochs", "2", *short, "--out", tmp_path / name)
    shutil.rmtree(base)
    steps = sorted(int(path.name[5:]) for path in (tmp_path / "parted" / "checkpoints").glob("step-*"))
    (tmp_path / "parted" / "checkpoints" / "last").write_text(f"step-{steps[0]}\n")
    call("train", "--resume", "--out", tmp_path / "parted")
    one, two = (load_file(_last(tmp_path / name) / "model.safetensors") for name in ("whole", "parted"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_two_processes_tune_the_same(call: Call, pretrained: Path, tmp_path: Path) -> None:
    still = ["--labels", "0.5", "--epochs", "1"]
    call("finetune", pretrained, *still, "--out", tmp_path / "one")
    found = call("finetune", pretrained, *still, "--processes", "2", "--out", tmp_path / "two")
    assert found["processes"] == 2 and found["classify"]["protocol"]["test_samples"] == 20
    one, two = (load_file(_last(tmp_path / name) / "model.safetensors") for name in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(value, two[name], rtol=1e-3, atol=1e-4)


def test_from_python_nothing_is_printed_or_started(
    pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for handler in list(logging.getLogger("contralex.progress").handlers):  # of a command that ran before
        monkeypatch.setattr(handler, "emit", lambda record: None)
    tuning = resolve_finetuning(pretrained, labels=0.2, sets=["train.epochs=3"])
    assert tuning.run.init is not None and tuning.run.train.epochs == 3
    assert (tuning.data["data"]["share"], tuning.data["method"]["negatives"]["count"]) == (0.2, 2)
    train(tuning, tmp_path / "tuned")
    capfd.readouterr()
    student = resolve_distillation(tmp_path / "tuned", student=str(pretrained), noisy=True)
    assert student.run.init is not None and student.run.init.checkpoint.startswith(str(pretrained))
    assert student.data["method"]["matches"] == ["0->1"]
    assert capfd.readouterr() == ("", "") and [path.name for path in tmp_path.iterdir()] == ["tuned"]
    mixed = resolve_distillation(tmp_path / "tuned", alpha=0.6, sets=["train.epochs=1"])
    train(mixed, tmp_path / "mixed")
    line = json.loads((tmp_path / "mixed" / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["loss"] == pytest.approx(0.6 * line["main.loss"] + 0.4 * line["labels.loss"], rel=1e-4)
    assert 0 < line["labels.lookup_top1"] <= 0.5  # no more than there are labels


def test_init_that_fits_nothing_is_refused(pretrained: Path, tmp_path: Path) -> None:
    data = {**resolve(str(pretrained / "spec.yaml")).data, "init": {"checkpoint": str(pretrained)}}
    other = resolve_data(data, sets=["method.encoder.backbone.widths=[9]", "method.encoder.projector=[{width: 4}]"])
    with pytest.raises(ContralexError, match=r"init\.checkpoint: no tensor of the encoder .* nothing would be taken"):
        train(other, tmp_path / "run")


def test_a_momentum_twin_starts_from_the_checkpoint_too(pretrained: Path) -> None:
    data = {**resolve(str(pretrained / "spec.yaml")).data, "init": {"checkpoint": str(pretrained)}}
    model = build.look_up(resolve_data(data, sets=["method.key_encoder={kind: momentum, momentum: 0.9}"]).run, 80)
    wanted = load_file(_last(pretrained) / "model.safetensors")
    twin: Any = model.key_encoder
    for name, value in twin.encoder.state_dict().items():
        assert torch.equal(value, wanted[f"encoder.{name}"]), name


def test_logits_are_not_taken_for_a_collapse() -> None:
    from contralex.training import health

    first = health.measure_keys(torch.zeros(8, 2), 2)
    assert all(value == value for value in first.values())  # no NaN, though nothing has a direction yet
    sure = torch.tensor([[3.0, -3.0], [-2.0, 2.0]]).repeat(4, 1)
    line = {"step": 1, "loss": 0.1, "lookup_top1": 1.0, **health.measure_keys(sure, 2)}
    assert line["effective_rank"] < 1.5  # what keys of more entries are warned of
    assert health.find_signs([line] * 20) == []
    assert health.find_signs([{**line, "entries": 3}] * 20) != []


def test_mistakes_are_sentences(refused: Callable[..., str], pretrained: Path, tmp_path: Path, images: Path) -> None:
    assert "--labels 0: give the fraction of the labels" in refused("finetune", pretrained, "--labels", "0")
    assert "--from-layer 4: the projector has 3 layers" in refused("finetune", pretrained, "--from-layer", "4")
    assert "there is no folder nowhere" in refused("finetune", "nowhere")
    assert "is no classifier, so it has nothing to teach" in refused("distill", pretrained)
    assert "--alpha 0: give the weight of the teacher's answers" in refused("distill", pretrained, "--alpha", "0")
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, picture in enumerate(sorted(images.rglob("*.png"))[:8]):
        shutil.copy(picture, flat / f"{number}.png")
    assert "have no labels" in refused("finetune", pretrained, "--data", flat)


def _last(run: Path) -> Path:
    folder = run / "checkpoints"
    return folder / (folder / "last").read_text().strip()
