"""Exponential Runge-Kutta methods on the data prediction: tables of phi functions, and one step for all."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from attrs import Attribute, field, frozen

from kdiff_core import StepContext, StepSampler
from kdiff_core.errors import ParameterError
from kdiff_core.numerics import Number, phi
from kdiff_core.parameters import fraction, one_of

# Stage j (0 is the step's start), a factor, k and c: the part ``factor phi_k(-c h)`` of the weight of D_j.
Term = tuple[int, float, int, float]


class ExponentialTableau(NamedTuple):
    """An explicit exponential Runge-Kutta method.

    The weights of D at the step's start are not written down: each row sums to ``c phi_1(-c h)``, so that
    a constant D is integrated exactly. (No attrs class: those cannot be made inside a compiled step.)

    Attributes:
        order: Its order on equations that are not stiff.
        nodes: Places of the stages as parts of the step in log-SNR; the first is 0.
        rows: Terms of stage 1, stage 2, ... and of the step's end.
    """

    order: int
    nodes: tuple[float, ...]
    rows: tuple[tuple[Term, ...], ...]


def checked(tableau: ExponentialTableau) -> ExponentialTableau:
    """Return a tableau that is one.

    Raises:
        ParameterError: A row is missing, or reads a stage that does not come before it.
    """
    if len(tableau.rows) != len(tableau.nodes):
        raise ParameterError(
            f"ExponentialTableau: {len(tableau.nodes)} stages and the end need {len(tableau.nodes)} rows"
        )
    for stage, row in enumerate(tableau.rows, 1):
        for j, _, k, c in row:
            if not (0 < j < stage and k >= 1 and 0 < c <= 1):
                raise ParameterError(
                    f"ExponentialTableau: row {stage} has the term {(j, k, c)}; an explicit method reads "
                    f"stages 1 to {stage - 1}, phi_k with k >= 1, at c in ]0, 1]"
                )
    return tableau


_ETD4_END: tuple[Term, ...] = (
    (1, 2.0, 2, 1.0), (1, -4.0, 3, 1.0), (2, 2.0, 2, 1.0), (2, -4.0, 3, 1.0),
    (3, -1.0, 2, 1.0), (3, 4.0, 3, 1.0),
)  # fmt: skip
# Hochbruck and Ostermann's a_52 = a_53.
_A52: tuple[tuple[float, int, float], ...] = ((0.5, 2, 0.5), (-1.0, 3, 1.0), (0.25, 2, 1.0), (-0.5, 3, 0.5))

_TABLES = {
    # Cox and Matthews 2002, eq. 22, 23 to 25 and 26 to 29.
    "etdrk2": ExponentialTableau(2, (0.0, 1.0), ((), ((1, 1.0, 2, 1.0),))),
    "etdrk3": ExponentialTableau(3, (0.0, 0.5, 1.0), (
        (),
        ((1, 2.0, 1, 1.0),),
        ((1, 4.0, 2, 1.0), (1, -8.0, 3, 1.0), (2, -1.0, 2, 1.0), (2, 4.0, 3, 1.0)),
    )),
    "etdrk4": ExponentialTableau(4, (0.0, 0.5, 0.5, 1.0), (
        (), ((1, 0.5, 1, 0.5),), ((2, 1.0, 1, 0.5),), _ETD4_END,
    )),
    # Krogstad 2005, eq. 51.
    "krogstad4": ExponentialTableau(4, (0.0, 0.5, 0.5, 1.0), (
        (), ((1, 1.0, 2, 0.5),), ((2, 2.0, 2, 1.0),), _ETD4_END,
    )),
    # Hochbruck and Ostermann 2005, eq. 5.19.
    "hochbruck_ostermann": ExponentialTableau(4, (0.0, 0.5, 0.5, 1.0, 0.5), (
        (),
        ((1, 1.0, 2, 0.5),),
        ((1, 1.0, 2, 1.0), (2, 1.0, 2, 1.0)),
        (
            *((1, *term) for term in _A52),
            *((2, *term) for term in _A52),
            (3, 0.25, 2, 0.5), *((3, -factor, k, c) for factor, k, c in _A52),
        ),
        ((3, -1.0, 2, 1.0), (3, 4.0, 3, 1.0), (4, 4.0, 2, 1.0), (4, -8.0, 3, 1.0)),
    )),
}  # fmt: skip
TABLEAUX: Mapping[str, ExponentialTableau] = MappingProxyType({
    name: checked(tableau) for name, tableau in _TABLES.items()
})  # fmt: skip


class ExponentialRK(StepSampler):
    """The step of an explicit exponential Runge-Kutta method on ``dy/dlambda = D - y``, ``y = x / alpha``.

    Hochbruck and Ostermann 2010, "Exponential integrators", eq. 2.39. Each stage and the end is the exact
    solution for a mean of the data estimates so far. On a flow path a step from sigma = 1 takes its weights
    from 0.9999. Subclasses give the `tableau`.
    """

    __slots__ = ()

    path_invariant = True

    @property
    def tableau(self) -> ExponentialTableau:
        """The method."""
        raise NotImplementedError

    @property
    def order(self) -> int:
        """The tableau's."""
        return self.tableau.order

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """The stages, then the end."""
        tableau = self.tableau
        h = ctx.lambda_(sigma_next) - ctx.path.inner_lambda(sigma, sigma_next)
        estimates = [ctx.denoise(x, sigma)]
        for node, row in zip(tableau.nodes[1:], tableau.rows, strict=False):
            level = sigma_next if node == 1.0 else ctx.between(sigma, sigma_next, node)
            stage = ctx.to(x, _mean(estimates, row, node, h), sigma, level)
            estimates.append(ctx.denoise(stage, level))
        return ctx.to(x, _mean(estimates, tableau.rows[-1], 1.0, h), sigma, sigma_next)


def _mean(estimates: list[Any], row: tuple[Term, ...], node: float, h: Number) -> Any:
    """The mean of the data estimates that a row stands for."""
    mean = estimates[0]
    for j, estimate in enumerate(estimates[1:], 1):
        if terms := [term[1:] for term in row if term[0] == j]:
            weight = sum(factor * phi(k, -c * h) for factor, k, c in terms) / (node * phi(1, -node * h))
            mean = mean + (estimate - estimates[0]) * weight
    return mean


@frozen
class ETDRK(ExponentialRK):
    """Exponential time differencing with fixed stages: order 2 to 4 with 2 to 5 evaluations a step.

    ``etdrk2``, ``etdrk3``, ``etdrk4``: Cox and Matthews 2002, "Exponential time differencing for stiff
    systems". ``krogstad4``: Krogstad 2005, "Generalized integrating factor methods for stiff PDEs".
    ``hochbruck_ostermann``: Hochbruck and Ostermann 2005, "Explicit exponential Runge-Kutta methods for
    semilinear parabolic problems", of order 4 with 5 evaluations, on stiff equations too.

    Attributes:
        method: A name in `TABLEAUX`.
    """

    method: str = field(default="etdrk4", validator=one_of(*TABLEAUX))

    @property
    def tableau(self) -> ExponentialTableau:
        """The method's."""
        return TABLEAUX[self.method]


@frozen
class RES2S(ExponentialRK):
    """RES, single-step, order 2: two evaluations a step, with exact weights in log-SNR.

    Zhang et al. 2023, arXiv:2308.02157, Algorithm 1; Hochbruck and Ostermann 2005, eq. 5.3. With ``c2 = 1``
    it is ``etdrk2``.

    Attributes:
        c2: Place of the stage, as a part of the step in log-SNR; at most 1.
    """

    c2: float = field(default=0.5, converter=float, validator=fraction)

    @property
    def tableau(self) -> ExponentialTableau:
        """``b_2 = phi_2 / c_2``."""
        return ExponentialTableau(2, (0.0, self.c2), ((), ((1, 1.0 / self.c2, 2, 1.0),)))


def _third_order(instance: RES3S, attribute: Attribute[Any], c3: float) -> None:
    c2 = instance.c2
    # gamma does not exist, or the weights 1 / (gamma c2 + c3) do not; at c3 = 2/3 gamma is 0 for any c2.
    if c2 == c3 or abs(c2 - 2.0 / 3.0) < 1e-9 or abs(_weight(c2, c3)) < 1e-9:
        raise ParameterError(
            f"RES3S: there is no method of order 3 with c2={c2}, c3={c3}; c2 differs from c3 and 2/3"
        )


def _gamma(c2: float, c3: float) -> float:
    return c3 * (3.0 * c3 - 2.0) / (c2 * (2.0 - 3.0 * c2))


def _weight(c2: float, c3: float) -> float:
    return _gamma(c2, c3) * c2 + c3


@frozen
class RES3S(ExponentialRK):
    """RES, single-step, order 3: three evaluations a step, with exact weights in log-SNR.

    Zhang et al. 2023, arXiv:2308.02157, Appendix; Hochbruck and Ostermann 2005, eq. 5.8 and 5.9: the family
    with ``2 (gamma c_2 + c_3) = 3 (gamma c_2^2 + c_3^2)``.

    Attributes:
        c2: Place of the first stage, as a part of the step in log-SNR; not 2/3.
        c3: Place of the second stage; another than c2.
    """

    c2: float = field(default=0.5, converter=float, validator=fraction)
    c3: float = field(default=1.0, converter=float, validator=[fraction, _third_order])

    @property
    def tableau(self) -> ExponentialTableau:
        """The member of the family."""
        c2, c3 = self.c2, self.c3
        gamma, weight = _gamma(c2, c3), _weight(c2, c3)
        inner = ((1, gamma * c2, 2, c2), (1, c3 * c3 / c2, 2, c3))
        return ExponentialTableau(
            3, (0.0, c2, c3), ((), inner, ((1, gamma / weight, 2, 1.0), (2, 1.0 / weight, 2, 1.0)))
        )
