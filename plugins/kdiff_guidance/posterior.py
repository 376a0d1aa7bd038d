"""Posterior guidance: samples that agree with an observation of the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from attrs import Attribute, field, frozen
from torch import Tensor

from kdiff_core.errors import DenoiserError, ParameterError
from kdiff_core.parameters import finite, not_negative, positive, whole
from kdiff_core.state import flatten, rebuild

from .gradient import Gradient, slopes
from .guided import Cond, denoises
from .vectors import column, inner, ratio


def _tensor(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if not isinstance(value, Tensor) or value.ndim == 0 or not value.is_floating_point():
        raise ParameterError(
            f"{type(instance).__name__}: observed={value!r:.60} is no floating-point tensor (B, ...)"
        )


@frozen(eq=False)
class _Posterior(Gradient):
    observed: Tensor = field(validator=_tensor, repr=lambda value: f"<{tuple(value.shape)}>")
    operator: Callable[[Any], Tensor] = field(validator=denoises)

    def _residual(self, denoised: Any) -> Tensor:
        """What of the observation the data estimate does not explain, ``(B, ...)``."""
        found = self.operator(denoised)
        wanted = self.observed.to(found)
        if wanted.shape[1:] != found.shape[1:] or len(wanted) not in (1, len(found)):
            raise DenoiserError(
                f"{type(self).__name__}: the operator gives {tuple(found.shape)}, the observation is "
                f"{tuple(wanted.shape)}; it has one row, or one for each sample"
            )
        return wanted - found


@frozen(eq=False)
class DPS(_Posterior):
    """Diffusion posterior sampling: the likelihood of an observation of the data estimate, ``p(y | D(x))``.

    Chung et al. 2022, arXiv:2209.14687: ``log p(y | x)`` is taken as ``-|y - A(D(x))|^2 / (2 noise^2)``, and
    its gradient goes through the denoiser. This is the score; the paper's sampler gives it a step size of
    its own in place of ``1 / (2 noise^2)``, for which `scale` stands. At high levels it overstates what is
    known; `PiGDM` does not, for linear operators.

    Its other options, `sigma_low` and `sigma_high`, are those of `Guidance`.

    Args:
        denoiser: The denoiser to guide.
        observed: ``y``, ``(B, ...)`` or ``(1, ...)`` for all samples.
        operator: ``A(x0) -> (B, ...)``, differentiable, each sample alone.
        noise: Standard deviation of the observation's noise, above 0.
        scale: Finite; 0 is the output beneath.

    Raises:
        ParameterError: A parameter is out of its range.
    """

    noise: float = field(default=1.0, converter=float, validator=positive)
    scale: float = field(default=1.0, converter=float, validator=finite)

    @property
    def neutral(self) -> bool:
        """Whether it is the output beneath."""
        return self.scale == 0

    def weight(self) -> float:
        """The scale."""
        return self.scale

    def score(self, x: Any, sigma: Tensor, denoised: Any, cond: Cond, create_graph: bool) -> Any:
        """``-grad_x |y - A(D(x))|^2 / (2 noise^2)``."""
        residual = self._residual(denoised)
        # Of residual^2 / -2 noise^2 the derivative in the residual, then in x.
        return slopes(residual, x, residual * (-1 / self.noise**2), create_graph, "DPS: the observation")


@frozen(eq=False)
class PiGDM(_Posterior):
    """Pseudoinverse guidance: as `DPS`, with what is not known of the data beside the observation's noise.

    Song et al. 2023, ICLR, "Pseudoinverse-guided diffusion models for inverse problems": for a linear
    operator ``y | x`` is normal with mean ``A D(x)`` and covariance ``r^2 A A^T + noise^2``, where ``r^2`` is
    the variance of normal data of deviation `data_std` given the state. On such data it is exact. The linear
    system is solved by conjugate gradients, each step an application of the operator and of its transpose.

    Its other options, `sigma_low` and `sigma_high`, are those of `Guidance`.

    Args:
        denoiser: The denoiser to guide.
        observed: ``y``, ``(B, ...)`` or ``(1, ...)`` for all samples.
        operator: ``A(x0) -> (B, ...)``, linear (no constant) and differentiable, each sample alone.
        noise: Standard deviation of the observation's noise, at least 0.
        data_std: Standard deviation of the data, above 0.
        iterations: Steps of conjugate gradients, at least 1; a mask, or an average of disjoint parts of one
            size, needs one.

    Raises:
        ParameterError: A parameter is out of its range.
    """

    noise: float = field(default=0.0, converter=float, validator=not_negative)
    data_std: float = field(default=1.0, converter=float, validator=positive)
    iterations: int = field(default=10, validator=whole(1))

    def weight(self) -> float:
        """1."""
        return 1.0

    def score(self, x: Any, sigma: Tensor, denoised: Any, cond: Cond, create_graph: bool) -> Any:
        """``(dD/dx)^T A^T (r^2 A A^T + noise^2)^-1 (y - A D(x))``."""
        transpose = self._transpose(denoised, create_graph)
        with torch.set_grad_enabled(create_graph):
            residual = self._residual(denoised)
            alpha, square = self._path.alpha(sigma), self.data_std**2
            r2 = column(square * sigma**2 / (alpha**2 * square + sigma**2), residual).to(residual)

        def apply(v: Tensor) -> Tensor:
            back = rebuild(denoised, transpose(v))
            with torch.set_grad_enabled(create_graph):
                return self.operator(back) * r2 + v * self.noise**2

        back = transpose(_solved(apply, residual, self.iterations))
        return slopes(denoised, x, rebuild(denoised, back), create_graph, "PiGDM: the output")

    def _transpose(self, denoised: Any, create_graph: bool) -> Callable[[Tensor], tuple[Tensor, ...]]:
        """The operator's transpose, by which autograd goes backwards through it."""
        probe = [torch.zeros_like(leaf).requires_grad_() for leaf in flatten(denoised)]
        image = self.operator(rebuild(denoised, probe))

        def transpose(v: Tensor) -> tuple[Tensor, ...]:
            return torch.autograd.grad(
                image, probe, v, retain_graph=True, create_graph=create_graph, materialize_grads=True
            )

        return transpose


def _solved(apply: Callable[[Tensor], Tensor], b: Tensor, iterations: int) -> Tensor:
    """Solve a positive semidefinite linear system for each sample alone, by conjugate gradients from 0."""
    v, left = torch.zeros_like(b), b
    direction, size = b, inner(b, b)
    for _ in range(iterations):
        image = apply(direction)
        length = ratio(size, inner(direction, image))
        v, left = v + direction * length, left - image * length
        size, before = inner(left, left), size
        direction = left + direction * ratio(size, before)
    return v
