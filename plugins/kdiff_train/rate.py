"""The learning rate as a function of images seen alone: batches, accumulation and processes do not change it.

A rate is a factor of the optimiser's ``lr``. It rises over `warmup` images on a line, and then does what its
name says.
"""

from __future__ import annotations

import math
from typing import Any

from attrs import field, fields_dict, frozen

from kdiff_core.errors import ParameterError
from kdiff_core.names import did_you_mean, quoted
from kdiff_core.parameters import fraction, not_negative, positive


@frozen
class Rate:
    """A learning rate, by images seen.

    Attributes:
        warmup: Images over which it rises from 0.
    """

    warmup: float = field(default=0, validator=not_negative, kw_only=True)

    def __call__(self, images: float) -> float:
        """Return the factor of the learning rate after `images` images, at least 0."""
        rising = min(1.0, images / self.warmup) if self.warmup else 1.0
        return rising * self.after(images)

    def after(self, images: float) -> float:
        """Return the factor without the warm-up."""
        raise NotImplementedError


@frozen
class Constant(Rate):
    """Always 1."""

    def after(self, images: float) -> float:
        """Return 1."""
        return 1.0


@frozen
class Falling(Rate):
    """A rate that falls until the end of the run.

    Attributes:
        images: Length of the run, in images.
        lowest: What it falls to, 0 to 1.
    """

    images: float = field(validator=positive, kw_only=True)
    lowest: float = field(default=0.0, validator=not_negative, kw_only=True)

    def after(self, images: float) -> float:
        """Return the factor, by the part of the run behind the warm-up that has passed."""
        behind = max(self.images - self.warmup, 1.0)
        done = min(max(images - self.warmup, 0.0) / behind, 1.0)
        return self.lowest + (1 - self.lowest) * self.shape(done)

    def shape(self, done: float) -> float:
        """Return a number that falls from 1 to 0 as `done` goes from 0 to 1."""
        raise NotImplementedError


@frozen
class Linear(Falling):
    """Falls on a line."""

    def shape(self, done: float) -> float:
        """Return what is left."""
        return 1 - done


@frozen
class Cosine(Falling):
    """Falls as half a cosine. Loshchilov & Hutter 2016, arXiv:1608.03983, without restarts."""

    def shape(self, done: float) -> float:
        """Return the cosine, between 1 and 0."""
        return (1 + math.cos(math.pi * done)) / 2


@frozen
class InverseSqrt(Rate):
    """``1 / sqrt(images / reference)`` behind `reference` images. Karras et al. 2023, arXiv:2312.02696.

    Attributes:
        reference: Images from which it falls, above 0.
    """

    reference: float = field(validator=positive, kw_only=True)

    def after(self, images: float) -> float:
        """Return 1, or the inverse square root."""
        return 1 / math.sqrt(max(images / self.reference, 1.0))


@frozen
class Exponential(Rate):
    """Halves every `half_life` images.

    Attributes:
        half_life: In images, above 0.
        lowest: What it does not fall below.
    """

    half_life: float = field(validator=positive, kw_only=True)
    lowest: float = field(default=0.0, validator=not_negative, kw_only=True)

    def after(self, images: float) -> float:
        """Return the power of a half."""
        return float(max(0.5 ** (images / self.half_life), self.lowest))


@frozen
class Steps(Rate):
    """Falls by a factor at given places.

    Attributes:
        at: Images after which it falls, rising.
        factor: By how much each time, above 0 and at most 1.
    """

    at: tuple[float, ...] = field(converter=tuple, kw_only=True)
    factor: float = field(default=0.1, validator=fraction, kw_only=True)

    def after(self, images: float) -> float:
        """Return the power of the factor."""
        return float(self.factor ** sum(images >= place for place in self.at))


RATES: dict[str, type[Rate]] = {
    "constant": Constant,
    "linear": Linear,
    "cosine": Cosine,
    "inverse_sqrt": InverseSqrt,
    "exponential": Exponential,
    "steps": Steps,
}


def make_rate(name: str, images: int, **options: Any) -> Rate:
    """Return a rate by its name in `RATES`.

    Args:
        name: The name.
        images: Length of the run, for the rates that need it.
        **options: Its attributes.

    Raises:
        ParameterError: An unknown name or option, one that is missing, or a value out of range.
    """
    if name not in RATES:
        raise ParameterError(f"rate {name!r}: there are {quoted(RATES)}{did_you_mean(name, RATES)}")
    known = fields_dict(RATES[name])
    for option in options:
        if option not in known:
            raise ParameterError(
                f"rate {name!r} has no option {option!r}; it takes {quoted(known)}"
                f"{did_you_mean(option, known)}"
            )
    if "images" in known:
        options = {"images": images, **options}
    try:
        return RATES[name](**options)
    except TypeError as error:
        raise ParameterError(f"rate {name!r}: {error}; it takes {quoted(known)}") from error
