"""Schedules that were found by a search: tables of levels, log-linear in between."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from attrs import field, frozen

from kdiff_core.grid import Grid
from kdiff_core.parameters import one_of

from .range import count

if TYPE_CHECKING:
    from kdiff_core.protocols import Process

AYS_TABLES = {
    "sd": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    "sdxl": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
    "svd": (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002),
}
GITS_TABLES = {"cifar10": (80.0, 10.9836, 3.8811, 1.584, 0.5666, 0.1698, 0.002)}


def resampled(table: Sequence[float], n: int) -> list[float]:
    """Return `n` levels of a table, evenly spaced in its index, log sigma linear between entries."""
    found = []
    for i in range(n):
        place = i * (len(table) - 1) / max(n - 1, 1)
        below = min(int(place), len(table) - 2)
        within = place - below
        a, b = table[below], table[below + 1]
        found.append(a if within == 0 else b if within == 1 else a * math.exp(within * math.log(b / a)))
    return found


@frozen
class Tabled:
    """A table of levels of a model; the range and the process do not change it.

    `n` steps are ``n + 1`` levels of the table, of which the last is replaced by 0. `Rescaled` brings them
    to another range. A family writes `table`.
    """

    spans: ClassVar[bool] = False

    def table(self) -> Sequence[float]:
        """Return the levels, falling, the last above 0."""
        raise NotImplementedError

    def default_range(self) -> tuple[float, float]:
        """Return the table's ends, for a schedule around it."""
        return self.table()[-1], self.table()[0]

    def levels(self, n: int) -> list[float]:
        """Return the levels of `n` steps."""
        return [*resampled(self.table(), n + 1)[:-1], 0.0]

    def __call__(
        self,
        n: int,
        *,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        process: Process | None = None,
    ) -> Grid:
        """Return the levels.

        Args:
            n: Number of steps, at least 1.
            sigma_min: Not used.
            sigma_max: Not used.
            process: Not used.

        Raises:
            GridError: `n` below 1.
            ParameterError: `n` is no whole number.
        """
        return Grid.of(self.levels(count(n, type(self).__name__)))


@frozen
class AYS(Tabled):
    """Align Your Steps: 11 levels for 10 steps, found for three models.

    Sabour et al. 2024, arXiv:2404.14507, and their page, whose code interpolates to ``n + 1`` levels and
    makes the last 0; ComfyUI does the same. A1111 takes `n` levels and adds a 0: ``a1111:ays``.

    Args:
        model: "sd" (Stable Diffusion 1.5), "sdxl" or "svd" (Stable Video Diffusion).
    """

    model: str = field(default="sdxl", validator=one_of(*AYS_TABLES))

    def table(self) -> Sequence[float]:
        """Return the model's table."""
        return AYS_TABLES[self.model]


@frozen
class AYSThenZero(AYS):
    """A1111's Align Your Steps: `n` levels of the table, then 0.

    Args:
        model: As in `AYS`.
    """

    def levels(self, n: int) -> list[float]:
        """Return the levels of `n` steps."""
        return [*resampled(self.table(), n), 0.0]


@frozen
class GITS(Tabled):
    """The schedule that GITS found for CIFAR-10 in 6 steps, log-linear for other counts.

    Chen et al. 2024, arXiv:2405.11326, from their repository (zju-pi/diff-sampler, Apache 2.0).

    Args:
        data: "cifar10", the only table that its authors give.
    """

    data: str = field(default="cifar10", validator=one_of(*GITS_TABLES))

    def table(self) -> Sequence[float]:
        """Return the table."""
        return GITS_TABLES[self.data]
