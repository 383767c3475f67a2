"""The last item of its own tiny set cannot be read."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "data_reads"
REASON = r"item 3 of the train split cannot be read: it is damaged"


class Wrong(Spec):
    """Four grey images of two kinds."""

    kind: Literal["unreadable_items"] = "unreadable_items"
    builds = ":make_part"
    gives = frozenset({"images", "labels"})
    source = "made up"

    @classmethod
    def tiny(cls, folder: str) -> Wrong:
        return cls()


def make_part() -> Any:
    from PIL import Image

    from contralex.data.base import Source, Split, Unreadable

    class Four(Split):
        labels = (0, 0, 1, 1)
        classes = ("light", "dark")

        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Any:
            if index == 3:
                raise Unreadable("item 3", "it is damaged")
            return Image.new("RGB", (8, 8), (60 * index,) * 3)

    class Part(Source):
        def train(self) -> Any:
            return Four()

        def test(self) -> Any:
            return None

    return Part()


@hookimpl
def contralex_datasets() -> list[type[Spec]]:
    return [Wrong]
