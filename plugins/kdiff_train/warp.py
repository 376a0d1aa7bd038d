"""Images under an affine map, without aliasing."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import grid_sample


def warp(x: Tensor, matrix: Tensor) -> Tensor:
    """Return images seen through an affine map, mirrored at their edges.

    The place `p` of a result, in pixels from its centre, first to the right and then down, has what lies at
    ``A p + b`` of the image, by cubic interpolation (Keys 1981). Where the map shrinks the image, what falls
    into one pixel is averaged: at four places, whose spread makes up the variance by which the pixel, as the
    map sees it, exceeds a pixel of the image. So moves by whole pixels and turns by 90 degrees are exact
    to rounding.

    Args:
        x: Images, ``(B, C, H, W)``, floating point.
        matrix: The maps ``[A, b]``, ``(B, 2, 3)``, float64 on the CPU.
    """
    work = x if x.dtype == torch.float64 else x.float()
    height, width = x.shape[2:]
    # A box of width s has variance s^2 / 12; two points at -d and d have d^2.
    axes, stretch, _ = torch.linalg.svd(matrix[:, :, :2])
    spread = axes * ((stretch.square() - 1).clamp_min(0) / 12).sqrt()[:, None, :]
    right = torch.arange(width, device=x.device, dtype=work.dtype) - (width - 1) / 2
    down = (torch.arange(height, device=x.device, dtype=work.dtype) - (height - 1) / 2)[:, None]
    signs = [(a, b) for a in (-1, 1) for b in (-1, 1)] if bool(spread.any()) else [(0, 0)]
    total = torch.zeros_like(work)
    for first, second in signs:
        place = matrix[:, :, 2] + first * spread[:, :, 0] + second * spread[:, :, 1]
        map_x, map_y = torch.cat([matrix[:, :, :2], place[:, :, None]], 2).to(work)[..., None, None].unbind(1)
        across = map_x[:, 0] * right + map_x[:, 1] * down + map_x[:, 2]
        along = map_y[:, 0] * right + map_y[:, 1] * down + map_y[:, 2]
        grid = torch.stack([across * (2 / width), along * (2 / height)], -1)
        total = total + grid_sample(work, grid, "bicubic", "reflection", align_corners=False)
    return (total / len(signs)).to(x.dtype)
