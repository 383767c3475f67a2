"""What a report shows of images: their neighbours, the map, the confusion of classes, attention.

All runs are asked about the same images: those of the first run, or others that the user gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.data.base import Source, Split
from contralex.data.loading import EvalDataset
from contralex.errors import ContralexError
from contralex.evaluation.base import NoLabels
from contralex.evaluation.neighbours import find_neighbours
from contralex.recipes.run_spec import KNNSpec
from contralex.reporting import attention, projection
from contralex.reporting.atlas import Atlas
from contralex.reporting.confusion import confuse, vote
from contralex.reporting.limits import ATTENTION, HEADS, NEIGHBOURS, QUERIES, SPRITES
from contralex.reporting.samples import (
    Sampled,
    are_images,
    choose_queries,
    choose_samples,
    read_images,
)
from contralex.reporting.subjects import Subject, say_why
from contralex.reporting.thumbnails import data_uri, enlarge, heat_map, make_sprite, to_image
from contralex.reporting.view_grid import short_name
from contralex.training import build

_PART = 5  # of the images that have a label, this fraction votes at most
_HEAT_SIDE = 96  # pixels, about, to which maps of patches are enlarged


class Encoded:
    """The features of one run: ``asked`` (N, F) of the images that are asked about, ``bank`` (M, F) of those among
    which neighbours are found. Where there is one split, they are the same, and an image is not its own neighbour."""

    def __init__(self, subject: Subject, asked: Tensor, bank: Tensor, held_out: bool) -> None:
        self.subject = subject
        self.asked, self.bank, self.held_out = asked, bank, held_out

    def nearest(self, rows: Sequence[int], k: int) -> tuple[Tensor, Tensor]:
        """Cosines and rows of the bank (n, k) that are nearest to these of the images that are asked about."""
        own = None if self.held_out else torch.tensor(list(rows))
        return find_neighbours(self.asked[list(rows)], self.bank, k, exclude=own)


def collect_pictures(
    subjects: Sequence[Subject], data: str | None, images: int, umap: bool
) -> tuple[dict[str, Any], Atlas | None]:
    """The parts of a report that need images, and the table of its map."""
    names = ("neighbours", "hard", "map", "confusion", "attention")
    usable, left_out = _usable(subjects)
    if not usable:
        return {name: {"absent": " ".join(left_out)} for name in names}, None
    # A mistake in what the user gives is the report's; of the run's own data, it is what the run cannot give.
    other = build.read_source(build.evaluation_data(usable[0].spec, data)) if data is not None else None
    try:
        sampled, encoded = _encode(usable, other, images)
    except ContralexError as error:
        return {name: {"absent": say_why(error)} for name in names}, None
    first = encoded[0]
    confusions = [_confusion(each, sampled) for each in encoded]
    mapped, atlas = _map(encoded, sampled, umap)
    found = {
        "neighbours": _before_and_after(encoded, sampled),
        "hard": _hard(first, sampled),
        "map": mapped,
        "confusion": {"classes": [sampled.class_name(label) for label in range(_classes(sampled))], "runs": confusions}
        if _classes(sampled)
        else {"absent": "The images have no labels, so there is no confusion of classes to show."},
        "attention": {"runs": [_attention(each.subject, sampled) for each in encoded]},
        "images": {
            "asked": len(sampled.asked),
            "asked_of": len(sampled.asked_split),
            "bank": len(sampled.bank),
            "bank_of": len(sampled.bank_split),
            "held_out": sampled.held_out,
        },
        "left_out": left_out,
    }
    return found, atlas


def _usable(subjects: Sequence[Subject]) -> tuple[list[Subject], list[str]]:
    """The runs that have an encoder, and a sentence for each other."""
    usable, left_out = [], []
    for subject in subjects:
        try:
            subject.load()
            usable.append(subject)
        except ContralexError as error:
            left_out.append(f"{subject.label}: {say_why(error)}")
    return usable, left_out


def _encode(subjects: Sequence[Subject], other: Source | None, images: int) -> tuple[Sampled, list[Encoded]]:
    """The images that every run could read, of the first run's data or of ``other``; with their features."""
    sampled = choose_samples(other or subjects[0].source, images)
    if not are_images(sampled.asked_split):
        raise ContralexError("The samples of this data set are no images, so there is nothing to look at.")
    found = []
    for subject in subjects:
        asked = subject.features(subject.encoder, sampled.asked_split, sampled.asked)
        bank = subject.features(subject.encoder, sampled.bank_split, sampled.bank) if sampled.held_out else asked
        found.append((subject, asked, bank))
    rows = [_common([at for _, (_, at), _ in found]), _common([at for _, _, (_, at) in found])]
    encoded = [
        Encoded(subject, _select(*asked, rows[0]), _select(*bank, rows[1]), sampled.held_out)
        for subject, asked, bank in found
    ]
    if len(rows[0]) < 2 or len(rows[1]) < 2:
        raise ContralexError("There are fewer than two images, so there are no neighbours and there is no map.")
    sampled = replace(
        sampled, asked=[sampled.asked[row] for row in rows[0]], bank=[sampled.bank[row] for row in rows[1]]
    )
    return sampled, encoded


def _common(found: Sequence[Tensor]) -> list[int]:
    """The rows that all runs could read."""
    common = set(found[0].tolist()).intersection(*(at.tolist() for at in found[1:]))
    return sorted(common)


def _select(features: Tensor, at: Tensor, rows: Sequence[int]) -> Tensor:
    where = {row: number for number, row in enumerate(at.tolist())}
    return features[[where[row] for row in rows]]


def _before_and_after(encoded: Sequence[Encoded], sampled: Sampled) -> dict[str, Any]:
    first = encoded[0]
    rows = choose_queries(sampled.asked_labels(), QUERIES)
    asked = [sampled.asked[row] for row in rows]
    subject = first.subject
    bank, _ = subject.features(subject.untrained, sampled.bank_split, sampled.bank)
    queries, _ = subject.features(subject.untrained, sampled.asked_split, asked)
    own = None if sampled.held_out else torch.tensor(rows)
    answers = [(f"{subject.label}, before training", find_neighbours(queries, bank, NEIGHBOURS, exclude=own))]
    answers += [(f"{each.subject.label}, after training", each.nearest(rows, NEIGHBOURS)) for each in encoded]
    return {"queries": [_query(row, number, answers, sampled) for number, row in enumerate(rows)]}


def _hard(encoded: Encoded, sampled: Sampled) -> dict[str, Any]:
    """Images whose neighbours are of another class; without labels, those that are least like any other."""
    labels = torch.tensor(sampled.asked_labels())
    everyone = list(range(len(sampled.asked)))
    cosine, found = encoded.nearest(everyone, NEIGHBOURS)
    if _classes(sampled):
        bank = torch.tensor(sampled.bank_labels())
        wrong = ((bank[found] != labels[:, None]) & (bank[found] >= 0)).float().mean(dim=1) + cosine[:, 0] * 1e-3
        order = wrong.masked_fill(labels < 0, -1.0).argsort(descending=True)
        about = "Images whose neighbours are of other classes, the surest first."
    else:
        order = cosine[:, 0].argsort()
        about = "Images that are least like any other, by the cosine of their nearest neighbour."
    rows = order[:QUERIES].tolist()
    answers = [(encoded.subject.label, (cosine[rows], found[rows]))]
    return {"about": about, "queries": [_query(row, number, answers, sampled) for number, row in enumerate(rows)]}


def _query(
    row: int, number: int, answers: Sequence[tuple[str, tuple[Tensor, Tensor]]], sampled: Sampled
) -> dict[str, Any]:
    labels, bank = sampled.asked_labels(), sampled.bank_labels()
    return {
        **_picture(sampled, sampled.asked_split, sampled.asked[row], labels[row]),
        "answers": [
            {
                "who": who,
                "found": [
                    {
                        **_picture(sampled, sampled.bank_split, sampled.bank[other], bank[other]),
                        "cosine": float(value),
                        "same": bank[other] == labels[row] if min(bank[other], labels[row]) >= 0 else None,
                    }
                    for value, other in zip(cosine[number].tolist(), found[number].tolist(), strict=True)
                ],
            }
            for who, (cosine, found) in answers
        ],
    }


def _picture(sampled: Sampled, split: Split, index: int, label: int) -> dict[str, Any]:
    image = next(read_images(split, [index]))
    return {"picture": data_uri(image), "name": short_name(split.item_name(index)), "class": sampled.class_name(label)}


def _map(encoded: Sequence[Encoded], sampled: Sampled, umap: bool) -> tuple[dict[str, Any], Atlas]:
    layers: list[dict[str, Any]] = []
    points: list[Tensor] = []
    for each in encoded:
        unit = F.normalize(each.asked, dim=1)
        flat, explained = projection.principal_components(unit, 2)
        points.append(flat)
        layers.append(
            {"run": each.subject.label, "how": "PCA", "points": projection.pack(flat), "explained": explained.tolist()}
        )
        if umap:
            flat = projection.umap_points(unit, each.subject.spec.train.seed)
            points[-1] = flat
            layers.append(
                {"run": each.subject.label, "how": "UMAP", "points": projection.pack(flat), "explained": None}
            )
    side = next(side for most, side in SPRITES if len(sampled.asked) <= most)
    sprite = make_sprite(read_images(sampled.asked_split, sampled.asked), len(sampled.asked), side)
    labels = sampled.asked_labels()
    found = {
        "count": len(sampled.asked),
        "sprite": {"uri": sprite.uri, "side": sprite.side, "columns": sprite.columns},
        "names": [short_name(sampled.asked_split.item_name(index)) for index in sampled.asked],
        "labels": labels,
        "classes": [sampled.class_name(label) for label in range(_classes(sampled))],
        "layers": layers,
    }
    k = min(NEIGHBOURS, len(sampled.asked) - 1)
    first = encoded[0].asked
    cosine, others = find_neighbours(first, first, k, exclude=torch.arange(len(first)))
    return found, Atlas(
        points[0],
        [sampled.asked_split.item_name(index) for index in sampled.asked],
        [sampled.class_name(label) for label in labels] if found["classes"] else None,
        others,
        1 - cosine,
        sampled.asked_split,
        sampled.asked,
    )


def _classes(sampled: Sampled) -> int:
    """How many classes the labels of the images are of; 0 where either side has none."""
    asked, bank = max(sampled.asked_labels()), max(sampled.bank_labels())
    return max(asked, bank) + 1 if min(asked, bank) >= 0 else 0


def _confusion(encoded: Encoded, sampled: Sampled) -> dict[str, Any]:
    """Of a run, by the settings of its own kNN evaluation."""
    if not _classes(sampled):
        return {"absent": str(NoLabels("The images have no labels."))}
    spec = encoded.subject.spec.eval.knn or KNNSpec()
    labels, bank = torch.tensor(sampled.asked_labels()), torch.tensor(sampled.bank_labels())
    rows, known = (labels >= 0).nonzero().flatten(), (bank >= 0).nonzero().flatten()
    own = None
    if not sampled.held_out:
        own = torch.searchsorted(known, rows)  # one split, whose labelled images are the same on both sides
    k = min(spec.k, max(len(known) // _PART, 1))  # of a small part of the data, fewer can be near
    cosine, found = find_neighbours(encoded.asked[rows], encoded.bank[known], k, exclude=own)
    predicted = vote(cosine, bank[known][found], spec.temperature, _classes(sampled))
    confusion = confuse(labels[rows], predicted, _classes(sampled))
    return {
        "run": encoded.subject.label,
        "counts": confusion.counts,
        "pairs": confusion.pairs,
        "right": confusion.right,
        "total": confusion.total,
        "k": min(spec.k, found.shape[1]),
        "temperature": spec.temperature,
    }


def _attention(subject: Subject, sampled: Sampled) -> dict[str, Any]:
    backbone = subject.encoder.backbone
    if backbone is None or not attention.is_transformer(backbone):
        return {
            "run": subject.label,
            "absent": f"{subject.label} has no Vision Transformer, so there is no attention to show.",
        }
    rows = choose_queries(sampled.asked_labels(), ATTENTION)
    dataset = EvalDataset(sampled.asked_split, subject.views)
    inputs = [item for row in rows if isinstance(item := dataset[sampled.asked[row]][1], Tensor)]
    seen = attention.look(backbone, torch.stack(inputs).to(subject.device))
    colours = attention.colour_patches(seen.tokens)
    images = [
        {
            **_picture(sampled, sampled.asked_split, sampled.asked[row], sampled.asked_labels()[row]),
            "mean": _heat(seen.attention[number].mean(dim=0)),
            "heads": [_heat(head) for head in seen.attention[number][:HEADS]],
            "patches": _enlarged(colours[number]),
        }
        for number, row in enumerate(rows)
    ]
    return {
        "run": subject.label,
        "class_token": seen.has_class_token,
        "heads": seen.attention.shape[1],
        "grid": list(seen.attention.shape[2:]),
        "images": images,
    }


def _heat(values: Tensor) -> str:
    return _enlarged(heat_map(values))


def _enlarged(picture: Tensor) -> str:
    factor = max(_HEAT_SIDE // max(picture.shape[-2:]), 1)
    return data_uri(to_image(enlarge(picture, factor)))
