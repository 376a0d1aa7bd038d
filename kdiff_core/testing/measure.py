"""Orders from errors, grids that get finer, and moments of what a plan makes of normal data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..numerics import Number
from ..path import as_path
from ..plans import Combine, Evaluate, Noise, Plan

Array = NDArray[np.float64]
# Roundings of states, and of weights (which are float64 always), that a run may add up.
_STATES, _WEIGHTS = 256.0, 768.0


def slope(sizes: Sequence[float], errors: Sequence[float]) -> float:
    """Slope of the errors over the sizes, both in logarithms, by least squares; nan if an error is 0."""
    if min(errors) <= 0 or not all(map(math.isfinite, errors)):
        return math.nan
    return float(np.polyfit(np.log(sizes), np.log(errors), 1)[0])


def smooth_grid(
    path: str, steps: int, warp: float = 0.0, first: float = 5.0, last: float = 0.2, uneven: float = 0.0
) -> list[float]:
    """A grid that gets finer without changing its shape.

    Args:
        path: ``"ve"`` or ``"flow"``.
        steps: Number of steps.
        warp: In ]-1, 1[: 0 is uniform in log-SNR, above 0 the steps get smaller along the way.
        first: First level, as noise over signal.
        last: Last level, as noise over signal.
        uneven: In [0, 1[: each second step is shorter by this part and the others longer, however fine.
    """
    way, span = as_path(path), math.log(first / last)
    places = [(i + uneven * (i % 2) * (i < steps)) / steps for i in range(steps + 1)]
    ratios = [first * math.exp(-span * (u + warp * u * (1.0 - u))) for u in places]
    return [way.from_ratio(ratio) for ratio in ratios]


class Moments(NamedTuple):
    """Mean ``(d,)`` and covariance ``(d, d)``."""

    mean: Array
    covariance: Array

    def distance(self, exact: Moments) -> float:
        """How far they are from the exact ones, in units of the exact standard deviations."""
        inverse = np.linalg.inv(np.linalg.cholesky(exact.covariance))
        covariance = inverse @ self.covariance @ inverse.T - np.eye(len(self.mean))
        return float(np.hypot(np.linalg.norm(covariance), np.linalg.norm(inverse @ (self.mean - exact.mean))))


def output_moments(plan: Plan, problem: Any) -> Moments:
    """Mean and covariance of a plan's result on normal data, exactly: no sample is drawn.

    Each state is an affine function of the initial noise and of the noises drawn on the way. The plan's
    combinations, and the denoiser of normal data, are affine; so the coefficients can be carried through.

    Args:
        plan: The plan; its overlapping noise intervals are taken as increments of one Brownian path.
        problem: A `kdiff_core.testing.Gaussian`, whose marginal at the first level is the initial law.
    """
    plan = plan.increments()
    first = problem.marginal(plan.levels[0])
    d = len(first[0])
    width = 1 + d * (1 + len(plan.noises))  # the mean, then a block for each source of noise
    start = np.zeros((d, width))
    start[:, 0], start[:, 1 : 1 + d] = first[0], np.linalg.cholesky(first[1])
    blocks = iter(range(1 + d, width, d))

    def evaluate(x: Array, sigma: Number) -> Array:
        matrix, offset = problem.affine(sigma)
        output: Array = matrix @ x
        output[:, 0] += offset
        return output

    def draw(request: Noise) -> Array:
        noise = np.zeros((d, width))
        at = next(blocks)
        noise[:, at : at + d] = np.eye(d)
        return noise

    result = interpret(plan, start, evaluate, draw)[plan.result]
    factor = result[:, 1:]
    return Moments(result[:, 0], factor @ factor.T)


def interpret(
    plan: Plan, start: Any, evaluate: Callable[[Any, Number], Any], draw: Callable[[Noise], Any]
) -> dict[int, Any]:
    """Carry values of any kind through a plan; an interpreter that owes nothing to the engine.

    Args:
        plan: The plan.
        start: The initial value.
        evaluate: ``evaluate(x, sigma)``, the denoiser.
        draw: ``draw(request)``, the noise.

    Returns:
        The value of each register.
    """
    values = {0: start}
    for op in plan.ops:
        if isinstance(op, Evaluate):
            values.update(dict.fromkeys(op.outs, evaluate(values[op.x], op.sigma)))
        elif isinstance(op, Noise):
            values[op.out] = draw(op)
        else:
            values[op.out] = sum(weight * values[register] for register, weight in op.terms)
    return values


def rounding(plan: Plan | None, x: Any, problem: Any, dtype: str = "float64") -> float:
    """What rounding may do to a result: a bound from the plan's own weights.

    A combination of states rounds by about eps times the sum of ``|weight| |state|``: little for most
    samplers, much where large weights cancel (noise prediction where a flow path begins). The largest such
    sum, times eps, times a factor for the number of operations, is the tolerance of laws that are exact.

    Args:
        plan: The plan, or None for a sampler without one.
        x: The initial state, a tensor.
        problem: The denoiser.
        dtype: Of the run.
    """
    import torch

    eps, double = (float(torch.finfo(kind).eps) for kind in (getattr(torch, dtype), torch.float64))
    start = x.detach().double().cpu()
    largest = max(1.0, float(start.abs().max()))
    if plan is None:
        return 1e4 * eps * largest

    def evaluate(state: Any, sigma: Number) -> Any:
        return problem(state, torch.full((len(state),), float(sigma), dtype=torch.float64))

    values = interpret(plan, start, evaluate, lambda request: torch.full_like(start, 3.0))
    sizes = {register: float(value.abs().max()) for register, value in values.items()}
    sums = [sum(abs(w) * sizes[r] for r, w in op.terms) for op in plan.ops if isinstance(op, Combine)]
    return float((_STATES * eps + _WEIGHTS * double) * max([largest, *sums]))
