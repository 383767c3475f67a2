"""contralex: contrastive and self-supervised learning as looking a query up in a dictionary of keys.

    import contralex

    run = contralex.train("moco-v2", preset="digits")
    run.knn(), run.embed("photos").features

This is the user's door, and ``docs/python.md`` describes it; an author of plugins imports from
:mod:`contralex.plugin`. Importing this package imports no torch; names that need it are imported when they are used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from contralex.errors import ContralexError

if TYPE_CHECKING:
    from contralex.api.adaptation import Adapted
    from contralex.api.adapting import adapt
    from contralex.api.building import build
    from contralex.api.clustering import cluster
    from contralex.api.comparing import Comparison, compare
    from contralex.api.duplicates import duplicates
    from contralex.api.embedding import Embeddings, embed
    from contralex.api.exporting import Export, export
    from contralex.api.forking import Fork, fork
    from contralex.api.health import Diagnosis, doctor
    from contralex.api.importing import ImportedWeights, import_weights
    from contralex.api.inspecting import inspect
    from contralex.api.method_list import methods
    from contralex.api.recipes import diff, explain, resolve, why
    from contralex.api.reporting import Report, report
    from contralex.api.run_list import runs
    from contralex.api.runs import Run
    from contralex.api.runs import open as open
    from contralex.api.searching import search
    from contralex.api.semi_supervised import distill, finetune
    from contralex.api.training import dry_run, train
    from contralex.api.transform import Transform, load_transform
    from contralex.api.viewing import ViewGrid, views
    from contralex.kinds.encoders.image import ImageEncoder
    from contralex.kinds.key_encoders.parts import MomentumEncoder
    from contralex.kinds.losses.parts import InfoNCE
    from contralex.kinds.negatives.parts import QueueSource
    from contralex.kinds.targets.parts import InstanceTargets
    from contralex.lookup.clock import Clock
    from contralex.lookup.slots import Backbone
    from contralex.lookup.step import LookUp
    from contralex.lookup.values import Match, Step
    from contralex.lookup.view import View
    from contralex.plugins.kind_list import list_kinds as kinds
    from contralex.training.build import load_backbone, load_encoder

    __version__: str

_WHERE = {
    "contralex.api.adaptation": ("Adapted",),
    "contralex.api.adapting": ("adapt",),
    "contralex.api.building": ("build",),
    "contralex.api.clustering": ("cluster",),
    "contralex.api.comparing": ("Comparison", "compare"),
    "contralex.api.duplicates": ("duplicates",),
    "contralex.api.embedding": ("Embeddings", "embed"),
    "contralex.api.forking": ("Fork", "fork"),
    "contralex.api.exporting": ("Export", "export"),
    "contralex.api.health": ("Diagnosis", "doctor"),
    "contralex.api.importing": ("ImportedWeights", "import_weights"),
    "contralex.api.inspecting": ("inspect",),
    "contralex.api.method_list": ("methods",),
    "contralex.api.recipes": ("diff", "explain", "resolve", "why"),
    "contralex.api.reporting": ("Report", "report"),
    "contralex.api.run_list": ("runs",),
    "contralex.api.runs": ("Run", "open"),
    "contralex.api.searching": ("search",),
    "contralex.api.semi_supervised": ("distill", "finetune"),
    "contralex.api.training": ("dry_run", "train"),
    "contralex.api.transform": ("Transform", "load_transform"),
    "contralex.api.viewing": ("ViewGrid", "views"),
    "contralex.kinds.encoders.image": ("ImageEncoder",),
    "contralex.kinds.key_encoders.parts": ("MomentumEncoder",),
    "contralex.kinds.losses.parts": ("InfoNCE",),
    "contralex.kinds.negatives.parts": ("QueueSource",),
    "contralex.kinds.targets.parts": ("InstanceTargets",),
    "contralex.lookup.clock": ("Clock",),
    "contralex.lookup.slots": ("Backbone",),
    "contralex.lookup.step": ("LookUp",),
    "contralex.lookup.values": ("Match", "Step"),
    "contralex.lookup.view": ("View",),
    "contralex.training.build": ("load_backbone", "load_encoder"),
}
_MODULE = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [  # all names but `open`, for `from contralex import *` would put it in place of Python's
    "Adapted",
    "Backbone",
    "Clock",
    "Comparison",
    "ContralexError",
    "Diagnosis",
    "Embeddings",
    "Export",
    "Fork",
    "ImageEncoder",
    "ImportedWeights",
    "InfoNCE",
    "InstanceTargets",
    "LookUp",
    "Match",
    "MomentumEncoder",
    "QueueSource",
    "Report",
    "Run",
    "Step",
    "Transform",
    "View",
    "ViewGrid",
    "__version__",
    "adapt",
    "build",
    "cluster",
    "compare",
    "diff",
    "distill",
    "doctor",
    "dry_run",
    "duplicates",
    "embed",
    "explain",
    "export",
    "finetune",
    "fork",
    "import_weights",
    "inspect",
    "kinds",
    "load_backbone",
    "load_encoder",
    "load_transform",
    "methods",
    "report",
    "resolve",
    "runs",
    "search",
    "train",
    "views",
    "why",
]


def __getattr__(name: str) -> Any:
    if name == "kinds":  # a package, which lists the kinds when it is called
        return import_module("contralex.kinds")
    value: Any
    if name == "__version__":
        value = import_module("importlib.metadata").version("contralex")
    elif name in _MODULE:
        value = getattr(import_module(_MODULE[name]), name)
    else:
        raise AttributeError(f"module 'contralex' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "open"])
