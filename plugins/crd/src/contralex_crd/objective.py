"""What CRD's look-ups should find, and the three losses that it adds up."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.plugin import (
    NCE,
    ContralexError,
    Dictionary,
    Loss,
    Match,
    Rows,
    Schedule,
    Step,
    TargetGenerator,
    Targets,
    remedy,
)
from contralex_crd.encoder import TEACHER, DistilledEncoder
from contralex_crd.memory import check_labels


class DistillationTargets(TargetGenerator):
    """In memory, the positive. Among classes, the label and, if the teacher classifies, its probabilities.

    ``encoder``: whose embeddings and logits are looked up. ``labels`` (``dataset_size``,): the class of each sample.
    """

    labels: Tensor

    def __init__(self, encoder: DistilledEncoder, labels: Tensor | None, dataset_size: int) -> None:
        super().__init__()
        self.logits = slice(encoder.width, encoder.width + encoder.classes)
        self.classifies = encoder.teacher.classifies
        self.register_buffer("labels", check_labels(labels, dataset_size, encoder.classes), persistent=False)

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

    ``temperature`` (τ, above 0) divides the scores of NCE, and may be a schedule. ``contrast`` (β), ``cross_entropy``
    (γ) and ``distillation`` (α) are weights, and ``softness`` (T) divides the logits of both sides. ``encoder``: whose
    teacher is distilled. ``query_views`` and ``key_views``: those of the matches.
    """

    def __init__(
        self,
        encoder: DistilledEncoder,
        query_views: tuple[int, ...],
        key_views: tuple[int, ...],
        temperature: float | Schedule = 0.07,
        contrast: float = 0.8,
        cross_entropy: float = 1.0,
        distillation: float = 0.0,
        softness: float = 4.0,
    ) -> None:
        super().__init__()
        self.nce = NCE(temperature, "each_view", query_views)
        self.contrast, self.cross_entropy = contrast, cross_entropy
        self.distillation, self.softness = distillation, softness
        if distillation and not encoder.teacher.classifies:
            raise ContralexError(
                "method.loss.distillation needs the teacher's logits, and method.encoder.teacher is no classifier of "
                "as many classes; set it to 0, or give a teacher whose encoder ends in method.encoder.classes logits "
                "without normalize."
            )
        if distillation and TEACHER not in key_views:
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
