"""What the tests share beside kdiff's own kit: grids, noise by interval, the samplers under test."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import torch
from hypothesis import settings

import kdiff_core as kd
from kdiff_core.testing.problems import Gaussian, random_state
from kdiff_samplers.model_statistics import ModelStatistics

__all__ = [
    "DEVICE",
    "F64",
    "NAMES",
    "SAMPLERS",
    "VARIANTS",
    "Gaussian",
    "few",
    "interval_noise",
    "levels",
    "state",
    "statistics_table",
]

F64 = torch.float64
DEVICE = torch.device(os.environ.get("KDIFF_CHECK_DEVICE", "cpu"))
# For laws that each sampler is put through on both paths: a share of the profile's examples.
few = settings(max_examples=max(4, settings().max_examples // 6))


def interval_noise(like: torch.Tensor) -> Any:
    """Unit noise that depends on the interval alone, as in the recorded results of the hosts."""

    def noise(sigma: float, sigma_next: float) -> torch.Tensor:
        key = f"{float(sigma):.7g}|{float(sigma_next):.7g}"
        seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big")
        return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed), dtype=F64).to(like)

    return kd.noise_from(noise)


def statistics_table() -> ModelStatistics:
    """Statistics for DPM-Solver-v3 that go from the data's prediction towards the noise's."""
    return ModelStatistics([-8.0, 8.0], [0.9, 0.1], [-0.1, -0.9], [0.0, 0.0])


NAMES = tuple(entry.name for entry in kd.list_samplers(hosts=True))
# Variants that a user can ask for by name and that take other branches of the code.
VARIANTS: dict[str, kd.StepSampler] = {
    "dpm_solver_3m, as published": kd.get_sampler("dpm_solver_3m", corrected=False, solver_type="midpoint"),
    "heun, churned": kd.get_sampler("heun", s_churn=10.0),
    "euler, churned": kd.get_sampler("euler", s_churn=30.0, s_tmin=0.1, s_noise=1.003),
    "heun, eta 0.5": kd.get_sampler("heun", eta=0.5),
    "ddim, eta 0.3": kd.get_sampler("ddim", eta=0.3),
    "lms 2": kd.get_sampler("lms", max_order=2),
    "dpmpp_3m_sde, corrected": kd.get_sampler("dpmpp_3m_sde", eta=0.0, corrected=True),
    "dpmpp_sde, r 1/3": kd.get_sampler("dpmpp_sde", r=1 / 3),
    "dpmpp_2m_sde, eta 0.4": kd.get_sampler("dpmpp_2m_sde", eta=0.4),
    "heun, noise in an interval": kd.get_sampler("heun", eta=1.0, noise_low=0.3, noise_high=3.0),
    "xeab, high-order start": kd.get_sampler("xeab", start_solver="res_3s"),
    "lms, lower order at the end": kd.get_sampler("lms", lower_order_final="always"),
    "dpmpp_2m, Euler at the end, CFG++": kd.get_sampler("dpmpp_2m", euler_at_end=2, cfg_pp=True),
    "heun, extrapolated end": kd.get_sampler("heun", extrapolated_end=3),
    "dpm2, last level but one left out": kd.get_sampler("dpm2", discard_penultimate=True),
    "ito, cold": kd.get_sampler("ito", eta=0.5, temperature=0.7),
    "predictor_corrector, twice": kd.get_sampler("predictor_corrector", solver="heun", corrections=2),
    "spc, blended": kd.get_sampler("spc", corrector_order=2, blend=0.5),
    "restart, twice": kd.get_sampler("restart", solver=kd.get_sampler("restart", restart_low=0.5)),
    "ddpm, fixed_large": kd.get_sampler("ddpm", variance="fixed_large"),
    "dpm_solver_2s, taylor": kd.get_sampler("dpm_solver_2s", solver_type="taylor", r1=0.7, r2=0.8),
    "dpm_solver_3s, taylor": kd.get_sampler("dpm_solver_3s", solver_type="taylor"),
    "dpm_solver_3s, other places": kd.get_sampler("dpm_solver_3s", solver_type="taylor", r1=0.4, r2=0.9),
    "dpmpp_3s, other places": kd.get_sampler("dpmpp_3s", solver_type="taylor", r1=0.4, r2=0.9),
    "dpm_solver_2m, midpoint": kd.get_sampler("dpm_solver_2m", solver_type="midpoint"),
    "dpmpp_2s, heun": kd.get_sampler("dpmpp_2s", solver_type="heun", r=0.7),
    "dpmpp_2m, heun": kd.get_sampler("dpmpp_2m", solver_type="heun"),
    "sde_dpm_solver_2m, heun": kd.get_sampler("sde_dpm_solver_2m", solver_type="heun", eta=0.5),
    "dpm_solver_v3, statistics": kd.get_sampler("dpm_solver_v3", statistics=statistics_table()),
    "dpm_solver_v3, pseudo": kd.get_sampler("dpm_solver_v3", pseudo="corrector", corrector_order=4),
    "dpm_solver_v3, order 2": kd.get_sampler("dpm_solver_v3", solver_order=2, corrector_order=0),
}
SAMPLERS: dict[str, kd.StepSampler] = {name: kd.get_sampler(name) for name in NAMES} | VARIANTS


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


def state(batch: int = 3, dims: int = 4, seed: int = 0, scale: float = 10.0) -> torch.Tensor:
    """A random state."""
    return random_state(seed, batch, (dims,), scale, DEVICE.type)
