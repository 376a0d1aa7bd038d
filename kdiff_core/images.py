"""Image files and masks as tensors, checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import ParameterError

_DEEP = ("I", "F")  # modes of Pillow with more than 8 bits, which it cuts off


def read_image(
    file: str | Path,
    shape: tuple[int, ...],
    value_range: tuple[float, float] = (-1.0, 1.0),
    resize: bool = False,
) -> Tensor:
    """Read an image file as a sample.

    Args:
        file: PNG, JPEG, ... ; as its orientation says, transparency left out.
        shape: Of the sample, ``(1 or 3, H, W)`` or ``(H, W)``.
        value_range: What black and white become.
        resize: Whether a picture of another size is scaled to cover this one, and what is over is cut off
            around the middle.

    Raises:
        ParameterError: It cannot be read, is of another size, or the samples are no images.
    """
    channels = shape[0] if len(shape) == 3 else 1
    if len(shape) not in (2, 3) or channels not in (1, 3):
        raise ParameterError(f"{file}: a sample of shape {shape} is no image; give an array of that shape")
    unit = _opened(file, shape[-2:], "L" if channels == 1 else "RGB", resize)
    low, high = value_range
    values = torch.from_numpy(unit).movedim(-1, 0) if channels == 3 else torch.from_numpy(unit)
    return (values * (high - low) + low).reshape(shape)


def read_mask(file: str | Path, size: tuple[int, ...], resize: bool = False) -> Tensor:
    """Read a mask, ``(H, W)``: white is 1, made anew, black 0, kept.

    Raises:
        ParameterError: It cannot be read, or is of another size.
    """
    return torch.from_numpy(_opened(file, size, "L", resize))


def _opened(file: str | Path, size: tuple[int, ...], mode: str, resize: bool) -> Any:
    """Read a picture as an array from 0 to 1."""
    from .manifest import pillow

    pil = pillow()
    from PIL import ImageOps

    try:
        with pil.open(file) as opened:
            if opened.mode.startswith(_DEEP):
                raise ParameterError(f"{file}: a picture of mode {opened.mode}; save it with 8 bits")
            image = ImageOps.exif_transpose(opened).convert(mode)
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, ParameterError):
            raise
        why = getattr(error, "strerror", None) or "it is no picture that Pillow knows"
        raise ParameterError(f"{file}: cannot be read: {why}") from error
    height, width = size
    if image.size != (width, height):
        if not resize:
            raise ParameterError(
                f"{file}: {image.size[0]} x {image.size[1]} pixels, but the model makes {width} x {height}; "
                "resize it, or ask for it with resize=True (--resize)"
            )
        image = ImageOps.fit(image, (width, height), pil.Resampling.LANCZOS)
    return np.asarray(image, np.float64) / 255
