"""The model wrappers of ``k_diffusion.external``: modules that return the denoised state."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from kdiff_core.parameterisations import Parameterised
from kdiff_core.predictions import table_level, table_place

from .wrappers import table_of


class DiscreteSchedule(nn.Module):
    """A map between noise levels and the places of a table of them.

    Args:
        sigmas: The table, ``(T,)``, rising; it becomes the buffer ``sigmas``.
        quantize: Whether places are rounded to the nearest entry.
    """

    sigmas: Tensor
    log_sigmas: Tensor

    def __init__(self, sigmas: Tensor, quantize: bool) -> None:
        super().__init__()
        self.register_buffer("sigmas", sigmas)
        self.register_buffer("log_sigmas", sigmas.log())
        self.quantize = quantize

    @property
    def sigma_min(self) -> Tensor:
        """The lowest level."""
        return self.sigmas[0]

    @property
    def sigma_max(self) -> Tensor:
        """The highest level."""
        return self.sigmas[-1]

    def get_sigmas(self, n: int | None = None) -> Tensor:
        """Return `n` levels uniform in the table's time, then 0: ``(n + 1,)``; without `n` all the table."""
        places = torch.linspace(len(self.sigmas) - 1, 0, n or len(self.sigmas), dtype=torch.float64)
        levels = self.sigmas.flip(0) if n is None else self.t_to_sigma(places.to(self.sigmas.device))
        return torch.cat([levels.to(self.sigmas), self.sigmas.new_zeros([1])])

    def sigma_to_t(self, sigma: Tensor, quantize: bool | None = None) -> Tensor:
        """Return the places of levels, 0 to ``T - 1``: int64 where they are quantised."""
        place = table_place(sigma.double(), self.log_sigmas.double())
        return place.round().long() if (self.quantize if quantize is None else quantize) else place.to(sigma)

    def t_to_sigma(self, t: Tensor) -> Tensor:
        """Return the levels at places, in the table's dtype."""
        return table_level(t.double(), self.log_sigmas.double()).to(self.sigmas)


class _Discrete(DiscreteSchedule):
    """A model with a table of levels, in terms of `Parameterised`."""

    prediction = "epsilon"

    def __init__(self, model: Any, alphas_cumprod: Any, quantize: bool, **options: Any) -> None:
        abar = torch.as_tensor(alphas_cumprod)
        super().__init__(((1 - abar) / abar).sqrt(), quantize)
        self.inner_model = model
        self.sigma_data = 1.0
        self.denoiser = Parameterised(
            self.predict_with, self.prediction, process=table_of(abar), quantised=quantize, **options
        )

    def predict_with(self, x: Tensor, t: Tensor, **cond: Any) -> Any:
        """Call the model; a class with another way of calling it overrides this."""
        return self.inner_model(x, t, **cond)

    def forward(self, input: Tensor, sigma: Tensor, **cond: Any) -> Tensor:
        """Return the denoised state.

        Args:
            input: State on the VE path, ``(B, ...)``.
            sigma: Noise level of each sample, ``(B,)``.
            **cond: Conditions.
        """
        return self.denoiser(input, sigma, **cond)


class DiscreteEpsDDPMDenoiser(_Discrete):
    """A model that predicts the noise.

    Args:
        model: ``model(x, t, **cond)``.
        alphas_cumprod: Its table, ``(T,)``.
        quantize: Whether timesteps are rounded to whole ones.
    """


class DiscreteVDDPMDenoiser(_Discrete):
    """A model that predicts v; see `DiscreteEpsDDPMDenoiser`."""

    prediction = "v_prediction"


class CompVisDenoiser(DiscreteEpsDDPMDenoiser):
    """A latent diffusion model that predicts the noise, called as ``apply_model(x, t, cond=...)``.

    Args:
        model: With ``apply_model`` and ``alphas_cumprod``.
        quantize: Whether timesteps are rounded to whole ones.
        device: Where the table goes.
    """

    def __init__(self, model: Any, quantize: bool = False, device: Any = "cpu") -> None:
        super().__init__(model, model.alphas_cumprod.to(device), quantize=quantize)

    def predict_with(self, x: Tensor, t: Tensor, **cond: Any) -> Any:
        """Call ``apply_model``."""
        return self.inner_model.apply_model(x, t, **cond)


class CompVisVDenoiser(CompVisDenoiser):
    """A latent diffusion model that predicts v; see `CompVisDenoiser`."""

    prediction = "v_prediction"


class OpenAIDenoiser(DiscreteEpsDDPMDenoiser):
    """A guided-diffusion model, called as ``model(x, t, **cond)``.

    Args:
        model: The model.
        diffusion: With ``alphas_cumprod``.
        quantize: Whether timesteps are rounded to whole ones.
        has_learned_sigmas: Whether the second half of its channels is the variance, which is dropped.
        device: Where the table goes.
    """

    def __init__(
        self,
        model: Any,
        diffusion: Any,
        quantize: bool = False,
        has_learned_sigmas: bool = True,
        device: Any = "cpu",
    ) -> None:
        abar = torch.as_tensor(diffusion.alphas_cumprod).to(device, torch.float32)
        super().__init__(model, abar, quantize=quantize, learned_variance=has_learned_sigmas)
        self.has_learned_sigmas = has_learned_sigmas


class VDenoiser(nn.Module):
    """A model that predicts v in continuous time, ``model(x, 2 / pi atan(sigma), **cond)``.

    Args:
        inner_model: The model.
    """

    def __init__(self, inner_model: Any) -> None:
        super().__init__()
        self.inner_model = inner_model
        self.sigma_data = 1.0
        self.denoiser = Parameterised(
            inner_model, "v_prediction", process="continuous_v", time="angle", time_scale=2 / math.pi
        )

    def sigma_to_t(self, sigma: Tensor) -> Tensor:
        """Return the time of levels, 0 to 1."""
        return sigma.atan() * (2 / math.pi)

    def t_to_sigma(self, t: Tensor) -> Tensor:
        """Return the levels at times."""
        return (t * (math.pi / 2)).tan()

    def forward(self, input: Tensor, sigma: Tensor, **cond: Any) -> Tensor:
        """Return the denoised state; see `DiscreteEpsDDPMDenoiser.forward`."""
        return self.denoiser(input, sigma, **cond)
