"""CRD's own parts: what memory it draws from, what teacher it has, what it adds up."""

from __future__ import annotations

from dataclasses import replace
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
from contralex.plugin import BuildContext, ContralexError, Dictionary, Match, Rows, Step
from contralex.recipes.layers import resolve
from contralex.training import build
from contralex.training.checkpoints import write
from contralex.training.checkpoints.state import CheckpointState
from contralex_crd.memory import OtherClassesMemory
from contralex_crd.objective import DistillationTargets
from contralex_crd.resnet import Block
from contralex_crd.spec import CifarResNetSpec, CRDSpec, DistilledSpec, OtherClassesSpec, SameSpec

B, K, E, C = 6, 400, 8, 3
LABELS = torch.tensor([(7 * index) % 5 % 3 for index in range(20)])  # 8, 8 and 4 of them
SAMPLE = torch.tensor([3, 17, 0, 8, 5, 12])
STEP = Step(Clock(3, 10, 5), seed=0, batch=B)
CONV = {"kind": "conv", "widths": (6, 8), "strides": (2, 2)}


def student(**fields: Any) -> Any:
    torch.manual_seed(0)
    return DistilledSpec.model_validate({"backbone": CONV, "classes": C, "width": E, "teacher": None, **fields}).build()


def context(encoder: Any = None, labels: Tensor | None = LABELS) -> BuildContext:
    encoder = encoder or student()
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
    vectors = torch.zeros(B, E + C)
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


def test_memory_remembers_embeddings_alone() -> None:
    part = memory()
    part.bank.bank(1).copy_(torch.ones(20, E))
    keys = Rows.cat([Rows.from_view(torch.randn(B, E + C), SAMPLE, view) for view in (1, 0)])
    part.update(keys, STEP)
    mixed = 0.5 + 0.5 * keys.select_view(1).vectors[:, :E]
    assert_close(part.bank.bank(1)[SAMPLE], F.normalize(mixed, dim=1))


def test_a_view_that_looks_itself_up_is_compared_with_the_classes() -> None:
    queries = Rows.from_view(torch.randn(B, E + C), SAMPLE, 0)
    found = memory()(queries, queries, Match(0, 0), STEP)
    assert_close(found.scores(queries.vectors), queries.vectors[:, E:])
    assert found.size == C


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (None, "20 of 20 have none"),
        (torch.where(torch.arange(20) < 4, -1, LABELS), "4 of 20 have none"),
        (LABELS + 1, "the data have a class 3, counted from 0. Try:\n  --set method.encoder.classes=4"),
        (LABELS * 0, "and the data have one"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: Tensor | None, sentence: str) -> None:
    with pytest.raises(ContralexError, match=sentence):
        OtherClassesSpec(draws=K).build(context(labels=labels))


# Student and teacher


def test_the_teacher_learns_nothing_but_its_embedding_does() -> None:
    encoder = student().train()
    before = {name: tensor.clone() for name, tensor in encoder.teacher.state_dict().items()}
    views = {0: torch.rand(B, 3, 8, 8), 1: torch.rand(B, 3, 8, 8)}
    vectors = encoder.queries(encoder(views))
    (vectors[0][0].pow(3).sum() + vectors[1][0].pow(3).sum()).backward()
    still = {name for name, p in encoder.named_parameters() if p.grad is None}
    assert still == {name for name, _ in encoder.named_parameters() if name.startswith("teacher.")}
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.teacher.state_dict().items())
    assert not encoder.teacher.training and encoder.backbone.training


def test_a_vector_is_a_unit_embedding_beside_logits() -> None:
    encoder, image = student().eval(), torch.rand(B, 3, 8, 8)
    found = encoder.queries(encoder({0: image, 1: image}))
    features, theirs = encoder.backbone(image), encoder.teacher.backbone(image)
    assert_close(found[0][0][:, :E], F.normalize(encoder.student_embedding(features), dim=1))
    assert_close(found[0][0][:, E:], encoder.classifier(features))
    assert_close(found[1][0][:, :E], F.normalize(encoder.teacher_embedding(theirs), dim=1))
    assert not found[1][0][:, E:].any()  # a random teacher tells no class
    assert_close(encoder.features(image), features)
    assert_close(encoder.embedding(image), found[0][0][:, :E])


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
    found = encoder.queries(encoder({1: image}))[1][0]
    assert_close(found[:, :E], F.normalize(encoder.teacher_embedding(theirs.features(image)), dim=1))
    assert_close(found[:, E:], theirs.embedding(image))
    assert encoder.teacher.classifies and not student(teacher=path).teacher.classifies  # of other classes


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


# Targets and loss


def test_the_three_losses_are_hintons_and_instdiscs(tmp_path: Path) -> None:
    encoder = student(teacher=teacher_of(tmp_path), classes=10)
    known = context(encoder)
    loss: Any = CRDSpec(contrast=0.7, cross_entropy=1.3, distillation=0.4, softness=3, temperature=0.2).build(known)
    student_logits, teacher_logits = torch.randn(B, 10, requires_grad=True), 3 * torch.randn(B, 10)
    embedding = torch.zeros(B, E)
    queries = Rows.from_view(torch.cat([embedding, student_logits], dim=1), SAMPLE, 0)
    order = torch.randperm(B)  # keys may stand in any order
    keys = Rows.from_view(torch.cat([embedding, teacher_logits], dim=1)[order], SAMPLE[order], 1)
    dictionary = Dictionary(shared=torch.eye(10), span=(E, E + 10))
    targets = DistillationTargets(encoder, LABELS, len(LABELS))(queries, keys, dictionary, Match(0, 0), STEP)
    found = loss(queries, dictionary, targets, STEP)
    expected = torch.zeros(())
    for logits, theirs, sample in zip(student_logits, teacher_logits, SAMPLE, strict=True):
        expected = expected - 1.3 * torch.log(torch.exp(logits[LABELS[sample]]) / torch.exp(logits).sum())
        p, q = torch.softmax(theirs / 3, 0), torch.softmax(logits / 3, 0)
        expected = expected + 0.4 * 9 * sum(a * (a.log() - b.log()) for a, b in zip(p, q, strict=True))
    assert_close(found, expected / B, rtol=1e-5, atol=1e-5)
    mine, theirs = torch.autograd.grad(found, student_logits)[0], torch.autograd.grad(expected / B, student_logits)[0]
    assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def test_logits_of_no_classifier_cannot_be_distilled() -> None:
    with pytest.raises(ContralexError, match=r"method\.encoder\.teacher is no classifier"):
        CRDSpec(distillation=1).build(context())


def test_distillation_without_the_teachers_view_is_refused_when_it_is_built(tmp_path: Path) -> None:
    known = replace(context(student(teacher=teacher_of(tmp_path), classes=10)), key_views=(0,))
    with pytest.raises(ContralexError, match=r"add 0->1 to method\.matches"):
        CRDSpec(distillation=1).build(known)


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
