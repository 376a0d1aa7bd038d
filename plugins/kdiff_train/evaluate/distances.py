"""Scores of two sets of vectors, ``(N, F)`` and ``(M, F)``, float64."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from kdiff_core.errors import MissingExtraError, ParameterError

_ROWS = 1024  # of a matrix of distances that are in memory at once
KID_SUBSET = 1000
KID_SUBSETS = 50


class _Given(nn.Module):
    """Features that are given, in place of a network."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, x: Tensor) -> Tensor:
        return x


def frechet(found: Tensor, reals: Tensor) -> float:
    """Return the Fréchet distance of the normal distributions with the sets' means and covariances: FID.

    Heusel et al. 2017, arXiv:1706.08500; computed by torchmetrics. It is biased: two sets of one
    distribution have a distance above 0, which falls as one over their number.

    Raises:
        ParameterError: A set has fewer than two vectors.
    """
    _at_least(2, found, reals)
    fid_class = _torchmetrics().image.fid.FrechetInceptionDistance
    metric = fid_class(_Given(reals.shape[1]))
    centre = reals.mean(0)  # the distance stays, and sums of squares cancel less
    metric.update(reals - centre, real=True)
    metric.update(found - centre, real=False)
    return float(metric.compute())


def kernel_distance(found: Tensor, reals: Tensor) -> float:
    """Return the squared maximum mean discrepancy with the kernel ``(1 + x y / F)^3``: KID.

    Bińkowski et al. 2018, arXiv:1801.01401; computed by torchmetrics. It is unbiased: of two sets of one
    distribution it is 0 in the mean, whatever their number, and may be below. Up to 1,000 vectors are
    taken at once; of more, 50 subsets of 1,000, always the same, are averaged.

    Raises:
        ParameterError: A set has fewer than two vectors.
    """
    _at_least(2, found, reals)
    kid_class = _torchmetrics().image.kid.KernelInceptionDistance
    size = min(len(found), len(reals), KID_SUBSET)
    whole = size == len(found) == len(reals)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.filterwarnings("ignore", "Metric `Kernel Inception Distance` will save", UserWarning)
        torch.manual_seed(0)
        metric = kid_class(_Given(reals.shape[1]), subsets=1 if whole else KID_SUBSETS, subset_size=size)
        metric.update(reals, real=True)
        metric.update(found, real=False)
        return float(metric.compute()[0])


def precision(found: Tensor, reals: Tensor, neighbours: int = 3) -> float:
    """Return the share of what was found that lies within the manifold of the reals.

    Kynkäänniemi et al. 2019, arXiv:1904.06991. The manifold of a set is the union of the balls around its
    vectors that each reach to the third nearest other one.

    Args:
        found: Vectors of what was generated.
        reals: Vectors of the data.
        neighbours: Which of the nearest others a ball reaches to.

    Raises:
        ParameterError: A set has too few vectors.
    """
    _at_least(neighbours + 1, found, reals)
    return _share_within(found, reals, _radii(reals, neighbours))


def recall(found: Tensor, reals: Tensor, neighbours: int = 3) -> float:
    """Return the share of the reals that lies within the manifold of what was found; see `precision`."""
    return precision(reals, found, neighbours)


def _radii(x: Tensor, neighbours: int) -> Tensor:
    """Distance of each vector to its nearest others; it is itself the nearest of all."""
    parts = [_between(rows, x).kthvalue(neighbours + 1, 1).values for rows in torch.split(x, _ROWS)]
    return torch.cat(parts)


def _share_within(x: Tensor, centres: Tensor, radii: Tensor) -> float:
    inside = [(_between(rows, centres) <= radii).any(1) for rows in torch.split(x, _ROWS)]
    return float(torch.cat(inside).double().mean())


def sliced_wasserstein(found: Tensor, reals: Tensor, directions: int = 512, seed: int = 0) -> float:
    """Return the sliced 2-Wasserstein distance: the root of the mean square over directions.

    Bonneel et al. 2015, "Sliced and Radon Wasserstein barycenters of measures".

    Args:
        found: Vectors of what was generated.
        reals: As many vectors of the data.
        directions: Number of random directions.
        seed: Of the directions.

    Raises:
        ParameterError: The sets are not of one size.
    """
    if len(found) != len(reals):
        raise ParameterError(f"sliced_wasserstein: {len(found)} vectors and {len(reals)}; give equal numbers")
    generator = torch.Generator().manual_seed(seed)
    along = torch.randn(found.shape[1], directions, generator=generator, dtype=torch.float64)
    along = along / along.norm(dim=0)
    difference = (found @ along).sort(0).values - (reals @ along).sort(0).values
    return math.sqrt(float(difference.square().mean()))


def nearest(x: Tensor, others: Tensor) -> Tensor:
    """Return the Euclidean distance of each vector to the nearest of `others`, ``(N,)``."""
    return torch.cat([_between(rows, others).amin(1) for rows in torch.split(x, _ROWS)])


def _between(x: Tensor, y: Tensor) -> Tensor:
    # Not by |x|^2 - 2 x y + |y|^2: small distances, which decide here, would be lost.
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def _at_least(n: int, *sets: Tensor) -> None:
    for each in sets:
        if each.ndim != 2 or len(each) < n:
            raise ParameterError(f"needed are {n} vectors or more, (N, F); there are {tuple(each.shape)}")


def _torchmetrics() -> Any:
    try:
        import torchmetrics.image.fid
        import torchmetrics.image.kid
    except ImportError as error:
        raise MissingExtraError("FID and KID need torchmetrics: pip install 'kdiff-core[train]'") from error
    return torchmetrics
