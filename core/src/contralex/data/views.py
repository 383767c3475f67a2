"""What views are: the tensors that a sample becomes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from contralex.data.packed import PackedViews
from contralex.data.preprocessing import Preprocessing
from contralex.lookup.view import ViewBatch


class Views(ABC):
    """The views that a sample becomes. ``count`` of them; :meth:`make` gives one. ``names``: what views 0, 1, ... are
    called, where they have names."""

    count: int
    names: Sequence[str] = ()
    on_accelerator: bool = False
    """Whether :meth:`unpack` makes them, on the device that trains, of the :class:`PackedViews` that workers send."""

    decodes_scaled: bool = False
    """Whether photographs may come as a :class:`contralex.data.photographs.ScaledImage`, by the number that
    :meth:`choose_divisor` gives."""

    def __init_subclass__(cls) -> None:
        """Views that change what other views make draw and make in one step again, and pack nothing."""
        own = vars(cls)
        if "make" in own and "draw_parameters" not in own:
            cls.draw_parameters = Views.draw_parameters  # type: ignore[method-assign]
            cls.make_drawn = Views.make_drawn  # type: ignore[method-assign]
        if "draw_parameters" in vars(cls) and "draw_seeded" not in own:
            cls.draw_seeded = Views.draw_seeded  # type: ignore[method-assign]
        if own.keys() & {"make", "make_drawn"} and "pack_drawn" not in own:
            cls.pack_drawn = Views.pack_drawn  # type: ignore[method-assign]
            cls.unpack = Views.unpack  # type: ignore[method-assign]

    @abstractmethod
    def make(self, item: Any, view: int) -> ViewBatch:
        """View number ``view`` of a data-set item, drawing from torch's global generator: a tensor, or a :class:`View`
        where something belongs to its pixels."""

    def draw_parameters(self, item: Any, view: int) -> Any:
        """The random parameters of view number ``view`` of an item, drawn from torch's global generator. Views that do
        not separate drawing from making give the view itself."""
        return self.make(item, view)

    def draw_seeded(self, items: Sequence[Any], view: int, seeds: Sequence[int]) -> Sequence[Any]:
        """What :meth:`draw_parameters` gives for each of several items after torch's global generator was seeded with
        its number. In what state the generator is left is not said."""
        drawn = []
        for item, seed in zip(items, seeds, strict=True):
            torch.default_generator.manual_seed(seed)
            drawn.append(self.draw_parameters(item, view))
        return drawn

    def make_drawn(self, items: Sequence[Any], view: int, parameters: Sequence[Any]) -> Sequence[ViewBatch]:
        """View number ``view`` of several items, by what :meth:`draw_parameters` gave for each; nothing is drawn."""
        return parameters

    def pack_drawn(
        self, items: Sequence[Any], view: int, parameters: Sequence[Any]
    ) -> Sequence[ViewBatch | PackedViews]:
        """As :meth:`make_drawn`, but in the form in which views travel from a worker: with fewer bytes, where that
        loses nothing. :meth:`unpack` makes the views of it. What belongs to pixels travels as it is."""
        return self.make_drawn(items, view, parameters)

    def unpack(self, packed: Any, view: int) -> Tensor:
        """(B, ...) views number ``view`` of a batch, of what :meth:`pack_drawn` gave, on the device where that is: the
        pixels, where they have company."""
        made: Tensor = packed
        return made

    def may_scale(self, size: tuple[int, int]) -> bool:
        """Whether a photograph of this width and height may be decoded at a fraction of it: whether
        :meth:`choose_divisor` may give more than 1."""
        return False

    def choose_divisor(self, parameters: Sequence[Any]) -> int:
        """By what the sides of a photograph are divided when it is decoded: 1, 2, 4 or 8. ``parameters``: what
        :meth:`draw_parameters` gave for each view of it."""
        return 1

    @property
    def shares_draws(self) -> bool:
        """Whether the samples of a batch draw something together: whether :meth:`draw_for_batch` is asked."""
        return type(self).draw_for_batch is not Views.draw_for_batch

    def draw_for_batch(self, size: int, generator: torch.Generator) -> Sequence[Any]:
        """What the ``size`` samples of a global batch draw together from ``generator``: a share for each, in the order
        of the batch.

        It is asked once for each batch, before any view is made. The generator is a function of the seed and the step,
        so the shares are the same on any number of processes and workers, with ``train.accumulate`` (the batch is
        that of the optimiser's step), and after a resume.
        """
        return [None] * size

    def draw_with_share(self, item: Any, view: int, share: Any) -> Any:
        """As :meth:`draw_parameters`, for a sample whose share of what its batch has drawn is ``share``. Views that
        ``shares_draws`` define it; it draws from torch's global generator what the sample draws for itself."""
        raise NotImplementedError(f"{type(self).__name__} has draw_for_batch, and so it needs draw_with_share")

    def make_alone(self, item: Any, view: int) -> ViewBatch:
        """View number ``view`` of an item that is a batch of its own, drawing from torch's global generator: the
        :meth:`make` of views that ``shares_draws``."""
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        (share,) = self.draw_for_batch(1, generator)
        return self.make_drawn([item], view, [self.draw_with_share(item, view, share)])[0]

    def draw(self, view: int) -> int:
        """Which random numbers view number ``view`` is made with: its own. Views that return the same number see the
        same chance, as the colour channels of one crop do."""
        return view

    @abstractmethod
    def plain(self, item: Any) -> Tensor:
        """The item as evaluation sees it, without chance: what :meth:`Encoder.features` takes."""

    def preprocessing(self) -> Preprocessing | None:
        """What :meth:`plain` does to an image, in numbers that other libraries understand; None where it does more than
        they can."""
        return None

    def plain_steps(self) -> Sequence[str]:
        """What :meth:`plain` does to an item, a line for each step, for people."""
        return [f"what {type(self).__name__} makes of it for evaluation"]

    def to_picture(self, made: Tensor, view: int, item: Any) -> Tensor | str:
        """View number ``view``, which was made of ``item``, for people to look at: (C, H, W) in [0, 1] with one or
        three channels, several such pictures (P, C, H, W), or a text where it is no image."""
        is_image = made.dim() in (3, 4) and made.shape[-3] in (1, 3) and made.is_floating_point()
        return _stretch(made) if is_image else f"{' × '.join(str(length) for length in made.shape)} values"

    def describe_drawn(self, parameters: Any, view: int) -> Sequence[str]:
        """What :meth:`draw_parameters` gave for a view, a phrase for each thing that happens to it, for people; none
        where that is not known."""
        return ()


def _stretch(image: Tensor) -> Tensor:
    """From its smallest to its largest value, as [0, 1]."""
    low, high = image.min(), image.max()
    return (image - low) / (high - low).clamp_min(1e-12)
