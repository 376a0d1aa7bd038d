"""What a model says of data at each noise level: its error, and the likelihood that follows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kdiff_core.likelihood import log_likelihood
from kdiff_core.lookup import get_schedule
from kdiff_core.noise import KeyedNoise
from kdiff_core.path import as_path
from kdiff_core.setup import noise_range

LEVELS = 10
LIKELIHOOD_STEPS = 20  # of a method of order 4: 80 evaluations, each with a derivative


class LevelLoss(NamedTuple):
    """The error of the denoised data at one level.

    Attributes:
        sigma: The level.
        held_out: Mean square over held-out data, over that of the best linear denoiser of independent
            values of the same standard deviation, which is 1.
        train: The same of training data, or None.
    """

    sigma: float
    held_out: float
    train: float | None


def loss_by_level(
    model: Any,
    reals: dict[str, Tensor],
    train: dict[str, Tensor] | None,
    device: Any = "cpu",
    batch: int = 256,
    levels: int = LEVELS,
) -> tuple[LevelLoss, ...]:
    """Return the errors at levels from the highest to the lowest, at equal distances in the logarithm.

    Each sample has the same noise at all levels, a function of its number. A model that errs less on what it
    was trained on than on what is held out knows it by heart, to that extent.

    Args:
        model: The denoiser.
        reals: Held-out data, a batch by name; all of it but ``x`` are conditions.
        train: Training data, likewise, or None.
        device: Where the model is.
        batch: Samples at once.
        levels: Number of levels, at least 2.

    Raises:
        ParameterError: The model does not say its range of levels.
    """
    path = as_path(getattr(model, "path", "ve"))
    found = []
    for sigma in _grid(model, "exponential", levels)[:-1]:
        errors = [
            None if data is None else _error(model, data, sigma, path.alpha(sigma), device, batch)
            for data in (reals, train)
        ]
        assert errors[0] is not None
        found.append(LevelLoss(sigma, errors[0], errors[1]))
    return tuple(found)


@torch.no_grad()
def _error(model: Any, data: dict[str, Tensor], sigma: float, alpha: float, device: Any, batch: int) -> float:
    total = 0.0
    for first, part in _parts(data, device, batch):
        x0 = part.pop("x")
        noise = KeyedNoise(0, range(first, first + len(x0))).noise(x0, 0.0, 0.0, "loss")
        denoised = model(alpha * x0 + sigma * noise, x0.new_full((len(x0),), sigma), **part)
        total += float((denoised - x0).double().square().sum())
    variance = float(data["x"].double().var(correction=0))
    best = variance * sigma**2 / (alpha**2 * variance + sigma**2)
    return total / data["x"].numel() / best


def bits_per_dim(
    model: Any, data: dict[str, Tensor], device: Any = "cpu", batch: int = 256, steps: int = LIKELIHOOD_STEPS
) -> float:
    """Return the mean of ``-log2 p(x)`` for each number of a sample, with Hutchinson's trace.

    It is of the density of states at the model's lowest level; for 8-bit images in [-1, 1] add
    ``log2(127.5)``; see `kdiff_core.log_likelihood`.

    Args:
        model: The denoiser; it can be differentiated by its input.
        data: A batch by name; all of it but ``x`` are conditions.
        device: Where the model is.
        batch: Samples at once.
        steps: Steps of the probability flow.
    """
    grid, process = _grid(model, "karras", steps), getattr(model, "process", None)
    total = 0.0
    for first, part in _parts(data, device, batch):
        x0 = part.pop("x")
        # A seed for each sample, so that its probes do not depend on the batch.
        seeds = list(range(first, first + len(x0)))
        total += float(
            log_likelihood(model, x0, grid, sampler="rk4", seed=seeds, cond=part, process=process)
            .detach()
            .sum()
        )
    return -total / (data["x"].numel() * math.log(2))


def _grid(model: Any, schedule: str, n: int) -> tuple[float, ...]:
    """Return levels over the model's range, and a 0."""
    process = getattr(model, "process", None)
    low, high = noise_range(model, process, None, None)
    return tuple(get_schedule(schedule)(n, sigma_min=low, sigma_max=high, process=process))


def _parts(data: dict[str, Tensor], device: Any, batch: int) -> Iterator[tuple[int, dict[str, Tensor]]]:
    for first in range(0, len(data["x"]), batch):
        yield first, {name: value[first : first + batch].to(device) for name, value in data.items()}
