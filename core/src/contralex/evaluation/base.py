"""What an evaluator is: one figure that says how good an encoder is, and how tables show it. Imports no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from contralex.errors import ContralexError

if TYPE_CHECKING:
    import torch

    from contralex.data.base import Source
    from contralex.data.views import Views
    from contralex.evaluation.remembered import FeatureStore
    from contralex.lookup.slots import Encoder
    from contralex.plugins.spec import Spec
    from contralex.recipes.run_spec import RunSpec

# What is evaluated, in results and tables.
THIS = "this run"
"""The row of an evaluation that is the run's own encoder."""
UNTRAINED = "untrained encoder"
"""The baseline row of the same encoder with its first weights."""
PIXELS = "raw pixels"
"""The baseline row of the images themselves."""


class NoLabels(ContralexError):
    """The data cannot be evaluated with: they have no labels, or no test split, or lack what else is needed."""


@dataclass(frozen=True)
class Accuracy:
    """How often a class is right, and everything that the figures depend on."""

    top1: float
    """The fraction of the test samples, in [0, 1], whose class comes first."""
    top5: float
    """The fraction whose class is among the first five."""
    protocol: dict[str, Any] = field(default_factory=dict)
    """Settings, and how many samples there were: what JSON can hold."""


@dataclass(frozen=True)
class Measures:
    """Figures by their names, and everything that they depend on."""

    figures: dict[str, float | None]
    """None where a figure cannot be had of these features."""
    protocol: dict[str, Any]
    """Settings, and how many samples there were: what JSON can hold."""
    details: dict[str, Any] = field(default_factory=dict)
    """What else is kept with the result, such as which samples were chosen."""


@dataclass(frozen=True)
class EvalContext:
    """What an encoder is evaluated on, and where."""

    source: Source
    """The data, with its test split."""
    views: Views
    """Makes an image as evaluation sees it."""
    batch_size: int
    """Samples that are encoded at once."""
    device: torch.device
    """Where the encoder lies."""
    workers: int = 0
    """Processes that read samples."""
    cache: FeatureStore | None = None
    """Where features of the encoder are kept: on disk of a finished run, in memory between several evaluators while it
    learns; None: nowhere."""


class Measurement(ABC):
    """Something that is measured of a finished run's encoder, by one process."""

    name: ClassVar[str]
    """Its name in results, and in the names of their files."""
    baselines: tuple[str, ...] = ()
    """What is measured beside the encoder: the untrained one, or nothing."""

    @abstractmethod
    def measure(self, encoder: Encoder, context: EvalContext, run: RunSpec) -> Measures:
        """Raises :class:`NoLabels` where the data do not allow it. ``run``: the spec of the run, with its views."""

    @abstractmethod
    def sentence(self, figures: Mapping[str, Any], protocol: Mapping[str, Any]) -> str:
        """What was measured how, with its figures: for a paper, without the full stop."""


class Evaluator(ABC):
    """One way to evaluate an encoder: during a run, at its end, and in comparisons.

    A subclass sets ``name`` and ``label`` and writes :meth:`evaluate`. A plugin offers one with the hook
    ``contralex_evaluators``.
    """

    name: ClassVar[str]
    """Its key in ``results.json``; ``{name}_top1`` is its metric."""
    label: ClassVar[str]
    """What tables and sentences call it, such as ``kNN``."""
    columns: ClassVar[Mapping[str, str]] = {"top1": "top-1 %", "top5": "top-5 %"}
    """The fields of its result that tables show, with their headings; comparisons show the first."""
    has_baselines: ClassVar[bool] = False
    """Whether it can evaluate the untrained encoder and raw pixels too. Its results are then by what was evaluated."""
    silenced_by: ClassVar[str] = ""
    """The setting that leaves it out, such as ``eval.knn=null``. A run says why it has no figure only where there is
    one."""
    figure: ClassVar[str] = "figure"
    """What such a sentence calls its result."""

    def __init__(self, spec: Any = None) -> None:
        """``spec``: its block of the recipe, if it has one. Of its fields ``every`` and ``baselines`` are read here."""
        self.spec = spec

    @property
    def every(self) -> int | None:
        """Epochs from one evaluation to the next during training; None: only at the end."""
        every: int | None = getattr(self.spec, "every", None)
        return every

    @property
    def baselines(self) -> tuple[str, ...]:
        """What is evaluated beside the encoder, once before the first step."""
        wanted = self.has_baselines and getattr(self.spec, "baselines", True)
        return (UNTRAINED, PIXELS) if wanted else ()

    @abstractmethod
    def evaluate(self, encoder: Encoder | None, context: EvalContext, *, baseline: bool = False) -> Accuracy:
        """The accuracy of an encoder; without one, of raw pixels. ``baseline``: a part of the samples will do.

        Every process calls this, and gets the same. Raises :class:`NoLabels` where the data do not allow it.
        """

    def choose_data(self, run: RunSpec, data: str | None, sets: Sequence[str]) -> Spec | None:
        """The data to evaluate a checkpoint of ``run`` on, where its views need more of data than evaluation does.

        ``data`` and ``sets``: the options ``--data`` and ``--set``. None: the run's own spec, changed by them.
        """
        return None

    def settings(self, protocol: Mapping[str, Any]) -> str:
        """How it was evaluated, for the title of a run's table and below a comparison's."""
        shown = {name: value for name, value in protocol.items() if not name.endswith("_samples")}
        return f"{self.label}: " + ", ".join(f"{name} {value}" for name, value in shown.items())

    def samples(self, protocol: Mapping[str, Any]) -> str:
        """On how many samples it was evaluated, likewise."""
        return f"{protocol['test_samples']} to evaluate on"

    def footnote(self, protocol: Mapping[str, Any]) -> str:
        """The sentence below a comparison's table."""
        return f"{self.settings(protocol)}."

    def sentence(self, result: Mapping[str, Any]) -> str:
        """A result, where no table of the run shows it."""
        figures = ", ".join(f"{head.removesuffix(' %')} {result[key]:.1%}" for key, head in self.columns.items())
        return f"{self.label} of {result['protocol']['test_samples']} test samples: {figures}"
