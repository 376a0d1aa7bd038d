"""`HuggingFace`: a data set of the Hugging Face library `datasets`, local or from its hub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from kdiff_core.errors import MissingExtraError, ParameterError
from kdiff_core.names import quoted

from .images import ImageReader


@frozen(eq=False, repr=False)
class HuggingFace:
    """Rows of a data set, read when asked for.

    Attributes:
        rows: The data set, with random access.
        reader: How images are read.
        image: Name of the column of images.
        label: Name of the column of classes, or None.
        conditions: Names of columns of numbers, by the name of the condition that they are.
        class_names: A name for each class, or None.
        sample_shape: Shape of a sample: of the first image where no size is given.
    """

    rows: Any
    reader: ImageReader
    image: str
    label: str | None
    class_names: tuple[str, ...] | None
    conditions: Mapping[str, str] = field(factory=dict)
    sample_shape: tuple[int, ...] = field()
    value_range = (-1.0, 1.0)

    @sample_shape.default
    def _of_the_first(self) -> tuple[int, ...]:
        return tuple(self.reader(self.rows[0][self.image], "image 0").shape)

    @property
    def classes(self) -> int | None:
        """Number of classes."""
        return None if self.class_names is None else len(self.class_names)

    @property
    def fingerprint(self) -> str:
        """What identifies the rows, as the library keeps it, and how they are read."""
        return f"{self.rows._fingerprint}-{self.reader}-{self.image}-{self.label}-{self.conditions}"

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return row `index`: ``x``, ``label`` if there are classes, and the conditions, float32.

        Raises:
            ParameterError: The image cannot be read, or has another size than the first.
        """
        import torch

        if not 0 <= index < len(self.rows):
            raise IndexError(f"there is no row {index}; there are {len(self.rows)}")
        row = self.rows[index]
        x = self.reader.like(self.sample_shape, row[self.image], f"image {index}")
        sample: dict[str, Any] = {"x": x}
        if self.label is not None:
            sample["label"] = int(row[self.label])
        for name, column in self.conditions.items():
            sample[name] = torch.as_tensor(row[column], dtype=torch.float32)
        return sample

    def __repr__(self) -> str:
        return f"HuggingFace({len(self)} of {self.sample_shape}, classes={self.classes})"


def huggingface(
    path: Any,
    config: str | None = None,
    split: str = "train",
    image: str = "image",
    label: str | None = None,
    conditions: Mapping[str, str] | None = None,
    size: int | tuple[int, int] | None = None,
    channels: int = 3,
    fit: str = "crop",
    options: Mapping[str, Any] | None = None,
) -> HuggingFace:
    """Return a data set of the Hugging Face library `datasets`.

    Args:
        path: What ``datasets.load_dataset`` takes: a name on the hub, or "imagefolder" with
            ``options={"data_dir": ...}``, for which no network is needed; or a ``datasets.Dataset``.
        config: The configuration, where it has several.
        split: Its name there, such as "train" or "train[:90%]".
        image: Name of the column of images.
        label: Name of the column of classes: of a ``ClassLabel``, or integers from 0.
        conditions: Columns of numbers, by the name of the condition that they are.
        size: Height and width; see `kdiff_train.data.images.ImageReader`, also for `channels` and `fit`.
        channels: 1, 3 or 4.
        fit: "crop", "stretch" or "pad".
        options: Further arguments of ``load_dataset``.

    Raises:
        ParameterError: It has no random access, no row or no such column, or the class is not a number.
        MissingExtraError: `datasets` is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("the data set 'huggingface' needs: pip install datasets") from error
    rows = path
    if isinstance(path, str):
        rows = datasets.load_dataset(path, config, split=split, **(options or {}))
    if not isinstance(rows, datasets.Dataset):
        raise ParameterError(f"huggingface: {type(rows).__name__} has no random access; give one split of it")
    named = [image, *([label] if label else []), *(conditions or {}).values()]
    for column in named:
        if column not in rows.column_names:
            raise ParameterError(f"huggingface: no column {column!r}; there are {quoted(rows.column_names)}")
    if not len(rows):
        raise ParameterError("huggingface: the data set is empty")
    names = None if label is None else _class_names(rows, label)
    return HuggingFace(rows, ImageReader(size, channels, fit), image, label, names, dict(conditions or {}))


def _class_names(rows: Any, label: str) -> tuple[str, ...]:
    names = getattr(rows.features[label], "names", None)
    if names is not None:
        return tuple(names)
    values = rows.unique(label)
    if not all(isinstance(value, int) and value >= 0 for value in values):
        raise ParameterError(
            f"huggingface: column {label!r} has {values[:3]}, no classes; encode it by class_encode_column"
        )
    return tuple(map(str, range(max(values) + 1)))
