"""Recipes: what they say, and how they differ. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, overload

from contralex.api.arguments import checked
from contralex.api.settings import PathLike, Sets, path_text, set_texts
from contralex.errors import ContralexError
from contralex.files import expand_user
from contralex.recipes import layers
from contralex.recipes.diff import Change
from contralex.recipes.diff import diff as all_changes
from contralex.recipes.diff_summary import story
from contralex.training.folders import SPEC

if TYPE_CHECKING:
    from contralex.explaining import Explained
    from contralex.recipes.layers import Resolved
    from contralex.recipes.merging import Origin


@checked
def resolve(
    recipe: PathLike,
    *,
    preset: str | None = None,
    data: PathLike | None = None,
    sets: Sets = None,
    allow_code: bool = False,
) -> Resolved:
    """The whole spec of a run: a recipe by its name, or a YAML file by its path, with a preset, data and settings.

    ``allow_code``: the Python files that it names in ``code`` may be run.

    >>> import contralex
    >>> contralex.resolve("moco-v2", preset="digits", sets={"train.epochs": 5}).data["train"]["epochs"]
    5
    """
    return layers.resolve(
        str(path_text(recipe)), preset=preset, data=path_text(data), sets=set_texts(sets), allow_code=allow_code
    )


@dataclass(frozen=True, repr=False)
class Difference(Sequence[Change]):
    """What differs between two runs: every value, each with ``path``, ``before`` and ``after``.

    ``summary``: a line for each block, as ``contralex diff`` prints it and this object as well.
    """

    a: str
    b: str
    changes: tuple[Change, ...]
    summary: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.changes)

    @overload
    def __getitem__(self, index: int) -> Change: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Change]: ...

    def __getitem__(self, index: int | slice) -> Change | Sequence[Change]:
        return self.changes[index]

    def __repr__(self) -> str:
        return "\n".join(self.summary) if self.changes else f"{self.a} and {self.b} are the same run."


@checked
def diff(a: PathLike, b: PathLike, *, preset: str | None = None, allow_code: bool = False) -> Difference:
    """What differs between two recipes.

    >>> import contralex
    >>> [change.path for change in contralex.diff("moco-v2", "moco-v1")][-1]
    'train.optimizer.lr'
    """
    one, other = (resolve(recipe, preset=preset, allow_code=allow_code) for recipe in (a, b))
    return Difference(str(a), str(b), tuple(all_changes(one, other)), tuple(story(one, other)))


@dataclass(frozen=True, repr=False)
class Explanation:
    """A method in its five slots. It prints as text, and a notebook shows it as a picture. ``method``: as data."""

    method: Explained

    def __repr__(self) -> str:
        from contralex.explaining.text import text

        return text(self.method)

    def svg(self) -> str:
        """The picture, as the text of an SVG file."""
        from contralex.explaining.picture import svg

        return svg(self.method)

    def _repr_svg_(self) -> str:
        return self.svg()


@checked
def explain(recipe: PathLike, *, preset: str | None = None, sets: Sets = None, allow_code: bool = False) -> Explanation:
    """What stands in each of a method's five slots, and where gradients flow.

    >>> import contralex
    >>> contralex.explain("moco-v2").method.boxes["negatives"].kind
    'queue'
    """
    from contralex.explaining import explained

    return Explanation(explained(resolve(recipe, preset=preset, sets=sets, allow_code=allow_code)))


@checked
def why(
    recipe: PathLike,
    path: str,
    *,
    preset: str | None = None,
    data: PathLike | None = None,
    sets: Sets = None,
    allow_code: bool = False,
) -> dict[str, list[Origin]]:
    """Where a value comes from, or each value of a block: the layers that set it, lowest first. The last one holds.

    >>> import contralex
    >>> contralex.why("moco-v2", "train.epochs", sets={"train.epochs": 5})["train.epochs"][-1].value
    5
    """
    resolved = resolve(recipe, preset=preset, data=data, sets=sets, allow_code=allow_code)
    origins = {**resolved.origins, **layers.unwritten_defaults(resolved)}
    origins = {leaf: _with_fork(str(path_text(recipe)), leaf, history) for leaf, history in origins.items()}
    found = {leaf: history for leaf, history in origins.items() if f"{leaf}.".startswith(f"{path}.")}
    if not found:
        raise ContralexError(f"{path}: {recipe} has no such value; {_near(path, list(origins))}")
    return found


def _with_fork(recipe: str, leaf: str, history: list[Origin]) -> list[Origin]:
    """In the spec of a fork, a value that the fork has changed says so."""
    file = expand_user(recipe)
    if file.name != SPEC:
        return history
    from contralex.training.fork_file import read_fork

    forked = read_fork(file.parent)
    changes = forked.changes if forked is not None else {}
    change = next((change for path, change in changes.items() if f"{leaf}.".startswith(f"{path}.")), None)
    if forked is None or change is None:
        return history
    *before, last = history
    layer = f"fork of {forked.run} from step {forked.step} on ({change}); {last.layer}"
    return [*before, replace(last, layer=layer)]


def _near(path: str, leaves: list[str]) -> str:
    """Names beside the first part of the path that does not exist."""
    from contralex.recipes.validation_messages import near

    keys = path.split(".")
    for depth, key in enumerate(keys):
        above = ".".join(keys[:depth])
        inside = [leaf for leaf in leaves if not above or leaf.startswith(f"{above}.")]
        beside = list(dict.fromkeys(leaf.split(".")[depth] for leaf in inside))
        if key not in beside:
            return f"{above or 'a run'} is a single value" if not beside else near(key, beside)
    return "there are none"
