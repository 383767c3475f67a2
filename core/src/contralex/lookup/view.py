"""A view of a batch, with what belongs to its pixels: a mask, boxes, the places that are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from contralex.errors import ContralexError


class View:
    """The pixels of a view, with named tensors that belong to them: ``View(pixels, mask=mask).mask``.

    ``pixels`` (B, ...); each companion has one row for each sample, (B, ...). It is cut, moved and gathered with its
    company, as a tensor is without. Of one sample, as :meth:`contralex.plugin.Views.make` returns it, it has no
    dimension of the batch. An encoder gets it where its ``takes_company`` is true, and the pixels alone elsewhere.

    >>> import contralex, torch
    >>> view = contralex.View(torch.rand(4, 3, 8, 8), mask=torch.zeros(4, 16, dtype=torch.bool))
    >>> len(view), view[:2].mask.shape
    (4, torch.Size([2, 16]))
    """

    __slots__ = ("company", "pixels")

    def __init__(self, pixels: Tensor, /, **company: Tensor) -> None:
        self.pixels = pixels
        self.company = company
        for name, value in company.items():
            if hasattr(View, name):
                raise ContralexError(f"A companion of a view cannot be called {name}, which a View has itself.")
            if not isinstance(value, Tensor):
                raise ContralexError(f"The {name} of a view is {type(value).__name__}, and must be a tensor.")

    def __getattr__(self, name: str) -> Tensor:
        if name in View.__slots__:  # not set yet: it is being copied
            raise AttributeError(name)
        if name not in self.company:
            there = f"; it has {', '.join(self.company)}" if self.company else ", and nothing but pixels"
            raise AttributeError(f"this view has no {name}{there}")
        return self.company[name]

    def __reduce__(self) -> tuple[Callable[..., View], tuple[Tensor, dict[str, Tensor]]]:
        return _join, (self.pixels, self.company)

    def __repr__(self) -> str:
        tensors = {"pixels": self.pixels, **self.company}
        return f"View({', '.join(f'{name} {tuple(value.shape)}' for name, value in tensors.items())})"

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, which: int | slice | Tensor) -> View:
        return self.map(lambda tensor: tensor[which])

    @property
    def nbytes(self) -> int:
        """Bytes of the pixels and of their company."""
        return self.pixels.nbytes + sum(value.nbytes for value in self.company.values())

    @property
    def device(self) -> torch.device:
        return self.pixels.device

    def map(self, function: Callable[[Tensor], Tensor]) -> View:
        """What a function makes of the pixels, and of each companion."""
        return _join(function(self.pixels), {name: function(value) for name, value in self.company.items()})

    def with_pixels(self, pixels: Tensor) -> View:
        """Other pixels in the same company."""
        return _join(pixels, self.company)

    def to(self, device: torch.device, non_blocking: bool = False) -> View:
        return self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> View:
        return self.map(Tensor.pin_memory)

    def record_stream(self, stream: torch.Stream) -> None:
        for tensor in (self.pixels, *self.company.values()):
            tensor.record_stream(stream)


ViewBatch: TypeAlias = Tensor | View
"""A view of a batch: (B, ...), alone or with its company."""


def pixels_of(view: ViewBatch) -> Tensor:
    """The pixels of a view, whether they have company or not."""
    return view.pixels if isinstance(view, View) else view


def company_of(view: ViewBatch) -> dict[str, Tensor]:
    """What belongs to the pixels of a view, by name; nothing where they are alone."""
    return view.company if isinstance(view, View) else {}


def map_view(function: Callable[[Tensor], Tensor], view: ViewBatch) -> ViewBatch:
    """What a function makes of the pixels, and of their company where they have it."""
    return view.map(function) if isinstance(view, View) else function(view)


def map_pixels(function: Callable[[Tensor], Tensor], view: ViewBatch) -> ViewBatch:
    """What a function makes of the pixels, in the same company."""
    return view.with_pixels(function(view.pixels)) if isinstance(view, View) else function(view)


def stack_views(views: Sequence[ViewBatch]) -> ViewBatch:
    """One batch of a view, of that view of each sample. Raises ContralexError where their company differs."""
    company = company_of(views[0])
    if not company:
        try:
            return torch.stack(views)  # type: ignore[arg-type]  # the others have no company either, or it raises
        except TypeError:
            raise ContralexError(
                f"Some samples of a batch have {_differing(views)} beside a view, and some do not."
            ) from None
    if any(company_of(view).keys() != company.keys() for view in views):
        raise ContralexError(f"Some samples of a batch have {_differing(views)} beside a view, and some do not.")
    pixels = torch.stack([pixels_of(view) for view in views])
    return _join(
        pixels, {name: _stack_companions(name, [company_of(view)[name] for view in views]) for name in company}
    )


def _stack_companions(name: str, values: Sequence[Tensor]) -> Tensor:
    if any(value.shape != values[0].shape for value in values):
        shapes = sorted({tuple(value.shape) for value in values})
        raise ContralexError(
            f"The {name} of a view has the shapes {' and '.join(map(str, shapes[:3]))} in one batch; it must have one, "
            "so cut or fill it where the views are made."
        )
    return torch.stack(list(values))


def _differing(views: Sequence[ViewBatch]) -> str:
    names = [company_of(view).keys() for view in views]
    return " and ".join(sorted({name for some in names for name in some if not all(name in each for each in names)}))


def _join(pixels: Tensor, company: dict[str, Tensor]) -> View:
    """Without the checks of names, which were made already."""
    made = View.__new__(View)
    made.pixels, made.company = pixels, company
    return made
