"""Pictures of samples: a grid of them, and the way from noise to data as a sheet or an animation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ParameterError
from ..manifest import pillow, write_gif
from ..path import as_path

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

    from ..result import Result
    from ..setup import Setup

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
_WIDTH = 720
_GIF_WIDTH, _GIF_COLOURS = 400, 48  # noise does not compress
_ROWS = 8
_BACKGROUND = (24, 26, 31)
_FRAME_MS, _LAST_MS = 120, 2000


def image_shape(shape: Sequence[int]) -> tuple[int, int] | None:
    """Return the height and width of a sample that is an image, else None: (H, W), or (1 or 3, H, W)."""
    size = tuple(shape)
    if len(size) == 3 and size[0] in (1, 3):
        return size[1], size[2]
    return (size[0], size[1]) if len(size) == 2 else None


def require_image(setup: Setup, file: Path) -> None:
    """Raise `ParameterError` unless the samples are images."""
    shape = setup.sample_shape
    if image_shape(shape) is None:
        raise ParameterError(f"{file}: a sample of shape {shape} is no image; write an .npz file instead")


def grid(setup: Setup, result: Result, columns: int | None) -> Image:
    """Return all samples in a grid, as square as can be unless the number of columns is given.

    One image that was decoded from latents is that image, as large as it is.
    """
    pixels = _pixels(setup, result.x)
    if len(pixels) == 1 and hasattr(setup.model, "decode"):
        image: Image = pillow().fromarray(pixels[0]).convert("RGB")
        return image
    return _sheet(pixels, min(columns or math.ceil(math.sqrt(len(pixels))), len(pixels)))


def contact_sheet(setup: Setup, result: Result) -> Image:
    """Return the first samples as rows, the levels as columns."""
    states = [frame[:_ROWS] for frame in _frames(setup, result)]
    return _sheet(np.stack(states, 1).reshape(-1, *states[0].shape[1:]), len(states))


def write_animation(
    file: Path, setup: Setup, result: Result, columns: int | None, manifest: Mapping[str, Any]
) -> int:
    """Write the grid at each level as a GIF, the samples staying for a while.

    Returns:
        The number of frames.
    """
    states = _frames(setup, result)
    wide = min(columns or math.ceil(math.sqrt(len(states[0]))), len(states[0]))
    images = [_sheet(state, wide, _GIF_WIDTH).quantize(_GIF_COLOURS) for state in states]
    durations = [_FRAME_MS] * (len(images) - 1) + [_LAST_MS]
    write_gif(file, images, manifest, duration=durations, loop=0)
    return len(images)


def _frames(setup: Setup, result: Result) -> list[Pixels]:
    """Return the state at each level as pixels, scaled so that noise does not saturate at high levels."""
    path = as_path(setup.path)
    levels = result.info["levels"]
    scales = [float(path.alpha(level) + level) for level in levels]
    return [
        _pixels(setup, state / scale) for state, scale in zip(result.trajectory or [], scales, strict=True)
    ]


def _pixels(setup: Setup, x: Any) -> Pixels:
    """Return ``(n, H, W, 1 or 3)`` of 8 bits."""
    low, high = getattr(setup.denoiser, "value_range", None) or (-1.0, 1.0)
    values = setup.decoded(x).detach().double().cpu().numpy()
    values = values[:, None] if values.ndim == 3 else values
    unit = np.clip((values - low) / (high - low), 0, 1)
    pixels: Pixels = np.rint(unit * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    return pixels


def _sheet(pixels: Pixels, columns: int, wide: int = _WIDTH) -> Image:
    """Lay images out in rows, small ones enlarged, with a gap between them."""
    pil = pillow()
    height, width = pixels.shape[1:3]
    scale = max(1, round(wide / columns * 0.92 / width))
    gap = max(2, round(width * scale / 12))
    rows = math.ceil(len(pixels) / columns)
    cell = (width * scale, height * scale)
    size = (gap + columns * (cell[0] + gap), gap + rows * (cell[1] + gap))
    sheet = pil.new("RGB", size, _BACKGROUND)
    for number, one in enumerate(pixels):
        image = pil.fromarray(one[:, :, 0] if one.shape[2] == 1 else one)
        if scale > 1:
            image = image.resize(cell, pil.Resampling.BICUBIC)
        row, column = divmod(number, columns)
        sheet.paste(image.convert("RGB"), (gap + column * (cell[0] + gap), gap + row * (cell[1] + gap)))
    found: Image = sheet
    return found
