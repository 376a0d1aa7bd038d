"""SA-Solver: stochastic Adams methods, a predictor and a corrector on the data prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen

from kdiff_core import VE, Grid, Path, Process, StepContext, StepSampler
from kdiff_core.numerics import exp, expm1, sqrt
from kdiff_core.parameters import level, not_negative, one_of

from .hosts import BELOW_ONE, start_below_one
from .uni_pc import exponential_weights

Evaluations = Sequence[tuple[float, Any]]


@frozen
class SASolver(StepSampler):
    """SA-Solver: exponential Adams methods for the SDE of noise amount tau, with a corrector.

    Xue et al. 2023, arXiv:2309.05019. The SDE is its variance-controlled one: tau 0 is the
    probability-flow ODE, 1 the reverse SDE. Here tau is `eta` on the steps that end in an interval of noise-
    to-signal ratios, 0 elsewhere. The corrector uses the noise of the predictor. With ``pece=False`` (PEC) an
    evaluation at the predicted state serves the correction and the next step, of the predictor's order; with
    ``pece=True`` there is a second one at the corrected state, and the order is one more. With noise both are
    of order 2 in distribution.

    Attributes:
        eta: tau inside the interval.
        s_noise: Factor of the noise.
        predictor_order: Number of evaluations that the predictor combines.
        corrector_order: Number that the corrector combines, the new one included; 0 for no corrector.
        pece: Whether to evaluate again at corrected states: two evaluations a step.
        sigma_low: Lower end of the interval, in VE levels on every path.
        sigma_high: Its upper end. The defaults are 80 % and 20 % of Stable Diffusion's time.
        lower_order_final: Where orders fall to 1 before the end: on grids that end in 0 (``"zero"``), or
            ``"never"``.
    """

    eta: float = field(default=1.0, converter=float, validator=not_negative)
    s_noise: float = field(default=1.0, converter=float, validator=not_negative)
    predictor_order: int = field(default=3, validator=one_of(1, 2, 3, 4))
    corrector_order: int = field(default=4, validator=one_of(0, 1, 2, 3, 4))
    pece: bool = field(default=False, validator=one_of(False, True))
    sigma_low: float = field(default=0.57119, converter=float, validator=level, metadata={"unit": "sigma"})
    sigma_high: float = field(default=5.09241, converter=float, validator=level, metadata={"unit": "sigma"})
    lower_order_final: str = field(default="zero", validator=one_of("zero", "never"))

    path_invariant = True

    @property
    def order(self) -> int:
        """Measured: at most 2 with noise; PEC ends a step in a predicted state, PECE in a corrected one."""
        order, corrected = self.predictor_order, self.corrector_order
        if corrected and (self.pece or self.stochastic):
            order = min(order + 1, corrected)
        return min(order, 2) if self.stochastic else order

    @property
    def memory(self) -> int:
        """What the longer of the two sums reads; PEC corrects one step later."""
        if self.pece:
            return max(self.predictor_order - 1, self.corrector_order - 2)
        return max(self.predictor_order - 1, self.corrector_order - 1, int(self.corrector_order > 0))

    @property
    def stochastic(self) -> bool:
        """Whether any noise is added."""
        return self.eta > 0

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """PEC: correct the state with the new evaluation, then predict. PECE: predict, evaluate, correct."""
        denoised = ctx.denoise(x, sigma)
        past = ctx.finite_past
        known = [(sigma, denoised), *((point.sigma, point.denoised) for point in past)]
        lowered = self.lower_order_final == "zero" and ctx.grid[-1] == 0
        left = ctx.steps_left if lowered else len(ctx.grid) + 1
        if past and self.corrector_order and not self.pece:
            before = past[0]
            carried = self._carried(ctx, before.x, before.noise, before.sigma, sigma)
            used = known[: min(self.corrector_order, left)]
            x = carried + self._integral(ctx, before.sigma, sigma, used)
            ctx.keep(x=x)
        noise = ctx.noise(sigma, sigma_next) if self._tau(ctx, sigma_next) else None
        ctx.keep(noise=noise)
        carried = self._carried(ctx, x, noise, sigma, sigma_next)
        used = known[: min(self.predictor_order, left - 1)]
        predicted = carried + self._integral(ctx, sigma, sigma_next, used)
        if not self.pece or not self.corrector_order or ctx.alpha(sigma) == 0:
            return predicted
        known = [(sigma_next, ctx.denoise(predicted, sigma_next)), *known]
        used = known[: min(self.corrector_order, left - 1)]
        return carried + self._integral(ctx, sigma, sigma_next, used)

    def _tau(self, ctx: StepContext, sigma: float) -> float:
        """The noise amount of a step that ends at `sigma`."""
        return self.eta if self.sigma_low <= ctx.path.ratio(sigma) <= self.sigma_high else 0.0

    def _ratio(self, ctx: StepContext, sigma: float, to: float) -> tuple[float, float]:
        """Factor of the state over a step, and the exponent of the noise's."""
        square = self._tau(ctx, to) ** 2
        decay = square * (ctx.lambda_(to) - ctx.lambda_(sigma)) if square else 0.0
        return to / sigma * exp(-decay), decay

    def _carried(self, ctx: StepContext, x: Any, noise: Any, sigma: float, to: float) -> Any:
        """What predictor and corrector share: the state and the noise."""
        ratio, decay = self._ratio(ctx, sigma, to)
        if noise is None:
            return x * ratio
        return x * ratio + noise * (self.s_noise * to * sqrt(-expm1(-2.0 * decay)))

    def _integral(self, ctx: StepContext, sigma: float, to: float, known: Evaluations) -> Any:
        """The exponentially weighted integral over a step of the polynomial through the evaluations."""
        first = known[0][1]
        ratio, _ = self._ratio(ctx, sigma, to)
        total = first * (ctx.alpha(to) - ctx.alpha(sigma) * ratio)
        if len(known) == 1:
            return total
        start, h = ctx.lambda_(sigma), ctx.lambda_(to) - ctx.lambda_(sigma)
        nodes = [(ctx.lambda_(level) - start) / h for level, _ in known]
        weights = exponential_weights(nodes, (1.0 + self._tau(ctx, to) ** 2) * h)
        for weight, (_, denoised) in zip(weights[1:], known[1:], strict=True):
            total = total + (denoised - first) * (ctx.alpha(to) * weight)
        return total


@frozen
class ComfyUISASolver(SASolver):
    """SA-Solver as in ComfyUI, which differs on flow paths alone; of the same order.

    Xue et al. 2023, arXiv:2309.05019. There the interval is 0.2 to 0.8, and the start at 0.9999.
    """

    path_invariant = False

    @property
    def known_failures(self) -> Mapping[str, str]:
        """What taking pure noise for a state at 0.9999 breaks."""
        return BELOW_ONE

    def prepare(self, grid: Grid, path: Path, process: Process | None) -> Sequence[float]:
        """The grid, starting below 1."""
        return start_below_one(grid, path)

    def _tau(self, ctx: StepContext, sigma: float) -> float:
        if ctx.path is VE:
            return SASolver._tau(self, ctx, sigma)
        return self.eta if 0.2 <= sigma <= 0.8 else 0.0
