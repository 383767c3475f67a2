"""The core's losses. Each is the mean over this process's queries, computed in at least float32.

Used alone, a loss gets what a look-up would give it::

    loss = InfoNCE(temperature=0.2)
    loss(queries, Dictionary(shared=entries), Targets(index=positives), step)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.lookup import distributed
from contralex.lookup.clock import Schedule, value_at
from contralex.lookup.dictionary import Dictionary
from contralex.lookup.host_mirror import HostMirror
from contralex.lookup.slots import Loss
from contralex.lookup.values import Rows, Step, Targets


class InfoNCE(Loss):
    """−log softmax of the positive among all entries: −w·log exp(q·k⁺/τ) / Σ exp(q·k/τ) (CPC, Eq. 4; MoCo, Eq. 1).

    ``temperature`` (τ, above 0) divides the scores, and may be a schedule. ``weight`` (w) multiplies the loss (MoCo v3:
    2τ).

    >>> import contralex, torch
    >>> from contralex.plugin import Dictionary, Rows, Targets
    >>> queries = Rows.from_view(torch.eye(4), sample=torch.arange(4), view=0)
    >>> step = contralex.Step(contralex.Clock(step=0, total=10, per_epoch=2), seed=0, batch=4)
    >>> loss = contralex.InfoNCE(temperature=0.2)
    >>> float(loss(queries, Dictionary(shared=torch.eye(4)), Targets(index=torch.arange(4)), step)) < 0.1
    True
    """

    compares_samples = False

    def __init__(self, temperature: float | Schedule, weight: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature
        self.weight = weight

    def forward(self, queries: Rows, dictionary: Dictionary, targets: Targets, step: Step) -> Tensor:
        temperature = value_at(self.temperature, step.clock)
        loss = dictionary.cross_entropy(queries.vectors, targets.index, temperature).mean()
        return loss if self.weight == 1 else self.weight * loss


class NCE(Loss):
    """Noise-contrastive estimation as InstDisc's (Eqs. 4 to 8; lemniscate's ``NCECriterion``).

    P(i|v) = exp(v·f_i/τ)/Z is told from K uniform draws of probability Pn = 1/N. Z is set once, on the first
    batch, to the mean of exp(v·f/τ) over positives and negatives, times N; then it is frozen, and saved.

    ``temperature`` (τ, above 0) divides the scores, and may be a schedule. ``normalizer``: ``one`` Z for all queries
    (InstDisc), or ``each_view`` that asks has its own (CMC, CRD); ``query_views`` are those views, by number.
    """

    compares_samples = False
    epsilon = 1e-7
    z: Tensor

    def __init__(
        self,
        temperature: float | Schedule,
        normalizer: Literal["one", "each_view"] = "one",
        query_views: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.views = tuple(query_views) if normalizer == "each_view" else None
        self.register_buffer("z", torch.full(() if self.views is None else (len(self.views),), -1.0))  # -1: not yet set
        self._known = HostMirror()

    def forward(self, queries: Rows, dictionary: Dictionary, targets: Targets, step: Step) -> Tensor:
        temperature, others = value_at(self.temperature, step.clock), dictionary.size - 1
        index = 0 if self.views is None else self.views.index(queries.views[0])
        z = self.z if self.views is None else self.z[index]
        if self._known.read(self.z)[index] < 0:
            self._set(z, dictionary, queries.vectors.detach(), temperature)
        # log P/(P + K·Pn + ε) is log σ(x), with x = q·k/τ − log Z − log (K·Pn + ε); and log K·Pn/(P + K·Pn + ε) is
        # log σ(−x) + log K·Pn/(K·Pn + ε). A later view may set its own Z, in the same buffer, before the backward; the
        # logarithm is a copy.
        log_noise = math.log(others / dictionary.dataset_size)  # K·Pn
        log_rest = math.log(others / dictionary.dataset_size + self.epsilon)
        bias = -(z.log() + log_rest)
        loss = dictionary.sigmoid_cross_entropy(queries.vectors, targets.index, temperature, bias)
        return loss.mean() + others * (log_rest - log_noise)

    @torch.no_grad()
    def _set(self, z: Tensor, dictionary: Dictionary, queries: Tensor, temperature: float) -> None:
        log_sum = dictionary.log_sum_exp(queries, temperature)
        mean = distributed.mean_over_processes((log_sum - math.log(dictionary.size)).exp().mean())
        z.copy_((mean * dictionary.dataset_size).clamp(max=torch.finfo(z.dtype).max))


class CosineLoss(Loss):
    """w·(1 − cos(q, k)) between the queries and the target vectors.

    ``weight`` (w): 2 makes it the squared distance of unit vectors (BYOL, Eq. 2); with 1 its gradient is that of −cos
    (SimSiam, Eq. 1).
    """

    compares_samples = False

    def __init__(self, weight: float = 2.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, queries: Rows, dictionary: Dictionary, targets: Targets, step: Step) -> Tensor:
        return self.weight * (1 - F.cosine_similarity(queries.vectors, targets.vectors, dim=1)).mean()


class SoftCrossEntropy(Loss):
    """−Σ target · log softmax(scores/τ), the target being a distribution over the entries (SwAV, Eq. 2).

    ``temperature`` (τ, above 0) divides the scores, and may be a schedule.
    """

    compares_samples = False

    def __init__(self, temperature: float | Schedule) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, queries: Rows, dictionary: Dictionary, targets: Targets, step: Step) -> Tensor:
        temperature = value_at(self.temperature, step.clock)
        return dictionary.soft_cross_entropy(queries.vectors, targets.tiled_weights, temperature).mean()


class KoLeo(Loss):
    """−log of the distance from each unit query to its nearest other, which spreads the queries evenly (Sablayrolles
    et al., arXiv:1806.03198, Eq. 2; DINOv2, arXiv:2304.07193, section 4; code: dinov2 loss/koleo_loss.py).

    The others are the queries of the same view, of every process. The gradient reaches both ends of a distance. It
    reads no dictionary and no targets.
    """

    compares_samples = False  # queries meet queries, which are gathered here, and no keys
    epsilon = 1e-8

    def forward(self, queries: Rows, dictionary: Dictionary, targets: Targets, step: Step) -> Tensor:
        mine = F.normalize(queries.vectors, eps=self.epsilon, dim=1)
        everyone = distributed.gather(mine, gradient=True)  # (W·N, D)
        itself = torch.arange(len(everyone), device=mine.device)[distributed.own_slice(len(mine))]
        with torch.no_grad():  # tile by tile, because places are many
            nearest = Dictionary(shared=everyone.detach(), hidden=itself).find_best(mine.detach())
        distances = F.pairwise_distance(mine, everyone[nearest], eps=self.epsilon)
        return -(distances + self.epsilon).log().mean()


class MeanEntropy(Loss):
    """log M − H(p̄), p̄ being the mean over all queries of softmax(scores/τ) over the M entries: 0 where all entries are
    used alike (MSN, arXiv:2204.07141, Eq. 1, the mean entropy maximisation).

    The mean is over every query view of the look-up's output and every process, so one match is enough. ``temperature``
    (τ, above 0) divides the scores, and may be a schedule. It reads no targets.
    """

    compares_samples = False  # the queries are summed over the processes here

    def __init__(self, temperature: float | Schedule) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, queries: Rows, dictionary: Dictionary, targets: Targets, step: Step) -> Tensor:
        asked = step.queries.get(step.output, queries)
        scores = dictionary.scores(asked.vectors) / value_at(self.temperature, step.clock)
        mean = distributed.mean_over_processes(F.softmax(scores, dim=1).mean(dim=0))
        return math.log(len(mean)) + torch.xlogy(mean, mean.clamp_min(torch.finfo(mean.dtype).tiny)).sum()
