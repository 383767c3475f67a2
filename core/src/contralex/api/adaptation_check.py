"""What of an adaptation cannot work, found before anything of it is written."""

from __future__ import annotations

from contralex.api.adaptation import KNN
from contralex.errors import ContralexError, remedy
from contralex.evaluation.base import NoLabels
from contralex.evaluation.drawn import find_view
from contralex.evaluation.features import labelled_splits
from contralex.evaluation.knn import check_neighbours
from contralex.recipes.layers import Resolved
from contralex.recipes.run_spec import KNNSpec
from contralex.training.dry_run import rehearse
from contralex.training.run_state import Run

_OF_VIEWS = frozenset({"lidar", "view_recall", "alignment"})  # figures that compare random views of an image


def check_adaptation(resolved: Resolved, by: str | None) -> None:
    """Refuse what training would refuse, and a figure ``by`` which these images or this method do not have."""
    with rehearse(resolved) as run:
        has_views = _has_views(run)
        if by in _OF_VIEWS and not has_views:
            raise ContralexError(
                f"--by {by}: no view of {resolved.run.name} is shaped as what evaluation sees, so there is no such "
                "figure. Choose one that needs no views:" + remedy("--by", "rankme")
            )
        try:
            bank, _ = labelled_splits(run.source)
        except NoLabels:
            if by == KNN:
                raise ContralexError(
                    f"--by {by}: kNN needs labelled images to learn from and to evaluate on, and these data have none. "
                    "Choose a figure that needs no labels:" + remedy("--by", "lidar" if has_views else "rankme")
                ) from None
            return
        check_neighbours((resolved.run.eval.knn or KNNSpec()).k, len(bank))


def _has_views(run: Run) -> bool:
    test = run.source.test()
    return find_view(run.split if test is None else test, run.views) is not None
