"""What the tests share: denoisers with exact solutions, grids to draw from, the samplers under test."""

from __future__ import annotations

import hashlib
import os
from itertools import pairwise
from typing import Any

import mpmath
import torch
from attrs import evolve
from hypothesis import settings
from hypothesis import strategies as st

import kdiff_core as kd
from kdiff_core.context import StepContext
from kdiff_core.path import as_path

F64 = torch.float64
DEVICE = torch.device(os.environ.get("KDIFF_TEST_DEVICE", "cpu"))
# For laws that each sampler is put through on both paths: a share of the profile's examples.
few = settings(max_examples=max(4, settings().max_examples // 6))


class Gaussian:
    """The exact denoiser of independent normal data, with the exact solution of its probability flow."""

    def __init__(self, path: str = "ve", variances: Any = (0.01, 0.2, 1.0, 4.0), mean: float = 0.3) -> None:
        self.path = path
        self.variance = torch.tensor(variances, dtype=F64)
        self.mean = torch.full_like(self.variance, mean)

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        s = sigma.to(x).reshape(-1, *[1] * (x.ndim - 1))
        a = torch.ones_like(s) if self.path == "ve" else 1 - s
        v, m = self.variance.to(x), self.mean.to(x)
        return m + a * v / (a * a * v + s * s) * (x - a * m)

    def exact(self, x: torch.Tensor, sigma: float, sigma_next: float) -> torch.Tensor:
        """Solution of the probability flow at `sigma_next` that passes through `x` at `sigma`."""
        path = as_path(self.path)
        a, b = path.alpha(sigma), path.alpha(sigma_next)
        v, m = self.variance.to(x), self.mean.to(x)
        scale = torch.sqrt((b**2 * v + sigma_next**2) / (a**2 * v + sigma**2))
        return b * m + (x - a * m) * scale


def interval_noise(like: torch.Tensor) -> Any:
    """Unit noise that depends on the interval alone, as in the recorded results of the hosts."""

    def noise(sigma: float, sigma_next: float) -> torch.Tensor:
        key = f"{float(sigma):.7g}|{float(sigma_next):.7g}"
        seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big")
        return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed), dtype=F64).to(like)

    return kd.noise_from(noise)


BARE = tuple(entry.name for entry in kd.list_samplers())
# Variants that a user can ask for by name and that take other branches of the code.
SAMPLERS: dict[str, kd.StepSampler] = {name: kd.get_sampler(name) for name in BARE} | {
    "heun, churned": kd.get_sampler("heun", s_churn=10.0),
    "euler, churned": kd.get_sampler("euler", s_churn=30.0, s_tmin=0.1, s_noise=1.003),
    "heun, eta 0.5": kd.get_sampler("heun", eta=0.5),
    "ddim, eta 0.3": kd.get_sampler("ddim", eta=0.3),
    "lms 2": kd.get_sampler("lms", max_order=2),
    "dpmpp_3m_sde, corrected": kd.get_sampler("dpmpp_3m_sde", eta=0.0, corrected=True),
    "dpmpp_sde, r 1/3": kd.get_sampler("dpmpp_sde", r=1 / 3),
    "comfyui:lms": kd.get_sampler("comfyui:lms"),
}


def deterministic(sampler: kd.StepSampler) -> kd.StepSampler:
    """The sampler without its noise."""
    return evolve(sampler, eta=0.0) if sampler.stochastic and hasattr(sampler, "eta") else sampler


def levels(path: str, steps: int, low: float = 0.02, ratios: Any = None) -> list[float]:
    """A grid of `steps` steps to 0: log-spaced by `ratios` on VE; on flow the same in noise over signal."""
    ratios = ratios or [1.0] * steps
    total, k, grid = sum(ratios[:-1]) or 1.0, 1.0, []
    for ratio in ratios:
        grid.append((10.0 / low) ** k * low)
        k -= ratio / total
    if path == "flow":
        grid = [value / (1 + value) for value in grid]
    return [*grid[:steps], 0.0]


@st.composite
def grids(draw: Any, path: str = "ve", max_steps: int = 9, zero: bool | None = None) -> list[float]:
    """Uneven grids, with or without a final 0; on flow sometimes from 1."""
    steps = draw(st.integers(1, max_steps))
    ratios = draw(st.lists(st.floats(0.5, 2.0), min_size=steps, max_size=steps))
    grid = levels(path, steps, ratios=ratios)
    if path == "flow" and draw(st.booleans()):
        grid[0] = 1.0
    to_zero = draw(st.booleans()) if zero is None else zero
    return grid if to_zero or steps == 1 else grid[:-1]


def state(batch: int = 3, dims: int = 4, seed: int = 0, scale: float = 10.0) -> torch.Tensor:
    """A random state."""
    x = torch.randn(batch, dims, generator=torch.Generator().manual_seed(seed), dtype=F64) * scale
    return x.to(DEVICE)


class Teacher(StepContext):
    """A context for one step with exact history, in 40 digits: all earlier states are the exact solution.

    The data are one normal variable, so that a state is one high-precision number.
    """

    def __init__(self, sampler: kd.StepSampler, path: str, grid: list[Any], variance: float) -> None:
        super().__init__(grid, as_path(path), None, sampler.memory)
        self.sampler = sampler
        self.variance = mpmath.mpf(variance)
        self.mean = mpmath.mpf("0.3")

    def denoise(self, x: Any, sigma: Any) -> Any:
        a, v = self.alpha(sigma), self.variance
        output = self.mean + a * v / (a * a * v + sigma * sigma) * (x - a * self.mean)
        self._evaluated(sigma, output)
        return output

    def exact(self, x: Any, sigma: Any, sigma_next: Any) -> Any:
        a, b, v = self.alpha(sigma), self.alpha(sigma_next), self.variance
        scale = mpmath.sqrt((b * b * v + sigma_next**2) / (a * a * v + sigma**2))
        return b * self.mean + (x - a * self.mean) * scale

    def last_step_error(self) -> Any:
        """Error of the last step of the grid, from state 1 at its first level."""
        x = after = mpmath.mpf(1)
        for index, (sigma, sigma_next) in enumerate(pairwise(self.grid)):
            self._begin(index, x)
            after = self.sampler.step(self, x, sigma, sigma_next)
            self._finish(lambda value: value)
            x = self.exact(x, sigma, sigma_next)
        return after - x
