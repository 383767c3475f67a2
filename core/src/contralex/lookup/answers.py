"""What a dictionary has answered already, so that a figure costs no second pass over its entries."""

from __future__ import annotations

from torch import Tensor


class Answers:
    """The last answers. Each is about the very tensors that were asked about, not about equal ones."""

    def __init__(self) -> None:
        self._lead: tuple[Tensor, Tensor, Tensor] | None = None
        self._best: tuple[Tensor, Tensor] | None = None
        self._scores: tuple[Tensor, Tensor] | None = None
        self.may_have_ties = True
        """Whether a lead may be 0."""

    def remember_lead(self, queries: Tensor, index: Tensor, lead: Tensor, *, has_ties: bool = True) -> None:
        """``lead`` (N,): by how much the score of the entry ``index`` is above the best other's. ``has_ties``: whether
        that may be 0."""
        self._lead, self.may_have_ties = (queries, index, lead), has_ties

    def remember_best(self, queries: Tensor, best: Tensor) -> None:
        """``best`` (N,): the entry with the largest score."""
        self._best = (queries, best)

    def remember_scores(self, queries: Tensor, scores: Tensor) -> None:
        """``scores`` (N, P+M): all of them."""
        self._scores = (queries, scores.detach())

    def lead(self, queries: Tensor, index: Tensor) -> Tensor | None:
        held = self._lead
        return held[2] if held is not None and held[0] is queries and held[1] is index else None

    def best(self, queries: Tensor) -> Tensor | None:
        if self._best is not None and self._best[0] is queries:
            return self._best[1]
        if self._scores is not None and self._scores[0] is queries:
            return self._scores[1].argmax(dim=1)
        return None
