"""What a recipe may say about the data. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from contralex.plugin import LocalPath, Spec


class TableSpec(Spec):
    """Images that a CSV file lists: the columns ``image`` (a path beside the file), ``class`` and ``split``.

    ``split`` is ``train`` or ``test``. An empty class is that of a sample without one.
    """

    kind: Literal["IDENTIFIER"] = "IDENTIFIER"
    builds = ".source:TableSource"
    path: Annotated[str, LocalPath()] = "samples.csv"
    """The file."""
    max_pixels: int = Field(100_000_000, gt=0, le=2**40)
    """An image with more pixels is left out."""
    gives = frozenset({"images", "labels"})
    source = "RFC 4180 (CSV); write down here where the data are published"

    @classmethod
    def of_path(cls, path: Path) -> dict[str, str] | None:
        return {"path": str(path)} if path.suffix.lower() == ".csv" else None

    def absent(self) -> tuple[str, str] | None:
        return None if Path(self.path).is_file() else ("path", self.path)

    @classmethod
    def tiny(cls, folder: str) -> TableSpec:
        from contralex_IDENTIFIER.source import write_tiny_table

        return cls(path=write_tiny_table(folder))
