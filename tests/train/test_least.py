"""Too few samples in a batch, or in the data, are known when a run is built."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from contralex import resolve
from contralex.plugin import ContralexError
from contralex.recipes.layers import Resolved
from contralex.recipes.sample_counts import FIT, advice, sensible_batch
from contralex.training.prepare import prepare_run
from contralex.training.run import train
from contralex.training.run_folder import RunFolder

CONV = "method.encoder.backbone={kind: conv, widths: [4, 8], strides: [2, 2]}"
ONE_VALUE = "a BatchNorm, sees one value"


def resolved(recipe: str, *sets: str) -> Resolved:
    common = (CONV, "train.workers=0", "train.precision=fp32", "train.max_steps=1", "eval={knn: null}")
    return resolve(recipe, preset="digits", sets=[*common, *sets])


def steps(recipe: str, out: Path, *sets: str) -> int:
    """One, where the run can be built."""
    return int(train(resolved(recipe, *sets), out)["steps"])


@pytest.mark.parametrize(
    ("recipe", "sets", "sentence"),
    [
        ("simclr-v1", (), "method.negatives needs 2 samples in a batch: the other samples are the negatives"),
        ("supcon", (), "method.negatives needs 2 samples in a batch"),
        ("nnclr", (), "method.loss needs 2 samples in a batch"),
        ("moco-v3", (), "method.negatives needs 2 samples in a batch"),
        ("barlow", (), "method.loss needs 2 samples in a batch: the loss is about how samples differ"),
        ("vicreg", (), "method.loss needs 2 samples in a batch"),
        ("swav", (), "method.targets needs 2 samples in a batch"),
        ("byol", (), ONE_VALUE),
        ("simsiam", (), ONE_VALUE),
        ("pirl", ("train.batch_norm=local",), ONE_VALUE),
    ],
)
def test_a_batch_of_one_is_refused_with_a_batch_that_works(
    recipe: str, sets: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ContralexError) as error:
        steps(recipe, tmp_path / "one", "train.batch_size=1", *sets)
    said, remedy = str(error.value).split("\n")
    assert sentence in said
    option, setting = shlex.split(remedy)
    assert option == "--set"
    assert steps(recipe, tmp_path / "more", "train.batch_size=1", *sets, setting) == 1


@pytest.mark.parametrize("recipe", ["instdisc", "moco-v2"])
def test_a_batch_of_one_is_taken_where_negatives_are_remembered(recipe: str, tmp_path: Path) -> None:
    # The BatchNorms that are left see a map of values for each sample.
    sets = ("method.encoder.projector=[{width: 8}]", "train.batch_norm=local")
    assert steps(recipe, tmp_path, "train.batch_size=1", *sets) == 1


def test_more_clusters_than_an_epoch_has_samples(tmp_path: Path) -> None:
    """1437 samples are 14 batches of 100: 1400."""
    sets = ("train.batch_size=100", "train.batch_norm=local")
    with pytest.raises(ContralexError) as error:
        steps("deepcluster-v2", tmp_path / "one", *sets, "method.negatives.count=1401")
    said, remedy, *fit = str(error.value).split("\n")
    assert said.startswith("method.negatives needs 1401 samples in an epoch, and its whole batches have 1400: each")
    assert fit == FIT.split("\n")  # which lowers the number as well
    assert not (tmp_path / "one").exists()
    assert steps("deepcluster-v2", tmp_path / "more", *sets, shlex.split(remedy)[1]) == 1


def test_the_batch_that_is_advised_can_be_shared_and_normalised() -> None:
    assert [sensible_batch(samples, 1) for samples in (1, 2, 3, 9, 10**6)] == [None, 2, 2, 8, 64]
    assert [sensible_batch(samples, 3) for samples in (3, 5, 6, 64)] == [None, None, 6, 48]
    assert "--set" not in advice(1, 1) and "give more data" in advice(1, 1)
    assert "too few samples on 2 processes" in advice(3, 2)


def test_statistics_over_one_value_on_each_of_two_processes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "contralex", "train", "byol", "--preset", "digits", "--processes", "2"]
    sets = (
        CONV,
        "train.batch_size=2",
        "train.batch_norm=local",
        "train.max_steps=1",
        "train.workers=0",
        "eval.knn=null",
    )
    options = [word for setting in sets for word in ("--set", setting)]
    done = subprocess.run(
        [*command, *options, "--out", str(tmp_path / "local")], check=False, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 2, done.stderr
    assert "train.batch_size is 2, 1 on each of 2 processes, so method.encoder's" in done.stderr
    assert "\n  --set train.batch_norm=sync" in done.stderr
    done = subprocess.run(
        [*command, *options, "--set", "train.batch_norm=sync", "--out", str(tmp_path / "sync")],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def test_a_rehearsal_leaves_no_trace(tmp_path: Path) -> None:
    """Running statistics, weights and random numbers are those of a run that did not rehearse."""
    run = prepare_run(resolved("byol", "train.batch_size=8"), RunFolder(tmp_path / "run", "byol", False), resume=False)
    assert all(int(count) == 0 for name, count in run.method.named_buffers() if name.endswith("num_batches_tracked"))
    assert all(bool((mean == 0).all()) for name, mean in run.method.named_buffers() if name.endswith("running_mean"))


def test_what_evaluation_cannot_take_is_known_when_a_run_is_built(tmp_path: Path) -> None:
    """Each view goes through an encoder of its own; evaluation has one image for both."""
    sets = ("train.workers=0", "train.precision=fp32", "train.max_steps=1", "method.encoder.channels=[1, 1]")
    with pytest.raises(ContralexError, match=r"the encoders take 1 \+ 1 channels, and evaluation"):
        train(resolve("cmc", preset="digits", sets=[*sets, "eval.knn.baselines=false"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_a_frozen_key_encoder_cannot_take_is_known_when_a_run_is_built(tmp_path: Path) -> None:
    vit = "{kind: vit, image_size: 16, patch: 8, width: 24, depth: 1, heads: 2, any_size: false}"
    teacher = (f"method.encoder.backbone={vit}", "method.views.groups.crops.augment.crop.size=16")
    sets = ("train.batch_size=8", "method.encoder.projector=[{width: 16}]")
    assert steps("simclr-v1", tmp_path / "teacher", *sets, *teacher) == 1
    key_encoder = f"method.key_encoder={{kind: frozen, checkpoint: {tmp_path / 'teacher'}}}"
    with pytest.raises(ContralexError, match="an image of 32x32 pixels arrived"):
        steps("simclr-v1", tmp_path / "run", *sets, key_encoder)
    assert not (tmp_path / "run").exists()
