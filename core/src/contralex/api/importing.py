"""Published weights as a run to begin from, or to go on with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from contralex import progress
from contralex.api.arguments import checked
from contralex.api.recipes import resolve
from contralex.api.runs import Run
from contralex.api.settings import PathLike, Sets, path_text
from contralex.errors import ContralexError
from contralex.files import expand_user
from contralex.recipes.documents import chain

_SHOWN = 8


@dataclass(frozen=True, repr=False)
class ImportedWeights:
    """What :func:`contralex.import_weights` found in a file. It prints as a few lines.

    ``layout``: whose names the file has. ``read``: our names of tensors, with the file's. ``left_out``: the file's that
    are not read, with the reasons. ``problems``: those that do not fit, which a dry run alone returns. ``new``: our
    tensors that begin as the recipe says. ``run``: the run that was made; None after a dry run.

    >>> import contralex, safetensors.torch, torch
    >>> weights = contralex.load_backbone("runs/my-run").state_dict()
    >>> safetensors.torch.save_file(weights, "published.safetensors")
    >>> found = contralex.import_weights("published.safetensors", "moco-v2", preset="digits", dry_run=True)
    >>> found.layout, found.problems
    ('backbone', {})
    """

    file: str
    recipe: str
    layout: str
    read: dict[str, str]
    left_out: dict[str, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    new: list[str] = field(default_factory=list)
    run: Run | None = None

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "run": None if self.run is None else str(self.run.path)}

    def __repr__(self) -> str:
        lines = [f"{self.file} as {self.recipe}, layout {self.layout}: {len(self.read)} tensors are read"]
        reasons: dict[str, list[str]] = {}
        for name, why in self.left_out.items():
            reasons.setdefault(why, []).append(name)
        lines += [f"  left out: {_listed(names)} ({why})" for why, names in reasons.items()]
        lines += [f"  does not fit: {name}: {problem}" for name, problem in list(self.problems.items())[:_SHOWN]]
        if len(self.problems) > _SHOWN:
            lines.append(f"  does not fit: {len(self.problems) - _SHOWN} more")
        new = list(dict.fromkeys(name.rpartition(".")[0] or name for name in self.new))
        lines.append(f"  as the recipe begins them: {_listed(new)}" if new else "  nothing is as the recipe begins it")
        return "\n".join(lines)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


@checked
def import_weights(
    file: PathLike,
    recipe: PathLike,
    out: PathLike | None = None,
    *,
    layout: str | None = None,
    preset: str | None = None,
    data: PathLike | None = None,
    sets: Sets = None,
    skip: str | Sequence[str] = (),
    dry_run: bool = False,
    allow_code: bool = False,
) -> ImportedWeights:
    """A run's folder of step 0 from a published checkpoint: to begin from (``init``), or to go on with.

    ``file``: of safetensors, or of ``torch.save``, which is opened with ``weights_only``. ``recipe``: the one whose
    method it holds, with its ``preset``, ``data`` and ``sets``, which must make networks of the file's sizes. ``out``:
    the folder; without it one below ``runs``. ``layout``: whose names the file has; without it, the one that accounts
    for most. ``skip``: a pattern of names in the file that are not read, or several. ``dry_run``: nothing is written.
    Every tensor of the file is read, or left out for a reason that is said; else it is a :class:`ContralexError`.

    >>> import contralex, safetensors.torch, torch
    >>> weights = contralex.load_backbone("runs/my-run").state_dict()
    >>> safetensors.torch.save_file(weights, "published.safetensors")
    >>> made = contralex.import_weights("published.safetensors", "moco-v2", "runs/imported", preset="digits")
    >>> made.run.backbone(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 256])
    """
    from contralex.importing import imports

    path = expand_user(str(path_text(file)))
    place = None if out is None else expand_user(str(path_text(out)))
    if place is not None and place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise ContralexError(f"--out {place} is there already; choose another folder")
    with progress.listening("stderr"), progress.during(f"Reading {path}"):
        resolved = resolve(recipe, preset=preset, data=data, sets=sets, allow_code=allow_code)
        names = [resolved.run.name, *(each.name for each in chain(str(path_text(recipe))))]
        patterns = [skip] if isinstance(skip, str) else skip
        candidate = imports.match(path, resolved, names, layout, patterns, data_given=data is not None)
        run = None
        if not dry_run:
            imports.check(candidate)
            run = Run(imports.write_run(candidate, place), allow_code=allow_code)
    found = candidate.found
    read = {ours: theirs for ours, (theirs, _) in found.read.items()}
    return ImportedWeights(
        str(path), resolved.run.name, found.layout.name, read, found.left_out, found.problems, found.new, run
    )
