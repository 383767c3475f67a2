"""The features that a run's folder keeps: by what they are known again."""

from __future__ import annotations

import inspect
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import nn

from contralex.data.fingerprints import digest
from contralex.data.views import Views
from contralex.evaluation.cache import FOLDER, FeatureCache, remove_features_of
from contralex.recipes.run_spec import RunSpec
from contralex.training import folders
from contralex.training.checkpoints import manifest
from contralex.training.checkpoints.read import Checkpoint

_LIBRARIES = ("contralex", "torch", "torchvision", "numpy", "pillow", "timm")


def find_run_folder(checkpoint: Checkpoint) -> Path | None:
    """The folder of the run that a checkpoint is of; None for one that lies by itself."""
    above = checkpoint.folder.parent
    return above.parent if above.name == "checkpoints" else None


def read_weights_digest(checkpoint: Checkpoint) -> str:
    """The SHA-256 of the checkpoint's tensors."""
    files = manifest.files_of(checkpoint.folder, hashes=False)
    return next(file.sha256 for file in files if file.name == manifest.MODEL)


def remove_features(checkpoint: Checkpoint) -> None:
    """Remove the features that its run keeps of a checkpoint."""
    run = find_run_folder(checkpoint)
    if run is not None:
        remove_features_of(run / FOLDER, read_weights_digest(checkpoint), folders.Lock)


def make_feature_cache(
    checkpoint: Checkpoint, spec: RunSpec, encoder: nn.Module, views: Views, device: str
) -> FeatureCache | None:
    """The features of a checkpoint's encoder; None where it lies in no run's folder."""
    run = find_run_folder(checkpoint)
    if run is None:
        return None
    method = spec.method.model_dump(mode="json")
    key: dict[str, Any] = {
        "weights": read_weights_digest(checkpoint),
        "encoder": method["encoder"],
        "views": method["views"],
        "code": _sources([*encoder.modules(), views]),
        "device": device,
        "versions": _versions(checkpoint),
    }
    return FeatureCache(run / FOLDER, key, folders.Lock)


def _sources(parts: list[object]) -> str:
    """A digest of the files that define the classes of parts, so that a changed line of theirs is noticed. torch's own
    are known by its version."""
    modules = {type(part).__module__ for part in parts}
    names = sorted(name for name in modules if name.partition(".")[0] not in ("torch", "torchvision"))
    files = [inspect.getsourcefile(sys.modules[name]) for name in names if name in sys.modules]
    return digest(Path(file).read_bytes() for file in files if file is not None and Path(file).is_file())


def _versions(checkpoint: Checkpoint) -> dict[str, str]:
    found = {}
    for name in (*_LIBRARIES, *checkpoint.state.plugins):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
