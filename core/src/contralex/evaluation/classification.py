"""How often a classifier is right: an encoder whose vectors are logits, one number for each class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from contralex.data.base import Source, as_tensor
from contralex.data.loading import EvalDataset
from contralex.errors import ContralexError
from contralex.evaluation.base import Accuracy, NoLabels
from contralex.evaluation.encoding import encode, nothing_readable
from contralex.evaluation.features import select_labelled
from contralex.evaluation.hits import count_hits
from contralex.lookup import distributed

if TYPE_CHECKING:
    from contralex.data.views import Views
    from contralex.lookup.slots import Encoder


def evaluate_classifier(
    encoder: Encoder, source: Source, views: Views, batch_size: int, device: torch.device | str, workers: int = 0
) -> Accuracy:
    """Evaluate an encoder's vectors as logits on the test split. :class:`NoLabels` if there is none with labels.

    Processes share the samples out, and each has the figures. All call this.
    """
    test = source.test()
    if test is None:
        raise NoLabels("The data have no split to evaluate on.")
    test = select_labelled(test, "test")
    labels = as_tensor(test.labels or ())
    width, counts = 0, torch.zeros(3, dtype=torch.long)  # samples; classes that are first, and among the first five
    for logits, index in encode(encoder.embedding, EvalDataset(test, views), batch_size, device, workers):
        width = logits.shape[1]
        truth = labels[index].to(logits.device)  # (B,)
        hit = logits.topk(min(5, width), dim=1).indices == truth.unsqueeze(1)  # (B, 5), the best first
        counts += torch.cat([torch.tensor([len(index)]), count_hits(hit).cpu()])
    width, last = max(distributed.gather_objects([width])), int(labels.max())
    if not width:
        raise nothing_readable()
    if last >= width:
        raise ContralexError(
            f"eval.classify: the test split has a class {last}, counted from 0, and the encoder's vectors "
            f"{width} numbers; they are to be the logits of all classes, as `contralex finetune` makes them."
        )
    samples, first, five = (sum(parts) for parts in zip(*distributed.gather_objects([counts.tolist()]), strict=True))
    protocol = {"logits": "the encoder's vectors", "classes": width, "test_samples": samples}
    return Accuracy(first / samples, five / samples, protocol)
