"""`WebDataset`: samples in tar files, named as by the library webdataset, read by number."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import Any, NamedTuple

from attrs import field, frozen

from kdiff_core.errors import ParameterError
from kdiff_core.names import quoted

from .images import SUFFIXES, ImageReader

# The name up to the first dot of its last part is the sample's, what follows is the kind of the file.
_NAME = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


class _Place(NamedTuple):
    """Where a file lies in a shard, in bytes."""

    shard: Path
    offset: int
    size: int

    def read(self) -> bytes:
        with self.shard.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@frozen(eq=False, repr=False)
class WebDataset:
    """Samples of tar files, by number: shard by shard, in the order in which they lie there.

    Attributes:
        shards: The tar files.
        reader: How images are read.
        samples: Where the files of each sample lie, by their kind, such as "jpg".
        labels: The class of each, or None.
        class_names: A name for each class, or None.
        sample_shape: Shape of a sample: of the first image where no size is given.
    """

    shards: tuple[Path, ...]
    reader: ImageReader
    samples: tuple[tuple[str, Mapping[str, _Place]], ...]
    labels: tuple[int, ...] | None
    class_names: tuple[str, ...] | None
    sample_shape: tuple[int, ...] = field()
    value_range = (-1.0, 1.0)

    @sample_shape.default
    def _of_the_first(self) -> tuple[int, ...]:
        name, files = self.samples[0]
        return tuple(self.reader(_image(files), name).shape)

    @property
    def classes(self) -> int | None:
        """Number of classes: of the names, or one more than the highest label."""
        if self.labels is None:
            return None
        return max(self.labels) + 1 if self.class_names is None else len(self.class_names)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the shards' names, sizes and times of change, and of how they are read."""
        found = hashlib.sha256(repr((self.reader, self.labels)).encode())
        for shard in self.shards:
            stat = shard.stat()
            found.update(f"{shard.name}|{stat.st_size}|{stat.st_mtime_ns};".encode())
        return found.hexdigest()

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return sample `index`: ``x`` and, if there are classes, ``label``.

        Raises:
            ParameterError: The image cannot be read, or has another size than the first.
        """
        if not 0 <= index < len(self.samples):
            raise IndexError(f"there is no sample {index}; there are {len(self.samples)}")
        name, files = self.samples[index]
        x = self.reader.like(self.sample_shape, _image(files), name)
        return {"x": x} if self.labels is None else {"x": x, "label": self.labels[index]}

    def __repr__(self) -> str:
        return f"WebDataset({len(self.shards)} shards, {len(self)} of {self.sample_shape})"


def webdataset(
    shards: str | Sequence[str],
    label: str | None = None,
    class_names: Sequence[str] | None = None,
    size: int | tuple[int, int] | None = None,
    channels: int = 3,
    fit: str = "crop",
) -> WebDataset:
    """Return a data set of tar files, whose index is made once, by reading all headers.

    Args:
        shards: The tar files, uncompressed: names, with ``{000..012}`` for a range and ``*``; in a list in
            the order given, of a pattern in the order of their names.
        label: Kind of the file with a sample's class: "cls", a number in text; or "json.NAME", a value
            in its JSON. None: no classes.
        class_names: A name for each class.
        size: Height and width; see `kdiff_train.data.images.ImageReader`, also for `channels` and `fit`.
        channels: 1, 3 or 4.
        fit: "crop", "stretch" or "pad".

    Raises:
        ParameterError: A shard is missing, compressed or no tar file, or a sample lacks its image or class.
    """
    places = tuple(
        place for each in ([shards] if isinstance(shards, str) else shards) for place in _expand(each)
    )
    samples = tuple(sample for place in places for sample in _index(place))
    if not samples:
        raise ParameterError(f"webdataset: no sample in {quoted(map(str, places))}")
    bad = next((each for each in samples if not any(map(_is_image, each[1]))), None)
    if bad is not None:
        raise ParameterError(f"webdataset: {bad[0]} has no image, only {quoted(bad[1])}")
    labels = None if label is None else tuple(_class(name, label, files) for name, files in samples)
    names = None if class_names is None else tuple(class_names)
    if labels and names is not None and max(labels) >= len(names):
        raise ParameterError(f"webdataset: there is a class {max(labels)}, and names for {len(names)}")
    return WebDataset(places, ImageReader(size, channels, fit), samples, labels, names)


def _expand(pattern: str) -> list[Path]:
    """Return the files that a name, a range or a pattern stands for."""
    found = _RANGE.search(pattern)
    if found:
        first, last = found.groups()
        before, after = pattern[: found.start()], pattern[found.end() :]
        numbers = [f"{n:0{len(first)}d}" for n in range(int(first), int(last) + 1)]
        return [place for number in numbers for place in _expand(f"{before}{number}{after}")]
    files = sorted(glob(pattern)) if any(sign in pattern for sign in "*?[") else [pattern]
    missing = next((file for file in files if not Path(file).is_file()), None if files else pattern)
    if missing is not None:
        raise ParameterError(f"{missing}: no such file")
    return [Path(file) for file in files]


def _index(shard: Path) -> Iterator[tuple[str, dict[str, _Place]]]:
    """Yield the samples of a shard: files that follow each other and have one name."""
    try:
        with tarfile.open(shard, "r:") as tar:
            members = [(m.name, m.offset_data, m.size) for m in tar if m.isfile()]
    except (tarfile.TarError, OSError) as error:
        raise ParameterError(f"{shard}: no uncompressed tar file ({error}); unpack a .tar.gz") from error
    current, files = "", dict[str, _Place]()
    for name, offset, size in members:
        parts = _NAME.fullmatch(name)
        if parts is None:
            continue
        if parts[1] != current and files:
            yield f"{shard}: {current}", files
            files = {}
        current = parts[1]
        kind = parts[2].lower()
        if kind in files:
            raise ParameterError(f"{shard}: {name} is there twice")
        files[kind] = _Place(shard, offset, size)
    if files:
        yield f"{shard}: {current}", files


def _is_image(kind: str) -> bool:
    return "." + kind.rpartition(".")[2] in SUFFIXES


def _image(files: Mapping[str, _Place]) -> bytes:
    return next(files[kind] for kind in files if _is_image(kind)).read()


def _class(name: str, label: str, files: Mapping[str, _Place]) -> int:
    kind, _, key = label.partition(".")
    if kind not in files:
        raise ParameterError(f"webdataset: {name} has no file {kind!r}, its class; it has {quoted(files)}")
    text = files[kind].read()
    try:
        value = int(json.loads(text)[key] if key else text)
    except (ValueError, KeyError, TypeError) as error:
        raise ParameterError(f"webdataset: {name} has no class in {label!r}: {text[:40]!r}") from error
    if value < 0:
        raise ParameterError(f"webdataset: {name} has the class {value}; classes count from 0")
    return value
