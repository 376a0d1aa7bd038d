"""Shifts of a schedule towards high or low noise, with which large images are sampled.

Each multiplies ``r = sigma / alpha`` by ``k``: on flow ``s' = k s / (1 + (k - 1) s)``, on VE
``sigma' = k sigma``. The inner schedule is asked for the range that is shifted onto the one asked for, so
that the ends stay the model's: with ``process=get_process("flow", shift=3.0)`` a shifted line is the hosts'.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from kdiff_core.errors import ParameterError
from kdiff_core.lookup import get_schedule
from kdiff_core.parameters import one_of, positive
from kdiff_core.path import FLOW, Path, as_path, path_levels

from .wrapper import Wrapper, exact_ends

if TYPE_CHECKING:
    from kdiff_core.protocols import Process

FORMS = ("exponential", "linear")


def token_shift(
    tokens: int,
    base_tokens: int = 256,
    max_tokens: int = 4096,
    base_shift: float = 0.5,
    max_shift: float = 1.15,
    form: str = "exponential",
) -> float:
    """Return the shift ``k`` for a number of tokens: ``mu`` is linear in it, ``k = e^mu`` or ``mu`` itself.

    Raises:
        ParameterError: Another form than "exponential" or "linear", or `base_tokens` is `max_tokens`.
    """
    if form not in FORMS or base_tokens == max_tokens:
        raise ParameterError(
            f"form={form!r}, base_tokens={base_tokens}, max_tokens={max_tokens}: the form is 'exponential' "
            "or 'linear', and the two numbers of tokens differ"
        )
    slope = (max_shift - base_shift) / (max_tokens - base_tokens)
    mu = base_shift + slope * (tokens - base_tokens)
    return math.exp(mu) if form == "exponential" else mu


@frozen
class Shift(Wrapper):
    """A schedule whose levels are shifted. A family writes `factor`.

    Args:
        schedule: The inner schedule, or its name.
        power: Power of ``r`` before it is multiplied, above 0; diffusers' ``sigma`` of its time shift.
    """

    schedule: Any = field(default="flow_linspace", converter=get_schedule, kw_only=True)
    power: float = field(default=1.0, converter=float, validator=positive, kw_only=True)

    def factor(self, n: int) -> float:
        """Return the shift for a number of steps, above 0."""
        raise NotImplementedError

    def default_range(self) -> tuple[float, float] | None:
        """Return the inner schedule's own range, shifted on flow as a schedule of many steps has it."""
        own = super().default_range()
        return own and (self._forward(own[0], FLOW, 1000), self._forward(own[1], FLOW, 1000))

    def levels(self, n: int, low: float, high: float, process: Process | None) -> Sequence[float]:
        """Return the ``n + 1`` levels."""
        path = as_path(process.path) if process is not None else FLOW
        if path is FLOW and high > 1 and process is None:
            raise ParameterError(
                f"{type(self).__name__}: sigma_max={high} is above 1, where flow has no levels; pass "
                "process=, the model's"
            )
        below, above = self._back(low, path, n), self._back(high, path, n)
        inner = path_levels(self.inner(n, below, above, process), path)
        mapped = [self._forward(level, path, n) for level in inner]
        return exact_ends(mapped, inner, (below, low), (above, high))

    def _forward(self, sigma: float, path: Path, n: int) -> float:
        return float(path.from_ratio(self.factor(n) * path.ratio(sigma) ** self.power))

    def _back(self, sigma: float, path: Path, n: int) -> float:
        return float(path.from_ratio((path.ratio(sigma) / self.factor(n)) ** (1 / self.power)))


@frozen
class Shifted(Shift):
    """A schedule with a constant shift: ``s' = k s / (1 + (k - 1) s)``. Esser et al. 2024, arXiv:2403.03206.

    Args:
        shift: ``k``, above 0; above 1 more steps are at high noise. 3 is SD3's.
    """

    shift: float = field(default=3.0, converter=float, validator=positive)

    def factor(self, n: int) -> float:
        """Return the shift."""
        return self.shift


@frozen
class DynamicShift(Shift):
    """A schedule whose shift grows with the image: ``k = e^mu`` or ``mu``, ``mu`` linear in tokens.

    Black Forest Labs 2024, Flux; LTX has ``base_tokens=1024, base_shift=0.95, max_shift=2.05``.

    Args:
        tokens: Number of image tokens.
        base_tokens: Number of tokens for `base_shift`.
        max_tokens: Number of tokens for `max_shift`.
        base_shift: ``mu`` there.
        max_shift: ``mu`` there; beyond, the line goes on.
        form: "exponential" (``k = e^mu``) or "linear" (``k = mu``).
    """

    tokens: int = 4096
    base_tokens: int = 256
    max_tokens: int = 4096
    base_shift: float = field(default=0.5, converter=float)
    max_shift: float = field(default=1.15, converter=float)
    form: str = field(default="exponential", validator=one_of(*FORMS))

    def __attrs_post_init__(self) -> None:
        if self.factor(1) <= 0:
            raise ParameterError(f"DynamicShift: tokens={self.tokens} gives a shift below 0; more tokens")

    def factor(self, n: int) -> float:
        """Return the shift of the number of tokens."""
        return token_shift(
            self.tokens, self.base_tokens, self.max_tokens, self.base_shift, self.max_shift, self.form
        )


@frozen
class EmpiricalShift(Shift):
    """A schedule with Flux 2's shift, ``e^mu`` with ``mu`` fitted to tokens and steps. As diffusers has it.

    Two lines in the number of tokens, for 10 and for 200 steps, with a line in the steps between; beyond
    4300 tokens only the second counts. Black Forest Labs 2025, Flux 2.

    Args:
        tokens: Number of image tokens.
    """

    tokens: int = 4096

    def factor(self, n: int) -> float:
        """Return the shift of the numbers of tokens and of steps."""
        few = 8.73809524e-05 * self.tokens + 1.89833333
        many = 0.00016927 * self.tokens + 0.45666666
        return math.exp(many if self.tokens > 4300 else many + (many - few) / 190 * (n - 200))
