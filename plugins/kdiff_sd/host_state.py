"""States and outputs as diffusers has them, and as kdiff has them.

A pipeline's state is kdiff's, divided by ``sqrt(1 + sigma^2)`` on the VE path; on flow both are the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdiff_core.predictions import PREDICTIONS, Level, table_level

from .scheduler_config import Config, is_continuous


def scale_of(process: Any, sigma: float) -> float:
    """Return the factor from kdiff's state to the pipeline's."""
    return 1.0 if process.path == "flow" else float((1 + sigma * sigma) ** -0.5)


def denoise(config: Config, process: Any, output: Tensor, x: Tensor, sigma: float) -> Tensor:
    """Return the model's estimate of the data, clipped where the config has ``clip_sample``.

    Args:
        config: The scheduler's config.
        process: The model's process, which says what the output is.
        output: The model's output, like `x`; with a learned variance twice its channels.
        x: State that the model was given, as kdiff has it.
        sigma: Its level.
    """
    learned = str(config.get("variance_type", "")).startswith("learned")
    if learned and output.shape[1] == 2 * x.shape[1]:
        output = output[:, : x.shape[1]]
    level = torch.tensor(sigma, dtype=torch.float64, device="cpu")
    alpha = 1 - level if process.path == "flow" else torch.ones_like(level)
    weights = PREDICTIONS[process.prediction].weights(Level(alpha, level, 1.0, lambda: level))
    c_skip, c_out = (float(weight) for weight in weights)
    denoised = c_skip * x + c_out * output.to(x)
    if config.get("clip_sample"):
        bound = config.get("clip_sample_range", 1.0)
        denoised = denoised.clamp(-bound, bound)
    return denoised


def levels_of(config: Config, process: Any, timesteps: Tensor, like: Tensor) -> Tensor:
    """Return the levels of timesteps ``(B,)``, on the device of `like` and without waiting for it."""
    exact = torch.float32 if like.device.type == "mps" else torch.float64
    told = timesteps.to(like.device, exact).reshape(-1)
    if process.path == "flow":
        return told / float(config.get("num_train_timesteps", 1000))
    if is_continuous(config):
        return (4 * told).exp()
    levels = torch.tensor(process.levels, dtype=torch.float64, device="cpu")
    return table_level(told, levels.log().to(told))


def as_planned(sigma: Tensor, timesteps: Tensor, told: Tensor, sigmas: Tensor) -> Tensor:
    """Return the levels of timesteps, those of the run itself where they are its own and perhaps rounded.

    Args:
        sigma: What `levels_of` found, ``(B,)``.
        timesteps: The timesteps, ``(B,)``.
        told: Those of the run's model calls.
        sigmas: The levels of those calls, and the last.
    """
    same = told.to(sigma) == timesteps.to(sigma).reshape(-1, 1)
    return torch.where(same.any(1), sigmas[:-1].to(sigma)[same.int().argmax(1)], sigma)


def factors(process: Any, sigma: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the factors of data and noise in a pipeline's state at levels ``(B,)``, each ``(B, 1, ...)``."""
    flow = process.path == "flow"
    alpha = 1 - sigma if flow else (1 + sigma**2).rsqrt()
    noise = sigma if flow else sigma * alpha
    shape = (-1, *[1] * (like.ndim - 1))
    return alpha.to(like.dtype).reshape(shape), noise.to(like.dtype).reshape(shape)
