"""contralex-swav: what it offers. Imports no torch."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING

from contralex.plugin import Spec, hookimpl
from contralex_swav import spec as specs

if TYPE_CHECKING:
    from contralex.training.run import Run


@hookimpl
def contralex_backbones() -> list[type[Spec]]:
    return [specs.AlexNet, specs.Sobel]


@hookimpl
def contralex_negative_sources() -> list[type[Spec]]:
    return [specs.SphericalClusters, specs.ClusterClassifier]


@hookimpl
def contralex_target_generators() -> list[type[Spec]]:
    return [specs.Sinkhorn, specs.ClusterTargets]


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [specs.ClusterCrossEntropy]


@hookimpl
def contralex_recipes() -> Traversable:
    return files("contralex_swav") / "recipes"


@hookimpl
def contralex_run_start(run: Run) -> None:
    """The memory that is to be clustered gets real embeddings, once in a run's life."""
    if run.step == 0 and isinstance(run.spec.method.negatives, specs.Clustering):
        from contralex_swav.fill import fill

        fill(run)


@hookimpl
def contralex_step_end(run: Run) -> None:
    if isinstance(run.spec.method.negatives, specs.ClusterClassifier):
        from contralex_swav.classifier import Classifier, forget_momentum

        assert isinstance(run.method.negatives, Classifier)
        forget_momentum(run.optimizer, run.method.negatives)
