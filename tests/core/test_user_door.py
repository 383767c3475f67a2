"""The user's door, ``import contralex``: the list of its names, their examples, and what a run's object does."""

from __future__ import annotations

import doctest
import inspect
import json
import os
import re
import signal
import sys
import threading
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

import contralex
from contralex import ContralexError
from contralex.api import feature_files
from contralex.api.embedding import Rows
from contralex.api.settings import set_texts
from contralex.evaluation import features
from contralex.training.notebook_bar import NotebookBar, is_notebook
from tests.noise import noise
from tests.packages import ROOT

NAMES = [
    *("Adapted", "adapt"),
    *("Backbone", "Clock", "Comparison", "ContralexError", "Diagnosis", "Embeddings", "Export", "Fork"),
    *("ImageEncoder", "ImportedWeights", "InfoNCE", "InstanceTargets", "LookUp", "Match", "MomentumEncoder"),
    *("QueueSource", "Report", "Run", "Step", "Transform", "View", "ViewGrid", "__version__", "build"),
    *("cluster", "compare", "diff", "distill", "doctor", "dry_run", "duplicates", "embed", "explain", "export"),
    *("finetune", "fork", "import_weights", "inspect", "kinds", "load_backbone", "load_encoder", "load_transform"),
    *("methods", "open", "report", "resolve", "runs", "search", "train", "views", "why"),
]
SLOW = ("adapt", "Adapted", "compare", "Comparison")  # trains two methods, or needs a published file
IN_ORDER = ("train", "finetune", "distill")  # each goes on from the one before
FEW = {"train.max_steps": 2, "train.log_every": 1, "train.workers": 0, "eval.linear": None, "eval.knn": None}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with photographs of two classes and a run, which the example of ``train`` makes."""
    folder = tmp_path_factory.mktemp("workspace")
    for number in range(6):
        path = folder / "photos" / ("cat" if number < 3 else "dog") / f"{number % 3}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise((40, 48), 80, number).convert("RGB").save(path)
    before = Path.cwd()
    os.chdir(folder)
    try:
        run_example("train")
        yield folder
    finally:
        os.chdir(before)


@pytest.fixture
def run(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> contralex.Run:
    monkeypatch.chdir(workspace)
    return contralex.open("runs/my-run")


def run_example(name: str) -> None:
    found = getattr(contralex, name)
    text = inspect.getdoc(found) or ""
    test = doctest.DocTestParser().get_doctest(text, {}, name, None, None)
    assert test.examples, f"{name} has no example"
    problems: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.REPORT_ONLY_FIRST_FAILURE).run(test, out=problems.append)
    assert not problems, "".join(problems)


# The names


def test_the_names_of_the_door_are_these() -> None:
    assert dir(contralex) == sorted(NAMES)
    assert {*contralex.__all__} == {*NAMES} - {"open"}  # which `from contralex import *` would hide
    assert all(hasattr(contralex, name) for name in NAMES)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "__version__"])
def test_every_name_has_a_docstring_with_an_example(name: str) -> None:
    text = inspect.getdoc(getattr(contralex, name)) or ""
    assert text.splitlines()[0].strip()
    assert doctest.DocTestParser().get_examples(text)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("__version__", *SLOW, *IN_ORDER)])
def test_every_quick_example_is_right(name: str, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)
    run_example(name)


def test_a_run_is_fine_tuned_and_distilled(
    run: contralex.Run, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_example("finetune")
    run_example("distill")
    assert capsys.readouterr().out == ""
    assert contralex.open("runs/student").spec["method"]["loss"]


def test_what_contralex_simclr_brings_says_so_where_it_is_absent(
    run: contralex.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "contralex_simclr", None)
    monkeypatch.delitem(sys.modules, "contralex_simclr.resolving", raising=False)
    with pytest.raises(ContralexError, match=r"finetune comes with .*\n  pip install contralex-simclr$"):
        contralex.finetune(run)


def test_a_kind_is_listed_by_slot_or_folder() -> None:
    assert [kind.kind for kind in contralex.kinds("losses")] == [kind.kind for kind in contralex.kinds("loss")]
    assert {kind.slot for kind in contralex.kinds()} >= {"encoder", "loss", "data", "views"}
    assert {kind.slot for kind in contralex.kinds("datasets")} == {"data"}
    assert "loss.info_nce  " in repr(contralex.kinds("losses"))
    with pytest.raises(ContralexError, match="there is no slot 'lozzes'; the slots are encoder, "):
        contralex.kinds("lozzes")


def test_objects_print_as_a_few_readable_lines(run: contralex.Run) -> None:
    assert repr(run).startswith("Run moco-v2 in runs/my-run\n  2 steps, 0 epochs, ")
    assert "\n  kNN top-1: this run " in repr(run)
    assert repr(contralex.diff("moco-v1", "moco-v1")) == "moco-v1 and moco-v1 are the same run."
    assert "method.loss.temperature: 0.07 → 0.2" in repr(contralex.diff("moco-v1", "moco-v2")).splitlines()
    assert "negatives    queue " in repr(contralex.explain("moco-v2"))
    assert contralex.explain("moco-v2")._repr_svg_().startswith("<svg")
    assert any(line.startswith("moco-v2  ") for line in repr(contralex.methods()).splitlines())
    resolved = contralex.resolve("moco-v2")
    assert len(repr(resolved).splitlines()) < 6
    assert "step: 2\nloss: " in repr(contralex.doctor(run))
    assert repr(contralex.doctor(run)).endswith("\nProblem: none")
    assert resolved.digest in repr(resolved)
    assert repr(run.embed("photos")).splitlines() == [
        "Embeddings of 6 images, 256 features each",
        "  2 classes: cat, dog",
    ]


# Arguments


@pytest.mark.parametrize(
    ("sets", "texts"),
    [
        (None, []),
        ("train.epochs=5", ["train.epochs=5"]),
        (["train.epochs=5"], ["train.epochs=5"]),
        ({"train.epochs": 5, "eval.linear": None}, ["train.epochs=5", "eval.linear=null"]),
        ({"method.loss": {"kind": "cosine"}}, ['method.loss={"kind": "cosine"}']),
        ({"train.trackers": []}, ["train.trackers=[]"]),
        ({"data.root": Path("a b")}, ['data.root="a b"']),
        ({"name": "é: #1"}, ['name="é: #1"']),
        ({"train.seed": np.int64(3)}, ["train.seed=3"]),
    ],
)
def test_values_are_pythons_or_the_texts_of_the_command_line(sets: Any, texts: list[str]) -> None:
    assert set_texts(sets) == texts


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("summary", "007"),
        ("summary", "é: #1"),
        ("summary", "null"),
        ("train.optimizer.lr", 3e-05),
        ("train.clip", None),
    ],
)
def test_a_value_of_python_arrives_as_it_is(path: str, value: Any) -> None:
    found: Any = contralex.resolve("moco-v2", sets={path: value}).data
    for key in path.split("."):
        found = found[key]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: contralex.train("moco-v2", preste="digits"), "train has no argument preste; did you mean preset?"),
        (contralex.resolve, "resolve: missing a required argument: 'recipe'"),
        (lambda: contralex.resolve("moco-v2", sets={"train.seed": object()}), "sets: train.seed is <object object"),
        (lambda: contralex.resolve("moco-v2", sets={"a=b": 1}), "sets: 'a=b' is no path of a value"),
        (lambda: contralex.train("moco-v2", epochs=1, sets={"train.epochs": 2}), "train.epochs is set twice"),
        (contralex.train, "train what?"),
        (lambda: contralex.open("nowhere"), "there is no folder nowhere"),
        (lambda: contralex.open(ROOT / "docs"), "so it is not a run's folder"),
        (lambda: contralex.compare("all"), "compare: give a list of methods"),
        (lambda: contralex.compare([]), "compare: give a list of methods"),
        (lambda: contralex.compare(["moco-v2"], processes=0), "processes is 0, and must be at least 1"),
        (lambda: contralex.compare(["moco-v2"], at_once=0), "at_once is 0, and must be at least 1"),
        (lambda: contralex.train("moco-v2", processes=0), "processes is 0, and must be at least 1"),
        (lambda: contralex.fork("nowhere@1", processes=-1), "processes is -1, and must be at least 1"),
        (lambda: contralex.train("moco-v2", fit=True, minutes=0), "minutes is 0, and must be above 0"),
        (lambda: contralex.why("moco-v2", "train.epoch"), "moco-v2 has no such value; did you mean epochs?"),
        (lambda: contralex.load_encoder("nowhere"), "nowhere"),
    ],
)
def test_a_mistake_is_a_contralex_error(call: Any, sentence: str) -> None:
    with pytest.raises(ContralexError) as raised:
        call()
    assert sentence in str(raised.value)


# Training


def test_a_recipe_is_not_overwritten_by_the_spec_of_its_run(tmp_path: Path) -> None:
    own = tmp_path / "spec.yaml"
    own.write_text("# mine\nschema: 1\nname: mine\nextends: moco-v2\nsummary: x\n")
    before = own.read_text()
    with pytest.raises(ContralexError, match=r"would take the place of .*spec\.yaml.*\n  --out \S+run$"):
        contralex.train(str(own), preset="digits", sets=FEW, out=tmp_path)
    assert own.read_text() == before and [path.name for path in tmp_path.iterdir()] == ["spec.yaml"]


def test_runs_follow_each_other_in_one_process_and_are_equal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    threads, before = (
        torch.get_num_threads(),
        {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)},
    )
    one = contralex.train("moco-v2", preset="digits", sets=FEW, out=tmp_path / "one")
    contralex.train("moco-v2", preset="digits", sets={**FEW, "train.precision": "fp32"}, out=tmp_path / "other")
    found: list[Any] = []
    thread = threading.Thread(
        target=lambda: found.append(contralex.train("moco-v2", preset="digits", sets=FEW, out=tmp_path / "two"))
    )
    thread.start()
    thread.join()
    (two,) = found
    without_speed = [[{**line, "images_per_second": 0} for line in each.metrics()] for each in (one, two)]
    assert without_speed[0] == without_speed[1]
    weights = [each.encoder.state_dict() for each in (one, two)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert torch.get_num_threads() == threads
    assert not torch.distributed.is_initialized()
    assert {each: signal.getsignal(each) for each in before} == before
    out, err = capsys.readouterr()
    assert out == ""
    assert "moco-v2 on " in err


def test_a_run_is_resumed_by_its_folder(tmp_path: Path) -> None:
    begun = contralex.train("moco-v2", preset="digits", sets=FEW, out=tmp_path / "run")
    assert contralex.train(resume=True, out=begun).results["steps"] == 2


def test_training_in_processes_returns_the_run_too(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sets = {**FEW, "train.batch_size": 32, "train.batch_norm": "sync"}
    run = contralex.train("moco-v2", preset="digits", sets=sets, out=tmp_path / "run", processes=2)
    assert run.results["processes"] == 2
    assert capfd.readouterr().out == ""


def test_a_run_that_has_not_ended_says_so(run: contralex.Run, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text((run.folder / "spec.yaml").read_text("utf-8"), "utf-8")
    unended = contralex.open(tmp_path)
    assert repr(unended).splitlines() == [f"Run moco-v2 in {tmp_path}", "  not ended: step 0"]
    assert unended.metrics() == []
    with pytest.raises(ContralexError, match=r"has no results yet.*\n  contralex train --out .* --resume$"):
        _ = unended.results


def test_a_checkpoint_is_opened_as_its_run(run: contralex.Run) -> None:
    checkpoint = contralex.open(run.folder / "checkpoints" / "step-2")
    assert checkpoint.folder == run.folder
    assert checkpoint.results == run.results
    weights = [each.encoder.state_dict() for each in (run, checkpoint)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_checkpoint_is_known_by_a_path_from_within_its_run(
    run: contralex.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, results = run.folder.resolve(), run.results
    for folder, name in (("", "."), ("", "checkpoints/last"), ("checkpoints", "step-2"), ("checkpoints", "last")):
        monkeypatch.chdir(whole / folder)
        opened = contralex.open(name)
        assert opened.folder.resolve() == whole and opened.results == results
    monkeypatch.chdir(whole / "checkpoints" / "step-2")
    for name in (".", "../step-2", "../../checkpoints/step-2"):
        assert contralex.open(name).folder.resolve() == whole
    kept = contralex.open(".").knn().file
    assert kept is not None and kept.is_relative_to(whole)
    contralex.export(".", "torch-export", tmp_path / "encoder.pt2")
    assert "## Figures" in (tmp_path / "encoder.md").read_text("utf-8")


def test_a_home_is_known_as_on_the_command_line(run: contralex.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(Path.cwd()))
    assert contralex.load_backbone("~/runs/my-run") is not None
    assert contralex.doctor("~/runs/my-run", batches=False).facts["step"] == 2


def test_a_run_is_evaluated_as_at_its_end(run: contralex.Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.knn()["this run"].top1 == run.results["knn"]["this run"]["top1"]
    assert run.knn(sets={"eval.knn.k": 3})["this run"].protocol["k"] == 3
    assert capsys.readouterr().out == ""


# Encoders and transforms


@torch.no_grad()
def test_an_encoder_takes_a_tensor_or_views_by_number_or_name(run: contralex.Run) -> None:
    encoder, images = run.encoder, torch.rand(3, 3, 32, 32)
    one = encoder(images)
    by_number = encoder({0: images, 1: images})
    assert torch.equal(one, encoder.keys(by_number)[0][0])
    by_name = encoder({"left": images, "right": 2 * images})
    assert list(by_name) == ["left", "right"]
    assert torch.equal(by_name["left"], one)
    assert not torch.equal(by_name["right"], one)


@torch.no_grad()
def test_towers_know_their_views_by_name() -> None:
    left, right = (contralex.ImageEncoder(contralex.Backbone(torch.nn.Linear(4, 4), 4)) for _ in range(2))
    from contralex.kinds.encoders.towers import TowersEncoder

    towers, samples = TowersEncoder({"left": left, "right": right}, features="first"), torch.rand(2, 4)
    found = towers({"right": samples, "left": samples})
    assert torch.equal(found["right"], right(samples))
    assert torch.equal(found["left"], left(samples))
    with pytest.raises(ContralexError, match="no view 'text'; its views are left, right"):
        towers({"text": samples})


def test_a_transform_is_what_evaluation_does(run: contralex.Run) -> None:
    spec = contralex.resolve("moco-v2", preset="digits").run
    image = Image.open("photos/cat/1.png")
    plain = spec.method.views.build().plain(image.convert("RGB"))
    assert torch.equal(run.transform("photos/cat/1.png"), plain)
    assert torch.equal(run.transform(Path("photos/cat/1.png")), plain)
    assert torch.equal(run.transform(image), plain)
    assert torch.equal(run.transform(image.convert("RGBA")), plain)


@pytest.mark.parametrize(
    ("recipe", "last"),
    [
        ("moco-v2", "Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225], inplace=False)"),
        ("clip", "Normalize(mean=[0.48145466, 0.4578275, 0.40821073], std=[0.26862954, 0.26130258, 0.27577711], "),
        ("cmc", "RGB to lab, normalised"),
        ("cpc", "overlapping patches of 64 px, 32 px apart"),
        ("mae", "Normalize(mean="),
        ("crd", "Normalize(mean="),
    ],
)
def test_every_image_recipe_says_what_its_encoder_wants_to_see(recipe: str, last: str) -> None:
    steps = contralex.resolve(recipe).run.method.views.build().plain_steps()
    assert steps[-1].startswith(last)
    assert any("Resize(size=" in step or "CenterCrop(size=" in step for step in steps)


# Embeddings


@torch.no_grad()
def test_embeddings_are_the_features_of_every_image(run: contralex.Run) -> None:
    found = run.embed("photos", batch_size=4)
    images = torch.stack([run.transform(Path("photos") / path) for path in found.paths])
    torch.testing.assert_close(found.features, run.encoder.features(images))
    torch.testing.assert_close(run.backbone(images), found.features)
    torch.testing.assert_close(run.embed("photos", which="embedding").features, run.encoder(images))
    assert found.paths == [f"{name}/{number}.png" for name in ("cat", "dog") for number in range(3)]
    assert found.labels is not None
    assert (found.labels.tolist(), found.classes) == ([0, 0, 0, 1, 1, 1], ["cat", "dog"])


def test_what_cannot_be_read_is_named_and_left_out(run: contralex.Run, tmp_path: Path) -> None:
    for number in range(3):
        noise((40, 40), 80, number).save(tmp_path / f"{number}.png")
    whole = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "train").mkdir()
    found = run.embed(tmp_path)
    assert (found.paths, found.labels, found.classes) == (["0.png", "2.png"], None, [])
    assert list(found.skipped) == [str(tmp_path / "1.png")]
    assert repr(found).endswith("1 could not be read (see .skipped)")


def test_a_folder_that_is_left_out_is_named(
    run: contralex.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, split in enumerate(("train", "val", "test")):
        (tmp_path / split).mkdir()
        noise((40, 40), 80, number).save(tmp_path / split / "0.png")
    assert run.embed(tmp_path).paths == ["train/0.png", "val/0.png"]
    assert f"{tmp_path}: folder test (1) is left out\n" in capsys.readouterr().err


def test_embeddings_of_the_runs_own_data_name_their_splits(run: contralex.Run) -> None:
    found = run.embed()
    assert len(found) == 1797
    assert (found.paths[0], found.paths[-1]) == ("train/0", "test/359")


def test_rows_beyond_a_limit_go_to_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = [(torch.rand(5, 8), torch.arange(5 * number, 5 * number + 5)) for number in range(4)]
    monkeypatch.setattr("contralex.api.embedding.LARGE", 64)
    with Rows() as rows:
        held, index = rows.collect(iter(blocks))
    assert torch.equal(held, torch.cat([block for block, _ in blocks]))
    assert torch.equal(index, torch.arange(20))
    with Rows() as rows, pytest.raises(ContralexError, match="can be read"):
        rows.collect(iter(()))
    assert features.LARGE > 64


@pytest.fixture
def embeddings() -> contralex.Embeddings:
    labels = torch.tensor([0, 1, -1, 1, 0])
    return contralex.Embeddings(torch.rand(5, 3), [f"é/{number}.png" for number in range(5)], labels, ["é", "b"])


def test_embeddings_in_safetensors(
    embeddings: contralex.Embeddings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_files, "_ROWS", 2)
    with safe_open(embeddings.save(tmp_path / "a.safetensors"), "pt") as file:
        assert torch.equal(file.get_tensor("features"), embeddings.features)
        assert torch.equal(file.get_tensor("labels"), embeddings.labels)
        assert json.loads(file.metadata()["paths"]) == embeddings.paths
        assert json.loads(file.metadata()["classes"]) == embeddings.classes
    monkeypatch.setattr(feature_files, "_HEADER", 10)
    with pytest.raises(ContralexError, match=r"write \.npz or \.parquet"):
        embeddings.save(tmp_path / "b.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]  # no draft is left


def test_embeddings_in_npz(embeddings: contralex.Embeddings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_files, "_ROWS", 2)
    with np.load(embeddings.save(tmp_path / "a.npz")) as file:
        assert np.array_equal(file["features"], embeddings.features.numpy())
        assert file["labels"].tolist() == [0, 1, -1, 1, 0]
        assert file["paths"].tolist() == embeddings.paths
        assert file["classes"].tolist() == embeddings.classes
    without = contralex.Embeddings(torch.rand(1, 3), ["a.png"], None, [])
    assert "labels.npy" not in zipfile.ZipFile(without.save(tmp_path / "b.npz")).namelist()


def test_embeddings_in_parquet(
    embeddings: contralex.Embeddings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(feature_files, "_ROWS", 2)
    table = parquet.read_table(embeddings.save(tmp_path / "a.parquet"))
    assert table["path"].to_pylist() == embeddings.paths
    assert table["label"].to_pylist() == [0, 1, None, 1, 0]
    assert table["class"].to_pylist() == ["é", "b", None, "b", "é"]
    assert np.array_equal(np.stack(table["features"].to_numpy(zero_copy_only=False)), embeddings.features.numpy())


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("a.csv", r"must end in \.safetensors, \.npz or \.parquet"), ("no/a.npz", "there is no folder")],
)
def test_a_file_that_cannot_be_written_is_refused(
    name: str, sentence: str, embeddings: contralex.Embeddings, tmp_path: Path
) -> None:
    with pytest.raises(ContralexError, match=sentence):
        embeddings.save(tmp_path / name)


def test_parquet_without_pyarrow_says_what_to_install(
    embeddings: contralex.Embeddings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ContralexError, match=r"needs pyarrow.*\n  pip install 'contralex\[parquet\]'$"):
        embeddings.save(tmp_path / "a.parquet")


# Loops of one's own


def test_a_method_is_built_as_the_trainer_builds_it() -> None:
    sets = {"method.negatives.size": 64}
    methods = [contralex.build("moco-v2", preset="digits", dataset_size=99, sets=sets) for _ in range(2)]
    weights = [method.state_dict() for method in methods]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    bank = contralex.build("instdisc", preset="digits").negatives.state_dict()
    assert [len(table) for table in bank.values()] == [1437]  # a vector for each sample of the recipe's data


def test_parts_made_alone_learn() -> None:
    torch.manual_seed(0)
    backbone = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 16))
    encoder = contralex.ImageEncoder(contralex.Backbone(backbone, 16))
    method = contralex.LookUp(
        encoder,
        contralex.MomentumEncoder(encoder, momentum=0.9),
        contralex.QueueSource(32, 16),
        contralex.InstanceTargets(),
        contralex.InfoNCE(temperature=0.2),
        [contralex.Match(0, 1)],
    )
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.5)
    samples, losses = torch.randn(256, 3, 2, 2), []
    for number in range(64):
        step = contralex.Step(contralex.Clock(number, 64, 32), seed=0, batch=8)
        index = torch.arange(8) + 8 * (number % 32)
        views = {view: samples[index] + 0.5 * torch.randn(8, 3, 2, 2) for view in range(2)}
        result = method(views, index, step)
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        method.update(result.keys, step)
        losses.append(result.loss.item())
    assert sum(losses[-16:]) < sum(losses[4:20])  # from when the queue is filled


def test_the_loops_of_the_page_about_python_run() -> None:
    """The blocks below its last heading, in one namespace."""
    page = (ROOT / "docs" / "python.md").read_text("utf-8").partition("## A loop of your own")[2]
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    namespace: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "python.md", "exec"), namespace)
    assert torch.isfinite(namespace["result"].loss)
    assert len(namespace["method"].negatives.vectors) == 4096


# Notebooks


class Display:
    """Stands for IPython: what a cell shows."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def show(self, data: dict[str, str], *, raw: bool, display_id: bool = False) -> Display:
        assert raw
        self.texts.append(data["text/plain"])
        return self

    update = show


class ZMQInteractiveShell:
    pass


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Display:
    shown = Display()
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = ZMQInteractiveShell  # type: ignore[attr-defined]
    display = types.ModuleType("IPython.display")
    display.display = shown.show  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return shown


def test_a_notebook_shows_one_line_that_is_written_anew(
    notebook: Display, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert is_notebook()
    contralex.train("moco-v2", preset="digits", sets=FEW, out=tmp_path / "run")
    assert notebook.texts[0].startswith("moco-v2 epoch 1/1 ░░░")
    assert "  0/2" not in notebook.texts[-1]
    assert " 2/2  loss " in notebook.texts[-1]
    out, err = capsys.readouterr()
    assert out == ""
    assert "Saved in " in err


def test_the_line_says_how_much_is_left(notebook: Display, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("contralex.training.notebook_bar.time.monotonic", lambda: now[0])
    bar = NotebookBar(None, "mine", 4, 40, 0, shown=True)  # type: ignore[arg-type]
    bar.start()
    now[0] += 0.1
    bar.at(1, 1)  # too soon after the last
    assert len(notebook.texts) == 1
    bar.show(["loss 2.0"])
    now[0] += 9.9
    bar.at(10, 1)
    assert notebook.texts[-1] == "mine epoch 1/4 ██████░░░░░░░░░░░░░░░░░░ 10/40  30 s left  loss 2.0"
    bar.at(40, 4)
    bar.stop()
    assert notebook.texts[-1] == f"mine epoch 4/4 {24 * '█'} 40/40  loss 2.0"


def test_elsewhere_there_is_no_notebook() -> None:
    assert not is_notebook()


def test_the_first_notebook_runs(workspace: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its code cells, in order and in one namespace, with very few steps."""
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((ROOT / "docs" / "first-run.ipynb").read_text("utf-8"))
    assert (notebook["nbformat"], notebook["metadata"]["kernelspec"]["name"]) == (4, "python3")
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    assert len(notebook["cells"]) <= 16  # one screen
    namespace: dict[str, Any] = {}
    for cell in cells:
        code = "".join(cell["source"])
        exec(compile(code.replace('"train.epochs": 5', '"train.max_steps": 2'), "first-run.ipynb", "exec"), namespace)
    assert namespace["run"].results["steps"] == 2
