"""What noise sources are asked for, and the statistics of what they return."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..catalogue import require

# Statistics are refused beyond so many of their standard deviations. A sound source is beyond 6 once in 5e8
# statistics (once in 1e8 for the fourth moment, whose tail is a little heavier), so that not one of thousands
# of examples rejects it, while a variance that is 4 % off is seen in 60,000 values.
SIGMAS = 6.0


class Ask(NamedTuple):
    """The arguments of one draw."""

    sigma_from: float = 2.0
    sigma_to: float = 1.0
    stream: str = "step"
    visit: int = 0


ASKED = {
    "a step": Ask(),
    "the next interval": Ask(1.0, 0.5),
    "an interval apart": Ask(9.0, 5.0),
    "a late interval": Ask(0.014, 0.012),
    "the last interval": Ask(0.012, 0.01),
    "another stream": Ask(stream="restart"),
    "a stream of the same letters": Ask(stream="pets"),
    "another visit": Ask(visit=1),
    "the visit after": Ask(visit=2),
    "the initial noise": Ask(0.0, 0.0, "start"),
}
# Levels that are near their neighbours: the first of a thousand steps on flow, the last of EDM's.
NEAR = (1.0, 0.999, 0.998), (0.02, 0.015, 0.012), (0.0021, 0.00205, 0.002)
# Intervals that share an end with another; streams and visits that are one string when written together.
ENDS = ((2.0, 0.5), (9.0, 1.0))
USES = (*((name, 0) for name in ("Step", "steps", "start")), *(("step", n) for n in (3, 4, 11)), ("step1", 1))
PICTURE, SMALL = (4, 50, 100), (2, 4, 4)


def empty(batch: int, shape: Sequence[int], dtype: str, device: str) -> Tensor:
    """A state to draw for; its values are not read."""
    return torch.zeros(batch, *shape, dtype=getattr(torch, dtype), device=device)


def drawn(source: Any, x: Any, ask: Ask = ASKED["a step"]) -> Any:
    """Noise of a source, as the core asks for it."""
    return source.noise(x, ask.sigma_from, ask.sigma_to, ask.stream, ask.visit)


def many_asks(levels: Sequence[float], rising: bool) -> list[Ask]:
    """Draws that are all independent, or of increments that differ: over levels, ends, streams and visits.

    Args:
        levels: Of a schedule, falling.
        rising: Whether to ask for rising intervals too. A Brownian path may give them the noise of the
            falling ones.
    """
    falling = [Ask(*ends) for chain in (levels, *NEAR) for ends in pairwise(chain)]
    falling += [ask for ask in ASKED.values() if ask.sigma_from > ask.sigma_to]
    turned = [ask._replace(sigma_from=ask.sigma_to, sigma_to=ask.sigma_from) for ask in falling if rising]
    others = [*(Ask(*ends) for ends in ENDS), *(Ask(2.0, 1.0, *use) for use in USES), *ASKED.values()]
    return list(dict.fromkeys([*falling, *turned, *others]))


def every_bit(
    make: Callable[[Any], Any], seed: int, bits: range, dtype: str, device: str
) -> Iterator[tuple[str, Tensor]]:
    """Noise of a seed and of those that differ in one bit; those beyond 32 bits may be refused."""
    x = empty(2, SMALL, dtype, device)
    yield "a seed", drawn(make(seed), x)
    for bit in bits:
        try:
            found = drawn(make(seed ^ 1 << bit), x)
        except Exception:
            if bit < 32:
                raise
            continue
        yield f"the seed with bit {bit} changed", found


def standard_normal(sample: Tensor) -> dict[str, float]:
    """Require the mean, the variance and the fourth moment of standard normal values."""
    found = {}
    squares = sample * sample
    for name, values, value, spread in (
        ("mean", sample, 0, 1),
        ("variance", squares, 1, 2),
        ("fourth moment", squares * squares, 3, 96),
    ):
        found[name] = float(values.mean())
        bound = SIGMAS * (spread / sample.numel()) ** 0.5
        message = f"the {name} of its noise is {found[name]:.4f}, not {value}"
        require(abs(found[name] - value) <= bound, message, **{name.split()[0]: found[name], "bound": bound})
    return found


def unrelated(draws: Mapping[str, Tensor]) -> dict[str, float]:
    """Require that draws of one size, of whatever shapes, are different and do not correlate."""
    rows = torch.stack([draw.double().flatten() for draw in draws.values()])
    for (a, first), (b, second) in combinations(zip(draws, rows, strict=True), 2):
        require(not torch.equal(first, second), f"{a} and {b} get the same noise")
    found = (torch.corrcoef(rows) - torch.eye(len(rows), dtype=rows.dtype, device=rows.device)).abs()
    worst = int(found.argmax())
    a, b = (list(draws)[i] for i in divmod(worst, len(rows)))
    greatest, bound = float(found.max()), SIGMAS / rows.shape[1] ** 0.5
    message = f"the noises of {a} and {b} correlate; they must be independent"
    require(greatest <= bound, message, correlation=greatest, bound=bound)
    return {"correlation": greatest}


def unrelated_within(sample: Tensor) -> float:
    """Require that the values of a sample do not correlate with each other; return the worst correlation."""
    worst = 0.0
    for where, one, other in _places(sample.double()):
        found, bound = abs(float((one * other).mean())), SIGMAS / one.numel() ** 0.5
        message = f"within a sample, values {where} correlate; they must be independent"
        require(found <= bound, message, correlation=found, bound=bound)
        worst = max(worst, found)
    return worst


def _places(sample: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Pairs of parts of a sample that noise made in a wrong way repeats or smooths: no value twice in one."""
    for dim, size in enumerate(sample.shape):
        along = f"along dimension {dim + 1} of 0 to {sample.ndim} (0: the batch)"
        for lag in sorted({1, 2, 3, size // 2}):
            rest = size - lag
            yield f"{lag} apart {along}", sample.narrow(dim, 0, rest), sample.narrow(dim, lag, rest)
        half = size // 2
        turned = sample.flip(dim).narrow(dim, 0, half)
        yield f"mirrored {along}", sample.narrow(dim, 0, half), turned
    if sample.ndim > 1:
        yield "at the corners of squares", sample[..., 1:, 1:], sample[..., :-1, :-1]
        yield "at the corners of squares", sample[..., 1:, :-1], sample[..., :-1, 1:]


def all_different(draws: Iterable[tuple[str, Tensor]]) -> None:
    """Require that no sample of any draw is that of another, or its negative."""
    seen: dict[tuple[float, ...], str] = {}
    for name, draw in draws:
        for i, row in enumerate(draw.flatten(1).abs().tolist()):
            here = f"sample {i} of {name}"
            other = seen.setdefault(tuple(row), here)
            require(other == here, f"{other} and {here} get the same noise, but for its sign at most")


def of_one_path(one: tuple[float, float], other: tuple[float, float], x: Tensor, y: Tensor) -> float:
    """Require that the noises of two intervals have the covariance of increments; return its error."""
    (a, b), (c, d) = one, other
    expected: float = max(0.0, min(a, c) - max(b, d)) / ((a - b) * (c - d)) ** 0.5
    found = float((x * y).mean())
    bound = SIGMAS * ((1 + expected**2) / x.numel()) ** 0.5
    message = f"the noises of [{a:.3g}, {b:.3g}] and [{c:.3g}, {d:.3g}] are not of one Brownian path"
    require(abs(found - expected) <= bound, message, covariance=found, expected=expected)
    return abs(found - expected)
