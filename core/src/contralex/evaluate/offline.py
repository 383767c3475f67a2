"""Evaluation of a checkpoint, after training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from contralex.errors import ContralexError
from contralex.evaluate.knn import KNNResult, evaluate_knn
from contralex.spec.run import KNNSpec
from contralex.train import build
from contralex.train.checkpoint import load_encoder, open_checkpoint


def knn(checkpoint: Path, data: str | None = None, sets: Sequence[str] = ()) -> dict[str, KNNResult]:
    """Weighted kNN of a checkpoint's encoder, beside the untrained encoder and raw pixels.

    ``data`` and ``sets`` change the checkpoint's spec as ``--data`` and ``--set`` do: another data set, k, ...
    Raises :class:`ContralexError` where the data has no labels or no split to judge with.
    """
    from contralex.spec.layers import resolve_data

    found = open_checkpoint(checkpoint)
    run = resolve_data(found.resolved().data, data=data, sets=sets).run
    if "encoder" in {path.split(".")[1] for path in sets if path.startswith("method.")}:
        raise ContralexError("--set method.encoder: the encoder of a checkpoint cannot be changed.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    source: Any = run.data
    views: Any = run.method.views
    opened, made = source.build(), views.build()
    spec = run.eval.knn or KNNSpec()
    encoders = {"this run": load_encoder(found.folder).to(device)}
    judged = {
        name: evaluate_knn(encoder, opened, made, spec, run.eval.batch_size, device)
        for name, encoder in encoders.items()
    }
    if spec.baselines:
        untrained = build.encoder(run).to(device)
        judged["untrained encoder"] = evaluate_knn(untrained, opened, made, spec, run.eval.batch_size, device)
        judged["raw pixels"] = evaluate_knn(None, opened, made, spec, run.eval.batch_size, device)
    return judged
