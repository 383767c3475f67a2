"""The student and its frozen teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import contralex
from contralex.plugin import Backbone, ContralexError, Encoder, ImageEncoder, error_at

STUDENT, TEACHER = 0, 1  # the views


class DistilledEncoder(Encoder):
    """View 0 through the student, view 1 through the teacher, each to [embedding (E) | logits (C)].

    The teacher learns nothing and keeps its BatchNorm statistics; the linear layer on its features is trained.

    ``backbone``: the student's network. ``classes``: C. ``width``: E. ``teacher``: the folder of a run, or one of its
    checkpoints; None: a network of ``fresh_backbone``, with random weights.
    """

    backbone: nn.Module

    def __init__(
        self,
        backbone: Backbone,
        classes: int,
        teacher: str | None,
        fresh_backbone: Callable[[], Backbone],
        width: int = 128,
    ) -> None:
        super().__init__()
        self.backbone, features = backbone
        self.classifier = nn.Linear(features, classes)
        self.student_embedding = nn.Linear(features, width)
        self.teacher = Teacher(*fresh_backbone(), classes) if teacher is None else load_teacher(teacher, classes)
        self.teacher_embedding = nn.Linear(self.teacher.dim, width)
        self.classes, self.width = classes, width
        self.dim = width + classes

    def forward(self, views: Mapping[int, Tensor]) -> dict[int, Tensor]:
        return {view: self._embedded(view, image) for view, image in views.items()}

    def _embedded(self, view: int, image: Tensor) -> Tensor:
        if view == STUDENT:
            features = self.features(image)
            return torch.cat([self.student_embedding(features), self.classifier(features)], dim=1)
        if view == TEACHER:
            features, logits = self.teacher(image)
            embedding = self.teacher_embedding(features)
            return torch.cat([embedding, logits.to(embedding)], dim=1)
        raise ContralexError(
            f"method.encoder of kind distilled has a student, view {STUDENT}, and a teacher, view {TEACHER}, and "
            f"method.matches asks for view {view}; use 0->1, 1->0 and 0->0."
        )

    def keys(self, embedded: Mapping[int, Tensor]) -> dict[int, tuple[Tensor, Tensor | None]]:
        return {view: (self._scaled(vectors), None) for view, vectors in embedded.items()}

    def _scaled(self, vectors: Tensor) -> Tensor:
        embedding, logits = vectors.float().split([self.width, self.classes], dim=1)
        return torch.cat([F.normalize(embedding, dim=1), logits], dim=1)

    def features(self, view: Tensor) -> Tensor:
        return self.backbone(view).flatten(1)  # type: ignore[no-any-return]

    def embedding(self, view: Tensor) -> Tensor:
        return F.normalize(self.student_embedding(self.features(view)).float(), dim=1)


class Teacher(nn.Module):
    """A frozen network: images to features (B, ``dim``) and logits (B, ``classes``), which are zeros without a ``head``
    on the features."""

    def __init__(self, backbone: nn.Module, dim: int, classes: int, head: nn.Module | None = None) -> None:
        super().__init__()
        self.backbone, self.dim = backbone, dim
        self.classes = classes
        self.head = head
        self.requires_grad_(False).eval()

    @property
    def classifies(self) -> bool:
        """Whether it has logits of its own."""
        return self.head is not None

    def train(self, mode: bool = True) -> Teacher:
        return super().train(False)

    @torch.no_grad()
    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.backbone(image).flatten(1)
        logits = features.new_zeros(len(features), self.classes) if self.head is None else self.head(features)
        return features, logits


def load_teacher(path: str, classes: int) -> Teacher:
    """The teacher that a run has trained. It has logits where its encoder ends in ``classes`` of them."""
    with error_at("method.encoder.teacher"):
        encoder = contralex.load_encoder(path)
        if not isinstance(encoder, ImageEncoder):
            raise ContralexError(
                f"{path} holds an encoder of type {type(encoder).__name__}; give a run whose method.encoder is of kind "
                "image."
            )
    ends_in_logits = encoder.dim == classes and not encoder.normalize
    return Teacher(encoder.backbone, encoder.feature_dim, classes, encoder.projector if ends_in_logits else None)
