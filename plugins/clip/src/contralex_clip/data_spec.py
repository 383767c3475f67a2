"""Specs of data sets of images with captions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from contralex.plugin import MAX_PIXELS, LocalPath, MaxPixels, Spec, path_exists

_GIVES = frozenset({"images", "captions", "labels"})
TABLES = (".csv", ".tsv", ".txt", ".jsonl")


def is_table(root: str) -> bool:
    """Whether ``data.root`` names a table, and not a folder."""
    return root.lower().endswith(TABLES)


class ImageCaptionsSpec(Spec):
    """Images with a caption each: in a folder, or in a table."""

    kind: Literal["image_captions"] = "image_captions"
    builds = ".captions:image_captions"
    root: Annotated[str, LocalPath()]
    """A folder of images, flat, nested or in class folders, where the caption of ``cat.jpg`` is in
    ``cat.txt`` beside it; or a table (``.csv``, ``.tsv``, ``.txt`` or ``.jsonl``) with a line for each pair."""
    test: Annotated[str | None, LocalPath()] = None
    """Another table, to evaluate on."""
    image: str = "image"
    """The column of the images' paths, which are relative to the table's folder."""
    caption: str = "caption"
    """The column of the captions."""
    label: str | None = None
    """The column of the classes; null: none."""
    split: str | None = "split"
    """The column, if there is one, that says which lines are to train on (``train``) and which to evaluate on (``val``,
    or else ``test``); null trains on all."""
    labels: Literal["auto", "folders", "none"] = "auto"
    """Of a folder: whether its sub-folders are classes."""
    held_out: float = Field(0.2, ge=0, lt=1)
    """Of a folder: the fraction of each class that is kept for evaluation."""
    max_pixels: MaxPixels = MAX_PIXELS
    """An image of more pixels is left out."""
    gives = _GIVES
    source = "CLIP, arXiv:2103.00020, section 2.2 (pairs of an image and a text); the files of img2dataset"
    example = {"root": "."}

    @classmethod
    def of_path(cls, path: Path) -> dict[str, str] | None:
        return {"root": str(path)} if path.is_dir() or path.suffix.lower() in TABLES else None

    @model_validator(mode="after")
    def _check_table(self) -> ImageCaptionsSpec:
        if not is_table(self.root):
            for field in ("test", "label"):
                if getattr(self, field) is not None:
                    raise ValueError(
                        f"{field} is for a table ({', '.join(TABLES)}), and root is a folder: {self.root}; take it out "
                        "(a folder has its classes in folders, and its evaluation split in a folder val)"
                    )
        return self

    def offers(self) -> frozenset[str]:
        unlabelled = self.label is None if is_table(self.root) else self.labels == "none"
        return self.gives - {"labels"} if unlabelled else self.gives

    def read_from(self) -> str:
        return self.root

    def absent(self) -> tuple[str, str] | None:
        return None if path_exists(self.root) else ("root", self.root)

    @classmethod
    def tiny(cls, folder: str) -> ImageCaptionsSpec:
        from contralex_clip.captions import write_tiny

        write_tiny(folder)
        return cls(root=folder)


class WebDatasetSpec(Spec):
    """Images and captions in tar files, as img2dataset writes them: ``000017.jpg`` beside ``000017.txt``.

    The files' headers are read when a run begins; samples are then read at their offsets, in any order.
    """

    kind: Literal["webdataset"] = "webdataset"
    builds = ".tars:TarSource"
    shards: Annotated[str, LocalPath()]
    """The tar files to train on; ``data/*.tar`` and ``data/{0000..0099}.tar`` name many."""
    test: Annotated[str | None, LocalPath()] = None
    """The tar files to evaluate on; null: none."""
    image: tuple[str, ...] = Field(("jpg", "jpeg", "png", "webp"), min_length=1)
    """Endings of images."""
    caption: str = "txt"
    """The ending of captions."""
    label: str | None = None
    """The ending of files with the number of the class, such as ``cls``; null: none."""
    max_pixels: MaxPixels = MAX_PIXELS
    """An image of more pixels is left out."""
    gives = _GIVES
    source = "the file format of the package webdataset"
    example = {"shards": "shards/*.tar"}

    def offers(self) -> frozenset[str]:
        return self.gives - {"labels"} if self.label is None else self.gives

    def read_from(self) -> str:
        return self.shards

    @classmethod
    def of_path(cls, path: Path) -> dict[str, str] | None:
        return {"shards": str(path)} if path.suffix.lower() == ".tar" and path.is_file() else None

    @classmethod
    def tiny(cls, folder: str) -> WebDatasetSpec:
        from contralex_clip.tars import write_tiny

        write_tiny(folder)
        return cls(shards=f"{folder}/*.tar", label="cls")


class DigitCaptionsSpec(Spec):
    """scikit-learn's handwritten digits with captions such as "a handwritten seven", offline; with labels.

    ``scene`` and ``seed``: as of ``digits``; the seed also draws which sentence a digit gets.
    """

    kind: Literal["digit_captions"] = "digit_captions"
    builds = ".captions:DigitCaptionsSource"
    scene: Literal["plain", "hard"] = "hard"
    """As of ``digits``."""
    seed: int = Field(0, ge=0, le=2**32 - 1)
    """Draws the scenes, and which sentence a digit gets."""
    gives = _GIVES
    source = "as digits; the captions are ours"

    @classmethod
    def tiny(cls, folder: str) -> DigitCaptionsSpec:
        return cls()
