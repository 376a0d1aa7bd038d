"""Detail boost: the model is told of less noise than there is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import Attribute, field, frozen

from kdiff_core import Prediction, StepContext, StepSampler, get_sampler
from kdiff_core.context import InnerContext
from kdiff_core.errors import ParameterError
from kdiff_core.numerics import Number

from .wrapped import Wrapped

# Laws that nothing breaks whose order is 0.
ORDERS = ("one_step_order", "one_step_order_smooth", "global_order", "output_distribution")


class _Understated(InnerContext):
    """Evaluates as if there were less noise in a state."""

    def __init__(self, ctx: StepContext, detail: float) -> None:
        super().__init__(ctx)
        self._kept_part = 1.0 - detail

    def _told(self, x: Any, sigma: Number) -> tuple[Any, Number]:
        """State and level as the model gets them: the same data under less noise."""
        if self.alpha(sigma) == 0:  # pure noise stays so
            return x, sigma
        told = self.path.from_ratio(self.path.ratio(sigma) * self._kept_part)
        return x * (self.alpha(told) / self.alpha(sigma)), told

    def denoise(self, x: Any, sigma: Number) -> Any:
        """The output at the lower level, as that of this one."""
        output = super().denoise(*self._told(x, sigma))
        self._evaluated(sigma, output)
        return output

    def predict(self, x: Any, sigma: Number) -> Prediction:
        """The outputs at the lower level."""
        outputs = super().predict(*self._told(x, sigma))
        self._evaluated(sigma, outputs.denoised)
        return outputs


def _unit(instance: Detail, attribute: Attribute[Any], value: float) -> None:
    if not 0 <= value <= 1 or (attribute.name == "detail" and value == 1):
        wanted = "at least 0 and below 1" if attribute.name == "detail" else "between 0 and 1"
        raise ParameterError(f"Detail: {attribute.name}={value!r} must be {wanted}")


def _above_start(instance: Detail, attribute: Attribute[Any], value: float) -> None:
    if value <= instance.detail_start:
        raise ParameterError(f"Detail: detail_end={value} is not above detail_start={instance.detail_start}")


@frozen
class Detail(Wrapped):
    """Tells the model of less noise than the state has, so that it leaves more: detail, then texture.

    Community practice (Detail Daemon, muerrilla 2024; "lying sigma"), a creative effect of order 0: more
    steps do not bring a run nearer to the model's distribution. In the steps between two parts of the run
    each evaluation is ``D(x, sigma (1 - detail))`` in place of ``D(x, sigma)`` on VE; on flow likewise, at
    ``1 - detail`` times the noise over signal, the state being scaled to that level.

    Attributes:
        solver: The solver, a sampler or its name.
        detail: Amount, at least 0 and below 1; 0 is the solver itself, 0.1 is strong.
        detail_start: Part of the steps, 0 to 1, behind which it begins.
        detail_end: Part of the steps behind which it ends.
    """

    solver: StepSampler = field(default="euler", converter=get_sampler)
    detail: float = field(default=0.05, converter=float, validator=_unit)
    detail_start: float = field(default=0.2, converter=float, validator=_unit)
    detail_end: float = field(default=0.8, converter=float, validator=[_unit, _above_start])

    reaches_zero = True  # so that the last evaluation counts as any other

    @property
    def order(self) -> int:
        """None: 0."""
        return 0 if self.detail else self.solver.order

    @property
    def order_smooth(self) -> int:
        """None: 0."""
        return 0 if self.detail else self.solver.order_smooth

    @property
    def known_failures(self) -> Mapping[str, str]:
        """The solver's, and an order that a step outside of the part has."""
        known = self.solver.known_failures
        if not self.detail:
            return known
        known = {law: why for law, why in known.items() if law not in ORDERS}
        if not self.memory and self.detail_start > 0 and self.solver.order > 0:
            known["one_step_order"] = "the first step, which is measured, is the solver's own"
        return known

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """The solver's step, with a model that is told another level."""
        done = ctx.index / (len(ctx.grid) - 1)
        if self.detail and self.detail_start <= done < self.detail_end:
            ctx = _Understated(ctx, self.detail)
        return ctx.advance(self.solver, x, sigma, sigma_next)
