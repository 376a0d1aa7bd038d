"""Multistep methods of the PNDM family: iPNDM, iPNDM_v and PLMS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from attrs import field, frozen

from kdiff_core import StepContext, StepSampler
from kdiff_core.numerics import Number, lagrange_integrals
from kdiff_core.parameters import one_of

# Adams-Bashforth on equal steps, of order 1 to 4: weights of the newest slope and of those before it.
EQUAL_STEPS = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def _mean(slopes: Sequence[Any]) -> Any:
    """The mean slope over the next step, as if the steps were equal."""
    newest, *older = EQUAL_STEPS[len(slopes) - 1]
    total = slopes[0] * newest
    for weight, slope in zip(older, slopes[1:], strict=True):
        total = total + slope * weight
    return total


@frozen
class _FourSlopes(StepSampler):
    """What the family shares.

    Attributes:
        max_order: Number of slopes used, 1 to 4.
    """

    max_order: int = field(default=4, validator=one_of(1, 2, 3, 4))

    order = 1

    @property
    def memory(self) -> int:
        """The slopes but the newest."""
        return self.max_order - 1

    @property
    def order_smooth(self) -> int:
        """Order 2 where steps are alike, which the weights take for granted."""
        return min(self.max_order, 2)


@frozen
class IPNDM(_FourSlopes):
    """iPNDM: Adams-Bashforth in sigma with the weights of equal steps; one evaluation a step.

    Zhang and Chen 2022, arXiv:2204.13902 (after Liu et al. 2022, arXiv:2202.09778), on
    ``dx/dsigma = (x - D) / sigma``. The first steps use fewer slopes. Of order 1 on uneven steps and 2 on
    smooth grids, whatever `max_order` above 1; `LMS` has the weights of the very steps.
    """

    @property
    def known_failures(self) -> Mapping[str, str]:
        """Where it is better than it says."""
        if self.max_order < 3:
            return {}
        why = "order 3 at log-SNR 0 on a flow path, where steps equal in log-SNR are equal in sigma too"
        return {"one_step_order_smooth": why}

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """An Euler step with the mean slope."""
        slope = (x - ctx.denoise(x, sigma)) / sigma
        ctx.keep(slope=slope)
        return x + _mean([slope, *(point.slope for point in ctx.past)]) * (sigma_next - sigma)


@frozen
class PLMS(_FourSlopes):
    """PLMS: Adams-Bashforth with the weights of equal steps on the noise prediction.

    Liu et al. 2022, arXiv:2202.09778: the mean noise goes into a DDIM step, so the method is
    the same on every path. The first step is their pseudo improved Euler step, of two evaluations; the next
    ones use fewer slopes. Of order 1 on uneven steps and 2 on smooth grids, whatever `max_order` above 1.
    History that reaches back to sigma = 1 on a flow path is dropped.
    """

    path_invariant = True

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """A DDIM step with the mean noise."""
        denoised = ctx.denoise(x, sigma)
        noise = ctx.eps(x, denoised, sigma)
        ctx.keep(noise=noise)
        euler = ctx.to(x, denoised, sigma, sigma_next)
        if ctx.alpha(sigma) == 0:  # infinitely far from the next level
            return euler
        past = [point.noise for point in ctx.finite_past]
        if past or self.max_order == 1:
            mean = _mean([noise, *past])
        else:
            ahead = ctx.eps(euler, ctx.denoise(euler, sigma_next), sigma_next)
            mean = (noise + ahead) / 2.0
        width = ctx.path.ratio(sigma_next) - ctx.path.ratio(sigma)
        return euler + (mean - noise) * (ctx.alpha(sigma_next) * width)


@frozen
class IPNDMv(_FourSlopes):
    """iPNDM_v: iPNDM with weights for the steps as they are, as published; one evaluation a step.

    The variable-step form of Zhang and Chen 2022, arXiv:2204.13902, in the numbers of its
    published code (Zhou et al. 2023, arXiv:2312.00094) and of ComfyUI. From 3 slopes on that form slips: the
    weights of the second and the third difference are right at most on equal steps, and with 4 slopes the
    weights sum to 1 only where the ratio of steps does not change. So it has order 2 with 3 slopes (3 on
    smooth grids), and with 4 order 0 on uneven steps, 2 on smooth grids and 3 where the ratio is constant.
    ``corrected=True`` has the right weights and their order (`LMS` on its way above 0).

    Attributes:
        corrected: Whether to take the right weights.
    """

    corrected: bool = field(default=False, validator=one_of(False, True))

    @property
    def order(self) -> int:
        """The number of slopes where the weights are right; 2 with 3 slopes, 0 with 4, as published."""
        return self.max_order if self.corrected or self.max_order < 3 else (2, 0)[self.max_order - 3]

    @property
    def order_smooth(self) -> int:
        """The number of slopes; 2 with 4 slopes as published."""
        return self.max_order if self.corrected or self.max_order < 4 else 2

    @property
    def known_failures(self) -> Mapping[str, str]:
        """What weights break that do not sum to 1."""
        if self.corrected or self.max_order < 4:
            return {}
        why = "the published weights of 4 slopes do not sum to 1 on uneven steps"
        laws = ("constant_denoiser_is_exact", "shift_equivariance", "exact_in_many_steps")
        chance = "order 0 on uneven steps and 2 on smooth ones; 3 where the ratio of steps is constant"
        return {**dict.fromkeys(laws, why), "one_step_order_smooth": chance}

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """An Euler step with the mean slope."""
        slope = (x - ctx.denoise(x, sigma)) / sigma
        ctx.keep(slope=slope)
        nodes = [sigma, *(point.sigma for point in ctx.past)]
        weights = lagrange_integrals(nodes, sigma, sigma_next)
        if not self.corrected and len(nodes) > 2:
            h = sigma_next - sigma
            weights = [h * weight for weight in _published(h, *(new - old for new, old in pairwise(nodes)))]
        for weight, old in zip(weights, [slope, *(point.slope for point in ctx.past)], strict=True):
            x = x + old * weight
        return x


def _published(h: Number, h1: Number, h2: Number, h3: Number | None = None) -> list[Number]:
    """The published weights of 3 or 4 slopes; the steps before are `h1`, `h2`, `h3`, the newest first."""
    r, second = h1 / h2, (1.0 - h * h / (3.0 * h1 * (h1 + h2))) / 2.0  # of the second difference
    weights = [1.0 + h / (2.0 * h1) + second, -h / (2.0 * h1) - (1.0 + r) * second, r * second]
    if h3 is None:
        return weights
    a, b, q = h + h1, h + h1 + h2, h1 * (h1 + h2) / (h2 * (h2 + h3))
    third = (1.0 - h / (3.0 * a)) / 2.0 + (1.0 - h / (2.0 * a)) * h / (6.0 * b)  # right with a minus
    third = third * h * a * b / (h1 * (h1 + h2) * (h1 + h2 + h3))
    differences = (1.0, -(1.0 + r + q), r + q * (1.0 + h2 / h3), -q * r)  # right with -q h2 / h3
    return [w + third * d for w, d in zip([*weights, 0.0], differences, strict=True)]
