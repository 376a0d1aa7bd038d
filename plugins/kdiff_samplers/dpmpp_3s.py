"""DPM-Solver++ of order 3, single-step."""

from __future__ import annotations

from typing import Any

from attrs import Attribute, field, frozen

from kdiff_core.errors import ParameterError
from kdiff_core.parameters import below_one, fraction, one_of

from .exponential_rk import ExponentialRK, ExponentialTableau, Term


def _after_r1(instance: DPMpp3S, attribute: Attribute[Any], value: float) -> None:
    if value <= instance.r1:
        raise ParameterError(f"DPMpp3S: r2={value} must be above r1={instance.r1}")


@frozen
class DPMpp3S(ExponentialRK):
    """DPM-Solver++(3S): order 3 in log-SNR, three evaluations a step.

    Lu et al. 2022, arXiv:2211.01095, Appendix: DPM-Solver-3 (arXiv:2206.00927, Algorithm 2) on the data
    prediction. Order 3 is reached for ``r2 = 2/3`` alone, where the first stage, of order 1 itself, has all
    but no weight in the end; with other places both forms have order 2.

    Attributes:
        r1: Place of the first stage, as a part of the step in log-SNR.
        r2: Place of the second stage, above r1.
        solver_type: ``"dpmsolver"``, or ``"taylor"``: slope and curvature of the parabola through all three.
    """

    r1: float = field(default=1.0 / 3.0, converter=float, validator=below_one)
    r2: float = field(default=2.0 / 3.0, converter=float, validator=[fraction, _after_r1])
    solver_type: str = field(default="dpmsolver", validator=one_of("dpmsolver", "taylor"))

    @property
    def tableau(self) -> ExponentialTableau:
        """The same method as weights of the stages."""
        r1, r2, gap = self.r1, self.r2, self.r2 - self.r1
        end: tuple[Term, ...] = ((2, 1.0 / r2, 2, 1.0),)
        if self.solver_type == "taylor":  # of D_1 = (r2 d_1 - r1 d_2) / gap and D_2 = 2 (d_2 - d_1) / gap
            end = (
                (1, r2 / (r1 * gap), 2, 1.0), (1, -2.0 / (r1 * gap), 3, 1.0),
                (2, -r1 / (r2 * gap), 2, 1.0), (2, 2.0 / (r2 * gap), 3, 1.0),
            )  # fmt: skip
        third = abs(r2 - 2.0 / 3.0) < 1e-9
        return ExponentialTableau(3 if third else 2, (0.0, r1, r2), ((), ((1, r2 * r2 / r1, 2, r2),), end))
