"""A trained encoder for other libraries: the same features there, opened without contralex, or a sentence."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from packaging.version import Version
from torch import Tensor

import contralex
from contralex import ContralexError
from contralex.data.preprocessing import Preprocessing
from contralex.exporting import export as exporting
from contralex.exporting import formats, timm_folder
from contralex.exporting.original import Original
from contralex.kinds.views.transforms import evaluation
from contralex.plugin import Augment, read_preprocessing
from contralex.training import build, optimizers
from contralex.training.checkpoints import write
from contralex.training.checkpoints.state import CheckpointState
from tests.noise import noise

BACKBONE = "method.encoder.backbone"
LARGE = ["method.views.groups.crops.augment.crop.size=96"]
NORMALIZED = ["method.views.groups.crops.augment.normalize={mean: [0.4, 0.5, 0.6], std: [0.2, 0.3, 0.4]}"]


def make_run(folder: Path, recipe: str = "moco-v2", sets: Sequence[str] = (), preset: str = "digits") -> contralex.Run:
    """A run whose weights and statistics are no first ones, without its training."""
    resolved = contralex.resolve(recipe, preset=preset, sets=list(sets)).anchored()
    method = build.look_up(resolved.run, 200)
    chance = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in method.state_dict().items():
            if name.endswith("running_var"):
                tensor.copy_(torch.rand(tensor.shape, generator=chance) + 0.5)
            elif tensor.is_floating_point() and tensor.dim() == 1:
                tensor.add_(torch.randn(tensor.shape, generator=chance) * 0.1)
    folder.mkdir(parents=True)
    (folder / "spec.yaml").write_text(resolved.to_yaml(), "utf-8")
    state = CheckpointState.make(resolved, 3)
    write.save(
        folder / "checkpoints", state, method.state_dict(), optimizers.build(resolved.run.train.optimizer, method)
    )
    return contralex.open(folder)


def backbone(**values: Any) -> str:
    return f"{BACKBONE}={json.dumps(values)}"


def has(*packages: str) -> bool:
    from importlib.util import find_spec

    return all(find_spec(package) for package in packages)


HAS_ONNX = has("onnx", "onnxscript", "onnxruntime") and Version(torch.__version__) >= Version("2.6")
needs_onnx = pytest.mark.skipif(not HAS_ONNX, reason="contralex[onnx] is not installed, or torch is older than 2.6")
needs_transformers = pytest.mark.skipif(not has("transformers"), reason="contralex[transformers] is not installed")


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> contralex.Run:
    """A ResNet-18 for images of 96 pixels."""
    folder = tmp_path_factory.mktemp("export") / "resnet"
    return make_run(folder, sets=[backbone(kind="torchvision", name="resnet18"), *LARGE, *NORMALIZED])


@pytest.fixture(scope="module")
def conv(tmp_path_factory: pytest.TempPathFactory) -> contralex.Run:
    """The small network of the preset digits, which no other library has."""
    return make_run(tmp_path_factory.mktemp("export") / "conv")


# The same features


@pytest.mark.parametrize(
    ("recipe", "sets"),
    [
        ("moco-v2", [backbone(kind="torchvision", name="resnet18", channels=3), *LARGE]),
        ("moco-v2", [backbone(kind="timm", name="resnet10t")]),
        ("moco-v2", [backbone(kind="timm", name="test_vit")]),  # whose positions are for another size
        ("moco-v3-vit", []),
        (
            "dino",
            [backbone(kind="vit", image_size=32, patch=8, width=32, depth=2, heads=2, any_size=True, pool="mean")],
        ),
        ("mae", []),
        ("clip", ['method.encoder.towers.image.backbone={"kind": "clip_vit", "name": "test_vit"}']),
    ],
    ids=["torchvision's", "timm's", "timm's ViT", "vit", "vit of any size", "mae", "clip"],
)
def test_timm_opens_the_folder_and_gives_the_same_features(recipe: str, sets: list[str], tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", minversion=timm_folder.LOWEST)
    run = make_run(tmp_path / "run", recipe, sets)
    made = run.export("timm", tmp_path / "model")
    assert sorted(path.name for path in made.path.iterdir()) == [
        *("README.md", "config.json", "model.safetensors", "transform.json")
    ]
    config = json.loads((made.path / "config.json").read_text())
    assert config["num_classes"] == config["pretrained_cfg"]["num_classes"] == 0
    images = torch.rand(2, *config["pretrained_cfg"]["input_size"])
    model = timm.create_model(f"local-dir:{made.path}", pretrained=True).eval()
    with torch.inference_mode():
        torch.testing.assert_close(model(images), run.encoder.features(images), rtol=0, atol=made.bound)


def test_the_folder_has_the_layout_of_the_hub(
    resnet: contralex.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timm = pytest.importorskip("timm", minversion=timm_folder.LOWEST)
    made = resnet.export("timm", tmp_path / "model")

    def downloaded(repo: str = "", filename: str = "", *, repo_id: str = "", **kwargs: Any) -> str:
        assert (repo or repo_id) == "somebody/resnet"
        return str(made.path / filename)

    monkeypatch.setattr("timm.models._hub.hf_hub_download", downloaded)
    model = timm.create_model("hf-hub:somebody/resnet", pretrained=True)
    assert torch.equal(model.conv1.weight, resnet.backbone.state_dict()["conv1.weight"])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_whoever_may_read_other_files_may_read_these(
    resnet: contralex.Run, conv: contralex.Run, tmp_path: Path
) -> None:
    pytest.importorskip("timm", minversion=timm_folder.LOWEST)
    plain = tmp_path / "plain"
    plain.touch()
    for kind, run in (("timm", resnet), ("torchvision", resnet), ("torch-export", conv)):
        run.export(kind, tmp_path / kind)
        files = [each for each in (tmp_path / kind).rglob("*") if each.is_file()]
        assert files and {file.stat().st_mode for file in files} == {plain.stat().st_mode}


def test_timm_transforms_images_as_evaluation_does(resnet: contralex.Run, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", minversion=timm_folder.LOWEST)
    made = resnet.export("timm", tmp_path / "model")
    model = timm.create_model(f"local-dir:{made.path}", pretrained=True)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    for size in ((300, 200), (64, 130)):
        image = noise(size, 80).convert("RGB")
        torch.testing.assert_close(transform(image), resnet.transform(image), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("sets", "lines"),
    [
        (
            [backbone(kind="torchvision", name="resnet18", stem="small")],
            [
                "model.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)",
                "model.maxpool = torch.nn.Identity()",
                "model.fc = torch.nn.Identity()",
            ],
        ),
        (
            [backbone(kind="torchvision", name="mobilenet_v3_small")],
            ["model.classifier[3] = torch.nn.Identity()"],
        ),
        ([backbone(kind="timm", name="resnet18")], ["model.fc = torch.nn.Identity()"]),
    ],
    ids=["small stem", "another family", "timm's"],
)
def test_torchvision_loads_the_state_dict(sets: list[str], lines: list[str], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", sets=sets)
    made = run.export("torchvision", tmp_path / "weights.safetensors")
    assert made.difference <= made.bound < 1e-3
    assert [line for line in made.loading.splitlines() if "torch.nn" in line] == lines
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("run", "weights.md", "weights.safetensors", "weights.transform.json")
    ]


def test_a_state_dict_may_be_a_pth_file(resnet: contralex.Run, tmp_path: Path) -> None:
    made = resnet.export("torchvision", tmp_path / "weights.pth")
    assert made.difference <= made.bound
    assert torch.load(made.path, weights_only=True).keys() == resnet.backbone.state_dict().keys()


@needs_transformers
@pytest.mark.parametrize(
    ("sets", "kind"),
    [
        ([backbone(kind="torchvision", name="resnet18", width=0.5), *LARGE], "ResNetModel"),
        ([backbone(kind="torchvision", name="resnet50", width=0.25)], "ResNetModel"),
        ([backbone(kind="timm", name="test_vit")], "TimmWrapperModel"),
    ],
)
def test_transformers_opens_the_folder(sets: list[str], kind: str, tmp_path: Path) -> None:
    import transformers

    run = make_run(tmp_path / "run", sets=[*sets, *NORMALIZED])
    made = run.export("transformers", tmp_path / "model")
    model = transformers.AutoModel.from_pretrained(made.path, local_files_only=True)
    assert type(model).__name__ == kind and made.difference <= made.bound
    image = noise((140, 120), 80).convert("RGB")
    pixels = transformers.AutoImageProcessor.from_pretrained(made.path)(image, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(pixels[0], run.transform(image), rtol=0, atol=0.05)  # its own rounding of pixels


@needs_onnx
def test_onnx_runtime_takes_any_number_of_images(conv: contralex.Run, tmp_path: Path) -> None:
    import onnxruntime

    made = conv.export("onnx", tmp_path / "encoder.onnx")
    session = onnxruntime.InferenceSession(str(made.path))
    for count in (1, 5):
        images = torch.rand(count, 3, 32, 32)
        (features,) = session.run(None, {"images": images.numpy()})
        with torch.inference_mode():
            torch.testing.assert_close(
                torch.from_numpy(features), conv.encoder.features(images), rtol=0, atol=made.bound
            )


def test_a_program_of_torch_export_takes_any_number_of_images(conv: contralex.Run, tmp_path: Path) -> None:
    made = contralex.export(conv, "torch-export", tmp_path / "program")
    assert sorted(path.name for path in made.path.iterdir()) == ["README.md", "model.pt2", "transform.json"]
    model = torch.export.load(made.path / "model.pt2").module()
    for count in (1, 5):
        images = torch.rand(count, 3, 32, 32)
        with torch.inference_mode():
            torch.testing.assert_close(model(images), conv.encoder.features(images), rtol=0, atol=made.bound)


def test_towers_that_share_an_image_are_exported_side_by_side(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "cmc")
    made = run.export("torch-export", tmp_path / "both.pt2")
    images = torch.stack([run.transform(noise((40, 40), 80).convert("RGB"))])
    with torch.inference_mode():
        features = torch.export.load(made.path).module()(images)
        torch.testing.assert_close(features, run.encoder.features(images), rtol=0, atol=made.bound)


# Without contralex


def test_the_lines_of_each_card_open_it_without_contralex(resnet: contralex.Run, tmp_path: Path) -> None:
    wanted = {"torchvision": "torchvision", "torch-export": "encoder.pt2"}
    wanted |= {"timm": "timm"} if has("timm") else {}
    wanted |= {"transformers": "hf"} if has("transformers") else {}
    wanted |= {"onnx": "encoder.onnx"} if HAS_ONNX else {}
    scripts = []
    for to, name in wanted.items():
        made = resnet.export(to, tmp_path / name)  # type: ignore[arg-type]
        is_folder = (tmp_path / name).is_dir()
        card = tmp_path / name / "README.md" if is_folder else (tmp_path / name).with_suffix(".md")
        text = card.read_text("utf-8")
        if not is_folder and card.exists():
            card.unlink()  # two files of one stem have one card
            card.with_suffix(".transform.json").unlink()
        (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        assert block.strip() == made.loading.replace(f"{tmp_path}/", "")  # the card is meant from the folder above
        scripts.append(
            f"with torch.inference_mode():\n{textwrap.indent(block, '    ')}results[{to!r}] = torch.as_tensor(features)"
        )
    images = resnet.transform(noise((120, 100), 80).convert("RGB")).unsqueeze(0)
    torch.save(images, tmp_path / "images.pt")
    before = "import sys\nsys.modules['contralex'] = None\nimport torch\nimages = torch.load('images.pt')\nresults = {}"
    code = "\n".join([before, *scripts, "torch.save(results, 'results.pt')"])
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results: dict[str, Tensor] = torch.load(tmp_path / "results.pt")
    assert results.keys() == wanted.keys()
    with torch.inference_mode():
        expected = resnet.encoder.features(images)
    for features in results.values():
        torch.testing.assert_close(features, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


# The card and the transform


def test_the_card_has_what_the_hub_and_a_reader_need(resnet: contralex.Run, tmp_path: Path) -> None:
    protocol = {"k": 20, "features": "backbone"}
    knn = {who: {"top1": top1, "protocol": protocol} for who, top1 in (("this run", 0.75), ("untrained", 0.5))}
    results = {"steps": 3, "plugins": {"contralex": "0.1.0"}, "knn": knn}
    (resnet.folder / "results.json").write_text(json.dumps(results))
    try:
        made = resnet.export("torchvision", tmp_path / "model")
    finally:
        (resnet.folder / "results.json").unlink()
    text = (made.path / "README.md").read_text("utf-8")
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front)["pipeline_tag"] == "image-feature-extraction"
    assert {"contralex", "moco-v2"} <= {*yaml.safe_load(front)["tags"]}
    for part in (
        "arXiv:2003.04297",
        "| negatives | queue |",
        "this run 75.00%",
        "untrained 50.00%",
        "Protocol: k 20, features backbone;",
        "-moco 0",
    ):
        assert part in body, part
    assert made.transform["words"] in body and f"{made.difference:.1e}" in body
    assert contralex.inspect(resnet)["digest"][:16] in body
    spec = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", body, re.DOTALL)[0])
    assert spec["method"] == resnet.spec["method"]


def test_the_card_does_not_say_where_the_data_lie(tmp_path: Path) -> None:
    photos = tmp_path / "secret" / "photos"
    for number in range(4):
        path = photos / "a" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise((40, 40), 80, number).convert("RGB").save(path)
    run = make_run(tmp_path / "run", sets=[f"data={{kind: image_folder, root: {photos}}}"])
    made = run.export("torch-export", tmp_path / "model")
    text = (made.path / "README.md").read_text("utf-8")
    assert "root: photos\n" in text and "secret" not in text.replace(str(made.path), "")


def test_figures_of_another_step_are_not_on_the_card(conv: contralex.Run, tmp_path: Path) -> None:
    (conv.folder / "results.json").write_text(json.dumps({"steps": 4, "knn": {"this run": {"top1": 0.75}}}))
    try:
        made = conv.export("torch-export", tmp_path / "model")
    finally:
        (conv.folder / "results.json").unlink()
    assert "75.00%" not in (made.path / "README.md").read_text("utf-8")


@pytest.mark.parametrize("size", [32, 64, 96, 100, 160, 224, 299])
def test_a_transform_in_numbers_is_what_evaluation_does(size: int) -> None:
    augment = Augment.model_validate({"order": ["crop"], "crop": {"size": size, "scale": [0.2, 1]}, "normalize": None})
    found = read_preprocessing(evaluation(augment))
    assert found == Preprocessing(size if size < 96 else round(size * 8 / 7), size < 96, size, "bilinear")
    assert int(size / found.crop_fraction) == found.resize  # as timm finds the size to which it resizes


def test_a_pipeline_with_an_unknown_step_has_no_numbers() -> None:
    from torchvision.transforms import v2

    assert read_preprocessing(v2.Compose([v2.Resize(32), v2.Grayscale()])) is None
    assert read_preprocessing(v2.Compose([v2.CenterCrop(32)])) is None
    assert read_preprocessing(v2.Compose([v2.Resize((32, 64))])) is None


# What is refused


def test_positions_that_timm_interpolates_in_another_way_are_said(tmp_path: Path) -> None:
    pytest.importorskip("timm", minversion=timm_folder.LOWEST)
    vit = backbone(kind="vit", image_size=48, patch=8, width=32, depth=1, heads=2, any_size=True)
    run = make_run(tmp_path / "run", "dino", [vit])  # evaluation sees 32 pixels
    with pytest.raises(ContralexError, match=r"differs from .* For images of another size than 48 pixels, timm"):
        run.export("timm", tmp_path / "model")


@pytest.mark.parametrize(
    ("sets", "to", "sentence"),
    [
        ([], "timm", r"--to timm: timm has no model .* of kind conv\."),
        ([], "torchvision", r"of kind conv\. The formats onnx and torch-export hold any network:\n  contralex export "),
        ([backbone(kind="torchvision", name="resnet18", stem="small")], "timm", r"\(stem is small, .* 7x7\)"),
        ([backbone(kind="torchvision", name="resnet18", width=0.5)], "torchvision", r"\(width is 0.5\)"),
        ([backbone(kind="torchvision", name="mobilenet_v3_small", channels=1)], "torchvision", r"\(channels are 1\)"),
        ([backbone(kind="timm", name="resnet10t")], "torchvision", "timm's resnet10t is not one of torchvision"),
    ],
)
def test_a_library_without_the_architecture_is_refused_and_nothing_is_written(
    sets: list[str], to: Any, sentence: str, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", sets=sets)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ContralexError, match=sentence):
        run.export(to, tmp_path / "model")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("recipe", "preset", "sentence"),
    [
        ("cpc-audio", "tiny", "has no backbone that other libraries could hold"),
        ("cpc", "digits", "has no backbone that other libraries could hold|makes no image of an image"),
    ],
)
def test_an_encoder_of_something_else_than_images_is_refused(
    recipe: str, preset: str, sentence: str, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", recipe, preset=preset)
    with pytest.raises(ContralexError, match=sentence):
        run.export("torch-export", tmp_path / "model")
    assert not (tmp_path / "model").exists()
    if recipe == "cpc-audio":
        with pytest.raises(ContralexError, match="data of kind sequence_folder, which are no images"):
            assert Original(run.folder).images


def test_an_older_torch_has_no_onnx(conv: contralex.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.4.1")
    with pytest.raises(ContralexError, match=r"--to onnx needs torch 2.6 or later, and this is 2.4.1"):
        conv.export("onnx", tmp_path / "model")


def test_an_export_that_differs_is_not_written(
    resnet: contralex.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contralex.exporting import torchvision_file

    def wrong(tensors: dict[str, Tensor], path: Path) -> None:
        save(tensors | {"bn1.bias": tensors["bn1.bias"] + 0.01}, path)

    save: Callable[..., None] = torchvision_file.write_tensors
    monkeypatch.setattr(torchvision_file, "write_tensors", wrong)
    with pytest.raises(ContralexError, match=r"torchvision's resnet18 differs .*nothing was written"):
        resnet.export("torchvision", tmp_path / "model")
    with pytest.raises(ContralexError, match="nothing was written"):
        resnet.export("torchvision", tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written_are_refused_first(conv: contralex.Run, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    (tmp_path / "old.pt2").touch()
    (tmp_path / "new.md").touch()
    for name, sentence in (
        ("taken", "taken is there already"),
        ("old.pt2", "old.pt2 is there already"),
        ("new.pt2", "new.md is there already"),
        ("none/x.pt2", "there is no folder .*none"),
        ("x.onnx", "--to torch-export writes a file that ends in .pt2, or a folder"),
    ):
        with pytest.raises(ContralexError, match=sentence):
            conv.export("torch-export", tmp_path / name)
    with pytest.raises(ContralexError, match=r"--to tim: there is no such format; did you mean timm\?"):
        conv.export("tim", tmp_path / "x")  # type: ignore[arg-type]
    target = exporting.find_target(formats.find_format("timm"), tmp_path / "model.v2")
    assert target.is_folder and target.path.name == "model.v2"


def test_an_empty_folder_may_be_there(conv: contralex.Run, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    assert (conv.export("torch-export", tmp_path / "model").path / "model.pt2").is_file()


@pytest.mark.parametrize("to", ["onnx", "transformers", "timm"])
def test_a_missing_package_is_a_sentence_with_the_command(
    to: Any, resnet: contralex.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, to, None)
    if to == "onnx":
        monkeypatch.setattr(torch, "__version__", "2.6.0")  # an older one is refused before
    with pytest.raises(ContralexError, match=r"not installed:\n  pip install "):
        resnet.export(to, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_an_older_timm_is_a_sentence(resnet: contralex.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    monkeypatch.setattr(timm, "__version__", "1.0.9")
    with pytest.raises(ContralexError, match=r"timm 1.0.9 does not open folders; 1.0.16 is the first"):
        resnet.export("timm", tmp_path / "model")
