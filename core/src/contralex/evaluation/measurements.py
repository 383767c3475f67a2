"""What is measured of an encoder beside the accuracy of an evaluator: quality, retrieval, and few labels."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from contralex.data.base import Split, as_tensor
from contralex.data.fingerprints import digest
from contralex.errors import ContralexError
from contralex.evaluation import few_labels, spectra, spread
from contralex.evaluation.base import UNTRAINED, EvalContext, Measurement, Measures, NoLabels
from contralex.evaluation.drawn import encode_draws, find_view
from contralex.evaluation.encoding import nothing_readable
from contralex.evaluation.features import (
    Features,
    Which,
    choose_some,
    labelled_splits,
    read_features,
    select_labelled,
)
from contralex.evaluation.linear import fit_features
from contralex.evaluation.retrieval import retrieve
from contralex.kinds.datasets.labelled import choose_labelled
from contralex.lookup.slots import Encoder
from contralex.recipes.run_spec import LinearSpec, RunSpec

_ROWS = 8192  # features that are taken at a time
_DELTA = 1e-4  # of LiDAR


def _check_counts(least: int, **given: Sequence[int]) -> None:
    for name, counts in given.items():
        for count in counts:
            if count < least:
                raise ContralexError(f"{name} is {count}, and must be at least {least}")


class Quality(Measurement):
    """Figures without labels: how many directions the features use, and how they lie to each other.

    ``samples``: images at most, a fixed random part. ``draws``: random views of each of at most ``drawn`` of them, for
    alignment, the overlap of ``neighbours`` nearest neighbours, and LiDAR. ``untrained``: whether the untrained encoder
    is measured beside it.
    """

    name = "quality"

    def __init__(
        self,
        features: Which = "backbone",
        samples: int = 10_000,
        drawn: int = 1000,
        draws: int = 10,
        neighbours: int = 10,
        untrained: bool = True,
    ) -> None:
        _check_counts(1, samples=[samples], drawn=[drawn], neighbours=[neighbours])
        _check_counts(2, draws=[draws])
        self.baselines = (UNTRAINED,) if untrained else ()
        self.features, self.samples = features, samples
        self.drawn, self.draws, self.neighbours = drawn, draws, neighbours

    @torch.no_grad()
    def measure(self, encoder: Encoder, context: EvalContext, run: RunSpec) -> Measures:
        test = context.source.test()
        split = choose_some(test if test is not None else context.source.train(), self.samples)
        found = read_features(encoder, split, context, self.features, "eval quality")
        count, total, products = spectra.moments(rows for rows, _ in found.blocks(_ROWS))
        covariance = products / count - torch.outer(total, total) / count**2
        figures: dict[str, float | None] = {
            "rankme": spectra.rankme(products),
            "effective_rank": spectra.effective_rank(covariance),
            "alpha_req": spectra.decay(covariance, count),
            "uniformity": spread.uniformity(found[:]),
        }
        protocol: dict[str, Any] = {
            "features": self.features,
            "dimensions": found.width,
            "split": "train" if test is None else "test",
            "samples": count,
            **found.precision(),
            "rankme": "not centred, epsilon 1e-7",
            "effective_rank": "centred",
            "alpha_req": f"eigenvalues {spectra.FIT[0]} to {min(spectra.FIT[1], found.width, count - 1)}, weights 1/i",
            "uniformity": "t = 2",
        }
        drawn, more = self._measure_views(encoder, split, context, run.train.seed)
        return Measures({**figures, **drawn}, {**protocol, **more})

    def _measure_views(
        self, encoder: Encoder, split: Split, context: EvalContext, seed: int
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """The figures that need random views, and their protocol."""
        some = choose_some(split, self.drawn)
        view = find_view(some, context.views)
        if view is None:
            return {}, {"drawn_views": "none, for no view of this method is shaped as what evaluation sees"}
        blocks = list(encode_draws(encoder, some, context, self.features, view, self.draws, seed))
        if not blocks:
            raise nothing_readable()
        first, second = (torch.cat([block[:, draw] for block in blocks]) for draw in (0, 1))
        k = min(self.neighbours, len(first) - 1)
        figures = {
            "alignment": spread.alignment(first, second),
            "neighbour_overlap": spread.neighbour_overlap(first, second, k) if k else float("nan"),
            "view_recall": spread.view_recall(first, second),
            "lidar": spectra.lidar(blocks, _DELTA),
        }
        protocol = {
            "drawn_views": f"view {view}, {self.draws} draws of each of {len(first):,} samples, seed {seed}",
            "alignment": "alpha = 2, draws 0 and 1",
            "neighbour_overlap": f"{k} nearest by cosine, draws 0 and 1",
            "view_recall": "recall at 1 by cosine, draws 0 and 1",
            "lidar": f"delta {_DELTA:g}, epsilon 1e-7",
        }
        return figures, protocol

    def sentence(self, figures: Mapping[str, Any], protocol: Mapping[str, Any]) -> str:
        said = ", ".join(
            f"{name.replace('_', ' ')} {value:.3g}" for name, value in figures.items() if value is not None
        )
        return (
            f"Quality of {protocol['features']} features on {protocol['samples']:,} {protocol['split']} samples: {said}"
        )


class Retrieval(Measurement):
    """Mean average precision and recall at k, by cosine.

    ``gallery``: ``test``, where each test image searches among the others; or ``train``, where it searches there.
    """

    name = "retrieval"

    def __init__(self, features: Which = "backbone", ks: Sequence[int] = (1, 5, 10), gallery: str = "test") -> None:
        if gallery not in ("test", "train"):
            raise ContralexError(f"gallery is {gallery!r}, and must be 'test' or 'train'")
        if not ks or min(ks) < 1:
            raise ContralexError("recall: give numbers of neighbours from 1 on, such as 1, 5 and 10")
        self.features, self.ks, self.gallery = features, sorted(set(ks)), gallery

    def measure(self, encoder: Encoder, context: EvalContext, run: RunSpec) -> Measures:
        test = context.source.test()
        if test is None:
            raise NoLabels("The data have no split to evaluate on.")
        asked = read_features(encoder, select_labelled(test, "test"), context, self.features, "eval retrieval")
        bank = asked
        if self.gallery == "train":
            train = select_labelled(context.source.train(), "train")
            bank = read_features(encoder, train, context, self.features, "eval retrieval")
        found = retrieve(asked, bank, self.ks)
        if not found.queries:
            raise NoLabels("No test image has another of its class to find.")
        protocol = {
            "metric": "cosine",
            "features": self.features,
            "gallery": "the other test images" if bank is asked else "the training images",
            "gallery_samples": bank.total,
            "queries": found.queries,
            "queries_without_relevant": found.without,
            "average_precision": "over the whole gallery",
            "recall": "queries with a relevant image among the k nearest",
            **bank.precision(),
        }
        recall = {f"recall_at_{k}": value for k, value in found.recall.items()}
        return Measures({"mean_average_precision": found.mean_average_precision, **recall}, protocol)

    def sentence(self, figures: Mapping[str, Any], protocol: Mapping[str, Any]) -> str:
        said = ", ".join(f"recall@{name.rpartition('_')[2]} {value:.1%}" for name, value in list(figures.items())[1:])
        return (
            f"Retrieval by cosine of {protocol['features']} features, {protocol['queries']:,} queries among "
            f"{protocol['gallery']}: mAP {figures['mean_average_precision']:.1%}, {said}"
        )


class FewLabel(Measurement):
    """What few labels reach on frozen features.

    ``fractions`` of the labels, or ``subset``, a list of files, for the linear probe with ``weight_decay``; ``shots``
    for episodes of ``ways`` classes; ``svm`` images of each class for SVMs, on five random samples of them.
    """

    name = "few-label"

    def __init__(
        self,
        features: Which = "backbone",
        fractions: Sequence[float] = (0.01, 0.1),
        subset: Path | None = None,
        shots: Sequence[int] = (1, 5),
        ways: int = 5,
        queries: int = 15,
        episodes: int = 600,
        svm: Sequence[int] = (),
        seed: int = 0,
    ) -> None:
        if any(not 0 < fraction <= 1 for fraction in fractions):
            raise ContralexError("fractions: each is above 0 and at most 1, such as 0.01 and 0.1")
        _check_counts(2, ways=[ways], episodes=[episodes])
        _check_counts(1, shots=shots, queries=[queries], svm=svm)
        self.features, self.fractions, self.subset = features, fractions, subset
        self.shots, self.ways, self.queries, self.episodes = shots, ways, queries, episodes
        self.svm, self.seed = svm, seed

    def measure(self, encoder: Encoder, context: EvalContext, run: RunSpec) -> Measures:
        train, test = labelled_splits(context.source)
        bank, asked = (
            read_features(encoder, split, context, self.features, "eval few-label") for split in (train, test)
        )
        figures: dict[str, float | None] = {}
        details: dict[str, Any] = {}
        spec = run.eval.linear or LinearSpec()
        for name, chosen in self._subsets(train):
            rows = bank.select(chosen)
            fitted = fit_features(rows, spec.weight_decay, standardize=spec.standardize, iterations=spec.iterations)
            first, five = fitted.hits(asked[:], asked.labels)
            figures |= {f"linear_{name}_top1": first / asked.total, f"linear_{name}_top5": five / asked.total}
            names = [train.item_name(index) for index in chosen]
            details[f"subset_{name}"] = {"samples": len(chosen), "digest": digest(names), "indices": chosen}
        for shots in self.shots:
            result = few_labels.few_shot(
                asked[:],
                asked.labels,
                ways=self.ways,
                shots=shots,
                queries=self.queries,
                episodes=self.episodes,
                seed=self.seed,
            )
            figures |= {
                f"{self.ways}_way_{shots}_shot": result.mean,
                f"{self.ways}_way_{shots}_shot_interval": result.interval,
            }
        for shots in self.svm:
            figures |= self._svm(bank, asked, shots)
        protocol = {
            "features": self.features,
            "train_samples": bank.total,
            "test_samples": asked.total,
            "seed": self.seed,
            **bank.precision(),
        }
        if details:
            scaled = ", standardised" if spec.standardize else ""
            protocol["linear"] = f"logistic regression, weight decay {spec.weight_decay:g}{scaled}"
            protocol["subset"] = str(self.subset) if self.subset else "as many of each class; indices in details"
        if self.shots:
            protocol["episodes"] = (
                f"{self.episodes} of the test split, {self.queries} queries a class, nearest class mean of unit "
                "vectors, 95 % interval"
            )
        if self.svm:
            costs = ", ".join(f"{cost:g}" for cost in few_labels.COSTS)
            protocol["svm"] = (
                f"VISSL's low shot: one SVM a class, mean AP, five samples, the best of the costs {costs} on the test "
                "split"
            )
        return Measures(figures, protocol, details)

    def _subsets(self, train: Split) -> list[tuple[str, list[int]]]:
        if self.subset is not None:
            return [(self.subset.stem, few_labels.subset_by_file(train, self.subset))]
        labels = as_tensor(train.labels or ()).tolist()
        return [(f"{fraction:.3g}", choose_labelled(labels, fraction, self.seed)) for fraction in self.fractions]

    def _svm(self, bank: Features, asked: Features, shots: int) -> dict[str, float]:
        found: dict[float, list[float]] = {}
        for sample in range(5):
            chosen = few_labels.draw_shots(bank.labels.cpu(), shots, self.seed + sample)
            by_cost = few_labels.low_shot_svm(bank[chosen], bank.labels[chosen], asked[:], asked.labels)
            for cost, precision in by_cost.items():
                found.setdefault(cost, []).append(precision)
        best = max(found.values(), key=statistics.mean)
        return {
            f"svm_{shots}_shot_map": statistics.mean(best),
            f"svm_{shots}_shot_map_deviation": statistics.pstdev(best),
        }

    def sentence(self, figures: Mapping[str, Any], protocol: Mapping[str, Any]) -> str:
        parts = []
        for name, value in figures.items():
            if name.endswith("_top1"):
                fraction = name.removeprefix("linear_").removesuffix("_top1")
                parts.append(f"linear probe on {fraction} of the labels {value:.1%} top-1")
            elif name.endswith("_shot"):
                parts.append(f"{name.replace('_', '-')} {value:.1%} ± {figures[f'{name}_interval']:.1%}")
            elif name.endswith("_map"):
                shots = name.split("_")[1]
                parts.append(f"SVM on {shots} of each class {value:.1%} ± {figures[f'{name}_deviation']:.1%} mAP")
        on = f"{protocol['features']} features, {protocol['test_samples']:,} test samples"
        return f"Few labels on {on}: {', '.join(parts)}"
