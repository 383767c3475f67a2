"""CPC's two encoders: latents z, contexts c, and one linear prediction W_k·c for each step k (no bias)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contralex.plugin import Backbone, ContralexError, Encoder
from contralex_cpc.network import MakeContext

Way = Literal["down", "up", "left", "right"]
_Queries = dict[int, tuple[Tensor, Tensor | None]]


class PatchEncoder(Encoder):
    """Patches (B, P, C, H, W) of a square grid to latents (B, P, F); in each direction a context predicts what follows.

    A query is tagged with the position that it predicts, so its positive is the target at that position; everything
    else in the batch is a negative. Targets are the latents, or a projection of them to ``target_dim``.

    ``network``: from patches to latents. ``context``: makes the context of each of ``directions``, which predicts the
    rows from ``skip`` + 1 to ``steps`` away. Predictions are multiplied by ``prediction_scale``.
    """

    def __init__(
        self,
        grid: int,
        network: Backbone,
        context: MakeContext,
        steps: int = 5,
        skip: int = 0,
        directions: Sequence[Way] = ("down",),
        target_dim: int | None = None,
        prediction_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.network, features = network
        self.grid = grid
        self.dim = features if target_dim is None else target_dim
        # Without a bias: that would add the same to every score of a query, which a softmax does not see.
        self.target = nn.Identity() if target_dim is None else nn.Linear(features, self.dim, bias=False)
        distances = range(skip + 1, steps + 1)
        self.directions = nn.ModuleDict(
            {name: Direction(context, features, self.dim, distances, prediction_scale) for name in directions}
        )

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
        index = torch.arange(self.grid**2, device=latents.device).view(1, self.grid, self.grid)
        predicted, positions = [], []
        for name, direction in self.directions.items():
            vectors, position = direction(_turn(rows, name), _turn(index, name)[0])
            predicted.append(vectors)
            positions.append(position)
        return torch.cat(predicted, dim=1), torch.cat(positions)


class Direction(nn.Module):
    """One way to look at the grid, turned so that what is predicted lies below: a context, and W_k for each step k."""

    def __init__(self, make_context: MakeContext, features: int, dim: int, steps: range, scale: float) -> None:
        super().__init__()
        self.context = make_context(features)
        self.steps = steps
        self.scale = scale
        self.predict = nn.ModuleList(nn.Linear(self.context.dim, dim, bias=False) for _ in steps)

    def forward(self, rows: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (B, rows, columns, F) and their positions (rows, columns), to predictions (B, Q, D) and the positions
        (Q,) of what they predict."""
        contexts = self.context(rows)
        steps = list(zip(self.steps, self.predict, strict=True))
        predicted = [linear(contexts[:, :-k]).flatten(1, 2) * self.scale for k, linear in steps]
        return torch.cat(predicted, dim=1), torch.cat([position[k:].flatten() for k, _ in steps])


def _turn(grid: Tensor, direction: str) -> Tensor:
    """(B, rows, columns, ...) so that what lies in this direction lies below."""
    if direction in ("left", "right"):
        grid = grid.transpose(1, 2)
    return grid.flip(1) if direction in ("up", "left") else grid


class SequenceEncoder(Encoder):
    """Sequences (B, C, time) to latents (B, T, D) by strided convolutions; a GRU's context predicts what follows.

    The context at t predicts the latents t+1 ... t+K, for every t that has K = ``steps`` latents after it.
    ``channels``: of the input; ``width``: of every convolution and latent; ``context``: dimensions of the GRU's state.
    """

    def __init__(
        self,
        channels: int = 1,
        width: int = 512,
        kernels: Sequence[int] = (10, 8, 4, 4, 4),
        strides: Sequence[int] = (5, 4, 2, 2, 2),
        context: int = 256,
        steps: int = 12,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = channels
        for kernel, stride in zip(kernels, strides, strict=True):
            # Padded so that a layer divides the length by its stride: 20480 samples are 128 latents.
            pad = (kernel - stride + 1) // 2
            layers += [nn.Conv1d(before, width, kernel, stride, max(pad, 0)), nn.ReLU(inplace=True)]
            before = width
        self.network = nn.Sequential(*layers)
        self.dim = width
        self.context = nn.GRU(width, context, batch_first=True)
        self.predict = nn.ModuleList(nn.Linear(context, self.dim, bias=False) for _ in range(steps))

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
