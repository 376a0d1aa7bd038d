"""`Folder`: the images of a folder, with sub-folders as classes."""

from __future__ import annotations

import hashlib
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor

from kdiff_core.errors import ParameterError

from .images import SUFFIXES, ImageReader
from .splits import split_indices


@frozen(eq=False, repr=False)
class Folder:
    """Images of a folder and all folders in it, in the order of their paths; read when asked for.

    Attributes:
        root: The folder.
        reader: How they are read.
        files: The images.
        labels: The class of each, ``(N,)`` int64, or None.
        class_names: The sub-folders, in order, or None.
        sample_shape: Shape of a sample: of the first image where no size is given.
    """

    root: Path
    reader: ImageReader
    files: tuple[Path, ...]
    labels: Tensor | None
    class_names: tuple[str, ...] | None
    sample_shape: tuple[int, ...] = field()
    value_range = (-1.0, 1.0)

    @sample_shape.default
    def _of_the_first(self) -> tuple[int, ...]:
        return tuple(self.reader(self.files[0], str(self.files[0])).shape)

    @property
    def classes(self) -> int | None:
        """Number of classes."""
        return None if self.class_names is None else len(self.class_names)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the files' names, sizes and times of change, and of how they are read."""
        found = hashlib.sha256(repr((self.reader, self.class_names)).encode())
        for file in self.files:
            stat = file.stat()
            found.update(f"{file.relative_to(self.root)}|{stat.st_size}|{stat.st_mtime_ns};".encode())
        return found.hexdigest()

    def __len__(self) -> int:
        """Number of images."""
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return image `index`: ``x`` and, if there are classes, ``label``.

        Raises:
            ParameterError: It cannot be read, or has another size than the first.
        """
        if not 0 <= index < len(self.files):
            raise IndexError(f"{self.root}: there is no image {index}; there are {len(self.files)}")
        file = self.files[index]
        x = self.reader.like(self.sample_shape, file, str(file))
        return {"x": x} if self.labels is None else {"x": x, "label": int(self.labels[index])}

    def __repr__(self) -> str:
        return f"Folder({str(self.root)!r}, {len(self)} of {self.sample_shape}, classes={self.classes})"


def folder(
    path: str | PathLike[str],
    size: int | tuple[int, int] | None = None,
    channels: int = 3,
    fit: str = "crop",
    classes: bool | None = None,
    split: str = "all",
) -> Folder:
    """Return a data set of the images of a folder.

    Args:
        path: The folder. Images lie in it or in folders inside, at any depth; hidden ones are left out.
        size: Height and width; see `kdiff_train.data.images.ImageReader`, also for `channels` and `fit`.
        channels: 1, 3 or 4.
        fit: "crop", "stretch" or "pad".
        classes: Whether the folders in `path` are classes, numbered in the order of their names. Default:
            if all images lie in such folders.
        split: "train", "test" or "all"; see `kdiff_train.data.splits.split_indices`.

    Raises:
        ParameterError: No such folder, no image in it, or an image in no class.
        MissingExtraError: Pillow is not installed.
    """
    place = Path(path).expanduser()
    if not place.is_dir():
        raise ParameterError(f"{place}: no such folder")
    files = [p for p in place.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()]
    parts = sorted(p.relative_to(place).parts for p in files)
    parts = [each for each in parts if not any(part.startswith(".") for part in each)]
    if not parts:
        raise ParameterError(f"{place}: has no image; these are read: {', '.join(SUFFIXES)}")
    outside = next((each for each in parts if len(each) == 1), None)
    if classes and outside:
        raise ParameterError(f"{place / outside[0]}: lies in no sub-folder, and those are the classes")
    names = (
        tuple(sorted({each[0] for each in parts})) if classes or (classes is None and not outside) else None
    )
    labels = None if names is None else torch.tensor([names.index(each[0]) for each in parts])
    chosen = split_indices(labels, len(parts), split)
    return Folder(
        place,
        ImageReader(size, channels, fit),
        tuple(place.joinpath(*parts[i]) for i in chosen.tolist()),
        None if labels is None else labels[chosen],
        names,
    )
