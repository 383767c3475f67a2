"""What views are: the tensors that a sample becomes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor


class Views(ABC):
    """The views that a sample becomes. ``count`` of them; :meth:`make` gives one."""

    count: int

    def __init_subclass__(cls) -> None:
        """Views that change what other views make draw and make in one step again."""
        if "make" in vars(cls) and "draw_parameters" not in vars(cls):
            cls.draw_parameters = Views.draw_parameters  # type: ignore[method-assign]
            cls.make_drawn = Views.make_drawn  # type: ignore[method-assign]

    @abstractmethod
    def make(self, item: Any, view: int) -> Tensor:
        """View number ``view`` of a data-set item, drawing from torch's global generator."""

    def draw_parameters(self, item: Any, view: int) -> Any:
        """The random parameters of view number ``view`` of an item, drawn from torch's global generator. Views that do
        not separate drawing from making give the view itself."""
        return self.make(item, view)

    def make_drawn(self, items: Sequence[Any], view: int, parameters: Sequence[Any]) -> Sequence[Tensor]:
        """View number ``view`` of several items, by what :meth:`draw_parameters` gave for each; nothing is drawn."""
        return parameters

    def draw(self, view: int) -> int:
        """Which random numbers view number ``view`` is made with: its own. Views that return the same number see the
        same chance, as the colour channels of one crop do."""
        return view

    @abstractmethod
    def plain(self, item: Any) -> Tensor:
        """The item as evaluation sees it, without chance: what :meth:`Encoder.features` takes."""

    def plain_steps(self) -> Sequence[str]:
        """What :meth:`plain` does to an item, a line for each step, for people."""
        return [f"what {type(self).__name__} makes of it for evaluation"]
