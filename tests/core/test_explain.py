"""What ``contralex explain`` and ``contralex diff`` say is read from the spec, so it must hold of the run."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from typer.testing import CliRunner

from contralex.cli.app import app
from contralex.explaining import explained
from contralex.explaining.picture import svg
from contralex.explaining.text import text
from contralex.plugin import ContralexError, draw_scattered
from contralex.plugins.registry import registry
from contralex.recipes.diff_summary import story
from contralex.recipes.layers import resolve
from contralex.testing.matching_parts import find_small_preset
from contralex.testing.trials import Trial

SMALL = [name for name in registry().recipes() if find_small_preset(name)]


def test_a_method_as_text() -> None:
    said = text(explained(resolve("moco-v2")))
    assert "negatives    queue                what else is in the dictionary\n             size: 65536" in said
    assert "matches      view 0 looks up view 1" in said
    assert "views ---> momentum ---> keys, for instance ---> what is wanted" in said
    assert "<==> a gradient flows back, ---> none does. The key encoder: follows the encoder." in said


def test_matches_are_told_in_groups() -> None:
    assert explained(resolve("swav")).matches == (
        "view 0 looks up view 1; view 1 looks up view 0; views 2-7 look up views 0-1"
    )
    assert explained(resolve("byol")).matches.endswith(", summed")


@pytest.mark.parametrize("name", sorted(registry().recipes()))
def test_every_picture_is_svg_with_its_five_slots(name: str) -> None:
    method = explained(resolve(name))
    root = ET.fromstring(svg(method))
    words = " ".join(element.text or "" for element in root.iter())
    slots = [slot for slot in method.boxes if slot != "negatives" or method.has_dictionary]
    assert [slot for slot in slots if method.boxes[slot].kind not in words] == []


@pytest.mark.parametrize("name", SMALL)
def test_what_is_said_to_learn_learns(name: str) -> None:
    """The gradients of a real step agree with the picture."""
    preset = find_small_preset(name)
    resolved = resolve(name, preset=preset, sets=["train.batch_size=8", "train.precision=fp32"])
    said = explained(resolved)
    model = Trial(name, resolved.data, whole_recipe=True).build()
    learn = [path.split(".") for path, parameter in model.named_parameters() if parameter.requires_grad]
    trained = {".".join(path[:3]) if path[0] == "look_ups" else path[0] for path in learn}
    further = {
        f"look_ups.{name}.{slot}"
        for name, each in said.look_ups.items()
        for slot, box in each.boxes.items()
        if box.learns
    }
    assert trained == further | {slot for slot, box in said.boxes.items() if box.learns and slot != "views"}
    assert model.key_encoder.gradient == said.keys_learn


def test_a_story_has_one_line_for_each_block() -> None:
    assert story(resolve("moco-v1"), resolve("moco-v2")) == [
        "method.views: order [crop, gray, jitter, flip] → [crop, jitter, gray, blur, flip]; "
        "jitter.hue 0.4 → 0.1; jitter.p 1 → 0.8; blur null → (p=0.5)",
        "method.encoder.projector: [128] → [2048 relu, 128]",
        "method.loss.temperature: 0.07 → 0.2",
        "train.optimizer.lr: steps(start=0.03, at=[120, 160]) → cosine(start=0.03, per=epoch)",
    ]
    assert story(resolve("moco-v1"), resolve("moco-v1")) == []


STEPS = [
    *(("instdisc", "moco-v1"), ("moco-v1", "moco-v2"), ("moco-v2", "moco-v3"), ("invaspread", "simclr-v1")),
    *(("simclr-v1", "simclr-v2"), ("moco-v2", "byol"), ("byol", "simsiam"), ("swav", "dino")),
]


@pytest.mark.parametrize(("before", "after"), STEPS)
def test_each_step_of_the_literature_is_a_handful_of_lines(before: str, after: str) -> None:
    assert 1 <= len(story(resolve(before), resolve(after))) <= 9


def test_views_are_told_by_their_numbers() -> None:
    views, *_ = story(resolve("moco-v2"), resolve("byol"))
    assert "blur.p 0.5 → 1 (view 0)" in views and "blur.p 0.5 → 0.1 (view 1)" in views
    assert "groups" not in views


def test_a_picture_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["explain", "byol", f"--svg={tmp_path}"])
    assert isinstance(done.exception, ContralexError)
    assert str(done.exception).startswith(f"--svg {tmp_path}: the file cannot be written (")


def test_further_look_ups_are_explained_and_drawn() -> None:
    asked = "method.look_ups.regress={negatives: none, targets: key_vector, loss: cosine, matches: every, weight: 0.5}"
    method = explained(resolve("moco-v2", sets=[asked]))
    said = text(method)
    assert "look-up regress of the encoder's image, weight 0.5" in said
    assert said.index("info_nce") < said.index("look-up regress") < said.index("key_vector")
    root = ET.fromstring(svg(method))
    drawn = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"regress", "of image, weight 0.5", "key_vector", "cosine", "queries: image"} <= set(drawn)
    assert "none" not in drawn  # a look-up without a dictionary has no box for one
    plain = ET.fromstring(svg(explained(resolve("moco-v2"))))
    assert int(root.attrib["height"]) > int(plain.attrib["height"])


COMPANY = {
    "ibot": (
        "mask of views 0-1: 10% to 50% of the patches of 16 px are hidden, in blocks; in 50% of the crops; each "
        "draws for itself",
        "queries are made of what a mask leaves of the image; keys of the whole image",
    ),
    "dinov2": (
        "mask of views 0-1: 10% to 50% of the patches of 14 px are hidden, in blocks; in 50% of the crops; a batch "
        "draws together",
        "queries are made of what a mask leaves of the image; keys of the whole image",
    ),
    "ijepa": (
        "blocks of view 0: 4 targets of 15% to 20% of the patches of 16 px; a context of 85% to 100%, without the "
        "targets; a batch draws their sizes, each image their places",
        "queries are made of the context, and where the targets lie; keys of the whole image",
    ),
    "mae": (
        "mask of view 0: 75% of the patches of 16 px are hidden, one by one; in every crop; each draws for itself",
        "queries are made of the patches that are left; keys of the pixels of each patch",
    ),
    "vicregl": ("boxes of views 0-1: where the crop lies in its image, and whether it is mirrored",),
}


@pytest.mark.parametrize("name", COMPANY)
def test_what_views_have_beside_their_pixels_is_said_and_drawn(name: str) -> None:
    method = explained(resolve(name))
    said = " ".join(text(method).split())
    assert all(sentence in said for sentence in COMPANY[name])
    root = ET.fromstring(svg(method))
    words = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
    title = COMPANY[name][0].partition(":")[0]
    assert title in words
    cells = [rect for rect in root.iter("{http://www.w3.org/2000/svg}rect") if rect.attrib["width"] == "9"]
    assert len(cells) == 49
    (matches,) = (each for each in root.iter("{http://www.w3.org/2000/svg}text") if each.attrib["y"] == "404")
    assert (matches.text or "").startswith(method.matches)
    assert max(float(cell.attrib["y"]) for cell in cells) < 390  # above the line of matches


def test_masks_are_said_as_their_fields_have_them() -> None:
    masks = "method.views.masks={patch: 14, shape: random, ratio: [0.3, 0.3], p: 1, smallest: null, groups: [second]}"
    said = " ".join(text(explained(resolve("dinov2", sets=[masks]))).split())
    assert (
        "mask of view 1: 30% of the patches of 14 px are hidden, one by one; in every crop; a batch draws together"
        in said
    )
    assert "mask of" not in text(explained(resolve("moco-v2")))


def test_two_companions_stay_above_the_line_of_matches() -> None:
    located = "method.encoder.outputs.where={reads: coordinates}"
    method = explained(resolve("dinov2", sets=["method.views.boxes=true", located]))
    root = ET.fromstring(svg(method))
    below = {each.text or "": float(each.attrib["y"]) for each in root.iter("{http://www.w3.org/2000/svg}text")}
    assert below["mask of views 0-1"] < below["boxes of views 0-9"] < below["keys of the whole image"]
    assert below["keys of the whole image"] < below[method.matches] - 12


@pytest.mark.parametrize("fraction", [0.3, 0.75])
def test_a_scattered_mask_is_drawn_with_its_fraction(fraction: float) -> None:
    drawn = "".join(draw_scattered(fraction))
    assert len(drawn) == 49 and abs(drawn.count("#") / 49 - fraction) < 0.02
