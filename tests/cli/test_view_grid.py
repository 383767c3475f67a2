"""``contralex views``: the views of every method before training, equal to those of training, and drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

import contralex
from contralex.data.loading import ViewDataset
from contralex.errors import ContralexError
from contralex.recipes.layers import resolve
from contralex.reporting.thumbnails import to_image
from contralex.reporting.view_grid import view_rows
from contralex.training import build
from tests.noise import noise
from tests.pages import parse_page

HOSTILE = '<script>alert("x")<'


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of several sizes, one of which cannot be read; names and classes that are markup."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(8):
        path = folder / (HOSTILE.replace("/", "") if number % 2 else "plain & simple") / f"{number} <b>.png"
        path.parent.mkdir(exist_ok=True)
        if number == 2:
            path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 99)
        else:
            noise((40 + 9 * number, 56), 80, number).convert("RGB").save(path)
    return folder


@pytest.mark.parametrize("recipe", ["moco-v2", "dino", "swav", "pirl", "cmc", "mae", "cpc", "clip"])
def test_views_are_those_that_training_makes(recipe: str) -> None:
    spec = resolve(recipe, preset="digits").run
    split, views = build.read_source(spec.data).train(), spec.method.views.build()
    before = torch.random.get_rng_state()
    grid = view_rows(split, views, spec.train.seed, 2)
    assert torch.equal(torch.random.get_rng_state(), before)
    dataset = ViewDataset(split, views, spec.train.seed, batch=4)
    assert len(grid.columns) == min(views.count, 12)
    for row, index in zip(grid.rows, (0, len(split) // 2), strict=True):
        made = dataset[0, index]["views"]
        for view, cell in enumerate(row.cells):
            shown = views.to_picture(made[view], view, split[index])
            if isinstance(shown, str):
                assert cell.image is None and cell.text == shown
            else:
                assert cell.image is not None
                assert 0 <= float(shown.min()) <= float(shown.max()) <= 1
                assert cell.image.tobytes() == to_image(shown).tobytes()


def test_names_and_steps_say_what_each_view_is() -> None:
    rows = {
        recipe: contralex.views(recipe, preset="digits", samples=1).grid
        for recipe in ("moco-v2", "dino", "cmc", "mae", "cpc", "clip", "pirl")
    }
    assert rows["moco-v2"].columns == ["view 0: crops 1", "view 1: crops 2"]
    assert rows["cmc"].columns == ["view 0: L", "view 1: a, b"]
    assert rows["clip"].columns == ["view 0: image", "view 1: caption"]
    steps = rows["moco-v2"].rows[0].cells[0].steps
    assert steps[0].startswith("crop of ") and steps[0].endswith(", to 32")
    assert "patches are hidden" in rows["mae"].rows[0].cells[0].steps[0]
    assert rows["clip"].rows[0].cells[1].image is None
    assert rows["clip"].rows[0].cells[1].text
    assert any("pieces in random order" in step for cell in rows["pirl"].rows[0].cells for step in cell.steps)


def test_a_folder_is_drawn_and_what_cannot_be_read_is_passed_over(photos: Path, tmp_path: Path) -> None:
    found = contralex.views("moco-v2", preset="photos", data=photos, samples=7)
    names = [row.name for row in found.grid.rows]
    assert len(names) > 3 and not any(name.endswith("2 <b>.png") for name in names)
    assert HOSTILE.replace("/", "") in {name.partition("/")[0] for name in names}
    picture = Image.open(found.save(tmp_path / "views.png"))
    assert picture.width > 3 * 144
    page = (found.save(tmp_path / "views.html")).read_text("utf-8")
    parsed = parse_page(page)
    assert parsed.unclosed == []
    assert [element.attributes for element in parsed.all("script")] == [{}]
    assert len(parsed.all("img")) == 3 * len(found.grid.rows)
    assert all(
        image.attributes["src"].startswith("data:image/") and image.attributes["alt"] for image in parsed.all("img")
    )
    assert HOSTILE not in page
    assert "view 0: " in repr(found)
    assert found._repr_html_().startswith("<div")


def test_the_command_draws_into_a_file(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[..., tuple[int, str, str]]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = call("views", "simclr-v1", "--data", str(photos), "--samples", "2")
    assert (code, out) == (0, "Saved in views.png\n")
    assert Image.open("views.png").format == "PNG"
    code, _, err = call("views", "simclr-v1", "--data", str(photos), "--out", "views.txt")
    assert code == 2 and "must end in .png or .html" in err
    code, _, err = call("views", "simclr-v1", "--data", str(photos), "--out", "nowhere/views.png")
    assert code == 2 and "there is no folder nowhere" in err
    assert {path.name for path in tmp_path.iterdir()} == {"views.png"}


def test_mistakes_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(ContralexError, match="1 to 100 samples"):
        contralex.views("moco-v2", preset="digits", samples=0)
    with pytest.raises(ContralexError, match="no images"):
        contralex.views("moco-v2", data=tmp_path)
