"""Few labels: episodes against a naive loop, SVMs as VISSL trains them, and official lists of files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from contralex.data.base import Split
from contralex.data.loading import mix_seed
from contralex.errors import ContralexError
from contralex.evaluation import few_labels
from tests.core.test_knn import Rows, clusters


def test_episodes_are_the_naive_loop() -> None:
    features, labels = clusters(120, 0)
    found = few_labels.few_shot(features, labels, ways=3, shots=2, queries=4, episodes=20, seed=5)
    members = [[i for i in range(120) if labels[i] == label] for label in labels.unique().tolist()]
    members = [each for each in members if len(each) >= 6]
    accuracies = []
    for number in range(20):
        draw = torch.Generator().manual_seed(mix_seed(5, 3, 2, number))
        ways = torch.randperm(len(members), generator=draw)[:3].tolist()
        means, asked = [], []
        for way, which in enumerate(ways):
            order = torch.randperm(len(members[which]), generator=draw)[:6].tolist()
            rows = [F.normalize(features[members[which][at]], dim=0) for at in order]
            means.append(torch.stack(rows[:2]).mean(dim=0))
            asked += [(way, row) for row in rows[2:]]
        right = [way == min(range(3), key=lambda c: float((row - means[c]).norm())) for way, row in asked]
        accuracies.append(sum(right) / len(right))
    assert found.mean == pytest.approx(np.mean(accuracies))
    assert found.interval == pytest.approx(1.96 * np.std(accuracies, ddof=1) / np.sqrt(20))
    assert 0.4 < found.mean < 1


def test_too_few_images_for_episodes_is_a_sentence() -> None:
    features, labels = clusters(12, 0)
    with pytest.raises(ContralexError, match=r"5 classes with 1 \+ 15 images each: 0 classes.*\n  --queries 7$"):
        few_labels.few_shot(features, labels, ways=5, shots=1, queries=15, episodes=2)


def test_shots_are_of_each_class_and_a_function_of_the_seed() -> None:
    labels = torch.tensor([0] * 10 + [1] * 10 + [2])
    drawn = few_labels.draw_shots(labels, 3, 0)
    assert torch.bincount(labels[drawn]).tolist() == [3, 3, 1]
    assert torch.equal(drawn, few_labels.draw_shots(labels, 3, 0))
    assert not torch.equal(drawn, few_labels.draw_shots(labels, 3, 1))


def test_svms_are_vissls() -> None:
    svm = pytest.importorskip("sklearn.svm")
    metrics = pytest.importorskip("sklearn.metrics")
    (train, labels), (test, truth) = clusters(60, 0), clusters(40, 1)
    found = few_labels.low_shot_svm(train, labels, test, truth, [0.1])
    inputs = (train / (train.norm(dim=1, keepdim=True) + 1e-5)).double().numpy()
    asked = (test / (test.norm(dim=1, keepdim=True) + 1e-5)).double().numpy()
    precisions = []
    for label in range(7):
        machine = svm.LinearSVC(C=0.1, class_weight={1: 2, -1: 1}, intercept_scaling=1.0, max_iter=2000, dual=True)
        machine.fit(inputs, np.where(labels.numpy() == label, 1, -1))
        precisions.append(metrics.average_precision_score(truth.numpy() == label, machine.decision_function(asked)))
    assert found[0.1] == pytest.approx(np.mean(precisions), abs=1e-3)


class Named(Rows):
    def item_name(self, index: int) -> str:
        return f"/data/train/n01/n01_{index}.JPEG"


def test_a_list_of_files_chooses_its_images(tmp_path: Path) -> None:
    split: Split = Named(torch.rand(6, 2), [0] * 6)
    (tmp_path / "1percent.txt").write_text("n01_4.JPEG\nn01_1.JPEG\n\n")
    assert few_labels.subset_by_file(split, tmp_path / "1percent.txt") == [1, 4]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("n01_4.JPEG\nn02_1.JPEG\n", r"do not have n02_1\.JPEG and 0 others of its 2"),
        ("", "do not have a single line"),
        (None, r"cannot be read \(No such file"),
    ],
)
def test_a_list_of_other_files_is_refused(text: str | None, sentence: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "list.txt").write_text(text)
    with pytest.raises(ContralexError, match=sentence):
        few_labels.subset_by_file(Named(torch.rand(6, 2), [0] * 6), tmp_path / "list.txt")
