"""CPC's two encoders: latents z, contexts c, and one linear prediction W_k·c for each step k (no bias)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contralex.plugin import ContralexError, Encoder
from contralex_cpc.network import PixelCNNContext, RowContext, residual_net

if TYPE_CHECKING:
    from contralex_cpc.spec import CPCPatches, CPCSequence

_Queries = dict[int, tuple[Tensor, Tensor | None]]


class PatchEncoder(Encoder):
    """Patches (B, P, C, H, W) of a square grid to latents (B, P, F); in each direction a context predicts what follows.

    A query is tagged with the position that it predicts, so its positive is the target that stands there; everything
    else in the batch is a negative. Targets are the latents, or a projection of them.
    """

    def __init__(self, spec: CPCPatches) -> None:
        super().__init__()
        self.network, features = residual_net(spec.network)
        self.grid = spec.grid
        self.dim = features if spec.target_dim is None else spec.target_dim
        # Without a bias: that would add the same to every score of a query, which a softmax does not see.
        self.target = nn.Identity() if spec.target_dim is None else nn.Linear(features, self.dim, bias=False)
        self.directions = nn.ModuleDict({name: Direction(spec, features, self.dim) for name in spec.directions})

    def forward(self, views: Mapping[int, Tensor]) -> dict[int, Tensor]:
        return {view: self._latents(patches) for view, patches in views.items()}

    def features(self, view: Tensor) -> Tensor:
        return self._latents(view).mean(dim=1)

    def queries(self, embedded: Mapping[int, Tensor]) -> _Queries:
        return {view: self._predictions(latents) for view, latents in embedded.items()}

    def keys(self, embedded: Mapping[int, Tensor]) -> _Queries:
        return {view: (self.target(latents), None) for view, latents in embedded.items()}

    def _latents(self, patches: Tensor) -> Tensor:
        if patches.shape[1] != self.grid**2:
            raise ContralexError(
                f"method.encoder.grid is {self.grid}, but method.views makes {patches.shape[1]} patches, a grid of "
                f"{round(patches.shape[1] ** 0.5)}; set grid to that, or change crop, patch or stride."
            )
        latents: Tensor = self.network(patches.flatten(0, 1)).unflatten(0, patches.shape[:2])
        return latents

    def _predictions(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        rows = latents.unflatten(1, (self.grid, self.grid))  # (B, rows, columns, F)
        place = torch.arange(self.grid**2, device=latents.device).view(1, self.grid, self.grid)
        predicted, positions = [], []
        for name, direction in self.directions.items():
            vectors, where = direction(_turned(rows, name), _turned(place, name)[0])
            predicted.append(vectors)
            positions.append(where)
        return torch.cat(predicted, dim=1), torch.cat(positions)


class Direction(nn.Module):
    """One way to look at the grid, turned so that what is predicted lies below: a context, and W_k for each step k."""

    def __init__(self, spec: CPCPatches, features: int, dim: int) -> None:
        super().__init__()
        if spec.context.kind == "gru":
            self.context: nn.Module = RowContext(features, spec.context.width)
            width = spec.context.width
        else:
            self.context = PixelCNNContext(features, spec.context.blocks, spec.context.width)
            width = features
        self.steps = range(spec.skip + 1, spec.steps + 1)
        self.scale = spec.prediction_scale
        self.predict = nn.ModuleList(nn.Linear(width, dim, bias=False) for _ in self.steps)

    def forward(self, rows: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (B, rows, columns, F) and the positions (rows, columns) where they stand, to predictions (B, Q, D)
        and the positions (Q,) of what they predict."""
        contexts = self.context(rows)
        steps = list(zip(self.steps, self.predict, strict=True))
        predicted = [linear(contexts[:, :-k]).flatten(1, 2) * self.scale for k, linear in steps]
        return torch.cat(predicted, dim=1), torch.cat([place[k:].flatten() for k, _ in steps])


def _turned(grid: Tensor, direction: str) -> Tensor:
    """(B, rows, columns, ...) so that what lies in this direction lies below."""
    if direction in ("left", "right"):
        grid = grid.transpose(1, 2)
    return grid.flip(1) if direction in ("up", "left") else grid


class SequenceEncoder(Encoder):
    """Sequences (B, C, time) to latents (B, T, D) by strided convolutions; a GRU's context predicts what follows.

    The context at t predicts the latents t+1 ... t+K, for every t that has K latents after it.
    """

    def __init__(self, spec: CPCSequence) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = spec.channels
        for kernel, stride in zip(spec.kernels, spec.strides, strict=True):
            # Padded so that a layer divides the length by its stride: 20480 samples are 128 latents.
            pad = (kernel - stride + 1) // 2
            layers += [nn.Conv1d(before, spec.width, kernel, stride, max(pad, 0)), nn.ReLU(inplace=True)]
            before = spec.width
        self.network = nn.Sequential(*layers)
        self.dim = spec.width
        self.context = nn.GRU(spec.width, spec.context, batch_first=True)
        self.predict = nn.ModuleList(nn.Linear(spec.context, self.dim, bias=False) for _ in range(spec.steps))

    def forward(self, views: Mapping[int, Tensor]) -> dict[int, Tensor]:
        return {view: self.network(sequence).transpose(1, 2) for view, sequence in views.items()}

    def features(self, view: Tensor) -> Tensor:
        contexts, _ = self.context(self.network(view).transpose(1, 2))
        return F.adaptive_avg_pool1d(contexts.transpose(1, 2), 1).squeeze(2)

    def queries(self, embedded: Mapping[int, Tensor]) -> _Queries:
        return {view: self._predictions(latents) for view, latents in embedded.items()}

    def _predictions(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        steps = len(self.predict)
        times = latents.shape[1] - steps
        if times < 1:
            raise ContralexError(
                f"method.encoder.steps is {steps}, but a window has only {latents.shape[1]} latents; "
                "lower steps, or raise method.views.length."
            )
        contexts, _ = self.context(latents)
        predicted = [linear(contexts[:, :times]) for linear in self.predict]
        start = torch.arange(times, device=latents.device)
        return torch.cat(predicted, dim=1), torch.cat([start + k for k in range(1, steps + 1)])
