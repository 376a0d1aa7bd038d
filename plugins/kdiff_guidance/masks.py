"""Masks: their values, and their size beside that of a state."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.functional import interpolate

from kdiff_core.errors import ParameterError, StateError
from kdiff_core.state import flatten, rebuild, wide

_RESIZED = 3  # dimensions that torch can average over


def shares(mask: Any) -> Any:
    """Return a mask, or a nest of them, in floating point (a converter of attrs).

    Raises:
        ParameterError: No tensor, or values outside 0 to 1.
    """
    try:
        leaves = flatten(mask)
    except StateError as error:
        raise ParameterError(f"mask: {mask!r:.60} is no tensor, nor a nest of them") from error
    found = [leaf if leaf.is_floating_point() else leaf.float() for leaf in leaves]
    for leaf in found:
        low, high = (float(leaf.min()), float(leaf.max())) if leaf.numel() else (0.0, -1.0)
        if not 0 <= low <= high <= 1:
            raise ParameterError(
                f"mask: values from {low:g} to {high:g}; they lie between 0 (kept) and 1 (made anew)"
            )
    return rebuild(mask, found)


def fitted(mask: Tensor, like: Tensor) -> Tensor:
    """Return a mask with as many dimensions as a tensor ``(B, C, ...)``, to be broadcast against it.

    Its last dimensions are those of the tensor. Behind the channels a size that is neither 1 nor the
    tensor's is resized: each place gets the mean of the places that it covers, in part or wholly.

    Raises:
        ParameterError: It has more dimensions, or another batch size or number of channels.
    """
    mask = mask.to(like.device, wide(like))
    mask = mask.reshape(*[1] * (like.ndim - mask.ndim), *mask.shape)
    wrong = mask.ndim > like.ndim or any(
        m not in (1, n) for m, n in zip(mask.shape[:2], like.shape[:2], strict=True)
    )
    if wrong:
        raise ParameterError(
            f"mask: shape {tuple(mask.shape)} for a state of shape {tuple(like.shape)}; give the last "
            "dimensions, such as (H, W), with one channel or all, for one sample or all"
        )
    size = [1 if m == 1 else n for m, n in zip(mask.shape[2:], like.shape[2:], strict=True)]
    if list(mask.shape[2:]) == size:
        return mask
    if len(size) > _RESIZED:
        raise ParameterError(
            f"mask: size {tuple(mask.shape[2:])} for a state of size {tuple(like.shape[2:])}; in more than "
            f"{_RESIZED} dimensions it is not resized: give one of the state's size"
        )
    return interpolate(mask, size, mode="area")


def rows(value: Tensor, like: Tensor, what: str) -> Tensor:
    """Return a tensor of one row, or of one for each sample.

    Raises:
        ParameterError: Another shape.
    """
    if value.shape[1:] != like.shape[1:] or len(value) not in (1, len(like)):
        raise ParameterError(
            f"{what}: shape {tuple(value.shape)} for a state of shape {tuple(like.shape)}; it has one row, "
            f"or one for each sample: (1, ...) or ({len(like)}, ...)"
        )
    return value.expand_as(like)
