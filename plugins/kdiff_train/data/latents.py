"""`latents`: another data set as an encoder sees it, encoded once and kept in a file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor

from kdiff_core.errors import MissingExtraError, ParameterError
from kdiff_core.files import write_whole
from kdiff_core.lookup import get_dataset
from kdiff_core.training import Dataset

from ..cache import cache_folder
from .loading import loader, stack

FORMAT = "1"


@frozen(eq=False, repr=False)
class Latents:
    """Latents in place of the samples of another data set, whose conditions stay.

    Attributes:
        data: The data set.
        encoder: What encoded it.
        file: The safetensors file with the latents and the conditions.
        sample_shape: Shape of one latent.
        value_range: None: latents have no bounds.
    """

    data: Dataset
    encoder: Any
    file: Path
    sample_shape: tuple[int, ...] = field()
    value_range = None

    @sample_shape.default
    def _of_the_file(self) -> tuple[int, ...]:
        return tuple(_open(self.file).get_slice("x").get_shape()[1:])

    @property
    def classes(self) -> int | None:
        """Number of classes."""
        return getattr(self.data, "classes", None)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """A name for each class, or None."""
        return getattr(self.data, "class_names", None)

    @property
    def fingerprint(self) -> str:
        """The key of the file."""
        return self.file.stem

    def decode(self, x: Tensor) -> Tensor:
        """Return the images of latents ``(B, ...)``.

        Raises:
            ParameterError: The encoder has no ``decode``.
        """
        decode = getattr(self.encoder, "decode", None)
        if decode is None:
            raise ParameterError(f"latents: {type(self.encoder).__name__} has no decode(latents)")
        images: Tensor = decode(x)
        return images

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return sample `index`: ``x``, its latent, and the conditions that it has in the data set."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self!r}: there is no sample {index}")
        stored = _open(self.file)
        sample = {name: stored.get_slice(name)[index : index + 1][0] for name in stored.keys()}  # noqa: SIM118
        return {**sample, "label": int(sample["label"])} if "label" in sample else sample

    def __repr__(self) -> str:
        return f"Latents({self.data!r}, {self.sample_shape})"


@frozen(eq=False)
class DiffusersVAE:
    """An autoencoder of diffusers as an encoder: the mean of its latents, shifted and scaled as it says.

    Attributes:
        vae: An ``AutoencoderKL``, or another with ``encode`` and ``decode``.
    """

    vae: Any

    @classmethod
    def load(cls, path: str) -> DiffusersVAE:
        """Return that of a folder or a name on the hub, read from safetensors.

        Raises:
            MissingExtraError: `diffusers` is not installed.
        """
        try:
            from diffusers import AutoencoderKL
        except ImportError as error:
            raise MissingExtraError("a VAE needs diffusers: pip install 'kdiff-core[diffusers]'") from error
        return cls(AutoencoderKL.from_pretrained(path, use_safetensors=True).eval())

    @property
    def _place(self) -> tuple[float, float]:
        config = self.vae.config
        shift = getattr(config, "shift_factor", None)
        return float(shift or 0.0), float(getattr(config, "scaling_factor", None) or 1.0)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the latents of images ``(B, C, H, W)``."""
        shift, scale = self._place
        found = self.vae.encode(x).latent_dist.mode()
        latents: Tensor = (found - shift) * scale
        return latents

    def decode(self, x: Tensor) -> Tensor:
        """Return the images of latents."""
        shift, scale = self._place
        images: Tensor = self.vae.decode(x / scale + shift).sample
        return images

    def state_dict(self) -> dict[str, Any]:
        """Return all that its latents depend on: the weights, the shift and the scale."""
        return {**self.vae.state_dict(), "place": torch.tensor(self._place)}

    def to(self, device: Any) -> DiffusersVAE:
        """Return it on a device."""
        return DiffusersVAE(self.vae.to(device))


def latents(
    data: Any,
    encoder: str | Callable[[Tensor], Tensor],
    options: dict[str, Any] | None = None,
    key: str | None = None,
    folder: str | PathLike[str] | None = None,
    batch: int = 16,
    workers: int = 0,
    device: str = "cpu",
    progress: bool = True,
) -> Latents:
    """Return the latents of a data set, encoded now unless a file has them already.

    The file's name is a hash of the data and of the encoder, so that another data set, another size of its
    images or other weights never find it; it is written whole, or not at all.

    Args:
        data: A data set or its name, which `options` go with.
        encoder: A function of images ``(B, C, H, W)`` that returns latents, perhaps with ``decode``; or the
            folder or name of a VAE of diffusers; see `DiffusersVAE`.
        options: Options of the data set.
        key: What tells encoders apart. Default: the hash of the encoder's weights, if it has any.
        folder: Where files lie. Default: "latents" in the user's cache; see `kdiff_train.cache`.
        batch: Images that are encoded at once.
        workers: Processes that read images.
        device: Where to encode.
        progress: Whether to show a progress bar.

    Raises:
        ParameterError: A function without weights and without `key`, or latents that are not ``(B, ...)``.
        MissingExtraError: `diffusers` is not installed.
    """
    from safetensors.torch import save

    dataset: Dataset = get_dataset(data, **(options or {}))
    encode: Any = DiffusersVAE.load(encoder) if isinstance(encoder, str) else encoder
    place = cache_folder("latents") if folder is None else Path(folder).expanduser()
    digest = hashlib.sha256(
        f"{FORMAT}|{_data_key(dataset)}|{key or _weights_key(encode)}".encode()
    ).hexdigest()
    file = place / f"{digest}.safetensors"
    if not file.is_file():
        place.mkdir(parents=True, exist_ok=True)
        write_whole(file, save(_encode(dataset, encode, batch, workers, device, progress)))
    return Latents(dataset, encode, file)


@torch.no_grad()
def _encode(
    dataset: Dataset, encode: Any, batch: int, workers: int, device: str, progress: bool
) -> dict[str, Tensor]:
    """Return all samples, the latents in place of the images."""
    from tqdm import tqdm

    move = getattr(encode, "to", None)
    moved = encode if move is None else move(device)
    parts = []
    with tqdm(total=len(dataset), desc="latents", unit="image", disable=not progress) as bar:
        for each in loader(dataset, range(len(dataset)), batch, workers):
            found = moved(each["x"].to(device))
            if not isinstance(found, Tensor) or len(found) != len(each["x"]):
                raise ParameterError(
                    f"latents: the encoder returned {type(found).__name__}, not a latent each"
                )
            parts.append({**each, "x": found.float().cpu()})
            bar.update(len(found))
    return {name: torch.cat([part[name] for part in parts]).contiguous() for name in parts[0]}


def _data_key(dataset: Dataset) -> str:
    """Return the data set's own hash, or the hash of all that is in it."""
    own = getattr(dataset, "fingerprint", None)
    if own is not None:
        return str(own)
    found = hashlib.sha256()
    for index in range(len(dataset)):
        for name, value in sorted(stack([dataset[index]]).items()):
            found.update(f"{name}{tuple(value.shape)}".encode() + value.contiguous().numpy().tobytes())
    return found.hexdigest()


def _weights_key(encoder: Any) -> str:
    """Return the hash of an encoder's class and weights."""
    state_dict = getattr(encoder, "state_dict", None)
    weights: dict[str, Tensor] = {} if state_dict is None else state_dict()
    if not weights:
        raise ParameterError(
            "latents: the encoder has no weights; give key=, a text that tells it from others"
        )
    found = hashlib.sha256(type(encoder).__qualname__.encode())
    for name, value in sorted(weights.items()):
        found.update(f"{name}{tuple(value.shape)}".encode() + value.detach().cpu().double().numpy().tobytes())
    return found.hexdigest()


def _open(file: Path) -> Any:
    from safetensors import safe_open

    return safe_open(file, "pt")
