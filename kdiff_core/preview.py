"""Small images of what a run is about to make: `Preview`, a callback, and `fit_rgb` for latents."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from attrs import Attribute, define, field
from attrs.converters import optional
from torch import Tensor
from torch.nn.functional import interpolate

from .errors import ParameterError, StateError
from .files import write_whole
from .parameters import whole

_BETWEEN = 26  # the grey between images
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


class LatentRGB(NamedTuple):
    """A linear map from latents to colours in the range of the images that it was fitted to.

    Attributes:
        factors: Red, green and blue of each channel, ``(channels, 3)``.
        bias: Of the latent 0, ``(3,)``.
    """

    factors: Tensor
    bias: Tensor

    def of(self, latents: Tensor) -> Tensor:
        """Return the colours of latents ``(B, C, H, W)``, ``(B, 3, H, W)``."""
        colours = torch.einsum("bchw,cd->bdhw", latents, self.factors.to(latents))
        return colours + self.bias.to(latents)[:, None, None]


def fit_rgb(latents: Tensor, images: Tensor) -> LatentRGB:
    """Fit colours to latents by least squares, each place of a latent to the mean of what it stands for.

    Args:
        latents: ``(B, C, h, w)``.
        images: What they are decoded to, ``(B, 3, H, W)``, or of one channel, in any range.

    Raises:
        ParameterError: Other shapes, or fewer places than unknowns.
    """
    shapes = f"latents {tuple(latents.shape)} and images {tuple(images.shape)}"
    if latents.ndim != 4 or images.ndim != 4 or len(latents) != len(images) or images.shape[1] not in (1, 3):
        raise ParameterError(f"{shapes}: give (B, C, h, w) and (B, 3, H, W), as many of each")
    small = interpolate(images.detach().double().cpu(), latents.shape[2:], mode="area")
    colours = small.expand(-1, 3, -1, -1).movedim(1, -1).reshape(-1, 3)
    rows = latents.detach().double().cpu().movedim(1, -1).reshape(len(colours), -1)
    if len(rows) <= rows.shape[1]:
        raise ParameterError(f"{shapes}: {len(rows)} places for {rows.shape[1] + 1} unknowns; give more")
    known = torch.cat([rows, torch.ones(len(rows), 1, dtype=rows.dtype)], 1)
    found = torch.linalg.lstsq(known, colours, driver="gelsd").solution
    return LatentRGB(found[:-1], found[-1])


def _a_range(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if len(value) != 2 or not value[0] < value[1]:
        raise ParameterError(f"Preview: value_range={value!r}: give the lowest and the highest value")


@define(eq=False)
class Preview:
    """A callback that makes small images of the data estimate: ``sampler(..., callback=Preview(every=5))``.

    Data of one or three channels are shown as they are, others as `rgb` has them; of a video, the frame in
    the middle. Making an image waits for the model on a GPU, so `every` is worth setting there.

    Args:
        every: An image every so many steps, and at the last one.
        size: Longest side of an image in pixels: larger ones are averaged, smaller ones enlarged a whole
            number of times. None: as they are.
        rgb: Colours of latents; see `fit_rgb`.
        decode: In place of `rgb`: what makes images of latents. It is called once, with the first sample of
            the first preview, to fit `rgb`.
        value_range: The data's lowest and highest value, or those of the decoded images.
        file: A PNG file that shows all samples and is written anew, whole, with each image.
        show: Called with `images` and the `StepInfo`.

    Attributes:
        images: The last images, ``(B, H, W, 3)`` of 8 bits; None before the first.

    Raises:
        ParameterError: `every` or `size` is no whole number of at least 1; later, latents without `rgb`.
    """

    every: int = field(default=1, validator=whole(1))
    size: int | None = field(default=64)
    rgb: LatentRGB | None = None
    decode: Callable[[Tensor], Tensor] | None = None
    value_range: tuple[float, float] = field(default=(-1.0, 1.0), validator=_a_range)
    file: Path | None = field(default=None, converter=optional(Path))
    show: Callable[[Pixels, Any], Any] | None = None
    images: Pixels | None = field(default=None, init=False)

    @size.validator
    def _whole(self, attribute: Attribute[Any], value: int | None) -> None:
        if value is not None:
            whole(1)(self, attribute, value)

    def __call__(self, info: Any) -> None:
        """Make the images of a step, if it is its turn."""
        if info.denoised is None or ((info.index + 1) % self.every and info.index + 1 < info.total):
            return
        self.images = self.pixels(info.denoised)
        if self.file is not None:
            write_png(self.file, self.images)
        if self.show is not None:
            self.show(self.images, info)

    def pixels(self, x: Any) -> Pixels:
        """Return the images of data, ``(B, H, W, 3)`` of 8 bits.

        Raises:
            StateError: They are no images.
            ParameterError: They are latents, and neither `rgb` nor `decode` is given.
        """
        if not isinstance(x, Tensor) or x.ndim not in (3, 4, 5):
            what = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise StateError(f"Preview: a state of {what}; it shows one tensor (B, C, H, W)")
        data = x.detach().float()
        data = data[:, None] if data.ndim == 3 else data[:, :, data.shape[2] // 2] if data.ndim == 5 else data
        if data.shape[1] not in (1, 3) or self.rgb is not None:
            data = self._colours(x, data)
        low, high = self.value_range
        unit = ((_sized(data, self.size) - low) / (high - low)).nan_to_num().clamp(0, 1)
        pixels = (unit * 255).round().byte().expand(-1, 3, -1, -1).movedim(1, -1)
        found: Pixels = pixels.cpu().numpy()
        return found

    def _colours(self, x: Tensor, data: Tensor) -> Tensor:
        if self.rgb is None:
            if self.decode is None:
                raise ParameterError(
                    f"Preview: data of {data.shape[1]} channels are no image; give rgb=fit_rgb(latents, "
                    "images), or decode="
                )
            with torch.no_grad():
                images = self.decode(x[:1].detach())
            images = images[:, :, images.shape[2] // 2] if images.ndim == 5 else images
            self.rgb = fit_rgb(data[:1], images)
        return self.rgb.of(data)


def _sized(images: Tensor, size: int | None) -> Tensor:
    """Bring images to a longest side."""
    longest = max(images.shape[2:])
    if size is None or longest == size:
        return images
    if longest < size:
        return interpolate(images, scale_factor=size // longest, mode="nearest")
    return interpolate(images, [max(1, round(n * size / longest)) for n in images.shape[2:]], mode="area")


def write_png(file: str | Path, images: Pixels) -> None:
    """Write images as one picture, in rows, as square as can be, whole or not at all.

    Raises:
        MissingExtraError: Pillow is not installed.
    """
    from .manifest import pillow

    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    images = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=_BETWEEN)
    blank = np.full((rows * columns - len(images), *images.shape[1:]), _BETWEEN, np.uint8)
    cells = np.concatenate([images, blank]).reshape(rows, columns, *images.shape[1:])
    sheet = cells.transpose(0, 2, 1, 3, 4).reshape(rows * images.shape[1], columns * images.shape[2], 3)
    data = io.BytesIO()
    pillow().fromarray(np.ascontiguousarray(sheet)).save(data, "PNG")
    write_whole(file, data.getvalue())
