"""Zero-shot classification as an evaluator of a run. Imports no torch until it is used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from contralex.plugin import ContralexError, Evaluator
from contralex_clip.spec import has_captions

if TYPE_CHECKING:
    from contralex.plugin import Accuracy, Encoder, EvalContext, RunSpec, Spec


class ZeroShotEvaluator(Evaluator):
    """An image's class is the one whose name, as a caption, is the nearest. It needs data that name their classes.

    ``classes``: names in the order of the labels, in place of the data's own. ``templates``: sentences in which ``{}``
    stands for the name, in place of the data's own.
    """

    name, label = "zero_shot", "zero-shot"

    def __init__(self, classes: Sequence[str] | None = None, templates: Sequence[str] | None = None) -> None:
        super().__init__()
        self.classes, self.templates = classes, templates

    def evaluate(self, encoder: Encoder | None, context: EvalContext, *, baseline: bool = False) -> Accuracy:
        from contralex_clip.zero_shot import choose_prompts, evaluate

        if encoder is None:
            raise ContralexError("Raw pixels cannot be compared with captions, so there is no zero-shot figure.")
        return evaluate(encoder, context, choose_prompts(context.source, self.classes, self.templates))

    def choose_data(self, run: RunSpec, data: str | None, sets: Sequence[str]) -> Spec:
        from contralex_clip.zero_shot import any_images

        views = run.method.views
        if not has_captions(views):
            raise ContralexError(
                f"The run {run.name} has method.views of kind {views.kind_name()}, and not image_text; zero-shot "
                "classification is for encoders of images and captions."
            )
        return any_images(run.data, data, sets)
