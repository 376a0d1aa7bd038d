"""What a network knows of the time: features, the embedding of them, and a log-variance head."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

FEATURES = 128


def fourier(time: Tensor, size: int, scale: float) -> Tensor:
    """Return sines and cosines of a time, ``(B, size)``, in its dtype.

    The frequencies are the quantiles of a half-normal distribution of `scale` periods for each unit of time,
    where Tancik et al. 2020 (arXiv:2006.10739) draw them: there is nothing to save, and no two are the same.

    Args:
        time: Times, ``(B,)``.
        size: Number of features, even.
        scale: Standard deviation of the frequencies.
    """
    half = size // 2
    mass = (torch.arange(half, device=time.device, dtype=torch.float32) + 0.5) / half
    angles = time[:, None] * (2 * math.pi * scale * torch.special.ndtri((1 + mass) / 2)).to(time.dtype)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def positional(time: Tensor, size: int, period: float = 10_000.0) -> Tensor:
    """Return sines and cosines of a time, ``(B, size)``, of periods from 2 pi to almost 2 pi `period`.

    Vaswani et al. 2017, arXiv:1706.03762, section 3.5.

    Args:
        time: Times or positions, ``(B,)``.
        size: Number of features, even.
        period: The longest period, in units of 2 pi.
    """
    half = size // 2
    place = torch.arange(half, device=time.device, dtype=torch.float32) / half
    angles = time[:, None] * torch.exp(-math.log(period) * place).to(time.dtype)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def time_features(time: Tensor, kind: str, scale: float, size: int = FEATURES) -> Tensor:
    """Return the features of a time, ``(B, size)``, in float32 or float64.

    Args:
        time: Times, ``(B,)``.
        kind: "fourier" or "positional".
        scale: Standard deviation of the frequencies of "fourier".
        size: Number of features, even.
    """
    exact = time if time.dtype == torch.float64 else time.float()
    return fourier(exact, size, scale) if kind == "fourier" else positional(exact, size)


class TimeEmbedding(nn.Module):
    """Two layers on the features of a time: ``(B,)`` to ``(B, width)``."""

    def __init__(self, width: int, kind: str, scale: float) -> None:
        super().__init__()
        self.kind, self.scale = kind, scale
        self.first = nn.Linear(FEATURES, width)
        self.second = nn.Linear(width, width)

    def forward(self, time: Tensor) -> Tensor:
        """Return the embedding."""
        features = time_features(time, self.kind, self.scale).to(self.first.weight.dtype)
        embedding: Tensor = self.second(nn.functional.silu(self.first(features)))
        return embedding


class LogVariance(nn.Module):
    """The logarithm of the error's variance at a time, 0 at first. Karras et al. 2023, arXiv:2312.02696."""

    def __init__(self, kind: str, scale: float) -> None:
        super().__init__()
        self.kind, self.scale = kind, scale
        self.linear = nn.Linear(FEATURES, 1)
        zero(self.linear)

    def forward(self, time: Tensor) -> Tensor:
        """Return it for each time, ``(B,)`` to ``(B,)``."""
        features = time_features(time, self.kind, self.scale).to(self.linear.weight.dtype)
        value: Tensor = self.linear(features)
        return value[:, 0]


def zero(module: nn.Module) -> None:
    """Set a module's own parameters to 0."""
    for parameter in module.parameters(recurse=False):
        nn.init.zeros_(parameter)
