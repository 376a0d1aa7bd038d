"""Laws of stochastic samplers: what they make of normal data, exactly, and their limit without noise."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

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
    mean=st.floats(-1.0, 1.0),
    warp=st.floats(-0.5, 0.5),
)
def output_distribution(sampler: Any, *, path: str, mean: float, warp: float) -> dict[str, float]:
    """On normal data the output's mean and covariance approach the exact ones with the declared order.

    Whether a stochastic sampler samples from the right distribution is decided here, without drawing a
    sample: its plan is affine, so mean and covariance are carried through it exactly. A wrong amount of
    noise, noise that is drawn twice where it should be one Brownian path, or a wrong alpha on flow paths
    leave an error that more steps do not remove: order 0. The order of a sampler with noise is this weak
    order.
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
    grid = smooth_grid(path, steps, warp)
    exact = Moments(*problem.marginal(grid[-1]))
    return output_moments(sampler.plan(grid, path), problem).distance(exact)


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
    import attrs

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
