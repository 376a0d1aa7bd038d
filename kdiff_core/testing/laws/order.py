"""Laws of accuracy: the order of one step, the order of a whole run, the memory that the order needs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import attrs
from hypothesis import strategies as st

from ...adaptive import AdaptiveSampler
from ...errors import KdiffError
from ...path import as_path
from ...tracing import trace
from .. import strategies as draw
from ..catalogue import LawBroken, law, require
from ..measure import slope, smooth_grid
from ..problems import Mixture, random_state
from ..teacher import one_step_error
from ..variants import declaring, deterministic, has_deterministic, model_for

TOLERANCE = 0.3
# Steps in log-SNR: small enough that the leading error rules, in an arithmetic that sees it.
SIZES = tuple(0.01 / 2**k for k in range(4))
STEPS, MOST_STEPS = (20, 40, 80), 320
_NEGLIGIBLE = 1e-10


def _has_step(sampler: Any) -> bool:
    return callable(getattr(sampler, "step", None)) and has_deterministic(sampler)


def _one_step_order(
    sampler: Any, path: str, ratios: Any, lam: float, declared: int, where: str = ""
) -> dict[str, float]:
    """Measure the order of one step and require that it is the declared one."""
    order = slope(SIZES, [one_step_error(sampler, path, h, ratios, lam) for h in SIZES]) - 1.0
    require(
        abs(order - declared) <= TOLERANCE,
        f"the order of one step{where} is {order:.2f}, declared is {declared}",
        measured=order,
        declared=declared,
        tolerance=TOLERANCE,
    )
    return {"order": order}


def _in_digits(sampler: Any) -> bool:
    """Whether its step computes in high precision: each linear one has to, others may."""
    if not _has_step(sampler) or sampler.linear:
        return _has_step(sampler)
    try:
        one_step_error(deterministic(sampler), "ve", SIZES[0], [1.0] * sampler.memory, 0.0)
    except Exception:
        return False
    return True


@law(
    "sampler",
    when=_in_digits,
    share=0.4,
    ratios=lambda path: draw.step_ratios(6),
    lam=st.floats(-1.0, 1.0),
)
def one_step_order(sampler: Any, *, path: str, ratios: Any, lam: float) -> dict[str, float]:
    """The error of one step, given exact history on uneven steps, falls with the declared order plus one.

    The order is what an author claims and a user pays for. One step with exact history is the sharpest test
    of it: a slope over a whole run is spoilt by the first steps, which have no history, and on smooth grids
    it does not see a step ratio that is used the wrong way round. Steps differ by up to a factor of two here.
    The error is that of four variances of normal data at once, in 40 digits, so that rounding and accidental
    zeros play no part. Too low: a term is missing or wrong. Too high: the declaration is.
    """
    still = deterministic(sampler)
    where = "" if still is sampler else " without its noise"
    if still.order_smooth != still.order:  # on steps that are nearly even it has nearly the other order
        ratios = [max(r, 1.5) if i % 2 else min(r, 0.7) for i, r in enumerate(ratios)]
    return _one_step_order(still, path, ratios, lam, still.order, where)


@law(
    "sampler",
    when=lambda s: _has_step(s) and s.linear and deterministic(s).order_smooth != deterministic(s).order,
    share=0.4,
    lam=st.floats(-1.0, 1.0),
)
def one_step_order_smooth(sampler: Any, *, path: str, lam: float) -> dict[str, float]:
    """On equal steps in log-SNR the error of one step falls with the declared `order_smooth` plus one.

    Methods that ignore the ratio of steps (iPNDM) have a higher order where steps are alike than where they
    are not; they declare both.
    """
    still = deterministic(sampler)
    return _one_step_order(still, path, [1.0] * still.memory, lam, still.order_smooth, " on equal steps")


def _has_fixed_steps(sampler: Any) -> bool:
    return has_deterministic(sampler) and not isinstance(sampler, AdaptiveSampler)


@law(
    "sampler",
    when=_has_fixed_steps,
    share=0.2,
    warp=st.floats(0.1, 0.5) | st.floats(-0.5, -0.1),
    seed=st.integers(0, 3),
)
def global_order(sampler: Any, *, path: str, warp: float, seed: int) -> dict[str, float]:
    """The error of a whole run falls at least with the declared order, up to 2 for a method with a memory.

    This is what a user sees: twice the steps, a quarter of the error. The problem is a mixture of normals, so
    the equation is nonlinear, and the reference comes from another integrator (DOP853). A method with a
    memory starts without one: its first step is of order 1, which caps the whole run at order 2.
    """
    still = deterministic(sampler)
    least: int = order_of_a_run(still)
    steps: tuple[int, ...] = STEPS
    errors = run_errors(still, path, steps, warp, seed)
    while True:
        if min(errors) < _NEGLIGIBLE:
            return {"error": min(errors)}
        order = max(slope([1 / n for n in steps[i:]], errors[i:]) for i in (0, len(steps) - 2))
        if order >= least - TOLERANCE:
            return {"order": order}
        require(
            steps[-1] < MOST_STEPS and errors[-1] < errors[-2],
            f"over {steps} steps the error falls with order {order:.2f}, expected is at least {least}",
            measured=order,
            expected=least,
            errors=tuple(float(f"{e:.3g}") for e in errors),
        )
        # Errors of the start and of the rest may cancel in part, until one of them rules.
        steps = (*steps, 2 * steps[-1])
        errors += run_errors(still, path, steps[-1:], warp, seed)


def order_of_a_run(sampler: Any) -> int:
    """Order that a whole run has at least: with a memory at most 2, since the first step has none."""
    return min(sampler.order_smooth, 2) if sampler.memory else int(sampler.order_smooth)


def run_errors(
    sampler: Any, path: str, steps: Sequence[int], warp: float = 0.0, seed: int = 0
) -> list[float]:
    """Errors of whole runs on a mixture of normals, one for each number of steps.

    Args:
        sampler: The sampler, deterministic.
        path: ``"ve"`` or ``"flow"``.
        steps: Numbers of steps.
        warp: Shape of the grids, as `smooth_grid` takes it.
        seed: Of the initial states.
    """
    problem = Mixture(path=path)
    x, exact = _reference(path, seed)
    runs = [sampler(model_for(sampler, problem), x, smooth_grid(path, n, warp)) for n in steps]
    return [float((run - exact).norm()) for run in runs]


@cache
def _reference(path: str, seed: int) -> tuple[Any, Any]:
    """States at the first level of the grids, and the solution through them at the last."""
    first, *_, last = smooth_grid(path, 2)
    x = random_state(seed, batch=6, shape=(2,), scale=1.0) * first
    return x, Mixture(path=path).exact(x, first, last)


@law(
    "sampler",
    when=lambda s: isinstance(s, AdaptiveSampler) and has_deterministic(s),
    share=0.1,
    seed=st.integers(0, 3),
)
def error_falls_with_the_tolerance(sampler: Any, *, path: str, seed: int) -> dict[str, float]:
    """An adaptive sampler's error falls with its tolerances, for more evaluations.

    Its steps are its own, so that the tolerance takes the place of the number of steps. From 1e-2 to 1e-5 the
    error falls to a fifth at least, and is below 0.05.
    """
    first, *_, last = smooth_grid(path, 2)
    x, exact = _reference(path, seed)
    still, problem = deterministic(sampler), Mixture(path=path)
    errors, calls = [], []
    for tolerance in (1e-2, 1e-5):
        finer = attrs.evolve(still, rtol=tolerance, atol=tolerance, max_evaluations=100_000)
        result = finer.run(model_for(finer, problem), x, [first, last])
        errors.append(float((result.x - exact).abs().max()))
        calls.append(result.evaluations)
    require(
        errors[1] <= min(errors[0] / 5.0, 0.05) and calls[1] > calls[0],
        f"with tolerances of 1e-2 and 1e-5 the errors are {errors[0]:.2g} and {errors[1]:.2g}, "
        f"the evaluations {calls[0]} and {calls[1]}",
        errors=tuple(errors),
        evaluations=tuple(calls),
    )
    return {"error with 1e-5": errors[1]}


@law("sampler", when=lambda s: callable(getattr(s, "step", None)) and s.linear)
def memory_is_enough_and_needed(sampler: Any, *, path: str) -> None:
    """A step finds all the points that it asks for in the memory it declares, and needs the oldest of them.

    The engine keeps `memory` earlier states alive. Declared too small, a step asks for a point that is gone;
    too large, each run holds states that nobody reads.
    """
    grid = smooth_grid(path, sampler.memory + 4, 0.3)
    try:
        plan = trace(sampler, grid, as_path(path))
    except IndexError as error:
        raise LawBroken(
            f"with memory = {sampler.memory} a step asks for a point that is gone: {error}",
            declared=sampler.memory,
        ) from error
    if sampler.memory == 0:
        return
    try:
        fewer = trace(declaring(sampler, memory=sampler.memory - 1), grid, as_path(path))
    except (IndexError, AttributeError, KdiffError):
        return  # it asks for the point, and says so
    require(
        fewer.ops != plan.ops,
        f"it declares memory = {sampler.memory}, but with {sampler.memory - 1} it does the same",
        declared=sampler.memory,
    )
