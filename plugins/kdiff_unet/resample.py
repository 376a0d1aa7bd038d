"""Changes of resolution by 2: averaging, convolutions, pixels to channels, fixed filters; and padding."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

CONV: dict[int, type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]] = {
    1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d,
}  # fmt: skip


def conv(dims: int, ins: int, outs: int, kernel: int = 3, stride: int = 1) -> nn.Module:
    """Return a convolution that keeps sizes, or divides them by the stride."""
    return CONV[dims](ins, outs, kernel, stride=stride, padding=kernel // 2)


def to_patches(x: Tensor, size: int) -> Tensor:
    """Move blocks of `size` values a side to channels: ``(B, C, n)`` to ``(B, C size, n/size)`` in 1D."""
    if size == 1:
        return x
    dims = x.ndim - 2
    split = [part for n in x.shape[2:] for part in (n // size, size)]
    order = [0, 1, *range(3, 3 + 2 * dims, 2), *range(2, 2 + 2 * dims, 2)]
    blocks = x.reshape(*x.shape[:2], *split).permute(order)
    return blocks.reshape(x.shape[0], x.shape[1] * size**dims, *(n // size for n in x.shape[2:]))


def from_patches(x: Tensor, size: int) -> Tensor:
    """Undo `to_patches`."""
    if size == 1:
        return x
    dims = x.ndim - 2
    blocks = x.reshape(x.shape[0], x.shape[1] // size**dims, *[size] * dims, *x.shape[2:])
    order = [0, 1, *(axis for d in range(dims) for axis in (2 + dims + d, 2 + d))]
    whole = blocks.permute(order)
    return whole.reshape(x.shape[0], x.shape[1] // size**dims, *(n * size for n in x.shape[2:]))


def pad_to(x: Tensor, multiple: int) -> tuple[Tensor, tuple[slice, ...]]:
    """Repeat the edges until all sizes are multiples; return the result and where the input is in it."""
    missing = [-n % multiple for n in x.shape[2:]]
    if not any(missing):
        return x, ()
    before = [m // 2 for m in missing]
    sides = [side for b, m in zip(before[::-1], missing[::-1], strict=True) for side in (b, m - b)]
    inside = tuple(slice(b, b + n) for b, n in zip(before, x.shape[2:], strict=True))
    return functional.pad(x, sides, mode="replicate"), (slice(None), slice(None), *inside)


class Average(nn.Module):
    """The mean of two values a side."""

    def forward(self, x: Tensor) -> Tensor:
        """Halve the sizes."""
        pool = {3: functional.avg_pool1d, 4: functional.avg_pool2d, 5: functional.avg_pool3d}
        return pool[x.ndim](x, 2)


class Nearest(nn.Module):
    """Each value twice."""

    def forward(self, x: Tensor) -> Tensor:
        """Double the sizes."""
        return functional.interpolate(x, scale_factor=2.0, mode="nearest")


class Unshuffle(nn.Module):
    """Blocks of two values a side into channels."""

    def forward(self, x: Tensor) -> Tensor:
        """Halve the sizes."""
        return to_patches(x, 2)


class Shuffle(nn.Module):
    """Channels into blocks of two values a side."""

    def forward(self, x: Tensor) -> Tensor:
        """Double the sizes."""
        return from_patches(x, 2)


class Filter(nn.Module):
    """A fixed kernel along each dimension, which keeps a constant as it is; edges are repeated.

    Args:
        dims: Dimensions.
        kernel: Weights, an even number.
        up: Whether sizes are doubled rather than halved.
    """

    def __init__(self, dims: int, kernel: tuple[float, ...], up: bool) -> None:
        super().__init__()
        self.dims, self.up = dims, up
        self.kernel = tuple(weight / sum(kernel) * (2 if up else 1) for weight in kernel)

    def forward(self, x: Tensor) -> Tensor:
        """Halve or double the sizes."""
        around = (len(self.kernel) - 2) // 2
        line = torch.tensor(self.kernel, dtype=x.dtype, device=x.device)
        weight = line
        for _ in range(self.dims - 1):
            weight = weight[..., None] * line
        weight = weight.expand(x.shape[1], 1, *weight.shape)
        if not self.up:
            conv_of = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[self.dims]
            padded = functional.pad(x, [around] * (2 * self.dims), mode="replicate")
            return conv_of(padded, weight, stride=2, groups=x.shape[1])
        beside = (around + 1) // 2
        padded = functional.pad(x, [beside] * (2 * self.dims), mode="replicate")
        up_of = {
            1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d,
        }[self.dims]  # fmt: skip
        return up_of(padded, weight, stride=2, padding=around + 2 * beside, groups=x.shape[1])


def down(kind: str, dims: int, channels: int, kernel: tuple[float, ...]) -> nn.Module:
    """Return what halves the sizes and keeps the channels."""
    if kind == "conv":
        return conv(dims, channels, channels, stride=2)
    if kind == "shuffle":
        return nn.Sequential(Unshuffle(), conv(dims, channels * 2**dims, channels, 1))
    return Average() if kind == "average" else Filter(dims, kernel, up=False)


def up(kind: str, dims: int, channels: int, kernel: tuple[float, ...]) -> nn.Module:
    """Return what doubles the sizes and keeps the channels."""
    if kind == "conv":
        return nn.Sequential(Nearest(), conv(dims, channels, channels))
    if kind == "shuffle":
        return nn.Sequential(conv(dims, channels, channels * 2**dims, 1), Shuffle())
    return Nearest() if kind == "average" else Filter(dims, kernel, up=True)
