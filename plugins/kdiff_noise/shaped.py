"""Noise that is correlated in space: offset, pyramid, Perlin and power-law (coloured) noise.

Each value is still normal with mean 0 and variance 1 at its own place: the weights are known, so the variance
is exact, without measuring a sample. Draws for disjoint intervals are independent, as of `KeyedNoise`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from attrs import field, frozen
from torch import Tensor

from kdiff_core.noise import KeyedNoise
from kdiff_core.parameters import finite, fraction, not_negative, whole
from kdiff_core.state import flatten, rebuild

GOLDEN = 0.5 * (math.sqrt(5.0) - 1.0)
CORRELATED = "the law is measured over the places of one sample, which are correlated by design"


def measured_within(*laws: str) -> Mapping[str, str]:
    """Laws that correlated places cannot keep, since few of them are independent."""
    return dict.fromkeys(("independent_within_a_sample", *laws), CORRELATED)


@frozen
class Shaped:
    """The base: draws keyed white noise and shapes it.

    A state's tensors are ``(B, C, ...)``, the places behind the channels; ``(B, n)`` is one channel.
    """

    seed: Any = field(default=0, kw_only=True)
    index: Any = field(default=None, kw_only=True)

    brownian = True
    fills = False
    known_failures: ClassVar[Mapping[str, str]] = measured_within()

    def __attrs_post_init__(self) -> None:
        keyed = KeyedNoise(self.seed, self.index)
        for name in ("seed", "index"):
            object.__setattr__(self, name, getattr(keyed, name))  # as converted

    def check(self, batch: int) -> None:
        """Raise `NoiseError` unless the seeds and indices fit a batch."""
        KeyedNoise(self.seed, self.index).check(batch)

    def noise(self, x: Any, sigma_from: float, sigma_to: float, stream: str = "step", visit: int = 0) -> Any:
        """Unit noise like `x`; see `kdiff_core.protocols.NoiseSource.noise`."""
        keyed = KeyedNoise(self.seed, self.index)
        leaves = flatten(keyed.noise(x, sigma_from, sigma_to, stream, visit))
        asked = struct.pack("<ddq", float(sigma_from), float(sigma_to), visit) + stream.encode()
        return rebuild(x, [self._shaped(leaf, keyed, n, asked) for n, leaf in enumerate(leaves)])

    def _shaped(self, leaf: Tensor, keyed: KeyedNoise, number: int, asked: bytes) -> Tensor:
        white = leaf if leaf.ndim > 2 else leaf.reshape(len(leaf), 1, -1)

        def more(name: str, *size: int) -> Tensor:
            drawn = torch.empty((*white.shape[:2], *size), dtype=white.dtype, device=white.device)
            keyed.fill([drawn], struct.pack("<q", number) + name.encode() + asked)
            return drawn

        return self.shape(white, more).reshape(leaf.shape)

    def shape(self, white: Tensor, more: Callable[..., Tensor]) -> Tensor:
        """Return the noise of one tensor.

        Args:
            white: White noise, ``(B, C, ...)``.
            more: ``more(name, *size)`` draws further white noise, ``(B, C, *size)``.
        """
        raise NotImplementedError


@frozen
class OffsetNoise(Shaped):
    """White noise and a value that all places of a channel share: the brightness varies too.

    Guttenberg 2023, "Diffusion with Offset Noise" (crosslabs.org).

    Attributes:
        strength: Standard deviation of what is shared, over that of the white noise.
    """

    strength: float = field(default=0.1, converter=float, validator=not_negative)

    known_failures = measured_within("unit_normal")

    def shape(self, white: Tensor, more: Callable[..., Tensor]) -> Tensor:
        """Add the shared value."""
        shared = more("offset", *(1 for _ in white.shape[2:]))
        return (white + shared * self.strength) / math.hypot(1.0, self.strength)


@frozen
class PyramidNoise(Shaped):
    """White noise and coarser noise of half, a quarter, ... the resolution, each weaker by a discount.

    Whitaker 2023, "Multi-Resolution Noise for Diffusion Model Training" (wandb.ai).

    Attributes:
        discount: Factor of each coarser level, 0 to 1.
        depth: Most coarser levels; there are none below one place.
    """

    discount: float = field(default=0.3, converter=float, validator=fraction)
    depth: int = field(default=10, validator=whole(0))

    def shape(self, white: Tensor, more: Callable[..., Tensor]) -> Tensor:
        """Add the coarser levels, interpolated linearly."""
        places, total, weight, squares = white.shape[2:], white, 1.0, 1.0
        for level in range(1, self.depth + 1):
            size = [max(1, n >> level) for n in places]
            weight *= self.discount
            squares += weight * weight
            total = total + _stretched(more(f"level {level}", *size), places) * weight
            if max(size) == 1:
                break
        return total / math.sqrt(squares)


@frozen
class PerlinNoise(Shaped):
    """White noise and smooth bumps: gradients on a lattice, with quintic blending.

    Perlin 2002, "Improving noise"; the gradients are normal vectors, so that the values are normal.

    Attributes:
        strength: Standard deviation of the bumps, over that of the white noise.
        cells: Cells of the lattice along the longest side.
    """

    strength: float = field(default=1.0, converter=float, validator=not_negative)
    cells: int = field(default=4, validator=whole(1))

    known_failures = measured_within(
        "unit_normal",
        "independent_between_samples",
        "independent_between_draws",
        "increments_of_one_brownian_path",
    )

    def shape(self, white: Tensor, more: Callable[..., Tensor]) -> Tensor:
        """Add the bumps."""
        places = white.shape[2:]
        scale = self.cells / max(places)
        # Beside the points of the lattice, where all bumps are 0.
        at = [torch.arange(n, dtype=white.dtype, device=white.device) * scale + GOLDEN for n in places]
        lattice = [int(a[-1]) + 2 for a in at]
        gradients = more("gradients", len(places), *lattice)
        bumps, variance = torch.zeros_like(white), torch.zeros_like(white[:1, :1])
        for corner in range(2 ** len(places)):
            near, weight, offsets = gradients, torch.ones_like(variance), []
            for axis, a in enumerate(at):
                far = corner >> axis & 1
                cell = a.floor()
                part = a - cell
                blend = part**3 * (part * (part * 6.0 - 15.0) + 10.0)
                shape = [1] * white.ndim
                shape[2 + axis] = -1
                weight = weight * (blend if far else 1.0 - blend).reshape(shape)
                offsets.append((part - far).reshape(shape))
                near = near.index_select(3 + axis, cell.long() + far)
            bumps += weight * sum(near[:, :, axis] * offset for axis, offset in enumerate(offsets))
            variance += weight**2 * sum(offset**2 for offset in offsets)
        return (white + bumps * (self.strength / variance.sqrt())) / math.hypot(1.0, self.strength)


@frozen
class ColouredNoise(Shaped):
    """Noise whose power falls with the spatial frequency f as ``f ** -exponent``.

    Attributes:
        exponent: 0 is white, 1 pink, 2 brown, -1 blue, -2 violet noise.
    """

    exponent: float = field(default=1.0, converter=float, validator=finite)

    known_failures = measured_within("unit_normal", "independent_between_samples")

    def shape(self, white: Tensor, more: Callable[..., Tensor]) -> Tensor:
        """Filter, over all places."""
        axes = tuple(range(2, white.ndim))
        squares = torch.zeros((), dtype=torch.float64, device=white.device)
        for axis in axes:
            shape = [1] * len(axes)
            shape[axis - 2] = -1
            frequency = torch.fft.fftfreq(white.shape[axis], dtype=torch.float64, device=white.device)
            squares = squares + (frequency**2).reshape(shape)
        above = squares[squares > 0]
        lowest = float(above.min()) if above.numel() else 1.0
        power = squares.clamp(min=lowest) ** (-self.exponent / 2.0)  # the mean counts as the lowest
        gain = (power / power.mean()).sqrt().to(white.dtype)
        filtered: Tensor = torch.fft.ifftn(torch.fft.fftn(white, dim=axes) * gain, dim=axes).real
        return filtered


def _stretched(coarse: Tensor, places: Sequence[int]) -> Tensor:
    """Interpolate linearly along each axis, keeping unit variance at each place."""
    for axis, n in enumerate(places, 2):
        size = coarse.shape[axis]
        at = ((torch.arange(n, dtype=coarse.dtype, device=coarse.device) + 0.5) * size / n - 0.5).clamp(
            0, size - 1
        )
        first = at.floor().long().clamp(max=max(size - 2, 0))
        part = at - first
        norm = (part**2 + (1.0 - part) ** 2).sqrt()
        shape = [1] * coarse.ndim
        shape[axis] = -1
        second = (first + 1).clamp(max=size - 1)
        far, near = (part / norm).reshape(shape), ((1.0 - part) / norm).reshape(shape)
        coarse = coarse.index_select(axis, first) * near + coarse.index_select(axis, second) * far
    return coarse
