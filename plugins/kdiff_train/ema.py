"""Averages of the weights over a run, as functions of images seen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from attrs import field, fields_dict, frozen
from torch import Tensor, nn

from kdiff_core.errors import ParameterError
from kdiff_core.names import did_you_mean, quoted
from kdiff_core.parameters import fraction, not_negative, positive


class Profile(Protocol):
    """How fast an average forgets."""

    def decay(self, before: int, after: int) -> float:
        """Return what the average keeps of itself when the images seen go from `before` to `after`."""
        ...


@frozen
class HalfLife:
    """Halves what it knows every so many images, less at the start. Karras et al. 2022, arXiv:2206.00364.

    Attributes:
        images: Half-life in images, above 0.
        rampup: The half-life is at most this part of the images seen; 0: no limit.
    """

    images: float = field(default=500_000, validator=positive)
    rampup: float = field(default=0.05, validator=not_negative)

    def decay(self, before: int, after: int) -> float:
        """Return what is kept; see `Profile`."""
        half_life = min(self.images, self.rampup * after) if self.rampup else self.images
        return float(0.5 ** ((after - before) / half_life))


@frozen
class Warmup:
    """``1 - (1 + k / inverse_gamma)^-power`` at update k, at most `highest`: near 1 late, low early.

    Attributes:
        inverse_gamma: Updates over which it rises, above 0. An update is that of a batch of `batch`.
        power: 2/3 suits runs of a million updates or more, 3/4 shorter ones.
        highest: At most this is kept, below 1.
        batch: Images for one update; the number of updates is images seen by it. Default: those of the batch.
    """

    inverse_gamma: float = field(default=1.0, validator=positive)
    power: float = field(default=2 / 3, validator=positive)
    highest: float = field(default=0.9999, validator=fraction)
    batch: int | None = None

    def decay(self, before: int, after: int) -> float:
        """Return what is kept; see `Profile`."""
        batch = self.batch or after - before
        once = min(1 - (1 + before / batch / self.inverse_gamma) ** -self.power, self.highest)
        return float(once ** ((after - before) / batch))


@frozen
class Power:
    """Weights that grow as a power of the images seen. Karras et al. 2023, arXiv:2312.02696, section 3.1.

    The average has the same shape at any length of the run. Any other width can be made of two of them
    afterwards: `kdiff_train.post_hoc`.

    Attributes:
        std: Width of the profile as a part of the run, above 0 and below 0.28.
    """

    std: float = field(default=0.1)

    def __attrs_post_init__(self) -> None:
        exponent(self.std)

    def decay(self, before: int, after: int) -> float:
        """Return what is kept; see `Profile`."""
        return float((before / after) ** (exponent(self.std) + 1))


def exponent(std: float) -> float:
    """Return gamma of the profile ``t^gamma`` whose standard deviation is the part `std` of its length.

    ``std^2 (gamma + 2)^2 (gamma + 3) = gamma + 1``: Karras et al. 2023, arXiv:2312.02696, section 3.1.

    Raises:
        ParameterError: `std` is not above 0 and below that of a flat profile, ``12^-1/2``.
    """
    if not 0 < std < 12**-0.5:
        raise ParameterError(f"std={std} must be above 0 and below {12**-0.5:.4f}, that of a flat average")
    low, high = 0.0, 1.0
    while _width(high) > std:
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _width(middle) > std else (low, middle)
    return (low + high) / 2


def _width(gamma: float) -> float:
    return math.sqrt((gamma + 1) / (gamma + 3)) / (gamma + 2)


PROFILES: dict[str, Any] = {"half_life": HalfLife, "warmup": Warmup, "power": Power}


def make_profile(name: str, **options: Any) -> Any:
    """Return a profile by its name in `PROFILES`.

    Raises:
        ParameterError: An unknown name or option, or a value out of range.
    """
    if name not in PROFILES:
        raise ParameterError(f"ema {name!r}: there are {quoted(PROFILES)}{did_you_mean(name, PROFILES)}")
    known = fields_dict(PROFILES[name])
    for option in options:
        if option not in known:
            raise ParameterError(
                f"ema {name!r} has no option {option!r}; it takes {quoted(known)}"
                f"{did_you_mean(option, known)}"
            )
    return PROFILES[name](**options)


class Average:
    """A running average of a network's parameters, in float32 at least; its buffers are the newest.

    Args:
        network: The network.
        profile: How fast it forgets.

    Attributes:
        tensors: The average, by the names of the network's state.
        averaged: Names of those that are averages.
    """

    def __init__(self, network: nn.Module, profile: Profile) -> None:
        self.profile = profile
        self._parameters = {name for name, _ in network.named_parameters()}
        self.averaged = sorted(self._parameters & network.state_dict().keys())
        self.tensors: dict[str, Tensor] = {}
        self._copy(network)

    def _copy(self, network: nn.Module) -> None:
        for name, tensor in network.state_dict().items():
            averaged = name in self._parameters and tensor.is_floating_point()
            dtype = torch.promote_types(tensor.dtype, torch.float32) if averaged else tensor.dtype
            self.tensors[name] = tensor.detach().to(dtype, copy=True)

    @torch.no_grad()
    def update(self, network: nn.Module, before: int, after: int) -> None:
        """Take in the weights after an update.

        Args:
            network: The network.
            before: Images seen before the update.
            after: Images seen with it.
        """
        kept = self.profile.decay(before, after)
        old, new = [], []
        for name, tensor in network.state_dict().items():
            mine = self.tensors[name]
            if name in self._parameters and mine.is_floating_point():
                old.append(mine)
                new.append(tensor.detach().to(mine.dtype))
            else:
                mine.copy_(tensor)
        torch._foreach_lerp_(old, new, 1 - kept)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over the tensors of another average of the same network."""
        for name, mine in self.tensors.items():
            mine.copy_(tensors[name])


@torch.no_grad()
def put(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a network the weights of an average, in its own dtypes."""
    for name, tensor in network.state_dict().items():
        tensor.copy_(tensors[name])
