"""The options of ``contralex train`` as one value: of the command, of Python, and of each process that is started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from contralex.api.fitting import fit_settings
from contralex.errors import ContralexError, remedy
from contralex.recipes.code_files import permission
from contralex.recipes.data_files import check_present
from contralex.recipes.layers import Resolved, resolve
from contralex.training.folders import SPEC


@dataclass(frozen=True)
class TrainOptions:
    """What ``contralex train`` is told, beside how many processes there are."""

    recipe: str | None
    preset: str | None = None
    data: str | None = None
    sets: Sequence[str] = ()
    out: Path | None = None
    resume: bool = False
    allow_code: bool = False
    allow_drift: bool = False

    def resolve(self) -> Resolved:
        """The spec of the run. Refuses what cannot be trained."""
        recipe = self._recipe()
        if self.allow_drift and not self.resume:
            raise ContralexError("--allow-drift is about a run that is resumed; add --resume and its --out")
        # A run's own spec holds no presets itself.
        is_own = self.resume and self.out is not None and Path(recipe) == self.out / SPEC
        resolved = resolve(
            recipe,
            preset=self.preset,
            data=self.data,
            sets=self.sets,
            allow_code=self.allow_code,
            presets_of_its_name=is_own,
        )
        if not self.resume:
            self._check_recipe_stays(recipe)
            check_present(resolved, recipe, ["contralex", "train", recipe], allow_code=self.allow_code)
        return resolved

    def fitted(self, processes: int, fit: bool, minutes: float | None) -> TrainOptions:
        """With ``fit``: the settings that fit the run to its data and to this machine stand below the user's own."""
        if not fit:
            if minutes is not None:
                raise ContralexError("--minutes says how long a run may train that --fit fits; add --fit")
            return self

        def resolve_with(more: Sequence[str]) -> Resolved:
            return replace(self, sets=[*more, *self.sets]).resolve()

        with permission(self.allow_code):
            return replace(self, sets=[*fit_settings(resolve_with, processes, minutes, self.resume), *self.sets])

    def _check_recipe_stays(self, recipe: str) -> None:
        """A run writes its resolved spec into its folder."""
        if self.out is None or not (self.out / SPEC).is_file() or not Path(recipe).is_file():
            return
        if (self.out / SPEC).samefile(recipe):
            raise ContralexError(
                f"--out {self.out}: the run's {SPEC} would take the place of {recipe}, which is the recipe; choose "
                "another folder:" + remedy("--out", self.out / "run")
            )

    def command(self) -> list[str]:
        """The words of ``contralex train``, for each process."""
        options = {"--preset": self.preset, "--data": self.data, "--out": self.out}
        words = [f"{name}={value}" for name, value in options.items() if value is not None]
        switches = {
            "--resume": self.resume,
            "--allow-code": self.allow_code,
            "--allow-drift": self.allow_drift,
        }
        flags = [name for name, on in switches.items() if on]
        return ["train", *words, *(f"--set={text}" for text in self.sets), *flags, "--", self._recipe()]

    def _recipe(self) -> str:
        if self.resume and self.out is None:
            raise ContralexError("--resume: say which run with --out, such as --out runs/my-run")
        if self.recipe is not None:
            return self.recipe
        if not self.resume or self.out is None:
            raise ContralexError(
                "train what? give a recipe (`contralex methods` lists them) or the path of a YAML file"
            )
        if not (self.out / SPEC).is_file():
            raise ContralexError(f"--resume: {self.out} holds no {SPEC}, so it is not a run's folder")
        return str(self.out / SPEC)
