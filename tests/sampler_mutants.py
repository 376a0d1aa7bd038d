"""Samplers with a planted bug each, written from correct ones, and the check that is meant to find it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from attrs import define, field, frozen

from kdiff_core import StepSampler
from kdiff_core.numerics import exp, expm1, sqrt
from kdiff_samplers.ancestral import Ancestral
from kdiff_samplers.ddim import DDIM
from kdiff_samplers.dpmpp_2m import DPMpp2M
from kdiff_samplers.dpmpp_sde import DPMppSDE
from kdiff_samplers.dpmpp_sde_multistep import DPMpp3MSDE
from kdiff_samplers.euler import Euler
from kdiff_samplers.heun import Heun
from kdiff_samplers.lms import LMS


class Mutant(NamedTuple):
    """A planted bug.

    Attributes:
        sampler: The sampler.
        wrong: What is wrong with it.
        check: The check that is meant to find it.
        word: What its message has to say.
        also: Other checks that it fails with 20 examples and seed 0.
        slow: Whether the check is left out by default.
    """

    sampler: Any
    wrong: str
    check: str
    word: str
    also: tuple[str, ...]
    slow: bool


# Checks that fail where no run works at all, and where none works from 1 on flow or into 0.
_EVERY_RUN = (
    "one_step_order global_order shift_equivariance scale_equivariance same_on_both_paths "
    "reaches_zero eager_equals_plan evaluations_as_planned noise_if_and_only_if_declared "
    "plan_does_not_grow any_kind_of_number stepper_equals_engine resume_equals_run pure "
    "independent_of_the_batch nested_states dtype_and_device_kept finite_on_extreme_grids "
    "gradients_flow"
)
_FROM_ONE = (
    "constant_denoiser_is_exact shift_equivariance reaches_zero eager_equals_plan "
    "evaluations_as_planned any_kind_of_number stepper_equals_engine resume_equals_run "
    "independent_of_the_batch nested_states dtype_and_device_kept finite_on_extreme_grids"
)
# What else finds a bug. Where that is a matter of chance, the checks that always do.
ALSO = {
    "RatioInverted": _FROM_ONE,
    "SignFlipped": "global_order",
    "CorrectionDropped": "global_order memory_is_enough_and_needed",
    "IndexSlip": "global_order",
    "HeunWeights": "global_order",
    "MidpointWithHeunsWeights": "global_order",
    "OrderTooHigh": "global_order",
    "WrongLevel": "same_on_both_paths",
    "OffByOne": "global_order",
    "Unstable": "constant_denoiser_is_exact",
    "BadStart": "one_step_order shift_equivariance same_on_both_paths",
    "AsksForMore": _EVERY_RUN + " constant_denoiser_is_exact",
    "MemoryForgotten": _EVERY_RUN,
    "Float32Weights": "shift_equivariance same_on_both_paths any_kind_of_number",
    "EpsilonInTheDivisor": "shift_equivariance scale_equivariance same_on_both_paths",
    "AlphaOne": "one_step_order global_order shift_equivariance same_on_both_paths",
    "ClampedStart": "one_step_order global_order shift_equivariance scale_equivariance same_on_both_paths",
    "SkipsTheFirst": "one_step_order shift_equivariance same_on_both_paths",
    "DropsTheLast": "constant_denoiser_is_exact shift_equivariance same_on_both_paths",
    "PullsTowardsZero": "one_step_order global_order constant_denoiser_is_exact",
    "RenoisesAsOnVE": "output_distribution",
    "DividesByZero": "constant_denoiser_is_exact scale_equivariance eager_equals_plan evaluations_as_planned",
    "StaysAboveZero": "shift_equivariance",
    "OneDrawTwice": "same_on_both_paths",
    "NoiseNotDeclared": (
        "one_step_order global_order constant_denoiser_is_exact eta_zero_is_deterministic nested_states"
    ),
    "GlobalNoise": "noise_if_and_only_if_declared dtype_and_device_kept nested_states",
    "EtaZeroIsNoisy": "one_step_order global_order constant_denoiser_is_exact",
    "WritesIntoTheHistory": "global_order constant_denoiser_is_exact shift_equivariance",
    "HistoryOnTheClass": "noise_if_and_only_if_declared shift_equivariance",
    "CountsItsCalls": "eager_equals_plan",
    "CountsItsPlans": "stepper_equals_engine pure parameters_round_trip",
    "FromNumPy": "one_step_order",
    "NormOfTheBatch": "global_order constant_denoiser_is_exact shift_equivariance nested_states",
    "CastsToFloat32": (
        "constant_denoiser_is_exact shift_equivariance scale_equivariance nested_states gradients_flow"
    ),
    "Detaches": "nested_states",
    "NoAttrs": "eager_equals_plan pure",
}
MUTANTS: dict[str, Mutant] = {}


def planted(wrong: str, check: str, word: str, slow: bool = False, **options: Any) -> Callable[[Any], Any]:
    """Put a class, made with these options, on the list.

    A mutant without a docstring has that of the sampler it was written from.
    """

    def register(kind: Any) -> Any:
        also = tuple(ALSO.get(kind.__name__, "").split())
        MUTANTS[kind.__name__] = Mutant(kind(**options), wrong, check, word, also, slow)
        return kind

    return register


class Plain(StepSampler):
    """What the planted samplers that are written from scratch say of themselves: order 1; nobody 2022."""

    __slots__ = ()


# -------------------------------------------------------------------- order: the eight of the measured table


@frozen
class Corrected(DPMpp2M):
    """DPM-Solver++(2M) of order 2 (Lu et al. 2022); its correction is a method."""

    def step(self, ctx, x, sigma, sigma_next):
        denoised = ctx.denoise(x, sigma)
        if ctx.past:
            h = ctx.lambda_(sigma_next) - ctx.lambda_(sigma)
            past = ctx.lambda_(sigma) - ctx.lambda_(ctx.past[0].sigma)
            denoised = denoised + self.correction(denoised - ctx.past[0].denoised, h, past)
        return ctx.to(x, denoised, sigma, sigma_next)

    def correction(self, change, h, past):
        return change * (h / (2.0 * past))


@planted("the ratio of the steps is used the wrong way round", "one_step_order", "order of one step is 1.0")
@frozen
class RatioInverted(Corrected):
    def correction(self, change, h, past):
        return change * (past / (2.0 * h))


@planted("the ratio of the steps is assumed to be 1", "one_step_order", "order of one step is 1.0")
@frozen
class RatioOne(Corrected):
    def correction(self, change, h, past):
        return change * 0.5


@planted("the correction has the wrong sign", "one_step_order", "order of one step is 1.0")
@frozen
class SignFlipped(Corrected):
    def correction(self, change, h, past):
        return change * (-h / (2.0 * past))


@planted("the correction is dropped", "one_step_order", "order of one step is 1.0")
@frozen
class CorrectionDropped(Corrected):
    def correction(self, change, h, past):
        return change * 0.0


@planted("the step is measured from the level before it", "one_step_order", "order of one step is 1.0")
@frozen
class IndexSlip(Corrected):
    def correction(self, change, h, past):
        return change * (0.5 + h / (2.0 * past))


@planted("the slopes are weighed .6 and .4", "one_step_order", "declared is 2")
@frozen
class HeunWeights(Heun):
    def step(self, ctx, x, sigma, sigma_next):
        end = ctx.to(x, ctx.denoise(x, sigma), sigma, sigma_next)
        slope = (end - ctx.denoise(end, sigma_next)) / sigma_next
        return end * 0.6 + (x + slope * (sigma_next - sigma)) * 0.4


@planted("the slope of the middle has Heun's weight of a half", "one_step_order", "declared is 2")
@frozen
class MidpointWithHeunsWeights(Heun):
    def step(self, ctx, x, sigma, sigma_next):
        first, middle = (x - ctx.denoise(x, sigma)) / sigma, sqrt(sigma * sigma_next)
        second = x + first * (middle - sigma)
        second = (second - ctx.denoise(second, middle)) / middle
        return x + (first + second) * ((sigma_next - sigma) * 0.5)


@planted("the published update, of order 2, declares 3", "one_step_order", "declared is 3", eta=0.0)
@frozen
class PublishedDeclaresThree(DPMpp3MSDE):
    order = 3


# --------------------------------------------------------------------------------------- order: other ways


@planted("it declares order 2", "one_step_order", "is 1.00, declared is 2")
@frozen
class OrderTooHigh(Euler):
    order = 2


@planted("it declares order 1", "one_step_order", "declared is 1")
@frozen
class OrderTooLow(Heun):
    order = 1


@frozen
class SmoothOnly(RatioOne):
    """Order 1, and 2 on equal steps, as declared: no bug (Lu et al. 2022)."""

    order = 1
    order_smooth = 2


@planted("it declares order 3 on equal steps", "one_step_order_smooth", "equal steps is 2.00, declared is 3")
@frozen
class OrderSmoothTooHigh(SmoothOnly):
    order_smooth = 3


@planted("the denoiser is told the next level", "shift_equivariance", "shifted result")
@frozen
class WrongLevel(Euler):
    def step(self, ctx, x, sigma, sigma_next):
        return ctx.to(x, ctx.denoise(x, sigma_next), sigma, sigma_next)


@planted("past[1] where past[0] is meant", "one_step_order", "declared is 2")
@frozen
class OffByOne(DPMpp2M):
    memory = 2

    def step(self, ctx, x, sigma, sigma_next):
        denoised = ctx.denoise(x, sigma)
        if len(ctx.past) > 1:
            h = ctx.lambda_(sigma_next) - ctx.lambda_(sigma)
            r = (ctx.lambda_(sigma) - ctx.lambda_(ctx.past[0].sigma)) / h
            denoised = denoised + (denoised - ctx.past[1].denoised) / (2.0 * r)
        return ctx.to(x, denoised, sigma, sigma_next)


@planted("it extrapolates Hermite's cubic, and is unstable", "global_order", "falls with order")
@frozen
class Unstable(Plain):
    order, memory = 3, 1

    def step(self, ctx, x, sigma, sigma_next):
        slope = (x - ctx.denoise(x, sigma)) / sigma
        ctx.keep(slope=slope)
        if not ctx.past:
            return x + slope * (sigma_next - sigma)
        old, d = ctx.past[0], sigma - ctx.past[0].sigma
        t = (sigma_next - old.sigma) / d
        x = old.x * (2 * t**3 - 3 * t**2 + 1) + x * (3 * t**2 - 2 * t**3)
        return x + old.slope * (d * (t**3 - 2 * t**2 + t)) + slope * (d * (t**3 - t**2))


@planted("the first step takes D at half the level", "global_order", "falls with order")
@frozen
class BadStart(DPMpp2M):
    def step(self, ctx, x, sigma, sigma_next):
        if ctx.past or sigma_next == 0:
            return super().step(ctx, x, sigma, sigma_next)
        denoised = ctx.denoise(x, sigma * 0.5)
        ctx.keep(denoised=denoised)
        return ctx.to(x, denoised, sigma, sigma_next)


@planted("the memory is a point short, and the code takes what there is", "one_step_order", "declared is 4")
@frozen
class MemoryTooSmall(LMS):
    memory = 2


@planted("the memory is a point short, and the code asks for it", "memory_is_enough_and_needed", "past[1]")
@frozen
class AsksForMore(DPMpp2M):
    def step(self, ctx, x, sigma, sigma_next):
        denoised = ctx.denoise(x, sigma)
        if ctx.index > 1:
            h = ctx.lambda_(sigma_next) - ctx.lambda_(sigma)
            r = (ctx.lambda_(sigma) - ctx.lambda_(ctx.past[1].sigma)) / h
            denoised = denoised + (denoised - ctx.past[1].denoised) / (2.0 * r)
        return ctx.to(x, denoised, sigma, sigma_next)


@planted("it declares no memory, and reads it", "constant_denoiser_is_exact", "declares `memory = n`")
@frozen
class MemoryForgotten(DPMpp2M):
    memory = 0

    def step(self, ctx, x, sigma, sigma_next):
        denoised = ctx.denoise(x, sigma)
        if ctx.index:
            h = ctx.lambda_(sigma_next) - ctx.lambda_(sigma)
            r = (ctx.lambda_(sigma) - ctx.lambda_(ctx.past[0].sigma)) / h
            denoised = denoised + (denoised - ctx.past[0].denoised) / (2.0 * r)
        return ctx.to(x, denoised, sigma, sigma_next)


@planted("the memory is a point too large", "memory_is_enough_and_needed", "with 1 it does the same")
@frozen
class MemoryTooLarge(Corrected):
    memory = 2

    def step(self, ctx, x, sigma, sigma_next):
        return super().step(ctx, x, sigma, sigma_next)


# ------------------------------------------------------------------------------------------------ exactness


@planted("the weights are in single precision", "constant_denoiser_is_exact", "rounding allows")
@frozen
class Float32Weights(Euler):
    def step(self, ctx, x, sigma, sigma_next):
        ratio = float(np.float32(sigma_next / sigma))
        return x * ratio + ctx.denoise(x, sigma) * (1.0 - ratio)


@planted("a small number is added to the divisor", "constant_denoiser_is_exact", "rounding allows")
@frozen
class EpsilonInTheDivisor(Euler):
    def step(self, ctx, x, sigma, sigma_next):
        return x + (x - ctx.denoise(x, sigma)) * ((sigma_next - sigma) / (sigma + 1e-8))


@planted("alpha is 1 on flow too", "constant_denoiser_is_exact", "end of the ray")
@frozen
class AlphaOne(Euler):
    def step(self, ctx, x, sigma, sigma_next):
        h = ctx.lambda_(sigma_next) - ctx.lambda_(sigma)
        return x * (sigma_next / sigma) - ctx.denoise(x, sigma) * expm1(-h)


@planted("it moves from 1 on flow as if it were 0.999", "constant_denoiser_is_exact", "end of the ray")
@frozen
class ClampedStart(Euler):
    def step(self, ctx, x, sigma, sigma_next):
        h = ctx.lambda_(sigma_next) - ctx.lambda_(min(sigma, 0.999))
        return x * (sigma_next / sigma) - ctx.denoise(x, sigma) * (ctx.alpha(sigma_next) * expm1(-h))


@planted("the first step is left out", "constant_denoiser_is_exact", "end of the ray")
@frozen
class SkipsTheFirst(Euler):
    def step(self, ctx, x, sigma, sigma_next):
        return super().step(ctx, x, sigma, sigma_next) if ctx.index else x


@planted("it drops the last level", "reaches_zero", "the grid ends in 0")
@frozen
class DropsTheLast(Euler):
    def prepare(self, grid, path, process):
        return grid[:-1] if len(grid) > 2 else grid


@planted("the data estimate is pulled towards 0", "shift_equivariance", "shifted result")
@frozen
class PullsTowardsZero(Euler):
    def step(self, ctx, x, sigma, sigma_next):
        return ctx.to(x, ctx.denoise(x, sigma) * 0.99, sigma, sigma_next)


@planted("VE's renoising on flow too", "shift_equivariance", "shifted result")
@frozen
class RenoisesAsOnVE(Ancestral):
    def step(self, ctx, x, sigma, sigma_next):
        down = ctx.path.ancestral_down(sigma, sigma_next, self.eta)
        x = ctx.advance(self.solver, x, sigma, down)
        if down == sigma_next:
            return x
        factor = self.s_noise * sqrt(sigma_next * sigma_next - down * down)
        return x + ctx.noise(sigma, sigma_next) * factor


@planted("below a level of 0.1 the correction is left out", "scale_equivariance", "scaled result")
@frozen
class AbsoluteThreshold(Heun):
    def step(self, ctx, x, sigma, sigma_next):
        if sigma_next < 0.1:
            return ctx.to(x, ctx.denoise(x, sigma), sigma, sigma_next)
        return super().step(ctx, x, sigma, sigma_next)


@planted("levels below 0.0005 are taken for 0.0005", "scale_equivariance", "scaled result")
@frozen
class FloorsTheLevel(Euler):
    def step(self, ctx, x, sigma, sigma_next):
        return ctx.to(x, ctx.denoise(x, sigma), max(sigma, 5e-4), max(sigma_next, 5e-4))


@planted(
    "it integrates in sigma, which differs on flow",
    "same_on_both_paths",
    "VE coordinates",
)
@frozen
class NotInvariant(Heun):
    path_invariant = True


@planted("it claims to reach 0, where its last weight is infinite", "reaches_zero", "ZeroDivisionError")
@frozen
class DividesByZero(Heun):
    reaches_zero = True


@planted("it claims to reach 0, and stays where it is", "constant_denoiser_is_exact", "end of the ray")
@frozen
class StaysAboveZero(Euler):
    reaches_zero = True

    def step(self, ctx, x, sigma, sigma_next):
        return super().step(ctx, x, sigma, sigma_next or sigma / 10)


@planted("it goes to 0 by itself, and leaves noise there", "reaches_zero", "its end at 0")
@frozen
class NoisyEnd(Plain):
    stochastic = reaches_zero = True

    def step(self, ctx, x, sigma, sigma_next):
        denoised = ctx.denoise(x, sigma)
        if sigma_next == 0:
            return denoised + ctx.noise(sigma, 0.0) * (sigma * 0.1)
        return ctx.ancestral(x, denoised, sigma, sigma_next, 1.0)


# ---------------------------------------------------------------------------------------------------- noise


@planted("its noise has 0.9 of its variance", "output_distribution", "with order 0.")
@frozen
class WeakNoise(Ancestral):
    def step(self, ctx, x, sigma, sigma_next):
        down = ctx.path.ancestral_down(sigma, sigma_next, self.eta)
        x = ctx.advance(self.solver, x, sigma, down)
        if down == sigma_next:
            return x
        return ctx.renoise(x, down, sigma_next, ctx.noise(sigma, sigma_next), self.s_noise * 0.9**0.5)


@planted("the same, and it cannot be traced", "output_distribution_of_samples", "of the variance")
@frozen
class WeakNoiseWithoutAPlan(WeakNoise):
    linear = False

    def step(self, ctx, x, sigma, sigma_next):
        down = ctx.path.ancestral_down(sigma, sigma_next, self.eta)
        x = ctx.advance(self.solver, x, sigma, down)
        return ctx.renoise(x, down, sigma_next, ctx.noise(sigma, sigma_next), self.s_noise * 0.8)


@planted("it takes s_noise, and does not use it", "s_noise_is_a_factor_of_the_noise", "two seeds differ")
@frozen
class DeafToSNoise(Ancestral):
    def step(self, ctx, x, sigma, sigma_next):
        down = ctx.path.ancestral_down(sigma, sigma_next, self.eta)
        x = ctx.advance(self.solver, x, sigma, down)
        return ctx.renoise(x, down, sigma_next, ctx.noise(sigma, sigma_next))


@planted("stage and step draw from streams of their own", "output_distribution", "declared is 2")
@frozen
class IndependentIntervals(DPMppSDE):
    def step(self, ctx, x, sigma, sigma_next):
        stage = ctx.between(sigma, sigma_next, self.r)
        denoised, down = ctx.denoise(x, sigma), ctx.path.ratio_down(sigma, stage, self.eta)
        middle = ctx.to(x, denoised, sigma, down)
        if self.eta:
            middle = ctx.renoise(middle, down, stage, ctx.noise(sigma, stage, "stage"), self.s_noise)
        blend = denoised + (ctx.denoise(middle, stage) - denoised) / (2.0 * self.r)
        return ctx.ancestral(x, blend, sigma, sigma_next, self.eta, self.s_noise)


@planted("both halves of a step have one draw", "output_distribution", "declared is 1", eta=1.0)
@frozen
class OneDrawTwice(DDIM):
    def step(self, ctx, x, sigma, sigma_next):
        middle = sqrt(sigma * sigma_next)
        denoised = ctx.denoise(x, sigma)
        for start, end in ((sigma, middle), (middle, sigma_next)):
            down = ctx.path.ratio_down(start, end, self.eta)
            x = ctx.to(x, denoised, start, down)
            if self.eta:
                x = ctx.renoise(x, down, end, ctx.noise(sigma, sigma_next), self.s_noise)
        return x


@planted("it asks for noise, and does not say so", "noise_if_and_only_if_declared", "does not declare")
@frozen
class NoiseNotDeclared(Ancestral):
    stochastic = False


@planted("it declares noise, and asks for none", "noise_if_and_only_if_declared", "two seeds give the same")
@frozen
class NoiseNotAskedFor(Euler):
    stochastic = True


@planted("it draws from torch's global generator", "pure", "torch's global generator")
@frozen
class GlobalNoise(Ancestral):
    linear = False

    def step(self, ctx, x, sigma, sigma_next):
        down = ctx.path.ancestral_down(sigma, sigma_next, self.eta)
        x = ctx.advance(self.solver, x, sigma, down)
        return ctx.renoise(x, down, sigma_next, torch.randn_like(x), self.s_noise) if self.eta else x


@planted("with eta = 0 it still adds noise", "eta_zero_is_deterministic", "still asks for noise", eta=1.0)
@frozen
class EtaZeroIsNoisy(DDIM):
    def step(self, ctx, x, sigma, sigma_next):
        return ctx.ancestral(x, ctx.denoise(x, sigma), sigma, sigma_next, max(self.eta, 0.1), self.s_noise)


@planted("any eta but 0 is taken for 1", "eta_zero_is_deterministic", "jumps", eta=1.0)
@frozen
class EtaIsASwitch(DDIM):
    def step(self, ctx, x, sigma, sigma_next):
        return ctx.ancestral(x, ctx.denoise(x, sigma), sigma, sigma_next, float(self.eta > 0), self.s_noise)


# --------------------------------------------------------------------------------------------------- purity


@planted("it changes x in place", "pure", "state that it was given")
@frozen
class WritesIntoX(Euler):
    def step(self, ctx, x, sigma, sigma_next):
        denoised = ctx.denoise(x, sigma)
        x *= sigma_next / sigma
        return x + denoised * (1.0 - sigma_next / sigma)


@planted("it changes the denoiser's output in place", "pure", "output of the denoiser")
@frozen
class WritesIntoTheOutput(Euler):
    def step(self, ctx, x, sigma, sigma_next):
        denoised = ctx.denoise(x, sigma)
        denoised *= 1.0 - sigma_next / sigma
        return x * (sigma_next / sigma) + denoised


@planted("it changes the history in place", "eager_equals_plan", "plan and step")
@frozen
class WritesIntoTheHistory(DPMpp2M):
    memory = 2

    def step(self, ctx, x, sigma, sigma_next):
        denoised = ctx.denoise(x, sigma)
        if ctx.past:
            lambdas = [ctx.lambda_(level) for level in (sigma_next, sigma, ctx.past[0].sigma)]
            old = ctx.past[-1].denoised
            old -= denoised
            older = ctx.past[0].denoised
            if len(ctx.past) == 1:
                older = older + denoised
            half = (lambdas[0] - lambdas[1]) / (2.0 * (lambdas[1] - lambdas[2]))
            denoised = denoised + (denoised - older) * half
        return ctx.to(x, denoised, sigma, sigma_next)


@planted("its history is on the class, and survives a run", "pure", "run again after another run")
@frozen
class HistoryOnTheClass(Plain):
    path_invariant = True
    linear = False
    last: ClassVar[dict[str, Any]] = {}

    def step(self, ctx, x, sigma, sigma_next):
        denoised = ctx.denoise(x, sigma)
        old = self.last.get("denoised", denoised)
        self.last["denoised"] = denoised
        return ctx.to(x, denoised + (denoised - old) * 0.5, sigma, sigma_next)


@planted("its weights depend on how often it was called", "pure", "gives something else")
@frozen
class CountsItsCalls(Euler):
    calls: ClassVar[list[int]] = []

    def step(self, ctx, x, sigma, sigma_next):
        self.calls.append(1)
        end = ctx.to(x, ctx.denoise(x, sigma), sigma, sigma_next)
        return x + (end - x) * (1.0 + 1e-4 * len(self.calls))


@planted("its plan depends on how often it was made", "resume_equals_run", "ends elsewhere")
@define(hash=False, eq=False)
class CountsItsPlans(Plain):
    plans: ClassVar[list[int]] = []

    def step(self, ctx, x, sigma, sigma_next):
        if not ctx.index:
            self.plans.append(1)
        end = ctx.to(x, ctx.denoise(x, sigma), sigma, sigma_next)
        return x + (end - x) * (1.0 + 1e-4 * len(self.plans))


@planted("it jitters its levels with Python's generator", "pure", "Python's global generator")
@frozen
class Jitters(Euler):
    def step(self, ctx, x, sigma, sigma_next):
        level = sigma * (1.0 + 1e-3 * random.random())
        return ctx.to(x, ctx.denoise(x, level), sigma, sigma_next)


# ------------------------------------------------------------------------------------------- plans and runs


@planted("on tensors it evaluates once more than on symbols", "eager_equals_plan", "times, the step itself")
@frozen
class EvaluatesOnceMore(Euler):
    def step(self, ctx, x, sigma, sigma_next):
        if isinstance(x, torch.Tensor):
            ctx.denoise(x, sigma)
        return super().step(ctx, x, sigma, sigma_next)


@planted("it carries all earlier estimates on, where a sum would do", "plan_does_not_grow", "60 steps")
@frozen
class ReadsMoreAndMore(Plain):
    seen: ClassVar[list[Any]] = []

    def step(self, ctx, x, sigma, sigma_next):
        denoised = ctx.denoise(x, sigma)
        if not ctx.index:
            self.seen.clear()
        self.seen.append(denoised)
        mean = sum(self.seen[1:], self.seen[0]) / len(self.seen)
        return ctx.to(x, denoised + (mean - denoised) * (0.1 - 0.1 * sigma_next / sigma), sigma, sigma_next)


@planted("it takes logarithms and exponentials from `math`", "differentiable_in_the_levels", "gradient")
@frozen
class FromMath(Euler):
    def step(self, ctx, x, sigma, sigma_next):
        ratio = math.exp(math.log(sigma_next) - math.log(sigma))
        return x * ratio + ctx.denoise(x, sigma) * (1.0 - ratio)


@planted("it computes its weights with NumPy", "any_kind_of_number", "ufunc")
@frozen
class FromNumPy(Euler):
    def step(self, ctx, x, sigma, sigma_next):
        ratio = np.exp(np.log(sigma_next) - np.log(sigma))
        return x * ratio + ctx.denoise(x, sigma) * (1.0 - ratio)


@planted("it divides by a norm over the batch", "independent_of_the_batch", "of a batch of 5 are others")
@frozen
class NormOfTheBatch(Plain):
    linear = False

    def step(self, ctx, x, sigma, sigma_next):
        denoised = ctx.denoise(x, sigma)
        share = (x - denoised).norm() / (x.norm() + denoised.norm())
        return ctx.to(x, denoised, sigma, sigma_next * (1.0 - 0.01 * share))


@planted("it works on tensors alone", "nested_states", "raises")
@frozen
class TensorsOnly(Plain):
    linear = False

    def step(self, ctx, x, sigma, sigma_next):
        denoised = ctx.denoise(x, sigma)
        return torch.lerp(denoised, x, sigma_next / sigma)


@planted("it computes in float32", "dtype_and_device_kept", "torch.float32")
@frozen
class CastsToFloat32(Plain):
    linear = False

    def step(self, ctx, x, sigma, sigma_next):
        return ctx.to(x.float(), ctx.denoise(x, sigma).float(), sigma, sigma_next)


@planted("its weights overflow at high levels", "finite_on_extreme_grids", "raises PlanError")
@frozen
class Overflows(Euler):
    def step(self, ctx, x, sigma, sigma_next):
        power = exp(sigma * 1e-1) / exp(sigma * 1e-1)
        return ctx.to(x, ctx.denoise(x, sigma), sigma, sigma_next) * power


@planted("it cuts the gradient of its estimate", "gradients_flow", "gradient")
@frozen
class Detaches(Plain):
    linear = False

    def step(self, ctx, x, sigma, sigma_next):
        denoised = ctx.denoise(x, sigma)
        return ctx.to(x, (denoised * 0.5).detach() + denoised * 0.5, sigma, sigma_next)


@planted("it prints, which a graph cannot", "step_compiles", "raises", slow=True)
@frozen
class Prints(Euler):
    def step(self, ctx, x, sigma, sigma_next):
        print(end="")
        return super().step(ctx, x, sigma, sigma_next)


@planted("on tensors it branches on a value", "step_compiles", "raises", slow=True)
@frozen
class BranchesOnAValue(Euler):
    def step(self, ctx, x, sigma, sigma_next):
        end = super().step(ctx, x, sigma, sigma_next)
        return x if isinstance(x, torch.Tensor) and x.abs().max().item() == 0 else end


# -------------------------------------------------------------------------------------------------- as values


@planted("it can be changed, and compares by its value", "parameters_round_trip", "strength can be set")
@define(unsafe_hash=True)
class Mutable(Plain):
    strength: float = 1.0

    def step(self, ctx, x, sigma, sigma_next):
        return ctx.to(x, ctx.denoise(x, sigma), sigma, sigma_next)


@planted("it can be changed, and so has no hash", "parameters_round_trip", "unhashable")
@define
class NotHashable(Plain):
    strength: float = 1.0

    def step(self, ctx, x, sigma, sigma_next):
        return ctx.to(x, ctx.denoise(x, sigma), sigma, sigma_next)


@planted("a function without a name is a parameter", "parameters_round_trip", "pickle")
@frozen
class NotPicklable(Plain):
    weight: Any = field(factory=lambda: lambda value: value)

    def step(self, ctx, x, sigma, sigma_next):
        return ctx.to(x, ctx.denoise(x, sigma), sigma, sigma_next)


@planted("it does not keep the parameter that it was given", "parameters_round_trip", "not equal to itself")
@frozen
class ChangesItsParameter(Plain):
    strength: float = field(default=2.0, converter=lambda value: value * 0.5)

    def step(self, ctx, x, sigma, sigma_next):
        return ctx.to(x, ctx.denoise(x, sigma), sigma, sigma_next)


@planted("no attrs class: it compares by identity", "parameters_round_trip", "no attrs class")
class NoAttrs(Plain):
    def step(self, ctx, x, sigma, sigma_next):
        return ctx.to(x, ctx.denoise(x, sigma), sigma, sigma_next)


@planted("its docstring does not state its order", "describes_itself", "its order")
@frozen
class WithoutOrder(Euler):
    """Euler's method (Karras et al. 2022)."""


@planted("its docstring cites no source", "describes_itself", "cites no source")
@frozen
class WithoutSource(Euler):
    """Euler's method; of order 1."""


@planted("its order is no whole number", "describes_itself", "no whole number")
@frozen
class FractionalOrder(Euler):
    order = 1.0


# ------------------------------------------------------------------------------- correct, though unusual


@frozen
class Clamps(Plain):
    """Euler with D kept in the data's range, a nonlinear method of order 1 (Ho et al. 2020)."""

    linear = False

    def step(self, ctx, x, sigma, sigma_next):
        return ctx.to(x, ctx.denoise(x, sigma).clamp(-1.0, 1.0), sigma, sigma_next)


@frozen
class NormOfTheSample(Plain):
    """Euler with a step that depends on each sample's own norm, nonlinear, of order 1 (nobody 2022)."""

    linear = False

    def step(self, ctx, x, sigma, sigma_next):
        denoised = ctx.denoise(x, sigma)
        size = (x - denoised).norm(dim=-1, keepdim=True) / sigma
        return ctx.to(x, denoised, sigma, sigma_next) + (x - denoised) * size * 0.0


@frozen
class ReadsTheOlder(DPMpp2M):
    """Extrapolates through the point before the last: of order 2 as well (Lu et al. 2022)."""

    memory = 2

    def step(self, ctx, x, sigma, sigma_next):
        denoised = ctx.denoise(x, sigma)
        if ctx.past:
            h = ctx.lambda_(sigma_next) - ctx.lambda_(sigma)
            r = (ctx.lambda_(sigma) - ctx.lambda_(ctx.past[-1].sigma)) / h
            denoised = denoised + (denoised - ctx.past[-1].denoised) / (2.0 * r)
        return ctx.to(x, denoised, sigma, sigma_next)
