"""Augmentation: images changed at random, with a vector that tells the network how.

A network that is told does not draw what the changes made; at sampling the vector is zero, which says that
nothing was changed (Karras et al. 2022, arXiv:2206.00364, appendix F.2, after the pipeline of Karras et al.
2020, arXiv:2006.06676, appendix B). Images that are not changed keep all their bits.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor

from kdiff_core.errors import ParameterError, StateError
from kdiff_core.lookup import get_augmentation
from kdiff_core.parameters import not_negative
from kdiff_core.training import Augmentation

from .warp import warp

_TINY = 2.0**-54  # half of the smallest uniform number above 0


def _chance(instance: object, attribute: Any, value: float) -> None:
    if not 0 <= value <= 1:
        raise ParameterError(f"{type(instance).__name__}: {attribute.name}={value!r} must be from 0 to 1")


def probability(default: float) -> Any:
    """Return a field for a chance, 0 to 1."""
    return field(default=default, converter=float, validator=_chance)


def amount(default: float) -> Any:
    """Return a field for the size of a change, at least 0."""
    return field(default=default, converter=float, validator=not_negative)


def drawn(draws: int, x: Tensor, u: Tensor) -> Tensor:
    """Return the uniform numbers, checked: a row ``(B,)`` for each draw, float64 on the CPU.

    Raises:
        StateError: `x` is no batch of images, or there are not `draws` numbers for each.
    """
    if x.ndim != 4 or not x.is_floating_point():
        raise StateError(
            f"augmentation: x has the shape {tuple(x.shape)} and {x.dtype}; give (B, C, H, W) floats"
        )
    if u.shape != (len(x), draws):
        raise StateError(f"augmentation: u has the shape {tuple(u.shape)}; ({len(x)}, {draws})")
    return u.double().cpu().T.contiguous()


def _normal(u: Tensor) -> Tensor:
    found: Tensor = torch.special.ndtri(u.clamp(_TINY, 1 - 2 * _TINY))
    return found


def _where(chosen: Tensor, changed: Tensor, x: Tensor) -> Tensor:
    """Return the changed images where they were chosen ``(B,)``, the others as they are."""
    return torch.where(chosen.to(x.device)[:, None, None, None], changed, x)


@frozen
class Flip:
    """Mirrors images, left to right, and upside down if asked to.

    Attributes:
        p: Chance of each.
        vertical: Whether images are also turned upside down.
    """

    p: float = probability(0.5)
    vertical: bool = False

    @property
    def size(self) -> int:
        """1 number, 2 with `vertical`: 1 where an image is mirrored."""
        return 2 if self.vertical else 1

    @property
    def draws(self) -> int:
        """Numbers that an image takes."""
        return self.size

    def __call__(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images and which were mirrored; see `kdiff_core.training.Augmentation`."""
        mirrored = drawn(self.draws, x, u) < self.p
        for axis, chosen in zip((3, 2), mirrored, strict=False):
            x = _where(chosen, x.flip(axis), x)
        return x, mirrored.T.to(x)


@frozen
class Geometric:
    """Mirrors, scales, turns, stretches and moves images.

    The vector has nine numbers: mirrored left to right; upside down; the normal number of the scale; the
    turn's cosine less 1, and its sine; the normal number of the stretch by the cosine and by the sine of
    twice its direction; the two normal numbers of the move. Twice, since a stretch along a direction is
    one along its opposite, and a shrinking across: so equal vectors are equal changes.

    Attributes:
        p: Chance of each change other than mirroring; 0.12 is the paper's for CIFAR-10.
        flip: Chance of mirroring left to right.
        vertical_flip: Chance of turning upside down.
        scale: Standard deviation of the scale's binary logarithm.
        rotate: Largest turn, in half turns.
        anisotropy: Standard deviation of the binary logarithm of the stretch along a direction that is as
            likely as any other; it shrinks as much across.
        translate: Standard deviation of the move, as a part of the width and of the height.
    """

    p: float = probability(0.12)
    flip: float = probability(0.5)
    vertical_flip: float = probability(0.06)
    scale: float = amount(0.2)
    rotate: float = amount(1.0)
    anisotropy: float = amount(0.2)
    translate: float = amount(0.125)
    size = 9
    draws = 12

    def __call__(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images and what was done; see `kdiff_core.training.Augmentation`."""
        rows = drawn(self.draws, x, u)
        across, down = rows[0] < self.flip, rows[1] < self.vertical_flip
        x = _where(across, x.flip(3), x)
        x = _where(down, x.flip(2), x)

        def happens(number: int, strength: float) -> Tensor:
            return (rows[number] < self.p).double() * (strength > 0)

        scale = happens(2, self.scale) * _normal(rows[3])
        turn = happens(4, self.rotate) * (2 * rows[5] - 1) * (torch.pi * self.rotate)
        stretch = happens(6, self.anisotropy) * _normal(rows[7])
        direction = rows[8] * torch.pi
        move = happens(9, self.translate) * _normal(rows[10:12])
        parts = [
            scale,
            turn.cos() - 1,
            turn.sin(),
            stretch * (2 * direction).cos(),
            stretch * (2 * direction).sin(),
            *move,
        ]
        vector = torch.stack([across.double(), down.double(), *parts], 1)
        warped = (vector[:, 2:] != 0).any(1)
        if bool(warped.any()):
            size = self.scale * scale, self.anisotropy * stretch
            shift = move * self.translate * torch.tensor([[x.shape[3]], [x.shape[2]]])
            x = _where(warped, warp(x, seen(size[0], turn, size[1], direction, shift)), x)
        return x, vector.to(x)


def seen(scale: Tensor, turn: Tensor, stretch: Tensor, direction: Tensor, shift: Tensor) -> Tensor:
    """Return the maps from places of changed images to those of the images, ``(B, 2, 3)``, for `warp`.

    Args:
        scale: Binary logarithm of how much larger an image gets, ``(B,)``.
        turn: Angle, from right to down, in radians.
        stretch: Binary logarithm of the stretch along a direction.
        direction: Its angle.
        shift: The move right and down, in pixels, ``(2, B)``.
    """
    along = torch.stack([direction.cos(), direction.sin()], 1)
    long, across = torch.exp2(-scale - stretch), torch.exp2(stretch - scale)
    part = along[:, :, None] * along[:, None, :]
    whole = torch.eye(2, dtype=torch.float64)
    smaller = long[:, None, None] * part + across[:, None, None] * (whole - part)
    cos, sin = turn.cos(), turn.sin()
    back = torch.stack([torch.stack([cos, sin], 1), torch.stack([-sin, cos], 1)], 1)
    linear = (smaller[:, :, :, None] * back[:, None, :, :]).sum(2)
    place = -(linear * shift.T[:, None, :]).sum(2, keepdim=True)
    return torch.cat([linear, place], 2)


@frozen
class Colour:
    """Changes the brightness, contrast and saturation of images with values in [-1, 1].

    The vector has the normal numbers of the three. Values may leave the range. Saturation is of images with
    three channels; of others it stays.

    Attributes:
        p: Chance of each change.
        brightness: Standard deviation of what is added.
        contrast: Standard deviation of the binary logarithm of the factor of all values.
        saturation: Standard deviation of that of the difference from grey, the mean of the channels.
    """

    p: float = probability(0.12)
    brightness: float = amount(0.2)
    contrast: float = amount(0.5)
    saturation: float = amount(1.0)
    size = 3
    draws = 6

    def __call__(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images and what was done; see `kdiff_core.training.Augmentation`."""
        rows = drawn(self.draws, x, u)
        sizes = [self.brightness, self.contrast, self.saturation * (x.shape[1] == 3)]
        strengths = torch.tensor(sizes, dtype=torch.float64)[:, None]
        vector = (rows[:3] < self.p) * (strengths > 0) * _normal(rows[3:])
        added, contrast, saturation = (vector * strengths).to(x)[..., None, None, None]
        changed = x * torch.exp2(contrast) + added
        grey = changed.mean(1, keepdim=True)
        changed = _where(saturation.flatten() != 0, grey + torch.exp2(saturation) * (changed - grey), changed)
        return _where((vector != 0).any(0), changed, x), vector.T.to(x)


def _parts(values: Iterable[Any]) -> tuple[Augmentation, ...]:
    if isinstance(values, str):
        raise ParameterError(f"Chain: give a list of augmentations, [{values!r}]")
    return tuple(get_augmentation(each) for each in values)


@frozen
class Chain:
    """Several augmentations, one after another; their vectors side by side.

    Attributes:
        parts: Augmentations or their names.
    """

    parts: tuple[Augmentation, ...] = field(converter=_parts)

    @property
    def size(self) -> int:
        """Length of all vectors."""
        return sum(part.size for part in self.parts)

    @property
    def draws(self) -> int:
        """Numbers that all of them take."""
        return sum(part.draws for part in self.parts)

    def __call__(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images and what was done; see `kdiff_core.training.Augmentation`."""
        drawn(self.draws, x, u)
        vectors = []
        numbers = torch.split(u, [part.draws for part in self.parts], 1)
        for part, own in zip(self.parts, numbers, strict=True):
            x, vector = part(x, own)
            vectors.append(vector)
        return x, torch.cat(vectors, 1) if vectors else x.new_zeros(len(x), 0)


def standard(p: float = 0.12, flip: float = 0.5) -> Chain:
    """Return all changes: `Geometric`, then `Colour`.

    Args:
        p: Chance of each change, turning upside down with half of it.
        flip: Chance of mirroring left to right.
    """
    return Chain([Geometric(p, flip, p / 2), Colour(p)])
