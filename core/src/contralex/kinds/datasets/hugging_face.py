"""Data sets of the Hugging Face hub, or a folder that ``save_to_disk`` wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from contralex.data import images
from contralex.data.base import Source, Split, Unreadable
from contralex.errors import ContralexError
from contralex.kinds.datasets.limits import MAX_PIXELS


class HuggingFaceSource(Source):
    """A data set of the hub, or a folder of one (``pip install 'contralex[datasets]'``).

    ``path``: its name on the hub, or its folder. ``config``: its configuration; None: the default. ``train`` and
    ``test``: splits to train and to evaluate on. ``image`` and ``label``: columns; None: no labels. ``max_pixels``: an
    image of more is left out.
    """

    def __init__(
        self,
        path: str | Path,
        config: str | None = None,
        train: str = "train",
        test: str | None = None,
        image: str = "image",
        label: str | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self._train = HuggingFaceSplit(
            _open(path, config, train, "train"), f"{path}[{train}]", image, label, max_pixels=max_pixels
        )
        self._train.origin = f"split {train}"
        self._test = None
        if test is not None:
            if _is_part_of(test, train):
                raise ContralexError(
                    f"data.test is {test}, which data.train, {train}, holds as well, so that it would be "
                    "trained on; name another split, or null for none."
                )
            found = _open(path, config, test, "test")
            self._test = HuggingFaceSplit(
                found, f"{path}[{test}]", image, label, max_pixels=max_pixels, known=self._train.classes
            )
            self._test.origin = f"split {test}"

    def train(self) -> Split:
        return self._train

    def test(self) -> Split | None:
        return self._test


class HuggingFaceSplit(Split):
    """``name`` of the split, for messages. ``known``: the classes of the training split, which a text label must be
    one of."""

    def __init__(
        self,
        dataset: Any,
        name: str,
        image: str = "image",
        label: str | None = None,
        *,
        max_pixels: int = MAX_PIXELS,
        known: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self._name = name
        for field, column in (("image", image), ("label", label)):
            if column is not None and column not in dataset.column_names:
                raise ContralexError(
                    f"data.{field} is {column}, and {self._name} has no such column; "
                    f"it has {', '.join(dataset.column_names)}."
                )
        self._images = dataset.select_columns([image])  # labels are read once, below
        self._column = image
        self._max_pixels = max_pixels
        if label is not None:
            self.labels, self.classes = _labels(dataset, label, known, self._name)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Image.Image:
        try:
            images.allow(self._max_pixels)
            found = self._images[index][self._column]  # decoded by the package, with PIL
        except Exception as error:  # as in images.read
            raise self._unreadable(index, error) from error
        if not isinstance(found, Image.Image):
            raise ContralexError(
                f"data.image is {self._column}, and that column of {self._name} holds {type(found).__name__}, not "
                "images; name a column of the feature Image."
            )
        try:
            images.check_size(found, self._max_pixels)
            return images.to_rgb(found)
        except Exception as error:
            raise self._unreadable(index, error) from error

    def _unreadable(self, index: int, error: Exception) -> Unreadable:
        return Unreadable(f"{self._name} number {index}", images.reason_of(error, self._max_pixels))


def _is_part_of(test: str, train: str) -> bool:
    """Whether a split, or a slice of one such as ``train[:10%]``, is in another for certain."""
    whole = set(train.split("+"))
    return any(one in whole or one.partition("[")[0] in whole for one in test.split("+"))


def _labels(
    dataset: Any, column: str, known: Sequence[str] | None, name: str
) -> tuple[list[int], Sequence[str] | None]:
    """Labels, and their names. Numbers stand as they are; -1 or nothing is no label. Strings are sorted."""
    values = dataset[column][:]
    if not any(isinstance(value, str) for value in values):
        try:
            labels = [-1 if value is None else int(value) for value in values]
            if any(label != value for label, value in zip(labels, values, strict=True) if value is not None):
                raise ValueError("such as 0.5")
            return labels, getattr(dataset.features[column], "names", None)
        except (TypeError, ValueError) as error:
            raise ContralexError(
                f"data.label is {column}, and that column of {name} holds neither whole numbers nor names of classes."
            ) from error
    classes = known or sorted({value for value in values if value is not None})
    number = {label: index for index, label in enumerate(classes)}
    if strange := next((value for value in values if value is not None and value not in number), None):
        raise ContralexError(f"{name} has the label {strange}, and the training split has no such class.")
    return [-1 if value is None else number[value] for value in values], classes


def _open(path: str | Path, config: str | None, split: str, field: str) -> Any:
    try:
        import datasets  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError as error:
        raise ContralexError(
            "data.kind hf needs the package datasets, which is not installed; run: pip install 'contralex[datasets]'"
        ) from error
    saved = Path(path).expanduser()
    try:
        if not any((saved / name).is_file() for name in ("dataset_dict.json", "state.json")):
            return datasets.load_dataset(str(path), name=config, split=split)
        found = datasets.load_from_disk(str(saved))
    except Exception as error:  # the package raises many kinds, for the network, the hub and its own files
        raise ContralexError(f"data.path {path}, split {split}, cannot be opened: {_first_line(error)}.") from error
    if not isinstance(found, datasets.DatasetDict):  # one split was saved, without a name
        if field == "train":
            return found
        raise ContralexError(f"data.test is {split}, and {saved} holds one split only; set data.test to null.")
    if split not in found:
        raise ContralexError(f"data.{field} is {split}, and {saved} has no such split; it has {', '.join(found)}.")
    return found[split]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
