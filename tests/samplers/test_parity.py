"""Parity with k-diffusion and ComfyUI: numbers that their own samplers gave, see tests/data/README.md."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support import F64, interval_noise

import kdiff_core as kd
from kdiff_core.path import as_path

DATA = Path(__file__).parents[1] / "data" / "hosts.npz"
SHAPE = (2, 2, 3, 4)
K_DIFFUSION = (
    "euler", "euler_ancestral", "heun", "dpm_2", "dpm_2_ancestral", "lms", "dpmpp_2s_ancestral", "dpmpp_sde",
    "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_3m_sde",
)  # fmt: skip
COMFYUI = (*K_DIFFUSION, "dpmpp_2m_sde_heun", "ddpm")
ONLY_COMFYUI = ("dpmpp_2m_sde_heun", "ddpm")


def grids():
    """The grids of the recorded runs, by name, with their path."""
    u = torch.linspace(0, 1, 10, dtype=F64)
    karras = (14.6 ** (1 / 7) + u * (0.03 ** (1 / 7) - 14.6 ** (1 / 7))) ** 7
    flow = [2 * t / (1 + t) for t in torch.linspace(1, 0, 11, dtype=F64).tolist()]
    return {
        "karras": ("ve", [*karras.tolist(), 0.0]),
        "uneven": ("ve", [12.0, 9.5, 4.0, 3.1, 1.2, 0.9, 0.31, 0.22, 0.05, 0.0]),
        "partial": ("ve", karras[1:7].tolist()),
        "flow": ("flow", flow),
        "flow_inner": ("flow", flow[1:]),
    }


def mixture(path):
    """The exact denoiser of the recorded runs: a mixture of five normals with standard deviation 0.35."""
    g = torch.Generator().manual_seed(1)
    means = torch.randn(5, 24, generator=g, dtype=F64)
    weights = torch.rand(5, generator=g, dtype=F64) + 0.2
    logw = (weights / weights.sum()).log()

    def denoiser(x, sigma):
        y, s = x.reshape(len(x), 1, -1), sigma.reshape(-1, 1, 1)
        a = torch.ones_like(s) if path == "ve" else 1 - s
        variance = a**2 * 0.35**2 + s**2
        away = y - a * means
        p = torch.softmax(logw - (away**2).sum(-1) / (2 * variance.squeeze(-1)), -1).unsqueeze(-1)
        return (p * (means + a * 0.35**2 / variance * away)).sum(1).reshape(x.shape)

    denoiser.path = as_path(path).name
    return denoiser


def targets():
    with np.load(DATA) as recorded:
        keys = set(recorded.files)
    for grid, (path, _) in grids().items():
        for name in K_DIFFUSION:
            if f"k_diffusion/{name}/{grid}" in keys:
                yield name, f"k_diffusion/{name}/{grid}"
                yield f"k_diffusion:{name}", f"k_diffusion/{name}/{grid}"
        for name in COMFYUI:
            yield f"comfyui:{name}", f"comfyui/{name}/{grid}"
            if name in ONLY_COMFYUI and path == "ve":
                yield name, f"comfyui/{name}/{grid}"


@pytest.mark.parametrize(("name", "key"), list(targets()), ids=lambda value: value)
def test_gives_the_hosts_numbers(name, key):
    """By the name that stands for a host's sampler, its result is met to 1e-9 relative in float64."""
    grid = key.rpartition("/")[2]
    path, sigmas = grids()[grid]
    with np.load(DATA) as recorded:
        x, expected = torch.tensor(recorded[f"x/{grid}"]), torch.tensor(recorded[key])
    result = kd.get_sampler(name).run(mixture(path), x, sigmas, noise=interval_noise(x))
    assert result.info["traced"]
    assert float((result.x - expected).norm() / expected.norm()) < 1e-9


def test_every_recorded_sampler_of_this_library_is_met():
    """No recorded result of a sampler that is here is left out."""
    with np.load(DATA) as recorded:
        present = {key for key in recorded.files if key.split("/")[1] in COMFYUI and key.count("/") == 2}
    assert present == {key for _, key in targets()}
