"""CPC's two encoders: latents z, contexts c, and one linear prediction W_k·c for each step k (no bias)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contralex import ContralexError, Encoder
from contralex_cpc.network import PixelCNNContext, RowContext, residual_net

if TYPE_CHECKING:
    from contralex_cpc.spec import CPCPatches, CPCSequence

_Queries = dict[int, tuple[Tensor, Tensor | None]]


class PatchEncoder(Encoder):
    """Patches (B, P, C, H, W) of a square grid to latents (B, P, D); a context predicts the rows below it.

    A query is tagged with the position that it predicts, (row + k)·columns + column, so its positive is the
    latent that stands there; everything else in the batch is a negative.
    """

    def __init__(self, spec: CPCPatches) -> None:
        super().__init__()
        self.network, self.dim = residual_net(spec.network)
        self.grid = spec.grid
        if spec.context.kind == "gru":
            self.context: nn.Module = RowContext(self.dim, spec.context.width)
            width = spec.context.width
        else:
            self.context = PixelCNNContext(self.dim, spec.context.blocks, spec.context.width)
            width = self.dim
        self.predict = nn.ModuleList(nn.Linear(width, self.dim, bias=False) for _ in range(spec.steps))

    def forward(self, views: Mapping[int, Tensor]) -> dict[int, Tensor]:
        return {view: self._latents(patches) for view, patches in views.items()}

    def features(self, view: Tensor) -> Tensor:
        return self._latents(view).mean(dim=1)

    def queries(self, embedded: Mapping[int, Tensor]) -> _Queries:
        return {view: self._predictions(latents) for view, latents in embedded.items()}

    def _latents(self, patches: Tensor) -> Tensor:
        if patches.shape[1] != self.grid**2:
            raise ContralexError(
                f"method.encoder.grid is {self.grid}, but method.views makes {patches.shape[1]} patches, a grid of "
                f"{round(patches.shape[1] ** 0.5)}; set grid to that, or change crop, patch or stride."
            )
        latents: Tensor = self.network(patches.flatten(0, 1)).unflatten(0, patches.shape[:2])
        return latents

    def _predictions(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        rows = latents.unflatten(1, (self.grid, self.grid))  # (B, rows, columns, D)
        contexts = self.context(rows)
        place = torch.arange(self.grid**2, device=latents.device).view(self.grid, self.grid)
        predicted = [linear(contexts[:, :-k]).flatten(1, 2) for k, linear in enumerate(self.predict, 1)]
        positions = [place[k:].flatten() for k in range(1, len(self.predict) + 1)]
        return torch.cat(predicted, dim=1), torch.cat(positions)


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
