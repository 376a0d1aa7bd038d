"""What `bench_accuracy` integrates: mixtures of normals whose denoiser is known, and the grids it is done on.

All samples of a batch are worked on at once, unlike in `kdiff_core.testing.Mixture`, whose numbers these are:
a benchmark makes some hundred thousand calls.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from attrs import field, frozen
from torch import Tensor

import kdiff_core as kd
from kdiff_core.path import as_path
from kdiff_core.testing.problems import random_state, solve
from kdiff_exact.data import load_digits

# Stable Diffusion's range of levels, and EDM's, at whose end the jump to 0 costs little.
FIRST, LAST = 14.6, 0.03
HIGHEST, LOWEST = 80.0, 0.002
# Where the reference ends; the rest of the way to 0 is taken in one step whose error is of order LEAST^4.
LEAST = 1e-4
Grid = Callable[[int], tuple[float, ...]]
BUDGETS = (5, 8, 10, 15, 20, 35)


@frozen(eq=False)
class Held:
    """A mixture of normals, each of one variance in all dimensions, and the states that its runs begin with.

    Args:
        name: For the tables.
        path: ``"ve"`` or ``"flow"``.
        weights: ``(k,)``.
        means: ``(k, d)``.
        variances: ``(k,)``.
        samples: Number of samples.
    """

    name: str
    path: str
    weights: Tensor
    means: Tensor
    variances: Tensor
    samples: int = 16
    _squares: Tensor = field(init=False)

    @_squares.default
    def _square(self) -> Tensor:
        return self.means.square().sum(-1)

    def __call__(self, x: Tensor, sigma: Tensor, **cond: object) -> Tensor:
        """The posterior mean of the data: a state ``(B, d)``, and a level for each sample or for all."""
        level = torch.as_tensor(sigma, dtype=x.dtype).reshape(-1, 1)
        alpha = torch.ones_like(level) if self.path == "ve" else 1.0 - level
        totals = alpha * alpha * self.variances + level * level
        away = x.square().sum(-1, keepdim=True) - 2 * alpha * (x @ self.means.T) + alpha**2 * self._squares
        logits = self.weights.log() - away / (2 * totals) - 0.5 * x.shape[-1] * totals.log()
        shares = logits.softmax(-1)
        gain = alpha * self.variances / totals
        return (shares * (1 - alpha * gain)) @ self.means + (shares * gain).sum(-1, keepdim=True) * x

    def start(self, level: float) -> Tensor:
        """States at the first level: noise, and on a path where the data are seen through it, their mean."""
        noise = random_state(7, batch=self.samples, shape=(self.means.shape[1],), scale=1.0)
        mean = (self.weights / self.weights.sum()) @ self.means
        return float(as_path(self.path).alpha(level)) * mean + level * noise

    @lru_cache(maxsize=8)  # noqa: B019  # a few problems, which live as long as the benchmark
    def exact(self, level: float) -> Tensor:
        """The probability flow's solution at level 0 from the states at a level."""
        x = solve(self, self.start(level), level, LEAST, rtol=1e-10, atol=1e-11)
        return x + 0.5 * (self(x, torch.tensor(LEAST)) - x) if self.path == "ve" else self._finish(x)

    def _finish(self, x: Tensor) -> Tensor:
        """From LEAST to 0 on flow, in the coordinates of VE."""
        x = x / (1 - LEAST)
        return x + 0.5 * (self(x * (1 - LEAST), torch.tensor(LEAST)) - x)

    def error(self, x: Tensor, level: float) -> float:
        """Median over the samples of the root mean square of a result's error."""
        return float((x - self.exact(level)).square().mean(-1).sqrt().median())


def _plane(path: str) -> Held:
    known = kd.testing.Mixture()
    numbers = (known.weights, known.means, known.variances)
    return Held("2 dims", path, *(torch.tensor(each, dtype=torch.float64) for each in numbers))


def _space(path: str) -> Held:
    means = random_state(3, batch=12, shape=(64,), scale=1.0)
    return Held(
        "64 dims", path, torch.ones(12).double(), means, torch.linspace(0.05, 0.4, 12, dtype=torch.float64)
    )


def _digits(path: str) -> Held:
    points = torch.tensor(load_digits().data).double().flatten(1)
    same = torch.ones(len(points)).double()
    return Held("digits", path, same, points, 0.01 * same)


PROBLEMS: dict[str, Callable[[str], Held]] = {"2 dims": _plane, "64 dims": _space, "digits": _digits}


def karras(steps: int) -> tuple[float, ...]:
    """VE: Karras' levels of rho 7 (Karras et al. 2022, arXiv:2206.00364, eq. 5), and 0."""
    first, last = FIRST ** (1 / 7), LAST ** (1 / 7)
    return (*((first + (last - first) * u) ** 7 for u in _even(steps)), 0.0)


def exponential(steps: int) -> tuple[float, ...]:
    """VE: levels even in log-SNR over EDM's range, and 0."""
    return (*(HIGHEST * (LOWEST / HIGHEST) ** u for u in _even(steps)), 0.0)


def _even(steps: int) -> list[float]:
    """Numbers from 0 to 1, as many as steps."""
    return [i / max(1, steps - 1) for i in range(steps)]


def flow_karras(steps: int) -> tuple[float, ...]:
    """Flow: the levels whose noise over signal is that of `karras`."""
    return tuple(as_path("flow").from_ratio(s) for s in karras(steps))


def shifted(steps: int) -> tuple[float, ...]:
    """Flow: levels even in sigma from 0.999, shifted by 3, and 0."""
    even = [0.997 * (1 - i / steps) for i in range(steps + 1)]
    return tuple(3 * s / (1 + 2 * s) for s in even)


def flow_exponential(steps: int) -> tuple[float, ...]:
    """Flow: the levels whose noise over signal is that of `exponential`."""
    return tuple(as_path("flow").from_ratio(s) for s in exponential(steps))


GRIDS: dict[str, tuple[str, Grid]] = {
    "VE, Karras": ("ve", karras),
    "VE, log-uniform": ("ve", exponential),
    "flow, shift 3": ("flow", shifted),
    "flow, log-uniform": ("flow", flow_exponential),
}
