"""What CRD's look-ups should find, and the three losses that it adds up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.plugin import (
    NCE,
    BuildContext,
    ContralexError,
    Dictionary,
    Loss,
    Match,
    Rows,
    Step,
    TargetGenerator,
    Targets,
    remedy,
)
from contralex_crd.encoder import TEACHER, DistilledEncoder
from contralex_crd.memory import embedding_and_classes, labels_of

if TYPE_CHECKING:
    from contralex_crd.spec import CRD


class DistillationTargets(TargetGenerator):
    """In memory, the positive. Among classes, the label and, of a teacher that classifies, its probabilities."""

    labels: Tensor

    def __init__(self, context: BuildContext) -> None:
        super().__init__()
        width, classes = embedding_and_classes(context)
        self.logits = slice(width, width + classes)
        self.classifies = classifies(context)
        self.register_buffer("labels", labels_of(context, classes), persistent=False)

    @torch.no_grad()
    def forward(self, queries: Rows, keys: Rows, dictionary: Dictionary, match: Match, step: Step) -> Targets:
        if match.query != match.key:
            return Targets(index=dictionary.positives(queries, match))
        label = self.labels[queries.sample]
        teacher = keys.select_view(TEACHER)
        if not self.classifies or not len(teacher):
            return Targets(index=label)
        logits = teacher.vectors[queries.index_in(teacher), self.logits]
        return Targets(index=label, weights=F.softmax(logits, dim=1))


class CRDLoss(Loss):
    """β·NCE for a match in memory; γ·CE(label) + α·T²·KL(teacher ‖ student) for one among the classes.

    Summed over the matches student→teacher, teacher→student and student→classes it is the paper's Eq. 20.
    """

    def __init__(self, spec: CRD, context: BuildContext) -> None:
        super().__init__()
        self.nce = NCE(spec.temperature, "each_view", context.query_views)
        self.contrast, self.cross_entropy = spec.contrast, spec.cross_entropy
        self.distillation, self.softness = spec.distillation, spec.softness
        if spec.distillation and not classifies(context):
            raise ContralexError(
                "method.loss.distillation needs the teacher's logits, and method.encoder.teacher is no classifier of "
                "as many classes; set it to 0, or give a teacher whose encoder ends in method.encoder.classes numbers "
                "without normalize."
            )
        if spec.distillation and TEACHER not in context.key_views:
            raise ContralexError(
                f"method.loss.distillation needs the teacher's logits, and no match has view {TEACHER}, the teacher, "
                "as its key; add 0->1 to method.matches, or try:" + remedy("--set", "method.loss.distillation=0")
            )

    def forward(self, queries: Rows, dictionary: Dictionary, targets: Targets, step: Step) -> Tensor:
        if dictionary.has_own:
            loss: Tensor = self.contrast * self.nce(queries, dictionary, targets, step)
            return loss
        logits = dictionary.scores(queries.vectors)  # (N, C)
        loss = self.cross_entropy * F.cross_entropy(logits, targets.index)
        if self.distillation:
            loss = loss + self.distillation * self._from_teacher(logits, targets)
        return loss

    def _from_teacher(self, logits: Tensor, targets: Targets) -> Tensor:
        # The teacher's probabilities at temperature 1, made as soft as the student's: p^(1/T), over its sum.
        teacher = F.log_softmax(targets.weights.clamp_min(torch.finfo(torch.float32).tiny).log() / self.softness, dim=1)
        student = F.log_softmax(logits / self.softness, dim=1)
        return self.softness**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def classifies(context: BuildContext) -> bool:
    """Whether the teacher has logits."""
    encoder = context.encoder
    assert isinstance(encoder, DistilledEncoder)
    return encoder.teacher.classifies
