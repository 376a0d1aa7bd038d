"""A stand-in for ComfyUI, written from what is known of how it calls samplers; it refuses what that refuses.

``installed(monkeypatch)`` puts its modules where ``import comfy.samplers`` finds them.
"""

from __future__ import annotations

import sys
import types
from typing import Any, NamedTuple

import torch

KEYS = {"i", "x", "denoised", "sigma", "sigma_hat"}


def column(sigma, x):
    return sigma.reshape(-1, *[1] * (x.ndim - 1))


def conditional(x, sigma):
    """A smooth model, which is no linear function of the state."""
    s = column(sigma, x)
    return torch.tanh(x / (1 + s)) / (1 + 0.1 * s)


def unconditional(x, sigma):
    return 0.5 * conditional(x, sigma) - 0.1


# -- model sampling


class CONST:
    """Flow: a state is (1 - sigma) data + sigma noise."""

    def noise_scaling(self, sigma, noise, latent, max_denoise=False):
        return sigma * noise + (1 - sigma) * latent

    def inverse_noise_scaling(self, sigma, latent):
        return latent / (1 - sigma)


class EPS:
    """A state is data + sigma noise."""

    def noise_scaling(self, sigma, noise, latent, max_denoise=False):
        return latent + noise * (torch.sqrt(1 + sigma**2) if max_denoise else sigma)

    def inverse_noise_scaling(self, sigma, latent):
        return latent


class Table:
    def __init__(self, sigmas):
        self.sigmas = sigmas

    @property
    def sigma_min(self):
        return self.sigmas[0]

    @property
    def sigma_max(self):
        return self.sigmas[-1]


class FlowTable(Table):
    """The class that a host makes at run time of its parts has no name to know it by."""


def model_sampling(path, shift=3.0):
    """The model sampling of Stable Diffusion's table, or of a flow model with a shift."""
    if path == "ve":
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        abar = (1 - betas).cumprod(0)
        return type("ModelSampling", (Table, EPS), {})(((1 - abar) / abar).sqrt().float())
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    return type("ModelSampling", (FlowTable, CONST), {})((shift * t / (1 + (shift - 1) * t)).float())


# -- guiders


class Patcher:
    def __init__(self, sampling):
        self.objects = {"model_sampling": sampling}

    def get_model_object(self, name):
        return self.objects[name]


class Guider:
    """The guider: guidance, the hooks of its options, and what a sampler may not do."""

    def __init__(self, path="ve", cfg=1.0, patcher=True, hooks=True, dtype=torch.float32):
        self.model_options = {"transformer_options": {}, "sampler_post_cfg_function": [self.watching]}
        self.cfg, self.hooks, self.dtype = cfg, hooks, dtype
        self.inner_model = types.SimpleNamespace(model_sampling=model_sampling(path))
        if patcher:
            self.model_patcher = Patcher(self.inner_model.model_sampling)
        self.calls: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.watched = 0
        self.on_call: Any = None

    def watching(self, args):
        """A hook of another pack."""
        self.watched += 1
        return args["denoised"]

    def __call__(self, x, sigma, *, model_options, seed):
        assert isinstance(seed, int)
        assert sigma.shape == x.shape[:1]
        assert (sigma.dtype, sigma.device) == (x.dtype, x.device)
        self.calls.append((x.clone(), sigma.clone()))
        if self.on_call is not None:
            self.on_call(x)
        cond = conditional(x, sigma)
        optimised = self.cfg == 1.0 and not model_options.get("disable_cfg1_optimization", False)
        uncond = None if optimised else unconditional(x, sigma)
        denoised = cond if uncond is None else uncond + (cond - uncond) * self.cfg
        for hook in model_options.get("sampler_post_cfg_function", []) if self.hooks else []:
            args = {"denoised": denoised, "cond_denoised": cond, "uncond_denoised": uncond, "sigma": sigma}
            denoised = hook(args)
        return denoised

    def sample(self, noise, latent, sampler, sigmas, denoise_mask=None, callback=None, seed=0):
        """What a node calls."""
        if not len(sigmas):
            return latent
        noise, latent = noise.to(self.dtype), latent.to(self.dtype)
        options = {key: value.copy() for key, value in self.model_options.items()}
        options["transformer_options"]["sample_sigmas"] = sigmas
        extra_args = {"model_options": options, "seed": seed}
        found = sampler.sample(self, sigmas, extra_args, callback, noise, latent, denoise_mask, True)
        # The sampler had them to read.
        assert set(extra_args) == {"model_options", "seed", "denoise_mask"}
        assert options["sampler_post_cfg_function"] == [self.watching]
        assert "disable_cfg1_optimization" not in options
        return found


class KSamplerX0Inpaint:
    """The model that a sampler function is given; its extra arguments are required."""

    def __init__(self, model, sigmas, noise, latent):
        self.inner_model, self.sigmas, self.noise, self.latent_image = model, sigmas, noise, latent

    def __call__(self, x, sigma, denoise_mask, model_options, seed):
        if denoise_mask is None:
            return self.inner_model(x, sigma, model_options=model_options, seed=seed)
        scaling = self.inner_model.inner_model.model_sampling.noise_scaling
        known = scaling(column(sigma, x), self.noise, self.latent_image)
        x = x * denoise_mask + known * (1 - denoise_mask)
        found = self.inner_model(x, sigma, model_options=model_options, seed=seed)
        return found * denoise_mask + self.latent_image * (1 - denoise_mask)


class KSAMPLER:
    """A sampler function with its options, as sockets carry it."""

    def __init__(self, sampler_function, extra_options={}, inpaint_options={}):  # noqa: B006
        self.sampler_function = sampler_function
        self.extra_options, self.inpaint_options = extra_options, inpaint_options

    def sample(self, guider, sigmas, extra_args, callback, noise, latent, mask=None, disable_pbar=False):
        extra_args["denoise_mask"] = mask
        model, scaling = KSamplerX0Inpaint(guider, sigmas, noise, latent), guider.inner_model.model_sampling
        total = len(sigmas) - 1
        x = scaling.noise_scaling(sigmas[0], noise, latent)

        def told(d):
            assert set(d) >= KEYS
            assert type(d["i"]) is int
            assert 0 <= d["i"] < max(total, 1)
            assert d["x"].shape == d["denoised"].shape == x.shape
            assert d["sigma"].ndim == d["sigma_hat"].ndim == 0
            callback(d["i"], d["denoised"], d["x"], total)

        found = self.sampler_function(
            model,
            x,
            sigmas,
            extra_args=extra_args,
            callback=None if callback is None else told,
            disable=disable_pbar,
            **self.extra_options,
        )
        assert (found.shape, found.dtype, found.device) == (x.shape, x.dtype, x.device)
        return scaling.inverse_noise_scaling(sigmas[-1], found)


# -- modules


class SchedulerHandler(NamedTuple):
    handler: Any
    use_ms: bool = True


def set_model_options_post_cfg_function(model_options, function, disable_cfg1_optimization=False):
    """Hosts may well write into the list that they are given."""
    model_options.setdefault("sampler_post_cfg_function", []).append(function)
    if disable_cfg1_optimization:
        model_options["disable_cfg1_optimization"] = True
    return model_options


def make_modules():
    """The modules, by name."""
    names = ("comfy", "comfy.samplers", "comfy.k_diffusion", "comfy.k_diffusion.sampling")
    found = {name: types.ModuleType(name) for name in (*names, "comfy.model_patcher")}
    for name, module in found.items():
        module.__path__ = []
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(found[parent], child, module)
    sampling, samplers = found["comfy.k_diffusion.sampling"], found["comfy.samplers"]
    sampling.sample_euler = lambda *args, **kwargs: None
    samplers.KSAMPLER_NAMES = ["euler", "dpm_2"]
    samplers.SAMPLER_NAMES = [*samplers.KSAMPLER_NAMES, "ddim", "uni_pc"]
    samplers.SCHEDULER_HANDLERS = {"normal": SchedulerHandler(lambda ms, steps: None)}
    samplers.SCHEDULER_NAMES = list(samplers.SCHEDULER_HANDLERS)
    samplers.SchedulerHandler, samplers.KSAMPLER = SchedulerHandler, KSAMPLER
    samplers.KSampler = type(
        "KSampler", (), {"SAMPLERS": samplers.SAMPLER_NAMES, "SCHEDULERS": samplers.SCHEDULER_NAMES}
    )
    samplers.sampler_object = lambda name: KSAMPLER(getattr(sampling, f"sample_{name}"))

    def calculate_sigmas(model_sampling, name, steps):
        handler = samplers.SCHEDULER_HANDLERS[name]
        if handler.use_ms:
            return handler.handler(model_sampling, steps)
        low, high = float(model_sampling.sigma_min), float(model_sampling.sigma_max)
        return handler.handler(n=steps, sigma_min=low, sigma_max=high)

    samplers.calculate_sigmas = calculate_sigmas
    found["comfy.model_patcher"].set_model_options_post_cfg_function = set_model_options_post_cfg_function
    return found


def installed(monkeypatch):
    """Put the host where it is imported from, and return ``comfy.samplers``."""
    modules = make_modules()
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return modules["comfy.samplers"]
