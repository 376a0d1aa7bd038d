"""Arithmetic on the samples of a batch, each alone, and the spaces that guidance acts in."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from kdiff_core.errors import ParameterError
from kdiff_core.path import FLOW, Path

Space = Literal["x0", "eps", "v", "slope"]
SPACES: tuple[Space, ...] = ("x0", "eps", "v", "slope")


def column(value: Tensor, like: Tensor) -> Tensor:
    """Bring one number for each sample, ``(B,)``, to the number of dimensions of a state."""
    return value.reshape(-1, *[1] * (like.ndim - 1))


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of each sample of `a` with that of `b`, ``(B, 1, ...)``.

    Each sample is summed alone: a sum over a row of a batch has other last digits than over the row alone.
    """
    return column(torch.stack([(p * q).sum() for p, q in zip(a, b, strict=True)]), a)


def ratio(a: Tensor, b: Tensor) -> Tensor:
    """``a / b``, and 0 where `b` is 0."""
    zero = b == 0
    return torch.where(zero, 0.0, a / torch.where(zero, 1.0, b))


def along(a: Tensor, b: Tensor) -> Tensor:
    """The part of each sample of `a` that is parallel to that of `b`; 0 where `b` is 0."""
    return b * ratio(inner(a, b), inner(b, b))


def check_space(space: Space, path: Path) -> None:
    """Refuse a space in which a path's outputs cannot be told apart.

    Raises:
        ParameterError: eps on a flow path.
    """
    if space == "eps" and path is FLOW:
        raise ParameterError(
            "space='eps' on a flow path: at sigma = 1 the noise is the state, whatever the data; "
            "take 'v' or 'slope'"
        )


def to_space(space: Space, path: Path, x: Tensor, sigma: Tensor, denoised: Tensor) -> Tensor:
    """Return a data estimate as another prediction.

    Args:
        space: ``"x0"``, the estimate itself; ``"eps"``, the noise; ``"v"``, the velocity of Salimans & Ho
            2022, arXiv:2202.00512, on VE and that of rectified flow on flow; ``"slope"``,
            ``dx/dsigma = (x - D) / sigma``: eps on VE, v on flow.
        path: The noise path.
        x: State.
        sigma: Its level, above 0, to be broadcast.
        denoised: Estimate of the data.
    """
    if space == "x0":
        return denoised
    slope = (x - denoised) / sigma
    if space == "v" and path is not FLOW:
        return (slope - denoised * sigma) / (1 + sigma * sigma).sqrt()
    return slope


def from_space(space: Space, path: Path, x: Tensor, sigma: Tensor, value: Tensor) -> Tensor:
    """Return the data estimate of a prediction, the inverse of `to_space`."""
    if space == "x0":
        return value
    if space == "v" and path is not FLOW:
        square = 1 + sigma * sigma
        return x / square - value * sigma / square.sqrt()
    return x - value * sigma
