"""A published encoder goes on learning from one's own images: which file, which settings, what is kept and said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import contralex
from contralex.api.adaptation import Adapted, Evaluated, Plan, intervals
from contralex.cli.adapt import adapt as command
from contralex.errors import ContralexError
from contralex.importing import published
from contralex.kinds.datasets.folder import write_tiny_folder
from contralex.plugins.registry import registry
from contralex.recipes.layers import resolve
from tests.official_dinov2 import official_state
from tests.train.tiny_vit import DEPTH, GRID, PATCH, TINY_VIT, WIDTH

pytest.importorskip("timm")

TINY = {**TINY_VIT, "method.encoder.backbone.drop_path": 0}  # its noise is of no seed


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the official layout, which holds a mask token that DINO's recipe has no use for."""
    file = tmp_path_factory.mktemp("weights") / "dinov2_vits14_pretrain.pth"
    torch.save(official_state(WIDTH, DEPTH, PATCH, GRID, dtype=torch.float32), file)
    return file


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_tiny_folder(str(folder), samples=48)
    return folder


@pytest.fixture(scope="module")
def adapted(weights: Path, labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Adapted:
    out = tmp_path_factory.mktemp("out") / "adapted"
    options: dict[str, Any] = {"epochs": 3, "every": 1, "size": GRID * PATCH, "recipe": "dino", "sets": TINY}
    return contralex.adapt("dinov2-vits14", labelled, weights=weights, out=out, **options)


def test_the_untouched_weights_are_those_of_the_file(adapted: Adapted, weights: Path) -> None:
    state = torch.load(weights, weights_only=True)
    backbone = contralex.load_backbone(adapted.folder / "published").state_dict()
    assert torch.equal(backbone["pos_embed"], state["pos_embed"])
    assert torch.equal(backbone["blocks.1.mlp.fc2.weight"], state["blocks.1.mlp.fc2.weight"])
    assert set(state) - set(backbone) == {"mask_token"} and not set(backbone) - set(state)


def test_each_evaluation_stands_beside_that_of_the_untouched_weights(adapted: Adapted) -> None:
    assert [row.epoch for row in adapted.rows] == [0, 1, 2, 3]
    assert adapted.rows[0].checkpoint == "published" and adapted.rows[0].step == 0
    per_epoch = adapted.rows[1].step
    assert per_epoch >= 4 and [row.step for row in adapted.rows] == [per_epoch * epoch for epoch in range(4)]
    for row in adapted.rows:
        figures = row.figures
        assert 0 <= (figures["knn_top1"] or 0) <= 1 and row.test_samples > 0
        assert figures["rankme"] and figures["lidar"] and figures["view_recall"] is not None
    assert adapted.rows[1].figures != adapted.rows[0].figures
    heading, cells = adapted.table()
    assert heading[1] == "kNN top-1" and [row[0] for row in cells] == ["untouched", "epoch 1", "epoch 2", "epoch 3"]


def test_the_best_checkpoint_is_kept_and_named(adapted: Adapted) -> None:
    knn = [row.figures["knn_top1"] or 0 for row in adapted.rows]
    assert adapted.by == "knn_top1" and adapted.best is adapted.rows[knn.index(max(knn))]
    best = adapted.folder / adapted.best.checkpoint
    assert str(best) in str(adapted) and Path(adapted) == best
    assert contralex.load_backbone(best)(torch.rand(2, 3, 20, 20)).shape == (2, WIDTH)
    kept = {path.name for path in (adapted.folder / "adapted" / "checkpoints").iterdir() if path.is_dir()}
    assert kept <= {Path(row.checkpoint).name for row in (adapted.best, adapted.rows[-1])}
    assert kept


def test_the_stem_stays_and_earlier_layers_move_less(adapted: Adapted) -> None:
    before, after = (
        contralex.load_backbone(adapted.folder / name).state_dict()
        for name in ("published", adapted.rows[-1].checkpoint)
    )
    assert torch.equal(before["patch_embed.proj.weight"], after["patch_embed.proj.weight"])
    moved = [
        float((after[name] - before[name]).abs().mean()) for name in (f"blocks.{n}.attn.qkv.weight" for n in (0, 1))
    ]
    assert 0 < moved[0] < moved[1]


def test_what_is_kept_is_json_and_the_end_can_be_resumed(adapted: Adapted) -> None:
    found = json.loads((adapted.folder / "adaptation.json").read_text("utf-8"))
    assert found["decided_by"] == "knn_top1" and found["sentences"] == adapted.sentences()
    assert contralex.adapt(resume=True, out=adapted.folder).rows == adapted.rows
    with pytest.raises(ContralexError, match=r"goes on with the settings of .*or leave --epochs, --set out:\n"):
        contralex.adapt(resume=True, out=adapted.folder, epochs=20, sets=TINY)


def test_the_command_prints_a_table_or_json(adapted: Adapted, capsys: pytest.CaptureFixture[str]) -> None:
    command(resume=True, out=adapted.folder, as_json=True)
    assert json.loads(capsys.readouterr().out) == adapted.to_dict()
    command(resume=True, out=adapted.folder)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("untouched\t") and lines[-len(adapted.sentences()) :] == adapted.sentences()


def test_a_resumed_adaptation_equals_one_that_never_stopped(
    adapted: Adapted, weights: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contralex.api import adapting

    measure, calls = adapting._measure, iter(range(9))

    def interrupt(checkpoint: Path) -> Any:
        if next(calls) == 2:  # after the second epoch is trained, and before it is evaluated
            raise KeyboardInterrupt
        return measure(checkpoint)

    options: dict[str, Any] = {"epochs": 3, "every": 1, "size": GRID * PATCH, "recipe": "dino", "sets": TINY}
    monkeypatch.setattr(adapting, "_measure", interrupt)
    monkeypatch.chdir(labelled.parent)
    with pytest.raises(KeyboardInterrupt):
        contralex.adapt("dinov2-vits14", labelled.name, weights=weights, out=tmp_path / "out", **options)
    monkeypatch.setattr(adapting, "_measure", measure)
    monkeypatch.chdir(tmp_path)
    found = contralex.adapt(resume=True, out="out")
    assert [row.figures for row in found.rows] == [row.figures for row in adapted.rows]
    ended, other = (contralex.load_backbone(each.folder / each.rows[-1].checkpoint) for each in (found, adapted))
    assert all(torch.equal(one, two) for one, two in zip(ended.parameters(), other.parameters(), strict=True))


@pytest.fixture(scope="module")
def flat(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images without labels."""
    folder = tmp_path_factory.mktemp("flat")
    for number, file in enumerate(sorted(labelled.rglob("*.png"))):
        (folder / f"{number}.png").write_bytes(file.read_bytes())
    return folder


@pytest.mark.parametrize(
    ("by", "sets", "sentence"),
    [
        (
            "knn_top1",
            {},
            r"--by knn_top1: kNN needs labelled images .*needs no labels:\n  --by lidar$",
        ),
        ("lidar", {"train.precision": "fp16"}, r"train\.precision is fp16, which needs a GPU.*\n  --set train\.pr"),
        ("lidar", {"train.trackers": ["abacus"]}, r"train\.trackers: Accelerate knows no tracker 'abacus'"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    by: str, sets: dict[str, Any], sentence: str, weights: Path, flat: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"epochs": 1, "size": GRID * PATCH, "recipe": "dino", "sets": TINY | sets, "by": by}
    with pytest.raises(ContralexError, match=sentence):
        contralex.adapt("dinov2-vits14", flat, weights=weights, out=tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


def test_more_neighbours_than_images_are_refused_before_anything_is_written(
    weights: Path, labelled: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"epochs": 1, "size": GRID * PATCH, "sets": TINY | {"eval.knn.k": 4000}}
    with pytest.raises(ContralexError, match=r"eval\.knn\.k is 4000 but .*\n  --set eval\.knn\.k=\d+$"):
        contralex.adapt("dinov2-vits14", labelled, weights=weights, out=tmp_path / "out", recipe="dino", **options)
    assert not list(tmp_path.iterdir())


def test_without_labels_it_decides_by_lidar(weights: Path, flat: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 1, "size": GRID * PATCH, "sets": TINY}
    found = contralex.adapt("dinov2-vits14", flat, weights=weights, out=tmp_path / "out", recipe="dino", **options)
    assert found.by == "lidar" and "knn_top1" not in found.rows[-1].figures
    begun = replace(found, folder=tmp_path / "out", plan=replace(found.plan, by="knn_top1"), rows=[])
    (tmp_path / "out" / "adaptation.json").write_text(json.dumps(begun.to_dict()), "utf-8")
    with pytest.raises(
        ContralexError, match=r"--by knn_top1: these images and this .* no such figure; there .*\n.*--by"
    ):
        contralex.adapt(resume=True, out=tmp_path / "out")
    assert [row.epoch for row in found.rows] == [0, 1]


PLAN = Plan("dinov2-vits14", "dino", "file.pth", "photos", [], 2, 2, None)


def rows(*values: float | None, name: str = "knn_top1", **others: float) -> list[Evaluated]:
    return [
        Evaluated(
            2 * n, 10 * n, "published" if n == 0 else f"adapted/checkpoints/step-{10 * n}", {name: v, **others}, 400
        )
        for n, v in enumerate(values)
    ]


def said(*values: float | None, stopped: bool = False, **others: Any) -> str:
    return " ".join(
        Adapted(Path("out"), replace(PLAN, by=others.pop("by", None)), rows(*values, **others), stopped).sentences()
    )


def test_what_is_said_of_its_end() -> None:
    helped = said(0.5, 0.7, 0.6, 0.65, stopped=True)
    assert "It stopped there, after epoch 6: kNN top-1 has not become better since epoch 2, 2 evaluations." in helped
    assert "Use epoch 2: kNN top-1 50.0% → 70.0%. It is in out/adapted/checkpoints/step-10" in helped
    worse = said(0.7, 0.6, 0.65, stopped=True)
    assert "has not become better since the untouched weights" in worse
    assert "Adapting did not help" in worse and "Use these: out/published" in worse
    assert "may be chance" in said(0.5, 0.52) and "may be chance" not in said(0.5, 0.7)
    assert "was still becoming better at the end, epoch 4" in said(0.5, 0.6, 0.7)
    assert "Use these: out/published" in said(0.5, 0.5)  # of equals, the earlier one
    assert "use fewer directions (RankMe 40 → 10)" in " ".join(
        Adapted(Path("out"), PLAN, [*rows(0.5, rankme=40.0), *rows(0.5, 0.7, rankme=10.0)[1:]]).sentences()
    )
    assert "Use epoch 2: uniformity -1 → -2" in said(-1.0, -2.0, name="uniformity", by="uniformity")
    assert "did not help" in said(None, None)
    assert "Use epoch 2: LiDAR - → 3" in said(None, 3.0, name="lidar", by="lidar")


def test_rankme_decides_where_views_are_no_images() -> None:
    assert Adapted(Path("out"), PLAN, rows(None, 0.3, name="lidar", rankme=5.0)).by == "rankme"
    assert Adapted(Path("out"), PLAN, rows(0.2, 0.3, name="lidar", rankme=5.0)).by == "lidar"


def test_intervals_end_with_the_last_epoch() -> None:
    assert [*intervals(5, 2)] == [2, 4, 5] and [*intervals(4, 2)] == [2, 4] and [*intervals(1, 3)] == [1]


def test_every_published_encoder_fits_the_recipe_that_goes_on_with_it() -> None:
    known = [each for layout in registry().layouts() for each in layout.published]
    assert len({each.name for each in known}) == len(known) >= 17
    for encoder in known:
        assert published.choose(encoder.name).adaptation.recipe == encoder.recipes[0]
        for recipe in encoder.recipes:
            choice = published.choose(encoder.name, recipe)
            settings = [
                f"{path}={json.dumps(v)}"
                for path, v in {**choice.encoder.all_settings(), **choice.adaptation.settings}.items()
            ]
            resolve(choice.adaptation.recipe, sets=settings)
        assert encoder.url.endswith(encoder.file) and encoder.url.startswith("https://")


@pytest.mark.parametrize(
    ("name", "size"), [("dinov2-vits14", (384, 12, 6, 14)), ("dinov2-vitg14-reg", (1536, 40, 24, 14))]
)
def test_sizes_are_dinov2s(name: str, size: tuple[int, ...]) -> None:
    found = published.choose(name).encoder.all_settings()
    assert tuple(found[f"method.encoder.backbone.{key}"] for key in ("width", "depth", "heads", "patch")) == size


MAE = {
    "method.views.patch": 8,
    "method.views.augment.crop.size": 32,
    "method.encoder.decoder": {"width": 16, "depth": 1, "heads": 2},
    **{f"method.encoder.backbone.{key}": value for key, value in {"patch": 8, "image_size": 32, "heads": 2}.items()},
}
MOCO = {
    **{f"method.views.groups.{name}.augment.crop.size": 32 for name in ("crops", "second")},
    **{f"method.encoder.backbone.{key}": value for key, value in {"patch": 8, "image_size": 32, "heads": 2}.items()},
    "method.encoder.projector": [{"width": 8}],
    "method.encoder.predictor": [{"width": 8}],
}


@pytest.mark.parametrize(("name", "sets"), [("mae-vitb16", MAE), ("moco-v3-vits16", MOCO)])
def test_other_methods_go_on_with_their_files(name: str, sets: dict[str, Any], tmp_path: Path, labelled: Path) -> None:
    """MAE publishes its encoder alone; MoCo v3 both encoders and the predictor, with a wrapper's names."""
    from contralex.kinds.backbones.vit import vit_backbone

    backbone = vit_backbone(32, 8, 16, 2, 2, positions="sincos").module.state_dict()
    kept: dict[str, Any] = {"model": backbone}
    if name.startswith("moco"):
        heads = {"head.0.weight": torch.rand(8, 16), "head.0.bias": torch.rand(8)}
        sides = {f"module.{s}_encoder.{n}": t for s in ("base", "momentum") for n, t in {**backbone, **heads}.items()}
        kept = {
            "state_dict": {
                **sides,
                "module.predictor.0.weight": torch.rand(8, 8),
                "module.predictor.0.bias": torch.rand(8),
            }
        }
    torch.save(kept, tmp_path / "published.pth")
    small = {"method.encoder.backbone.width": 16, "method.encoder.backbone.depth": 2, "train.max_steps": 2}
    train = {key: value for key, value in TINY.items() if key.startswith("train.")}
    found = contralex.adapt(
        *(name, labelled), weights=tmp_path / "published.pth", out=tmp_path / "out", epochs=1, sets=sets | small | train
    )
    untouched = contralex.load_backbone(tmp_path / "out" / "published").state_dict()
    assert all(torch.equal(tensor, untouched[key]) for key, tensor in backbone.items())
    assert [row.step for row in found.rows] == [0, 2] and found.by == "knn_top1"
    assert found.rows[0].figures["rankme"] is not None
    assert (found.rows[0].figures["lidar"] is None) == name.startswith("mae")
    if name.startswith("mae"):
        with pytest.raises(ContralexError, match=r"--by lidar: no view of mae is shaped as .*\n  --by rankme$"):
            contralex.adapt(
                name,
                labelled,
                weights=tmp_path / "published.pth",
                out=tmp_path / "other",
                by="lidar",
                sets=sets | small,
            )
        assert not (tmp_path / "other").exists()


def test_timms_file_is_read_by_its_own_names(tmp_path: Path, labelled: Path) -> None:
    import timm

    name = "test_vit"
    model = timm.create_model(name, num_classes=0)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    sets = {key: value for key, value in TINY.items() if ".backbone." not in key} | {"train.max_steps": 1}
    found = contralex.adapt(
        *(f"timm/{name}", labelled), weights=tmp_path / "model.safetensors", out=tmp_path / "out", size=64, sets=sets
    )
    assert len(found.rows) == 2 and found.rows[-1].step == 1
    seen = "Normalize(mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5]"  # as timm has it, and not ImageNet's of the recipe
    assert all(seen in repr(contralex.load_transform(tmp_path / "out" / name)) for name in ("published", "adapted"))
    views = contralex.open(tmp_path / "out" / "adapted").spec["method"]["views"]["groups"]
    assert [group["augment"]["normalize"]["mean"] for group in views.values()] == [[0.5, 0.5, 0.5]] * 3


def test_mistakes_are_said(weights: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ContralexError, match=r"did you mean dinov2-vits14[^?]*\?.*timm/NAME"):
        contralex.adapt("dinov2-vits41", labelled)
    with pytest.raises(
        ContralexError, match=r"Download it from https://dl.fbaipublicfiles.com/\S+, .*--weights:\n +curl -L -O https"
    ):
        contralex.adapt("dinov2-vitb14", labelled)
    with pytest.raises(ContralexError, match=r"nowhere.pth is no file; give the file that is published at https"):
        contralex.adapt("dinov2-vitb14", labelled, weights="nowhere.pth")
    with pytest.raises(ContralexError, match="give the name of a published encoder, and the images with --data"):
        contralex.adapt("dinov2-vitb14")
    with pytest.raises(ContralexError, match="--by knn: there is no such figure; there are knn_top1, lidar"):
        contralex.adapt("dinov2-vitb14", labelled, by="knn")
    with pytest.raises(ContralexError, match=r"--size 96: the crops of mae have one size alone, 224"):
        contralex.adapt("mae-vitb16", labelled, weights=weights, size=96)
    with pytest.raises(ContralexError, match=r"--recipe byol: nothing says how it goes on"):
        contralex.adapt("dino-vits16", labelled, recipe="byol")
    with pytest.raises(ContralexError, match=r"has no tensor that fits dino by any layout .*cls_token"):
        contralex.adapt("dino-vits16", labelled, weights=weights, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()  # nothing is left of what did not fit
    shallow = {**TINY, "method.encoder.backbone.depth": DEPTH - 1}
    with pytest.raises(ContralexError, match=r"does not fit dino by the layout .* Give the file of dinov2-vits14, "):
        contralex.adapt("dinov2-vits14", labelled, weights=weights, recipe="dino", size=GRID * PATCH, sets=shallow)
    name = "vit_tiny_patch16_224"
    where = rf"huggingface.co/timm/{name}\.augreg_in21k_ft_in1k/resolve/main/model\.safetensors"
    with pytest.raises(ContralexError, match=rf"\n  curl -L -o {name}\.safetensors https://{where}$"):
        contralex.adapt(f"timm/{name}", labelled)
    with pytest.raises(ContralexError, match=r"_224.none: Invalid pretrained tag .* Give the name with the tag"):
        contralex.adapt("timm/vit_tiny_patch16_224.none", labelled)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    with pytest.raises(ContralexError, match=r"is there already.*\n.*contralex adapt --resume --out"):
        contralex.adapt("dinov2-vits14", labelled, weights=weights, out=tmp_path / "there")
    with pytest.raises(ContralexError, match=r"--resume: .*adaptation.json cannot be read"):
        contralex.adapt(resume=True, out=tmp_path / "there")


def test_a_download_of_torch_hub_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    encoder = published.choose("dino-vitb8").encoder
    place = Path(torch.hub.get_dir()) / "checkpoints" / encoder.file
    place.parent.mkdir(parents=True)
    place.touch()
    assert published.find_weights(encoder, None) == place
