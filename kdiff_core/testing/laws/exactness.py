"""Laws that hold without any error: constants, shifts, scales, the change of path, the way into 0."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st

from ...adaptive import AdaptiveSampler
from ...noise import noise_from
from ...path import FLOW, VE, as_path
from .. import strategies as draw
from ..catalogue import law, require
from ..measure import rounding, smooth_grid
from ..problems import Constant, Gaussian, random_state
from ..variants import deterministic, has_deterministic, model_for, scaled

SEEDS = st.integers(0, 1000)


def difference(a: Any, b: Any) -> float:
    """Largest difference of two states."""
    return float((a.double() - b.double()).abs().max())


def allowed(sampler: Any, grid: Any, path: str, x: Any, problem: Any, dtype: str = "float64") -> float:
    """What rounding may do on this run."""
    plan = sampler.plan(grid, path) if getattr(sampler, "linear", True) else None
    # How long an adaptive step is depends on the difference of two nearly equal states.
    return rounding(plan, x, problem, dtype) * (100.0 if isinstance(sampler, AdaptiveSampler) else 1.0)


def equal(found: Any, expected: Any, tolerance: float, what: str) -> dict[str, float]:
    """Require that two states agree to a tolerance; returns the error in units of it."""
    error = difference(found, expected)
    require(
        error <= tolerance,
        f"{what}: off by {error:.3g}, rounding allows {tolerance:.1g}",
        error=error,
        tolerance=tolerance,
    )
    return {"error": error}


@law("sampler", when=has_deterministic, grid=draw.grids, seed=SEEDS)
def constant_denoiser_is_exact(
    sampler: Any, *, path: str, grid: Any, seed: int, device: str = "cpu", dtype: str = "float64"
) -> dict[str, float]:
    """If the denoiser is constant, the state moves exactly along the ray to it, on any grid.

    With D = c the solution is ``c + (x - c) sigma' / sigma`` on both paths, a line in sigma: the weights of a
    step sum to one. A wrong alpha, a slip in one weight, weights in single precision or a step that is left
    out all break it. (So does a classical method in log-SNR without the exponential weight, rightly made: it
    lists this law in its `known_failures`.)
    """
    still, problem = deterministic(sampler), Constant(path, 0.7)
    x = random_state(seed, device=device, dtype=dtype)
    result = still(model_for(still, problem), x, grid)
    expected = 0.7 + (x - 0.7) * (grid[-1] / grid[0])
    return equal(result, expected, allowed(still, grid, path, x, problem, dtype), "the end of the ray")


@law("sampler", grid=draw.grids, seed=SEEDS, offset=st.floats(-3.0, 3.0))
def shift_equivariance(
    sampler: Any,
    *,
    path: str,
    grid: Any,
    seed: int,
    offset: float,
    device: str = "cpu",
    dtype: str = "float64",
) -> dict[str, float]:
    """Data that are shifted give samples that are shifted, noise or not.

    Nothing in diffusion knows where 0 is: with ``x + alpha c`` for x and ``D + c`` for D the result is the
    old one plus ``alpha' c``. This tests the weights of a stochastic step too, whose result is never exact.
    """
    problem, way = Gaussian(path), as_path(path)
    moved = problem.shifted(offset)
    x = random_state(seed, device=device, dtype=dtype)
    from_here = sampler(model_for(sampler, problem), x, grid, seed=seed)
    start = x + way.alpha(grid[0]) * offset
    from_there = sampler(model_for(sampler, moved), start, grid, seed=seed)
    tolerance = allowed(sampler, grid, path, start, moved, dtype)
    return equal(from_there, from_here + way.alpha(grid[-1]) * offset, tolerance, "the shifted result")


@law("sampler", share=0.1, seed=SEEDS, warp=st.floats(-0.5, 0.5))
def exact_in_many_steps(sampler: Any, *, path: str, seed: int, warp: float) -> dict[str, float]:
    """On sixty steps, too, data that are shifted give samples that are shifted.

    Most laws are tried on few steps. What goes wrong only later (a table that ends, a count, a history that
    is kept too long) shows on many.
    """
    return shift_equivariance(sampler, path=path, grid=smooth_grid(path, 60, warp), seed=seed, offset=1.5)


@law(
    "sampler",
    grid=lambda: draw.grids("ve"),
    seed=SEEDS,
    factor=st.floats(-3.0, 3.0).map(lambda power: 10.0**power),
)
def scale_equivariance(
    sampler: Any, *, grid: Any, seed: int, factor: float, device: str = "cpu", dtype: str = "float64"
) -> dict[str, float]:
    """On VE, data, states and noise levels that are all scaled give samples that are scaled.

    A sampler has no unit of its own. One that has (a threshold in absolute noise levels) gives other images
    to a model whose data are scaled differently; parameters that are levels say so (metadata
    ``unit="sigma"``).
    """
    problem = Gaussian("ve")
    x = random_state(seed, device=device, dtype=dtype)
    fixed = random_state(seed + 1, scale=1.0, device=device, dtype=dtype)
    noise = noise_from(lambda a, b: fixed)
    small = sampler(model_for(sampler, problem), x, grid, noise=noise)
    large_grid, large = [level * factor for level in grid], scaled(sampler, factor)
    bigger = problem.scaled(factor)
    found = large(model_for(large, bigger), x * factor, large_grid, noise=noise)
    tolerance = max(1.0, factor) * allowed(sampler, grid, "ve", x, problem, dtype)
    return equal(found, small * factor, tolerance, "the scaled result")


@law("sampler", when=lambda s: s.path_invariant, grid=lambda: draw.grids("ve", zero=False), seed=SEEDS)
def same_on_both_paths(
    sampler: Any, *, grid: Any, seed: int, device: str = "cpu", dtype: str = "float64"
) -> dict[str, float]:
    """VE and flow have the same trajectory, but for the change of variables, where it declares so.

    A flow state is a VE state divided by ``1 + sigma / alpha``. Methods that work in log-SNR or in ratios of
    noise to signal do not see the difference (`path_invariant = True`): a flow model gets from them what a VE
    model gets. Methods that integrate in sigma are different ones on each path.
    """
    ve, flow = (_on(path, sampler, grid, seed, device, dtype) for path in (VE, FLOW))
    x, growth = random_state(seed, dtype=dtype), 1.0 + grid[0]
    tolerance = allowed(sampler, grid, "ve", x, Gaussian("ve"), dtype)
    tolerance += growth * allowed(sampler, _flow(grid), "flow", x / growth, Gaussian("flow"), dtype)
    return equal(flow, ve, tolerance, "the flow path's result in VE coordinates")


def _flow(grid: Any) -> list[float]:
    return [FLOW.from_ratio(level) for level in grid]


def _on(path: Any, sampler: Any, grid: Any, seed: int, device: str, dtype: str) -> Any:
    """The result on a path, in VE coordinates, from one VE state and one noise."""
    x = random_state(seed, device=device, dtype=dtype)
    fixed = random_state(seed + 1, scale=1.0, device=device, dtype=dtype)
    levels = list(grid) if path is VE else _flow(grid)
    problem = Gaussian(path.name)
    start = x * path.alpha(levels[0])
    result = sampler(model_for(sampler, problem), start, levels, noise=noise_from(lambda a, b: fixed))
    return result / path.alpha(levels[-1])


@law("sampler", grid=lambda path: draw.grids(path, zero=True), seed=SEEDS)
def reaches_zero(
    sampler: Any, *, path: str, grid: Any, seed: int, device: str = "cpu", dtype: str = "float64"
) -> dict[str, float] | None:
    """A grid that ends in 0 is followed to 0, to the denoised state or by the sampler's own step.

    The noise that is left at the end is the first thing a viewer sees. A sampler visits the last level of the
    grid; unless it declares `reaches_zero` its result is ``D(x, sigma)`` of the last state above 0, without
    any noise. One that does ends, where the denoiser is constant, at that constant.
    """
    problem, x = Gaussian(path), random_state(seed, device=device, dtype=dtype)
    visited = sampler.levels(grid, path) if hasattr(sampler, "levels") else grid
    require(
        visited[-1] == 0.0,
        f"it stops at level {visited[-1]:.4g}, the grid ends in 0",
        last=float(visited[-1]),
    )
    result = sampler.run(model_for(sampler, problem), x, grid, seed=seed, trajectory=True)
    require(bool(torch.isfinite(result.x).all()), "the result is not finite")
    if sampler.reaches_zero:
        constant = Constant(path, 0.7)
        end, tolerance = torch.full_like(x, 0.7), allowed(sampler, grid, path, x, constant, dtype)
        return equal(
            sampler(model_for(sampler, constant), x, grid, seed=seed), end, tolerance, "its end at 0"
        )
    before = result.trajectory[-2]
    level = torch.full((len(before),), visited[-2], dtype=before.dtype, device=before.device)
    return equal(
        result.x,
        problem(before, level),
        allowed(sampler, grid, path, x, problem, dtype),
        "D(x, sigma) at the end",
    )
