"""Evaluations of a finished run: what is measured, what is kept of it, and what is read again."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.utils.data import get_worker_info

import contralex
from contralex import ContralexError
from contralex.cli.measure import whole_numbers
from contralex.data.loading import EvalDataset
from contralex.evaluation import encoding, linear_protocols
from contralex.evaluation.few_labels import low_shot_svm
from contralex.kinds.encoders.image import ImageEncoder
from contralex.training import devices
from tests.noise import noise
from tests.train.tiny import TINY


@pytest.fixture(scope="module")
def folder(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "mine"
    contralex.train(
        "moco-v2", preset="digits", data=images, sets=[*TINY, "method.negatives.size=8", "train.batch_norm=8"], out=out
    )
    return out


@pytest.fixture
def run(folder: Path) -> contralex.Run:
    return contralex.open(folder)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each call of an encoder has had."""
    seen: list[int] = []
    features = ImageEncoder.features

    def count(self: ImageEncoder, view: torch.Tensor) -> torch.Tensor:
        seen.append(len(view))
        return features(self, view)

    monkeypatch.setattr(ImageEncoder, "features", count)
    return seen


KNN = {"eval.knn": {"k": 3}}


def test_a_result_holds_all_that_it_depends_on(run: contralex.Run) -> None:
    found = run.knn(sets=KNN)
    assert found.file is not None
    record = json.loads(found.file.read_text("utf-8"))
    assert record == found.record
    assert found.file.parent == run.folder / "evaluations"
    assert record["figures"] == {"top1": found["this run"].top1, "top5": found["this run"].top5}
    assert record["protocol"]["k"] == 3 and record["protocol"]["train_samples"] == 40
    assert set(record["baselines"]) == {"untrained encoder", "raw pixels"}
    manifest = json.loads((run.folder / "checkpoints" / "step-10" / "manifest.json").read_text())
    assert record["checkpoint"]["sha256"] == manifest["files"]["model.safetensors"]["sha256"]
    assert record["checkpoint"]["step"] == 10
    assert len(record["data"]["train"]) == len(record["data"]["test"]) == 64
    assert record["data"]["train"] != record["data"]["test"]
    assert {"contralex", "torch", "python", "contralex-moco"} <= set(record["versions"])
    assert found.text.startswith(f"weighted kNN: k=3, temperature 0.07, backbone: top-1 {found['this run'].top1:.1%}")
    assert f"SHA-256 {record['checkpoint']['sha256'][:12]}" in found.text
    assert repr(found).startswith(found.text)


def test_the_same_evaluation_replaces_itself_and_another_does_not(run: contralex.Run) -> None:
    first, again, other = (run.knn(sets={"eval.knn": {"k": k, "baselines": False}}) for k in (3, 3, 5))
    assert first.file == again.file != other.file
    assert dict(first) == dict(again)


def test_kept_results_are_listed_the_newest_first(run: contralex.Run) -> None:
    found = run.retrieval(recall=[3])
    listed = run.evaluations()
    assert found.record in listed
    assert [each["made"] for each in listed] == sorted((each["made"] for each in listed), reverse=True)
    (run.folder / "evaluations" / "broken.json").write_text("{")
    (run.folder / "evaluations" / "other.json").write_text('{"format": 7}')
    assert run.evaluations() == listed


def test_features_are_extracted_once(run: contralex.Run, encoded: list[int]) -> None:
    run.knn(sets=KNN)
    del encoded[:]
    with_cache = [run.knn(sets=KNN), run.linear(), run.retrieval(recall=[1]), run.knn(sets={"eval.knn": {"k": 5}})]
    assert encoded == []
    assert with_cache[0]["this run"].top1 == run.knn(sets=KNN)["this run"].top1
    first = run.embed()
    del encoded[:]
    again = run.embed()
    assert encoded == []
    assert torch.equal(first.features, again.features) and first.paths == again.paths
    assert first.labels is not None and again.labels is not None and torch.equal(first.labels, again.labels)


def test_features_of_another_checkpoint_are_its_own(run: contralex.Run, encoded: list[int]) -> None:
    run.embed()
    del encoded[:]
    steps = sorted((run.folder / "checkpoints").glob("step-*"))
    contralex.embed(steps[0] if len(steps) > 1 else run, which="embedding")
    assert sum(encoded) == 50


def test_quality_needs_no_labels(run: contralex.Run, tmp_path: Path) -> None:
    for number in range(12):
        noise((40, 40), 80, number).convert("RGB").save(tmp_path / f"{number}.png")
    found = run.quality(tmp_path, drawn=8, draws=3, neighbours=2)
    names = ["rankme", "effective_rank", "alpha_req", "uniformity", "alignment", "neighbour_overlap"]
    names += ["view_recall", "lidar"]
    assert list(found.figures) == names
    assert found.figures["alpha_req"] is None  # of eight dimensions
    assert 1 <= found.figures["rankme"] <= 8.1 and 1 <= found.figures["lidar"] <= 8.1
    assert 0 <= found.figures["neighbour_overlap"] <= 1 and found.figures["alignment"] >= 0
    assert found.protocol["samples"] == 12 and found.protocol["split"] == "train"
    assert found.protocol["drawn_views"] == "view 0, 3 draws of each of 8 samples, seed 0"
    assert set(found) == {"this run", "untrained encoder"}
    assert found.figures == run.quality(tmp_path, drawn=8, draws=3, neighbours=2).figures


def test_one_image_has_a_quality(run: contralex.Run, tmp_path: Path) -> None:
    noise((40, 40), 80).convert("RGB").save(tmp_path / "one.png")
    found = run.quality(tmp_path, drawn=1, draws=2)
    assert found.protocol["samples"] == 1
    assert found.figures["alignment"] >= 0


def test_retrieval_and_few_labels_say_what_they_did(run: contralex.Run) -> None:
    found = run.retrieval(recall=[2, 1], gallery="train")
    assert list(found.figures) == ["mean_average_precision", "recall_at_1", "recall_at_2"]
    assert found.protocol["gallery_samples"] == 40 and found.protocol["queries"] == 10
    few = run.few_label(fractions=[0.5], shots=[1], ways=2, queries=2, episodes=5, svm=[2])
    assert few.record["details"]["subset_0.5"]["samples"] == 20
    assert len(few.record["details"]["subset_0.5"]["indices"]) == 20
    assert set(few.figures) == {
        *("linear_0.5_top1", "linear_0.5_top5", "2_way_1_shot", "2_way_1_shot_interval"),
        *("svm_2_shot_map", "svm_2_shot_map_deviation"),
    }
    assert "2-way-1-shot" in few.text and "± " in few.text


def test_without_labels_a_sentence_says_what_to_give(run: contralex.Run, tmp_path: Path) -> None:
    noise((40, 40), 80).convert("RGB").save(tmp_path / "one.png")
    for measure in (run.retrieval, run.few_label):
        with pytest.raises(ContralexError, match=r"Give data that have labels:\n  --data FOLDER$"):
            measure(tmp_path)


def test_a_linear_protocol_trains_through_crops_and_without(run: contralex.Run, encoded: list[int]) -> None:
    with_crops = run.train_linear("moco-v2", epochs=2)
    assert sum(encoded) >= 2 * 40
    assert with_crops.protocol["epochs"] == 2 and with_crops.protocol["milestones"] == [1, 2]
    assert with_crops.protocol["rate"] == 30 and with_crops.protocol["batch_size"] == 40
    assert with_crops.protocol["crops"] == "8 to 100 % of the area, 32 px, bilinear, flips"
    assert with_crops.figures == run.train_linear("moco-v2", epochs=2).figures
    plain = run.train_linear("mae", epochs=2, crops=False, rates=[0.1, 1], decays=[0, 1e-3])
    assert plain.protocol["crops"] == "none: features of the plain images"
    assert len(plain.record["details"]["settings"]) == 4
    assert plain.protocol["train_samples"] == 36 and "4 held-out" in plain.protocol["chosen"]
    chosen = max(plain.record["details"]["settings"], key=lambda each: each["held_out_top1"])
    assert plain.figures["top1"] == chosen["top1"]


@pytest.mark.parametrize("batch", [8, 256])  # of 40 images: several batches, and one
def test_an_image_that_breaks_off_is_named_where_crops_of_it_are_wanted(
    batch: int,
    run: contralex.Run,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for number, path in enumerate(sorted(images.rglob("*.png"))):
        copy = tmp_path / ("val" if number % 5 == 0 else "train") / path.parent.name / path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    broken = tmp_path / "train" / "one" / "11.png"
    broken.write_bytes(broken.read_bytes()[:-1000])
    small = replace(linear_protocols.PROTOCOLS["moco-v2"], batch_size=batch)
    monkeypatch.setitem(linear_protocols.PROTOCOLS, "moco-v2", small)
    assert run.train_linear("moco-v2", tmp_path, epochs=1).protocol["batch_size"] == min(batch, 40)
    warnings = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert [each.partition(" is skipped")[0] for each in warnings] == [str(broken)]


def test_a_worker_that_dies_is_one_sentence_with_what_mends_it(
    run: contralex.Run, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(self: EvalDataset, wanted: Any) -> Any:
        assert get_worker_info() is not None
        os.kill(os.getpid(), signal.SIGKILL)

    shutil.copytree(images, tmp_path / "images")
    monkeypatch.setattr(encoding, "_WORTH_WORKERS", 1)
    monkeypatch.setattr(EvalDataset, "__getitems__", die)
    monkeypatch.setattr(devices, "workers", lambda asked, device: 2)
    for ask, way in (
        (lambda: run.knn(tmp_path / "images"), "--set train.workers=1"),
        (lambda: run.retrieval(tmp_path / "images"), "--set train.workers=1"),
        (lambda: contralex.embed(run, tmp_path / "images", batch_size=8), "--batch-size 4"),
    ):
        with pytest.raises(ContralexError, match=rf"^A data worker died .* memory ran out\. Try .*:\n  {way}$"):
            ask()


def test_one_process_with_a_folder_that_cannot_be_written_still_has_figures(
    run: contralex.Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> Path:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("contralex.training.evaluate_run.write_record", refuse)
    found = run.retrieval()
    assert found.file is None and found.figures
    assert "Read-only file system" in caplog.text


@pytest.mark.parametrize(("recipe", "sets"), [("cmc", []), ("simsiam", []), ("dino", []), ("mae", [])])
def test_methods_of_other_shapes_have_a_quality(recipe: str, sets: list[str], images: Path, tmp_path: Path) -> None:
    small = [each for each in TINY if not each.startswith("method.encoder")]
    few = [*small, "train.max_steps=1", *sets]
    trained = contralex.train(recipe, preset="digits", data=images, sets=few, out=tmp_path / "run")
    found = trained.quality(drawn=4, draws=2, neighbours=1)
    assert found.figures["rankme"] >= 1
    assert ("alignment" in found.figures) == (not found.protocol["drawn_views"].startswith("none"))
    if recipe != "cmc":
        assert 0 <= trained.train_linear("mae", epochs=1).figures["top1"] <= 1
        return
    assert "alignment" not in found.figures  # its views are channels, and evaluation sees all of them
    with pytest.raises(ContralexError, match=r"LabViews, give something else.*\n  --no-crops$"):
        trained.train_linear("mae", epochs=1)
    assert trained.train_linear("mae", epochs=1, crops=False).protocol["crops"].startswith("none")


def test_a_checkpoint_by_itself_is_evaluated_and_nothing_is_kept(run: contralex.Run, tmp_path: Path) -> None:
    step = next((run.folder / "checkpoints").glob("step-*"))
    alone = tmp_path / "copied"
    alone.mkdir()
    for file in step.iterdir():
        os.link(file, alone / file.name)
    found = contralex.open(alone).retrieval()
    assert found.file is None
    assert [path.name for path in tmp_path.iterdir()] == ["copied"]


def test_transfer_is_knn_and_a_linear_classifier_on_other_data(run: contralex.Run, tmp_path: Path) -> None:
    from tests.core.test_labelled_files import aircraft, textures

    textures(tmp_path), aircraft(tmp_path)
    found = {**run.transfer(["dtd", "aircraft"], root=tmp_path), **run.transfer(["digits"], decays=[1e-3, 1e-1])}
    assert list(found) == ["dtd", "aircraft", "digits"]
    names = ["knn_top1", "knn_top5", "linear_top1", "linear_class_mean"]
    assert all(list(each.figures) == names for each in found.values())
    digits = found["digits"]
    assert digits.protocol["test_samples"] == 360 and "best of 0.001, 0.1 on 20%" in digits.protocol["weight_decay"]
    assert digits.figures["knn_top1"] == run.knn("digits")["this run"].top1
    assert digits.figures["linear_class_mean"] == pytest.approx(digits.figures["linear_top1"], abs=0.05)
    assert found["dtd"].protocol["train_samples"] == 4 and found["dtd"].record["data"]["spec"]["root"] == str(tmp_path)


def test_transfer_to_data_that_are_not_there_says_so_before_anything_is_done(run: contralex.Run) -> None:
    with pytest.raises(ContralexError, match="transfer to dtt: "):
        run.transfer(["digits", "dtt"])


def test_positions_are_segmented_linearly(run: contralex.Run, tmp_path: Path) -> None:
    from tests.core.test_segmentation import write

    write(tmp_path, 20)
    found = run.segmentation(tmp_path)
    assert found.figures["mean_iou"] > 0.6 and found.figures["pixel_accuracy"] > 0.8  # halves of two colours
    assert (found.protocol["train_images"], found.protocol["test_images"]) == (16, 4)
    assert found.protocol["positions"] == "8×8 of 8 dimensions" and found.protocol["train_positions"] == 16 * 64
    assert set(found.record["details"]["iou"]) == {"0", "1"}
    few = run.segmentation(tmp_path, positions=32)
    assert few.protocol["train_positions"] == 32
    Image.new("RGB", (32, 32)).save(tmp_path / "masks" / "0.png")
    with pytest.raises(ContralexError, match="an image of colours; a mask has one channel"):
        run.segmentation(tmp_path)


@pytest.mark.parametrize(
    ("measure", "options", "sentence"),
    [
        ("quality", {"draws": 1}, "draws is 1, and must be at least 2"),
        ("quality", {"samples": 0}, "samples is 0, and must be at least 1"),
        ("few_label", {"shots": [1, 0]}, "shots is 0, and must be at least 1"),
        ("few_label", {"svm": [0]}, "svm is 0, and must be at least 1"),
        ("few_label", {"ways": 1}, "ways is 1, and must be at least 2"),
        ("train_linear", {"protocol": "swav", "rates": [float("nan")]}, "rates are numbers above 0"),
        ("train_linear", {"protocol": "swav", "sets": {"eval.linear.weight_decay": 1}}, "swav is changed by --rates"),
        ("transfer", {"to": "digit"}, "transfer to digit: "),
    ],
)
def test_numbers_that_measure_nothing_are_refused(
    measure: str, options: dict[str, Any], sentence: str, run: contralex.Run
) -> None:
    with pytest.raises(ContralexError, match=sentence):
        getattr(run, measure)(**options)


@pytest.mark.parametrize("text", ["1.5", "inf", "1,x"])
def test_what_is_counted_is_a_whole_number(text: str) -> None:
    with pytest.raises(ContralexError, match=f"--recall {text}: give whole numbers with commas between them"):
        whole_numbers("--recall", text)


def test_one_class_is_no_task_for_an_svm() -> None:
    labels = torch.zeros(4, dtype=torch.long)
    with pytest.raises(ContralexError, match="the training images have one class alone"):
        low_shot_svm(torch.rand(4, 3), labels, torch.rand(4, 3), labels)
