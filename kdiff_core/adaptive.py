"""`AdaptiveSampler`: the base of samplers that choose their own steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from attrs import field, frozen

from .errors import CapabilityError, GridError
from .numerics import Number
from .parameters import fraction, not_negative, one_of, positive, whole
from .path import Path
from .sampler import StepSampler

if TYPE_CHECKING:
    from .context import StepContext
    from .grid import Grid
    from .protocols import Process


@frozen
class AdaptiveSampler(StepSampler):
    """A sampler that chooses its steps by an estimate of their error. A subclass gives `attempt`.

    Of the caller's grid it takes the first level and the last above 0; between them it tries steps of its
    own, sized in log-SNR. The error of a try is the root mean square of the difference of its two results,
    ``x_next`` and ``x_lower``, in units of ``max(atol, rtol max(|x_lower|, |x_before|))``, ``x_before`` being
    the `x_lower` of the last accepted try (Jolicoeur-Martineau et al. 2021, arXiv:2105.14080). A PID
    controller (Soderlind and Wang 2006, "Adaptive time-stepping and computational stability") makes a factor
    of it and of the errors of the last two accepted steps, by which the next step is longer. A try is
    rejected, and a shorter one made, where the factor by its own error alone is below `accept_safety`. Noise
    is that of one Brownian path, whatever is rejected on the way (see `kdiff_core.draw.PathNoise`).

    Each accepted step is a step of the run. ``result.info`` has ``levels``, those visited; ``accepted`` and
    ``rejected``, the tries. With ``per="sample"`` a step of the run is a try of all samples of which one at
    least is accepted; its level is the highest of all samples', which may stay where it is, and ``info`` has
    ``accepted``, ``rejected``, ``sample_evaluations`` and ``sample_levels`` with an entry for each sample.
    In a `StepInfo`, ``total`` is the least number of steps that the run may have.

    Attributes:
        rtol: Relative tolerance, 0 or more.
        atol: Absolute tolerance, above 0, in units of the data.
        h_init: Size of the first try in log-SNR.
        pcoeff: Proportional coefficient of the controller.
        icoeff: Integral coefficient.
        dcoeff: Derivative coefficient.
        accept_safety: Least factor ``1 + atan(error^(-1/k) - 1)`` of a try that is accepted, k being the
            `error_order`; above 0 and at most 1.
        per: Whether each ``"sample"`` has steps of its own, which its neighbours in the batch do not change,
            or the ``"batch"`` has one step for all, by the mean of their errors.
        max_evaluations: Most model calls of a run; one that would need more is stopped by an error.
    """

    rtol: float = field(default=0.05, converter=float, validator=not_negative)
    atol: float = field(default=0.0078, converter=float, validator=positive, metadata={"unit": "sigma"})
    h_init: float = field(default=0.05, converter=float, validator=positive)
    pcoeff: float = field(default=0.0, converter=float, validator=not_negative)
    icoeff: float = field(default=1.0, converter=float, validator=not_negative)
    dcoeff: float = field(default=0.0, converter=float, validator=not_negative)
    accept_safety: float = field(default=0.81, converter=float, validator=fraction)
    per: str = field(default="sample", validator=one_of("sample", "batch"))
    max_evaluations: int = field(default=1000, validator=whole(1))

    linear = False

    @property
    def known_failures(self) -> Mapping[str, str]:  # type: ignore[override]  # it depends on `per`
        """What steps that depend on the state break."""
        scale = "the tolerance is relative to the size of the states, which a shift changes"
        whole = "the error is that of the whole state, so that its parts share their steps"
        through = "no gradient is taken through the choice of the steps"
        found = {"shift_equivariance": scale, "exact_in_many_steps": scale}
        found |= {"nested_states": whole, "gradients_flow": through}
        if self.per == "batch":
            found["independent_of_the_batch"] = "the batch shares its steps; per='sample' does not"
        return found

    @property
    def error_order(self) -> float:
        """Power of the step with which the error of a try falls: one more than the lower order."""
        raise NotImplementedError(f"{type(self).__name__} has no error_order")

    def attempt(self, ctx: StepContext, x: Any, sigma: Number, sigma_next: Number) -> tuple[Any, Any]:
        """Try a step; pure, as `step` is.

        Args:
            ctx: What the try can ask for; it has no past.
            x: State at `sigma`.
            sigma: Level of the state: a number, or with ``per="sample"`` a vector ``(B,)`` in float64, which
                `kdiff_core.numerics`, `ctx` and the path take as they take numbers. It cannot be branched on.
            sigma_next: Level to reach, above 0; likewise.

        Returns:
            The result, and one of lower order.
        """
        raise NotImplementedError(f"{type(self).__name__} has no attempt")

    def step(self, ctx: StepContext, x: Any, sigma: Number, sigma_next: Number) -> NoReturn:
        """Refuse: its steps are chosen by the run.

        Raises:
            CapabilityError: Always; a modifier asks for a step.
        """
        raise CapabilityError(
            f"{self!r} chooses its own steps, so that no other sampler can take one of them; modifiers work "
            "on samplers with steps, such as 'dpm_solver_3s' or 'heun'"
        )

    def prepare(self, grid: Grid, path: Path, process: Process | None) -> Sequence[float]:
        """The first level, the last above 0, and 0 if the grid ends in it: they are visited for sure."""
        if grid[0] < grid[-1]:
            raise GridError(f"{self!r} goes from noise to data only; invert with fixed steps")
        last = grid[-2] if grid[-1] == 0 else grid[-1]
        return [grid[0], *([last] if last < grid[0] else []), *([0.0] if grid[-1] == 0 else [])]
