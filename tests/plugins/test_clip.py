"""CLIP's parts: tokens, towers, losses, data of images and captions, and zero-shot classification."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2
from typer.testing import CliRunner

from contralex.cli.app import app
from contralex.plugin import (
    ContralexError,
    Dictionary,
    DigitsSource,
    Encoder,
    EvalContext,
    Rows,
    Source,
    Split,
    Targets,
    Unreadable,
)
from contralex.recipes.layers import resolve
from contralex.training import build, optimizers
from contralex.training.run import train
from contralex_clip import captions, tokens, zero_shot
from contralex_clip.data_spec import DigitCaptionsSpec, ImageCaptionsSpec, WebDatasetSpec
from contralex_clip.encoders import TextEncoder
from contralex_clip.losses import ClipLoss, ScaledLoss, SigmoidLoss
from contralex_clip.spec import ImageTextSpec, TextEncoderSpec
from contralex_clip.tokens import ByteTokenizer, Tokens
from contralex_clip.views import ImageTextViews
from tests.noise import noise
from tests.parity.test_clip import SETS, SHARED, SMALL
from tests.parity.test_methods import step

# Tokens


def test_bytes_stand_between_their_ends() -> None:
    row = Tokens(ByteTokenizer(), 8)("Añ\n b")
    assert row.tolist() == [256, 97, 195, 177, 32, 98, 257, 0]
    assert row.dtype == torch.long


def test_a_long_caption_is_cut_and_keeps_its_end_and_an_empty_one_has_its_ends() -> None:
    make = Tokens(ByteTokenizer(), 5)
    assert make("abcdef").tolist() == [256, 97, 98, 99, 257]
    assert make("abc").tolist() == [256, 97, 98, 99, 257]
    assert make(" ").tolist() == [256, 257, 0, 0, 0]


def test_without_open_clip_the_bpe_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens._bpe.cache_clear()
    monkeypatch.setitem(sys.modules, "open_clip.tokenizer", None)
    with pytest.raises(ContralexError, match=r"pip install 'contralex-clip\[bpe\]', or use the tokenizer bytes\.$"):
        resolve("clip").run.method.views.build()


# Towers


def text_tower(**changes: Any) -> Encoder:
    torch.manual_seed(0)
    return TextEncoder(**{**TextEncoderSpec.example, **changes})


def test_what_follows_the_end_of_a_caption_changes_nothing() -> None:
    tower, row = text_tower(layers=2), Tokens(ByteTokenizer(), 40)("a caption")
    after = row.clone()
    after[int(row.argmax()) + 1 :] = 7
    assert torch.equal(tower.features(row[None]), tower.features(after[None]))
    before = row.clone()
    before[2] = 7
    assert not torch.allclose(tower.features(row[None]), tower.features(before[None]))
    seen = text_tower(layers=2, causal=False)
    assert not torch.allclose(seen.features(row[None]), seen.features(after[None]))


def test_a_shared_transformer_is_one_for_both() -> None:
    model = build.look_up(resolve("clip-shared", preset="digits", sets=[*SETS, *SHARED]).run, 40)
    both = {0: torch.rand(2, 3, 32, 32), 1: torch.randint(1, 250, (2, 32))}
    moved = []
    for view in both:
        model.zero_grad()
        model.encoder({view: both[view]})[view].sum().backward()
        moved.append({name for name, p in model.encoder.named_parameters() if p.grad is not None and p.grad.any()})
    common = moved[0] & moved[1]
    assert {name.split(".")[0] for name in common} == {"transformer", "norm", "projection"}
    assert {name.split(".")[0] for name in moved[0] ^ moved[1]} == {"image_stem", "text_stem"}
    assert {name for name, _ in model.encoder.named_parameters()} == moved[0] | moved[1]


# Losses


def asked(count: int, dim: int = 6) -> tuple[Rows, Tensor]:
    torch.manual_seed(1)
    queries = F.normalize(torch.randn(count, dim), dim=1).requires_grad_()
    zero = torch.zeros(count, dtype=torch.long)
    return Rows(queries, torch.arange(count), zero, zero), F.normalize(torch.randn(count + 2, dim), dim=1)


@pytest.mark.parametrize("part", [ClipLoss, SigmoidLoss])
def test_an_entry_that_may_not_be_found_counts_for_nothing(part: type[ScaledLoss]) -> None:
    loss: Any = part()
    queries, entries = asked(3)
    index = torch.arange(3)
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[:, 4] = False
    found = loss(queries, Dictionary(shared=entries, mask=mask), Targets(index=index), step())
    found.backward()
    mine = [p.grad.clone() for p in (queries.vectors, *loss.parameters())]
    queries.vectors.grad = None
    loss.zero_grad()
    without = loss(queries, Dictionary(shared=entries[:4]), Targets(index=index), step())
    without.backward()
    torch.testing.assert_close(found, without)
    for one, other in zip(mine, (queries.vectors, *loss.parameters()), strict=True):
        assert one.isfinite().all()
        torch.testing.assert_close(one, other.grad)


@pytest.mark.parametrize(("t", "scale"), [(10.0, 100.0), (-3.0, 1.0), (2.0, math.exp(2))])
def test_the_scale_stays_between_1_and_100_and_can_come_back(t: float, scale: float) -> None:
    loss: Any = ClipLoss()
    with torch.no_grad():
        loss.log_scale.fill_(t)
    queries, entries = asked(3)
    index = torch.arange(3)
    found = loss(queries, Dictionary(shared=entries), Targets(index=index), step())
    found.backward()
    torch.testing.assert_close(found, F.cross_entropy(scale * queries.vectors @ entries.T, index))
    assert float(loss.log_scale.detach()) == pytest.approx(math.log(scale))
    assert loss.log_scale.grad.abs() > 0


def test_siglip_divides_by_the_batch_and_not_by_the_pairs() -> None:
    loss = SigmoidLoss(bias=0, scale=1)
    queries, _ = asked(4)
    nothing = torch.zeros(8, 6)  # every logit is 0, and so every pair costs log 2
    found = loss(queries, Dictionary(shared=nothing), Targets(index=torch.arange(4)), step())
    assert float(found.detach()) == pytest.approx(8 * math.log(2))


@pytest.mark.parametrize("recipe", ["clip", "siglip", "clip-shared"])
def test_what_is_learned_beside_the_weights_has_no_decay(recipe: str) -> None:
    spec = resolve(recipe, preset="digits", sets=[*SETS, *(SHARED if "shared" in recipe else SMALL)]).run
    model = build.look_up(spec, 40)
    groups = optimizers.build(spec.train.optimizer, model).param_groups
    plain = {id(p) for group in groups if group["spec"] is not None for p in group["params"]}
    assert {id(p) for p in model.loss.parameters()} <= plain
    names = {name for name, p in model.named_parameters() if id(p) in plain}
    assert not any(name.endswith(("tokens.weight", "qkv.weight", "projection.weight")) for name in names)


# Views


VIEWS = {
    "augment": {"order": ("crop",), "crop": {"size": 8, "scale": (1, 1), "ratio": (1, 1)}},
    "tokenizer": {"kind": "bytes"},
}


def test_the_only_chance_is_where_the_square_lies() -> None:
    views = ImageTextSpec(**VIEWS).build()
    wide = Image.new("RGB", (24, 8))
    wide.putdata([(10 * (place % 24), 0, 0) for place in range(24 * 8)])
    wide = captions.set_caption(wide, "wide")
    starts = set()
    for seed in range(40):
        torch.manual_seed(seed)
        made = views.make(wide, 0)
        assert made.shape == (3, 8, 8)
        row = (made[0, 0] * 255 / 10).round()
        assert torch.equal(row, row[0] + torch.arange(8))  # the whole height, and 8 columns one after the other
        starts.add(int(row[0]))
    assert {0, 16} & starts and starts <= set(range(17)) and len(starts) > 8
    assert (views.plain(wide)[0, 0] * 255 / 10).round().tolist() == list(range(8, 16))  # the middle
    assert views.make(wide, 1).tolist()[:6] == [256, *b"wide", 257]


def test_siglip_squeezes_the_whole_image_into_a_square() -> None:
    short = ["method.views.tokenizer={kind: bytes}", "method.encoder.towers.text.vocab=258"]
    views: Any = resolve("siglip", sets=short).run.method.views.build()
    wide = noise((300, 180), 60).convert("RGB")
    squeezed = wide.resize((224, 224), Image.Resampling.BICUBIC)
    wanted = (v2.functional.to_dtype(v2.functional.pil_to_tensor(squeezed), torch.float32, scale=True) - 0.5) / 0.5
    torch.testing.assert_close(views.plain(wide), wanted)
    torch.testing.assert_close(views.make(captions.set_caption(wide, "noise"), 0), wanted)


# What fits


def test_captions_that_are_not_there_are_refused(tmp_path: Path) -> None:
    ImageCaptionsSpec.tiny(str(tmp_path))
    with pytest.raises(ContralexError) as refusal:
        resolve("clip", preset="digits", sets=[f"data={{kind: image_folder, root: {tmp_path}}}"])
    said = str(refusal.value)
    assert "method.views (image_text) needs captions from data (image_folder gives images and labels)" in said
    assert "data of kind digit_captions, image_captions or webdataset" in said


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("method.views.context=20", "captions of 20 ids .*use method.views of kind image_text with other values"),
        ("method.views.tokenizer={kind: clip_bpe}", "captions of 32 ids out of 49408"),
        ("method.encoder={kind: image, backbone: {kind: conv}}", "needs an encoder a view or images and tokens"),
        ("method.encoder.towers.text.normalize=false", "needs unit length from method.encoder"),
        ("method.encoder.towers.text.heads=5", "5 heads cannot share evenly"),
        ("method.loss.temperature=0.001", "above max_scale 100"),
    ],
)
def test_what_cannot_work_is_refused(change: str, sentence: str) -> None:
    with pytest.raises(ContralexError, match=sentence):
        resolve("clip", preset="digits", sets=[change])


def test_a_shared_transformer_takes_images_of_its_size() -> None:
    with pytest.raises(ContralexError, match="images of 64x64 or the same image size"):
        resolve("clip-shared", preset="digits", sets=["method.encoder.image_size=64"])


def test_captioned_images_train_a_method_of_images(tmp_path: Path) -> None:
    ImageCaptionsSpec.tiny(str(tmp_path))
    spec = resolve(
        "simclr-v1", preset="digits", sets=[f"data={{kind: image_captions, root: {tmp_path}}}", "train.batch_size=8"]
    ).run
    assert spec.method.views.build().make(spec.data.build().train()[0], 0).shape[0] == 3


# Data


def test_a_folder_with_captions_beside_the_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = ImageCaptionsSpec.tiny(str(tmp_path)).build()
    train, test = source.train(), source.test()
    assert test is not None and len(train) + len(test) == 30
    assert train.classes == ["class-0", "class-1", "class-2"]
    for index in (0, len(train) - 1):
        caption = train[index].info["caption"]
        number = int(caption.split()[2])
        assert caption == f"noise number {number} of class-{number % 3}"
        assert train.labels[index] == number % 3

    (tmp_path / "class-0" / "0.txt").unlink()
    (tmp_path / "class-1" / "1.txt").write_bytes(b"\xff\xfe\xff")
    (tmp_path / "class-2" / "2.png").write_bytes(b"no image")
    again = ImageCaptionsSpec(root=str(tmp_path), held_out=0).build().train()
    assert len(again) == 28 and again.labels.count(0) == 9
    assert "0.png is skipped: there is no 0.txt beside it." in caplog.text
    assert "2.png is skipped: it is no image" in caplog.text
    with pytest.raises(Unreadable) as broken:
        [again[index] for index in range(28)]
    assert broken.value.path.endswith("1.txt")


def test_a_folder_without_captions_is_refused(tmp_path: Path) -> None:
    ImageCaptionsSpec.tiny(str(tmp_path))
    for path in tmp_path.rglob("*.txt"):
        path.unlink()
    with pytest.raises(ContralexError, match=r"none has a caption; put the caption of 0\.png beside it, as 0\.txt\.$"):
        ImageCaptionsSpec(root=str(tmp_path)).build()


ROWS = [("a/0.png", "the first", "x"), ("1.png", "", "y"), ("2.png", 'one, "two"\nthree', ""), ("gone.png", "no", "x")]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "a").mkdir()
    for name, *_ in ROWS[:3]:
        Image.new("RGB", (9, 9), (len(name), 0, 0)).save(tmp_path / name)
    for path, delimiter in ((tmp_path / "t.csv", ","), (tmp_path / "t.tsv", "\t")):
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter=delimiter).writerows([("image", "caption", "class"), *ROWS])
    lines = [json.dumps(dict(zip(("image", "caption", "class"), row, strict=True))) for row in ROWS]
    (tmp_path / "t.jsonl").write_text("\n\n".join(lines), "utf-8")
    return tmp_path


@pytest.mark.parametrize("end", ["csv", "tsv", "jsonl"])
def test_a_table(table: Path, end: str, caplog: pytest.LogCaptureFixture) -> None:
    path = str(table / f"t.{end}")
    source = ImageCaptionsSpec(root=path, test=path, label="class").build()
    for split in (source.train(), source.test()):
        assert split is not None
        assert [split[index].info["caption"] for index in range(len(split))] == [row[1] for row in ROWS[:3]]
        assert split[0].getpixel((0, 0)) == (7, 0, 0)
        assert split.labels == [0, 1, -1] and split.classes == ["x", "y"]
    assert "gone.png is skipped: there is no such file" in caplog.text
    assert ImageCaptionsSpec(root=path).build().test() is None
    assert "labels" not in ImageCaptionsSpec(root=path).offers()
    assert "labels" in ImageCaptionsSpec(root=path, label="class").offers()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"caption": "text"},
            "data.caption is text, and line 1 of .*t.csv has no such column; it has image, caption, cl",
        ),
        ({"root": "none.csv"}, "data.root .*none.csv does not exist"),
        ({"root": "empty.csv"}, "has no lines"),
        ({"root": "odd.jsonl"}, "odd.jsonl cannot be read: line 1 is no object"),
        ({"root": "bad.jsonl"}, "bad.jsonl cannot be read: line 1 is no JSON: Expecting"),
        ({"test": "strange.csv", "label": "class"}, "has the label z, and the lines to train on have no such label"),
        ({"root": "gone.csv"}, "none that can be used; .*gone.png: there is no such file"),
        ({"root": "ragged.csv"}, "none that can be used; line 2: it has 1 cell, and the first line has 2"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(table: Path, changes: dict[str, str], sentence: str) -> None:
    (table / "empty.csv").write_text("image,caption\n")
    (table / "odd.jsonl").write_text("[1]\n")
    (table / "bad.jsonl").write_text("{\n")
    (table / "strange.csv").write_text("image,caption,class\n1.png,c,z\n")
    (table / "gone.csv").write_text("image,caption\ngone.png,c\n")
    (table / "ragged.csv").write_text("image,caption\n1.png\n")
    places = {key: str(table / value) for key, value in changes.items() if key in ("root", "test")}
    with pytest.raises(ContralexError, match=sentence):
        ImageCaptionsSpec(**{"root": str(table / "t.csv"), **changes, **places}).build()


@pytest.mark.parametrize("end", ["csv", "tsv", "txt"])
@pytest.mark.parametrize("separator", [",", "\t", ";", "|"])
def test_the_separator_is_recognised(table: Path, end: str, separator: str, caplog: pytest.LogCaptureFixture) -> None:
    lines = [("image", " caption"), ("1.png", "one, two"), ("1.png", "a; b | c"), ("1.png", '"quoted"')]
    path = table / f"s.{end}"
    with path.open("w", newline="", encoding="utf-8-sig") as file:  # with the mark that Excel puts first
        csv.writer(file, delimiter=separator).writerows(lines)
    assert ImageCaptionsSpec(root=str(path)).build().train().captions == [caption for _, caption in lines[1:]]
    assert not caplog.text


def test_a_line_with_another_number_of_cells_is_named_and_left_out(
    table: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = 'image,caption\n1.png,"a photo, of a cat"\n1.png,a photo, of a dog\n\n1.png\n1.png,\n,alone\n1.png,end\n'
    (table / "c.csv").write_text(text)
    split = ImageCaptionsSpec(root=str(table / "c.csv")).build().train()
    assert split.captions == ["a photo, of a cat", "", "end"]
    end = ", and the first line has 2; a text with a comma in it stands in double quotes."
    assert caplog.messages == [
        f"{table}/c.csv, line 3 is skipped: it has 3 cells{end}",
        f"{table}/c.csv, line 5 is skipped: it has 1 cell{end}",
        f"{table}/c.csv, line 7 is skipped: it names no image.",
    ]
    assert len(split.skipped) == 3


def test_a_quote_that_is_not_closed_swallows_no_lines(table: Path, caplog: pytest.LogCaptureFixture) -> None:
    (table / "q.csv").write_text('image,caption\n1.png,"open\n1.png,b\n1.png,c\n1.png,"closed"\n1.png,"two\nlines"\n')
    split = ImageCaptionsSpec(root=str(table / "q.csv")).build().train()
    assert split.captions[-1] == "two\nlines" and not any("1.png" in caption for caption in split.captions)
    assert "q.csv, line 2 is skipped: " in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("h.csv", b"1.png,a cat\n1.png,a dog\n", r"1\.png,a cat, which does not name columns; .*: image,caption$"),
        ("h.tsv", b"1.png\ta cat\n", "does not name columns; put a first line into it that does: image<tab>caption$"),
        ("latin.csv", "image,caption\n1.png,caf\u00e9\n".encode("latin-1"), "Line 2 of .* is not UTF-8; save"),
        ("wide.csv", "image,caption\n1.png,a\n".encode("utf-16"), "zero bytes; save it as text in UTF-8"),
        ("twice.csv", b"image,caption,caption\n1.png,a,b\n", "more than one column caption"),
        ("deep.jsonl", b"[" * 100_000, "deep.jsonl cannot be read: line 1 is nested too deeply"),
        ("list.jsonl", b'{"image": "1.png", "caption": ["a", "b"]}', "line 1, .*: it holds lists or objects"),
        ("null.jsonl", b'{"image": "1.png", "caption": null}', "line 1, .*: it has no caption"),
        ("long.csv", b"image,caption\n" + b"x" * 3000 + b".png,a\n", "there is no such file"),
        ("blank.csv", b"", "has no lines"),
        ("test.csv", b"image,caption,split\n1.png,a,test\n", r"has the splits test, .*\n  --set data\.split=null"),
    ],
)  # fmt: skip
def test_hostile_tables_are_sentences(table: Path, name: str, content: bytes, sentence: str) -> None:
    (table / name).write_bytes(content)
    with pytest.raises(ContralexError, match=f"(?s){sentence}") as refused:
        ImageCaptionsSpec(root=str(table / name)).build()
    assert "None" not in str(refused.value)


def test_lines_of_other_splits_are_not_trained_on(table: Path) -> None:
    splits = ["train", "Train", "restval", "", "val", "test", "test"]
    lines = "".join(f"1.png;caption {number};{split}\n" for number, split in enumerate(splits))
    (table / "s.csv").write_text(f"image;caption;split\n{lines}")
    source = ImageCaptionsSpec(root=str(table / "s.csv")).build()
    assert source.train().captions == [f"caption {number}" for number in range(4)]
    assert source.test().captions == ["caption 4"]
    assert source.describe() == (
        "4 images with captions to train on without labels; 1 to evaluate on (split val); split test (2) is left out"
    )
    assert len(ImageCaptionsSpec(root=str(table / "s.csv"), split=None).build().train()) == 7
    with pytest.raises(ContralexError, match=r"data\.split is part, and line 1 of .* has no such column"):
        ImageCaptionsSpec(root=str(table / "s.csv"), split="part").build()


def test_captions_of_files_whose_names_are_not_utf_8(table: Path) -> None:
    strange = os.fsdecode(b"caf\xe9.png")
    Image.new("RGB", (9, 9)).save(table / strange, "png")
    (table / "n.csv").write_bytes(b"image,caption\ncaf\xe9.png,a\n")
    split = ImageCaptionsSpec(root=str(table / "n.csv")).build().train()
    assert split.captions == ["a"] and split[0].size == (9, 9)


def test_what_is_for_a_table_is_refused_of_a_folder() -> None:
    with pytest.raises(ContralexError, match="label is for a table"):
        resolve("clip", sets=["data.label=class"])


def test_tar_files_are_read_at_any_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = WebDatasetSpec.tiny(str(tmp_path)).build()
    split = source.train()
    assert len(split) == 30 and source.test() is None
    for index in (29, 0, 14, 15, 7):
        number = int(split[index].info["caption"].split()[-1])
        assert number == (2 * index if index < 15 else 2 * (index - 15) + 1)  # the even ones lie in the first shard
        assert split.labels[index] == number % 3 and split[index].size == (40, 40)

    with tarfile.open(tmp_path / "0002.tar", "w") as tar:
        for name in ("whole.PNG", "whole.txt", "alone.png", "._whole.png", "broken.png", "broken.txt"):
            held = tmp_path / "file"
            Image.new("RGB", (5, 5)).save(held, "png")
            if name.endswith("txt"):
                held.write_text("said\n")
            elif name == "broken.png":
                held.write_bytes(held.read_bytes()[:40])
            tar.add(held, f"folder/{name}")
    more = WebDatasetSpec(shards=f"{tmp_path}/{{0001..0002}}.tar", test=f"{tmp_path}/0000.tar").build()
    assert len(more.train()) == 17 and len(more.test() or ()) == 15 and more.train().labels is None
    assert more.train()[15].info["caption"] == "said"
    assert "folder/alone is skipped: it has no caption." in caplog.text
    with pytest.raises(Unreadable, match=r"0002\.tar"):
        more.train()[16]


def test_shards_of_several_splits_are_refused(tmp_path: Path) -> None:
    for name in ("train", "val"):
        WebDatasetSpec.tiny(str(tmp_path / name))
        for shard in sorted((tmp_path / name).glob("*.tar")):
            shard.rename(tmp_path / f"{name}-{shard.name}")
    with pytest.raises(ContralexError, match=r"stands for .*train-0000\.tar and for .*val-0000\.tar"):
        WebDatasetSpec(shards=f"{tmp_path}/*.tar").build()
    train, val = (f"{tmp_path}/{name}-*.tar" for name in ("train", "val"))
    assert WebDatasetSpec(shards=train, test=val).build().describe().endswith(f"; 30 to evaluate on ({val})")
    with pytest.raises(ContralexError, match=r"train-0000\.tar, which data\.shards .* has as well"):
        WebDatasetSpec(shards=train, test=f"{tmp_path}/train-0000.tar").build()


def test_images_in_tar_files_have_the_law_of_all_images(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = io.BytesIO()
    Image.new("LA", (8, 4), (0, 0)).save(picture, "png", exif=exif)
    strange = os.fsdecode(b"caf\xe9")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, held in ((f"{strange}.png", picture.getvalue()), (f"{strange}.txt", b"a"), (f"{strange}2.txt", b"a")):
            member = tarfile.TarInfo(name)
            member.size = len(held)
            tar.addfile(member, io.BytesIO(held))
    split = WebDatasetSpec(shards=f"{tmp_path}/a.tar").build().train()
    assert split[0].size == (4, 8) and split[0].getpixel((0, 0)) == (255, 255, 255)
    assert split.skipped == [f"{tmp_path}/a.tar: caf\\udce92"]
    small = WebDatasetSpec(shards=f"{tmp_path}/a.tar", max_pixels=31).build().train()
    with pytest.raises(Unreadable, match=r"it has 32 pixels, and data\.max_pixels allows 31"):
        small[0]


def test_tar_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    WebDatasetSpec.tiny(str(tmp_path))
    with tarfile.open(tmp_path / "packed.tar", "w:gz") as tar:
        tar.add(tmp_path / "0000.tar")
    with tarfile.open(tmp_path / "other.tar", "w") as tar:
        tar.add(tmp_path / "0000.tar")
    whole = (tmp_path / "0000.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) // 2 + 100])
    for shards, sentence in (
        ("packed.tar", "cannot be read as a tar file"),
        ("none-*.tar", "stands for no file"),
        ("{0000..0009}.tar", "there is no file .*0002.tar"),
        ("{9..1}.tar", "counts up"),
        ("other.tar", "hold no file that ends in .jpg"),
        ("cut.tar", "cannot be read as a tar file"),
    ):
        with pytest.raises(ContralexError, match=sentence):
            WebDatasetSpec(shards=f"{tmp_path}/{shards}").build()
    with pytest.raises(ContralexError, match="holds 'noise number 0', and not the number of a class"):
        WebDatasetSpec(shards=f"{tmp_path}/0000.tar", caption="cls", label="txt").build()


def test_digits_have_captions_that_say_their_class() -> None:
    one, again = (DigitCaptionsSpec(scene="plain").build() for _ in range(2))
    plain = DigitsSource(scene="plain")
    for split, same, digits in (
        (one.train(), again.train(), plain.train()),
        (one.test(), again.test(), plain.test()),
    ):
        assert split is not None and same is not None and split.labels == digits.labels
        said = [split[index].info["caption"] for index in range(len(split))]
        assert said == [same[index].info["caption"] for index in range(len(split))]
        assert all(captions.WORDS[label] in text for label, text in zip(split.labels, said, strict=True))
        assert split[3].tobytes() == digits[3].tobytes()
    assert len({text.replace(word, "{}") for text, word in _said(one.train())}) == len(captions.TEMPLATES)
    other = DigitCaptionsSpec(scene="plain", seed=1).build().train()
    assert [text for text, _ in _said(other)] != [text for text, _ in _said(one.train())]


def _said(split: Split) -> Iterator[tuple[str, str]]:
    assert split.labels is not None
    for index, label in enumerate(split.labels):
        yield split[index].info["caption"], captions.WORDS[label]


# Zero-shot classification


class Nearest(Encoder):
    """Knows digits: an image is its class, and a text the digit that it names, turned by what its template says."""

    dim = 12

    def __init__(self, turned: dict[str, float]) -> None:
        super().__init__()
        self.turned = turned

    def forward(self, views: Any) -> dict[int, Tensor]:
        return {view: self.one(view, inputs) for view, inputs in views.items()}

    def one(self, view: int, inputs: Tensor) -> Tensor:
        if view == 0:  # the colour of a picture is its class, and its neighbours are the next nearest
            far = (inputs[:, :1, 0, 0] * 255 - torch.arange(self.dim)).abs()
            return torch.exp(-far) * (torch.arange(self.dim) < 10)
        rows = torch.zeros(len(inputs), self.dim)
        for row, ids in zip(rows, inputs.tolist(), strict=True):
            text = bytes(ids[1 : ids.index(257)]).decode()
            word = next(word for word in captions.WORDS if word in text)
            row[captions.WORDS.index(word)] = 1.0
            row[10] = self.turned[text.replace(word, "{}")]
        return rows

    def features(self, view: Tensor) -> Tensor:
        return view.flatten(1)


class Coloured(Source):
    """Pictures whose colour is a number, with labels."""

    def __init__(self, colours: list[int], labels: list[int], classes: tuple[str, ...] | None = captions.WORDS) -> None:
        self.colours, self.labels, self.classes = colours, labels, classes

    def train(self) -> Split:
        raise AssertionError("zero-shot classification looks at no training sample")

    def test(self) -> Split:
        return _ColouredSplit(self)


class _ColouredSplit(Split):
    def __init__(self, source: Coloured) -> None:
        super().__init__()
        self.colours, self.labels, self.classes = source.colours, source.labels, source.classes

    def __len__(self) -> int:
        return len(self.colours)

    def __getitem__(self, index: int) -> Image.Image:
        return Image.new("RGB", (8, 8), (self.colours[index], 0, 0))


def views_of_bytes() -> ImageTextViews:
    views: ImageTextViews = ImageTextSpec(**VIEWS, context=40).build()
    return views


def test_a_class_is_the_mean_over_its_templates() -> None:
    templates = ("a {}", "the {}")
    encoder, views = Nearest({"a {}": 0.0, "the {}": 3.0}), views_of_bytes()
    found = zero_shot.class_vectors(encoder, views, zero_shot.Prompts(captions.WORDS, templates), torch.device("cpu"))
    for number, vector in enumerate(found):
        first, second = torch.zeros(12), torch.zeros(12)
        first[number], second[number], second[10] = 1.0, 1.0, 3.0
        mean = (first + second / math.sqrt(10)) / 2
        torch.testing.assert_close(vector, mean / mean.norm())


def test_shares_of_images_whose_class_is_first_and_among_five() -> None:
    # Two are right, of two the class is the third and the sixth, and one has no label.
    source = Coloured([3, 7, 4, 4, 5], [3, 7, 2, 9, -1])
    asked = zero_shot.choose_prompts(source, templates=["a {}"])
    context = EvalContext(source, views_of_bytes(), 2, torch.device("cpu"))
    result = zero_shot.evaluate(Nearest({"a {}": 0.0}), context, asked)
    assert result.protocol == {"classes": 10, "templates": 1, "test_samples": 4}
    assert (result.top1, result.top5) == (0.5, 0.75)


@pytest.mark.parametrize(
    ("source", "given", "sentence"),
    [
        (Coloured([1], [-1]), {}, "has no labels"),
        (Coloured([1], [1], None), {}, "numbers without names"),
        (Coloured([1], [3]), {"classes": ["a", "b"]}, "There are 2 names of classes, and the data have labels up to 3"),
        (Coloured([1], [1]), {"templates": ["a photo"]}, "'a photo' has no {}"),
    ],
)
def test_what_cannot_be_asked_is_refused(source: Source, given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ContralexError, match=sentence):
        zero_shot.choose_prompts(source, **given)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few steps of CLIP, whose captions are the digits' own."""
    out = tmp_path_factory.mktemp("runs") / "clip"
    sets = [*SETS, *SMALL, "train.max_steps=2", "train.workers=0", "eval.knn=null", "train.log_every=1"]
    train(resolve("clip", preset="digits", sets=[*sets, "train.batch_size=16"]), out)
    return out


def test_the_learned_scale_is_logged(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert next(line["logit_scale"] for line in lines if "logit_scale" in line) == pytest.approx(1 / 0.07, rel=0.05)


def test_the_command(run: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["zero-shot", str(run), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert set(found) == {"this run", "untrained encoder"}
    assert found["this run"]["protocol"] == {"classes": 10, "templates": 8, "test_samples": 360}
    assert 0 <= found["this run"]["top1"] <= found["this run"]["top5"] <= 1
    assert json.loads((run / "results.json").read_text())["zero_shot"] == found["this run"]

    (tmp_path / "classes").write_text("\n".join(f"number {number}" for number in range(10)))
    (tmp_path / "templates").write_text("a {}\n\nthe {}\n")
    ImageCaptionsSpec.tiny(str(tmp_path / "images"))
    options = ["--classes", str(tmp_path / "classes"), "--templates", str(tmp_path / "templates")]
    done = CliRunner().invoke(app, ["zero-shot", str(run), *options, "--data", str(tmp_path / "images")])
    assert done.exit_code == 0, done.output
    assert "zero-shot: classes 10, templates 2, test_samples 6" in done.stdout


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--set", "method.views.context=3"], "only values of data can be set"),
        (["--classes", "/nowhere/at/all"], "--classes /nowhere/at/all cannot be read"),
        (["--data", "no-such-kind"], "--data no-such-kind"),
    ],
)
def test_the_command_refuses(run: Path, options: list[str], sentence: str) -> None:
    done = CliRunner().invoke(app, ["zero-shot", str(run), *options])
    assert isinstance(done.exception, ContralexError) and sentence in str(done.exception)


def test_the_command_is_for_encoders_of_captions(tmp_path: Path) -> None:
    conv = "method.encoder.backbone={kind: conv, widths: [4], strides: [2]}"
    sets = [conv, "train.max_steps=1", "train.workers=0", "eval.knn=null", "train.precision=fp32"]
    train(resolve("simclr-v1", preset="digits", sets=sets), tmp_path / "run")
    with pytest.raises(ContralexError, match=r"has method\.views of kind crops, and not image_text"):
        zero_shot.zero_shot(tmp_path / "run")
