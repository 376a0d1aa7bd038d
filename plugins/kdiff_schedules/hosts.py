"""Schedules as a host computes them, rounding and count included, for the whole table of a model.

A range given beside the process changes nothing: hosts spend the model's table. Levels that repeat, which a
host runs as steps of length 0, are left out, since a grid must fall.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import field, frozen

from kdiff_core.parameters import fraction, one_of, positive, whole

from .range import RangeSchedule
from .times import TimeSchedule, training_steps

if TYPE_CHECKING:
    from kdiff_core.protocols import Process


@frozen
class TableSchedule(TimeSchedule):
    """Entries of the table that a model was trained on, then 0. A family writes `entries`."""

    spans: ClassVar[bool] = False

    def entries(self, n: int, size: int) -> Iterable[float]:
        """Return the places of the levels above 0 in a table of `size` entries, falling; may be broken."""
        raise NotImplementedError

    def levels(self, n: int, low: float, high: float, process: Process | None) -> Sequence[float]:
        """Return the levels of the entries, then 0."""
        assert process is not None
        size = training_steps(process)
        return [*(entry_level(process, place, size) for place in self.entries(n, size)), 0.0]

    def resolve(
        self, sigma_min: float | None, sigma_max: float | None, process: Process | None
    ) -> tuple[float, float]:
        """Return the process's range, whatever is given."""
        return super().resolve(None, None, process)


def entry_level(process: Process, place: float, size: int) -> float:
    """Return the level of an entry of a table."""
    return process.sigma(place / (size - 1))


@frozen
class Simple(TableSchedule):
    """Entry ``N - 1 - floor(i N / n)``: ComfyUI's and A1111's "simple"."""

    def entries(self, n: int, size: int) -> Iterable[float]:
        """Return the places."""
        return [size - 1 - int(i * (size / n)) for i in range(n)]


@frozen
class DDIMUniform(TableSchedule):
    """Entries 1, 1 + k, 1 + 2k, ... with ``k = max(N // n, 1)``, then 0: ComfyUI's, and A1111's "DDIM".

    Of 1000 entries 7 steps become 8 and 30 become 31.
    """

    known_failures: ClassVar[dict[str, str]] = {
        "gives_exactly_n_steps": "the host's stride is a whole number of entries, whatever n"
    }

    def entries(self, n: int, size: int) -> Iterable[float]:
        """Return the places."""
        return reversed(range(1, size, max(size // n, 1)))


@frozen
class BetaEntries(TableSchedule):
    """Entries ``rint(F^-1(1 - i/n) (N - 1))``, each once: ComfyUI's "beta".

    Asked for many steps it gives fewer.

    Args:
        alpha: First parameter of the distribution, above 0.
        beta: Second, above 0.
    """

    known_failures: ClassVar[dict[str, str]] = {
        "gives_exactly_n_steps": "the host rounds to entries and leaves out those that repeat"
    }
    alpha: float = field(default=0.6, converter=float, validator=positive)
    beta: float = field(default=0.6, converter=float, validator=positive)

    def entries(self, n: int, size: int) -> Iterable[float]:
        """Return the places."""
        from scipy.special import betaincinv

        found = (round(float(betaincinv(self.alpha, self.beta, 1 - i / n)) * (size - 1)) for i in range(n))
        return [place for place, _ in groupby(found)]


@frozen
class TurboEntries(TableSchedule):
    """Every tenth part of the table from the top, the first `n` of them: ComfyUI's for SD-Turbo.

    Args:
        denoise: Share of the ten that is left, above 0 and at most 1.
    """

    known_failures: ClassVar[dict[str, str]] = {"gives_exactly_n_steps": "the host has ten steps, not more"}
    denoise: float = field(default=1.0, converter=float, validator=fraction)

    def entries(self, n: int, size: int) -> Iterable[float]:
        """Return the places."""
        skipped = 10 - int(10 * self.denoise)
        return [size * (10 - j) // 10 - 1 for j in range(skipped, min(skipped + n, 10))]


@frozen
class HostUniform(TableSchedule):
    """Times evenly spaced: ComfyUI's "normal" and "sgm_uniform", and diffusers' line for flow.

    On a flow process with a shift these hosts take the *shifted* lowest level for an unshifted time and shift
    it again: with a shift of 3 normal's last level of 1000 is 0.0089, not 0.0030.

    Args:
        sgm: Whether the last of ``n + 1`` times is left out, in place of `n` times.
    """

    sgm: bool = False

    def levels(self, n: int, low: float, high: float, process: Process | None) -> Sequence[float]:
        """Return the ``n + 1`` levels."""
        assert process is not None
        shifted: Any = getattr(process, "level", None) if process.path == "flow" else None
        start, end = (high, low) if shifted else (process.t(high), process.t(low))
        parts = n if self.sgm else n - 1
        times = [start + (end - start) * i / max(parts, 1) for i in range(n)]
        return [*map(shifted or process.sigma, times), 0.0]


@frozen
class TimestepSpacing(TableSchedule):
    """diffusers' ``timestep_spacing``, of which its schedulers have three copies.

    "euler" interpolates levels at broken times in linspace; "ddim" rounds; "dpm" (multistep) makes ``n + 1``
    times of linspace and leading and leaves one out.

    Args:
        spacing: "linspace", "leading" or "trailing".
        rule: "euler", "ddim" or "dpm".
        steps_offset: Added to the times of leading.
    """

    spacing: str = field(default="linspace", validator=one_of("linspace", "leading", "trailing"))
    rule: str = field(default="euler", validator=one_of("euler", "ddim", "dpm"))
    steps_offset: int = field(default=0, validator=whole(0))

    def entries(self, n: int, size: int) -> Iterable[float]:
        """Return the places."""
        if self.spacing == "trailing":
            return [round(size - i * (size / n)) - 1 for i in range(n)]
        points = n + 1 if self.rule == "dpm" else n
        if self.spacing == "leading":
            whole_stride = size // points
            return [i * whole_stride + self.steps_offset for i in range(points)][::-1][:n]
        stride = (size - 1) / max(points - 1, 1)  # as NumPy's linspace, on whose last bit halves are rounded
        found = [i * stride for i in range(points)][::-1][:n]
        return found if self.rule == "euler" else [round(place) for place in found]

    def levels(self, n: int, low: float, high: float, process: Process | None) -> Sequence[float]:
        """Return the levels, by a line in sigma between entries."""
        assert process is not None
        size = training_steps(process)
        found = []
        for place in self.entries(n, size):
            below = min(int(place), size - 2)
            first, second = (entry_level(process, k, size) for k in (below, below + 1))
            found.append(first + (place - below) * (second - first))
        return [*found, 0.0]


@frozen
class KLOptimalToMin(RangeSchedule):
    """``tan((1 - i/n) atan sigma_max + (i/n) atan sigma_min)``, ``i = 0..n``: A1111's, which ends above 0."""

    def levels(self, n: int, low: float, high: float, process: Process | None) -> Sequence[float]:
        """Return the ``n + 1`` levels, the last `sigma_min`."""
        top, bottom = math.atan(high), math.atan(low)
        return [high, *(math.tan((1 - i / n) * top + i / n * bottom) for i in range(1, n)), low]


@frozen
class LaplaceClamped(RangeSchedule):
    """`n` quantiles of a Laplace distribution, cut at the range, without a final 0: ComfyUI's node.

    ``log sigma = mu - beta sgn(1/2 - u) log(1 - 2 |1/2 - u| + 1e-5)``. What is cut repeats, and is left out.

    Args:
        mu: Middle of the distribution of ``log sigma``.
        beta: Its width, above 0.
    """

    spans: ClassVar[bool] = False
    known_failures: ClassVar[dict[str, str]] = {
        "gives_exactly_n_steps": "the host's n levels are n - 1 steps, those cut at the range are one"
    }
    mu: float = field(default=0.0, converter=float)
    beta: float = field(default=0.5, converter=float, validator=positive)

    def levels(self, n: int, low: float, high: float, process: Process | None) -> Sequence[float]:
        """Return the levels; a single one is followed by 0, as a step needs two."""
        found = [min(max(math.exp(self._log(i / max(n - 1, 1))), low), high) for i in range(n)]
        kept = [level for level, _ in groupby(found)]
        return kept if n > 1 else [*kept, 0.0]

    def _log(self, u: float) -> float:
        tail = math.log(1 - 2 * abs(0.5 - u) + 1e-5)
        return self.mu - self.beta * (tail if u < 0.5 else -tail if u > 0.5 else 0.0)
