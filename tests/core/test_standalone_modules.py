"""Backbones, encoders, views and data of the core, made by hand with keyword arguments, are what their specs build."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from contralex.data.base import Source
from contralex.errors import ContralexError
from contralex.kinds.datasets import labelled_files, torchvision_sets
from contralex.kinds.datasets.hugging_face import HuggingFaceSource
from contralex.kinds.datasets.labelled import LabelledSource
from contralex.kinds.datasets.torchvision_sets import cifar10_source, cifar100_source, imagenet_source, stl10_source
from contralex.kinds.views.augment import Operation
from contralex.plugin import (
    Augment,
    Backbone,
    Blur,
    Crop,
    CropViews,
    DigitsSource,
    Flip,
    FolderSource,
    Gray,
    Group,
    ImageEncoder,
    Jigsaw,
    JigsawHead,
    Jitter,
    Layer,
    Normalize,
    RandAugment,
    Solarize,
    TowersEncoder,
    conv_backbone,
    timm_backbone,
    torchvision_backbone,
    vit_backbone,
    write_tiny_folder,
)
from contralex.plugins import building
from contralex.plugins.registry import registry
from contralex.plugins.spec import Spec

SLOTS = ("backbone", "encoder", "views", "data")
SMALL = {"widths": (6, 8), "strides": (2, 2)}


def spec_of(slot: str, values: Mapping[str, Any]) -> Spec:
    found = registry().find(slot, values["kind"])
    assert found is not None
    return found.model_validate(values)


def seeded(make: Callable[[], Any]) -> Any:
    torch.manual_seed(3)
    return make()


def same_state(one: nn.Module, other: nn.Module) -> None:
    ours, theirs = one.state_dict(), other.state_dict()
    assert list(ours) == list(theirs) and ours
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name
    frozen = [[p.requires_grad for p in module.parameters()] for module in (one, other)]
    assert frozen[0] == frozen[1]


# Backbones

BACKBONES: list[tuple[dict[str, Any], Callable[[], Backbone], tuple[int, int]]] = [
    (
        {"kind": "torchvision", "name": "resnet18", "stem": "small", "width": 0.25, "zero_init_residual": True},
        lambda: torchvision_backbone("resnet18", stem="small", width=0.25, zero_init_residual=True),
        (3, 32),
    ),
    (
        {"kind": "torchvision", "name": "resnet18", "channels": 2},
        lambda: torchvision_backbone(name="resnet18", channels=2),
        (2, 32),
    ),
    (
        {"kind": "timm", "name": "resnet10t", "drop_path": 0.1, "channels": 1},
        lambda: timm_backbone("resnet10t", drop_path=0.1, channels=1),
        (1, 32),
    ),
    ({"kind": "conv", **SMALL, "channels": 2}, lambda: conv_backbone([6, 8], [2, 2], channels=2), (2, 12)),
    (
        {"kind": "vit", "image_size": 16, "patch": 8, "width": 8, "depth": 2, "heads": 2, "pool": "mean"},
        lambda: vit_backbone(16, 8, 8, 2, 2, pool="mean"),
        (3, 16),
    ),
    (
        {
            **{"kind": "vit", "image_size": 16, "patch": 8, "width": 8, "depth": 1, "heads": 2, "any_size": True},
            **{"positions": "sincos", "frozen_patches": True, "init": "xavier", "mlp_ratio": 2.0, "channels": 1},
        },
        lambda: vit_backbone(
            image_size=16,
            patch=8,
            width=8,
            depth=1,
            heads=2,
            any_size=True,
            positions="sincos",
            frozen_patches=True,
            init="xavier",
            mlp_ratio=2.0,
            channels=1,
        ),
        (1, 24),
    ),
]


@pytest.mark.parametrize(("values", "make", "shape"), BACKBONES)
def test_backbones(values: dict[str, Any], make: Callable[[], Backbone], shape: tuple[int, int]) -> None:
    spec = spec_of("backbone", values)
    one, other = seeded(spec.build), seeded(make)
    assert isinstance(one, Backbone) and isinstance(other, Backbone)
    same_state(one.module, other.module)
    channels, side = shape
    assert spec.image_shape() in ((channels, None), (channels, side))
    images = torch.rand(2, channels, side, side)
    features = one.module.eval()(images)
    assert features.shape == (2, one.dim) and one.dim == other.dim
    assert torch.equal(features, other.module.eval()(images))


# Encoders

CONV = {"kind": "conv", **SMALL}
PREDICTOR = [{"width": 5, "bias": False, "norm": "batch", "activation": "relu"}, {"width": 4, "init_std": 0.1}]
ENCODERS: list[tuple[dict[str, Any], Callable[[], Any], list[dict[int, tuple[int, ...]]]]] = [
    ({"kind": "image", "backbone": CONV}, lambda: ImageEncoder(conv_backbone(**SMALL)), [{0: (3, 12, 12)}]),
    (
        {
            **{"kind": "image", "backbone": CONV, "projector": [{"width": 4}], "predictor": PREDICTOR},
            **{"batching": "together", "normalize": False},
        },
        lambda: ImageEncoder(
            backbone=conv_backbone(**SMALL),
            projector=[Layer(width=4)],
            predictor=[
                Layer(width=5, bias=False, norm="batch", activation="relu"),
                Layer(width=4, init_std=0.1),
            ],
            batching="together",
            normalize=False,
        ),
        [{0: (3, 12, 12), 1: (3, 8, 8), 2: (3, 12, 12)}],
    ),
    (
        {
            **{"kind": "image", "backbone": CONV, "projector": [{"width": 4}]},
            "jigsaw": {"pieces": 4, "piece": [{"width": 3}], "joined": [{"width": 4}]},
        },
        lambda: ImageEncoder(
            conv_backbone(**SMALL),
            [Layer(width=4)],
            jigsaw=JigsawHead(pieces=4, piece=(Layer(width=3),), joined=(Layer(width=4),)),
        ),
        [{0: (3, 12, 12), 1: (4, 3, 6, 6)}],
    ),
    (
        {
            **{"kind": "towers", "features": "concatenated", "channels": [1, 2]},
            "towers": {
                "l": {"kind": "image", "backbone": {**CONV, "channels": 1}},
                "ab": {"kind": "image", "backbone": {**CONV, "channels": 2}},
            },
        },
        lambda: TowersEncoder(
            towers={name: ImageEncoder(conv_backbone(**SMALL, channels=c)) for name, c in (("l", 1), ("ab", 2))},
            features="concatenated",
            channels=(1, 2),
        ),
        [{0: (1, 12, 12), 1: (2, 12, 12)}],
    ),
]


@pytest.mark.parametrize(("values", "make", "shapes"), ENCODERS)
def test_encoders(
    values: dict[str, Any], make: Callable[[], Any], shapes: Sequence[Mapping[int, tuple[int, ...]]]
) -> None:
    one, other = seeded(spec_of("encoder", values).build), seeded(make)
    same_state(one, other)
    assert one.dim == other.dim
    views = {view: torch.rand(3, *shape) for view, shape in shapes[0].items()}
    for encoder in (one, other):
        encoder.train()
    found = [[encoder.queries(encoder(views)), encoder.keys(encoder(views))] for encoder in (one, other)]
    for ours, theirs in zip(*found, strict=True):
        assert list(ours) == list(theirs)
        for view, (vectors, positions) in ours.items():
            assert torch.equal(vectors, theirs[view][0]) and positions is theirs[view][1] is None
    image = torch.rand(2, 3, 12, 12)
    assert torch.equal(one.features(image), other.features(image))
    assert torch.equal(one.backbone(image).flatten(1), one.features(image))


def test_pieces_need_a_head() -> None:
    with pytest.raises(ContralexError, match=r"A view is cut into pieces, and method\.encoder\.jigsaw, .* is null"):
        ImageEncoder(conv_backbone(**SMALL))({0: torch.rand(2, 4, 3, 6, 6)})


def test_an_encoder_without_a_backbone_has_none() -> None:
    from contralex.plugin import Encoder

    class Plain(Encoder):
        dim = 2

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, views: Mapping[int, Tensor]) -> dict[int, Tensor]:
            return {view: self.layer(vectors) for view, vectors in views.items()}

        def features(self, view: Tensor) -> Tensor:
            return view

    assert Plain().backbone is None
    assert TowersEncoder({"a": Plain(), "b": Plain()}, "first").backbone is None


def test_channels_of_towers_are_checked_by_hand_as_well() -> None:
    with pytest.raises(ValueError, match="channels has 1 numbers, where features: concatenated and 2 towers need 2"):
        TowersEncoder({str(n): ImageEncoder(conv_backbone(**SMALL)) for n in range(2)}, "concatenated", (3,))


# Views

VIEWS: list[tuple[dict[str, Any], Callable[[], dict[str, Group]]]] = [
    (
        {"crops": {"count": 2, "augment": {"order": ["crop"], "crop": {"size": 12, "scale": [0.2, 1]}}}},
        lambda: {"crops": Group(count=2, augment=Augment(order=("crop",), crop=Crop(size=12, scale=(0.2, 1))))},
    ),
    (
        {
            "large": {
                "count": 2,
                "augment": {
                    "order": ["crop", "jitter", "gray", "blur", "solarize", "rand_augment"],
                    "crop": {"size": 16, "scale": [0.2, 1], "drawn": "height", "interpolation": "bicubic"},
                    "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1, "p": 0.8},
                    **{"gray": {"p": 0.2}, "blur": {"p": 0.5}, "solarize": {"p": 0.5}, "rand_augment": {}},
                    "normalize": {},
                },
            },
            "small": {"count": 3, "key": False, "like": "large", "crop": {"size": 8, "scale": [0.05, 0.2]}},
            "pieces": {
                "augment": {
                    **{"order": ["crop", "jigsaw", "rand_augment"], "crop": {"size": 16, "scale": [0.5, 1]}},
                    **{"jigsaw": {"grid": 2, "cell": 6}, "rand_augment": {"law": "tensorflow", "p": 0.5}},
                }
            },
        },
        lambda: {
            "large": Group(
                count=2,
                augment=Augment(
                    order=("crop", "jitter", "gray", "blur", "solarize", "rand_augment"),
                    crop=Crop(size=16, scale=(0.2, 1), drawn="height", interpolation="bicubic"),
                    jitter=Jitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, p=0.8),
                    gray=Gray(p=0.2),
                    blur=Blur(p=0.5),
                    solarize=Solarize(p=0.5),
                    rand_augment=RandAugment(),
                    normalize=Normalize(),
                ),
            ),
            "small": Group(count=3, key=False, like="large", crop=Crop(size=8, scale=(0.05, 0.2))),
            "pieces": Group(
                augment=Augment(
                    order=("crop", "jigsaw", "rand_augment"),
                    crop=Crop(size=16, scale=(0.5, 1)),
                    jigsaw=Jigsaw(grid=2, cell=6),
                    rand_augment=RandAugment(law="tensorflow", p=0.5),
                )
            ),
        },
    ),
]


@pytest.mark.parametrize(("groups", "make"), VIEWS)
def test_views(groups: dict[str, Any], make: Callable[[], dict[str, Group]]) -> None:
    spec = spec_of("views", {"kind": "crops", "groups": groups})
    one, other = spec.build(), CropViews(groups=make())
    assert one.count == other.count == len(spec.key_flags() or ())
    image = DigitsSource().train()[0]
    for view in range(one.count):
        assert torch.equal(seeded(lambda: one.make(image, view)), seeded(lambda: other.make(image, view)))  # noqa: B023
    assert torch.equal(one.plain(image), other.plain(image))


def test_a_group_like_none_is_refused_by_hand_as_well() -> None:
    with pytest.raises(ValueError, match=r"groups\.small\.like is large; name a group that stands before it"):
        CropViews({"small": Group(like="large", crop=Crop(size=8, scale=(0.05, 0.2)))})


OPERATIONS: dict[str, Spec] = {
    "crop": Crop(size=8, scale=(0.2, 1)),
    "jitter": Jitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1),
    "gray": Gray(p=1),
    "flip": Flip(),
    "blur": Blur(p=1, kernel=3),
    "solarize": Solarize(p=1),
    "rand_augment": RandAugment(p=0.5),
    "jigsaw": Jigsaw(grid=2, cell=3),
}


@pytest.mark.parametrize("name", get_args(Operation))
def test_every_operation_has_a_transform(name: str) -> None:
    order = tuple(dict.fromkeys(("crop", name)))
    augment = Augment(order=order, **{"crop": OPERATIONS["crop"], name: OPERATIONS[name]})  # type: ignore[arg-type]
    view = CropViews({"one": Group(augment=augment)}).make(Image.new("RGB", (20, 20), "teal"), 0)
    assert view.shape == ((4, 3, 3, 3) if name == "jigsaw" else (3, 8, 8))


# Data


def same_source(one: Source, other: Source) -> None:
    for ours, theirs in ((one.train(), other.train()), (one.test(), other.test())):
        assert (ours is None) == (theirs is None)
        if ours is None or theirs is None:
            continue
        assert len(ours) == len(theirs) > 0
        assert ours.labels == theirs.labels and ours.classes == theirs.classes and ours.origin == theirs.origin
        for index in {0, len(ours) // 2, len(ours) - 1}:
            assert ours[index].tobytes() == theirs[index].tobytes()
    assert one.describe() == other.describe()


def test_digits() -> None:
    same_source(spec_of("data", {"kind": "digits"}).build(), DigitsSource())
    plain = spec_of("data", {"kind": "digits", "scene": "plain", "seed": 4})
    same_source(plain.build(), DigitsSource(scene="plain", seed=4))


def test_image_folder(tmp_path: Path) -> None:
    write_tiny_folder(str(tmp_path))
    same_source(spec_of("data", {"kind": "image_folder", "root": str(tmp_path)}).build(), FolderSource(tmp_path))
    values = {"labels": "folders", "held_out": 0.5, "max_pixels": 2000}
    one = spec_of("data", {"kind": "image_folder", "root": str(tmp_path), **values}).build()
    same_source(one, FolderSource(root=str(tmp_path), labels="folders", held_out=0.5, max_pixels=2000))
    with pytest.raises(ContralexError, match="none can be read"):
        FolderSource(tmp_path, max_pixels=100)


def test_labelled_data_hold_another_source(tmp_path: Path) -> None:
    write_tiny_folder(str(tmp_path))
    values = {"kind": "labelled", "of": {"kind": "image_folder", "root": str(tmp_path)}, "share": 0.4, "seed": 2}
    same_source(spec_of("data", values).build(), LabelledSource(FolderSource(tmp_path), share=0.4, seed=2))


class Fake:
    """What torchvision opens: it keeps what it was asked for."""

    classes = ("a", ("b", "beta"))

    def __init__(self, root: str, **options: Any) -> None:
        self.root, self.options, self.targets = root, options, [0, 1, 1]

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.new("RGB", (4, 4), (index, 0, 0)), self.targets[index]


@pytest.mark.parametrize(
    ("kind", "make", "download"),
    [
        ("cifar10", cifar10_source, True),
        ("cifar100", cifar100_source, True),
        ("stl10", stl10_source, True),
        ("imagenet", imagenet_source, False),
    ],
)
def test_torchvision_sets(
    kind: str, make: Callable[..., Any], download: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def open_(root: str, **options: Any) -> Fake:
        asked.append((root, options))
        return Fake(root, **options)

    _, to_train, to_test = torchvision_sets._OPENERS[kind]
    monkeypatch.setitem(torchvision_sets._OPENERS, kind, (open_, to_train, to_test))
    one = spec_of("data", {"kind": kind, "root": str(tmp_path), "download": download}).build()
    same_source(one, make(tmp_path, download=download))
    assert asked[:2] == asked[2:] and len(asked) == 4
    wanted = {} if kind == "imagenet" else {"download": True}
    assert asked[:2] == [(str(tmp_path), {**to_train, **wanted}), (str(tmp_path), {**to_test, **wanted})]
    assert one.train().classes == ["a", "b, beta"]


class Table:
    """A split of the package datasets: columns by name, rows by number."""

    def __init__(self, columns: Mapping[str, list[Any]]) -> None:
        self.columns, self.column_names, self.features = columns, list(columns), dict.fromkeys(columns)

    def select_columns(self, names: list[str]) -> Table:
        return Table({name: self.columns[name] for name in names})

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, key: Any) -> Any:
        return self.columns[key] if isinstance(key, str) else {name: c[key] for name, c in self.columns.items()}


def test_hugging_face(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def load_dataset(path: str, name: str | None, split: str) -> Table:
        asked.append((path, name, split))
        pictures = [Image.new("RGB", (4, 4), (number, len(split), 0)) for number in range(3)]
        return Table({"picture": pictures, "kind": ["dog", "cat", None]})

    package: Any = ModuleType("datasets")
    package.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", package)
    values = {"train": "training", "test": "held", "image": "picture", "label": "kind", "config": "small"}
    one = spec_of("data", {"kind": "hf", "path": "owner/name", **values}).build()
    same_source(one, HuggingFaceSource("owner/name", **values))  # type: ignore[arg-type]
    assert asked == [("owner/name", "small", "training"), ("owner/name", "small", "held")] * 2
    assert one.train().labels == [1, 0, -1] and one.train().classes == ["cat", "dog"]
    with pytest.raises(ContralexError, match=r"data\.image is image, and owner/name\[train\] has no such column"):
        HuggingFaceSource("owner/name")


# All of them


def kinds() -> list[tuple[str, str]]:
    return [(slot, kind) for slot in SLOTS for kind in registry().kinds(slot) if _is_of_the_core(slot, kind)]


def _is_of_the_core(slot: str, kind: str) -> bool:
    found = registry().find(slot, kind)
    return found is not None and found.__module__.startswith("contralex.")


@pytest.mark.parametrize(("slot", "kind"), kinds())
def test_arguments_are_the_fields_with_the_same_defaults(slot: str, kind: str) -> None:
    spec = registry().find(slot, kind)
    assert spec is not None
    arguments = inspect.signature(building.part_of(spec)).parameters
    fields = {name: field for name, field in spec.model_fields.items() if name != "kind"}
    assert list(arguments) == list(fields)
    for name, field in fields.items():
        if field.is_required():
            assert arguments[name].default is inspect.Parameter.empty, name
        else:
            assert arguments[name].default == field.default, name


def test_every_kind_of_these_slots_stands_above() -> None:
    here = {(slot, kind) for slot, kind in kinds()}
    tried = {("backbone", values["kind"]) for values, _, _ in BACKBONES}
    tried |= {("encoder", values["kind"]) for values, _, _ in ENCODERS} | {("views", "crops")}
    data = {"digits", "image_folder", "labelled", "cifar10", "cifar100", "stl10", "imagenet", "hf"} | {
        *labelled_files.SETS
    }
    assert here == tried | {("data", kind) for kind in data}
