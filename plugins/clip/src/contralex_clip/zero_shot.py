"""Zero-shot classification: an image's class is the one whose name, as a caption, is the nearest (CLIP, §3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contralex.plugin import (
    UNTRAINED,
    Accuracy,
    ContralexError,
    Encoder,
    EvalContext,
    EvalDataset,
    NoLabels,
    Source,
    Split,
    Subset,
    count_hits,
    evaluating,
    extract_features,
    remedy,
    resolve_data,
)
from contralex.plugin import evaluate as evaluate_checkpoint
from contralex_clip.captions import TemplateSplit
from contralex_clip.evaluator import ZeroShotEvaluator
from contralex_clip.views import ImageTextViews

if TYPE_CHECKING:
    from contralex.plugin import Spec

TEMPLATES = ("a photo of a {}.",)
# A run of core parts alone, which takes data of any kind that has images.
_ANY_IMAGES: dict[str, Any] = {
    "schema": 1,
    "name": "zero-shot",
    "method": {
        "views": {
            "kind": "crops",
            "groups": {"any": {"augment": {"order": ["crop"], "crop": {"size": 1, "scale": [1, 1]}}}},
        },
        "encoder": {"kind": "image", "backbone": {"kind": "conv"}},
        "key_encoder": {"kind": "shared", "gradient": True},
        "negatives": {"kind": "in_batch", "views": "matched"},
        "targets": {"kind": "instance"},
        "loss": {"kind": "info_nce", "temperature": 1},
        "matches": "self",
    },
    "train": {"epochs": 1, "batch_size": 1, "optimizer": {"kind": "sgd", "lr": 0}},
}


def zero_shot(
    checkpoint: Path,
    data: str | None = None,
    sets: Sequence[str] = (),
    classes: Sequence[str] | None = None,
    templates: Sequence[str] | None = None,
    *,
    allow_code: bool = False,
) -> dict[str, Accuracy]:
    """Evaluate a checkpoint, and the same encoder untrained, on the labelled test split of its data or of ``data``.

    ``classes``: names in the order of the labels, in place of the data's own. ``templates``: sentences in which ``{}``
    stands for the name, in place of the data's own or of "a photo of a {}."; a class is the mean over them.
    ``sets`` change ``data``, as ``--set`` does. Raises :class:`ContralexError` where there is nothing to evaluate on.
    """
    evaluator = ZeroShotEvaluator(classes, templates)
    return evaluate_checkpoint(evaluator, checkpoint, data, sets, baselines=(UNTRAINED,), allow_code=allow_code)


@dataclass(frozen=True)
class Prompts:
    """``classes``: names in the order of the labels; each is put into every template."""

    classes: Sequence[str]
    templates: Sequence[str]


def choose_prompts(
    source: Source, classes: Sequence[str] | None = None, templates: Sequence[str] | None = None
) -> Prompts:
    """What the images are compared with. Raises :class:`NoLabels` where there are no labels, or no names for them."""
    test = _labelled_test(source)
    highest = max(test.labels or ())
    names = classes or test.classes
    if names is None:
        raise NoLabels(
            "The data's labels are numbers without names. Give the names, a line each:" + remedy("--classes", "FILE")
        )
    if len(names) <= highest:
        raise NoLabels(
            f"There are {len(names)} names of classes, and the data have labels up to {highest}, counted from 0. "
            "Give a name for each:" + remedy("--classes", "FILE")
        )
    chosen = templates or (test.templates if isinstance(test, TemplateSplit) else TEMPLATES)
    without = next((template for template in chosen if "{}" not in template), None)
    if without is not None:
        raise NoLabels(
            f"The template {without!r} has no {{}}, where the name of the class belongs. Give sentences with {{}}:"
            + remedy("--templates", "FILE")
        )
    return Prompts(names, chosen)


def evaluate(encoder: Encoder, context: EvalContext, prompts: Prompts) -> Accuracy:
    """Each process encodes a part of the images; all of them call this."""
    views, device = context.views, context.device
    if not isinstance(views, ImageTextViews):
        raise ContralexError("Zero-shot classification is for encoders of images and captions.")
    test = _labelled_test(context.source)
    labelled: Split = Subset(test, [index for index, label in enumerate(test.labels or ()) if label >= 0])
    dataset = EvalDataset(labelled, views)
    vectors, index = extract_features(ViewKeys(encoder, 0), dataset, context.batch_size, device, context.workers)
    truth = torch.as_tensor(labelled.labels)[index].to(vectors.device)
    scores = vectors @ class_vectors(encoder, views, prompts, device).T  # (N, C)
    first, five = count_hits(scores.topk(min(5, len(prompts.classes)), dim=1).indices == truth.unsqueeze(1)).tolist()
    return Accuracy(
        first / len(truth),
        five / len(truth),
        {"classes": len(prompts.classes), "templates": len(prompts.templates), "test_samples": len(truth)},
    )


def _labelled_test(source: Source) -> Split:
    test = source.test()
    if test is None:
        raise NoLabels("The data have no split to evaluate on, so there is no zero-shot classification.")
    if not any(label >= 0 for label in test.labels or ()):
        raise NoLabels("The data's test split has no labels, so there is no zero-shot classification.")
    return test


@torch.no_grad()
def class_vectors(encoder: Encoder, views: ImageTextViews, prompts: Prompts, device: torch.device) -> Tensor:
    """(C, D) unit vectors: for each class the mean over the templates, brought to unit length again (CLIP, §3.1.4)."""
    text = ViewKeys(encoder, 1)
    with evaluating(text):
        means = []
        for name in prompts.classes:
            sentences = [template.replace("{}", name) for template in prompts.templates]
            tokens = torch.stack([views.tokens(sentence) for sentence in sentences])
            means.append(text(tokens.to(device)).mean(dim=0))
    return F.normalize(torch.stack(means), dim=1)


class ViewKeys(nn.Module):
    """View number ``view`` (B, ...) to keys of unit length (B, D)."""

    def __init__(self, encoder: Encoder, view: int) -> None:
        super().__init__()
        self.encoder, self.view = encoder, view

    def forward(self, inputs: Tensor) -> Tensor:
        vectors, _ = self.encoder.keys(self.encoder({self.view: inputs}))[self.view]
        return F.normalize(vectors.float(), dim=1)


def any_images(trained_on: Spec, data: str | None, sets: Sequence[str]) -> Spec:
    """The data of ``--data`` and ``--set``. Evaluation needs images and no captions, so none are asked for."""
    other = next((path for path in sets if not path.startswith("data")), None)
    if other is not None:
        raise ContralexError(f"--set {other}: of zero-shot classification only values of data can be set.")
    mapping: Mapping[str, Any] = {**_ANY_IMAGES, "data": trained_on.model_dump(mode="json")}
    return resolve_data(mapping, data=data, sets=sets).run.data
