"""Feature networks: what turns images into vectors, by which sets of images are compared."""

from __future__ import annotations

import hashlib
from os import PathLike
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as torch_functional
from attrs import field, frozen
from torch import Tensor

from kdiff_core.errors import ParameterError
from kdiff_core.parameters import one_of
from kdiff_core.training import Features


@frozen
class Pixels:
    """The values of an image themselves."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``(B, C * H * W)``."""
        return x.flatten(1)


@frozen(eq=False)
class FeatureFile:
    """A network in a file: Inception, DINOv2 or another, as TorchScript or a program of `torch.export`.

    Such a file has code of its own, which runs: read none that you do not trust, and give its hash.

    Attributes:
        path: The file; ``.pt2`` is a program of `torch.export`, anything else TorchScript.
        sha256: Its hash, which must be this one; None: it is not checked.
        values: What the network takes: "data" (as the data are), "unit" (0 to 1) or "bytes" (0 to 255).
        size: Height and width that images are scaled to, or None: they stay.
        channels: 3 repeats grey images; None: they stay.
    """

    path: str | PathLike[str]
    sha256: str | None = None
    values: str = field(default="data", validator=one_of("data", "unit", "bytes"))
    size: tuple[int, int] | None = None
    channels: int | None = None
    _network: Any = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        place = Path(self.path).expanduser()
        if not place.is_file():
            raise ParameterError(f"{place}: no such file of a feature network")
        found = hashlib.sha256(place.read_bytes()).hexdigest()
        if self.sha256 is not None and found != self.sha256.lower():
            raise ParameterError(
                f"{place}: has the SHA-256 {found}, not {self.sha256}; nothing of it was run"
            )
        object.__setattr__(self, "sha256", found)
        object.__setattr__(self, "_network", _load(place))

    def __call__(self, x: Tensor) -> Tensor:
        """Return the features, ``(B, F)``, of images in [-1, 1].

        Raises:
            ParameterError: The network returned something else than a row for each image.
        """
        if self.channels is not None and x.shape[1] == 1:
            x = x.expand(-1, self.channels, -1, -1)
        if self.size is not None:
            x = torch_functional.interpolate(x, self.size, mode="bilinear", antialias=True)
        x = {"data": x, "unit": (x + 1) / 2, "bytes": (x + 1) * 127.5}[self.values]
        found = self._network(x)
        if not isinstance(found, Tensor) or found.shape[:1] != x.shape[:1]:
            raise ParameterError(f"{self.path}: the network returned no row of features for each image")
        return found.flatten(1)

    def to(self, device: Any) -> FeatureFile:
        """Move the network to a device."""
        self._network.to(device)
        return self


def _load(place: Path) -> Any:
    try:
        if place.suffix == ".pt2":
            return torch.export.load(place).module()
        return torch.jit.load(place, map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError, KeyError) as error:
        raise ParameterError(f"{place}: no TorchScript, and no program of torch.export ({error})") from error


@torch.no_grad()
def extract(features: Features, x: Tensor, device: Any = "cpu", batch: int = 256) -> Tensor:
    """Return the features of many images, float64 on the CPU, ``(N, F)``.

    Args:
        features: The feature network.
        x: Images, ``(N, C, H, W)``.
        device: Where the network is, if it can be moved; else it is on the CPU.
        batch: Images at once.

    Raises:
        ParameterError: Features that are not finite rows, one for each image.
    """
    # A network that cannot be moved is where it was made.
    device = device if callable(getattr(features, "to", None)) else "cpu"
    found = torch.cat([features(part.to(device)).double().cpu() for part in torch.split(x, batch)])
    if found.ndim != 2 or len(found) != len(x) or not bool(found.isfinite().all()):
        raise ParameterError(f"features: {features!r:.60} gave no finite row for each of {len(x)} images")
    return found
