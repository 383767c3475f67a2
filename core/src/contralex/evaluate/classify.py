"""How often a classifier is right: an encoder whose vectors are logits, one number for each class."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from contralex.data.base import EvalDataset, Source
from contralex.errors import ContralexError
from contralex.evaluate.knn import NoLabels, extract, with_labels

if TYPE_CHECKING:
    from contralex.parts.base import Encoder
    from contralex.parts.views import Views


@dataclass(frozen=True)
class Classified:
    """Shares of the test samples in [0, 1] whose class has the highest, or one of the five highest, logits."""

    top1: float
    top5: float
    protocol: dict[str, Any] = field(default_factory=dict)


def evaluate_classifier(
    encoder: Encoder, source: Source, views: Views, batch_size: int, device: torch.device | str, workers: int = 0
) -> Classified:
    """Judges an encoder's vectors as logits on the test split. :class:`NoLabels` if there is none with labels.

    Processes share the samples out, and each has the figures. All call this.
    """
    test = source.test()
    if test is None:
        raise NoLabels("The data have no split to judge with, so there is no accuracy; set eval.classify to null.")
    test = with_labels(test, "test")
    logits, index = extract(encoder.embedding, EvalDataset(test, views), batch_size, device, workers)
    truth = torch.as_tensor(test.labels)[index].to(logits.device)  # (N,)
    if int(truth.max()) >= logits.shape[1]:
        raise ContralexError(
            f"eval.classify: the test split has a class {int(truth.max())}, counted from 0, and the encoder's vectors "
            f"{logits.shape[1]} numbers; they are to be the logits of all classes, as `contralex finetune` makes them."
        )
    hit = logits.topk(min(5, logits.shape[1]), dim=1).indices == truth.unsqueeze(1)  # (N, 5), the best first
    protocol = {"logits": "the encoder's vectors", "classes": logits.shape[1], "test_samples": len(truth)}
    return Classified(hit[:, 0].double().mean().item(), hit.any(dim=1).double().mean().item(), protocol)
