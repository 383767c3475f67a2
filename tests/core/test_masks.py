"""Masks and boxes beside the pixels of a view, and what an encoder makes of them in a run."""

from __future__ import annotations

import json
import math
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from contralex.data.loading import EpochSampler, ViewDataset, collate, unpack
from contralex.errors import ContralexError
from contralex.kinds.views.chance import Chance
from contralex.kinds.views.mask_specs import Masks
from contralex.kinds.views.masks import MaskCompanion, draw_block_mask
from contralex.kinds.views.specs import CropsSpec
from contralex.lookup.view import company_of, pixels_of
from contralex.plugin import View, Views
from contralex.recipes.layers import resolve
from contralex.reporting.view_grid import cover_masked, view_rows
from contralex.training import build
from contralex.training.run import train
from tests.noise import noise
from tests.train.tiny import TINY

CROPS = {"order": ("crop", "flip"), "crop": {"size": 32, "scale": (0.3, 1.0)}, "flip": {"p": 0.5}}
LOCALS = {"count": 2, "key": False, "like": "crops", "crop": {"size": 16, "scale": (0.1, 0.3)}}


def crops(**fields: Any) -> CropsSpec:
    return CropsSpec.model_validate({"groups": {"crops": {"count": 2, "augment": CROPS}, "locals": LOCALS}, **fields})


def naive_block_mask(rows: int, columns: int, wanted: int, smallest: int) -> np.ndarray:
    """The BEiT sampler as its authors tell it, with single calls of torch's generator."""

    def uniform(low: float, high: float) -> float:
        low, width = np.float32(low), np.float32(high) - np.float32(low)
        return float(np.float32(float(torch.rand(1)) * float(width) + float(low)))

    mask = np.zeros((rows, columns), dtype=bool)
    while mask.sum() < wanted:
        grown = False
        for _ in range(10):
            missing = wanted - int(mask.sum())
            area, aspect = uniform(smallest, missing), math.exp(uniform(math.log(0.3), math.log(1 / 0.3)))
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if height < rows and width < columns:
                top, left = (int(torch.randint(side, ())) for side in (rows - height + 1, columns - width + 1))
                new = height * width - int(mask[top : top + height, left : left + width].sum())
                if 0 < new <= missing:
                    mask[top : top + height, left : left + width] = grown = True
                    break
        if not grown:
            break
    return mask


@pytest.mark.parametrize(("rows", "columns", "smallest"), [(14, 14, None), (16, 16, 4), (8, 12, None), (2, 2, 1)])
def test_a_block_mask_is_that_of_the_naive_sampler(rows: int, columns: int, smallest: int | None) -> None:
    floor = (min(rows, columns) // 3) ** 2 if smallest is None else smallest
    reached = []
    for seed in range(25):
        wanted = seed * rows * columns // 40
        torch.manual_seed(seed)
        with Chance() as chance:
            mask = draw_block_mask(chance, rows, columns, wanted, smallest)
        torch.manual_seed(seed)
        assert np.array_equal(mask.view(rows, columns).numpy(), naive_block_mask(rows, columns, wanted, floor))
        assert int(mask.sum()) <= wanted
        reached.append((int(mask.sum()), wanted))
    assert sum(count for count, _ in reached) > 0.8 * sum(wanted for _, wanted in reached) or rows == 2


def test_a_random_mask_has_as_many_patches_as_are_wanted() -> None:
    views = crops(masks={"shape": "random", "patch": 4, "ratio": (0.25, 0.25), "p": 1}).build()
    masks = [views.make(Image.new("RGB", (40, 40)), 0).mask for _ in range(20)]
    assert {int(mask.sum()) for mask in masks} == {16} and len({tuple(mask.tolist()) for mask in masks}) == 20


def test_each_crop_draws_for_itself_whether_it_is_masked() -> None:
    views = crops(masks={"patch": 4, "ratio": (0.2, 0.6), "p": 0.5}).build()
    image = Image.new("RGB", (40, 40))
    torch.manual_seed(0)
    counts = [int(views.make(image, view).mask.sum()) for view in (0, 1) for _ in range(100)]
    assert 70 < sum(count == 0 for count in counts) < 130
    assert max(counts) <= 0.6 * 64 and len(set(counts)) > 10


def test_views_that_are_no_keys_are_tensors() -> None:
    views = crops(masks={"patch": 4}).build()
    assert isinstance(views.make(Image.new("RGB", (40, 40)), 2), torch.Tensor)
    named = crops(masks={"patch": 4, "groups": ["locals"]}).build()
    assert isinstance(named.make(Image.new("RGB", (40, 40)), 0), torch.Tensor)
    assert named.make(Image.new("RGB", (40, 40)), 2).mask.shape == (16,)


def test_a_batch_masks_exactly_a_fraction_of_its_crops_with_a_ratio_from_each_part() -> None:
    companion = MaskCompanion(Masks(patch=4, drawn="batch", ratio=(0.1, 0.5), p=0.5), {0: (8, 8), 1: (8, 8)})
    shares = companion.draw_for_batch(10, torch.Generator().manual_seed(1))
    ratios = sorted(ratio for share in shares for ratio in share)
    assert ratios[:10] == [0.0] * 10
    for number, ratio in enumerate(ratios[10:]):
        assert 0.1 + 0.04 * number <= ratio <= 0.1 + 0.04 * (number + 1) + 1e-6
    assert len({tuple(ratio > 0 for ratio in share) for share in shares}) > 2  # shuffled over both views


def test_a_ratio_that_rounds_up_masks_no_more_than_it_says() -> None:
    for number in range(1, 100):
        ratio = number / 100
        companion = MaskCompanion(
            Masks(patch=4, shape="random", drawn="batch", ratio=(ratio, ratio), p=1), {0: (10, 10)}
        )
        (share,) = companion.draw_for_batch(1, torch.Generator())
        drawn = companion.draw(None, 0, None, share)
        assert int(drawn["mask"].sum()) <= int(ratio * 10 * 10) == len(drawn["masked"])


class Photos:
    """Noise, as a split has it."""

    labels = classes = None

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Image.Image:
        rng = np.random.default_rng(index)
        return Image.fromarray(rng.integers(0, 256, (40, 36, 3), dtype=np.uint8))


def batches(views: Views, world: int = 1, packed: bool = True) -> list[dict[int, dict[int, Any]]]:
    found: list[dict[int, dict[int, Any]]] = []
    for rank in range(world):
        data = ViewDataset(Photos(), views, 5, 6, packed=packed)  # type: ignore[arg-type]
        sampler = EpochSampler(12, 6, 5, 1, rank, world, places=views.shares_draws)
        for number, wanted in enumerate(sampler):
            batch = collate(data.__getitems__(wanted))
            made = unpack(batch, views) if packed else batch
            if number == len(found):
                found.append({})
            for row, index in enumerate(batch["index"].tolist()):
                found[number][index] = {view: each[row] for view, each in made["views"].items()}
    return found


def test_a_batch_of_two_processes_is_masked_as_one() -> None:
    spec = crops(masks={"patch": 4, "drawn": "batch"})
    one, two = batches(spec.build()), batches(spec.build(), world=2)
    for mine, theirs in zip(one, two, strict=True):
        masks = [mine[index][view].mask for index in mine for view in (0, 1)]
        assert sum(bool(mask.any()) for mask in masks) == 6
        for index, made in mine.items():
            assert all(torch.equal(made[view].mask, theirs[index][view].mask) for view in (0, 1))


def test_pixels_are_what_they_are_without_company_packed_or_not() -> None:
    plain = batches(crops().build())
    for fields in ({"masks": {"patch": 4}}, {"masks": {"patch": 4, "drawn": "batch"}, "boxes": True}, {"boxes": True}):
        for packed in (True, False):
            for with_company, without in zip(batches(crops(**fields).build(), packed=packed), plain, strict=True):
                for index, made in with_company.items():
                    for view in range(4):
                        assert torch.equal(pixels_of(made[view]), without[index][view])


@pytest.mark.parametrize("order", [("crop", "flip"), ("flip", "crop")])
def test_boxes_say_where_a_crop_lies(order: tuple[str, ...]) -> None:
    across, down = np.meshgrid(np.arange(60), np.arange(50))
    image = Image.fromarray(np.stack([across * 4, down * 5, across * 0], 2).astype(np.uint8))
    spec = crops(boxes=True)
    augment = {**CROPS, "order": order, "crop": {"size": 16, "scale": (0.1, 0.5)}}
    views = CropsSpec.model_validate({"groups": {"all": {"augment": augment}}, "boxes": True}).build()
    assert spec.offers() == {"images", "boxes"}
    seen = set()
    for seed in range(12):
        torch.manual_seed(seed)
        view = views.make(image, 0)
        top, left, height, width = view.boxes.tolist()
        red, green = view.pixels[0] * 255 / 4, view.pixels[1] * 255 / 5
        assert float(red.mean()) == pytest.approx(left + (width - 1) / 2, abs=0.5)
        assert float(green.mean()) == pytest.approx(top + (height - 1) / 2, abs=0.5)
        assert bool(view.flipped) == bool(red[:, 0].mean() > red[:, -1].mean())
        seen.add(bool(view.flipped))
    assert seen == {True, False}


def test_specs_without_company_are_written_as_before() -> None:
    assert set(crops().model_dump(mode="json")) == {"kind", "groups"}
    assert "masks" in crops(masks={"patch": 4}).model_dump(mode="json")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["method.views.masks={patch: 7}"], "masks.patch is 7, and the crops of crops have 32 pixels"),
        (["method.views.masks={patch: 32}"], "take a divisor of 32 that is smaller"),
        (["method.views.masks={patch: 8, groups: [globals]}"], "masks.groups names globals, and the groups are crops"),
        (
            ["method.views.masks={patch: 8, ratio: [0.5, 0.1]}"],
            "two numbers, the smaller first, and here they are 0.5 and 0.1",
        ),
        (["method.views.masks={patch: 8, shape: random, smallest: 4}"], "smallest is for blocks"),
        (["method.views.masks={patch: 8}"], "needs a use for masks from method.encoder"),
        (["method.views.boxes=true"], "needs a use for boxes from method.encoder"),
        (["method.views.boxes=true", "method.views.engine=torchvision"], "does not say where a crop lies"),
    ],
)
def test_what_cannot_be_masked_or_used_is_refused(settings: list[str], sentence: str) -> None:
    with pytest.raises(ContralexError) as error:
        resolve("moco-v2", preset="digits", sets=settings)
    assert sentence in str(error.value)


CODE = """
from collections.abc import Mapping
from typing import Any, Literal

import torch

from contralex.plugin import Encoder, Spec, View, hookimpl, pixels_of


class PatchMeans(Encoder):
    takes_company = True
    seen = []

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.layer = torch.nn.Linear(3 * 16, dim)
        self.token = torch.nn.Parameter(torch.zeros(3))

    def forward(self, views: Mapping[int, Any]) -> dict[int, torch.Tensor]:
        return {view: self.embed(each) for view, each in views.items()}

    def embed(self, view):
        PatchMeans.seen.append(type(view).__name__)
        patches = pixels_of(view).unflatten(2, (4, 8)).unflatten(4, (4, 8)).mean((3, 5)).flatten(2).mT  # (B, 16, 3)
        if isinstance(view, View):
            patches = torch.where(view.mask[..., None], self.token, patches)
        return torch.nn.functional.normalize(self.layer(patches.flatten(1)), dim=1)

    def features(self, view: torch.Tensor) -> torch.Tensor:
        return self.embed(view)


class PatchMeansSpec(Spec):
    kind: Literal["patch_means"] = "patch_means"
    builds = ":PatchMeans"
    dim: int = 8
    needs = {"views": frozenset({"masks"})}
    gives = frozenset({"a use for masks", "one query a view", "unit length"})
    source = "none"


@hookimpl
def contralex_encoders():
    return [PatchMeansSpec]
"""


@pytest.fixture(scope="module")
def masked_recipe(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("masked")
    (folder / "patch_means.py").write_text(textwrap.dedent(CODE))
    (folder / "masked.yaml").write_text(
        "schema: 1\nextends: simclr-v1\nname: masked\ncode: ./patch_means.py\n"
        "method:\n  encoder: {kind: patch_means}\n  views: {masks: {patch: 8, drawn: batch}}\n"
    )
    return str(folder / "masked.yaml")


def test_a_run_masks_what_its_encoder_sees(masked_recipe: str, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(24):
        noise((32, 32), 80, number).convert("RGB").save(photos / f"{number}.png")
    tiny = [setting for setting in TINY if "backbone" not in setting]
    losses = {}
    runs = {
        "whole": [],
        "parts": ["train.micro_batch=2"],
        "workers": ["train.workers=2"],
        "two": ["train.accumulate=2"],
    }
    for name, more in runs.items():
        # A preset's encoder has fields that this one has not, so the small numbers are given one by one.
        sets = [*tiny, "method.views.groups.crops.augment.crop.size=32", "train.optimizer={kind: sgd, lr: 0.1}", *more]
        resolved = resolve(masked_recipe, data=str(photos), sets=sets, allow_code=True)
        train(resolved, tmp_path / name)
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        losses[name] = [line["loss"] for line in lines if "loss" in line]
    assert losses["whole"] == losses["workers"]
    assert all(math.isfinite(loss) for loss in losses["whole"] + losses["two"])
    assert losses["parts"] == pytest.approx(losses["whole"], rel=1e-4)
    trained = build.load_encoder(tmp_path / "whole", allow_code=True)
    assert type(trained).seen.count("View") > 0 and bool(trained.token.any())  # the token was used, and learnt

    spec = resolved.run
    split, views = build.read_source(spec.data).train(), spec.method.views.build()
    grid = view_rows(split, views, spec.train.seed, 2, batch=spec.train.batch_size)
    data = ViewDataset(split, views, spec.train.seed, spec.train.batch_size)
    for row, index in zip(grid.rows, (0, 12), strict=True):
        for view, cell in enumerate(row.cells):
            mask = data[0, index]["views"][view].mask
            assert f"mask: {int(mask.sum())} of 16" in cell.steps


def test_a_masked_patch_is_covered_in_a_picture() -> None:
    picture, mask = torch.rand(3, 8, 16), torch.zeros(8, dtype=torch.bool)
    mask[5] = True  # row 1, column 1 of two rows of four
    covered = cover_masked(picture, mask)
    changed = (covered != picture).any(0)
    assert bool(changed[4:, 4:8].all()) and int(changed.sum()) == 16
    assert (covered[:, 4:, 4:8] - 0.5).abs().max() < 0.1
    assert torch.equal(cover_masked(picture, torch.ones(7, dtype=torch.bool)), picture)  # of another shape


def test_views_in_company_keep_what_else_views_are() -> None:
    bare, masked = crops().build(), crops(masks={"patch": 4}, boxes=True).build()
    image = Photos()[0]
    assert masked.count == bare.count and list(masked.names) == list(bare.names)
    assert torch.equal(masked.plain(image), bare.plain(image)) and masked.plain_steps() == bare.plain_steps()
    assert masked.preprocessing() == bare.preprocessing()
    view = masked.make(image, 0)
    assert isinstance(view, View) and set(company_of(view)) == {"mask", "masked", "boxes", "flipped"}
    torch.manual_seed(1)
    drawn = masked.draw_parameters(image, 0)
    torch.manual_seed(1)
    assert list(masked.describe_drawn(drawn, 0)) == list(bare.describe_drawn(bare.draw_parameters(image, 0), 0))
