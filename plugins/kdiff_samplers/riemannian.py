"""Flow matching on manifolds: Runge-Kutta methods whose steps are geodesics."""

from __future__ import annotations

import math
from typing import Any, Protocol

from attrs import Attribute, field, frozen

from kdiff_core import StepContext, StepSampler
from kdiff_core.errors import ParameterError
from kdiff_core.parameters import one_of

from .per_leaf import per_leaf

# Rows of the stages, then the weights.
METHODS: dict[str, tuple[tuple[float, ...], ...]] = {
    "euler": ((), (1.0,)),
    "midpoint": ((), (0.5,), (0.0, 1.0)),
    "rk4": ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0), (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
}


class Manifold(Protocol):
    """What a manifold does with tensors whose last dimension is that of the space around it."""

    def exp(self, x: Any, v: Any) -> Any:
        """The end of the geodesic from the point `x` with the tangent vector `v`."""

    def log(self, x: Any, y: Any) -> Any:
        """The tangent vector at `x` of the shortest geodesic to `y`; its inverse."""

    def pull(self, x: Any, y: Any, v: Any) -> Any:
        """The tangent vector `v` at `y` as one at `x`: the derivative of ``log(x, y)`` along it."""


@frozen
class Euclidean:
    """Flat space."""

    def exp(self, x: Any, v: Any) -> Any:
        """The sum."""
        return x + v

    def log(self, x: Any, y: Any) -> Any:
        """The difference."""
        return y - x

    def pull(self, x: Any, y: Any, v: Any) -> Any:
        """The same vector."""
        return v


@frozen
class Torus(Euclidean):
    """Angles, each from -pi to pi."""

    def exp(self, x: Any, v: Any) -> Any:
        """The sum, within the range."""
        return self._wrapped(x + v)

    def log(self, x: Any, y: Any) -> Any:
        """The difference, the shorter way round."""
        return self._wrapped(y - x)

    def _wrapped(self, angle: Any) -> Any:
        return (angle + math.pi) % (2.0 * math.pi) - math.pi


@frozen
class Sphere:
    """Unit vectors. A data estimate of another length stands for its direction."""

    def exp(self, x: Any, v: Any) -> Any:
        """Along the great circle."""
        angle = _length(v)
        y = x * angle.cos() + v * (angle.sin() / angle)
        return y / _length(y)

    def log(self, x: Any, y: Any) -> Any:
        """Along the great circle; none is the shortest to the opposite point, where this is 0."""
        along = (x * y).sum(-1, keepdim=True)
        away = y - x * along
        length = _length(away)
        return away * (length.atan2(along) / length)

    def pull(self, x: Any, y: Any, v: Any) -> Any:
        """The part along the great circle turned, the part across it scaled as geodesics spread."""
        way = self.log(x, y)
        angle = _length(way)
        ahead = way / angle
        here = ahead * angle.cos() - x * angle.sin()  # the same direction at y
        along = (v * here).sum(-1, keepdim=True)
        return ahead * along + (v - here * along) * (angle / angle.sin())


def _length(v: Any) -> Any:
    """Norm along the last dimension, kept above 0, so that one may divide by it."""
    import torch

    return (v * v).sum(-1, keepdim=True).clamp_min(torch.finfo(v.dtype).tiny).sqrt()


MANIFOLDS: dict[str, Manifold] = {"euclidean": Euclidean(), "torus": Torus(), "sphere": Sphere()}


def _manifold(value: Any) -> Any:
    return MANIFOLDS.get(value, value) if isinstance(value, str) else value


def _is_manifold(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if not all(callable(getattr(value, name, None)) for name in ("exp", "log", "pull")):
        raise ParameterError(
            f"Riemannian: manifold={value!r:.60} is none of {', '.join(map(repr, MANIFOLDS))}, and has not "
            "the methods exp, log and pull of kdiff_samplers.riemannian.Manifold"
        )


@frozen
class Riemannian(StepSampler):
    """Sampling from flow matching on a manifold; order 1, 2 or 4.

    Chen and Lipman 2023, arXiv:2302.03660: data and noise are joined by geodesics, so that the state moves
    with ``dx/dsigma = -log_x(D) / sigma``. A step is a Runge-Kutta method in the normal coordinates at its
    start, ``log_x``, to which the slopes of the stages are pulled back by its derivative: so it keeps the
    order of the method (Munthe-Kaas 1999), stays on the manifold, and is a geodesic for a constant D.
    Euler's is ``exp_x((1 - sigma'/sigma) log_x(D))``. In flat space these are the usual methods in sigma. The
    step into 0 is Euler's.

    Attributes:
        manifold: ``"euclidean"``, ``"torus"`` (angles), ``"sphere"`` (unit vectors along the state's last
            dimension), or an object with the methods of `Manifold`.
        method: ``"euler"``, ``"midpoint"`` or ``"rk4"``.
    """

    manifold: Any = field(default="euclidean", converter=_manifold, validator=_is_manifold)
    method: str = field(default="euler", validator=one_of(*METHODS))

    linear = False
    reaches_zero = True

    @property
    def order(self) -> int:
        """The method's."""
        return {"euler": 1, "midpoint": 2, "rk4": 4}[self.method]

    def step(self, ctx: StepContext, x: Any, sigma: float, sigma_next: float) -> Any:
        """The stages, each at the end of a geodesic from the start."""
        on, h = self.manifold, sigma_next - sigma
        *rows, weights = METHODS[self.method if sigma_next > 0 else "euler"]
        slopes: list[Any] = []
        for row in rows:
            place, y = sum(row), x
            level = sigma * (1.0 - place) + sigma_next * place
            if row:
                y = per_leaf(on.exp, x, _combined(row, slopes) * h)
            slope = per_leaf(on.log, y, ctx.denoise(y, level)) * (-1.0 / level)
            slopes.append(per_leaf(on.pull, x, y, slope) if row else slope)
        return per_leaf(on.exp, x, _combined(weights, slopes) * h)


def _combined(weights: tuple[float, ...], slopes: list[Any]) -> Any:
    terms = [slope * weight for weight, slope in zip(weights, slopes, strict=True) if weight]
    return sum(terms[1:], terms[0])
