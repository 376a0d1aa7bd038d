"""Laws of stochastic samplers: what they make of normal data, exactly, and their limit without noise."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from hypothesis import strategies as st

from ...adaptive import AdaptiveSampler
from ...noise import GeneratorNoise
from .. import strategies as draw
from ..catalogue import law, require
from ..measure import Moments, output_moments, slope, smooth_grid
from ..problems import Gaussian, random_state
from ..variants import deterministic, has_deterministic, model_for, with_unit_noise
from .exactness import difference

TOLERANCE = 0.3
# Upwards it is wider: with little noise the order lies between that of the noise and the higher one without.
TOLERANCE_ABOVE = 0.7
STEPS = (80, 160, 320)
SAMPLES, SAMPLES_ADAPTIVE = 20_000, 2_000
# Steps alternate, 4 to 2, however many: on grids that get smooth a wrong ratio of steps is not seen.
UNEVEN = 1 / 3
# Variances 0.01 to 4 in a rotated frame: on one variance the error is one number, which crosses zero.
COVARIANCE = (
    (0.4786, 0.8286, -0.1857, -0.6714),
    (0.8286, 1.64, -0.2629, -1.4514),
    (-0.1857, -0.2629, 0.9029, 0.9543),
    (-0.6714, -1.4514, 0.9543, 2.1886),
)


@law(
    "sampler",
    when=lambda s: s.stochastic and s.linear,
    share=0.1,
    mean=st.floats(0.25, 1.0),
    warp=st.floats(0.1, 0.5) | st.floats(-0.5, -0.1),
)
def output_distribution(sampler: Any, *, path: str, mean: float, warp: float) -> dict[str, float]:
    """On normal data the output's mean and covariance approach the exact ones with the declared order.

    Whether a stochastic sampler samples from the right distribution is decided here, without drawing a
    sample: its plan is affine, so mean and covariance are carried through it exactly. A wrong amount of
    noise or a wrong alpha on flow paths leave an error that more steps do not remove, order 0; noise that is
    drawn twice where it should be one Brownian path costs an order. The order of a sampler with noise is this
    weak order.
    """
    full, problem = with_unit_noise(sampler), Gaussian(path, mean, COVARIANCE)
    errors = [distribution_error(full, path, problem, n, warp) for n in STEPS]
    orders = sorted(slope([1 / n for n in STEPS[i:]], errors[i:]) for i in (0, 1))
    shown = tuple(float(f"{error:.3g}") for error in errors)
    require(
        orders[1] >= full.order - TOLERANCE and orders[0] <= full.order + TOLERANCE_ABOVE,
        f"mean and covariance approach the exact ones with order {orders[1]:.2f}, declared is {full.order}",
        measured=orders[1],
        declared=full.order,
        steps=STEPS,
        errors=shown,
    )
    return {"order": orders[1], f"error at {STEPS[0]} steps": errors[0]}


def distribution_error(sampler: Any, path: str, problem: Gaussian, steps: int, warp: float = 0.0) -> float:
    """Distance of the output's moments from the exact marginal, in standard deviations."""
    grid = smooth_grid(path, steps, warp, uneven=UNEVEN)
    exact = Moments(*problem.marginal(grid[-1]))
    return output_moments(sampler.plan(grid, path), problem).distance(exact)


@law("sampler", when=lambda s: s.stochastic and not s.linear, share=0.1, seed=st.integers(0, 1000))
def output_distribution_of_samples(sampler: Any, *, path: str, seed: int) -> dict[str, float]:
    """Without a plan: on normal data the variance of many samples is about that of the data.

    A sampler that cannot be traced has no exact moments, so its samples are measured, on 160 steps, to an
    eighth. That finds a wrong amount of noise, though not a wrong order.
    """
    full, grid = with_unit_noise(sampler), smooth_grid(path, STEPS[1])
    problem = Gaussian(path, 0.3, 0.5)
    mean, covariance = problem.marginal(grid[0])
    count = SAMPLES_ADAPTIVE if isinstance(sampler, AdaptiveSampler) else SAMPLES
    unit = random_state(seed, batch=count, shape=(2,), scale=1.0)
    x = float(mean[0]) + unit * float(covariance[0, 0]) ** 0.5
    result = full(model_for(full, problem), x, grid, noise=GeneratorNoise((_generator(seed),)))
    exact = float(problem.marginal(grid[-1])[1][0, 0])
    ratio = float(result.var()) / exact
    require(
        abs(ratio - 1.0) <= 0.125,
        f"its samples have {ratio:.3f} of the variance that they should have",
        ratio=ratio,
        samples=2 * count,
    )
    return {"variance": ratio}


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _has_s_noise(sampler: Any) -> bool:
    own = attrs.fields(type(sampler)) if attrs.has(type(sampler)) else ()
    return bool(sampler.stochastic) and any(field.name == "s_noise" and field.init for field in own)


@law("sampler", when=_has_s_noise, grid=draw.grids, seed=st.integers(0, 1000))
def s_noise_is_a_factor_of_the_noise(sampler: Any, *, path: str, grid: Any, seed: int) -> None:
    """With ``s_noise = 0`` the result does not depend on the seed.

    Users turn it up and down a little to add or remove texture; a sampler that takes the parameter uses it.
    """
    silent, problem = attrs.evolve(sampler, s_noise=0.0), Gaussian(path)
    x, model = random_state(seed), model_for(sampler, problem)
    one, other = (silent(model, x, grid, seed=number) for number in (seed, seed + 1))
    off = difference(one, other)
    require(off == 0.0, f"with s_noise = 0 two seeds differ by {off:.3g}", difference=off)


def _has_eta(sampler: Any) -> bool:
    return hasattr(sampler, "eta") and has_deterministic(sampler) and callable(getattr(sampler, "step", None))


@law(
    "sampler",
    when=_has_eta,
    grid=lambda path: draw.grids(path, start_at_one=False),
    seed=st.integers(0, 1000),
)
def eta_zero_is_deterministic(sampler: Any, *, path: str, grid: Any, seed: int) -> dict[str, float]:
    """With ``eta = 0`` it asks for no noise, and is the limit of a vanishing eta.

    `eta` is a share of noise, and 0 is the deterministic method: a user who turns it down gets there without
    a jump. (From sigma = 1 on flow, where there is only noise, any share of an infinite step in log-SNR
    replaces all of it.)
    """
    still, problem = deterministic(sampler), Gaussian(path)
    x, model = random_state(seed), model_for(sampler, problem)
    if still.linear:
        require(not still.plan(grid, path).noises, "with eta = 0 it still asks for noise")
    quiet = still(model, x, grid, seed=seed)
    require(
        difference(quiet, still(model, x, grid, seed=seed + 1)) == 0.0,
        "with eta = 0 the result depends on the seed",
    )
    nearly = attrs.evolve(sampler, eta=1e-8)(model, x, grid, seed=seed)
    jump = difference(nearly, quiet)
    # Noise grows with the root of eta in some methods.
    require(jump <= 1e-2, f"between eta = 0 and eta = 1e-8 the result jumps by {jump:.3g}", jump=jump)
    return {"jump": jump}
