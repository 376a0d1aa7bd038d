"""The files that carry a manifest: PNG, NPZ and GIF, written whole and read without unpickling."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

from . import __version__
from .errors import KdiffError, MissingExtraError, ParameterError
from .files import write_whole

if TYPE_CHECKING:
    from PIL.Image import Image

VERSION = 1
PNG_KEY = "kdiff"
NPZ_KEY = "kdiff_manifest"
# What reading a damaged file raises.
UNREADABLE = (
    OSError, ValueError, SyntaxError, EOFError, KeyError, NotImplementedError, RecursionError, BadZipFile,
    zlib.error, TokenError,
)  # fmt: skip


def read_manifest(file: str | Path) -> dict[str, Any]:
    """Read the manifest in a PNG, NPZ or GIF file.

    Raises:
        ParameterError: The file cannot be read, or carries none.
    """
    place = Path(file)
    try:
        text = _text(place)
        manifest = json.loads(text) if text is not None else None
    except UNREADABLE as error:
        if isinstance(error, KdiffError):
            raise
        why = getattr(error, "strerror", None) or error
        raise ParameterError(f"{place}: no manifest can be read: {why}") from error
    if manifest is None:
        raise ParameterError(f"{place}: carries no kdiff manifest; only files written by `kdiff sample` do")
    check(manifest, str(place))
    found: dict[str, Any] = manifest
    return found


def write_png(file: str | Path, image: Image, manifest: Mapping[str, Any]) -> None:
    """Write a picture that carries a manifest, whole or not at all."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text(PNG_KEY, dumped(manifest))
    data = io.BytesIO()
    image.save(data, "PNG", pnginfo=info, optimize=True)
    write_whole(file, data.getvalue())


def write_npz(file: str | Path, arrays: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
    """Write arrays together with a manifest, whole or not at all."""
    import numpy as np

    data = io.BytesIO()
    np.savez_compressed(data, **{**arrays, NPZ_KEY: np.array(dumped(manifest))})
    write_whole(file, data.getvalue())


def write_gif(file: str | Path, images: Sequence[Image], manifest: Mapping[str, Any], **options: Any) -> None:
    """Write an animation that carries a manifest in its comment, whole or not at all."""
    data = io.BytesIO()
    comment = dumped(manifest).encode()
    images[0].save(data, "GIF", save_all=True, append_images=images[1:], comment=comment, **options)
    write_whole(file, data.getvalue())


def dumped(manifest: Mapping[str, Any]) -> str:
    """Return strict JSON, without NaN and Infinity, which other programs do not read."""
    return json.dumps(manifest, allow_nan=False)


def pillow() -> Any:
    """Return the module `PIL.Image`.

    Raises:
        MissingExtraError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("pictures need pillow: pip install 'kdiff-core[cli]'") from error
    return Image


def _text(place: Path) -> str | None:
    """Return the JSON in a file, None if it has none."""
    suffix = place.suffix.lower()
    if suffix == ".json" and "kdiff_plan" in place.read_text(encoding="utf-8"):
        raise ParameterError(
            f"{place}: is a plan, which says what a sampler does but not with which model and seed; replay "
            "the .png, .npz or .gif file that was written with it"
        )
    if suffix == ".npz":
        import numpy as np

        with place.open("rb") as opened, np.load(opened, allow_pickle=False) as stored:
            return str(stored[NPZ_KEY]) if NPZ_KEY in stored.files else None
    if suffix == ".png":
        with pillow().open(place, formats=["PNG"]) as image:
            image.load()  # text may stand behind the pixels
            text = image.text.get(PNG_KEY)
            return None if text is None else str(text)
    if suffix == ".gif":
        with pillow().open(place, formats=["GIF"]) as image:
            comment = image.info.get("comment", b"")
            return comment.decode() if comment.startswith(b"{") else None
    raise ParameterError(f"{place}: a manifest is in a .png, .npz or .gif file")


def check(manifest: Any, where: str) -> None:
    """Raise `ParameterError` unless it is a manifest that this version reads."""
    version = manifest.get("kdiff_manifest") if isinstance(manifest, Mapping) else None
    if version != VERSION:
        raise ParameterError(
            f"{where}: no manifest kdiff {__version__} can read: kdiff_manifest is {version!r}, not {VERSION}"
        )
