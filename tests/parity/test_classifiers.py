"""Fine-tuning and distillation equal the textbook: F.cross_entropy of backbone and head, and the distillation formula,
in the loss and in every gradient."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.kinds.datasets.labelled import choose_labelled
from contralex.lookup.step import LookUp
from contralex.recipes.layers import resolve, resolve_data
from contralex.training import build
from contralex_simclr.semi_supervised import Student, derive_distillation, derive_finetuning
from tests.margins import same_counts, undecided
from tests.parity.test_methods import LABELS, POPULATION, SAMPLE, SMALL, B, gradients, images, same, step

CLASSES = 3
PRETRAINED = resolve("simclr-v1", preset="digits", sets=SMALL).data
TUNED = resolve_data(
    derive_finetuning(
        PRETRAINED, "runs/none", data=PRETRAINED["data"], fraction=0.5, classes=CLASSES, samples=POPULATION
    ),
    sets=["init=null", f"train.batch_size={B}"],
).data


def fine_tuned() -> LookUp:
    return opinionated(build.look_up(resolve_data(TUNED).run, POPULATION, LABELS).double().train())


def student(*more: str, **options: Any) -> tuple[LookUp, Any]:
    """A student, whose teacher has weights of its own, and a copy of that teacher. ``more``: settings."""
    data = derive_distillation(
        TUNED, "runs/none", student=Student(TUNED["method"]["encoder"], 1), samples=POPULATION, **options
    )
    sets = ["method.key_encoder.checkpoint=null", f"train.batch_size={B}", *more]
    model = build.look_up(resolve_data(data, sets=sets).run, POPULATION, LABELS).double().train()
    opinionated(model, min(0.5, options["temperature"] / 2))
    teacher: Any = model.key_encoder.encoder
    return model, copy.deepcopy(teacher).eval()


def opinionated(model: LookUp, scale: float = 0.5) -> LookUp:
    """With classifiers that are not zero any more."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.shape[:1] == (CLASSES,):
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return model


def logits_of(encoder: Any, x: Tensor) -> Tensor:
    """Backbone, the first layer of the projector with its BatchNorm and ReLU, the classifier; written out."""
    linear, norm, _, last = encoder.projector
    hidden = encoder.backbone(x) @ linear.weight.T
    if encoder.training:
        mean, variance = hidden.mean(0), hidden.var(0, unbiased=False)
    else:
        mean, variance = norm.running_mean, norm.running_var
    hidden = torch.relu((hidden - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias)
    return hidden @ last.weight.T + last.bias


def test_fine_tuning_is_cross_entropy() -> None:
    model, views = fine_tuned(), images(1)
    labels = torch.tensor([LABELS[index] for index in SAMPLE])
    same(model, views, lambda: F.cross_entropy(logits_of(model.encoder, views[0]), labels))


def test_the_share_that_is_found_is_the_accuracy() -> None:
    model, views = fine_tuned(), images(1)
    right = logits_of(model.encoder, views[0]).argmax(1) == torch.tensor([LABELS[index] for index in SAMPLE])
    unsure: list[float] = []
    with undecided(unsure):
        found = model(views, SAMPLE, step()).accuracy
    assert 0 < right.float().mean() < 1 and unsure[0] < 0.2
    same_counts([found], [right.double().mean()], unsure)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("noisy", [False, True])
def test_distillation_is_the_formula(temperature: float, noisy: bool) -> None:
    """L = −Σ_i Σ_y P_T(y|x_i; τ) log P_S(y|x_i; τ), in a loop (SimCLR v2, section 2); here the mean over the batch."""
    model, teacher = student(temperature=temperature, noisy=noisy)
    views = images(2 if noisy else 1)

    def oracle() -> Tensor:
        wanted, given = logits_of(teacher, views[1 if noisy else 0]), logits_of(model.encoder, views[0])
        total = torch.zeros(())
        for i in range(B):
            p, q = (z[i] / temperature - torch.logsumexp(z[i] / temperature, 0) for z in (wanted, given))  # logarithms
            total = total - sum(torch.exp(p[y]).detach() * q[y] for y in range(CLASSES))
        return total / B

    same(model, views, oracle)


@pytest.mark.parametrize("noisy", [False, True])
def test_a_mixture_is_of_the_teachers_answers_and_of_the_labels_that_it_learned_from(noisy: bool) -> None:
    """L = −(1−α) Σ_labelled log P_S(y_i|x_i; 1) − α Σ_i Σ_y P_T(y|x_i; τ) log P_S(y|x_i; τ), in a loop, over the size
    of the batch (SimCLR v2, Eq. 3). The labelled samples are those of the teacher's data, half of them."""
    alpha, tau = 0.7, 0.4
    model, teacher = student(temperature=tau, noisy=noisy, alpha=alpha)
    views = images(2 if noisy else 1)
    labelled = choose_labelled(LABELS, 0.5, seed=0)  # the data on which TUNED was trained
    assert {index in labelled for index in SAMPLE.tolist()} == {True, False}

    def log_p(logits: Tensor, divisor: float, y: int) -> Tensor:
        return logits[y] / divisor - torch.logsumexp(logits / divisor, 0)

    def oracle() -> Tensor:
        wanted, given = logits_of(teacher, views[1 if noisy else 0]), logits_of(model.encoder, views[0])
        total = torch.zeros(())
        for i, index in enumerate(SAMPLE.tolist()):
            for y in range(CLASSES):
                total = total - alpha * log_p(wanted[i], tau, y).exp().detach() * log_p(given[i], tau, y)
            if index in labelled:
                total = total - (1 - alpha) * log_p(given[i], 1.0, LABELS[index])
        return total / B

    same(model, views, oracle)


def test_the_labels_of_a_mixture_are_found_where_there_are_any() -> None:
    model, _ = student(temperature=1.0, alpha=0.7)
    labelled = torch.tensor([index in choose_labelled(LABELS, 0.5, seed=0) for index in SAMPLE.tolist()])
    right = logits_of(model.encoder, images(1)[0]).argmax(1) == torch.tensor([LABELS[index] for index in SAMPLE])
    unsure: list[float] = []
    with undecided(unsure):
        found = model(images(1), SAMPLE, step()).answers["labels"].accuracy
    assert (right & labelled).any() and not (right & labelled).all()
    same_counts([found], [(right & labelled).float().mean()], unsure)


def test_all_labels_are_those_of_a_classifier() -> None:
    """A share of 1 has the loss and the gradients of an index: one distribution, all of it on the class."""
    more = ["method.look_ups.labels.targets.share=1", "method.weight=0"]
    model, _ = student(*more, temperature=1.0, alpha=0.5)
    labels = torch.tensor([LABELS[index] for index in SAMPLE])
    same(model, images(1), lambda: F.cross_entropy(logits_of(model.encoder, images(1)[0]), labels) / 2)


def test_hard_labels_of_which_the_teacher_is_sure() -> None:
    """As Noisy Student's pseudo-labels: samples below the threshold count in the mean, and add nothing to it."""
    views = images(1)
    _, teacher = student(temperature=1.0)
    sureness = F.softmax(logits_of(teacher, views[0]), dim=1).amax(1)
    threshold = sureness.median().item() + 1e-5
    sure = sureness >= threshold
    assert 0 < sure.sum() < B  # the batch has both
    model, teacher = student(temperature=1.0, hard=True, threshold=threshold)

    def oracle() -> Tensor:
        wanted = logits_of(teacher, views[0]).argmax(1)
        given = logits_of(model.encoder, views[0])
        each = [F.cross_entropy(given[i : i + 1], wanted[i : i + 1]) for i in range(B) if sure[i]]
        return torch.stack(each).sum() / B

    same(model, views, oracle)


def test_a_teacher_does_not_move() -> None:
    model, teacher = student(temperature=1.0)
    moved = gradients(model, model(images(1), SAMPLE, step()).loss)
    assert moved and not any(name.startswith("key_encoder") for name in moved)
    moment = step()
    model.update(model(images(1), SAMPLE, moment).keys, moment)
    frozen: Any = model.key_encoder
    for name, value in frozen.encoder.state_dict().items():
        assert torch.equal(value, teacher.state_dict()[name]), name


def test_a_query_that_is_to_find_nothing_is_not_counted_as_found() -> None:
    model, teacher = student(temperature=1.0, threshold=0.999999)
    teacher_is_unsure = F.softmax(logits_of(teacher, images(1)[0]), dim=1).amax(1) < 0.999999
    assert teacher_is_unsure.all()
    found = model(images(1), SAMPLE, step())
    assert found.accuracy == 0 and found.loss == 0
