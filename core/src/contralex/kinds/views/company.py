"""Views whose pixels have company: masks, boxes, and whatever else is drawn for a view."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from contralex.data.preprocessing import Preprocessing
from contralex.data.views import Views
from contralex.lookup.view import View, ViewBatch, company_of, pixels_of


class Companion(ABC):
    """What belongs to the pixels of some views, by name."""

    @property
    def shares_draws(self) -> bool:
        """Whether the samples of a batch draw something together."""
        return False

    def draw_for_batch(self, size: int, generator: torch.Generator) -> Sequence[Any]:
        """As :meth:`contralex.plugin.Views.draw_for_batch`: a share for each sample."""
        return [None] * size

    @abstractmethod
    def draw(self, item: Any, view: int, parameters: Any, share: Any) -> dict[str, Tensor]:
        """The companions of one view, without a dimension of the batch; none where this view has none.

        ``parameters``: those of the pixels, which are drawn before. It may draw from torch's global generator.
        """


@dataclass(frozen=True)
class _Drawn:
    """The parameters of a view's pixels, and their company, which needs no pixels."""

    parameters: Any
    company: dict[str, Tensor]


class ViewsInCompany(Views):
    """The views of ``views``, pixel for pixel, in the company of ``companions``."""

    def __init__(self, views: Views, companions: Sequence[Companion]) -> None:
        self.count, self.names = views.count, views.names
        self.decodes_scaled = views.decodes_scaled
        self._views = views
        self._companions = tuple(companions)
        self._parts: tuple[Views | Companion, ...] = (views, *companions)
        self._alone = (None,) * len(self._parts)

    @property
    def shares_draws(self) -> bool:
        return any(part.shares_draws for part in self._parts)

    def draw_for_batch(self, size: int, generator: torch.Generator) -> Sequence[Any]:
        return list(zip(*(part.draw_for_batch(size, generator) for part in self._parts), strict=True))

    def draw_with_share(self, item: Any, view: int, share: Sequence[Any]) -> _Drawn:
        views, (of_pixels, *others) = self._views, share
        if views.shares_draws:
            parameters = views.draw_with_share(item, view, of_pixels)
        else:
            parameters = views.draw_parameters(item, view)
        company: dict[str, Tensor] = {}
        for companion, part in zip(self._companions, others, strict=True):
            company |= companion.draw(item, view, parameters, part)
        return _Drawn(parameters, company)

    def draw_parameters(self, item: Any, view: int) -> _Drawn:
        return self.draw_with_share(item, view, self._alone)

    def make(self, item: Any, view: int) -> ViewBatch:
        if self.shares_draws:
            return self.make_alone(item, view)
        return self.make_drawn([item], view, [self.draw_parameters(item, view)])[0]

    def make_drawn(self, items: Sequence[Any], view: int, parameters: Sequence[_Drawn]) -> Sequence[ViewBatch]:
        return _join(self._views.make_drawn(items, view, [each.parameters for each in parameters]), parameters)

    def pack_drawn(self, items: Sequence[Any], view: int, parameters: Sequence[_Drawn]) -> Sequence[ViewBatch]:
        return _join(self._views.pack_drawn(items, view, [each.parameters for each in parameters]), parameters)

    def unpack(self, packed: Any, view: int) -> Tensor:
        return self._views.unpack(packed, view)

    def may_scale(self, size: tuple[int, int]) -> bool:
        return self._views.may_scale(size)

    def choose_divisor(self, parameters: Sequence[_Drawn]) -> int:
        return self._views.choose_divisor([each.parameters for each in parameters])

    def draw(self, view: int) -> int:
        return self._views.draw(view)

    def plain(self, item: Any) -> Tensor:
        return self._views.plain(item)

    def preprocessing(self) -> Preprocessing | None:
        return self._views.preprocessing()

    def plain_steps(self) -> Sequence[str]:
        return self._views.plain_steps()

    def to_picture(self, made: Tensor, view: int, item: Any) -> Tensor | str:
        return self._views.to_picture(made, view, item)

    def describe_drawn(self, parameters: _Drawn, view: int) -> Sequence[str]:
        return self._views.describe_drawn(parameters.parameters, view)


def _join(made: Sequence[Any], drawn: Sequence[_Drawn]) -> Sequence[ViewBatch]:
    if not any(each.company for each in drawn):
        return made
    return [
        View(pixels_of(view), **{**company_of(view), **each.company}) for view, each in zip(made, drawn, strict=True)
    ]
