"""Rectified-flow processes, and the shift of their time."""

from __future__ import annotations

from typing import ClassVar

from attrs import field, frozen

from kdiff_core.parameters import positive, whole
from kdiff_core.protocols import PathName

from .continuous import ContinuousProcess


def shift_level(sigma: float, shift: float) -> float:
    """Return ``k s / (1 + (k - 1) s)``, which multiplies ``s / (1 - s)`` by ``k``."""
    return shift * sigma / (1 + (shift - 1) * sigma)


@frozen
class Flow(ContinuousProcess):
    """``sigma = k s / (1 + (k - 1) s)`` with ``s`` uniform in time, from ``1 / steps`` to 1.

    Rectified flow: Liu et al. 2022, arXiv:2209.03003; the shift: Esser et al. 2024, arXiv:2403.03206.
    At ``t = i / (steps - 1)`` it is entry ``i`` of the hosts' tables, ``s = (i + 1) / steps``.

    Args:
        shift: ``k``, above 0. 3 for SD3, 1 without a shift.
        steps: Length of the table; ``1 / steps`` is the lowest time. At least 2.
    """

    path: ClassVar[PathName] = "flow"
    shift: float = field(default=1.0, converter=float, validator=positive)
    steps: int = field(default=1000, validator=whole(2), kw_only=True)
    prediction: str = field(default="flow_prediction", kw_only=True)

    def level(self, time: float) -> float:
        """Return the level at an unshifted level `time`."""
        return shift_level(time, self.shift)

    def time(self, sigma: float) -> float:
        """Return the unshifted level of a level."""
        return shift_level(sigma, 1 / self.shift)

    def ends(self) -> tuple[float, float]:
        """Return the shifted ``1 / steps``, and 1."""
        return self.level(1 / self.steps), 1.0
