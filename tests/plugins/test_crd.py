"""CRD's own parts: what memory it draws from, what teacher it has, what it adds up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close
from torchvision.transforms import v2

from contralex.data.base import Split
from contralex.data.loading import ViewDataset
from contralex.lookup.clock import Clock
from contralex.plugin import BuildContext, ContralexError, Match, Rows, Step
from contralex.recipes.layers import resolve
from contralex.training import build
from contralex.training.checkpoints import write
from contralex.training.checkpoints.state import CheckpointState
from contralex_crd.memory import OtherClassesMemory
from contralex_crd.resnet import Block
from contralex_crd.spec import CifarResNetSpec, DistilledSpec, OtherClassesSpec, SameSpec

B, K, E, C = 6, 400, 8, 3
LABELS = torch.tensor([(7 * index) % 5 % 3 for index in range(20)])  # 8, 8 and 4 of them
SAMPLE = torch.tensor([3, 17, 0, 8, 5, 12])
STEP = Step(Clock(3, 10, 5), seed=0, batch=B)
CONV = {"kind": "conv", "widths": (6, 8), "strides": (2, 2)}


def student(**fields: Any) -> Any:
    torch.manual_seed(0)
    return DistilledSpec.model_validate({"backbone": CONV, "classes": C, "width": E, "teacher": None, **fields}).build()


def context(labels: Tensor | None = LABELS) -> BuildContext:
    encoder = student()
    return BuildContext(encoder.dim, 20, B, (1, 0), encoder, fresh_encoder=student, labels=labels, query_views=(0, 1))


def memory(**fields: Any) -> OtherClassesMemory:
    """Whose rows say where they are from: the sample's number, a hundred for the view."""
    part = OtherClassesSpec.model_validate({"draws": K, **fields}).build(context())
    assert isinstance(part, OtherClassesMemory)
    for view in (0, 1):
        part.bank.bank(view).copy_(torch.arange(20.0).unsqueeze(1) + 100 * view)
    return part


def drawn(part: OtherClassesMemory, query: int, key: int, moment: Step = STEP) -> Tensor:
    """(B, 1+K) the samples that queries are compared with, as the entries say."""
    vectors = torch.zeros(B, E)
    own = part(
        Rows.from_view(vectors, SAMPLE, query), Rows.from_view(vectors, SAMPLE, key), Match(query, key), moment
    ).own
    assert own is not None and own.shape == (B, 1 + K, E)
    assert bool((own == own[..., :1]).all())
    places: Tensor = (own[..., 0] - 100 * key).long()
    return places


# Memory


def test_negatives_are_all_of_other_classes_and_each_is_drawn_as_often() -> None:
    places = drawn(memory(), 0, 1)
    assert torch.equal(places[:, 0], SAMPLE)
    for row, sample in zip(places[:, 1:], SAMPLE, strict=True):
        others = [index for index in range(20) if LABELS[index] != LABELS[sample]]
        counts = torch.bincount(row, minlength=20)
        assert counts.nonzero().flatten().tolist() == others
        expected = K / len(others)
        assert float(((counts[others] - expected) ** 2 / expected).sum()) < 40  # χ² with 15 degrees of freedom or fewer


def test_both_sides_see_the_same_samples_and_each_step_others() -> None:
    part = memory()
    assert torch.equal(drawn(part, 0, 1), drawn(part, 1, 0))
    later = Step(Clock(4, 10, 5), seed=0, batch=B)
    assert not torch.equal(drawn(part, 0, 1), drawn(part, 0, 1, later))


def test_a_relaxed_positive_is_any_sample_of_the_class() -> None:
    part = memory(positive="relax")
    seen: list[set[int]] = [set() for _ in SAMPLE]
    for number in range(80):
        places = drawn(part, 0, 1, Step(Clock(number, 100, 5), seed=0, batch=B))
        for place, positive in enumerate(places[:, 0].tolist()):
            seen[place].add(positive)
    for found, sample in zip(seen, SAMPLE, strict=True):
        assert found == {index for index in range(20) if LABELS[index] == LABELS[sample]}


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (None, "20 of 20 have none"),
        (torch.where(torch.arange(20) < 4, -1, LABELS), "4 of 20 have none"),
        (LABELS * 0, "and the data have one"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: Tensor | None, sentence: str) -> None:
    with pytest.raises(ContralexError, match=sentence):
        OtherClassesSpec(draws=K).build(context(labels))


# Student and teacher


def test_the_teacher_learns_nothing_but_its_embedding_does() -> None:
    encoder = student().train()
    before = {name: tensor.clone() for name, tensor in encoder.teacher.state_dict().items()}
    embedded = encoder(dict(enumerate(torch.rand(2, B, 3, 8, 8))))
    found = [*encoder.queries_of("image", embedded).values(), encoder.queries_of("logits", {0: embedded[0]})[0]]
    torch.stack([vectors.pow(3).sum() for vectors, _ in found]).sum().backward()
    still = {name for name, p in encoder.named_parameters() if p.grad is None}
    assert still == {name for name, _ in encoder.named_parameters() if name.startswith("teacher.")}
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.teacher.state_dict().items())
    assert not encoder.teacher.training and encoder.backbone.training


def test_there_are_unit_embeddings_of_both_and_logits_of_the_student() -> None:
    encoder, image = student().eval(), torch.rand(B, 3, 8, 8)
    embedded = encoder({0: image, 1: image})
    found = encoder.queries_of("image", embedded)
    features, theirs = encoder.backbone(image), encoder.teacher.backbone(image)
    assert_close(found[0][0], F.normalize(encoder.student_embedding(features), dim=1))
    assert_close(found[1][0], F.normalize(encoder.teacher_embedding(theirs), dim=1))
    assert_close(encoder.queries_of("logits", {0: embedded[0]})[0][0], encoder.classifier(features))
    assert_close(encoder.features(image), features)
    assert_close(encoder.embedding(image), found[0][0])


def test_without_classes_there_are_no_logits() -> None:
    encoder = student(classes=None)
    assert encoder.outputs == {"image": E} and not any(name.startswith("classifier") for name in encoder.state_dict())
    with pytest.raises(ContralexError, match=r"look_ups\.labels\.of asks for the output logits"):
        resolve("crd", preset="digits", sets=["method.encoder.classes=null"])


def test_a_class_beyond_those_of_the_recipe_is_refused() -> None:
    found = r"a class 10, counted from 0, .* method\.look_ups\.labels\.negatives\.count"
    with pytest.raises(ContralexError, match=found):
        build.look_up(resolve("crd", preset="digits").run, 20, [*range(10), *range(1, 11)])


def teacher_of(folder: Path, *sets: str) -> str:
    """A run's checkpoint of a teacher that was never trained."""
    small = ["method.encoder.backbone={kind: conv, widths: [4, 5], strides: [2, 2]}", *sets]
    found = resolve("crd-teacher", preset="digits", sets=small)
    model = build.look_up(found.run, 20, (LABELS % 10).tolist())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    write.save(folder, CheckpointState.make(found, 1), model.state_dict(), optimizer)
    return str(folder / "step-1")


def test_a_teacher_of_a_checkpoint_gives_its_features_and_its_logits(tmp_path: Path) -> None:
    path = teacher_of(tmp_path)
    encoder, image = student(teacher=path, classes=10).train(), torch.rand(B, 3, 8, 8)
    theirs = build.load_encoder(path)
    embedded = encoder({1: image})
    unit, logits = (encoder.keys_of(output, embedded)[1][0] for output in ("image", "logits"))
    assert_close(unit, F.normalize(encoder.teacher_embedding(theirs.features(image)), dim=1))
    assert_close(logits, theirs.embedding(image))


@pytest.mark.parametrize("classes", [None, C])
def test_logits_of_no_classifier_of_as_many_classes_cannot_be_distilled(classes: int | None, tmp_path: Path) -> None:
    encoder = student(teacher=classes and teacher_of(tmp_path))  # of 10 classes
    embedded = encoder({0: torch.rand(B, 3, 8, 8), 1: torch.rand(B, 3, 8, 8)})
    assert encoder.keys_of("image", embedded).keys() == {0, 1}
    with pytest.raises(ContralexError, match=r"method\.encoder\.teacher is no classifier of as many classes"):
        encoder.keys_of("logits", embedded)


def test_a_teacher_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(ContralexError, match=r"^method\.encoder\.teacher: .*gone is no checkpoint"):
        student(teacher=str(tmp_path / "gone"))


def test_another_kind_of_teacher_is_refused(tmp_path: Path) -> None:
    found = resolve("crd", preset="digits")
    model = build.look_up(found.run, 20, LABELS.tolist())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    write.save(tmp_path, CheckpointState.make(found, 1), model.state_dict(), optimizer)
    with pytest.raises(ContralexError, match="holds an encoder of type DistilledEncoder; give a run whose"):
        student(teacher=str(tmp_path / "step-1"))


def test_a_third_view_is_refused() -> None:
    with pytest.raises(ContralexError, match=r"method\.matches asks for view 2; use 0->1, 1->0 and 0->0"):
        student()({2: torch.rand(B, 3, 8, 8)})


def test_the_card_shows_a_recipe_that_distils_logits_as_well(tmp_path: Path) -> None:
    card = Path(__file__).parents[2] / "plugins/crd/README.md"
    recipe = tmp_path / "crd-kd.yaml"
    recipe.write_text(card.read_text("utf-8").split("```yaml\n")[1].split("```")[0], "utf-8")
    sets = [f"method.encoder.teacher={teacher_of(tmp_path)}", f"method.encoder.backbone={json.dumps(CONV)}"]
    model = build.look_up(resolve(str(recipe), preset="digits", sets=sets).run, 20, LABELS.tolist())
    image = torch.rand(B, 3, 8, 8)
    found = model({0: image, 1: image}, SAMPLE, STEP)
    parts = {name: float(answer.loss) for name, answer in found.answers.items()}
    assert float(found.loss.detach()) == pytest.approx(0.05 * parts["main"] + parts["labels"] + 16 * parts["teacher"])
    p, logits = (model.encoder.keys_of("logits", model.encoder({v: image}))[v][0] / 4 for v in (1, 0))
    assert parts["teacher"] == pytest.approx(float(F.cross_entropy(logits, p.softmax(dim=1)).detach()), rel=1e-4)


# Views and backbone


class Pictures(Split):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Image.Image:
        return Image.fromarray(np.random.default_rng(index).integers(1, 256, (32, 32, 3), dtype=np.uint8))


AUGMENT: dict[str, Any] = {
    "order": ["crop", "flip"],
    "crop": {"size": 32, "scale": [0.64, 0.64], "ratio": [1, 1]},
    "flip": {},
}


def test_student_and_teacher_see_the_same_pixels() -> None:
    views = SameSpec.model_validate({"augment": AUGMENT, "pad": 4}).build()
    made = [ViewDataset(Pictures(), views, seed=1, batch=3)[epoch, 4]["views"] for epoch in (0, 1)]
    assert all(torch.equal(both[0], both[1]) for both in made)
    assert not torch.equal(made[0][0], made[1][0])


def test_padding_and_a_crop_of_constant_size_are_the_usual_random_crop() -> None:
    """Every crop is one of the 81 places (and their mirror images) of torchvision's RandomCrop(32, padding=4)."""
    image = Pictures()[0]
    padded = v2.functional.to_image(v2.functional.pad(image, [4]))
    whole = [padded[:, y : y + 32, x : x + 32] for y in range(9) for x in range(9)]
    allowed = {crop.numpy().tobytes() for each in whole for crop in (each, each.flip(-1))}
    views = SameSpec.model_validate({"augment": AUGMENT, "pad": 4}).build()
    torch.manual_seed(0)
    made = {(views.make(image, 0) * 255).round().to(torch.uint8).numpy().tobytes() for _ in range(300)}
    assert made <= allowed and len(made) > 100  # of 162
    assert_close(views.plain(image), v2.functional.to_image(image).float() / 255)


@pytest.mark.parametrize(("depth", "blocks"), [(8, 1), (32, 5)])
def test_resnets_for_small_images(depth: int, blocks: int) -> None:
    torch.manual_seed(0)
    model, width = CifarResNetSpec(depth=depth, widths=(32, 64, 128, 256)).build()
    branches = [m for m in model.modules() if isinstance(m, Block)]
    convolutions = [m for b in branches for m in b.branch if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [w for w in (64, 128, 256) for _ in range(2 * blocks)]
    assert [c.stride[0] for c in convolutions if c.stride[0] > 1] == [2, 2]
    assert len(convolutions) + 2 == depth  # the first convolution, and the classifier that is not here
    assert width == 256 and model.eval()(torch.rand(2, 3, 32, 32)).shape == (2, 256)
    if depth == 8:  # the paper's student has 1.2 million parameters, with the classifier of 100 classes
        assert sum(p.numel() for p in model.parameters()) + 257 * 100 == 1_233_540


def test_a_depth_without_whole_blocks_is_refused() -> None:
    with pytest.raises(ValidationError, match="6n \\+ 2, so 8 or 14"):
        CifarResNetSpec(depth=10)
