"""CFG++: guided data, unconditional noise, for any solver."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from kdiff_core import VE, StepContext, StepSampler, get_sampler
from kdiff_core.context import InnerContext
from kdiff_core.errors import ParameterError
from kdiff_core.parameters import one_of

from .hosts import AS_VE
from .wrapped import Wrapped


class _Guided(InnerContext):
    """The context of a step whose state is said to be guided data with unconditional noise."""

    def __init__(
        self,
        ctx: StepContext,
        x: Any,
        sigma: float,
        newest: bool = False,
        as_ve: bool = False,
        data: str = "denoised",
    ) -> None:
        super().__init__(ctx)
        self._sigma = sigma
        self._start = ctx.predict(x, sigma)
        self._uncond = self._start.uncond
        self._newest = newest
        self._data = getattr(self._start, data)
        self._pending = True
        self.path = VE if as_ve else ctx.path
        self.x = self._moved(x)
        self._given = x

    def _moved(self, x: Any) -> Any:
        """The state whose noise, given the guided data, is that of `x` given the unconditional data."""
        return x + (self._start.denoised - self._uncond) * self.alpha(self._sigma)

    def denoise(self, x: Any, sigma: float) -> Any:
        """The guided output; at the step's start the one that is known."""
        if self._pending:
            if x is not self.x or sigma != self._sigma:
                raise ParameterError(
                    "cfg_pp: the solver moves the state before it evaluates the step's start; wrap it the "
                    "other way round"
                )
            self._pending = False
            return self._data
        output = self.predict(x, sigma)
        self._uncond = output.uncond
        return output.denoised

    def advance(self, solver: StepSampler, x: Any, sigma: float, sigma_next: float) -> Any:
        """The solver's step, which has to ask for its start."""
        after = super().advance(solver, x, sigma, sigma_next)
        if self._pending:
            raise ParameterError(
                "cfg_pp: the solver does not evaluate the step's start; wrap it the other way round"
            )
        return after

    def to(self, x: Any, denoised: Any, sigma: float, sigma_next: float) -> Any:
        """The same move; a host takes the noise from the newest evaluation."""
        if self._newest and x is self.x and self._uncond is not self._start.uncond:
            x = self._moved(self._given)
        return super().to(x, denoised, sigma, sigma_next)


@frozen
class CFGpp(Wrapped):
    """CFG++: the guided output is the data, the unconditional one says which way the noise lies.

    Chung et al. 2024, arXiv:2406.08070, Algorithm 2: after the evaluation of a step's start, the state
    ``alpha D + sigma eps`` that the solver goes on from has the guided D and the eps of the unconditional
    output U: ``x + alpha (D - U)``. With Euler this is the paper's DDIM; the same holds for every solver
    that evaluates its step's start first. Where D and U are equal it is the solver itself, and of its order.

    Attributes:
        solver: The solver, a sampler or its name.
        cfg_pp: False is the solver alone.
    """

    solver: StepSampler = field(default="euler", converter=get_sampler)
    cfg_pp: bool = field(default=True, validator=one_of(True, False))

    reaches_zero = True  # so that each evaluation, the last one too, asks for the same outputs

    @property
    def needs(self) -> frozenset[str]:
        """The unconditional output."""
        return self.solver.needs | {"uncond"} if self.cfg_pp else self.solver.needs

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """The solver's step from the state with the unconditional noise."""
        if not self.cfg_pp or sigma_next > sigma:  # a restart only adds noise
            return ctx.advance(self.solver, x, sigma, sigma_next)
        guided = _Guided(ctx, x, sigma)
        ctx.keep(x=guided.x)
        return guided.advance(self.solver, guided.x, sigma, sigma_next)


@frozen
class HostCFGpp(CFGpp):
    """CFG++ as a host's multistep and two-stage samplers have it; of the solver's order where D = U.

    comfyanonymous 2024, ComfyUI. What differs is found in its numbers alone.

    Attributes:
        history: What later steps find as this one's data estimate: ``"denoised"``, or ``"uncond"``.
        newest: Whether the noise of a step's end is that of its newest evaluation, not of its first: of
            order 0, since then D and U are of different levels.
        data: What a step that has a history takes for the data estimate, unless it ends in 0:
            ``"denoised"``, or ``"uncond"``.
        as_ve: Whether the levels of a flow path are taken for levels of VE.
    """

    history: str = field(default="denoised", validator=one_of("denoised", "uncond"))
    newest: bool = field(default=False, validator=one_of(True, False))
    data: str = field(default="denoised", validator=one_of("denoised", "uncond"))
    as_ve: bool = field(default=False, validator=one_of(True, False))

    @property
    def order(self) -> int:
        """The solver's, or 0."""
        return 0 if self.newest else self.solver.order

    @property
    def order_smooth(self) -> int:
        """The solver's, or 0."""
        return 0 if self.newest else self.solver.order_smooth

    @property
    def path_invariant(self) -> bool:
        """The solver's, where each path's own levels are read."""
        return self.solver.path_invariant and not self.as_ve

    @property
    def known_failures(self) -> Mapping[str, str]:
        """The solver's, and what noise in the wrong proportion breaks."""
        known = dict(super().known_failures)
        if self.as_ve and self.stochastic:
            known |= {
                law: why for law, why in AS_VE.items() if law != "output_distribution" or not self.newest
            }
        return known

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """The same, with another history."""
        if not self.cfg_pp or sigma_next > sigma:
            return ctx.advance(self.solver, x, sigma, sigma_next)
        data = self.data if ctx.past and sigma_next > 0 else "denoised"
        guided = _Guided(ctx, x, sigma, self.newest, self.as_ve, data)
        ctx.keep(x=guided.x)
        after = guided.advance(self.solver, guided.x, sigma, sigma_next)
        if self.history == "uncond":
            ctx.keep(denoised=guided._start.uncond)
        return after
