"""The doctor of a run: each fault has its sign, with what was measured and what to try, and a sound run has none."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import contralex
from contralex import ContralexError
from contralex.cli.app import app
from contralex.data.loading import ViewDataset
from contralex.lookup.clock import Clock
from contralex.plugins.registry import registry
from contralex.recipes.documents import chain
from contralex.recipes.layers import resolve
from contralex.recipes.run_spec import RunSpec
from contralex.training.diagnosis import colours
from contralex.training.diagnosis.from_batches import batch_signs
from contralex.training.diagnosis.from_metrics import late_accuracy, metric_signs
from contralex.training.diagnosis.from_spec import spec_signs
from contralex.training.diagnosis.measure import Measured
from contralex.training.diagnosis.signs import Sign
from tests.noise import noise
from tests.train.tiny import TINY

START = Clock(0, 100, 10)
SOUND = {"loss": 3.0, "lookup_top1": 0.5, "entries": 64, "feature_std": 0.9, "effective_rank": 40.0}


def spec(recipe: str = "moco-v2", *sets: str) -> RunSpec:
    return resolve(recipe, preset="digits", sets=sets).run


def lines(count: int = 40, **other: Any) -> list[dict[str, Any]]:
    return [{"step": 10 * (at + 1), "epoch": (at + 1) / 4, **SOUND, **other} for at in range(count)]


def names(signs: Any) -> list[str]:
    return [sign.name for sign in signs]


# From the metrics


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"feature_std": 0.01, "effective_rank": 1.0}, "alike"),
        ({"effective_rank": 1.2}, "few"),
        ({"loss": math.log(64), "lookup_top1": 0.01}, "chance"),
        ({"loss": math.log(2)}, "ln 2"),
        ({"loss": 0.0}, "nothing"),
        ({"lookup_top1": 0.99}, "views_too_weak"),
    ],
)
def test_a_sign_of_the_metrics_says_all_that_it_needs(wrong: dict[str, float], name: str) -> None:
    (sign,) = metric_signs(lines(40, **wrong), spec())
    assert sign.name == name
    assert sign.bound and sign.source and sign.measured
    assert sign.measured.items() >= {key: value for key, value in wrong.items() if key in sign.measured}.items()
    assert all(resolve("moco-v2", preset="digits", sets=[each]) for each in sign.tries)


def test_a_rising_loss_is_a_sign_and_a_sound_one_is_not() -> None:
    (sign,) = metric_signs([*lines(5), *lines(20, loss=10.0)], spec())
    assert sign.name == "rising" and "train.clip=1" in sign.tries
    assert str(sign).endswith("Try:" + "".join(f"\n  --set {each}" for each in sign.tries))
    assert names(metric_signs(lines(), spec())) == []


def test_a_queue_that_is_not_full_yet_tells_nothing_of_the_views() -> None:
    filling = [{**line, "lookup_top1": 1.0 if line["step"] <= 8 else 0.3} for line in lines(40)]
    filling = [{**line, "step": number + 1} for number, line in enumerate(filling)]
    assert names(metric_signs(filling, spec("moco-v2", "method.negatives.size=512"))) == []
    assert names(metric_signs(lines(lookup_top1=0.99), spec("swav"))) == []  # its look-up asks for no sample


# From the spec


@pytest.mark.parametrize(
    ("sets", "samples", "name"),
    [
        (["method.loss.temperature=5"], 1437, "temperature"),
        (["method.loss.temperature=0.001"], 1437, "temperature"),
        (["method.key_encoder.momentum=0.9", "train.batch_size=16"], 1437, "queue_too_old"),
        (["method.negatives.size=1400"], 1437, "own_keys_in_queue"),
    ],
)
def test_a_number_that_is_out_of_range_is_a_sign(sets: list[str], samples: int, name: str) -> None:
    (sign,) = spec_signs(spec("moco-v2", *sets), samples, START)
    assert sign.name == name
    for each in sign.tries:
        assert name not in names(spec_signs(spec("moco-v2", *sets, each), samples, START))


def test_no_recipe_as_it_is_published_has_a_sign() -> None:
    for name in registry().recipes():
        presets = sorted({preset for recipe in chain(name) for preset in recipe.presets})
        for preset in (None, *presets):
            found = spec_signs(resolve(name, preset=preset).run, 0, START)
            assert names(found) == [], (name, preset)


def test_old_keys_of_ones_own_are_as_frequent_as_in_shuffled_epochs() -> None:
    samples, size, met, asked = 200, 140, 0, 0
    generator = torch.Generator().manual_seed(0)
    order = [index for _ in range(60) for index in torch.randperm(samples, generator=generator).tolist()]
    for at in range(size, len(order)):
        met += order[at] in order[at - size : at]
        asked += 1
    (sign,) = spec_signs(spec("moco-v2", f"method.negatives.size={size}"), samples, START)
    assert sign.measured["queries_with_own_key"] == pytest.approx(met / asked, abs=0.02)


# From batches


def found(**figures: Any) -> Measured:
    sound: dict[str, Any] = {
        **{"samples": 512, "chance": 1 / 64, "mean_colour": 0.1, "histogram": 0.1, "pixels": 0.3, "untrained": 0.2},
        **{"feature_std": 0.6, "effective_rank": 50.0, "features": 256, "query_moved": 0.2, "key_moved": 0.1},
        **{"key_apart": 0.1, "seconds": {"data": 0.1, "forward": 1.0, "backward": 1.0}, "workers": 1},
    }
    return Measured(**{**sound, **figures})


@pytest.mark.parametrize(
    ("figures", "name"),
    [
        ({"feature_std": 0.01}, "collapse"),
        ({"effective_rank": 1.3}, "low_rank"),
        ({"key_moved": 0.0}, "dead_key_encoder"),
        ({"key_apart": 0.0}, "key_encoder_does_not_lag"),
        ({"mean_colour": 0.7}, "colour_tells"),
        ({"histogram": 0.7}, "colour_tells"),
        ({"untrained": 0.95}, "views_too_weak"),
        ({"pixels": 0.01, "untrained": 0.02}, "views_too_strong"),
        ({"seconds": {"data": 5.0, "forward": 1.0, "backward": 1.0}}, "loader_too_slow"),
        ({"seconds": {"data": 1.0, "forward": 1.0, "backward": 1.0}, "device": "cuda"}, "loader_too_slow"),
    ],
)
def test_a_figure_beyond_its_bound_is_a_sign(figures: dict[str, Any], name: str) -> None:
    (sign,) = batch_signs(found(**figures), spec(), (1 / 64, 1 / 64))
    assert sign.name == name and sign.bound and sign.source and sign.measured
    assert all(resolve("moco-v2", preset="digits", sets=[each]) for each in sign.tries)
    assert list(batch_signs(found(), spec(), (1 / 64, 1 / 64))) == []
    assert list(batch_signs(Measured(), spec("mae"), None)) == []  # nothing of it could be measured


def test_late_accuracy_is_that_of_the_last_lines() -> None:
    assert late_accuracy(lines(5)) is None
    late = late_accuracy([*lines(20), *lines(10, lookup_top1=0.1)])
    assert late is not None and late[0] == pytest.approx(0.1) and late[1] == 1 / 64


def test_the_nearest_is_looked_for_in_groups() -> None:
    generator = torch.Generator().manual_seed(0)
    queries, keys = torch.rand(150, 5, generator=generator), torch.rand(150, 5, generator=generator)
    keys[::3] = queries[::3] + 1e-3
    right = total = 0
    for start in range(0, 150, 64):
        for at in range(start, min(start + 64, 150)):
            apart = [float((queries[at] - keys[other]).norm()) for other in range(start, min(start + 64, 150))]
            right += apart.index(min(apart)) == at - start
            total += 1
    assert colours.count_found(queries, keys) == (right, total)
    assert colours.count_found(queries[:5], keys[:5]) == (0, 0)  # too few to tell


def test_a_histogram_counts_the_pixels_of_each_channel() -> None:
    view = torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    low, high = torch.zeros(3), torch.ones(3)
    made = colours.histogram(view, low, high).unflatten(1, (3, 16))
    for image in range(2):
        for channel in range(3):
            naive = torch.histc(view[image, channel], bins=16, min=0, max=1) / 30
            assert torch.allclose(made[image, channel], naive)
    assert torch.allclose(colours.mean_colour(view)[1, 2], view[1, 2].mean())


# Whole runs

CROPS = "method.views.groups.crops.augment"
PLAIN = [f"{CROPS}.jitter=null", f"{CROPS}.gray=null", f"{CROPS}.blur=null"]


@pytest.fixture(scope="module")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty-eight images, each a colour of its own with noise."""
    folder = tmp_path_factory.mktemp("coloured")
    for number in range(48):
        colour = tuple(40 + 60 * (number // 4**channel % 4) for channel in range(3))
        picture = noise((32, 32), 40, number).convert("RGB")
        Image.blend(picture, Image.new("RGB", (32, 32), colour), 0.6).save(folder / f"{number}.png")
    return folder


def train(recipe: str, data: Path | str, out: Path, *sets: str) -> contralex.Run:
    few = ["train.max_steps=4", "train.batch_size=8", "train.log_every=1"]
    return contralex.train(recipe, preset="digits", data=data, sets=[*TINY, *few, *sets], out=out)


@pytest.fixture(scope="module")
def leaky(coloured: Path, tmp_path_factory: pytest.TempPathFactory) -> contralex.Run:
    """Views that keep their colours."""
    out = tmp_path_factory.mktemp("runs") / "leaky"
    return train("moco-v2", coloured, out, "method.negatives.size=8", "train.batch_norm=4", *PLAIN)


def of_batches(run: Any, *expected: str) -> Sign | None:
    """The first of the signs of a run's batches, which are these; the loader of so small a run says nothing."""
    signs = [sign for sign in contralex.doctor(run).signs if sign.name != "loader_too_slow"]
    assert names(signs) == list(expected)
    return signs[0] if signs else None


def test_colours_that_tell_the_sample_are_found(leaky: contralex.Run) -> None:
    sign = of_batches(leaky, "colour_tells", "views_too_weak")
    assert sign is not None and sign.measured["mean_colour"] > 0.9
    assert f"{CROPS}.gray={{p: 0.2}}" in sign.tries
    assert contralex.doctor(leaky, batches=False).signs == []


def test_the_key_encoder_that_stands_still_is_found(leaky: contralex.Run, tmp_path: Path) -> None:
    for momentum, name in ((1.0, "dead_key_encoder"), (0.0, "key_encoder_does_not_lag")):
        fork = leaky.fork(0, sets={"method.key_encoder.momentum": momentum}, out=tmp_path / name, evaluate=False)
        assert name in names(contralex.doctor(fork).signs)


def test_views_that_share_nothing_are_found(leaky: contralex.Run, tmp_path: Path) -> None:
    """Crops of a cell or two of a board of random greys, in a run whose look-up stays at chance."""
    noise = tmp_path / "noise"
    noise.mkdir()
    greys = torch.randint(256, (48, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for number, board in enumerate(greys):
        Image.fromarray(board.numpy()).resize((64, 64), Image.Resampling.NEAREST).save(noise / f"{number}.png")
    small = f"{CROPS}.crop={{size: 8, scale: [0.02, 0.02]}}"
    run = train("simclr-v1", noise, tmp_path / "run", small)
    late = [{**line, "entries": 64, "lookup_top1": 1 / 64} for line in lines(20)]
    (run.folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in late), "utf-8")
    of_batches(run, "views_too_strong")


def test_a_loader_that_is_slow_is_found(leaky: contralex.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ViewDataset.__getitems__

    def slowly(self: ViewDataset, wanted: Any) -> Any:
        time.sleep(0.1)
        return made(self, wanted)

    monkeypatch.setattr(ViewDataset, "__getitems__", slowly)
    (sign,) = (sign for sign in contralex.doctor(leaky).signs if sign.name == "loader_too_slow")
    assert sign.measured["data"] > 0.1 and sign.measured["waiting"] > 0.5
    assert sign.tries[0].startswith("train.workers=")


@pytest.mark.parametrize("recipe", ["moco-v2", "simclr-v1"])
def test_a_sound_run_has_no_sign(recipe: str, tmp_path: Path) -> None:
    sets = {"train.max_steps": 8, "train.log_every": 2, "train.precision": "fp32", "eval.knn": None}
    run = contralex.train(recipe, preset="digits", sets=sets, out=tmp_path / "run")
    diagnosis = contralex.doctor(run)
    # How long data are waited for depends on what else the machine does.
    assert [name for name in names(diagnosis.signs) if name != "loader_too_slow"] == [] and diagnosis.notes == []
    assert diagnosis.measured["samples"] >= 256


@pytest.mark.parametrize(
    ("recipe", "data", "sets", "has_pair"),
    [
        ("clip", "digit_captions", [], False),
        ("cmc", "digits", ["method.negatives.draws=16"], False),
        ("mae", "digits", ["method.encoder.backbone.width=24", "method.encoder.backbone.depth=1"], False),
        ("dino", "digits", [], True),
        ("cpc", "digits", [], False),
    ],
)
def test_figures_that_mean_nothing_are_left_out(
    recipe: str, data: str, sets: list[str], has_pair: bool, tmp_path: Path
) -> None:
    tiny = [*TINY[1:], *sets, "train.max_steps=2"]
    run = contralex.train(recipe, preset="digits", data=data, sets=tiny, out=tmp_path / "run")
    diagnosis = contralex.doctor(run)
    assert diagnosis.notes == []
    assert ("mean_colour" in diagnosis.measured) == has_pair
    assert diagnosis.measured["features"] > 0 and diagnosis.measured["seconds"]["forward"] > 0
    assert not {"dead_key_encoder", "temperature", "colour_tells"} & {*names(diagnosis.signs)}


def test_the_command_says_it_with_settings_and_as_json(leaky: contralex.Run, coloured: Path, tmp_path: Path) -> None:
    def call(*words: str) -> Any:
        return CliRunner().invoke(app, ["doctor", *words], catch_exceptions=False)

    done = call(str(leaky.folder), "--json", f"--data={coloured}")
    printed = json.loads(done.stdout)
    assert done.exit_code == 1
    assert printed["signs"][0]["name"] == "colour_tells" and printed["measured"]["mean_colour"] > 0.9
    assert printed["signs"][0]["tries"] and len(printed["problems"]) == len(printed["signs"])
    assert call(str(leaky.folder), "--no-batches").exit_code == 0
    moved = call(str(leaky.folder), f"--data={tmp_path}")
    assert "Note: No batches were measured: " in moved.stderr
    with pytest.raises(ContralexError, match="data is about a run"):
        contralex.doctor(data=coloured)
