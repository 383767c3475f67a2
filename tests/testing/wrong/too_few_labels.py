"""A label is missing, so that labels and items no longer go together."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "data_reads"
REASON = r"train split has 4 items and 3 labels"


class Wrong(Spec):
    """Four grey images of two kinds."""

    kind: Literal["too_few_labels"] = "too_few_labels"
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
        labels = (0, 0, 1)
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
