"""Laws of noise paths, on floats and on high-precision numbers."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any

import mpmath
from hypothesis import strategies as st

from ...numerics import sqrt
from ..catalogue import law, require

# A level is drawn as the part of noise in noise and data: sigma itself on flow, sigma / (1 + sigma) on VE.
inside = st.floats(1e-4, 1 - 1e-4)
fractions = st.floats(0.01, 0.99)
etas = st.floats(0.0, 1.5)
# Relative rounding of a way there and back. A level just below 1 on flow says 1e-16 of 1 - sigma = 1e-4.
ROUNDING = 1e-11
DIGITS = 40


def level(way: Any, place: Any) -> Any:
    """A level of a path, at a part of the noise."""
    return place if way.name == "flow" else place / (1 - place)


def close(found: Any, expected: Any, message: str, rel: float = ROUNDING, at: float = 0.0) -> float:
    """Require that two numbers are equal to a relative tolerance, or to an absolute one; return the error."""
    error = abs(found - expected)
    holds = bool(error <= max(rel * abs(expected), at))
    require(holds, message, found=float(found), expected=float(expected), error=float(error))
    return float(error)


@law("path", place=inside, fraction=fractions)
def lambda_falls_as_noise_rises(way: Any, *, place: float, fraction: float) -> None:
    """Within the path alpha is above 0, and lambda strictly falls as the level rises.

    Lambda, the log of signal over noise, is the time of exponential integrators: a grid that falls in sigma
    must rise in lambda, or a step has length 0 or goes backwards. A sign that is mixed up breaks it, and
    ``log`` of the square.
    """
    high, low = level(way, place), level(way, place * fraction)
    for sigma in (low, high):
        require(
            0 < way.alpha(sigma) < math.inf, "its alpha is not above 0", alpha=way.alpha(sigma), sigma=sigma
        )
    above, below = way.lambda_(high), way.lambda_(low)
    require(above < below, "its lambda does not fall as sigma rises", at_high=above, at_low=below)


@law("path", place=inside)
def lambda_and_level_are_inverse(way: Any, *, place: float) -> dict[str, float]:
    """``sigma(lambda_(s)) == s`` and ``lambda_(sigma(l)) == l``, to rounding.

    Solvers place their stages in lambda and ask for the level there; a stage at another level than it
    believes is of lower order, which no single image shows.
    """
    sigma = level(way, place)
    lambda_ = way.lambda_(sigma)
    there = way.sigma(lambda_)
    error = close(there, sigma, f"sigma(lambda_(s)) is not s at {sigma:.6g}: sigma is not lambda's inverse")
    again = way.lambda_(there)
    close(
        again,
        lambda_,
        f"lambda_(sigma(l)) is not l at {lambda_:.6g}: sigma is not lambda's inverse",
        at=1e-10,
    )
    return {"relative error": error / sigma}


@law("path", place=inside)
def ratio_and_level_are_inverse(way: Any, *, place: float) -> dict[str, float]:
    """``from_ratio(ratio(s)) == s`` and ``ratio(from_ratio(r)) == r``, to rounding.

    The ratio of noise to signal is the level in VE coordinates: through it one method serves both paths.
    """
    sigma = level(way, place)
    ratio = way.ratio(sigma)
    there = way.from_ratio(ratio)
    error = close(there, sigma, f"from_ratio(ratio(s)) is not s at {sigma:.6g}: it is no inverse")
    close(way.ratio(there), ratio, f"ratio(from_ratio(r)) is not r at {ratio:.6g}: it is no inverse")
    return {"relative error": error / sigma}


@law("path", place=inside)
def ratio_and_lambda_are_made_of_alpha(way: Any, *, place: float) -> None:
    """``ratio == sigma / alpha`` and ``lambda_ == log(alpha / sigma)``.

    They are three ways to say one thing. Typical breakers: a ratio upside down, a lambda of variances (twice
    as long).
    """
    sigma = level(way, place)
    alpha = way.alpha(sigma)
    close(way.ratio(sigma), sigma / alpha, f"its ratio at {sigma:.6g} is not sigma / alpha")
    expected = math.log(alpha / sigma)
    close(way.lambda_(sigma), expected, f"its lambda at {sigma:.6g} is not log(alpha / sigma)", at=1e-10)


@law("path", place=inside, fraction=fractions, eta=etas)
def ancestral_step_keeps_the_marginal(way: Any, *, place: float, fraction: float, eta: float) -> None:
    """An ancestral step goes down to a level within [0, sigma_next], whence fresh noise leads to sigma_next.

    With ``down`` and ``scale = alpha(next) / alpha(down)`` the fresh noise has the variance ``next^2 - (scale
    down)^2``, which must be there to add: (scale down)^2 + added^2 == next^2. With eta = 0 nothing is fresh,
    and down is sigma_next; more eta is more fresh noise. Both `ancestral_down` and `ratio_down` keep it.
    """
    sigma, after = level(way, place), level(way, place * fraction)
    for name in ("ancestral_down", "ratio_down"):
        split: Callable[..., float] = getattr(way, name)
        down, more = split(sigma, after, eta), split(sigma, after, eta * 1.1)
        within = 0 <= down <= after * (1 + 1e-12)
        require(within, f"{name} is not within [0, sigma_next]", down=down, sigma_next=after, eta=eta)
        require(more <= down * (1 + 1e-12), f"{name} rises with eta", down=down, with_more=more, eta=eta)
        close(split(sigma, after, 0.0), after, f"{name} at eta = 0 is not sigma_next")
        scale = way.alpha(after) / way.alpha(down)
        message = f"{name}: renoising from there to sigma_next would need a negative variance"
        require(scale * down <= after * (1 + 1e-9), message, kept=scale * down, sigma_next=after)
        added = sqrt(after * after - (scale * down) ** 2)
        total = (scale * down) ** 2 + added**2
        close(total, after * after, f"{name}: renoised from there the variance is not sigma_next^2", rel=1e-9)


@law("path", place=inside, fraction=fractions, eta=etas)
def same_on_numbers_of_any_kind(way: Any, *, place: float, fraction: float, eta: float) -> dict[str, float]:
    """On high-precision numbers a path gives what it gives on floats, and in all their digits.

    Orders are checked with 40 digits, and schedules tuned with torch scalars: one function of `math`, or one
    float constant such as ``0.1``, cuts the digits or the gradient without a word.
    """
    sigma, after = level(way, place), level(way, place * fraction)
    floats = _values(way, sigma, after, eta)
    with mpmath.workdps(DIGITS):
        numbers = _values(way, mpmath.mpf(sigma), mpmath.mpf(after), mpmath.mpf(eta))
        for name, number in numbers.items():
            # A level going down is the root of a difference, whose rounding is that of the larger square.
            power, at = (2, 1e-14 * after**2) if name.endswith("down") else (1, 2e-15)
            close(
                floats[name] ** power,
                number**power,
                f"{name} differs from floats to {DIGITS} digits",
                2e-12,
                at,
            )
        exact = mpmath.mpf(sigma)
        for name, there in (
            ("lambda_", way.sigma(numbers["lambda_"])),
            ("ratio", way.from_ratio(numbers["ratio"])),
        ):
            message = f"in {DIGITS} digits the way to {name} and back loses some: it computes with floats"
            close(there, exact, message, rel=1e-30)
    return {
        "difference": max(float(abs(floats[n] - float(numbers[n]))) / max(1.0, floats[n]) for n in floats)
    }


def _values(way: Any, sigma: Any, after: Any, eta: Any) -> dict[str, Any]:
    return {
        "alpha": way.alpha(sigma),
        "lambda_": way.lambda_(sigma),
        "ratio": way.ratio(sigma),
        "sigma": way.sigma(way.lambda_(after)),
        "from_ratio": way.from_ratio(way.ratio(after)),
        "ancestral_down": way.ancestral_down(sigma, after, eta),
        "ratio_down": way.ratio_down(sigma, after, eta),
    }


@law("path")
def ends_are_limits(way: Any) -> None:
    """At level 0, and at level 1 of a flow path, a path gives its limits, and raises nothing.

    Grids end in 0 and flow models start from 1: there the data have the factor 1 or 0, lambda is infinite,
    and a division by 0 would be an error in place of an image. Stages in a step from 1 are placed from a
    finite lambda.
    """
    limits = [("alpha", 0.0, 1.0), ("lambda_", 0.0, math.inf), ("ratio", 0.0, 0.0), ("from_ratio", 0.0, 0.0)]
    limits.append(("sigma", math.inf, 0.0))
    if way.name == "flow":
        limits += [("alpha", 1.0, 0.0), ("lambda_", 1.0, -math.inf), ("ratio", 1.0, math.inf)]
        limits += [("from_ratio", math.inf, 1.0), ("sigma", -math.inf, 1.0)]
        inner = way.inner_lambda(1.0)
        require(math.isfinite(inner), "its inner_lambda at 1 is not finite", inner_lambda=inner)
    for name, at, expected in limits:
        try:
            found = getattr(way, name)(at)
        except ArithmeticError as error:
            require(False, f"{name}({at}) raises {type(error).__name__}; its limit is {expected}")
        require(found == expected, f"{name}({at}) is not its limit", found=found, limit=expected)


@law("path", sigma=st.floats(1e-6, 0.9999999), sigma_next=st.floats(1e-7, 0.9999999))
def stages_lie_inside_the_step(way: Any, *, sigma: float, sigma_next: float) -> None:
    """Stages of a step are placed between its ends; `inner_lambda` is lambda, but where a flow path begins.

    Solvers put stages at fractions of the step in log-SNR. Only at level 1 of a flow path, where that is
    infinite, is a start made up, and it lies before the step's end however late that is.
    """
    found, expected = way.inner_lambda(sigma, sigma_next), way.lambda_(sigma)
    require(found == expected, "inner_lambda is not lambda", sigma=sigma, found=found, expected=expected)
    if way.name == "flow":
        inner, end = way.inner_lambda(1.0, sigma_next), way.lambda_(sigma_next)
        require(inner < end, "from 1 stages begin behind the end of the step", inner_lambda=inner, end=end)


@law("path")
def one_object_in_every_process(way: Any) -> None:
    """A path's pickle brings back the same object.

    The core compares paths with ``is``, and plans that go to another process carry theirs.
    """
    require(pickle.loads(pickle.dumps(way)) is way, "a pickle brings back another object")
