"""DPM-Solver-v3: exponential multistep in the parameterisation that a model's statistics choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from attrs import Attribute, field, frozen

from kdiff_core import StepContext, StepSampler
from kdiff_core.errors import ParameterError, StateError
from kdiff_core.numerics import Number, exp
from kdiff_core.parameters import one_of

from .adams_bashforth import divided_differences, newton_integrals
from .statistics_curves import Curve, Curves

if TYPE_CHECKING:
    from .model_statistics import ModelStatistics

# Log-SNR and f of the base of a step, then those of other points.
Values = Sequence[tuple[Number, Any]]

_NONE = Curve((0.0,), (0.0,), (0.0,), (0.0,))
DATA_PREDICTION = Curves(Curve((0.0,), (1.0,), (0.0,), (0.0,)), _NONE, _NONE, has_bias=False)


def _loaded(value: Any) -> Any:
    if not isinstance(value, (str, FilePath)):
        return value
    from .model_statistics import ModelStatistics  # which needs NumPy

    return ModelStatistics.load(value)


def _statistics(instance: DPMSolverV3, attribute: Attribute[Any], value: Any) -> None:
    if value is not None and not isinstance(getattr(value, "curves", None), Curves):
        raise ParameterError(
            f"DPMSolverV3: statistics={value!r:.60} must be None, a ModelStatistics or the file of one"
        )


@frozen
class DPMSolverV3(StepSampler):
    """DPM-Solver-v3, a predictor and a corrector, one evaluation a step; of order `solver_order`.

    Zheng et al. 2023, arXiv:2310.13268, eq. 9, 13 and 14. What is interpolated in log-SNR is
    ``g = exp(-int s) f - int exp(-int s) b`` with ``f = (1 - l) x / alpha - D``, where the statistics l, s, b
    of the model make g nearly constant along its trajectories. Without them it is the data prediction
    (``l = 1, s = b = 0``): DPM-Solver++, of any order, with a corrector that uses the evaluation at the
    predicted state. A step from sigma = 1 on a flow path is a DDIM step, and later ones leave it out.

    Attributes:
        statistics: `ModelStatistics`, or the file of one; None for the data prediction. With a bias, or a
            coefficient for each element, the step is not linear in the state, and runs on tensors.
        solver_order: Points that the predictor combines, 1 to 3; steps with less history have fewer.
        corrector_order: Points that the corrector combines, the new one among them; 0 for no corrector.
        pseudo: Where the k-th derivative is taken from the k + 1 newest points alone (eq. 16), which is
            steadier with few steps and of order 2: ``"never"``, in the ``"corrector"`` or ``"always"``.
    """

    statistics: ModelStatistics | None = field(default=None, converter=_loaded, validator=_statistics)
    solver_order: int = field(default=3, validator=one_of(1, 2, 3))
    corrector_order: int = field(default=3, validator=one_of(0, 2, 3, 4))
    pseudo: str = field(default="never", validator=one_of("never", "corrector", "always"))

    path_invariant = True

    @property
    def order(self) -> int:
        """The lowest of the predictor's, the corrector's and, of pseudo-derivatives, 2."""
        order = min(self.solver_order, self.corrector_order or self.solver_order)
        predicts = self.pseudo == "always" and self.solver_order > 2
        corrects = self.pseudo != "never" and self.corrector_order > 2
        return min(order, 2) if predicts or corrects else order

    @property
    def memory(self) -> int:
        """The points but the newest, of the predictor or the corrector."""
        return max(self.solver_order, self.corrector_order) - 1

    @property
    def linear(self) -> bool:  # type: ignore[override]  # a flag of the class elsewhere
        """Whether the statistics are numbers, without a bias."""
        return self.statistics is None or not (self.statistics.shape or self.statistics.has_bias)

    @property
    def known_failures(self) -> Mapping[str, str]:
        """What statistics of one model break on others."""
        if self.statistics is None:
            return {}
        why = "its statistics are those of one model, in the units of its data"
        shifts = ("constant_denoiser_is_exact", "shift_equivariance", "exact_in_many_steps")
        return dict.fromkeys((*shifts, "scale_equivariance"), why)

    @property
    def curves(self) -> Curves:
        """The coefficients as functions of log-SNR."""
        return DATA_PREDICTION if self.statistics is None else self.statistics.curves

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """Correct the state with the new evaluation, then predict the next one."""
        denoised = ctx.denoise(x, sigma)
        if ctx.alpha(sigma) == 0:
            ctx.keep(f=None)
            return ctx.to(x, denoised, sigma, sigma_next)
        self._check(x)
        start = ctx.lambda_(sigma)
        f = _times(x, (1.0 - self.curves.linear.at(start)) / ctx.alpha(sigma)) - denoised
        ctx.keep(f=f)
        past = ctx.finite_past
        known = [(start, f), *((ctx.lambda_(point.sigma), point.f) for point in past)]
        if past and self.corrector_order:
            base, *older = known[1 : self.corrector_order]
            values = [base, known[0], *older]
            x = self._move(ctx, past[0].x, values, past[0].sigma, sigma, self.pseudo != "never")
            ctx.keep(x=x)
        return self._move(ctx, x, known[: self.solver_order], sigma, sigma_next, self.pseudo == "always")

    def _move(self, ctx: StepContext, x: Any, values: Values, sigma: float, to: float, pseudo: bool) -> Any:
        """The exact step for the polynomial through g at some points, in powers of log-SNR from the first."""
        model = self.curves
        linear, scaling = model.linear, model.scaling
        start, end = ctx.lambda_(sigma), ctx.lambda_(to)
        moments, of_bias, _ = model.integrals(start, end, len(values))
        g = []
        for place, f in values:
            scaled = _times(f, exp(scaling.integral(start) - scaling.integral(place)))
            g.append(_less(scaled, model.integrals(start, place, 0)[2]) if model.has_bias else scaled)
        nodes = [place - start for place, _ in values]
        weights = moments[1:] if pseudo else newton_integrals(nodes, moments)
        total = _times(x, exp(linear.integral(start) - linear.integral(end)) / ctx.alpha(sigma))
        for difference, weight in zip(
            [g[0], *divided_differences(g, nodes)], [moments[0], *weights], strict=True
        ):
            total = total - _times(difference, weight)
        return (_less(total, of_bias) if model.has_bias else total) * ctx.alpha(to)

    def _check(self, x: Any) -> None:
        """Refuse a state that has not the shape of the statistics."""
        wanted = self.statistics.shape if self.statistics else ()
        if wanted and tuple(getattr(x, "shape", ()))[1:] != wanted:
            raise StateError(
                f"DPMSolverV3: its statistics are of samples of shape {wanted}, the state is "
                f"{getattr(x, 'shape', type(x).__name__)}"
            )


def _times(x: Any, weight: Any) -> Any:
    """A state times a number, or times one number for each element."""
    return x * (weight.to(x) if getattr(weight, "ndim", 0) else weight)


def _less(x: Any, bias: Any) -> Any:
    """A state less a number, or less one number for each element."""
    return x - (bias.to(x) if getattr(bias, "ndim", 0) else bias)
