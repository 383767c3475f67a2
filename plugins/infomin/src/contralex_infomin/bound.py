"""A lower bound of the mutual information of two views: I(v₁; v₂) ≥ log K − L_NCE (CPC, section 2.3, appendix A.1)."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from contralex import load_encoder
from contralex.plugin import ContralexError, Resolved, evaluating, mix_seed, read_source

SAMPLES = 256  # K, unless there are fewer
_REPEATS = 4
_TEMPERATURES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


def information(folder: Path, resolved: Resolved) -> float:
    """The bound in bits for the query and key view of the first match, over held-out images where there are any."""
    run = resolved.run
    source, views = read_source(run.data), run.method.views.build()
    split = source.test() or source.train()
    count = min(SAMPLES, len(split))
    encoder = load_encoder(folder)
    query, key = run.matches()[0]
    chosen = torch.randperm(len(split), generator=torch.Generator().manual_seed(run.train.seed))[:count].tolist()
    bounds = []
    with evaluating(encoder), torch.no_grad(), torch.random.fork_rng(devices=[]):
        for repeat in range(_REPEATS):
            batches: dict[int, Tensor] = {}
            for view in {query, key}:
                made = []
                for index in chosen:
                    # The two views of a match always get different random numbers, even where training shares them.
                    torch.manual_seed(mix_seed(run.train.seed, repeat, index, view))
                    made.append(views.make(split[index], view))
                batches[view] = torch.stack(made)
            queries = encoder.keys(encoder({query: batches[query]}))[query][0]
            keys = encoder.keys(encoder({key: batches[key]}))[key][0]
            if queries.dim() != 2:
                raise ContralexError("view-information is for methods with one vector a view; this one has several")
            bounds.append(tightest(queries, keys))
    return sum(bounds) / len(bounds)


def tightest(queries: Tensor, keys: Tensor) -> float:
    """The bound in bits for vectors (K, D) each, row by row of the same samples. Any critic gives a bound, so the best
    temperature is used."""
    scores = F.normalize(queries.float(), dim=1) @ F.normalize(keys.float(), dim=1).T
    own = torch.arange(len(scores))
    losses = [float(F.cross_entropy(scores / temperature, own)) for temperature in _TEMPERATURES]
    return (math.log(len(scores)) - min(losses)) / math.log(2)
