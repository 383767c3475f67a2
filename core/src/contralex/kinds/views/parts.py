"""Views of a sample: groups of augmented crops, made by one of three engines.

The parameters of a view are drawn from torch's global generator. The data set seeds it before each view from (seed,
epoch, sample, view), so a view does not depend on the worker or process that makes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from contralex.data.packed import PackedViews
from contralex.data.preprocessing import Preprocessing
from contralex.data.views import Views
from contralex.errors import ContralexError, remedy
from contralex.kinds.views.augment import Decoding, EngineName, Group, MadeOn, expand_groups
from contralex.kinds.views.boxes import BoxCompanion
from contralex.kinds.views.company import Companion, ViewsInCompany
from contralex.kinds.views.describing import describe
from contralex.kinds.views.engine import Engine, make_engine
from contralex.kinds.views.mask_specs import Masks, find_masked_groups
from contralex.kinds.views.masks import MaskCompanion
from contralex.kinds.views.on_device import DeviceEngine
from contralex.kinds.views.parameters import ViewParameters
from contralex.kinds.views.scaling import choose_divisor, may_scale, scale_crops
from contralex.kinds.views.transforms import describe_steps, evaluation, read_preprocessing


def crop_views(
    groups: Mapping[str, Group],
    engine: EngineName = "exact",
    device: MadeOn = "workers",
    decoding: Decoding = "full",
    masks: Masks | None = None,
    boxes: bool = False,
) -> Views:
    """The views of :class:`CropViews`, in company where there are ``masks`` or ``boxes``."""
    views, augments = CropViews(groups, engine, device, decoding), expand_groups(groups)
    names = [name for name, group in groups.items() for _ in range(group.count)]
    companions: list[Companion] = []
    if masks is not None:
        masked = find_masked_groups(groups, masks)
        sides = {view: augments[name].crop.size // masks.patch for view, name in enumerate(names) if name in masked}
        companions.append(MaskCompanion(masks, {view: (side, side) for view, side in sides.items()}))
    if boxes:
        companions.append(BoxCompanion([augments[name] for name in names]))
    if companions and views.on_accelerator:
        raise ValueError("masks and boxes are made by the workers, and device is accelerator")
    return ViewsInCompany(views, companions) if companions else views


class CropViews(Views):
    """Augmented crops of an RGB image of PIL, each (3, size, size) float32, or (grid², 3, cell, cell) with a jigsaw.

    ``groups``: groups of views by names of your own; view 0 is the first of the first group. ``engine``: what makes
    them, see :mod:`contralex.kinds.views.engine`. ``device``: where pixels are worked on; on the ``accelerator`` by
    :mod:`contralex.kinds.views.on_device`, for the engine ``exact`` alone. ``decoding``: whether a photograph may be
    decoded at a fraction of its size, see :mod:`contralex.kinds.views.scaling`. Evaluation sees an image at the size of
    view 0 (SimCLR, arXiv:2002.05709, appendix A; multi-crop: SwAV, arXiv:2006.09882, section 3.2).
    """

    def __init__(
        self,
        groups: Mapping[str, Group],
        engine: EngineName = "exact",
        device: MadeOn = "workers",
        decoding: Decoding = "full",
    ) -> None:
        self.on_accelerator = device == "accelerator"
        self.decodes_scaled = decoding == "scaled"
        if type(self).pack_drawn is not CropViews.pack_drawn:
            self._check_own_views()
        expanded = expand_groups(groups)
        augments = [expanded[name] for name, group in groups.items() for _ in range(group.count)]
        self.count = len(augments)
        self.names = [
            name if group.count == 1 else f"{name} {number + 1}"
            for name, group in groups.items()
            for number in range(group.count)
        ]
        self._augments = augments
        make = DeviceEngine if self.on_accelerator else partial(make_engine, engine)
        self._engines: list[Engine] = [make(augment) for augment in augments]
        self._plain = evaluation(augments[0])

    def _check_own_views(self) -> None:
        own = f"{type(self).__name__} makes its views itself, so"
        if self.on_accelerator:
            raise ContralexError(
                f"{own} they cannot be made on the accelerator. Try:" + remedy("--set", "method.views.device=workers")
            )
        if self.decodes_scaled:
            raise ContralexError(
                f"{own} photographs are decoded in full. Try:" + remedy("--set", "method.views.decoding=full")
            )

    def make(self, item: Any, view: int) -> Tensor:
        engine = self._engines[view]
        return engine.make([item], [engine.draw(item)])[0]

    def draw_parameters(self, item: Any, view: int) -> Any:
        return self._engines[view].draw(item)

    def draw_seeded(self, items: Sequence[Any], view: int, seeds: Sequence[int]) -> Sequence[Any]:
        return self._engines[view].draw_seeded(items, seeds)

    def make_drawn(self, items: Sequence[Any], view: int, parameters: Sequence[Any]) -> Sequence[Tensor]:
        return self._engines[view].make(*self._scale(items, parameters))

    def pack_drawn(self, items: Sequence[Any], view: int, parameters: Sequence[Any]) -> Sequence[Tensor | PackedViews]:
        return self._engines[view].pack(*self._scale(items, parameters))

    def _scale(self, items: Sequence[Any], parameters: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
        return scale_crops(items, parameters) if self.decodes_scaled else (items, parameters)

    def may_scale(self, size: tuple[int, int]) -> bool:
        return self.decodes_scaled and may_scale(self._augments, size)

    def choose_divisor(self, parameters: Sequence[Any]) -> int:
        return choose_divisor(self._augments, parameters)

    def unpack(self, packed: Any, view: int) -> Tensor:
        return self._engines[view].unpack(packed)

    def plain(self, item: Any) -> Tensor:
        made: Tensor = self._plain(item)
        return made

    def preprocessing(self) -> Preprocessing | None:
        return read_preprocessing(self._plain)

    def plain_steps(self) -> list[str]:
        return describe_steps(self._plain)

    def to_picture(self, made: Tensor, view: int, item: Any) -> Tensor:
        scale = self._augments[view].normalize
        if scale is None:
            return made.clamp(0, 1)
        mean, std = (made.new_tensor(numbers).view(3, 1, 1) for numbers in (scale.mean, scale.std))
        return (made * std + mean).clamp(0, 1)

    def describe_drawn(self, parameters: Any, view: int) -> Sequence[str]:
        return list(describe(self._augments[view], parameters)) if isinstance(parameters, ViewParameters) else ()
