"""Runge-Kutta pairs and a solver of the reverse SDE, with steps that they choose."""

from __future__ import annotations

from typing import Any

from attrs import Attribute, field, frozen

from kdiff_core import AdaptiveSampler, StepContext
from kdiff_core.errors import ParameterError
from kdiff_core.numerics import Number
from kdiff_core.parameters import not_negative, one_of, positive

from .reverse_sde import ReverseSDE
from .runge_kutta import SPACES, Axis, combine, find_tableau, slopes
from .tableau import Tableau
from .tableaux import TABLEAUX


def _pair(tableau: str | Tableau) -> Tableau:
    return find_tableau(tableau) if isinstance(tableau, str) else tableau


def _is_pair(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if isinstance(value, (str, Tableau)) and (method := _pair(value)).explicit and method.embedded:
        return
    pairs = ", ".join(repr(name) for name, each in TABLEAUX.items() if each.explicit and each.embedded)
    raise ParameterError(
        f"Adaptive: tableau={value!r:.60} is no explicit pair, with embedded weights to tell its error by; "
        f"pairs are {pairs}"
    )


@frozen
class Adaptive(AdaptiveSampler):
    """A Runge-Kutta pair with adaptive steps: its two ends differ by the error of the lower order.

    Hairer, Norsett and Wanner 1993, "Solving Ordinary Differential Equations I", section II.4; the
    controller is proportional-integral (Gustafsson 1991: ``pcoeff = 0.4``, ``icoeff = 0.3``). One evaluation
    a stage and try. The order of a step is that of the tableau. By default each sample has its own steps.

    On a flow path a run from sigma = 1, where ratio and log-SNR are infinite, integrates the velocity
    whatever the `space`.

    Attributes:
        tableau: Name of an explicit pair, or a `Tableau` of your own with embedded weights.
        space: What is integrated, as in `RungeKutta`; the velocity takes the fewest evaluations.
        sigma_data: Standard deviation that the data have for the velocity.
    """

    tableau: str | Tableau = field(default="bogacki_shampine3", validator=_is_pair)
    space: str = field(default="velocity", validator=one_of(*SPACES))
    sigma_data: float = field(default=1.0, converter=float, validator=positive, metadata={"unit": "sigma"})
    h_init: float = field(default=0.5, converter=float, validator=positive)
    pcoeff: float = field(default=0.4, converter=float, validator=not_negative)
    icoeff: float = field(default=0.3, converter=float, validator=not_negative)

    @property
    def order(self) -> int:
        """The tableau's."""
        return _pair(self.tableau).order

    @property
    def error_order(self) -> float:
        """One more than the lower order of the pair."""
        method = _pair(self.tableau)
        return min(method.order, method.embedded_order) + 1.0

    def attempt(self, ctx: StepContext, x: Any, sigma: Number, sigma_next: Number) -> tuple[Any, Any]:
        """The stages, then both ends."""
        method = _pair(self.tableau)
        assert method.embedded is not None
        axis = Axis("velocity" if ctx.alpha(ctx.grid[0]) == 0 else self.space, self.sigma_data)
        found = slopes(ctx, method, axis, x, sigma, sigma_next)
        h = axis.place(ctx, sigma_next) - axis.place(ctx, sigma)
        x_next = combine(ctx, axis, x, found, method.weights, sigma, sigma_next, h)
        return x_next, combine(ctx, axis, x, found, method.embedded, sigma, sigma_next, h)


@frozen
class AdaptiveSDE(AdaptiveSampler):
    """The reverse SDE with adaptive steps: SEEDS-2, its error told by exponential Euler; order 2.

    Gonzalez et al. 2023, arXiv:2305.14267; the idea of two results on the same noise is that of
    Jolicoeur-Martineau et al. 2021, arXiv:2105.14080. Two evaluations a try. Both results are of one Brownian
    path, which a rejected try does not change, so that rejections do not distort the distribution. The order
    is weak.

    Each sample's own steps follow its own noise. Where a sample is a handful of numbers, an error that is
    small by chance then lets a long step pass, and the variance comes out too small until the tolerance is
    tight (one number: 0.80, 0.90 and 1.00 of it with rtol = 0.05, 0.02 and 0.005); in the many numbers of an
    image, and with ``per="batch"``, that averages out.

    Attributes:
        eta: Share of noise: 0 is the probability-flow ODE, 1 the reverse SDE.
        s_noise: Factor of the noise.
    """

    eta: float = field(default=1.0, converter=float, validator=not_negative)
    s_noise: float = field(default=1.0, converter=float, validator=not_negative)

    order = 2
    # The data estimate of the middle differs by its noise, which grows with the root of the step.
    error_order = 1.5

    @property
    def stochastic(self) -> bool:
        """Whether any noise is added."""
        return self.eta > 0

    def attempt(self, ctx: StepContext, x: Any, sigma: Number, sigma_next: Number) -> tuple[Any, Any]:
        """A step with the data estimate of the middle, and one with that of the start."""
        sde = ReverseSDE(self.eta, self.s_noise)
        middle = ctx.between(sigma, sigma_next, 0.5)
        denoised = ctx.denoise(x, sigma)
        inner = ctx.denoise(sde.moved(ctx, x, denoised, sigma, middle), middle)
        x_next = sde.moved(ctx, x, inner, sigma, middle, sigma_next)
        return x_next, sde.moved(ctx, x, denoised, sigma, middle, sigma_next)
