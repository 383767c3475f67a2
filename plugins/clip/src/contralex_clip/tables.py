"""Reading a table of images and captions: lines of cells, or of JSON objects. Only the separator is guessed."""

from __future__ import annotations

import csv
import json
from array import array
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from contralex.plugin import ContralexError, Texts, printable, remedy

_SEPARATORS = {",": "a comma", "\t": "a tab", ";": "a semicolon", "|": "a vertical bar"}
_DEFAULT_SPLIT = "split"  # a table need not have this column; one that a recipe names it must


class Columns(NamedTuple):
    """The names of the table's columns; None where there is none."""

    image: str = "image"
    caption: str = "caption"
    label: str | None = None
    split: str | None = "split"


COLUMNS = Columns()


class Row(NamedTuple):
    """A line of the table, or why it cannot be used. ``label`` and ``split`` are empty where there are none."""

    line: int
    image: str
    caption: str
    label: str
    split: str
    fault: str | None = None


class Rows:
    """The lines of a table, column by column, in little more than the bytes of their texts. ``faults``: by index."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.lines = array("q")
        self.images, self.captions, self.labels, self.splits = Texts(), Texts(), Texts(), Texts()
        self.faults: dict[int, str] = {}
        for row in rows:
            if row.fault is not None:
                self.faults[len(self)] = row.fault
            self.lines.append(row.line)
            self.images.append(row.image)
            self.captions.append(row.caption)
            self.labels.append(row.label)
            self.splits.append(row.split)

    def __len__(self) -> int:
        return len(self.lines)

    def select(self, indices: Iterable[int]) -> Rows:
        return Rows(self._row(index) for index in indices)

    def _row(self, index: int) -> Row:
        image, caption, label, split = (
            column[index] for column in (self.images, self.captions, self.labels, self.splits)
        )
        return Row(self.lines[index], image, caption, label, split, self.faults.get(index))


def read(path: Path, columns: Columns, field: str) -> Rows:
    """The lines of the table that the recipe names as ``data.FIELD``."""
    name = printable(path)
    if not path.is_file():
        raise ContralexError(f"data.{field} {name} does not exist; give the table of images and captions.")
    try:
        # Names of files may be any bytes, which come back as they were; captions with such bytes are refused below.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            lines = _objects(file) if path.suffix.lower() == ".jsonl" else _cells(file, columns, f"data.{field} {name}")
            rows = Rows(_row(line, cells, columns, name) for line, cells in lines)
    except (OSError, ValueError, csv.Error) as error:  # json's errors are ValueErrors
        raise ContralexError(f"data.{field} {name} cannot be read: {str(error).rstrip('.')}.") from error
    if not len(rows):
        raise ContralexError(f"data.{field} {name} has no lines; each pair of an image and a caption is one.")
    return rows


def _row(line: int, cells: Mapping[str, Any] | str, columns: Columns, name: str) -> Row:
    if isinstance(cells, str):
        return Row(line, "", "", "", "", cells)
    _check_columns(list(cells), columns, line, name)
    found = {option: None if column is None else cells.get(column) for option, column in columns._asdict().items()}
    texts = {option: "" if cell is None else str(cell) for option, cell in found.items()}
    texts["caption"] = texts["caption"].strip()
    if any(isinstance(cell, dict | list) for cell in found.values()):
        fault: str | None = "it holds lists or objects, where texts are needed"
    elif not texts["image"]:
        fault = "it names no image"
    elif found["caption"] is None:
        fault = "it has no caption"
    else:
        fault = None
    if printable(texts["caption"] + texts["label"]) != texts["caption"] + texts["label"]:
        raise ContralexError(f"Line {line} of {name} is not UTF-8; save the table as UTF-8.")
    return Row(line, **texts, fault=fault)


# Lines of JSON


def _objects(file: IO[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, text in enumerate(file, 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except RecursionError:
            raise ValueError(f"line {number} is nested too deeply") from None
        except json.JSONDecodeError as error:
            raise ValueError(f"line {number} is no JSON: {error.msg}") from error
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is no object with named values")
        yield number, row


# Lines of cells


def _cells(file: IO[str], columns: Columns, where: str) -> Iterator[tuple[int, dict[str, str] | str]]:
    head = file.readline()
    if "\0" in head:
        raise ValueError("it holds zero bytes; save it as text in UTF-8")
    if not head.strip():
        return
    separator = _separator(head, columns)
    header = [cell.strip() for cell in next(csv.reader([head], delimiter=separator))]
    _check_header(header, separator, columns, where)
    reader = csv.reader(file, delimiter=separator)
    before = 1
    for cells in reader:
        first, before = before + 1, reader.line_num + 1
        if not cells:
            continue
        if len(cells) != len(header):
            yield (
                first,
                (
                    f"it has {len(cells)} cell{'' if len(cells) == 1 else 's'}, and the first line has {len(header)}; "
                    f"a text with {_SEPARATORS[separator]} in it stands in double quotes"
                ),
            )
        elif any(_holds_lines(cell, separator, len(header)) for cell in cells):
            yield first, f"a quote that it opens is closed on line {before} only"
        else:
            yield first, dict(zip(header, cells, strict=True))


def _separator(head: str, columns: Columns) -> str:
    """The one that finds the columns that are asked for; else the one that finds most cells."""

    def count_columns(separator: str) -> tuple[int, int]:
        cells = [cell.strip() for cell in next(csv.reader([head], delimiter=separator))]
        return len(set(columns).intersection(cells)), len(cells)

    return max(_SEPARATORS, key=count_columns)


def _check_header(header: list[str], separator: str, columns: Columns, where: str) -> None:
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise ContralexError(
            f"{where} has more than one column {printable(twice[0]) or 'without a name'}; name each apart."
        )
    missing = [column for column in (columns.image, columns.caption) if column not in header]
    if len(missing) == 2 and any(Path(cell).suffix and " " not in cell for cell in header):  # a.jpg, and not its name
        wanted = ("<tab>" if separator == "\t" else separator).join((columns.image, columns.caption))
        raise ContralexError(
            f"{where} begins with {printable(separator.join(header))}, which does not name columns; put a first "
            f"line into it that does: {wanted}"
        )
    _check_columns(header, columns, 1, where.partition(" ")[2])


def _check_columns(there: list[str], columns: Columns, line: int, name: str) -> None:
    """Of a table's first line, or of a line of JSON, which names its own columns."""
    for option, column in columns._asdict().items():
        if column is not None and column not in there and (option, column) != ("split", _DEFAULT_SPLIT):
            raise ContralexError(
                f"data.{option} is {column}, and line {line} of {name} has no such column; "
                f"it has {', '.join(map(printable, there))}. Name the right one:"
                + remedy("--set", f"data.{option}={printable(_other(there, columns))}")
            )


def _other(header: list[str], columns: Columns) -> str:
    """The first column that the recipe does not name."""
    return next((name for name in header if name not in columns), header[0] if header else "NAME")


def _holds_lines(cell: str, separator: str, count: int) -> bool:
    """Whether a cell holds complete lines of the table, as behind a quote that is not closed."""
    return any(line.count(separator) == count - 1 for line in cell.splitlines()[1:-1])
