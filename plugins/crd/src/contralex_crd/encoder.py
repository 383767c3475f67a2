"""The student and its frozen teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contralex.errors import named
from contralex.plugin import ContralexError, Encoder, ImageEncoder

if TYPE_CHECKING:
    from contralex_crd.spec import Distilled

STUDENT, TEACHER = 0, 1  # the views


class DistilledEncoder(Encoder):
    """View 0 through the student, view 1 through the teacher, each to [embedding (E) | logits (C)].

    The teacher learns nothing and keeps its BatchNorm statistics; the linear layer on its features is trained.
    """

    backbone: nn.Module

    def __init__(self, spec: Distilled) -> None:
        super().__init__()
        self.backbone, width = spec.backbone.build()
        self.classifier = nn.Linear(width, spec.classes)
        self.student_embedding = nn.Linear(width, spec.width)
        self.teacher = Teacher(spec)
        self.teacher_embedding = nn.Linear(self.teacher.width, spec.width)
        self.classes, self.width = spec.classes, spec.width
        self.dim = spec.width + spec.classes

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
    """A frozen image encoder: images to features (B, F) and, where it is a classifier, logits (B, C); else zeros."""

    def __init__(self, spec: Distilled) -> None:
        super().__init__()
        self.classes = spec.classes
        self.head: nn.Module | None = None
        if spec.teacher is None:
            self.backbone, self.width = spec.backbone.build()
        else:
            from contralex import load_encoder

            with named("method.encoder.teacher"):
                found = load_encoder(spec.teacher)
                if not isinstance(found, ImageEncoder):
                    raise ContralexError(
                        f"{spec.teacher} holds an encoder of type {type(found).__name__}; give a run whose "
                        "method.encoder is of kind image."
                    )
            self.backbone, self.width = found.backbone, found.feature_dim
            self.head = found.projector if found.dim == spec.classes and not found.normalize else None
        self.requires_grad_(False).eval()

    @property
    def classifies(self) -> bool:
        return self.head is not None

    def train(self, mode: bool = True) -> Teacher:
        return super().train(False)

    @torch.no_grad()
    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.backbone(image).flatten(1)
        logits = features.new_zeros(len(features), self.classes) if self.head is None else self.head(features)
        return features, logits
