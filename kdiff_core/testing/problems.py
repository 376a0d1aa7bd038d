"""Problems with exact solutions: denoisers on which a sampler's error is known to the last digits.

Each is a frozen value of floats and tuples: equal ones hash alike, pickle, and print as the call that
makes them. `Gaussian` asks for means, covariances and errors, `LinearDenoiser`, `Constant` and
`Polynomial` for what a solver integrates exactly, `Mixture` and `Empirical` for everything else.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from attrs import Attribute, evolve, field, frozen

from ..errors import ParameterError
from ..numerics import exp, phi
from ..path import as_path
from .mixtures import Empirical, Mixture
from .reference import Problem, as_numbers, numbers, random_state, rank, row_by_row, solve

__all__ = [
    "Constant", "Empirical", "Gaussian", "LinearDenoiser", "Mixture", "Polynomial", "Problem",
    "random_state", "solve",
]  # fmt: skip

Vector = float | tuple[float, ...]


def _a_covariance(instance: Gaussian, attribute: Attribute[Any], value: Any) -> None:
    """Refuse what is no covariance, or not of the mean's length."""
    depth, means = rank(value), instance.mean
    array = np.array(value)
    if depth == 2 and (
        array.shape[0] != array.shape[1] or (array != array.T).any() or np.linalg.eigvalsh(array)[0] <= 0
    ):
        raise ParameterError(
            f"Gaussian: covariance={value!r} is not symmetric positive definite; average a (d, d) with its "
            "transpose, and keep its eigenvalues above 0"
        )
    if depth != 2 and array.min() <= 0:
        raise ParameterError(f"Gaussian: covariance={value!r}; variances must be above 0")
    if depth and isinstance(means, tuple) and len(means) != len(value):
        raise ParameterError(
            f"Gaussian: a mean of length {len(means)}, a covariance of {len(value)}; make them equal"
        )


@lru_cache(maxsize=256)
def _spectrum(covariance: Any) -> tuple[Any, np.ndarray | None]:
    """Variances, a float or ``(d,)``, along the columns of a rotation ``(d, d)`` (None: along the axes)."""
    if rank(covariance) != 2:
        return covariance, None
    values, basis = np.linalg.eigh(np.array(covariance))
    return tuple(values.tolist()), basis


def _rotated(x: torch.Tensor, matrix: np.ndarray) -> torch.Tensor:
    """``matrix @ x`` along the last dimension.

    Single products and sums give the same bits in a batch of any size; a matrix product does not.
    """
    columns = torch.tensor(matrix.T.copy()).to(x)
    total = columns[0] * x[..., :1]
    for j in range(1, len(columns)):
        total = total + columns[j] * x[..., j : j + 1]
    return total


@frozen
class Gaussian(Problem):
    """Normal data of mean ``m`` and covariance ``C``: ``D = m + alpha C S^-1 (x - alpha m)``.

    ``S = alpha^2 C + sigma^2`` is the covariance of a state. Along each eigenvector of ``C``, of variance
    ``v``, the flow keeps the quantile: ``x' = alpha' m + sqrt((alpha'^2 v + sigma'^2) / (alpha^2 v +
    sigma^2)) (x - alpha m)``.

    As a plan's result is affine in the state, it can be followed exactly through a whole run, mean and
    covariance too. With a single variance the error is one number, which as a function of the step may
    cross 0 and so give a false order; several variances do not cross at once. A full covariance finds
    code that takes the dimensions for independent.

    Args:
        path: ``"ve"`` or ``"flow"``.
        mean: A number, or ``(d,)``, in units of the data.
        covariance: A variance, ``(d,)`` variances, or a symmetric positive definite ``(d, d)``.
    """

    mean: Vector = field(default=0.3, converter=as_numbers, validator=numbers(0, 1))
    covariance: float | tuple[float, ...] | tuple[tuple[float, ...], ...] = field(
        default=(0.01, 0.2, 1.0, 4.0), converter=as_numbers, validator=[numbers(0, 1, 2), _a_covariance]
    )

    @property
    def _length(self) -> int | None:
        return next((len(v) for v in (self.mean, self.covariance) if isinstance(v, tuple)), None)

    def affine(self, sigma: float) -> tuple[np.ndarray, np.ndarray]:
        """Return ``A`` ``(d, d)`` and ``b`` ``(d,)`` of ``D(x, sigma) = A x + b``, in float64."""
        alpha = as_path(self.path).alpha(float(sigma))
        variances, basis = _spectrum(self.covariance)
        values, basis = (
            np.broadcast_to(variances, (self.dims,)),
            np.eye(self.dims) if basis is None else basis,
        )
        matrix = (basis * (alpha * values / (alpha**2 * values + float(sigma) ** 2))) @ basis.T
        return matrix, self._centre() - alpha * matrix @ self._centre()

    def marginal(self, sigma: float) -> tuple[np.ndarray, np.ndarray]:
        """Return mean ``(d,)`` and covariance ``(d, d)`` of a state at level `sigma`, in float64."""
        alpha, given = as_path(self.path).alpha(float(sigma)), np.array(self.covariance)
        data = given if given.ndim == 2 else np.diag(np.broadcast_to(given, (self.dims,)))
        return alpha * self._centre(), alpha**2 * data + float(sigma) ** 2 * np.eye(self.dims)

    def shifted(self, offset: Vector) -> Gaussian:
        """Return the problem of the data plus an `offset`, a number or ``(d,)``."""
        return evolve(self, mean=np.array(self.mean) + np.array(offset))

    def scaled(self, factor: float) -> Gaussian:
        """Return the problem of the data times a `factor` that is not 0."""
        square = np.array(self.covariance) * float(factor) ** 2
        return evolve(self, mean=np.array(self.mean) * float(factor), covariance=square)

    def _centre(self) -> np.ndarray:
        return np.broadcast_to(np.array(self.mean), (self.dims,)).copy()

    def _denoise(self, x: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        variance, mean = x.new_tensor(_spectrum(self.covariance)[0]), x.new_tensor(self.mean)
        weight = alpha * variance / (alpha * alpha * variance + sigma * sigma)
        return self._along(weight, x - alpha * mean) + mean

    def _solution(self, x: torch.Tensor, sigma: float, sigma_next: float) -> torch.Tensor:
        variance, mean = x.new_tensor(_spectrum(self.covariance)[0]), x.new_tensor(self.mean)
        a: float = as_path(self.path).alpha(sigma)
        b: float = as_path(self.path).alpha(sigma_next)
        scale = torch.sqrt((b * b * variance + sigma_next**2) / (a * a * variance + sigma**2))
        return self._along(scale, x - a * mean) + b * mean

    def _along(self, factor: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Multiply `x` by a factor for each eigenvector of the covariance."""
        basis = _spectrum(self.covariance)[1]
        return factor * x if basis is None else _rotated(factor * _rotated(x, basis.T), basis)


@frozen
class LinearDenoiser(Problem):
    """``D = slope x + offset`` at every level: ``x' = e^(m L) x - offset L phi_1(m L)``.

    ``m = 1 - slope``, ``L = log(sigma' / sigma)``, ``phi_1(z) = (e^z - 1) / z``: the variation of
    constants, the same on both paths.

    It does not know of the path's ``alpha``, and has one solution on both: a sampler that takes one path for
    the other errs on one of them. For a slope of 1 the state only drifts, ``x' = x - offset L``.

    Args:
        path: ``"ve"`` or ``"flow"``.
        slope: Any finite number, 1 included.
        offset: Any finite number, in units of the data.
    """

    slope: float = field(default=0.5, converter=as_numbers, validator=numbers(0))
    offset: float = field(default=0.2, converter=as_numbers, validator=numbers(0))

    def _denoise(self, x: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return self.slope * x + self.offset

    def _solution(self, x: torch.Tensor, sigma: float, sigma_next: float) -> torch.Tensor:
        power = 1 - self.slope
        if sigma_next == 0:
            if power <= 0:
                raise ParameterError(f"{self!r}: no finite solution at sigma_next=0 for a slope of 1 or more")
            return torch.full_like(x, self.offset / power)
        length = math.log(sigma_next / sigma)
        kept: float = exp(power * length)
        drift: float = self.offset * length * phi(1, power * length)
        return kept * x - drift


@frozen
class Constant(Problem):
    """``D = value`` at every level: ``x' = (sigma' / sigma) x + (1 - sigma' / sigma) value`` on both paths.

    Every sampler without noise must be exact on it, in one step or many: a wrong weight shows at once,
    apart from all questions of order. Each call returns a tensor of its own.

    Args:
        path: ``"ve"`` or ``"flow"``.
        value: A number, or ``(d,)``, in units of the data.
    """

    value: Vector = field(default=0.7, converter=as_numbers, validator=numbers(0, 1))

    @property
    def _length(self) -> int | None:
        return len(self.value) if isinstance(self.value, tuple) else None

    def _denoise(self, x: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return x.new_tensor(self.value).expand(x.shape).clone()

    def _solution(self, x: torch.Tensor, sigma: float, sigma_next: float) -> torch.Tensor:
        kept = sigma_next / sigma
        return kept * x + (1 - kept) * x.new_tensor(self.value)


@frozen
class Polynomial(Problem):
    """``D = sum_k c_k lambda^k``, whatever the state: a polynomial in the log-SNR ``lambda(sigma)``.

    ``x' = (sigma' / sigma) x + alpha' sum_j D^(j)(lambda) h^(j+1) phi_(j+1)(-h)``, ``h = lambda' - lambda``,
    ``D^(j)`` the derivatives by lambda: the integral of ``d(x / sigma) = D e^lambda dlambda``, taken by
    the phi functions so that nothing cancels in a small step (Hochbruck and Ostermann 2010,
    "Exponential integrators", eq. 2.10).

    An exponential integrator in lambda with exact history that interpolates `n` outputs is exact up to
    degree ``n - 1``; the lowest degree at which it errs is its order, found without any limit of steps.

    At the ends of a path, where lambda is infinite (0, and 1 on flow), a degree of 1 or more is refused.

    Args:
        path: ``"ve"`` or ``"flow"``.
        coefficients: ``c_0, c_1, ...``, in units of the data.
    """

    coefficients: tuple[float, ...] = field(default=(1.0, -0.5), converter=as_numbers, validator=numbers(1))

    @property
    def degree(self) -> int:
        """Highest power with a coefficient other than 0."""
        return max((k for k, c in enumerate(self.coefficients) if c), default=0)

    def _denoise(self, x: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        if self.degree and bool((alpha * sigma == 0).any()):
            raise self._infinite()
        lambda_ = row_by_row(torch.log, alpha / sigma) if self.degree else sigma
        total = torch.zeros_like(sigma)
        for coefficient in reversed(self.coefficients[: self.degree + 1]):
            total = total * lambda_ + coefficient
        return total.expand(x.shape).clone()

    def _solution(self, x: torch.Tensor, sigma: float, sigma_next: float) -> torch.Tensor:
        kept, path = sigma_next / sigma, as_path(self.path)
        if not self.degree:
            return kept * x + (sigma - sigma_next) / sigma * self.coefficients[0]
        if 0 in (sigma_next, path.alpha(sigma), path.alpha(sigma_next)):
            raise self._infinite()
        start = path.lambda_(sigma)
        # The same as the difference of two lambdas, which would lose the digits of a small step.
        far = (sigma - sigma_next) / (path.alpha(sigma) * sigma_next)
        h = math.log1p(far) if abs(far) < 0.5 else path.lambda_(sigma_next) - start
        derivative, total = np.polynomial.Polynomial(self.coefficients), 0.0
        for j in range(self.degree + 1):
            total += float(derivative(start)) * h ** (j + 1) * phi(j + 1, -h)
            derivative = derivative.deriv()
        added: float = path.alpha(sigma_next) * total
        return kept * x + added

    def _infinite(self) -> ParameterError:
        ends = "above 0" if self.path == "ve" else "above 0 and below 1"
        return ParameterError(f"{self!r}: infinite where lambda is; take levels {ends}")
