"""k-diffusion's signature, ``sample_NAME(model, x, sigmas, extra_args, callback, ...)``, for every sampler.

For hosts that import ``k_diffusion.sampling``: the same names, arguments, callback dictionary and numbers
(given the same noise), and every other sampler of kdiff by its name. ``external`` has the model wrappers.

Without ``noise_sampler=`` the noise is kdiff's, keyed by a seed that is drawn once from torch's global
generator: ``torch.manual_seed`` makes a run repeatable, and a sample's noise does not depend on the device or
on how often the model was called. ``noise_sampler=default_noise_sampler(x)`` draws as k-diffusion does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm, trange

from kdiff_core.errors import UnknownNameError
from kdiff_core.lookup import get_noise, get_schedule, list_samplers
from kdiff_core.numerics import sqrt
from kdiff_core.path import VE

from . import external
from .k_functions import global_seed, sampler_function

__all__ = [
    "BrownianTreeNoiseSampler",
    "append_zero",
    "default_noise_sampler",
    "external",
    "get_ancestral_step",
    "get_sigmas_exponential",
    "get_sigmas_karras",
    "get_sigmas_polyexponential",
    "get_sigmas_vp",
    "sampling",
    "to_d",
    "tqdm",
    "trange",
]

sampling = sys.modules[__name__]
# k-diffusion spells two names otherwise than the registry.
_SPELT = ("dpm_2", "dpm_2_ancestral")


def __getattr__(name: str) -> Any:
    """Make the function of a sampler when it is first asked for."""
    if not name.startswith("sample_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        function = sampler_function(name.removeprefix("sample_"), sampling)
    except UnknownNameError as error:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}: {error}") from error
    globals()[name] = function
    return function


def __dir__() -> list[str]:
    """List the helpers and a function for each sampler."""
    names = [*(entry.name for entry in list_samplers()), *_SPELT]
    return sorted({*__all__, *(f"sample_{name}" for name in names if name.isidentifier())})


def append_zero(x: Tensor) -> Tensor:
    """Return a vector with a 0 behind it."""
    return torch.cat([x, x.new_zeros([1])])


def get_sigmas_karras(
    n: int, sigma_min: float, sigma_max: float, rho: float = 7.0, device: Any = "cpu"
) -> Tensor:
    """Return the levels of the schedule "karras", then 0: ``(n + 1,)`` in float32.

    Args:
        n: Number of steps.
        sigma_min: Lowest level above 0.
        sigma_max: Highest level.
        rho: Curvature.
        device: Where to put them.
    """
    return _levels(get_schedule("karras", rho=rho)(n, **_range(sigma_min, sigma_max)), device)


def get_sigmas_exponential(n: int, sigma_min: float, sigma_max: float, device: Any = "cpu") -> Tensor:
    """Return the levels of the schedule "exponential", then 0; see `get_sigmas_karras`."""
    return _levels(get_schedule("exponential")(n, **_range(sigma_min, sigma_max)), device)


def get_sigmas_polyexponential(
    n: int, sigma_min: float, sigma_max: float, rho: float = 1.0, device: Any = "cpu"
) -> Tensor:
    """Return the levels of the schedule "polyexponential", then 0; see `get_sigmas_karras`."""
    return _levels(get_schedule("polyexponential", rho=rho)(n, **_range(sigma_min, sigma_max)), device)


def get_sigmas_vp(
    n: int, beta_d: float = 19.9, beta_min: float = 0.1, eps_s: float = 1e-3, device: Any = "cpu"
) -> Tensor:
    """Return the levels of the schedule "vp", then 0: ``(n + 1,)`` in float32."""
    return _levels(get_schedule("vp", beta_d=beta_d, beta_min=beta_min, eps_s=eps_s)(n), device)


def _range(sigma_min: Any, sigma_max: Any) -> dict[str, float]:
    return {"sigma_min": float(sigma_min), "sigma_max": float(sigma_max)}


def _levels(grid: Any, device: Any) -> Tensor:
    return torch.tensor(list(grid), dtype=torch.float32, device=device)


def to_d(x: Tensor, sigma: Any, denoised: Tensor) -> Tensor:
    """Return the slope ``dx/dsigma = (x - denoised) / sigma``; `sigma` is a number or ``(B,)``."""
    level: Tensor = torch.as_tensor(sigma, device=x.device)
    return (x - denoised) / level.reshape(*level.shape, *[1] * (x.ndim - level.ndim))


def get_ancestral_step(sigma_from: Any, sigma_to: Any, eta: float = 1.0) -> tuple[Any, Any]:
    """Return the level to go down to, and the standard deviation of the noise that leads up to `sigma_to`."""
    if not eta:
        return sigma_to, 0.0
    down = VE.ancestral_down(sigma_from, sigma_to, eta)
    return down, sqrt((sigma_to - down) * (sigma_to + down))


def default_noise_sampler(x: Tensor) -> Callable[[Any, Any], Tensor]:
    """Return a noise sampler that draws from torch's global generator, as k-diffusion's default does."""
    return lambda sigma, sigma_next: torch.randn_like(x)


class BrownianTreeNoiseSampler:
    """A noise sampler whose noise is that of one Brownian path: the noise source "brownian".

    The path is another one than that of k-diffusion's tree (torchsde) with the same seed.

    Args:
        x: A state, ``(B, ...)``, for shape, dtype and device.
        sigma_min: Not used: the path has every level.
        sigma_max: Not used.
        seed: One seed, or a list with one for each sample. Default: drawn from torch's global generator.
        transform: From a level to the path's time.
    """

    def __init__(
        self,
        x: Tensor,
        sigma_min: Any,
        sigma_max: Any,
        seed: Any = None,
        transform: Callable[[Tensor], Tensor] = lambda x: x,
    ) -> None:
        self.x, self.transform = x, transform
        self.source = get_noise("brownian", seed=global_seed() if seed is None else seed)

    def __call__(self, sigma: Any, sigma_next: Any) -> Tensor:
        """Return unit noise for an interval of levels, like the state."""
        ends = [float(self.transform(torch.as_tensor(level))) for level in (sigma, sigma_next)]
        noise: Tensor = self.source.noise(self.x, *ends)
        return noise
