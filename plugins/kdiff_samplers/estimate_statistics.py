"""Estimating the statistics that DPM-Solver-v3 works with, from a model and samples of its data."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kdiff_core.errors import CapabilityError, GridError, ParameterError, StateError
from kdiff_core.path import Path, as_path, path_grid

from .model_statistics import ModelStatistics

if TYPE_CHECKING:
    from torch import Generator, Tensor

Array = NDArray[np.float64]


def estimate_statistics(
    denoiser: Callable[..., Any],
    x0: Tensor,
    sigmas: Iterable[float],
    *,
    per_element: bool = False,
    probes: int = 1,
    batch_size: int = 256,
    seed: int = 0,
    cond: Mapping[str, Any] | None = None,
) -> ModelStatistics:
    """Estimate the empirical model statistics of a denoiser on noised samples of the data.

    Zheng et al. 2023, arXiv:2310.13268, appendix C.1.1: ``l`` is the mean diagonal of the Jacobian of
    ``sigma eps``, by random signs (eq. 58), ``s`` and ``b`` the least squares of ``df/dlambda`` on ``f``
    (eq. 60 and 61), with derivatives along the trajectory by forward-mode differentiation. A level costs
    ``2 + probes`` evaluations of each sample, all but one of them with a derivative. Numbers instead of one
    value for each element are the least squares of all elements together, without a bias, so that a
    sampler with them stays linear in the state.

    Args:
        denoiser: The model, see `kdiff_core.protocols.Denoiser`, made of what torch differentiates forward.
        x0: ``(N, ...)`` samples of the data, or of the model itself; the paper takes 1024 to 4096.
        sigmas: Levels, strictly decreasing, above 0 and on a flow path below 1; the paper takes 120 or more.
        per_element: Whether to estimate one value for each element of a sample.
        probes: Random signs for each sample, at least 1.
        batch_size: Number of samples in one call of the model.
        seed: Of the noise and the signs.
        cond: Keyword arguments for the denoiser; tensors with N rows are cut as `x0` is.

    Raises:
        GridError: Levels that do not strictly decrease, or where log-SNR is infinite.
        StateError: `x0` is no floating-point tensor with a batch dimension.
        ParameterError: `probes` or `batch_size` below 1.
        CapabilityError: The denoiser cannot be differentiated forward.
    """
    import torch

    if not isinstance(x0, torch.Tensor) or not x0.is_floating_point() or x0.ndim < 2 or not len(x0):
        raise StateError("estimate_statistics: x0 must be a floating-point tensor (N, ...), N at least 1")
    for name, number in {"probes": probes, "batch_size": batch_size}.items():
        if number < 1:
            raise ParameterError(f"estimate_statistics: {name}={number} must be at least 1")
    path = as_path(getattr(denoiser, "path", "ve"))
    grid = path_grid(sigmas, path)
    if grid[-1] == 0 or path.alpha(grid[0]) == 0:
        raise GridError("estimate_statistics: levels must be above 0, and below 1 on a flow path")
    _warm_up()
    generator = torch.Generator().manual_seed(seed)
    kept: tuple[list[Array], ...] = ([], [], [])
    for sigma in grid:
        parts = [
            _moments(_with(denoiser, cond, len(x0), i, batch_size), path, part, sigma, probes, generator)
            for i, part in enumerate(torch.split(x0, batch_size))
        ]
        totals = [sum(found).div(len(x0)).double().cpu().numpy() for found in zip(*parts, strict=True)]
        if not per_element:
            totals = [total.mean(axis=tuple(range(total.ndim - x0.ndim + 1, total.ndim))) for total in totals]
        for table, total in zip(kept, totals, strict=True):
            table.append(total)
    lambdas = np.array([path.lambda_(sigma) for sigma in grid])
    diagonals, means, squares = (np.array(table) for table in kept)
    return _fit(lambdas, 1.0 - diagonals, means, squares, per_element)


def _warm_up() -> None:
    """Differentiate something: the first time, torch loads a module that warns of itself."""
    import torch
    from torch.func import jvp

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        jvp(torch.sin, (torch.zeros(1),), (torch.zeros(1),))


def _with(
    denoiser: Callable[..., Any], cond: Mapping[str, Any] | None, count: int, index: int, size: int
) -> Callable[[Tensor, Tensor], Tensor]:
    """The denoiser with the conditions of one batch."""
    rows = slice(index * size, (index + 1) * size)
    own = {
        name: value[rows] if getattr(value, "ndim", 0) and len(value) == count else value
        for name, value in (cond or {}).items()
    }
    return lambda x, sigma: denoiser(x, sigma, **own)


def _moments(
    model: Callable[[Tensor, Tensor], Tensor],
    path: Path,
    x0: Tensor,
    sigma: float,
    probes: int,
    generator: Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over a batch: alpha times the diagonal of dD/dx; and of (y, D, dD/dlambda) and their products."""
    import torch
    from torch.func import jvp

    alpha, levels = path.alpha(sigma), x0.new_full((len(x0),), sigma)

    def draw() -> Tensor:
        return torch.randn(x0.shape, generator=generator, dtype=torch.float64).to(x0)

    x = alpha * x0 + sigma * draw()
    diagonal = torch.zeros_like(x0[0])
    with torch.no_grad():
        denoised = model(x, levels)
        try:
            for _ in range(probes):
                signs = draw().sign()
                change = jvp(lambda state: model(state, levels), (x,), (signs,))[1]
                diagonal = diagonal + (signs * change).sum(0) * (alpha / probes)
            # Along the trajectory d sigma / d lambda is -sigma alpha on both paths.
            rate = jvp(model, (x, levels), (alpha * (denoised - x), -alpha * levels))[1]
        except (RuntimeError, NotImplementedError) as error:
            raise CapabilityError(
                f"estimate_statistics: {type(model).__name__} cannot be differentiated forward: {error}"
            ) from error
    values = torch.stack([x / alpha, denoised, rate]).double()  # (3, N, ...)
    return diagonal, values.sum(1), torch.einsum("in...,jn...->ij...", values, values)


def _fit(lambdas: Array, linear: Array, means: Array, squares: Array, per_element: bool) -> ModelStatistics:
    """Least squares of ``df/dlambda`` on ``f``, both combinations of (y, D, dD/dlambda)."""
    change = np.gradient(linear, lambdas, axis=0)
    one, zero = np.ones_like(linear), np.zeros_like(linear)
    f = np.stack([one - linear, -one, zero], 1)
    rate = np.stack([linear - one - change, one - linear, -one], 1)
    product = np.einsum("ki...,kij...,kj...->k...", f, squares, rate)
    square = np.einsum("ki...,kij...,kj...->k...", f, squares, f)
    mean_f, mean_rate = (np.einsum("ki...,ki...->k...", part, means) for part in (f, rate))
    if not per_element:
        return ModelStatistics(lambdas, linear, product / square, zero)
    with np.errstate(divide="ignore", invalid="ignore"):  # ModelStatistics refuses what is not finite
        scaling = (product - mean_f * mean_rate) / (square - mean_f * mean_f)
    return ModelStatistics(lambdas, linear, scaling, mean_rate - scaling * mean_f)
