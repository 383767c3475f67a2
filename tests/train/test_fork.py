"""A fork without a change is its parent to the bit; with one, the same batches go through another method."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import contralex
from contralex import ContralexError
from contralex.cli.app import app
from contralex.comparison import difference
from contralex.training.checkpoints.read import read_state
from tests.train.tiny import TINY

QUEUE = ["method.negatives.size=30", "train.batch_norm=4"]
METHODS = {  # a bank, prototypes with multi-crop, a predictor, two kinds of views
    "instdisc": ["method.negatives.draws=16"],
    "swav": ["method.negatives.count=10"],
    "byol": [],
    "cmc": ["method.negatives.draws=16"],
}
CONV = TINY[0]
COLDER = {"method.loss.temperature": 0.05}
Result = tuple[int, str]


@pytest.fixture
def call() -> Callable[..., Result]:
    def run(*words: str) -> Result:
        done = CliRunner().invoke(app, words, catch_exceptions=False)
        return done.exit_code, done.stdout

    return run


def train(recipe: str, images: Path, out: Path, *sets: str) -> contralex.Run:
    often = ["train.checkpoint={every_steps: 5, keep_last: 9}", "train.log_every=2", *METHODS.get(recipe, QUEUE)]
    tiny = [text for text in TINY if text != CONV or recipe != "cmc"]
    return contralex.train(recipe, preset="digits", data=images, sets=[*tiny, *often, *sets], out=out)


@pytest.fixture(scope="module")
def parent(images: Path, tmp_path_factory: pytest.TempPathFactory) -> contralex.Run:
    """Ten steps of MoCo v2 in two epochs, with checkpoints of the steps 5 and 10."""
    return train("moco-v2", images, tmp_path_factory.mktemp("runs") / "parent", "eval.knn={k: 3, every: 1}")


def lines(run: Any) -> list[dict[str, Any]]:
    found = contralex.open(run).metrics()
    return [{name: value for name, value in line.items() if name != "images_per_second"} for line in found]


def tensors(run: Any, step: int) -> dict[str, torch.Tensor]:
    return load_file(Path(run) / "checkpoints" / f"step-{step}" / "model.safetensors")


def is_equal(one: Any, other: Any, step: int) -> bool:
    """Lines of the whole run, and the bytes of all tensors of a step."""
    files = [
        [Path(run) / "checkpoints" / f"step-{step}" / name for run in (one, other)]
        for name in ("model.safetensors", "optimizer.safetensors")
    ]
    return lines(one) == lines(other) and all(a.read_bytes() == b.read_bytes() for a, b in files)


# Without a change


@pytest.mark.parametrize("recipe", METHODS)
def test_a_fork_without_a_change_is_its_parent_to_the_bit(recipe: str, images: Path, tmp_path: Path) -> None:
    run = train(recipe, images, tmp_path / "parent")
    fork = run.fork(5, out=tmp_path / "fork")
    assert is_equal(run, fork, 10)
    assert fork.changes == {} and fork.difference["weights"] == {"step": 10, "equal": True, "distance": 0.0}
    assert all(row["parent"] == row["fork"] for row in fork.rows)
    assert [row["step"] for row in fork.rows] == [6, 8, 10]
    assert fork.difference["notes"] == []


def test_a_step_without_a_checkpoint_is_computed_again(parent: contralex.Run, tmp_path: Path) -> None:
    """In the middle of a logging period, whose mean goes on."""
    fork = contralex.fork(f"{parent.path}@7", out=tmp_path / "fork")
    assert is_equal(parent, fork, 10)
    assert json.loads((tmp_path / "fork" / "fork.json").read_text())["recomputed_from"] == 5
    assert not (tmp_path / "fork" / "replay").exists()
    from_the_start = contralex.fork(parent, 3, out=tmp_path / "other", evaluate=False)
    assert is_equal(parent, from_the_start, 10)
    assert "knn" not in contralex.open(from_the_start).results


def test_a_fork_from_the_first_step_is_the_run_itself(parent: contralex.Run, tmp_path: Path) -> None:
    fork = parent.fork(0, out=tmp_path / "fork")
    assert is_equal(parent, fork, 10)
    assert contralex.open(fork).results["knn"] == parent.results["knn"]


def test_steps_computed_on_another_machine_are_named(parent: contralex.Run, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for name in ("spec.yaml", "metrics.jsonl"):
        copy.mkdir(exist_ok=True)
        (copy / name).write_text((parent.folder / name).read_text("utf-8"), "utf-8")
    changed = [{**line, **({"loss": line["loss"] + 1e-4} if "loss" in line else {})} for line in parent.metrics()]
    (copy / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in changed), "utf-8")
    fork = contralex.fork(copy, 4, out=tmp_path / "fork", steps=2, evaluate=False)
    again, unchanged = fork.difference["notes"]
    assert again.startswith(
        "The steps after 0 were computed again, and differ from the parent's, first at step 2 (loss "
    )
    assert unchanged.startswith(
        "Nothing was changed, and the fork still differs from its parent, first at step 6 (loss "
    )


# With one


def test_a_change_shows_after_the_step_and_not_before(parent: contralex.Run, tmp_path: Path) -> None:
    fork = parent.fork(5, sets=COLDER, out=tmp_path / "fork")
    before = [line for line in lines(fork) if line["step"] <= 5]
    assert before == [line for line in lines(parent) if line["step"] <= 5]
    assert fork.changes == {"method.loss.temperature": "0.1 → 0.05"}
    assert [row["parent"]["loss"] != row["fork"]["loss"] for row in fork.rows] == [True] * 3
    weights = fork.difference["weights"]
    ends = [tensors(run, 10) for run in (parent, fork)]
    names = [name for name, tensor in ends[0].items() if name.startswith("encoder.") and tensor.is_floating_point()]
    apart = sum(float((ends[1][name] - ends[0][name]).double().square().sum()) for name in names) ** 0.5
    size = sum(float(ends[0][name].double().square().sum()) for name in names) ** 0.5
    assert weights["step"] == 10 and not weights["equal"] and weights["distance"] == pytest.approx(apart / size, 1e-5)
    assert weights["distance"] > 1e-4
    assert set(fork.difference["results"]) == {"knn"}


def test_a_fork_sees_the_batches_of_its_parent(parent: contralex.Run, tmp_path: Path) -> None:
    """Which samples were in the queue at its end, and in which order, is what was looked at."""
    fork = parent.fork(5, sets=COLDER, out=tmp_path / "fork", evaluate=False)
    ends = [tensors(each, 10) for each in (parent, fork)]
    assert torch.equal(ends[0]["negatives.sample"], ends[1]["negatives.sample"])
    assert not torch.equal(ends[0]["negatives.vectors"], ends[1]["negatives.vectors"])


def test_a_queue_of_another_size_keeps_its_newest_keys(parent: contralex.Run, tmp_path: Path) -> None:
    fork = parent.fork(5, sets={"method.negatives.size": 16}, out=tmp_path / "fork", steps=1, evaluate=False)
    old, new = tensors(parent, 5), tensors(fork, 5)
    assert len(new["negatives.sample"]) == 16
    assert {*new["negatives.sample"].tolist()} <= {*old["negatives.sample"].tolist()}


def test_a_key_encoder_may_be_left_behind(images: Path, tmp_path: Path) -> None:
    run = train("byol", images, tmp_path / "run")
    shared = {"method.key_encoder": {"kind": "shared", "gradient": False}}
    fork = run.fork(5, sets=shared, out=tmp_path / "fork")
    assert not any(name.startswith("key_encoder.encoder") for name in tensors(fork, 10))
    assert torch.equal(*(tensors(each, 5)["encoder.projector.0.weight"] for each in (run, fork)))


def test_a_short_fork_ends_between_two_lines_and_goes_on(parent: contralex.Run, tmp_path: Path) -> None:
    short = parent.fork(5, steps=2, out=tmp_path / "fork", evaluate=False)
    results = contralex.open(short).results
    assert results["steps"] == 7 and results["stopped"]["by"] == "contralex fork"
    assert [row["step"] for row in short.rows] == [6]
    contralex.train(resume=True, out=short)
    assert is_equal(parent, short, 10)
    assert len(json.loads((tmp_path / "fork" / "difference.json").read_text("utf-8"))["rows"]) == 3


# What it says of itself


def test_a_fork_says_of_what_it_is_one(
    parent: contralex.Run, tmp_path: Path, call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out = call("fork", f"{parent.folder}@5", "--set", "method.loss.temperature=0.05", "--out", "one")
    assert code == 0 and "loss of the fork" in out and "difference.svg" in out
    state = read_state(tmp_path / "one" / "checkpoints" / "step-10")
    assert state.forked is not None
    assert (state.forked.run, state.forked.step) == (str(parent.folder), 5)
    assert state.forked.digest == parent.results["digest"] != state.digest
    assert state.forked.changes == {"method.loss.temperature": "0.1 → 0.05"}
    assert call("inspect", "one")[1].count(f"fork of {parent.folder} from step 5 on: method.loss.temp") == 1
    assert f"fork of {parent.folder} from step 5 on (0.1 → 0.05)" in call("why", "one/spec.yaml", "method.loss")[1]
    assert "<svg" in (tmp_path / "one" / "difference.svg").read_text("utf-8")
    again = contralex.fork("one@5", out="two", steps=1, evaluate=False)  # a fork of a fork
    assert again.difference["parent"] == str(tmp_path / "one")
    assert is_equal(tmp_path / "one", tmp_path / "one", 5) and again.rows[0]["parent"] == again.rows[0]["fork"]
    text = repr(again)
    assert "with nothing changed" in text.splitlines()[0] and "equal to the bit" not in text


def test_the_command_prints_json(parent: contralex.Run, tmp_path: Path, call: Callable[..., Result]) -> None:
    code, out = call("fork", f"{parent.folder}@5", "--steps", "1", "--no-eval", "--json", "--out", str(tmp_path / "a"))
    found = json.loads(out)
    assert code == 0 and found["step"] == 5 and found["changes"] == {} and found["rows"][0]["step"] == 6


def test_a_fork_in_two_processes_is_its_parent_to_rounding(parent: contralex.Run, tmp_path: Path) -> None:
    sync = {"train.batch_norm": "sync"}
    fork = parent.fork(5, sets=sync, steps=2, out=tmp_path / "fork", processes=2, evaluate=False)
    one = parent.fork(5, sets=sync, steps=2, out=tmp_path / "one", evaluate=False)
    assert [row["step"] for row in fork.rows] == [6]
    assert fork.rows[0]["fork"]["loss"] == pytest.approx(one.rows[0]["fork"]["loss"], rel=1e-4)
    assert contralex.open(fork).results["processes"] == 2


# What is refused


@pytest.mark.parametrize(
    ("sets", "sentence"),
    [
        ("train.batch_size=4", "train.batch_size: 8 → 4 cannot be changed: a fork sees the batches of its parent"),
        ("train.seed=1", "train.seed: 0 → 1 cannot be changed: all random numbers"),
        ("train.epochs=9", "train.epochs: 2 → 9 cannot be changed: schedules end with it"),
        ("train.optimizer={kind: sgd, lr: 0.1}", "train.optimizer: adamw"),
        ("data=digits", "cannot be changed: a fork sees the batches of its parent"),
        ("method.encoder.projector=[{width: 64}]", r"method.encoder .*encoder.projector.*; leave out the change"),
        ("train.optimizer.groups=[]", r"train.optimizer.groups: .* has the optimiser's state in the order"),
    ],
)
def test_what_cannot_change_is_named(sets: str, sentence: str, parent: contralex.Run, tmp_path: Path) -> None:
    with pytest.raises(ContralexError, match=sentence):
        parent.fork(5, sets=sets, out=tmp_path / "fork")
    assert not (tmp_path / "fork").exists()


def test_other_mistakes_are_sentences(parent: contralex.Run, tmp_path: Path) -> None:
    with pytest.raises(ContralexError, match=r"say from which step .*@100\. It has checkpoints of the steps 5, 10\."):
        contralex.fork(parent)
    with pytest.raises(ContralexError, match="ends at step 10, so nothing is left"):
        contralex.fork(parent, 10, out=tmp_path / "fork")
    with pytest.raises(ContralexError, match=r"is no run's folder, for it has no spec\.yaml"):
        contralex.fork(tmp_path, 1)
    assert not (tmp_path / "fork").exists()
    with pytest.raises(ContralexError, match="is no fork of another run"):
        difference.difference(parent.folder)


def test_other_data_are_refused(parent: contralex.Run, images: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for file in sorted(images.glob("*/*.png"))[:20]:
        (few / file.parent.name).mkdir(exist_ok=True)
        (few / file.parent.name / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ContralexError, match=r"was trained on other data \(data: 40 samples → 20\)"):
        parent.fork(5, data=few, out=tmp_path / "fork")
