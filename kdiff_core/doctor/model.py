"""Checks of a model, on samples that it made itself: its mode, its outputs by level, its conditions."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from . import Check, Seen, ok, problem, skipped, warning
from .subject import Subject, apart, rms

_LEVELS = 8
_ACTS_IN_TRAINING = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)
_NO_DATA = "there are no finite samples to add noise to"
_PREDICTION = (
    "the prediction type (--set model.prediction=epsilon, v_prediction, sample, flow_prediction), the "
    "process, sigma_data; else another checkpoint"
)


def mode(of: Subject) -> Seen:
    """Networks in eval mode."""
    if not of.modules:
        return skipped("the model shows no torch module")
    on = [m for network in of.modules for m in network.modules() if m.training]
    acting = sorted(
        {type(m).__name__ for m in on if isinstance(m, _ACTS_IN_TRAINING) and getattr(m, "p", True)}
    )
    if acting:
        return problem(
            f"{', '.join(acting)} in training mode",
            "outputs are random, or depend on the batch",
            "model.eval() before sampling",
        )
    if on:
        return warning(
            f"{len(on)} modules are in training mode",
            "none of those known here acts differently in it, but some of the model's own may",
            "model.eval() before sampling",
        )
    return ok("all modules are in eval mode")


def repeats(of: Subject) -> Seen:
    """The same output for the same input."""
    x, sigma = _somewhere(of)
    first, second = of.denoise(x.clone(), sigma), of.denoise(x.clone(), sigma)
    if torch.equal(first, second):
        return ok("equal, bit for bit")
    change = apart(second, first)
    seen = f"a second call differs by {change:.2g}"
    if change > 1e-3:
        return problem(
            seen,
            "the model is random: dropout left on, or noise of its own",
            "model.eval(); or take out what is random",
        )
    return warning(
        seen,
        "kernels that are not deterministic: a run cannot be replayed bit for bit",
        "torch.use_deterministic_algorithms(True)",
    )


def batch(of: Subject) -> Seen:
    """A sample's output alone, beside that in a batch."""
    x, sigma = _somewhere(of)
    if len(x) < 2:
        return skipped("a batch of one; give --n 2 or more")
    cond = {k: v[:1] if isinstance(v, Tensor) and len(v) == len(x) else v for k, v in of.few.cond.items()}
    together, alone = of.denoise(x, sigma)[:1], of.denoise(x[:1], sigma[:1], **cond)
    change = apart(alone, together)
    seen = f"differs by {change:.2g}"
    if change > (0.05 if x.dtype in (torch.float16, torch.bfloat16) else 1e-3):
        return problem(
            seen,
            "a sample depends on what it is drawn with: batch statistics, or a mean over the batch",
            "model.eval(); norms over the batch dimension have to go",
        )
    return ok(seen)


def _somewhere(of: Subject) -> tuple[Tensor, Tensor]:
    """Return states in the middle of the levels."""
    data = torch.zeros_like(of.few.like) if of.data is None else of.data
    return of.noisy(of.levels[len(of.levels) // 2], data)


def lowest(of: Subject) -> Seen:
    """At the lowest level: an output near the state, from which there is hardly anything to take away."""
    sigma = of.levels[-1]
    data = of.data
    if data is None:  # a network returns nearly its input here, whatever that is
        data = of.noisy(of.reach / 5, torch.zeros_like(of.few.like))[0]
    x, level = of.noisy(sigma, data)
    error = rms(of.denoise(x, level) - data)
    allowed = 3 * of.path.ratio(sigma) + 0.1 * max(rms(data), 0.02 * of.reach)
    seen = f"at level {sigma:.4g} outputs are {error:.3g} off; up to {allowed:.3g} is plausible"
    if not error <= allowed:
        return problem(seen, "the output is not the data: its prediction type is another", _PREDICTION)
    return ok(seen)


def highest(of: Subject) -> Seen:
    """At the highest level: outputs within the reach of the data."""
    sigma = of.levels[0]
    x, level = of.noisy(sigma, torch.zeros_like(of.few.like))
    size = rms(of.denoise(x, level))
    seen = f"at level {sigma:.4g} outputs have a size of {size:.3g}; data reach to about {of.reach:.3g}"
    if not size <= 2 * of.reach:
        return problem(
            seen,
            "the output is not the data: its prediction type is another, or it is not made for this level",
            f"{_PREDICTION}; sigma_max",
        )
    return ok(seen)


def errors_by_level(of: Subject) -> Seen:
    """The error of outputs against the level: finite, and no smaller with more noise."""
    if of.data is None:
        return skipped(_NO_DATA)
    high, low = (math.log(min(of.path.ratio(level), 1e3)) for level in (of.levels[0], of.levels[-1]))
    ratios = [math.exp(high + (low - high) * i / (_LEVELS - 1)) for i in range(_LEVELS)]
    errors = []
    for sigma in (float(of.path.from_ratio(ratio)) for ratio in ratios):
        error = rms(of.denoise(*of.noisy(sigma, of.data)) - of.data)
        if not math.isfinite(error):
            return problem(
                f"at level {sigma:.4g} outputs are not finite",
                "the weights are broken, or the model overflows at that level",
                "another checkpoint; --dtype float32; a range without that level (sigma_min, sigma_max)",
            )
        errors.append((error, sigma))
    noise = 0.05 * rms(of.data)
    for (more, above), (less, below) in pairwise(errors):
        if less > 1.5 * more + noise:
            return warning(
                f"the error is {less:.3g} at level {below:.4g}, {more:.3g} at {above:.4g}, with more noise",
                "the model is poor at that level: too little trained there, or told another level",
                "the process and the time that the network is given; train longer, with a density of noise "
                "levels that has it (`kdiff eval` shows the loss by level)",
            )
    return ok(f"{errors[0][0]:.3g} at level {errors[0][1]:.4g}, down to {errors[-1][0]:.3g}")


def condition(of: Subject) -> Seen:
    """Outputs that differ with the class, or with the text."""
    classes = getattr(of.model, "classes", None)
    encode = getattr(of.model, "encode", None)
    n, device = len(of.few.like), of.few.like.device
    if callable(encode):
        two = [encode([text] * n) for text in ("a photograph of a cat", "")]
    elif classes is not None and classes > 1:
        two = [{"label": torch.full((n,), value, device=device)} for value in (0, classes - 1)]
    else:
        return skipped("the model takes no condition that is known here")
    data = torch.zeros_like(of.few.like) if of.data is None else of.data
    levels = (of.levels[0], of.levels[len(of.levels) // 2])
    at = [of.noisy(level, data) for level in levels]
    change = max(apart(of.denoise(*each, **two[0]), of.denoise(*each, **two[1])) for each in at)
    seen = f"outputs differ by {change:.2g} at most"
    if change < 1e-4:
        return problem(
            seen,
            "the model ignores its condition, so that guidance does nothing",
            "train longer, with conditions in the data; look at how the condition reaches the network",
        )
    return ok(seen)


CHECKS: tuple[Check, ...] = (mode, repeats, batch, lowest, highest, errors_by_level, condition)
