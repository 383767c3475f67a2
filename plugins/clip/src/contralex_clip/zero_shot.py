"""Zero-shot classification: an image's class is the one whose name, as a caption, is the nearest (CLIP, §3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contralex.data.loading import EvalDataset
from contralex.evaluation.features import evaluating, extract
from contralex.plugin import (
    THIS,
    UNTRAINED,
    Accuracy,
    ContralexError,
    Encoder,
    EvalContext,
    NoLabels,
    Source,
    Split,
    Subset,
    progress,
)
from contralex.recipes.code_files import permission
from contralex.training import build
from contralex.training.checkpoints.read import open_checkpoint
from contralex_clip.captions import TemplateSplit
from contralex_clip.views import ImageTextViews

if TYPE_CHECKING:
    from contralex.plugin import Spec

TEMPLATES = ("a photo of a {}.",)
_WHOLE = {"order": ["crop"], "crop": {"size": 1, "scale": [1, 1]}}
# A run of nothing but core parts, in which data of any kind with images can stand.
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
    """A checkpoint, and the same encoder untrained, on the labelled test split of its data or of other ``data``.

    ``classes``: names in the order of the labels, in place of the data's own. ``templates``: sentences in which ``{}``
    stands for the name, in place of the data's own or of "a photo of a {}."; a class is the mean over them.
    ``sets`` change ``data``, as ``--set`` does. :class:`ContralexError` where there is nothing to judge.
    """
    with permission(allow_code):
        found = open_checkpoint(checkpoint)
        run = found.resolved().run
        views = run.method.views.build()
        if not isinstance(views, ImageTextViews):
            raise ContralexError(
                f"{found.folder} has method.views of kind {run.method.views.kind_name()}, and not image_text; "
                "zero-shot classification is for encoders of images and captions."
            )
        judged = _data(run.data, data, sets)
        source = build.read_source(judged)
        progress.say(f"{found.folder}; {judged.kind_name()}: {source.describe()}")
        asked = prompts(source, classes, templates)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        encoders = {THIS: build.encoder_of(found, run), UNTRAINED: build.encoder(run)}
        context = EvalContext(source, views, run.eval.batch_size, device)
        return {name: evaluate(encoder.to(device), context, asked) for name, encoder in encoders.items()}


@dataclass(frozen=True)
class Prompts:
    """``classes``: names in the order of the labels; each is put into every template."""

    classes: Sequence[str]
    templates: Sequence[str]


def prompts(source: Source, classes: Sequence[str] | None = None, templates: Sequence[str] | None = None) -> Prompts:
    """What the data's images are asked. :class:`NoLabels` where there are no labels, or no names for them."""
    test = _labelled_test(source)
    highest = max(test.labels or ())
    names = classes or test.classes
    if names is None:
        raise NoLabels("The data's labels are numbers without names; give the names, a line each, by --classes.")
    if len(names) <= highest:
        raise NoLabels(
            f"There are {len(names)} names of classes, and the data have labels up to {highest}, counted from 0; "
            "give a name for each."
        )
    chosen = templates or (test.templates if isinstance(test, TemplateSplit) else TEMPLATES)
    without = next((template for template in chosen if "{}" not in template), None)
    if without is not None:
        raise NoLabels(f"The template {without!r} has no {{}}, where the name of the class stands.")
    return Prompts(names, chosen)


def evaluate(encoder: Encoder, context: EvalContext, asked: Prompts) -> Accuracy:
    """Processes share the images out; all call this."""
    views, device = context.views, context.device
    assert isinstance(views, ImageTextViews)
    test = _labelled_test(context.source)
    judged: Split = Subset(test, [index for index, label in enumerate(test.labels or ()) if label >= 0])
    vectors, index = extract(View(encoder, 0), EvalDataset(judged, views), context.batch_size, device)
    truth = torch.as_tensor(judged.labels)[index].to(vectors.device)
    scores = vectors @ class_vectors(encoder, views, asked, device).T  # (N, C)
    ranked = scores.topk(min(5, len(asked.classes)), dim=1).indices == truth.unsqueeze(1)
    return Accuracy(
        int(ranked[:, 0].sum()) / len(truth),
        int(ranked.any(dim=1).sum()) / len(truth),
        {"classes": len(asked.classes), "templates": len(asked.templates), "test_samples": len(truth)},
    )


def _labelled_test(source: Source) -> Split:
    test = source.test()
    if test is None:
        raise NoLabels("The data have no split to judge with, so there is no zero-shot classification.")
    if not any(label >= 0 for label in test.labels or ()):
        raise NoLabels("The data's test split has no labels, so there is no zero-shot classification.")
    return test


@torch.no_grad()
def class_vectors(encoder: Encoder, views: ImageTextViews, asked: Prompts, device: torch.device) -> Tensor:
    """(C, D) unit vectors: of each class the mean over the templates, brought to unit length again (CLIP, §3.1.4)."""
    text = View(encoder, 1)
    with evaluating(text):
        means = [
            text(torch.stack([views.tokens(one.replace("{}", name)) for one in asked.templates]).to(device)).mean(dim=0)
            for name in asked.classes
        ]
    return F.normalize(torch.stack(means), dim=1)


class View(nn.Module):
    """What view number ``view`` is looked up as, as a key of unit length: (B, ...) to (B, D)."""

    def __init__(self, encoder: Encoder, view: int) -> None:
        super().__init__()
        self.encoder, self.view = encoder, view

    def forward(self, inputs: Tensor) -> Tensor:
        vectors, _ = self.encoder.keys(self.encoder({self.view: inputs}))[self.view]
        return F.normalize(vectors.float(), dim=1)


def _data(trained_on: Spec, data: str | None, sets: Sequence[str]) -> Spec:
    """Other data need no captions, so they are not read as those of a run on captions would be."""
    from contralex.recipes.layers import resolve_data

    other = next((path for path in sets if not path.startswith("data")), None)
    if other is not None:
        raise ContralexError(f"--set {other}: of zero-shot classification only values of data can be set.")
    mapping: Mapping[str, Any] = {**_ANY_IMAGES, "data": trained_on.model_dump(mode="json")}
    return resolve_data(mapping, data=data, sets=sets).run.data
