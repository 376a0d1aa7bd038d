"""From an image file to a tensor: how images are cropped, scaled and brought to [-1, 1]."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from attrs import Attribute, field, frozen
from torch import Tensor

from kdiff_core.errors import MissingExtraError, ParameterError
from kdiff_core.parameters import one_of

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def _pair(size: Any) -> Any:
    return (size, size) if isinstance(size, int) else None if size is None else tuple(size)


def _check_size(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if value is not None and (len(value) != 2 or not all(type(v) is int and v >= 1 for v in value)):
        raise ParameterError(f"size={value!r}: give the height and width, whole numbers of at least 1")


@frozen
class ImageReader:
    """Reads images of one shape, ``(channels, height, width)``, float32 in [-1, 1].

    An image is turned the way its camera was held; then `fit` brings it to the size, by Lanczos' filter:
    "crop" cuts the centre out in the shape wanted, as large as it can be, and scales that; "stretch" scales
    the whole image, also by another factor in height than in width; "pad" scales it to lie inside and
    fills with black (transparent where there is a fourth channel).

    Attributes:
        size: Height and width, or one number for both. None: as they are, all of one size.
        channels: 1 (grey), 3 (colour) or 4 (with transparency); images are converted.
        fit: "crop", "stretch" or "pad".
    """

    size: tuple[int, int] | None = field(default=None, converter=_pair, validator=_check_size)
    channels: int = field(default=3, validator=one_of(1, 3, 4))
    fit: str = field(default="crop", validator=one_of("crop", "stretch", "pad"))

    def __call__(self, image: Path | bytes | Image, name: str) -> Tensor:
        """Return an image as a tensor.

        Args:
            image: A file, what is in one, or an image of pillow.
            name: Name for messages.

        Raises:
            ParameterError: It cannot be read, or has more than 8 bits a channel.
            MissingExtraError: Pillow is not installed.
        """
        opened = self._fitted(_open(image, name, _MODES[self.channels]))
        pixels = np.asarray(opened, dtype=np.float32)
        found = torch.from_numpy(pixels / np.float32(127.5) - 1)
        return found[None] if found.ndim == 2 else found.movedim(-1, 0).contiguous()

    def like(self, shape: tuple[int, ...], image: Path | bytes | Image, name: str) -> Tensor:
        """Return an image as a tensor of the first image's shape.

        Raises:
            ParameterError: It cannot be read, or has another shape.
        """
        x = self(image, name)
        if x.shape != shape:
            raise ParameterError(
                f"{name}: is {x.shape[1]} by {x.shape[2]}, but the first image is {shape[1]} by {shape[2]}; "
                "give size=(height, width)"
            )
        return x

    def _fitted(self, image: Image) -> Image:
        if self.size is None or (image.height, image.width) == self.size:
            return image
        from PIL import Image, ImageOps

        size, method = (self.size[1], self.size[0]), Image.Resampling.LANCZOS
        if self.fit == "stretch":
            return image.resize(size, method)
        return (ImageOps.fit if self.fit == "crop" else ImageOps.pad)(image, size, method)


def _open(image: Path | bytes | Image, name: str, mode: str) -> Image:
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise MissingExtraError("images need pillow: pip install 'kdiff-core[train]'") from error
    try:
        if isinstance(image, Image.Image):
            return _converted(ImageOps.exif_transpose(image), name, mode)
        with Image.open(BytesIO(image) if isinstance(image, bytes) else image) as opened:
            return _converted(ImageOps.exif_transpose(opened), name, mode)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ParameterError(f"{name}: cannot be read as an image ({error})") from error


def _converted(image: Image, name: str, mode: str) -> Image:
    if image.mode[0] in "IF":
        raise ParameterError(f"{name}: has the pixel format {image.mode}; only 8-bit images are read")
    return image.convert(mode)
