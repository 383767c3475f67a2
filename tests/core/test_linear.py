"""The linear probe against scikit-learn, and its evaluation of encoders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from contralex.evaluation import linear
from contralex.evaluation.features import Features, NoLabels
from contralex.evaluation.linear import LinearClassifier, evaluate_linear, fit
from contralex.recipes.run_spec import LinearSpec
from tests.core.test_knn import AsIs, Pair, Rows, Tiny, clusters
from tests.margins import margins

SPEC = LinearSpec(weight_decay=0.01)


def source(broken: Sequence[int] = ()) -> Pair:
    (train, labels), (test, truth) = clusters(120, 0), clusters(80, 1)
    return Pair(Rows(train, labels.tolist(), broken), Rows(test, truth.tolist()))


def share(fitted: LinearClassifier, features: Tensor, labels: Tensor) -> float:
    return fitted.hits(features, labels)[0] / len(features)


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("weight_decay", [1.0, 1e-2, 1e-4])
def test_it_is_scikit_learns_logistic_regression(weight_decay: float, standardize: bool) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    (train, labels), (test, truth) = clusters(200, 0), clusters(100, 1)
    train, test = train * torch.linspace(0.5, 3, 8) + 1, test * torch.linspace(0.5, 3, 8) + 1
    labels, truth = labels * 3, truth * 3  # the names of classes are not their numbers

    scaler = preprocessing.StandardScaler(with_mean=standardize, with_std=standardize)
    inputs = scaler.fit_transform(train.double().numpy())
    judge = linear_model.LogisticRegression(C=1 / (200 * weight_decay), solver="newton-cholesky", tol=1e-10)
    judge.fit(inputs, labels.numpy())

    found = fit(train, labels, weight_decay, standardize=standardize, flat=1e-8)
    assert found.converged
    assert found.classes.tolist() == judge.classes_.tolist()
    np.testing.assert_allclose(found.weight.numpy(), judge.coef_, atol=2e-4, rtol=1e-3)
    # A number added to all biases changes no probability.
    ours = (found.bias if standardize else found.bias - found.weight @ found.mean).numpy()
    theirs = judge.intercept_
    np.testing.assert_allclose(ours - ours.mean(), theirs - theirs.mean(), atol=5e-4, rtol=1e-3)
    outputs = found.logits(test).softmax(dim=1).numpy()
    np.testing.assert_allclose(outputs, judge.predict_proba(scaler.transform(test.double().numpy())), atol=1e-4)
    clear = margins(found.logits(test).softmax(dim=1)) > 2e-4  # the bound above, twice
    test, truth = test[clear], truth[clear]
    assert len(test) > 90
    assert share(found, test, truth) == judge.score(scaler.transform(test.double().numpy()), truth.numpy())
    assert 0.2 < share(found, test, truth) < 1


@pytest.mark.parametrize(("classes", "factor"), [(2, 2), (3, 1)])
def test_what_scikit_learns_c_is(classes: int, factor: int) -> None:
    """Two classes have one row of weights in scikit-learn, and two here."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    train, labels = clusters(200, 0, classes)
    inputs = ((train.double() - train.double().mean(0)) / train.double().std(0, correction=0)).numpy()
    found = fit(train, labels, 0.01, flat=1e-9).logits(train).softmax(dim=1).numpy()

    def apart(factor: int) -> float:
        judge = linear_model.LogisticRegression(C=factor / (200 * 0.01), tol=1e-12, max_iter=10_000)
        return float(np.abs(found - judge.fit(inputs, labels.numpy()).predict_proba(inputs)).max())

    assert apart(factor) < 1e-6 < 1e-3 < apart(3 - factor)


def test_the_gradient_that_is_written_out_is_autograds() -> None:
    """Where it has converged, the gradient of the objective as one would write it vanishes; so no term is missing."""
    train, labels = clusters(60, 0)
    found = fit(train, labels, 0.01, flat=1e-8)
    weight, bias = found.weight.clone().requires_grad_(), found.bias.clone().requires_grad_()
    inputs = (train.double() - train.double().mean(0)) / train.double().std(0, correction=0)
    loss = torch.nn.functional.cross_entropy(inputs @ weight.T + bias, labels) + 0.005 * weight.square().sum()
    loss.backward()  # type: ignore[no-untyped-call]
    for parameter in (weight, bias):
        assert parameter.grad is not None
        assert float(parameter.grad.abs().max()) < 1e-7


def test_what_can_be_separated_is_and_shuffled_labels_are_chance() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 4
    features = 6 * torch.nn.functional.one_hot(labels, 4).float() + 0.3 * torch.randn(400, 4, generator=generator)
    right = fit(features[:200], labels[:200], 1e-3)
    assert right.hits(features[200:], labels[200:]) == (200, 200)
    shuffled = labels[torch.randperm(400, generator=generator)]
    wrong = fit(features[:200], shuffled[:200], 1e-3)
    assert share(wrong, features[200:], shuffled[200:]) == pytest.approx(0.25, abs=0.09)


def test_classes_that_are_not_trained_on_are_missed_and_constant_features_do_no_harm() -> None:
    train, labels = clusters(60, 0)
    test, truth = clusters(40, 1)
    found = fit(train[labels != 3], labels[labels != 3], 0.01)
    assert 3 not in found.classes.tolist()
    assert found.hits(test[truth == 3], truth[truth == 3]) == (0, 0)
    wide = torch.cat([train, torch.full((60, 1), 1e4)], dim=1)
    wide[0, -1] = torch.nextafter(wide[0, -1], torch.tensor(0.0))  # rounding is no feature
    assert float(fit(wide, labels, 0.01).scale[-1]) == 1.0
    torch.testing.assert_close(
        fit(wide, labels, 0.01).weight[:, :-1], fit(train, labels, 0.01).weight, atol=1e-4, rtol=1e-3
    )


@pytest.mark.parametrize(("name", "value"), [("_ROWS", 7), ("_WIDE", 7)])
def test_what_saves_memory_changes_nothing(name: str, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    train, labels = clusters(60, 0)
    whole = fit(train, labels, 0.01)
    monkeypatch.setattr(f"contralex.evaluation.linear.{name}", value)
    parts = fit(train, labels, 0.01)
    torch.testing.assert_close(parts.weight, whole.weight, atol=1e-5, rtol=1e-4)
    clear = margins(whole.logits(train)) > 1e-3
    assert clear.sum() > 50 and parts.hits(train[clear], labels[clear]) == whole.hits(train[clear], labels[clear])


def correlated(rows: int, width: int) -> tuple[Tensor, Tensor]:
    """Features as pixels are: a few directions hold most of what differs. Sorted by class, as folders are."""
    generator = torch.Generator().manual_seed(0)
    labels = (torch.arange(rows) * 5) // rows
    centres = torch.randn(5, width, generator=generator)
    mixed = torch.linalg.qr(torch.randn(width, width, generator=generator))[0]
    spectrum = torch.arange(1, width + 1).pow(-1.0)
    return ((centres[labels] + 3 * torch.randn(rows, width, generator=generator)) * spectrum) @ mixed + 2, labels


@pytest.mark.parametrize(("rows", "width"), [(60, 90), (1500, 24)])
def test_more_features_than_rows_and_correlations_of_some_rows_have_the_same_optimum(rows: int, width: int) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    train, labels = correlated(rows, width)
    inputs = ((train.double() - train.double().mean(0)) / train.double().std(0, correction=0)).numpy()
    judge = linear_model.LogisticRegression(C=1 / (rows * 1e-3), solver="newton-cholesky", tol=1e-10)
    judge.fit(inputs, labels.numpy())
    found = fit(train, labels, 1e-3)
    assert found.converged
    np.testing.assert_allclose(found.weight.numpy(), judge.coef_, atol=2e-4, rtol=1e-3)
    np.testing.assert_allclose(found.logits(train).softmax(dim=1).numpy(), judge.predict_proba(inputs), atol=1e-4)


def test_few_passes_and_fewer_of_them_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[torch.dtype] = []
    centred = linear._centred

    def counted(features: Features, mean: Tensor, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor]]:
        passes.append(dtype)
        return centred(features, mean, dtype)

    monkeypatch.setattr(linear, "_centred", counted)
    train, labels = correlated(4000, 64)
    assert fit(train, labels, 1e-3).converged
    assert passes.count(torch.float64) <= 3 and len(passes) <= 80
    passes.clear()
    monkeypatch.setattr(linear, "_WIDE", 1)  # without correlations
    assert fit(train, labels, 1e-3).converged
    assert len(passes) > 160


def test_correlations_shrink_as_scikit_learns_oracle_says() -> None:
    covariance = pytest.importorskip("sklearn.covariance")
    train, _ = correlated(300, 40)
    rows = ((train - train.mean(0)) / train.std(0, correction=0)).double()
    expected, part = covariance.oas(rows.numpy(), assume_centered=True)
    assert 0.001 < part < 0.5
    np.testing.assert_allclose(linear._shrunk(rows.T @ rows / 300, 300).numpy(), expected, rtol=1e-5, atol=1e-8)


def test_too_few_iterations_are_said() -> None:
    train, labels = clusters(60, 0)
    assert not fit(train, labels, 1e-4, iterations=2).converged


def test_raw_pixels_and_the_protocol() -> None:
    (train, labels), (test, truth) = clusters(120, 0), clusters(80, 1)
    result = evaluate_linear(None, source(), AsIs(), SPEC, 16, "cpu")
    first, five = fit(train, labels, 0.01).hits(test, truth)
    assert (result.top1, result.top5) == (first / 80, five / 80)
    assert result.protocol == {
        "classifier": "logistic regression",
        "objective": "mean cross-entropy + weight_decay/2 · ‖weight‖²",
        "weight_decay": 0.01,
        "standardize": True,
        "solver": "L-BFGS, then Newton-CG",
        "iterations": 1000,
        "converged": True,
        "augment": False,
        "features": "pixels",
        "classes": 7,
        "train_samples": 120,
        "test_samples": 80,
    }


@pytest.mark.parametrize("features", ["backbone", "embedding"])
def test_an_encoder_is_probed_in_eval_mode_and_left_as_it_was(features: str) -> None:
    encoder = Tiny().train()
    encoder.frozen.eval()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    spec = LinearSpec.model_validate({"weight_decay": 0.01, "features": features})
    result = evaluate_linear(encoder, source(), AsIs(), spec, 16, "cpu")
    # A fresh norm in eval mode and a sign change no logit of a standardised probe.
    assert result.top1 == evaluate_linear(None, source(), AsIs(), SPEC, 16, "cpu").top1
    assert result.protocol["features"] == features
    assert encoder.training and encoder.norm.training and not encoder.frozen.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_what_cannot_be_read_or_has_no_label_is_left_out() -> None:
    assert evaluate_linear(None, source([3, 5]), AsIs(), SPEC, 16, "cpu").protocol["train_samples"] == 118
    train, labels = clusters(60, 0)
    labelled = Rows(train, labels.tolist())
    with pytest.raises(NoLabels, match="no split to evaluate on"):
        evaluate_linear(None, Pair(labelled, None), AsIs(), SPEC, 16, "cpu")
    with pytest.raises(NoLabels, match="train split has no labels"):
        evaluate_linear(None, Pair(Rows(train, None), labelled), AsIs(), SPEC, 16, "cpu")
