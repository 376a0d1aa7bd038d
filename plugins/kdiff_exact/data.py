"""Data sets for the exact denoiser: the digits that ship, array files, folders of images."""

from __future__ import annotations

import zlib
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch

from kdiff_core.errors import MissingExtraError, ParameterError

if TYPE_CHECKING:
    from PIL.Image import Image

_IMAGES = {".png", ".jpg", ".jpeg"}


class Dataset(NamedTuple):
    """Points ``(N, *sample_shape)`` and what is known of them."""

    data: Any
    labels: Any = None
    class_names: tuple[str, ...] | None = None
    value_range: tuple[float, float] | None = None


def load_digits() -> Dataset:
    """Return the handwritten digits: 1,797 of shape ``(1, 8, 8)``, float32 in [-1, 1], ten classes.

    The test part of the UCI data set "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak
    1998), as scikit-learn redistributes it; see DIGITS_LICENSE.md. 0 of 16 becomes -1, 16 becomes 1.
    """
    with (resources.files(__package__) / "digits.npz").open("rb") as file, np.load(file) as stored:
        data = stored["data"].reshape(-1, 1, 8, 8).astype(np.float32) / 8 - 1
        labels = stored["labels"].astype(np.int64)
    return Dataset(data, labels, tuple("0123456789"), (-1.0, 1.0))


def load(path: str | PathLike[str], size: int | tuple[int, int] | None = None) -> Dataset:
    """Read a data set.

    Args:
        path: One of

            - a .npy file: the points, ``(N, ...)``, taken as they are;
            - a .npz file: its array ``data`` (or its only array), and ``labels`` if it has one;
            - a folder of PNG or JPEG images, scaled to [-1, 1], shape ``(1 or 3, H, W)``; if it has
              subfolders instead, each is a class, numbered in the order of their names.
        size: For a folder: crop the centre to this shape and scale it, int or ``(height, width)``.

    Raises:
        ParameterError: It cannot be read; the message has the offending file.
        MissingExtraError: It is a folder and pillow is not installed.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        return _load_folder(place, size)
    if size is not None:
        raise ParameterError(f"{place}: size= is for a folder of images")
    if not place.is_file():
        raise ParameterError(f"{place}: no such file or folder")
    if place.suffix.lower() not in (".npy", ".npz"):
        raise ParameterError(f"{place}: unknown kind of file; give a .npy, a .npz or a folder of images")
    try:
        return _load_arrays(place)
    except (ValueError, OSError, EOFError, BadZipFile, zlib.error) as error:
        if isinstance(error, ParameterError):
            raise
        raise ParameterError(f"{place}: cannot be read as arrays of numbers ({error})") from error


def _load_arrays(place: Path) -> Dataset:
    """Read a .npy or .npz file; objects are refused, since reading them would run code."""
    # Opened here, since NumPy leaves a file open that it fails to read.
    with place.open("rb") as file:
        stored = np.load(file, allow_pickle=False)
        if isinstance(stored, np.ndarray):
            return Dataset(stored)
        names = [n for n in stored.files if n != "labels"]
        if "data" not in names and len(names) != 1:
            raise ParameterError(f"{place}: has the arrays {stored.files}; name the points 'data'")
        data = stored["data" if "data" in names else names[0]]
        return Dataset(data, stored["labels"] if "labels" in stored.files else None)


def _load_folder(folder: Path, size: int | tuple[int, int] | None) -> Dataset:
    """Read all images of a folder, or of its subfolders, which are then the classes."""
    shape = _size(size, folder)
    inner = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    here = _files(folder)
    if here and inner:
        raise ParameterError(
            f"{here[0]}: lies beside the folder {inner[0].name}; put images either in {folder} itself "
            "(no classes) or in one subfolder for each class"
        )
    groups = [here] if here or not inner else [_files(p) for p in inner]
    for group, place in zip(groups, inner or [folder], strict=True):
        if not group:
            raise ParameterError(f"{place}: has no image; PNG and JPEG files are read")
    images = _read([file for group in groups for file in group], shape)
    if not inner:
        return Dataset(images, value_range=(-1.0, 1.0))
    labels = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    return Dataset(images, labels, tuple(p.name for p in inner), (-1.0, 1.0))


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in _IMAGES and not p.name.startswith("."))


def _size(size: Any, folder: Path) -> tuple[int, int] | None:
    """Return the size as ``(height, width)``."""
    if size is None:
        return None
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or not all(isinstance(v, int) and v >= 1 for v in pair):
        raise ParameterError(f"{folder}: size={size!r} must be an int or (height, width), at least 1")
    return pair


def _read(files: list[Path], size: tuple[int, int] | None) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Read images of one size, ``(N, 1, H, W)`` if all are grey, else ``(N, 3, H, W)``, in [-1, 1]."""
    images = [_open(file, size) for file in files]
    for file, image in zip(files, images, strict=True):
        if image.size != images[0].size:
            raise ParameterError(
                f"{file}: is {image.height} by {image.width}, but {files[0].name} is {images[0].height} by "
                f"{images[0].width}; pass size=(height, width) to crop and scale all of them"
            )
    mode = "L" if all(image.mode == "L" for image in images) else "RGB"
    pixels = np.stack([np.asarray(image.convert(mode)) for image in images])
    pixels = pixels[:, None] if mode == "L" else pixels.transpose(0, 3, 1, 2)
    return pixels.astype(np.float32) / np.float32(127.5) - 1


def _open(file: Path, size: tuple[int, int] | None) -> Image:
    """Read an image as grey or RGB, turned the way its camera was held."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise MissingExtraError("a folder of images needs pillow: pip install 'kdiff-core[cli]'") from error
    try:
        with Image.open(file) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode[0] in "IF":
                raise ParameterError(f"{file}: has the pixel format {image.mode}; only 8-bit images are read")
            image = image.convert("L" if image.mode in ("L", "1") else "RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ParameterError(f"{file}: cannot be read as an image ({error})") from error
    if size is None:
        return image
    return ImageOps.fit(image, (size[1], size[0]), Image.Resampling.LANCZOS)


def as_points(data: Any, name: str) -> torch.Tensor:
    """Check the data; float64 stays, everything else becomes float32."""
    try:
        points = torch.as_tensor(data).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ParameterError(f"{name}: data is no array of numbers ({error})") from error
    if points.dtype in (torch.uint8, torch.bool) or points.is_complex():
        raise ParameterError(
            f"{name}: data is {points.dtype}, whose scale is unknown; pass floats: data / 127.5 - 1"
        )
    if points.ndim == 0 or points.numel() == 0:
        raise ParameterError(f"{name}: data has the shape {tuple(points.shape)}; needed is (N, ...), N >= 1")
    points = points.clone() if points.dtype == torch.float64 else points.to(torch.float32, copy=True)
    bad = (~points.reshape(len(points), -1).isfinite()).any(1).nonzero()
    if len(bad):
        raise ParameterError(f"{name}: data[{int(bad[0])}] has a value that is not finite")
    return points


def as_labels(labels: Any, size: int, name: str) -> torch.Tensor:
    """Check that each point has a class and each class a point."""
    try:
        values = torch.as_tensor(labels).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ParameterError(f"{name}: labels are no list of integers ({error})") from error
    if values.shape != (size,) or values.is_floating_point() or values.dtype == torch.bool:
        raise ParameterError(
            f"{name}: labels have the shape {tuple(values.shape)} and dtype {values.dtype}; "
            f"needed: one integer for each of the {size} points"
        )
    values = values.to(torch.int64)
    if int(values.min()) < 0:
        raise ParameterError(f"{name}: labels[{int(values.argmin())}] is negative; classes count from 0")
    empty = (torch.bincount(values) == 0).nonzero()
    if len(empty):
        raise ParameterError(f"{name}: class {int(empty[0])} has no point; number the classes without gaps")
    return values
