"""How many directions features use: figures of the spectrum of a matrix of features (N, F), without labels.

All take the matrix in blocks of rows, and keep squares of F numbers in float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

EPSILON = 1e-7  # of RankMe's and LiDAR's code and papers
FIT = (4, 100)  # the eigenvalues, counted from 1, on which α is fitted


def moments(blocks: Iterable[Tensor]) -> tuple[int, Tensor, Tensor]:
    """N, the sum (F,), and the matrix of products Z^T Z (F, F) of rows that come in blocks."""
    count = 0
    total = products = torch.zeros(())
    for block in blocks:
        rows = block.double()
        if not count:
            total, products = rows.new_zeros(rows.shape[1]), rows.new_zeros(rows.shape[1], rows.shape[1])
        count += len(rows)
        total += rows.sum(dim=0)
        products += rows.T @ rows
    return count, total, products


def rankme(products: Tensor) -> float:
    """RankMe: exp of the entropy of the singular values of Z, of which ``products`` (F, F) is Z^T Z.

    Z is not centred; p_k = σ_k / ‖σ‖₁ + ε with ε = 1e-7. Source: Garrido et al., 2023, arXiv:2210.02885, equations 1
    and 2.
    """
    values = _singular_values(products)
    share = values / values.sum() + EPSILON
    return float(torch.exp(-(share * share.log()).sum()))


def effective_rank(covariance: Tensor) -> float:
    """The effective rank of centred features by their covariance (F, F): exp of the entropy of the singular values'
    fractions, with 0 · log 0 = 0. Source: Roy & Vetterli, 2007, "The effective rank", definition 1.
    """
    values = _singular_values(covariance)
    share = values / values.sum()
    return float(torch.exp(-torch.special.xlogy(share, share).sum()))


def decay(covariance: Tensor, count: int) -> float | None:
    """α of α-ReQ: the eigenvalues of the covariance (F, F) of ``count`` samples fall as i^-α.

    Least squares of log λ_i on log i with weights 1/i, for i from 4 to 100 or as many as there are. None for fewer than
    ten. Source: Agrawal et al., 2022, arXiv:2202.05808, section 3; the fit is that of its code, after Stringer et al.,
    2019.
    """
    values = torch.linalg.eigvalsh(covariance).flip(0)
    known = int((values[: count - 1] > 1e-12 * values[0]).sum())
    first, last = FIT[0], min(FIT[1], known)
    if last - first + 1 < 10:
        return None
    index = torch.arange(first, last + 1, dtype=torch.float64, device=values.device)
    weight = 1 / index
    x, y = index.log(), values[first - 1 : last].log()
    x_mean, y_mean = ((weight * each).sum() / weight.sum() for each in (x, y))
    slope = (weight * (x - x_mean) * (y - y_mean)).sum() / (weight * (x - x_mean).square()).sum()
    return -float(slope)


def lidar(groups: Iterable[Tensor], delta: float = 1e-4) -> float:
    """LiDAR: the effective rank of linear discriminant analysis, where each sample is a class and its views (q, F) are
    the members. ``groups``: blocks (B, q, F).

    Σ_b is the covariance of the classes' means, Σ_w that within classes + δ·I; exp of the entropy of the eigenvalues
    of Σ_w^-½ Σ_b Σ_w^-½. Source: Thilak et al., 2024, arXiv:2312.04000, equations 1 to 4.
    """
    means, count = [], 0
    within = torch.zeros(())
    for block in groups:
        rows = block.double()  # (B, q, F)
        mean = rows.mean(dim=1)
        apart = (rows - mean[:, None]).flatten(0, 1)
        within = within + apart.T @ apart
        means.append(mean)
        count += len(apart)
    centres = torch.cat(means)
    centres = centres - centres.mean(dim=0)
    between = centres.T @ centres / len(centres)
    within = within / count + delta * torch.eye(len(between), dtype=torch.float64, device=between.device)
    root = torch.linalg.cholesky(within)
    # L^-1 Σ_b L^-T has the eigenvalues of Σ_w^-½ Σ_b Σ_w^-½.
    half = torch.linalg.solve_triangular(root, between, upper=False)
    values = torch.linalg.eigvalsh(torch.linalg.solve_triangular(root, half.T, upper=False)).clamp(min=0)
    share = values / values.sum() + EPSILON
    return float(torch.exp(-(share * share.log()).sum()))


def _singular_values(products: Tensor) -> Tensor:
    """Of Z, by the eigenvalues of Z^T Z or of what is proportional to it."""
    values: Tensor = torch.linalg.eigvalsh(products).clamp(min=0).sqrt()
    if not math.isfinite(float(values.sum())) or float(values.sum()) == 0:
        return torch.ones_like(values[:1])  # all features are zero: one direction
    return values
