"""Zero-shot classification as an evaluator of a run. Imports no torch until it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from contralex.plugin import ContralexError, Evaluator

if TYPE_CHECKING:
    from contralex.plugin import Accuracy, Encoder, EvalContext


class ZeroShotEvaluator(Evaluator):
    """An image's class is the one whose name, as a caption, is the nearest. Only where the data name their classes."""

    name, label = "zero_shot", "zero-shot"

    def evaluate(self, encoder: Encoder | None, context: EvalContext, *, baseline: bool = False) -> Accuracy:
        from contralex_clip.zero_shot import evaluate, prompts

        if encoder is None:
            raise ContralexError("Raw pixels cannot be compared with captions, so there is no zero-shot figure.")
        return evaluate(encoder, context, prompts(context.source))
