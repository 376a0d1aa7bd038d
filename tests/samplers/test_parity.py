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
    "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_3m_sde", "dpm_fast", "dpm_adaptive",
)  # fmt: skip
# Of ComfyUI alone; by the bare name its numbers on VE, and by the host's on both paths.
ONLY_COMFYUI = (
    "dpmpp_2m_sde_heun", "ddpm", "heunpp2", "ipndm", "ipndm_v", "res_multistep", "res_multistep_ancestral",
    "gradient_estimation", "sa_solver", "sa_solver_pece", "seeds_2", "seeds_3", "lcm", "euler_cfg_pp",
    "euler_ancestral_cfg_pp", "dpmpp_2m_cfg_pp", "dpmpp_2s_ancestral_cfg_pp", "res_multistep_cfg_pp",
    "res_multistep_ancestral_cfg_pp", "gradient_estimation_cfg_pp",
)  # fmt: skip
# By the host's name alone: the bare name has the exact integral, or the better end.
HOSTED = {"deis": "deis", "er_sde": "er_sde", "uni_pc_bh1": "uni_pc", "uni_pc_bh2": "uni_pc_bh2"}
COMFYUI = (*K_DIFFUSION, *ONLY_COMFYUI, *HOSTED)
# The host drops the last predictor step of a grid that ends above 0.
DEFECTS = {"comfyui/sa_solver/partial", "comfyui/sa_solver_pece/partial"}
# A host's coarse sum in float32 is as near as one gets.
BARS = {"er_sde": 1e-7}
OPTIONS = {"dpm_fast": {"evaluations": 12}}


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


def mixture(path, seed=1, scale=1.0, shift=0.0):
    """The exact denoiser of the recorded runs: a mixture of five normals with standard deviation 0.35."""
    g = torch.Generator().manual_seed(seed)
    means = torch.randn(5, 24, generator=g, dtype=F64) * scale + shift
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


class Guided:
    """The guided denoiser of the recorded CFG++ runs: scale 3 between two mixtures."""

    def __init__(self, path):
        self.path, self.cond, self.uncond = path, mixture(path), mixture(path, 2, 0.7, 0.2)

    def predict(self, x, sigma):
        cond, uncond = self.cond(x, sigma), self.uncond(x, sigma)
        return kd.Prediction(uncond + 3 * (cond - uncond), cond, uncond)

    def __call__(self, x, sigma):
        return self.predict(x, sigma).denoised


def targets():
    with np.load(DATA) as recorded:
        keys = {key for key in recorded.files if key.count("/") == 2 and not key.endswith("/nfe")}
    for key in sorted(keys - DEFECTS):
        host, name, grid = key.split("/")
        ve = grids()[grid][0] == "ve"
        if host == "x":
            continue
        yield f"{host}:{HOSTED.get(name, name)}", key
        if (host == "k_diffusion" and name in K_DIFFUSION) or (name in ONLY_COMFYUI and ve):
            yield name, key


@pytest.mark.parametrize(("name", "key"), list(targets()), ids=lambda value: value)
def test_gives_the_hosts_numbers(name, key):
    """By the name that stands for a host's sampler, its result is met to 1e-9 relative in float64."""
    _, recorded_name, grid = key.split("/")
    path, sigmas = grids()[grid]
    with np.load(DATA) as recorded:
        x, expected = torch.tensor(recorded[f"x/{grid}"]), torch.tensor(recorded[key])
    sampler = kd.get_sampler(name, **OPTIONS.get(recorded_name, {}))
    denoiser = Guided(path) if "cfg_pp" in name else mixture(path)
    result = sampler.run(denoiser, x, sigmas, noise=interval_noise(x))
    assert result.info["traced"] is sampler.linear
    assert float((result.x - expected).norm() / expected.norm()) < BARS.get(recorded_name, 1e-9)


def test_every_recorded_sampler_is_met():
    """No recorded result is left out but those of what is a defect of the host."""
    with np.load(DATA) as recorded:
        keys = {key for key in recorded.files if key.count("/") == 2 and not key.endswith("/nfe")}
    met = {key for _, key in targets()} | DEFECTS
    assert met == keys
    assert {key.split("/")[1] for key in met} == set(COMFYUI)


# Names that are not recorded: they are others' by another name, or newer.
MORE = (
    "dpmpp_sde_gpu", "dpmpp_2m_sde_gpu", "dpmpp_2m_sde_heun_gpu", "dpmpp_3m_sde_gpu", "ddim", "exp_heun_2_x0",
    "exp_heun_2_x0_sde",
)  # fmt: skip
NAMES = (
    *(("comfyui", name) for name in (*K_DIFFUSION, *ONLY_COMFYUI, *HOSTED.values(), *MORE)),
    *(("k_diffusion", name) for name in K_DIFFUSION),
)


@pytest.mark.parametrize(("host", "name"), NAMES)
def test_every_name_of_the_hosts_leads_to_a_sampler(host, name):
    """Each sampler name of a host is known, bare and with the host's name before it."""
    assert kd.get_sampler(name).order >= 0
    assert kd.get_sampler(f"{host}:{name}").order >= 0
