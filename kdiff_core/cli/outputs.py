"""The files that `kdiff sample` writes, and whether two hold the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ParameterError

if TYPE_CHECKING:
    from ..preview import Preview
    from ..result import Result
    from ..setup import Setup

OUTPUTS = (".png", ".npz")
REPLAYED = (".png", ".npz", ".gif")
SHEETS = (".png", ".gif")
PREVIEWS = (".png",)


def write(file: Path, setup: Setup, result: Result, columns: int | None) -> str:
    """Write the samples with their manifest."""
    from ..manifest import manifest_of, write_npz, write_png
    from ..shards import as_array

    if file.suffix.lower() == ".npz":
        write_npz(file, {"samples": as_array(setup.decoded(result.x))}, manifest_of(setup, result))
    else:
        from . import picture

        how = {"kind": "grid", "columns": columns}
        write_png(file, picture.grid(setup, result, columns), manifest_of(setup, result, picture=how))
    return str(file)


def write_trajectory(file: Path, setup: Setup, result: Result, columns: int | None) -> str:
    """Write the states at all levels with the manifest, as a sheet or an animation."""
    from ..manifest import manifest_of, write_png
    from . import picture

    manifest = manifest_of(setup, result, picture={"kind": "trajectory", "columns": columns})
    if file.suffix.lower() == ".gif":
        return f"{file} ({picture.write_animation(file, setup, result, columns, manifest)} frames)"
    write_png(file, picture.contact_sheet(setup, result), manifest)
    return str(file)


def preview_of(setup: Setup, file: Path | None) -> Preview | None:
    """Return what writes a picture after each step, or None without a file for it.

    Raises:
        ParameterError: The samples are no images, and the model decodes its states to none.
    """
    if file is None:
        return None
    from ..preview import Preview
    from .picture import image_shape

    decode, shape = getattr(setup.model, "decode", None), tuple(setup.like.shape[1:])
    if decode is None and image_shape(shape) is None:
        raise ParameterError(f"--preview {file}: a sample of shape {shape} is no image")
    span: tuple[float, float] = getattr(setup.model, "value_range", None) or (-1.0, 1.0)
    return Preview(size=128, decode=decode, value_range=span, file=file)


def plan_of(setup: Setup) -> Any:
    """Return what the sampler will do.

    Raises:
        TraceError: It is not known beforehand.
    """
    return setup.sampler.plan(setup.grid, setup.path, getattr(setup.denoiser, "process", None))


def write_plan(file: Path, setup: Setup) -> str:
    """Write what the sampler will do, as JSON."""
    import json

    from ..files import write_whole

    write_whole(file, json.dumps(plan_of(setup).to_dict(), indent=1).encode())
    return str(file)


def same(file: Path, other: Path) -> bool:
    """Whether two files hold the same pixels, or the same samples."""
    import numpy as np

    from ..manifest import pillow

    def content(place: Path) -> Any:
        if place.suffix.lower() == ".npz":
            with np.load(place, allow_pickle=False) as stored:
                return stored["samples"]
        with pillow().open(place) as image:
            frames = range(getattr(image, "n_frames", 1))
            return np.stack([_frame(image, number) for number in frames])

    a, b = content(file), content(other)
    return bool(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())


def _frame(image: Any, number: int) -> Any:
    """Return the pixels of one frame of a picture."""
    import numpy as np

    image.seek(number)
    return np.asarray(image.convert("RGB"))
