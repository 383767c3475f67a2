"""The report of runs, and the views of a recipe before any training."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contralex import progress
from contralex.api import feature_files
from contralex.api.arguments import checked
from contralex.api.runs import Run
from contralex.api.settings import PathLike, path_text
from contralex.errors import ContralexError, remedy
from contralex.files import expand_user, write_text
from contralex.recipes.code_files import permission
from contralex.reporting.limits import IMAGES, MOST_IMAGES

if TYPE_CHECKING:
    from contralex.reporting.subjects import Logged


@dataclass(frozen=True, repr=False)
class Report:
    """A report on disk. It prints as a few lines.

    ``path``: the page, one HTML file without others. ``table``: the map as a Parquet file beside it, or None where
    pyarrow is not installed or there is no map. ``left_out``: a sentence for each part that the runs cannot give.
    ``data``: what the page shows, as plain data.

    >>> import contralex
    >>> contralex.report("runs/my-run").path
    PosixPath('runs/my-run/report.html')
    """

    path: Path
    table: Path | None
    left_out: Sequence[str]
    data: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        lines = [f"Report in {self.path}, {self.path.stat().st_size / 1e6:.1f} MB"]
        lines += [f"  {sentence}" for sentence in self.left_out]
        return "\n".join([*lines, *([f"  map in {self.table}"] if self.table is not None else [])])


@checked
def report(
    runs: PathLike | Sequence[PathLike],
    *,
    out: PathLike | None = None,
    data: PathLike | None = None,
    images: int = IMAGES,
    umap: bool = False,
    allow_code: bool = False,
) -> Report:
    """Write what one run or several learnt into one HTML page, which needs no network and no other file.

    ``runs``: a run's folder, or several, at most 8. ``out``: the page; without it ``report.html`` in the run's folder,
    or of several in this folder. ``data``: other images than the first run's own to ask the encoders about, as for
    ``contralex train --data``. ``images``: of the map, and among which neighbours are found, at most 10,000. ``umap``:
    a second layout of the map, by umap-learn. ``allow_code``: the Python files that the runs name in ``code`` may be
    run.

    >>> import contralex
    >>> contralex.report("runs/my-run", images=100).data["runs"][0]["name"]
    'moco-v2'
    """
    from contralex.reporting.collecting import Options, collect
    from contralex.reporting.whole_page import make_page, sentences

    opened = [Run(run, allow_code=allow_code) for run in _listed(runs)]
    for run in opened:
        _check_is_run(run)
    _check_images(images)
    page = _page_path(opened, out)
    table = _table_path(page)
    if umap:
        from contralex.reporting.projection import import_umap

        import_umap()
    with progress.listening("stderr"), permission(allow_code):
        command = _command(opened, out, data, images, umap, allow_code)
        found, atlas = collect([_log(run) for run in opened], Options(path_text(data), images, umap, [command]))
        _write(page, make_page(found))
        if table is not None and atlas is not None:
            feature_files.write_map(table, atlas.columns())
    return Report(page, table if atlas is not None else None, list(sentences(found)), found)


def _listed(runs: PathLike | Sequence[PathLike]) -> list[PathLike]:
    listed = [runs] if isinstance(runs, str | os.PathLike) else list(runs)
    if not listed:
        raise ContralexError('report: give a run\'s folder, or a list of them, such as ["runs/a", "runs/b"]')
    return listed


def _check_is_run(run: Run) -> None:
    if not any((run.folder / name).exists() for name in ("spec.yaml", "checkpoints")):
        raise ContralexError(f"{run.path} holds no spec.yaml and no checkpoints, so it is not a run's folder")


def _check_images(images: int) -> None:
    if not 2 <= images <= MOST_IMAGES:
        raise ContralexError(f"images is {images}, and a map has 2 to {MOST_IMAGES:,} images")


def _page_path(runs: Sequence[Run], out: PathLike | None) -> Path:
    page = (
        expand_user(str(path_text(out)))
        if out is not None
        else (runs[0].folder if len(runs) == 1 else Path()) / "report.html"
    )
    if page.suffix.lower() not in (".html", ".htm"):
        raise ContralexError(f"{page}: the name of a report must end in .html")
    if not page.parent.is_dir():
        raise ContralexError(f"{page}: there is no folder {page.parent}; make it first")
    if page.is_dir():
        raise ContralexError(f"{page} is a folder; give the name of a file")
    return page


def _table_path(page: Path) -> Path | None:
    """Of the map beside the page, where pyarrow is installed. Refuses a file there that is something else."""
    if not feature_files.has_pyarrow():
        return None
    table = page.with_suffix(".parquet")
    if os.path.lexists(table) and not feature_files.is_map(table):
        raise ContralexError(
            f"{table} is there already and is no map of a report, which would be saved under this name; give the "
            "report another name:" + remedy("--out", page.with_name(f"{page.stem}-report{page.suffix}"))
        )
    return table


def _log(run: Run) -> Logged:
    from contralex.reporting.subjects import Logged

    has_ended = (run.folder / "results.json").is_file()
    return Logged(run.path, run.folder, run.spec, run.metrics(), run.results if has_ended else {})


def _write(page: Path, text: str) -> None:
    try:
        write_text(page, text)
    except OSError as error:
        raise ContralexError(f"{page}: the report cannot be written ({error.strerror})") from None


def _command(
    runs: Sequence[Run], out: PathLike | None, data: PathLike | None, images: int, umap: bool, allow_code: bool
) -> list[str]:
    """What makes the same report again."""
    given = {"--out": out, "--data": data, "--images": images}
    options = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    flags = [name for name, on in (("--umap", umap), ("--allow-code", allow_code)) if on]
    return ["contralex", "report", *(str(run.path) for run in runs), *options, *flags]
