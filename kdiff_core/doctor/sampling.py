"""Checks of a run: memory, levels, steps, guidance, noise, precision; the first before anything runs."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..errors import CapabilityError, KdiffError
from ..estimate import size_of
from ..lookup import get_sampler
from . import Check, Seen, ok, problem, skipped, warning
from .subject import Subject, apart, free_bytes, halved, rms

_HALF = (torch.float16, torch.bfloat16)
# Parts of the samples' size by which a result may change when each step is made in two.
_CHANGES, _UNLIKE = 0.15, 0.5
_NO_END = "the run, or one that it is compared with, is not finite"


def memory(of: Subject) -> Seen:
    """The memory that the run needs, beside what the device has free."""
    free = free_bytes(of.setup.like.device)
    if free is None:
        return skipped("the device does not say how much is free")
    try:
        needs = of.setup.memory().total
    except CapabilityError as error:
        return skipped(str(error).partition(" (")[0])
    seen = f"about {size_of(needs)} for {of.setup.job.n} samples, {size_of(free)} free"
    change = (
        "fewer samples (--n), --chunk auto (a part of them in each model call), --offload, a smaller dtype "
        "of the model; `kdiff sample --dry-run` shows what takes it"
    )
    if needs > free:
        return problem(seen, "the run is out of memory", change)
    if needs > 0.8 * free:
        return warning(seen, "little is left for what the estimate does not count", change)
    return ok(seen)


def first_level(of: Subject) -> Seen:
    """The highest level, beside the highest that the model was made for."""
    if of.trained is None:
        return skipped("the model does not say what levels it was made for")
    first, high = of.few.grid[0], of.trained[1]
    seen = f"the run begins at {first:.4g}, the model was made for up to {high:.4g}"
    if first > 1.1 * high:
        return problem(
            seen,
            "it is asked about noise that it has never seen" + _of_others(of),
            f"sigma_max={high:.4g}, or a schedule that takes its range from the model, such as karras",
        )
    if first < 0.8 * high:
        return warning(
            seen,
            "states begin with less noise than in training: samples are washed out, or of mean brightness"
            + _of_others(of),
            f"sigma_max={high:.4g}, or a schedule that takes its range from the model, such as karras",
        )
    return ok(seen)


def _of_others(of: Subject) -> str:
    """What is to be said of a schedule that has levels of its own."""
    own = getattr(of.few.schedule, "spans", True) is False
    return f"; the schedule {of.few.schedule_name} has levels of its own, made for another model" * own


def last_level(of: Subject) -> Seen:
    """The lowest level: what noise is left, and whether the model knows it."""
    ratio = of.path.ratio(of.levels[-1])
    seen = f"the lowest level above 0 is {of.levels[-1]:.4g}"
    size = of.reach / 2
    if of.few.grid[-1] > 0 and ratio > 0.02 * size:
        return problem(
            f"the run ends at {of.few.grid[-1]:.4g}",
            "that much noise is left in the samples",
            "a schedule that ends in 0, as all that are registered do",
        )
    if of.trained is not None and of.levels[-1] < 0.5 * of.trained[0]:
        return warning(
            f"{seen}; the model was made for {of.trained[0]:.4g} and above",
            "steps are spent on noise that it cannot tell from none" + _of_others(of),
            f"sigma_min={of.trained[0]:.4g}, or a schedule that takes its range from the model: karras",
        )
    if ratio > 0.5 * size:
        return warning(
            seen,
            "the last step goes from much noise to none at once: samples are blurred",
            "more steps, or a schedule that ends lower, such as karras",
        )
    return ok(seen)


def finite(of: Subject) -> Seen:
    """The run to its end: outputs and states that are finite."""
    if isinstance(of.attempt, Exception):
        lines = str(of.attempt).splitlines() or [""]
        return problem(
            lines[0],
            "the sampling is unstable, or the model overflows",
            "in half precision --dtype float32; else look below at the model, then a lower --guidance, more "
            "--steps, and a sampler of order 1 or 2 (euler, dpmpp_2m)",
        )
    return ok(f"{of.attempt.evaluations} model calls, all finite")


def growth(of: Subject) -> Seen:
    """States no larger than data and noise of their level make them."""
    if of.result is None or of.result.trajectory is None:
        return skipped(_NO_END)
    sigmas = of.few.grid
    begin = 1.5 * max(1.0, rms(of.result.trajectory[0]) / sigmas[0])
    for sigma, x in zip(sigmas, of.result.trajectory, strict=False):
        allowed = of.path.alpha(sigma) * 2 * of.reach + begin * sigma
        if rms(x) > allowed:
            return problem(
                f"at level {sigma:.4g} states have a size of {rms(x):.4g}; {allowed:.4g} is plausible",
                "the sampling is unstable: the solver overshoots, guidance is too strong, or the model's "
                "output is not what it is taken for",
                "a lower --guidance or --guide cfg+rescale, more --steps, a sampler of lower order; and the "
                "model's prediction type, if it is so at guidance 1 too",
            )
    return ok(f"states end with a size of {rms(of.result.x):.4g}")


def steps(of: Subject) -> Seen:
    """The samples, beside those of twice the steps."""
    if not of.deterministic:
        return skipped(
            f"{of.few.sampler_name} adds noise, so that its runs differ; look with one that does not"
        )
    if of.result is None or of.finer is None:
        return skipped(_NO_END)
    change = apart(of.result.x, of.finer)
    seen = f"{of.few.grid.steps} steps; with {halved(of.few.grid).steps} samples change by {change:.1%}"
    if change <= _CHANGES:
        return ok(seen)
    found = (
        seen,
        "the steps are too few for this sampler" + "; a strong guidance needs more" * of.guided,
        f"--steps {2 * of.few.grid.steps} or more, a schedule made for few steps (`kdiff tune`)"
        + ", a lower --guidance" * of.guided,
    )
    return problem(*found) if change > _UNLIKE else warning(*found)


def order(of: Subject) -> Seen:
    """Where steps are few: the sampler, beside Euler on the same steps."""
    sampler = of.few.sampler
    if (sampler.order < 2 and not sampler.memory) or not of.deterministic:
        return skipped(f"{of.few.sampler_name} does not extrapolate, or adds noise")
    if of.result is None or of.finer is None or apart(of.result.x, of.finer) <= _CHANGES:
        return ok("twice the steps change little") if of.finer is not None else skipped(_NO_END)
    euler = get_sampler("euler")
    first, reference = of.run(sampler=euler), of.run(sampler=euler, grid=halved(halved(of.few.grid)))
    if first is None or reference is None:
        return skipped(_NO_END)
    own, lower = apart(of.result.x, reference), apart(first, reference)
    seen = f"{own:.1%} from a fine run, Euler on the same steps {lower:.1%}"
    if own > _CHANGES and own > 1.2 * lower:
        return warning(
            f"{of.few.sampler_name}: {seen}",
            "the order is too high for so few steps: what it extrapolates is wrong, and it overshoots",
            "a sampler of lower order (euler, dpmpp_2m), or more --steps",
        )
    return ok(seen)


def guidance(of: Subject) -> Seen:
    """Contrast of the guided samples, beside those without guidance."""
    if not of.guided or of.few.job.guide not in (None, "cfg"):
        return skipped("no guidance, or one that limits itself")
    plain = of.run(denoiser=of.model)
    if of.result is None or plain is None:
        return skipped(_NO_END)
    ratio = float(of.result.x.double().std() / max(float(plain.double().std()), 1e-12))
    seen = f"{ratio:.2f} times the contrast of samples without guidance"
    if ratio > 1.5:
        return warning(
            seen,
            "guidance is too strong: samples are saturated, and alike",
            "a lower --guidance, --guide cfg+rescale or apg, or guidance between two levels only "
            "(--set guide.sigma_high=...)",
        )
    return ok(seen)


def value_range(of: Subject) -> Seen:
    """The part of the samples' values that is outside of the data's range, and would be clipped."""
    values = getattr(of.model, "value_range", None)
    if values is None or of.result is None:
        return skipped("the model does not say the range of its data, or the run has no end")
    low, high = (float(value) for value in values)
    # Of data that end at a wall, as white paper does, samples lie a little behind it too.
    x, margin = of.few.decoded(of.result.x), 0.15 * (high - low)
    outside = float(((x < low - margin) | (x > high + margin)).double().mean())
    seen = f"{outside:.1%} of the values are far outside of {low:g} to {high:g}"
    if outside > 0.02:
        return warning(
            seen,
            "samples are saturated: guidance too strong, too few steps, or noise that is left in them",
            "a lower --guidance, --guide cfg+rescale or cfg+dynamic_thresholding, more --steps",
        )
    return ok(seen)


def noise(of: Subject) -> Seen:
    """What noise the sampler adds: eta, churn, s_noise."""
    told = _options(of.few.sampler)
    seen = ", ".join(f"{name}={value:g}" for name, value in told.items()) or "none"
    if not 0.9 <= told.get("s_noise", 1.0) <= 1.1:
        return warning(
            seen,
            "noise is added of another size than was taken away: samples stay noisy above 1, blur below it",
            "s_noise=1, at most 1.01",
        )
    most = (math.sqrt(2) - 1) * of.few.grid.steps
    if told.get("s_churn", 0.0) > most:
        return warning(
            f"{seen} in {of.few.grid.steps} steps",
            f"above {most:.3g} churn is cut, so that more of it changes nothing",
            "a lower s_churn, more --steps, or levels between which it acts (s_tmin, s_tmax)",
        )
    if told.get("eta", 0.0) > 1:
        return warning(seen, "more noise is added than a step has room for", "eta from 0 to 1")
    return ok(seen)


def _options(sampler: Any) -> dict[str, float]:
    """The options about noise, of a sampler or of what it wraps."""
    found: dict[str, float] = {}
    while sampler is not None:
        for name in ("eta", "s_churn", "s_noise"):
            value = getattr(sampler, name, None)
            if isinstance(value, int | float) and name not in found and sampler.stochastic:
                found[name] = float(value)
        sampler = getattr(sampler, "solver", None)
    return found


def rounded_levels(of: Subject) -> Seen:
    """The levels in the dtype of the states: all different, finite and above 0."""
    dtype = of.few.like.dtype
    levels = torch.tensor(of.levels, dtype=torch.float64).to(dtype).tolist()
    different = len(set(levels))
    seen = f"{len(levels)} levels in {str(dtype).removeprefix('torch.')}"
    if math.isinf(levels[0]) or levels[-1] == 0 or different < len(levels):
        return problem(
            f"of {seen} {different} are different, {levels[-1]:.3g} to {levels[0]:.3g}",
            "the model is told the same level of several steps, or none that is right",
            "--dtype float32 (the model may stay in half precision), or fewer --steps",
        )
    return ok(seen)


def precision(of: Subject) -> Seen:
    """The model's outputs in the states' dtype and in a wider one, at the ends of the levels."""
    dtype = of.few.like.dtype
    wide = torch.float32 if dtype in _HALF else torch.float64
    worst, at = 0.0, of.levels[0]
    for level in {of.levels[0], of.levels[-1]}:
        data = torch.zeros_like(of.few.like) if of.data is None else of.data
        x, sigma = of.noisy(level, data)
        output = of.denoise(x, sigma)
        if not bool(output.isfinite().all()):
            return problem(
                f"at level {level:.4g} the output is not finite in {dtype}",
                "the model overflows, which float16 does above 65504, or it has weights that are not finite",
                "--dtype float32 or bfloat16; if it is so in float32, another checkpoint",
            )
        try:
            exact = of.denoise(x.to(wide), sigma.to(wide))
        except (RuntimeError, TypeError, KdiffError):
            return skipped(f"the model does not take {wide}; its outputs in {dtype} are finite")
        worst, at = max((worst, at), (apart(output, exact), level))
    seen = f"{dtype} is {worst:.2g} from {wide} at level {at:.4g}"
    if worst > 0.02:
        return warning(
            seen, "samples are noisy or banded by rounding", "--dtype float32, and the model in float32"
        )
    return ok(seen)


CHECKS: tuple[Check, ...] = (
    memory, first_level, last_level, rounded_levels, noise, finite, growth, steps, order, guidance,
    value_range, precision,
)  # fmt: skip
