"""The spec of the core's views: groups of augmented crops."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from contralex.kinds.views.augment import (
    Augment,
    Decoding,
    EngineName,
    Group,
    MadeOn,
    expand_groups,
    keeps_from_accelerator,
    keeps_from_scaling,
)
from contralex.kinds.views.mask_specs import Masks, find_masked_groups
from contralex.plugins.company import ViewCompany
from contralex.plugins.spec import Spec, leave_out_defaults

_TWO_CROPS = ("aaaa...", "aaaa...", "aaxxbb.", "aaxxbb.", "..bbbb.", "..bbbb.", ".......")


def _or_null(schema: dict[str, Any]) -> None:
    """In the JSON Schema: of a layer's groups, which may be null."""
    schema["additionalProperties"] = {"anyOf": [schema["additionalProperties"], {"type": "null"}]}


class CropsSpec(Spec):
    """Augmented crops of one image, group after group: view 0 is the first of the first group.

    A group that is null is none: so a recipe that extends another takes one of its groups out.
    """

    kind: Literal["crops"] = "crops"
    builds = ".parts:crop_views"
    groups: dict[str, Group] = Field(min_length=1, json_schema_extra=_or_null)
    """Groups of views by their names; null removes a group."""
    engine: EngineName = "exact"
    """What makes the views: ``exact`` gives what torchvision's transforms give, several times faster; ``fused`` makes
    all changes of colour in one step, which is rounded once; ``torchvision`` is the transforms themselves."""
    device: MadeOn = "workers"
    """Where pixels are worked on: by the ``workers``, on the CPU, or on the ``accelerator`` that trains, to which they
    send the bytes of crops and the drawn parameters. The views are those of ``exact``, to a level here and there."""
    decoding: Decoding = "full"
    """How photographs are decoded: in ``full``; or ``scaled``, a JPEG at 1/2, 1/4 or 1/8 of its sides, where every crop
    that is drawn of it then still has the pixels of its view. That is faster, and changes pixels a little."""
    masks: Masks | None = None
    """Patches that are masked, for encoders that use a ``mask``; null: none."""
    boxes: bool = False
    """Whether a view has the place of its crop in the image (``boxes``, and whether it is ``flipped``), for encoders
    that use it."""
    needs = {"data": frozenset({"images"})}
    gives = frozenset({"images", "pieces", "masks", "boxes"})
    source = "SimCLR, arXiv:2002.05709, appendix A; SwAV, arXiv:2006.09882, section 3.2 (multi-crop)"
    example = {
        "groups": {"crops": {"count": 2, "augment": {"order": ("crop",), "crop": {"size": 12, "scale": (0.5, 1.0)}}}}
    }

    @field_validator("groups", mode="before")
    @classmethod
    def _drop_null_groups(cls, value: Any) -> Any:
        return {name: group for name, group in value.items() if group is not None} if isinstance(value, dict) else value

    _written = leave_out_defaults("engine", "device", "decoding", "masks", "boxes")

    def offers(self) -> frozenset[str]:
        offered = {"pieces": self._has_pieces(), "masks": self.masks is not None, "boxes": self.boxes}
        return self.gives - {name for name, is_there in offered.items() if not is_there}

    def requires(self) -> list[tuple[str, frozenset[str]]]:
        wanted = {"a head for pieces": self._has_pieces(), "a use for masks": self.masks, "a use for boxes": self.boxes}
        return [*self.needs.items(), *(("encoder", frozenset({name})) for name, is_there in wanted.items() if is_there)]

    def _has_pieces(self) -> bool:
        return any(augment.jigsaw for augment in self.augments())

    def model_post_init(self, context: object) -> None:
        expand_groups(self.groups)
        if self.masks is not None:
            find_masked_groups(self.groups, self.masks)
        if self.boxes and self.engine == "torchvision":
            raise ValueError(
                "boxes is true, and engine: torchvision does not say where a crop lies; take another engine"
            )
        if self.device == "accelerator":
            self._check_accelerator()
        if self.decoding == "scaled":
            self._check_scaling()
        if self.boxes and self._has_pieces():
            raise ValueError("boxes is true, and a jigsaw cuts a crop into pieces; take one of them out")

    def _check_accelerator(self) -> None:
        reasons = [reason for augment in self.augments() if (reason := keeps_from_accelerator(augment))]
        if self.engine != "exact":
            reasons.append(f"engine is {self.engine}, and only exact is made there")
        if self.masks is not None or self.boxes:
            reasons.append(f"{'boxes' if self.boxes else 'masks'} are made by the workers")
        if reasons:
            raise ValueError(f"device is accelerator, and {reasons[0]}; set device to workers")

    def _check_scaling(self) -> None:
        reasons = [reason for augment in self.augments() if (reason := keeps_from_scaling(augment))]
        if self.engine == "torchvision":
            reasons.append("engine: torchvision does not say where a crop lies")
        if reasons:
            raise ValueError(f"decoding is scaled, and {reasons[0]}; set decoding to full")

    def explained_as(self) -> list[str]:
        return [
            f"{name}: {self.groups[name].count} of {augment.crop.size} px"
            + ("" if self.groups[name].key else ", queries only")
            for name, augment in expand_groups(self.groups).items()
        ]

    def explained_company(self) -> list[ViewCompany]:
        names = [name for name, group in self.groups.items() for _ in range(group.count)]
        company = []
        if self.masks is not None:
            masked = find_masked_groups(self.groups, self.masks)
            company.append(self.masks.explained([view for view, name in enumerate(names) if name in masked]))
        if self.boxes:
            lines = ("where the crop lies in its image, and whether it is mirrored",)
            company.append(ViewCompany("boxes", range(len(names)), lines, _TWO_CROPS))
        return company

    def augments(self) -> list[Augment]:
        """The augmentation of each view."""
        expanded = expand_groups(self.groups)
        return [expanded[name] for name, group in self.groups.items() for _ in range(group.count)]

    def key_flags(self) -> list[bool]:
        """For each view, whether it may be a key."""
        return [group.key for group in self.groups.values() for _ in range(group.count)]
