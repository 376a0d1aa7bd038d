"""What the tests share: denoisers with exact solutions, grids to draw from, the samplers under test."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from attrs import evolve
from hypothesis import strategies as st

import kdiff_core as kd
from kdiff_core.context import StepContext
from kdiff_core.path import as_path

F64 = torch.float64


class Gaussian:
    """The exact denoiser of independent normal data, with the exact solution of its probability flow."""

    def __init__(self, path: str = "ve", variances: Any = (0.01, 0.2, 1.0, 4.0), mean: float = 0.3) -> None:
        self.path = path
        self.variance = torch.tensor(variances, dtype=F64)
        self.mean = torch.full_like(self.variance, mean)

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        s = sigma.reshape(-1, *[1] * (x.ndim - 1))
        a = torch.ones_like(s) if self.path == "ve" else 1 - s
        v, m = self.variance.to(x), self.mean.to(x)
        return m + a * v / (a * a * v + s * s) * (x - a * m)

    def exact(self, x: torch.Tensor, sigma: float, sigma_next: float) -> torch.Tensor:
        """Solution of the probability flow at `sigma_next` that passes through `x` at `sigma`."""
        path = as_path(self.path)
        a, b = path.alpha(sigma), path.alpha(sigma_next)
        scale = torch.sqrt((b**2 * self.variance + sigma_next**2) / (a**2 * self.variance + sigma**2))
        return b * self.mean + (x - a * self.mean) * scale


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
    return torch.randn(batch, dims, generator=torch.Generator().manual_seed(seed), dtype=F64) * scale


class Teacher(StepContext):
    """A context for one step with exact history: the states of all steps before are the exact solution."""

    def __init__(self, sampler: kd.StepSampler, denoiser: Any, grid: list[float]) -> None:
        super().__init__(grid, as_path(denoiser.path), None, sampler.memory)
        self.sampler = sampler
        self.denoiser = denoiser

    def denoise(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        output = self.denoiser(x, torch.full(x.shape[:1], sigma, dtype=x.dtype))
        self._evaluated(sigma, output)
        return output

    def last_step_error(self, x: torch.Tensor) -> float:
        """Error of the last step of the grid, from `x` at its first level."""
        after = x
        for index, (sigma, sigma_next) in enumerate(zip(self.grid, self.grid[1:], strict=False)):
            self._begin(index, x)
            after = self.sampler.step(self, x, sigma, sigma_next)
            self._finish(lambda value: value)
            x = self.denoiser.exact(x, sigma, sigma_next)
        return float((after - x).norm() / x.norm())
