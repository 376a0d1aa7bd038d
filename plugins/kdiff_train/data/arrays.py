"""`Arrays`: a data set that lies in memory; of tensors, arrays, .npy and .npz files."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from attrs import field, frozen
from torch import Tensor

from kdiff_core.errors import ParameterError

from .splits import split_indices

_LAYOUTS = ("first", "last", "none")


@frozen(eq=False, repr=False)
class Arrays:
    """Samples in memory.

    Attributes:
        x: The samples, ``(N, *sample_shape)``, float32.
        labels: The class of each, ``(N,)`` int64, or None.
        value_range: Lowest and highest value that a sample may have.
        class_names: A name for each class, or None.
        conditions: Other conditions by name, each ``(N, ...)``.
        name: Name for messages.
    """

    x: Tensor
    labels: Tensor | None = None
    value_range: tuple[float, float] = (-1.0, 1.0)
    class_names: tuple[str, ...] | None = None
    conditions: Mapping[str, Tensor] = field(factory=dict)
    name: str = "arrays"

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """A sample's shape."""
        return tuple(self.x.shape[1:])

    @property
    def classes(self) -> int | None:
        """Number of classes: of the names, or one more than the highest label."""
        if self.labels is None:
            return None
        return int(self.labels.max()) + 1 if self.class_names is None else len(self.class_names)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the samples, their classes and conditions."""
        found = hashlib.sha256(f"{tuple(self.x.shape)}".encode())
        found.update(self.x.numpy().tobytes())
        found.update(b"" if self.labels is None else self.labels.numpy().tobytes())
        for name, values in sorted(self.conditions.items()):
            found.update(name.encode() + values.contiguous().numpy().tobytes())
        return found.hexdigest()

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return sample `index`: ``x`` and, if there are classes, ``label``."""
        if not 0 <= index < len(self.x):
            raise IndexError(f"{self.name}: there is no sample {index}; there are {len(self.x)}")
        sample: dict[str, Any] = {"x": self.x[index]}
        sample |= {name: values[index] for name, values in self.conditions.items()}
        return sample if self.labels is None else {**sample, "label": int(self.labels[index])}

    def __repr__(self) -> str:
        return f"Arrays({self.name!r}, {len(self)} of {self.sample_shape}, classes={self.classes})"


def arrays(
    data: Any,
    labels: Any = None,
    conditions: Mapping[str, Any] | None = None,
    channels: str = "first",
    value_range: tuple[float, float] | None = None,
    class_names: tuple[str, ...] | None = None,
    split: str = "all",
) -> Arrays:
    """Return a data set of arrays.

    Args:
        data: The samples, ``(N, ...)``: a tensor, an array, a .npy file, or a .npz file with the array
            ``data`` (or one array) and perhaps ``labels``. Bytes 0 to 255 become -1 to 1; other numbers
            are taken as they are.
        labels: Class of each sample, integers from 0. Default: the file's.
        conditions: Other conditions by name, such as ``vector``, each ``(N, ...)``.
        channels: Where they are: "first", "last" (they are brought to the front) or "none" (``(N, H, W)``).
        value_range: Lowest and highest value. Default: -1 and 1 for bytes, else those of the data.
        class_names: A name for each class.
        split: "train", "test" or "all"; see `kdiff_train.data.splits.split_indices`.

    Raises:
        ParameterError: The data or labels are not as described.
    """
    if isinstance(data, str | PathLike):
        name = str(data)
        data, found = _read(Path(data).expanduser())
        labels = found if labels is None else labels
    else:
        name = "arrays"
    x = _samples(data, channels, name)
    if value_range is None:
        stored = str(getattr(data, "dtype", ""))
        value_range = (-1.0, 1.0) if stored.endswith("uint8") else (float(x.min()), float(x.max()))
    classes = None if labels is None else _classes(labels, len(x), class_names, name)
    chosen = split_indices(classes, len(x), split)
    others = {key: torch.as_tensor(value).cpu() for key, value in (conditions or {}).items()}
    for key, value in others.items():
        if len(value) != len(x) or key in ("x", "label"):
            raise ParameterError(
                f"{name}: condition {key!r} has {len(value)} rows; there are {len(x)} samples"
            )
    low, high = map(float, value_range)
    return Arrays(
        x[chosen],
        None if classes is None else classes[chosen],
        (low, high),
        None if class_names is None else tuple(class_names),
        {key: value[chosen] for key, value in others.items()},
        name,
    )


def _read(place: Path) -> tuple[Any, Any]:
    """Return data and labels of a file; objects are refused, since reading them would run code."""
    if place.suffix.lower() not in (".npy", ".npz") or not place.is_file():
        raise ParameterError(f"{place}: no .npy or .npz file")
    try:
        with place.open("rb") as file:
            stored = np.load(file, allow_pickle=False)
            if isinstance(stored, np.ndarray):
                return stored, None
            names = [n for n in stored.files if n != "labels"]
            if "data" not in names and len(names) != 1:
                raise ParameterError(f"{place}: has the arrays {stored.files}; name the samples 'data'")
            data = stored["data" if "data" in names else names[0]]
            return data, stored["labels"] if "labels" in stored.files else None
    except (ValueError, OSError, EOFError, BadZipFile, zlib.error) as error:
        if isinstance(error, ParameterError):
            raise
        raise ParameterError(f"{place}: cannot be read as arrays of numbers ({error})") from error


def _samples(data: Any, channels: str, name: str) -> Tensor:
    if channels not in _LAYOUTS:
        raise ParameterError(f"channels={channels!r}: give one of {', '.join(_LAYOUTS)}")
    try:
        stored = torch.as_tensor(np.ascontiguousarray(data) if isinstance(data, np.ndarray) else data)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ParameterError(f"{name}: the data are no array of numbers ({error})") from error
    if stored.ndim < 2 or stored.numel() == 0:
        raise ParameterError(f"{name}: the data have the shape {tuple(stored.shape)}; needed is (N, ...)")
    if stored.is_complex() or stored.dtype == torch.bool:
        raise ParameterError(f"{name}: the data are {stored.dtype}; give real numbers")
    x = stored.detach().cpu().to(torch.float32, copy=True)
    x = x / 127.5 - 1 if stored.dtype == torch.uint8 else x
    bad = (~x.reshape(len(x), -1).isfinite()).any(1).nonzero()
    if len(bad):
        raise ParameterError(f"{name}: sample {int(bad[0])} has a value that is not finite")
    if channels == "last":
        return x.movedim(-1, 1).contiguous()
    return x[:, None] if channels == "none" else x


def _classes(labels: Any, n: int, names: tuple[str, ...] | None, name: str) -> Tensor:
    try:
        given = torch.as_tensor(labels).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ParameterError(f"{name}: labels are no list of integers ({error})") from error
    if given.shape != (n,) or given.is_floating_point() or given.dtype == torch.bool:
        raise ParameterError(
            f"{name}: labels have the shape {tuple(given.shape)} and dtype {given.dtype}; needed is an "
            f"integer for each of the {n} samples"
        )
    values = given.to(torch.int64)
    most = None if names is None else len(names)
    bad = (values < 0) | (values >= (most or int(values.max()) + 1))
    if bool(bad.any()):
        place = int(bad.nonzero()[0])
        raise ParameterError(
            f"{name}: labels[{place}] is {int(values[place])}; classes count from 0"
            + ("" if most is None else f" and there are names for {most}")
        )
    return values
