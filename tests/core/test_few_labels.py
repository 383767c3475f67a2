"""Shares of labels, and the specs of fine-tuning and distillation."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from contralex.errors import ContralexError
from contralex.kinds.datasets.labelled import choose_labelled
from contralex.kinds.negatives.specs import ClassesSpec
from contralex.kinds.targets.specs import ClassLabelSpec
from contralex.plugins.building import BuildContext
from contralex.recipes.layers import resolve, resolve_data
from contralex_simclr.semi_supervised import Student, add_classifier, derive_distillation, derive_finetuning

# Shares of labels

UNEVEN = [0] * 50 + [1] * 30 + [2] * 3 + [-1] * 40  # the last have no label


def test_classes_have_equally_many_as_far_as_they_reach() -> None:
    counts = Counter(UNEVEN[place] for place in choose_labelled(UNEVEN, 0.1, 0))
    assert sorted(counts.values()) == [2, 3, 3]  # 8 of 83
    counts = Counter(UNEVEN[place] for place in choose_labelled(UNEVEN, 0.5, 0))
    assert counts.total() == round(0.5 * 83) and counts[2] == 3  # all that there are
    assert abs(counts[0] - counts[1]) <= 1
    assert choose_labelled(UNEVEN, 1, 0) == list(range(83))


def test_at_least_one_of_each_class() -> None:
    assert Counter(UNEVEN[place] for place in choose_labelled(UNEVEN, 1e-6, 3)) == {0: 1, 1: 1, 2: 1}


def test_imagenet_in_one_and_ten_percent_is_as_the_official_lists() -> None:
    """Which have 12 or 13, and 128 or 129, of each class; there the labelled images are 1 281 167, of 732 to 1300."""
    labels = [label for label in range(100) for _ in range(1281)]
    assert set(Counter(labels[place] for place in choose_labelled(labels, 0.01, 0)).values()) == {12, 13}
    assert set(Counter(labels[place] for place in choose_labelled(labels, 0.1, 0)).values()) <= {128, 129}


def test_a_larger_share_holds_a_smaller_one_and_the_seed_chooses() -> None:
    small, large = set(choose_labelled(UNEVEN, 0.1, 0)), set(choose_labelled(UNEVEN, 0.3, 0))
    assert small < large
    assert small != set(choose_labelled(UNEVEN, 0.1, 1))
    assert small == set(choose_labelled(UNEVEN, 0.1, 0))


def test_only_training_data_are_cut() -> None:
    run = resolve("simclr-v1", preset="digits", sets=["data={kind: labelled, of: digits, share: 0.1}"]).run
    data: Any = run.data
    source, whole = data.build(), data.of.build()
    assert len(source.train()) == 144 and len(source.test()) == len(whole.test())
    assert source.train().classes == whole.train().classes
    assert sorted(Counter(source.train().labels)) == list(range(10))


def test_data_without_labels_are_refused() -> None:
    nested = "data={kind: labelled, of: {kind: image_folder, root: ., labels: none}, share: 0.1}"
    with pytest.raises(ContralexError, match=r"data\.of.*have no labels to take a fraction of"):
        resolve("simclr-v1", sets=[nested])


# The parts


def _context(dim: int, labels: list[int] | None) -> BuildContext:
    unused: Any = None
    given = None if labels is None else torch.tensor(labels)
    return BuildContext(dim, 10, 4, (0,), encoder=unused, fresh_encoder=unused, labels=given)


def test_classes_are_as_many_as_the_vectors_numbers() -> None:
    with pytest.raises(ContralexError, match=r"has 5 classes and method\.encoder ends in 4 dimensions"):
        ClassesSpec(count=5).build(_context(4, None))


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (None, "these have no labels"),
        ([0, 1, -1, -1], "2 of 4 have none; wrap the data"),
        ([0, 1, 4], "have a class 4, counted from 0, and method.negatives 4 classes"),
    ],
)
def test_labels_that_do_not_do_are_refused(labels: list[int] | None, sentence: str) -> None:
    with pytest.raises(ContralexError, match=sentence):
        ClassLabelSpec().build(_context(4, labels))


def test_a_share_of_the_labels_is_what_labelled_data_keep() -> None:
    labels = [number % 3 for number in range(60)]
    labels[7] = labels[8] = -1  # a sample may have none
    for share, seed in ((0.2, 0), (0.2, 5), (1.0, 0)):
        part = ClassLabelSpec(share=share, seed=seed).build(_context(3, labels))
        known = part.labels.tolist()
        kept = choose_labelled(labels, share, seed)
        assert [index for index, label in enumerate(known) if label >= 0] == kept
        assert [known[index] for index in kept] == [labels[index] for index in kept]
    with pytest.raises(ContralexError, match="these have no labels"):
        ClassLabelSpec(share=0.5).build(_context(3, [-1, -1]))


def test_what_the_labels_are_given_as_depends_on_the_share() -> None:
    sets = [
        "method.encoder.normalize=false",
        "method.negatives={kind: classes, count: 128}",
        "method.targets={kind: class_label, share: 0.1}",
    ]
    with pytest.raises(ContralexError, match=r"method\.loss \(info_nce\) needs index from method\.targets"):
        resolve("simclr-v1", sets=sets)
    assert resolve("simclr-v1", sets=[*sets, "method.loss={kind: soft_cross_entropy, temperature: 1}"])
    assert "share" not in ClassLabelSpec().model_dump(mode="json")  # a recipe without one is written as before


def test_vectors_of_unit_length_are_no_logits() -> None:
    sets = ["method.negatives={kind: classes, count: 128}", "method.targets=class_label"]
    with pytest.raises(ContralexError, match=r"needs any length from method\.encoder"):
        resolve("simclr-v1", sets=sets)


# The specs

V2 = resolve("simclr-v2").data


def tuned(share: float = 0.1, samples: int = 128_117, **options: Any) -> dict[str, Any]:
    data = derive_finetuning(V2, "runs/a", data=V2["data"], fraction=share, classes=1000, samples=samples, **options)
    return resolve_data(data).data


def test_the_papers_settings_for_imagenet() -> None:
    """B 1024, .005·√B = .16, no decay, no warm-up, 60 epochs on 1 %, 30 on 10 %, crop and flip alone, from layer 1."""
    run = tuned()
    train, method = run["train"], run["method"]
    assert (train["batch_size"], train["epochs"], train["batch_norm"]) == (1024, 30, "sync")
    assert tuned(0.01, 12_811)["train"]["epochs"] == 60
    optimizer = resolve_data(run).run.train.optimizer
    rate: Any = optimizer.lr
    assert rate.start * optimizer.scaling.factor(1024) == pytest.approx(0.16)
    assert (rate.warmup_epochs, optimizer.weight_decay) == (0, 0)
    assert [(group.match, group.trust_ratio) for group in optimizer.groups] == [
        ("norm_and_bias", False),
        ("encoder.projector.3.*", False),
    ]
    assert [layer["width"] for layer in method["encoder"]["projector"]] == [2048, 1000]
    assert method["views"]["groups"]["images"]["augment"]["order"] == ["crop", "flip"]
    assert run["init"] == {"checkpoint": "runs/a", "skip": ["projector.3.*"]}
    everything = tuned(1.0, 1_281_167)["method"]["encoder"]["projector"]
    assert [layer["width"] for layer in everything] == [1000]  # from the projector's input


def test_distillation_has_the_schedule_of_pre_training() -> None:
    student = Student(tuned()["method"]["encoder"])
    data = derive_distillation(tuned(), "runs/b", student=student, samples=1_281_167, temperature=0.1)
    run = resolve_data(data).run
    rate: Any = run.train.optimizer.lr
    assert (run.train.epochs, run.train.batch_size, run.train.optimizer.weight_decay) == (400, 4096, 1e-4)
    assert rate.start * run.train.optimizer.scaling.factor(4096) == pytest.approx(6.4)
    assert rate.warmup_epochs == pytest.approx(20)
    assert run.init is None
    assert data["data"] == V2["data"]  # all images
    loss: Any = run.method.loss
    assert loss.temperature == data["method"]["targets"]["temperature"] == 0.1


def test_a_mixture_is_two_look_ups_with_weights_that_add_up_to_one() -> None:
    student = Student(tuned()["method"]["encoder"])
    options: dict[str, Any] = {"student": student, "samples": 1_281_167, "temperature": 0.1}
    before = derive_distillation(tuned(), "runs/b", **options)
    mixed = derive_distillation(tuned(), "runs/b", **options, alpha=0.9)
    added = {name: mixed["method"].pop(name) for name in ("weight", "look_ups")}
    assert mixed == before  # nothing else
    assert added["weight"] == 0.9 and added["look_ups"].keys() == {"labels"}
    labels = added["look_ups"]["labels"]
    assert labels["weight"] == 0.1
    assert labels["targets"] == {"kind": "class_label", "share": 0.1, "seed": 0}  # the teacher's
    everything = {**tuned(), "data": V2["data"]}
    all_labels = derive_distillation(everything, "runs/b", **options, alpha=0.9)["method"]["look_ups"]["labels"]
    assert all_labels["targets"] == {"kind": "class_label", "share": 1.0}


def test_the_rate_of_small_sets_is_over_the_curvature_of_the_loss() -> None:
    """A softmax of temperature τ has 1/τ² times the curvature, and a mixture the mean of both."""
    student = Student(tuned()["method"]["encoder"])

    def rate(**options: Any) -> float:
        data = derive_distillation(tuned(), "runs/b", student=student, samples=1000, **options)
        start: float = data["train"]["optimizer"]["lr"]["start"]
        return start

    assert rate(temperature=1.0) == rate(temperature=1.0, alpha=0.5) == rate(temperature=0.1, hard=True) == 0.05
    assert rate(temperature=0.1) == 0.0005
    assert rate(temperature=0.1, alpha=0.5) == pytest.approx(0.05 / 50.5, rel=1e-5)


def test_small_sets_get_batches_that_they_can_fill() -> None:
    for samples in (4, 20, 144, 1437, 9000):
        train = tuned(0.1, samples)["train"]
        assert train["batch_size"] * 4 <= max(samples, 8) and train["optimizer"]["kind"] == "sgd"
        assert train["epochs"] * (samples // train["batch_size"]) >= 600


def test_what_the_new_layer_is_called() -> None:
    encoder = resolve("moco-v2").data["method"]["encoder"]  # linear, ReLU, linear
    assert add_classifier(encoder, 10, 0)[1] == "projector.0"
    assert add_classifier(encoder, 10, 1)[1] == "projector.2"
    assert add_classifier(encoder, 10, 2)[1] == "projector.3"


def test_a_noisy_student_drops_paths_where_its_backbone_can() -> None:
    able = {**tuned()["method"]["encoder"], "backbone": {"kind": "timm", "name": "resnet10t", "drop_path": 0.1}}
    data = derive_distillation(tuned(), "runs/b", student=Student(able), samples=100, temperature=1.0, noisy=True)
    assert data["method"]["encoder"]["backbone"]["drop_path"] == 0.2
    assert data["method"]["matches"] == ["0->1"]


def test_other_encoders_and_views_are_refused() -> None:
    audio = resolve("cpc-audio").data
    with pytest.raises(ContralexError, match="cannot be made a classifier here"):
        derive_finetuning(audio, "runs/a", data=V2["data"], fraction=0.1, classes=10, samples=100)
