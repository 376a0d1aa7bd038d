"""What a run by name begins with: an image, a mask, the noise of two seeds; in a manifest too."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import CapabilityError, ParameterError

if TYPE_CHECKING:
    from torch import Tensor

    from .sample_job import SampleJob


class Known(NamedTuple):
    """What a run begins with.

    Attributes:
        x0: The data, ``(1, ...)`` or ``(n, ...)``; latents where the model has them.
        mask: How much each place may change, 0 to 1, of the images' size; None: all of it.
    """

    x0: Tensor
    mask: Tensor | None


def check_begin(job: SampleJob) -> None:
    """Refuse what does not go together.

    Raises:
        ParameterError: A strength or a mask without an image, an image without them, numbers that are none.
    """
    check_variation(job.variation_seed, job.variation_strength)
    if job.strength is not None and not _is_share(job.strength):
        raise ParameterError(
            f"strength={job.strength!r:.40}: give a number above 0, at most 1: all is made anew"
        )
    if job.init is None:
        for name in ("strength", "mask"):
            if getattr(job, name) is not None:
                raise ParameterError(f"{name} without an image to begin with: give init= (--init)")
    elif job.strength is None and job.mask is None and job.levels is None:
        raise ParameterError(
            "init without strength= (--strength) or mask= (--mask): say how much of it may change, or where"
        )


def _is_share(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 1


def check_variation(seed: Any, strength: Any) -> None:
    """Refuse a strength that is none, or is given without a seed.

    Raises:
        ParameterError: `strength` is no number from 0 to 1, or is above 0 without a seed.
    """
    if isinstance(strength, bool) or not isinstance(strength, (int, float)) or not 0 <= strength <= 1:
        raise ParameterError(
            f"variation_strength={strength!r:.40}: give a number from 0 (the seed) to 1 (the other seed)"
        )
    if strength and seed is None:
        raise ParameterError(
            f"variation_strength={strength} without a seed to vary towards: give variation_seed="
        )


def comparable(value: Any) -> Any:
    """Return what tells an image from another: a file's path; for an array, which one it is."""
    return value if value is None or isinstance(value, (str, Path)) else id(value)


def known_of(model: Any, init: Any, mask: Any, like: Tensor, resize: bool = False) -> Known:
    """Read what a run begins with.

    Args:
        model: The denoiser: its ``encode_image``, if it has one, makes latents of images.
        init: An image file, or an array or tensor in the data's range, for one sample or for each.
        mask: Likewise, from 0 (kept; black) to 1 (made anew; white), of one channel; or None.
        like: A state of the run.
        resize: Whether files of another size are scaled to cover the model's, and what is over is cut off
            around the middle.

    Raises:
        ParameterError: A file that cannot be read, another size, values that are none.
        CapabilityError: The model decodes its states to images, but cannot encode them.
    """
    import torch

    from .images import read_image, read_mask

    decoded, encode = getattr(model, "decoded_shape", None), getattr(model, "encode_image", None)
    if decoded is not None and not callable(encode):
        raise CapabilityError(
            f"init: {type(model).__name__} has no encode_image(images), which makes latents of images"
        )
    shape = tuple(like.shape[1:] if decoded is None else decoded)
    span = getattr(model, "value_range", None) or (-1.0, 1.0)
    images = _batch("init", init, shape, len(like), lambda file: read_image(file, shape, span, resize))
    images = images.to(like.device, torch.float64 if like.dtype == torch.float64 else torch.float32)
    if encode is not None:
        with torch.no_grad():  # one by one, so that no sample depends on the others
            images = torch.cat([encode(image) for image in torch.split(images, 1)])
    if tuple(images.shape[1:]) != tuple(like.shape[1:]):
        raise ParameterError(
            f"init: the model encodes it to {tuple(images.shape[1:])}; its states are {tuple(like.shape[1:])}"
        )
    if mask is None:
        return Known(images.to(like), None)
    size = shape[-2:] if len(shape) > 1 else shape
    flat = (1,) * (len(shape) - len(size)) + size
    found = _batch("mask", mask, flat, len(like), lambda file: read_mask(file, size, resize).reshape(flat))
    return Known(images.to(like), found.to(like.device, images.dtype))


def _batch(name: str, value: Any, shape: tuple[int, ...], n: int, read: Any) -> Tensor:
    """Return a file or an array as ``(1, ...)`` or ``(n, ...)``."""
    if isinstance(value, (str, Path)):
        found: Tensor = read(value)
        return found[None]
    import numpy as np
    import torch

    given = torch.as_tensor(value) if isinstance(value, (torch.Tensor, np.ndarray)) else torch.empty(0)
    if not given.is_floating_point() or not given.numel() or not bool(given.isfinite().all()):
        raise ParameterError(
            f"{name}={type(value).__name__}: give a file, or an array or tensor of finite floating point"
        )
    bare = tuple(given.shape)
    if name == "mask" and bare[-2:] == shape[-2:] and len(bare) < len(shape):
        given = given.reshape(*[1] * (len(shape) - len(bare)), *bare)
    given = given if given.ndim == len(shape) + 1 else given[None]
    if tuple(given.shape[1:]) != shape or len(given) not in (1, n):
        raise ParameterError(
            f"{name}: an array of shape {bare}; the model needs {shape}, or ({n}, {str(shape)[1:]}"
        )
    return given


def recorded(job: SampleJob) -> dict[str, Any]:
    """Describe for a manifest what a run began with."""
    return {
        "init": _file(job.init),
        "mask": _file(job.mask),
        "strength": job.strength,
        "resize": job.resize,
        "variation": {"seed": job.variation_seed, "strength": job.variation_strength},
    }


def nameless(job: SampleJob) -> list[str]:
    """Say what of it is no file, and so cannot be found again."""
    given = {"init": job.init, "mask": job.mask}
    return [f"the {k} is an array" for k, v in given.items() if v is not None and _file(v) is None]


def replayed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the job's arguments that a manifest describes; its levels have the strength in them.

    Raises:
        ParameterError: A file is not there, or is not what it was.
    """
    variation = manifest.get("variation") or {}
    return {
        "init": _unchanged("init", manifest.get("init")),
        "mask": _unchanged("mask", manifest.get("mask")),
        "strength": manifest.get("strength"),
        "resize": manifest.get("resize", False),
        "variation_seed": variation.get("seed"),
        "variation_strength": variation.get("strength", 0.0),
    }


def _file(value: Any) -> dict[str, str] | None:
    """Describe a file by its whole path and its hash; None for an array or nothing."""
    if not isinstance(value, (str, Path)):
        return None
    place = Path(value).absolute()
    return {"file": str(place), "sha256": hashlib.sha256(place.read_bytes()).hexdigest()}


def _unchanged(name: str, then: Mapping[str, str] | None) -> str | None:
    """Return the path of a file that a manifest describes."""
    if then is None:
        return None
    place = Path(then["file"])
    if not place.is_file():
        raise ParameterError(f"{name}: {place} is no longer there, which the run began with")
    if _file(place) != dict(then):
        raise ParameterError(f"{name}: {place} is not what it was when the run began with it")
    return str(place)
