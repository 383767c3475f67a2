"""What this environment has, and what is wrong with it; or what is wrong with a run."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contralex import progress
from contralex.api.arguments import checked
from contralex.api.settings import PathLike, path_text
from contralex.errors import ContralexError
from contralex.files import expand_user
from contralex.recipes.code_files import permission

if TYPE_CHECKING:
    from contralex.training.diagnosis.signs import Sign

_NEEDED = ("torch", "torchvision", "accelerate")
_EXTRAS = {
    "timm": "timm",
    "datasets": "datasets",
    "tensorboard": "tensorboard",
    "scikit-learn": "digits",
    "numba": "fast",
}
_SHOWN = ("step", "loss", "lookup_top1", "entries", "feature_std", "effective_rank", "lr", "knn_top1")


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """What was looked at, and a sentence for each problem. It prints as lines.

    ``facts``: of the machine, or the figures that a run logged last. ``plugins``: each with its version and state; of a
    run, none.

    >>> import contralex
    >>> contralex.doctor("runs/my-run").facts["step"]
    2
    """

    facts: dict[str, Any]
    problems: list[str]
    plugins: list[dict[str, str]] = field(default_factory=list)
    periods: int = 0
    """Logged periods of a run."""
    signs: list[Sign] = field(default_factory=list)
    """Of a run: each problem as what was measured, the bound, its source, and the settings to try."""
    measured: dict[str, Any] = field(default_factory=dict)
    """Of a run: the figures of a few batches."""
    notes: list[str] = field(default_factory=list)
    """Of a run: what could not be looked at, and why."""

    def shown(self) -> dict[str, str]:
        """The figures of a run that say most."""
        return {name: f"{self.facts[name]:.4g}" for name in _SHOWN if name in self.facts}

    def __repr__(self) -> str:
        facts = self.shown() if self.periods else self.facts
        lines = [f"{name}: {value}" for name, value in facts.items()]
        lines += [f"Note: {note}" for note in self.notes]
        return "\n".join([*lines, *(f"Problem: {problem}" for problem in self.problems or ["none"])])


@checked
def doctor(
    run: PathLike | None = None,
    *,
    data: PathLike | None = None,
    batches: bool = True,
    allow_code: bool = False,
) -> Diagnosis:
    """What is installed and what is wrong; or, of a run, what is wrong with it and what to try.

    ``data``: where the data of the run lie now, if they have moved. ``batches``: whether some batches are measured with
    the newest checkpoint, beside the metrics and the spec. ``allow_code``: the Python files that the run names in
    ``code`` may be run.

    >>> import contralex
    >>> contralex.doctor().facts["gloo"] in ("yes", "no")
    True
    """
    if run is not None:
        with progress.listening("stderr"), permission(allow_code):
            return _examine(expand_user(str(path_text(run))), path_text(data), batches)
    if data is not None:
        raise ContralexError("doctor: data is about a run; give the run's folder, too")
    facts = {**_software(), **_machine()}
    problems = [*_missing(facts), *_plugin_problems(), *_installed_twice(), *_shadowed(), *_out_of_step()]
    return Diagnosis(facts, problems, _plugins())


def _examine(run: Path, data: str | None, with_batches: bool) -> Diagnosis:
    from contralex.training.diagnosis.examine import examine
    from contralex.training.health import read_lines

    file = run / "metrics.jsonl"
    if not file.is_file():
        raise ContralexError(f"doctor: {run} is no run's folder, for it has no metrics.jsonl; give the folder of --out")
    lines = [line for line in read_lines(file) if "loss" in line]
    found = examine(run, lines, data, with_batches)
    return Diagnosis(
        facts=lines[-1] if lines else {},
        problems=[str(sign) for sign in found.signs],
        periods=len(lines),
        signs=found.signs,
        measured=found.measured,
        notes=found.notes,
    )


def _software() -> dict[str, Any]:
    facts: dict[str, Any] = {"contralex": _version("contralex"), "Python": platform.python_version()}
    facts |= {name: _version(name) or "missing" for name in _NEEDED}
    return facts | {
        name: _version(name) or f"not installed (optional): pip install 'contralex[{extra}]'"
        for name, extra in _EXTRAS.items()
    }


def _machine() -> dict[str, Any]:
    facts: dict[str, Any] = {"CPU cores": _cores()}
    try:
        import torch
    except Exception as error:  # a broken torch raises many things, and this command is there to say so
        return facts | {"importing torch": f"failed: {type(error).__name__}: {error}"}
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    spread = torch.distributed
    available = spread.is_available()
    return facts | {
        "CUDA": ", ".join(names) if names else "no",
        "MPS": "yes" if torch.backends.mps.is_available() else "no",
        "gloo": "yes" if available and spread.is_gloo_available() else "no",
        "NCCL": "yes" if available and spread.is_nccl_available() else "no",
    }


def _cores() -> int:
    """Those that this process may use; a container often has fewer than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _plugins() -> list[dict[str, str]]:
    from contralex.plugins.registry import registry

    return [
        {"name": plugin.name, "version": plugin.version, "state": plugin.state, "reason": plugin.reason}
        for plugin in registry().plugins.values()
    ]


def _missing(facts: dict[str, Any]) -> Iterator[str]:
    yield from _unusable_numba(facts)
    for name in _NEEDED:
        if facts[name] == "missing":
            yield f"{name} is not installed: pip install {name}"
    if "importing torch" in facts:
        yield f"importing torch {facts['importing torch']}; install it again, as https://pytorch.org says"


def _unusable_numba(facts: dict[str, Any]) -> Iterator[str]:
    """Each of its versions works with some versions of NumPy alone."""
    if _version("numba") is None:
        return
    try:
        import numba  # noqa: F401
    except ImportError as error:
        yield (
            f"numba {facts['numba']} cannot be imported, so views take longer ({error}): "
            "pip install --upgrade 'contralex[fast]'"
        )


def _plugin_problems() -> Iterator[str]:
    from contralex.plugins.discovery import VARIABLE
    from contralex.plugins.registry import registry

    for plugin in registry().plugins.values():
        if plugin.state in ("broken", "conflict", "incompatible"):
            yield f"{plugin.name} is {plugin.state}: {plugin.reason}"
    for name in registry().unmatched:
        yield f"{VARIABLE} names {name}, but no plugin of this name is installed"


def _installed_twice() -> Iterator[str]:
    """Two records of one distribution: a stale installation, of which Python takes either."""
    from contralex.plugins.discovery import normal, records
    from contralex.plugins.registry import registry

    for name, where in records({normal(name) for name in registry().plugins}).items():
        if len(where) > 1:
            yield (
                f"{name} is installed {len(where)} times, in {' and '.join(where)}; "
                f"run pip uninstall {name} until none is left, and install it once"
            )


def _shadowed() -> Iterator[str]:
    """A module that comes from elsewhere than its distribution: a folder of its name that is first on the path."""
    from contralex.plugins.registry import registry

    for plugin in registry().plugins.values():
        file = getattr(plugin.module, "__file__", None)
        if plugin.found is None or file is None:
            continue
        home = plugin.found.location
        # As written, or with links followed: a package manager may link the one or the other.
        if not any(Path(way(file)).is_relative_to(way(home)) for way in (os.path.abspath, os.path.realpath)):
            yield (
                f"{plugin.name} is installed in {home}, but Python imports it from {file}, which comes first on the "
                f"path; rename or remove that one, or run in another folder"
            )


def _out_of_step() -> Iterator[str]:
    """First-party plugins are released together with the core."""
    from contralex.plugins.first_party import known_kinds, known_recipes
    from contralex.plugins.registry import registry

    first_party = {*known_recipes().values(), *(name for kinds in known_kinds().values() for name in kinds.values())}
    core = registry().plugins["contralex"].version
    for plugin in registry().plugins.values():
        if plugin.name in first_party and plugin.version.split(".")[:2] != core.split(".")[:2]:
            yield f"{plugin.name} is {plugin.version} and contralex {core}: pip install -U contralex {plugin.name}"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
