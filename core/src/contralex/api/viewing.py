"""The views that a recipe makes of some samples, before any training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from contralex import progress
from contralex.api.arguments import checked
from contralex.api.recipes import resolve
from contralex.api.settings import PathLike, Sets, path_text
from contralex.errors import ContralexError
from contralex.files import expand_user, replacing, write_text
from contralex.recipes.data_files import check_present

if TYPE_CHECKING:
    from contralex.reporting.view_grid import ViewRows

_MOST = 100  # samples


@dataclass(frozen=True, repr=False)
class ViewGrid:
    """The views of some samples: a row for each sample, a column for each view. A notebook shows it as a table.

    ``grid``: its ``columns``, and ``rows`` with the pictures of PIL and what each view went through.

    >>> import contralex
    >>> contralex.views("moco-v2", preset="digits", samples=2).save("views.png")
    PosixPath('views.png')
    """

    recipe: str
    grid: ViewRows

    def save(self, path: PathLike) -> Path:
        """Draw it into a ``.png`` or ``.html`` file, whole or not at all. Returns its path."""
        file = expand_user(str(path_text(path)))
        check_name(file)
        try:
            if file.suffix.lower() == ".html":
                write_text(file, self.html())
            else:
                _write_png(file, self.grid)
        except OSError as error:
            raise ContralexError(f"{file}: the file cannot be written ({error.strerror})") from None
        return file

    def html(self) -> str:
        """The page of it, with its pictures in it."""
        from contralex.reporting.collecting import grid_data
        from contralex.reporting.page_images import draw_grid
        from contralex.reporting.whole_page import fill_page

        return fill_page(f"The views of {self.recipe}", draw_grid(grid_data(self.grid)))

    def _repr_html_(self) -> str:
        from contralex.reporting.collecting import grid_data
        from contralex.reporting.page_images import draw_grid

        return draw_grid(grid_data(self.grid))

    def __repr__(self) -> str:
        lines = [f"The views of {self.recipe}"]
        for row in self.grid.rows:
            lines.append(f"  {row.name}")
            for name, cell in zip(self.grid.columns, row.cells, strict=True):
                lines.append(f"    {name}: {'; '.join(filter(None, [cell.text, *cell.steps])) or 'a picture'}")
        return "\n".join(lines)


@checked
def views(
    recipe: PathLike,
    *,
    preset: str | None = None,
    data: PathLike | None = None,
    sets: Sets = None,
    samples: int = 6,
    allow_code: bool = False,
) -> ViewGrid:
    """The augmented views that a recipe makes of some samples, before any training: those of its first epoch.

    The arguments are those of :func:`contralex.train`. ``samples``: how many, evenly apart in the data, at most 100.

    >>> import contralex
    >>> found = contralex.views("moco-v2", preset="digits", samples=2)
    >>> len(found.grid.rows), found.grid.columns
    (2, ['view 0: crops 1', 'view 1: crops 2'])
    """
    from contralex.reporting.view_grid import view_rows
    from contralex.training import build

    if not 1 <= samples <= _MOST:
        raise ContralexError(f"samples is {samples}, and 1 to {_MOST} samples are drawn")
    resolved = resolve(recipe, preset=preset, data=data, sets=sets, allow_code=allow_code)
    text = str(path_text(recipe))
    check_present(resolved, text, ["contralex", "views", text], allow_code=allow_code)
    with progress.listening("stderr"):
        spec = resolved.run
        split, train = build.read_source(spec.data).train(), spec.train
        made = view_rows(split, spec.method.views.build(), train.seed, samples, batch=train.batch_size)
        return ViewGrid(spec.name, made)


def check_name(file: Path) -> None:
    """Refuses, before anything is computed, a file that could not be written."""
    if file.suffix.lower() not in (".png", ".html"):
        raise ContralexError(f"{file}: the name must end in .png or .html")
    if not file.parent.is_dir():
        raise ContralexError(f"{file}: there is no folder {file.parent}; make it first")


def _write_png(file: Path, grid: ViewRows) -> None:
    from contralex.reporting.view_picture import draw

    picture = draw(grid)
    with replacing(file) as draft:
        picture.save(draft, "png")
