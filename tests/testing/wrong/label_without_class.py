"""A label is counted from 1, and names a class that is not there."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "data_reads"
REASON = r"label 2 and 2 classes"


class Wrong(Spec):
    """Four grey images of two kinds."""

    kind: Literal["label_without_class"] = "label_without_class"
    builds = ":make_part"
    gives = frozenset({"images", "labels"})
    source = "made up"

    @classmethod
    def tiny(cls, folder: str) -> Wrong:
        return cls()


def make_part() -> Any:
    from PIL import Image

    from contralex.data.base import Source, Split

    class Four(Split):
        labels = (1, 1, 2, 2)
        classes = ("light", "dark")

        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Any:
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
