"""Laws that tie what a sampler declares, what its plan says and what a run does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import mpmath
import torch
from hypothesis import strategies as st

from ...path import Path, as_path
from ...tracing import trace
from .. import strategies as draw
from ..catalogue import law, require
from ..measure import interpret, rounding, smooth_grid
from ..problems import Gaussian, random_state
from ..variants import Function, model_for, untraced
from .exactness import SEEDS, allowed, difference, equal
from .schedules import LogProcess


def traced(sampler: Any) -> bool:
    """Whether it has a plan."""
    return bool(getattr(sampler, "linear", False)) and callable(getattr(sampler, "step", None))


@law("sampler", when=traced, grid=draw.grids, seed=SEEDS)
def eager_equals_plan(
    sampler: Any, *, path: str, grid: Any, seed: int, device: str = "cpu", dtype: str = "float64"
) -> dict[str, float]:
    """Run on tensors, step by step, it gives what its plan gives, with as many evaluations.

    The plan is made from symbols. A step that looks at values, keeps something between runs, or computes with
    a state in a way that symbols do not see, does one thing when traced and another when run.
    """
    problem, x = Gaussian(path), random_state(seed, device=device, dtype=dtype)
    model = model_for(sampler, problem)
    planned = sampler.run(model, x, grid, seed=seed)
    eager = untraced(sampler).run(model, x, grid, seed=seed)
    require(bool(planned.info["traced"]), "it declares linear, but was not traced")
    require(
        planned.evaluations == eager.evaluations,
        f"the plan evaluates {planned.evaluations} times, the step itself {eager.evaluations} times",
    )
    return equal(eager.x, planned.x, allowed(sampler, grid, path, x, problem, dtype), "plan and step")


@law("sampler", grid=draw.grids, seed=SEEDS)
def evaluations_as_planned(sampler: Any, *, path: str, grid: Any, seed: int) -> dict[str, float]:
    """The denoiser is called as often, and at the noise levels, as the plan and the result say.

    Hosts show progress, estimate costs and publish timesteps from the plan, before the run.
    """
    problem, seen = Gaussian(path), []

    def count(x: Any, sigma: Any) -> Any:
        seen.append(float(sigma[0]))
        return problem(x, sigma)

    model = model_for(sampler, Function(path, count))
    result = sampler.run(model, random_state(seed), grid, seed=seed)
    calls = seen[:: 3 if sampler.needs else 1]
    require(len(calls) == result.evaluations, f"{len(calls)} calls, the result says {result.evaluations}")
    if traced(sampler):
        planned = [float(level) for level in sampler.plan(grid, path).evaluation_sigmas]
        require(calls == planned, f"called at {calls}, planned were {planned}")
    steps = len(sampler.levels(grid, path)) - 1
    return {"calls per step": len(calls) / steps}


@law("sampler", seed=SEEDS, warp=st.floats(-0.5, 0.5))
def noise_if_and_only_if_declared(sampler: Any, *, path: str, seed: int, warp: float) -> None:
    """Its result depends on the seed if and only if it declares `stochastic`.

    A host asks for a seed, draws noise ahead and offers "variations" according to this flag. Noise that comes
    from elsewhere, such as torch's global generator, cannot be repeated, and is found out here as well.
    """
    grid, x = smooth_grid(path, 5, warp), random_state(seed)
    model = model_for(sampler, Gaussian(path))
    one, again, other = (sampler(model, x, grid, seed=number) for number in (seed, seed, seed + 1))
    require(torch.equal(one, again), "the same seed gives another result", difference=difference(one, again))
    depends = not torch.equal(one, other)
    if sampler.stochastic:
        require(depends, "it declares stochastic, but two seeds give the same result")
    else:
        require(not depends, "it does not declare stochastic, but the result depends on the seed")
    if traced(sampler):
        noises = len(sampler.plan(grid, path).noises)
        require(
            bool(noises) == sampler.stochastic,
            f"the plan asks for noise {noises} times",
            stochastic=sampler.stochastic,
        )


@law("sampler", when=traced)
def plan_does_not_grow(sampler: Any, *, path: str) -> dict[str, float]:
    """The operands of an update and the states alive at once do not grow with the number of steps.

    A step that carries a sum on, in place of a state, reads more and more; `ctx.keep` has the sum combined
    once.
    """
    short, long = (sampler.plan(smooth_grid(path, n), path) for n in (12, 60))
    require(
        (long.operands, long.buffers) == (short.operands, short.buffers),
        f"12 steps read {short.operands} states at once and hold {short.buffers}, "
        f"60 steps {long.operands} and {long.buffers}",
    )
    return {"operands": float(long.operands), "states alive": float(long.buffers)}


@law("sampler", when=traced, grid=lambda path: draw.grids(path, start_at_one=False))
def differentiable_in_the_levels(sampler: Any, *, path: str, grid: Any) -> dict[str, float]:
    """The result has the gradient with respect to the noise levels that its differences show.

    Grids are tuned by gradient, through the weights of the plan. A function of `math` in between cuts the
    gradient without a word: the weights are right, and tuning goes astray.
    """
    way, step = as_path(path), 1e-6
    levels = [torch.tensor(level, dtype=torch.float64, requires_grad=level > 0) for level in grid]
    leaves = [level for level in levels if level.requires_grad]
    result = _toy_result(sampler, way, levels)
    tied = isinstance(result, torch.Tensor) and result.requires_grad
    found = torch.autograd.grad(result, leaves, allow_unused=True) if tied else [None] * len(leaves)
    # Levels are moved in proportion to themselves, each by another factor: ratios of levels must not stay.
    moves = [math.cos(1.7 * i) * level for i, level in enumerate(grid)]
    along = sum(float(g) * move for g, move in zip(found, moves, strict=False) if g is not None)
    up, down = (
        float(_toy_result(sampler, way, [a + sign * step * b for a, b in zip(grid, moves, strict=True)]))
        for sign in (1, -1)
    )
    expected = (up - down) / (2.0 * step)
    off = abs(along - expected)
    require(
        off <= 1e-3 * (1.0 + abs(expected)),
        f"moving the levels changes the result by {expected:.6g}, the gradient says {along:.6g}",
        gradient=along,
        difference_quotient=expected,
    )
    return {"error": off}


@law("sampler", when=traced, kind=st.sampled_from(["mpmath", "torch"]), grid=draw.grids)
def any_kind_of_number(sampler: Any, *, path: str, kind: str, grid: Any) -> None:
    """Traced on high-precision numbers or on torch scalars, it has the weights that it has on floats.

    One step serves plans (floats), tuning by gradient (torch scalars) and the order checks (mpmath).
    Functions come from `kdiff_core.numerics`; those of `math` and NumPy turn numbers into floats, and cut the
    gradient.
    """
    make = mpmath.mpf if kind == "mpmath" else _scalar
    way = as_path(path)
    plan = trace(sampler, grid, way)
    again = trace(sampler, [make(level) for level in grid], way)
    require(
        plan.evaluations == again.evaluations,
        f"{plan.evaluations} evaluations on floats, {again.evaluations} on {kind}",
    )
    require(
        len(plan.noises) == len(again.noises),
        f"{len(plan.noises)} noises on floats, {len(again.noises)} on {kind}",
    )
    one, other = (_plain(interpret(p, 3.0, _toy, lambda _: 0.7)[p.result]) for p in (plan, again))
    tolerance = rounding(plan, torch.full((1, 1), 3.0), lambda x, sigma: _toy(x, sigma[0]))
    require(
        abs(one - other) <= tolerance,
        f"on a toy model the result is {one:.12g} with floats and {other:.12g} with {kind}",
        difference=abs(one - other),
    )


def _toy_result(sampler: Any, path: Path, levels: Sequence[Any]) -> Any:
    """The result on a toy model, as a function of the levels."""
    plan = trace(sampler, levels, path)
    return interpret(plan, 3.0, _toy, lambda _: 0.7)[plan.result]


def _plain(value: Any) -> float:
    return float(value.detach() if isinstance(value, torch.Tensor) else value)


def _toy(x: Any, sigma: Any) -> Any:
    """A denoiser in arithmetic alone, so that it takes numbers of any kind."""
    return x * (1.0 / (1.0 + sigma * sigma))


def _scalar(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


@law("sampler", grid=draw.grids, seed=SEEDS)
def takes_a_process(sampler: Any, *, path: str, grid: Any, seed: int) -> None:
    """It runs with the noise process of a model at hand, and is the same from run to run.

    Hosts hand over what the model was trained on where they know it. A sampler may use it, `ctx.process` and
    in `prepare`, and most do not; none stumbles over it.
    """
    process = LogProcess(0.01, 0.99 if path == "flow" else 20.0, path)
    x, model = random_state(seed), model_for(sampler, Gaussian(path))
    first, again = (sampler(model, x, grid, seed=seed, process=process) for _ in range(2))
    require(bool(torch.isfinite(first).all()), "with a process the result is not finite")
    off = difference(again, first)
    require(off == 0.0, "with a process, the same run gives something else", difference=off)
