"""Problems that are not linear: mixtures of normal distributions, and data sets as such mixtures."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from attrs import Attribute, field, frozen

from ..errors import ParameterError
from ..parameters import positive
from .reference import Problem, as_numbers, numbers, row_by_row, solve


def _one_each(instance: Any, attribute: Attribute[Any], value: tuple[Any, ...]) -> None:
    """Refuse a field that has not one value for each component."""
    if len(value) != len(instance.weights):
        raise ParameterError(
            f"{type(instance).__name__}: {len(value)} {attribute.name} for {len(instance.weights)} weights; "
            "give one for each component"
        )


@frozen
class Mixture(Problem):
    """Data of `k` normal components in `d` dimensions: weights ``w_i``, means ``m_i``, variances ``v_i``.

    ``D = sum_i p_i (m_i + alpha v_i / V_i (x - alpha m_i))``, ``V_i = alpha^2 v_i + sigma^2``,
    ``p_i = softmax_i(log w_i - |x - alpha m_i|^2 / (2 V_i) - d/2 log V_i)``: the posterior mean.

    The nearest to a real model that still has a reference: the flow bends, and a state decides between
    components on its way down. `exact` is `solve`: accurate to 1e-12 of the state's norm where the flow
    is as well conditioned as for the default. Where narrow components are far apart, states near the
    boundary between them are told apart by the last digit of `x`, and no solution can be accurate.

    Args:
        path: ``"ve"`` or ``"flow"``.
        weights: ``(k,)``, above 0; only their ratios count.
        means: ``(k, d)``, in units of the data.
        variances: ``(k,)``, above 0, the same in each dimension.
    """

    weights: tuple[float, ...] = field(
        default=(0.5, 0.3, 0.2), converter=as_numbers, validator=numbers(1, positive=True)
    )
    means: tuple[tuple[float, ...], ...] = field(
        default=((1.0, 0.5), (-0.8, 0.9), (0.1, -1.2)),
        converter=as_numbers,
        validator=[numbers(2), _one_each],
    )
    variances: tuple[float, ...] = field(
        default=(0.25, 0.4, 0.15), converter=as_numbers, validator=[numbers(1, positive=True), _one_each]
    )

    @property
    def _length(self) -> int:
        return len(self.means[0])

    def _denoise(self, x: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        weights, means, variances = (x.new_tensor(v) for v in (self.weights, self.means, self.variances))
        logs = weights.log()

        def row(x: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            totals = alpha * alpha * variances + sigma * sigma  # (k,)
            away = x[..., None, :] - alpha * means  # (..., k, d)
            logits = logs - away.square().sum(-1) / (2 * totals) - 0.5 * self.dims * totals.log()
            centres = means + (alpha * variances / totals)[:, None] * away
            return (torch.softmax(logits, -1)[..., None] * centres).sum(-2)

        return row_by_row(row, x, alpha.flatten(), sigma.flatten())

    def _solution(self, x: torch.Tensor, sigma: float, sigma_next: float) -> torch.Tensor:
        return solve(self, x, sigma, sigma_next)


@lru_cache(maxsize=64)
def _mixture(problem: Empirical) -> Mixture:
    count = len(problem.points)
    return Mixture(problem.path, (1.0,) * count, problem.points, (problem.smoothing**2,) * count)


@frozen
class Empirical(Problem):
    """A data set: a random one of `N` points plus normal noise of standard deviation `smoothing`.

    The `Mixture` of equal weights at the points, of variance ``smoothing^2``. As `smoothing` goes to 0 this
    is the ideal denoiser of the data set: Karras et al. 2022, arXiv:2206.00364, eq. 57 (appendix B.3).

    What a model that has memorised its data would do. A sampler's results lie at the points, so that it
    shows which of them it reaches, and in which shares. `exact` is as accurate as that of `Mixture`.

    Args:
        path: ``"ve"`` or ``"flow"``.
        points: ``(N, d)``, in units of the data.
        smoothing: Standard deviation around each point, above 0, in units of the data.
    """

    points: tuple[tuple[float, ...], ...] = field(
        default=((1.0, 0.5), (-0.8, 0.9), (0.1, -1.2)), converter=as_numbers, validator=numbers(2)
    )
    smoothing: float = field(default=0.1, converter=as_numbers, validator=[numbers(0), positive])

    @property
    def _length(self) -> int:
        return len(self.points[0])

    @property
    def mixture(self) -> Mixture:
        """The same problem, as a mixture."""
        return _mixture(self)

    def _denoise(self, x: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return self.mixture._denoise(x, alpha, sigma)

    def _solution(self, x: torch.Tensor, sigma: float, sigma_next: float) -> torch.Tensor:
        return solve(self, x, sigma, sigma_next)
