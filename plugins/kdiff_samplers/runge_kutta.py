"""Runge-Kutta methods from their tableaux, in the variable of your choice."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

from attrs import Attribute, field, frozen

from kdiff_core import StepContext, StepSampler
from kdiff_core.errors import ParameterError
from kdiff_core.names import nearest, quoted
from kdiff_core.numerics import Number
from kdiff_core.parameters import one_of, positive

from .tableau import Tableau, pruned, swept, valid
from .tableaux import TABLEAUX

SPACES = ("ratio", "velocity", "data", "noise")


class Axis(NamedTuple):
    """What is integrated over what: ``y = x / unit`` over `place`, where dy is a prediction times a factor.

    Levels may be floats, high-precision numbers or vectors of one level for each sample.

    Attributes:
        space: One of `SPACES`; see `RungeKutta`.
        sigma_data: Standard deviation that the data have for the velocity.
    """

    space: str = "ratio"
    sigma_data: float = 1.0

    def place(self, ctx: StepContext, sigma: Number) -> Number:
        """Where on the axis a level is."""
        if self.space == "ratio":
            return sigma / ctx.alpha(sigma)
        return sigma / self.unit(ctx, sigma) if self.space == "velocity" else ctx.lambda_(sigma)

    def level(self, ctx: StepContext, place: Number) -> Number:
        """The level at a place, the inverse of `place`."""
        if self.space in ("data", "noise"):
            return ctx.path.sigma(place)
        ratio = place if self.space == "ratio" else self.sigma_data * place / (1.0 - place)
        return ctx.path.from_ratio(ratio)

    def unit(self, ctx: StepContext, sigma: Number) -> Number:
        """What the integrated variable is multiplied by to give the state."""
        if self.space == "data":
            return sigma
        alpha = ctx.alpha(sigma)
        return self.sigma_data * alpha + sigma if self.space == "velocity" else alpha

    def prediction(self, ctx: StepContext, sigma: Number) -> tuple[Number, Number, Number]:
        """The weights of the state and of its data in the prediction, and the factor of it in dy."""
        alpha = ctx.alpha(sigma)
        if self.space == "data":
            return 0.0, 1.0, alpha / sigma
        velocity = 1.0 / self.sigma_data if self.space == "velocity" else 0.0
        return 1.0 / sigma, -alpha / sigma - velocity, -sigma / alpha if self.space == "noise" else 1.0


def slopes(
    ctx: StepContext, tableau: Tableau, axis: Axis, x: Any, sigma: Number, sigma_next: Number
) -> list[Any]:
    """Evaluate the stages of an explicit method, one model call each.

    Args:
        ctx: The step's context.
        tableau: The method, explicit.
        axis: What is integrated.
        x: State at `sigma`.
        sigma: Level of the state; on a flow path below 1 but for the velocity.
        sigma_next: Level that the step goes to, above 0.

    Returns:
        For `combine`: the data estimate of the first stage, then the slope of each other one, less what it
        were if the prediction stayed that of the first.
    """
    start = axis.place(ctx, sigma)
    h = axis.place(ctx, sigma_next) - start
    found = [ctx.denoise(x, sigma)]
    own, data, _ = axis.prediction(ctx, sigma)
    first = x * own + found[0] * data
    for node, row in zip(tableau.nodes[1:], tableau.rows[1:], strict=True):
        inside = 0 < node < 1
        level = axis.level(ctx, start + h * like(node, sigma)) if inside else sigma_next if node else sigma
        state = combine(ctx, axis, x, found, row, sigma, level, h)
        own, data, factor = axis.prediction(ctx, level)
        part = state * (own * factor) - first * factor  # before the call: written in x and data alone
        found.append(part + ctx.denoise(state, level) * (data * factor))
    return found


def combine(
    ctx: StepContext,
    axis: Axis,
    x: Any,
    found: Sequence[Any],
    weights: Sequence[Fraction],
    sigma: Number,
    level: Number,
    h: Number,
) -> Any:
    """The state at a level from weighted slopes; exact where the data estimate is constant.

    Args:
        ctx: The step's context.
        axis: What is integrated.
        x: State at the step's start.
        found: What `slopes` found.
        weights: Of the slopes: a tableau's `weights` or `embedded`.
        sigma: Level of the step's start.
        level: Level of the result: that of the step's end.
        h: The step on the axis.
    """
    scale = h * axis.unit(ctx, level)
    state = ctx.to(x, found[0], sigma, level)
    for weight, slope in zip(weights[1:], found[1:], strict=False):
        if weight:
            state = state + slope * (scale * like(weight, sigma))
    return state


def like(coefficient: Fraction, sigma: Number) -> Number:
    """A coefficient as a number to calculate with: a float unless the levels have a high precision."""
    return coefficient if hasattr(sigma, "context") else float(coefficient)


def find_tableau(name: str) -> Tableau:
    """The tableau of a name or an alias, as ``kdiff_samplers.tableaux.TABLEAUX`` has them.

    Raises:
        ParameterError: There is none; the message has the nearest names.
    """
    if name in TABLEAUX:
        return TABLEAUX[name]
    names = {alias: tableau for tableau in TABLEAUX.values() for alias in (tableau.name, *tableau.aliases)}
    if name not in names:
        close = quoted(nearest(name, names), "or") or quoted(sorted(TABLEAUX))
        raise ParameterError(f"there is no tableau {name!r}; did you mean {close}?")
    return names[name]


@lru_cache(maxsize=256)
def explicit_form(tableau: str | Tableau, sweeps: int | None = None, pair: bool = True) -> Tableau:
    """The explicit method that is run for a tableau or its name.

    Args:
        tableau: The tableau, or its name.
        sweeps: Sweeps of an implicit method; see `swept`. Default: as many as its order needs.
        pair: Whether the embedded weights are wanted; else stages that serve only those are left out.

    Raises:
        ParameterError: An unknown name.
    """
    method = find_tableau(tableau) if isinstance(tableau, str) else tableau
    if not pair:
        method = method._replace(embedded=None, embedded_order=0)
    needed = max(1, max(method.order, method.embedded_order) - 1)
    method = swept(method, needed if sweeps is None else sweeps)
    return method if pair else pruned(method)


def _as_tableau(value: str | Tableau) -> str | Tableau:
    """The name of a tableau that has one, else the tableau, checked."""
    if isinstance(value, str):
        return find_tableau(value).name
    if not isinstance(value, Tableau):
        raise ParameterError(f"RungeKutta: tableau={value!r:.60} is neither a name nor a Tableau")
    return valid(value)


def _fits(instance: RungeKutta, attribute: Attribute[Any], value: Any) -> None:
    if value is None:
        return
    if type(value) is not int or value < 1:
        raise ParameterError(f"RungeKutta: sweeps={value!r} must be a whole number of at least 1, or None")
    method = instance.tableau if isinstance(instance.tableau, Tableau) else TABLEAUX[instance.tableau]
    if method.explicit:
        raise ParameterError(
            f"RungeKutta: sweeps={value}, but {method.name!r} is explicit: only implicit methods are swept"
        )


@frozen
class RungeKutta(StepSampler):
    """A Runge-Kutta method, explicit or implicit, given by its tableau; one evaluation a stage.

    Kutta 1901; Hairer, Norsett and Wanner 1993, "Solving Ordinary Differential Equations I", chapter II. The
    order is that of the tableau in each of the four variables. An implicit method is solved by a fixed number
    of fixed-point sweeps, so that it stays linear in the states: it is then an explicit method of about
    ``1 + sweeps * stages`` evaluations a step, and each sweep wins an order. That keeps its accuracy, not
    its stability; the equations of diffusion are hardly stiff in these variables.

    What a constant prediction gives is exact; the method integrates how the prediction changes from the
    step's start on (Krogstad 2005, "Generalized integrating factor methods for stiff PDEs"). Over the ratio
    and for the velocity that is the plain Runge-Kutta method.

    On a flow path a step from sigma = 1, where ratio and log-SNR are infinite, integrates the velocity
    whatever the `space`: there it is smooth.

    Attributes:
        tableau: Name of a method, a key of ``kdiff_samplers.tableaux.TABLEAUX`` or its alias, or a `Tableau`
            of your own, made with `checked`.
        space: What is integrated, over what, as in `AdamsBashforth`: the noise over the ``"ratio"`` of noise
            to signal (on VE, ``dx/dsigma = (x - D) / sigma`` itself); the ``"velocity"`` of a flow path,
            noise less data, over its sigma; ``"data"`` or ``"noise"`` over log-SNR, with an
            integrating factor for the linear part (Lawson 1967). The velocity changes least on both paths,
            and the errors are smallest with it.
        sweeps: Sweeps of an implicit method, at least 1; its order is at most one more. Default: as many as
            the tableau's order needs.
        sigma_data: Standard deviation that the data have for the velocity, which on a flow path takes them as
            they are: 1.
    """

    tableau: str | Tableau = field(default="rk4", converter=_as_tableau)
    space: str = field(default="velocity", validator=one_of(*SPACES))
    sweeps: int | None = field(default=None, validator=_fits)
    sigma_data: float = field(default=1.0, converter=float, validator=positive, metadata={"unit": "sigma"})

    path_invariant = True

    @property
    def order(self) -> int:
        """The tableau's; of an implicit method with few sweeps, one more than those."""
        return explicit_form(self.tableau, self.sweeps, pair=False).order

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """The stages, then the end."""
        tableau = explicit_form(self.tableau, self.sweeps, pair=False)
        axis = Axis("velocity" if ctx.alpha(sigma) == 0 else self.space, self.sigma_data)
        found = slopes(ctx, tableau, axis, x, sigma, sigma_next)
        h = axis.place(ctx, sigma_next) - axis.place(ctx, sigma)
        return combine(ctx, axis, x, found, tableau.weights, sigma, sigma_next, h)
