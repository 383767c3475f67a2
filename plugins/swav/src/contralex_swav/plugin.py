"""contralex-swav: what it offers. Imports no torch."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable

from contralex.plugin import Layout, Run, Spec, hookimpl
from contralex_swav import spec as specs
from contralex_swav.layouts import LAYOUTS


@hookimpl
def contralex_backbones() -> list[type[Spec]]:
    return [specs.AlexNetSpec, specs.SobelSpec]


@hookimpl
def contralex_negative_sources() -> list[type[Spec]]:
    return [specs.SphericalClustersSpec, specs.ClusterClassifierSpec]


@hookimpl
def contralex_target_generators() -> list[type[Spec]]:
    return [specs.SinkhornSpec, specs.ClusterTargetsSpec]


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [specs.ClusterCrossEntropySpec]


@hookimpl
def contralex_layouts() -> list[Layout]:
    return LAYOUTS


@hookimpl
def contralex_recipes() -> Traversable:
    return files("contralex_swav") / "recipes"


@hookimpl(kinds=(specs.SphericalClustersSpec, specs.ClusterClassifierSpec))
def contralex_run_start(run: Run) -> None:
    """Give the memory that is to be clustered real embeddings, once in a run's life."""
    if run.step == 0 and isinstance(run.spec.method.negatives, specs.ClusterMemorySpec):
        from contralex_swav.initial_memory import fill_memory

        fill_memory(run)


@hookimpl(kinds=(specs.ClusterClassifierSpec,), uses_encoders=False)
def contralex_step_end(run: Run) -> None:
    """Keep the classifier's steps free of momentum."""
    if isinstance(run.spec.method.negatives, specs.ClusterClassifierSpec):
        from contralex_swav.classifier import forget_momentum

        forget_momentum(run.optimizer, run.method.negatives)
