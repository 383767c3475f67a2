"""The student and its frozen teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import contralex
from contralex.plugin import Backbone, ContralexError, Encoder, ImageEncoder, at_least_float32, error_at
from contralex_crd.spec import IMAGE, LOGITS

STUDENT, TEACHER = 0, 1  # the views


class DistilledEncoder(Encoder):
    """View 0 through the student, view 1 through the teacher, each to an embedding (B, E) and to logits (B, C).

    The teacher learns nothing and keeps its BatchNorm statistics; the linear layer on its features is trained.

    ``backbone``: the student's network. ``teacher``: the folder of a run, or one of its checkpoints; None: a network of
    ``fresh_backbone``, with random weights. ``classes``: C; None: there are no logits. ``width``: E.
    """

    backbone: nn.Module
    classifier: nn.Module | None

    def __init__(
        self,
        backbone: Backbone,
        teacher: str | None,
        fresh_backbone: Callable[[], Backbone],
        classes: int | None = None,
        width: int = 128,
    ) -> None:
        super().__init__()
        self.backbone, features = backbone
        self.classifier = None if classes is None else nn.Linear(features, classes)
        self.student_embedding = nn.Linear(features, width)
        self.teacher = Teacher(*fresh_backbone()) if teacher is None else load_teacher(teacher, classes)
        self.teacher_embedding = nn.Linear(self.teacher.dim, width)
        self.dim, self.classes = width, classes

    @property
    def outputs(self) -> dict[str, int]:
        return {IMAGE: self.dim} if self.classes is None else {IMAGE: self.dim, LOGITS: self.classes}

    def forward(self, views: Mapping[int, Tensor]) -> dict[int, Any]:
        return {view: self._embed(view, image) for view, image in views.items()}

    def _embed(self, view: int, image: Tensor) -> dict[str, Tensor]:
        """By the outputs' names."""
        if view == STUDENT:
            features, embedding, classifier = self.features(image), self.student_embedding, self.classifier
        elif view == TEACHER:
            features, embedding, classifier = self.teacher(image), self.teacher_embedding, self.teacher.head
        else:
            raise ContralexError(
                f"method.encoder of kind distilled has a student, view {STUDENT}, and a teacher, view {TEACHER}, and "
                f"method.matches asks for view {view}; use 0->1, 1->0 and 0->0."
            )
        return {IMAGE: embedding(features), **({} if classifier is None else {LOGITS: classifier(features)})}

    def keys(self, embedded: Mapping[int, Any]) -> dict[int, tuple[Tensor, Tensor | None]]:
        return {view: (F.normalize(at_least_float32(each[IMAGE]), dim=1), None) for view, each in embedded.items()}

    def keys_of(self, output: str, embedded: Mapping[int, Any]) -> dict[int, tuple[Tensor, Tensor | None]]:
        if output == IMAGE:
            return self.keys(embedded)
        if not all(LOGITS in each for each in embedded.values()):
            raise ContralexError(
                f"A look-up asks for the teacher's logits, view {TEACHER}, and method.encoder.teacher is no classifier "
                "of as many classes; leave that look-up out, or give a teacher whose encoder ends in "
                "method.encoder.classes logits without normalize."
            )
        return {view: (each[LOGITS], None) for view, each in embedded.items()}

    queries_of = keys_of

    def features(self, view: Tensor) -> Tensor:
        return self.backbone(view).flatten(1)  # type: ignore[no-any-return]

    def embedding(self, view: Tensor) -> Tensor:
        return F.normalize(at_least_float32(self.student_embedding(self.features(view))), dim=1)


class Teacher(nn.Module):
    """A frozen network: images to features (B, ``dim``), of which ``head``, where it has one, makes logits."""

    def __init__(self, backbone: nn.Module, dim: int, head: nn.Module | None = None) -> None:
        super().__init__()
        self.backbone, self.dim = backbone, dim
        self.head = head
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Teacher:
        return super().train(False)

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        return self.backbone(image).flatten(1)  # type: ignore[no-any-return]


def load_teacher(path: str, classes: int | None) -> Teacher:
    """The teacher that a run has trained. It has logits where its encoder ends in ``classes`` of them."""
    with error_at("method.encoder.teacher"):
        encoder = contralex.load_encoder(path)
        if not isinstance(encoder, ImageEncoder):
            raise ContralexError(
                f"{path} holds an encoder of type {type(encoder).__name__}; give a run whose method.encoder is of kind "
                "image."
            )
    ends_in_logits = encoder.dim == classes and not encoder.normalize
    return Teacher(encoder.backbone, encoder.feature_dim, encoder.projector if ends_in_logits else None)
