"""Random masks for inpainting: 1 where an image is hidden, from uniform numbers, for a whole batch."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from attrs import frozen
from torch import Tensor

from kdiff_core.errors import ParameterError, StateError


class Mask(Protocol):
    """A kind of masks."""

    draws: int

    def __call__(self, u: Tensor, height: int, width: int) -> Tensor:
        """Return masks ``(B, 1, height, width)``, float32, 1 where hidden.

        Args:
            u: Uniform numbers, ``(B, draws)``; an image's own decide its mask.
            height: Of the images.
            width: Of the images.
        """
        ...


@frozen
class Box:
    """One rectangle somewhere in the image.

    Its sides have whole pixels and lie within the image; the area meant is uniform, the logarithm of
    the ratio of the sides, as parts of the image's, too, where the image is large enough.

    Attributes:
        low: Least area meant, as a part of the image.
        high: Largest.
    """

    low: float = 0.1
    high: float = 0.5
    draws = 4

    def __attrs_post_init__(self) -> None:
        if not 0 < self.low <= self.high <= 1:
            raise ParameterError(f"Box: low={self.low}, high={self.high}: needed is 0 < low <= high <= 1")

    def __call__(self, u: Tensor, height: int, width: int) -> Tensor:
        """Return masks; see `Mask`."""
        size, ratio, top, left = _rows(self.draws, u)
        area = self.low + (self.high - self.low) * size
        # Half the logarithm of the ratio: at most that of 2, and neither side longer than the image.
        part = torch.exp2((ratio - 0.5) * torch.minimum(torch.ones_like(area), -area.log2()))
        tall = (area.sqrt() * part * height).round().clamp(1, height)
        wide = (area.sqrt() / part * width).round().clamp(1, width)
        top, left = (top * (height - tall + 1)).floor(), (left * (width - wide + 1)).floor()
        rows, columns = _places(height, width)
        return _as_mask(_within(rows, top, tall) & _within(columns, left, wide))


@frozen
class Half:
    """The left, right, upper or lower half; the middle row or column of an odd number is hidden too."""

    draws = 1

    def __call__(self, u: Tensor, height: int, width: int) -> Tensor:
        """Return masks; see `Mask`."""
        side = (_rows(self.draws, u)[0] * 4).long()[:, None, None]
        rows, columns = _places(height, width)
        middle, centre = (height - 1) / 2, (width - 1) / 2
        halves = columns <= centre, columns >= centre, rows <= middle, rows >= middle
        hidden = torch.zeros(len(u), height, width, dtype=torch.bool)
        for number, half in enumerate(halves):
            hidden |= (side == number) & half
        return _as_mask(hidden)


@frozen
class Brush:
    """One stroke of a round brush along a path of straight pieces.

    After the free-form masks of Yu et al. 2018, arXiv:1806.03589.

    Attributes:
        points: Places that the path joins, at least 2; the first lies anywhere in the image.
        length: Longest piece, as a part of the image's longer side.
        thickness: Largest diameter of the brush, likewise; the smallest is a third of it.
    """

    points: int = 5
    length: float = 0.5
    thickness: float = 0.25

    def __attrs_post_init__(self) -> None:
        if self.points < 2 or not self.length > 0 or not self.thickness > 0:
            raise ParameterError(f"{self}: needed are 2 points, and a length and a thickness above 0")

    @property
    def draws(self) -> int:
        """Numbers that an image takes."""
        return 3 + 2 * (self.points - 1)

    def __call__(self, u: Tensor, height: int, width: int) -> Tensor:
        """Return masks; see `Mask`."""
        own = _rows(self.draws, u)
        longer = max(height, width)
        radius = (self.thickness * longer / 6) * (1 + 2 * own[0])
        row, column = own[1] * height - 0.5, own[2] * width - 0.5
        rows, columns = _places(height, width)
        hidden = torch.zeros(len(u), height, width, dtype=torch.bool)
        for length, angle in own[3:].reshape(-1, 2, len(u)):
            reach = self.length * longer * length
            end = row + reach * (angle * 2 * torch.pi).sin(), column + reach * (angle * 2 * torch.pi).cos()
            end = end[0].clamp(-0.5, height - 0.5), end[1].clamp(-0.5, width - 0.5)
            hidden |= _squares(rows, columns, (row, column), end) <= radius.square()[:, None, None]
            row, column = end
        # A thin brush may pass between the centres of pixels; the one that it began in is hidden.
        first = (own[1] * height).floor(), (own[2] * width).floor()
        return _as_mask(hidden | (_within(rows, first[0], 1) & _within(columns, first[1], 1)))


@frozen
class FreeForm:
    """Several strokes and perhaps a box: any of the other masks may come out, or nearly.

    Attributes:
        strokes: Largest number of strokes; the number is uniform, from 1.
        box: Chance of a box besides.
    """

    strokes: int = 4
    box: float = 0.5

    def __attrs_post_init__(self) -> None:
        if self.strokes < 1 or not 0 <= self.box <= 1:
            raise ParameterError(f"{self}: needed is at least 1 stroke, and a chance from 0 to 1")

    @property
    def draws(self) -> int:
        """Numbers that an image takes."""
        return 2 + Box().draws + self.strokes * Brush().draws

    def __call__(self, u: Tensor, height: int, width: int) -> Tensor:
        """Return masks; see `Mask`."""
        _rows(self.draws, u)
        box, brush = Box(0.05, 0.25), Brush()
        hidden = box(u[:, 2 : 2 + box.draws], height, width) * (u[:, 0] < self.box)[:, None, None, None]
        for number in range(self.strokes):
            drawn = u[:, 2 + box.draws + number * brush.draws :][:, : brush.draws]
            painted = (u[:, 1] * self.strokes).floor() >= number
            hidden = torch.maximum(hidden, brush(drawn, height, width) * painted[:, None, None, None])
        return hidden.to(torch.float32)


@frozen
class Mixed:
    """A box, a half, a stroke or a free form, each as likely."""

    kinds = (Box(), Half(), Brush(), FreeForm())
    draws = 1 + max(kind.draws for kind in kinds)

    def __call__(self, u: Tensor, height: int, width: int) -> Tensor:
        """Return masks; see `Mask`."""
        which = (_rows(self.draws, u)[0] * len(self.kinds)).long()
        drawn = torch.stack([kind(u[:, 1 : 1 + kind.draws], height, width) for kind in self.kinds])
        return drawn[which, torch.arange(len(u))]


MASKS: dict[str, Any] = {
    "box": Box,
    "half": Half,
    "brush": Brush,
    "free_form": FreeForm,
    "mixed": Mixed,
}


def hide(x: Tensor, mask: Tensor) -> Tensor:
    """Return what an inpainting network is given beside the noisy image: the mask, and what is not hidden.

    Args:
        x: Images, ``(B, C, H, W)``.
        mask: 1 where hidden, ``(B, 1, H, W)``.

    Returns:
        ``(B, 1 + C, H, W)``: the condition ``concat``; hidden pixels are 0.
    """
    mask = mask.to(x)
    return torch.cat([mask, x * (1 - mask)], 1)


def _rows(draws: int, u: Tensor) -> Tensor:
    """Return the numbers as rows, float64 on the CPU."""
    if u.ndim != 2 or u.shape[1] != draws:
        raise StateError(f"masks: u has the shape {tuple(u.shape)}; needed is (B, {draws})")
    return u.double().cpu().T.contiguous()


def _places(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return the row ``(H, 1)`` and column ``(W,)`` of each pixel."""
    rows = torch.arange(height, dtype=torch.float64)[:, None]
    return rows, torch.arange(width, dtype=torch.float64)


def _within(places: Tensor, start: Tensor, size: Tensor | int) -> Tensor:
    """Whether places lie in ``[start, start + size)`` of each image."""
    stop = start + size
    return (places >= start[:, None, None]) & (places < stop[:, None, None])


def _squares(rows: Tensor, columns: Tensor, start: tuple[Tensor, ...], end: tuple[Tensor, ...]) -> Tensor:
    """Squared distance of each pixel from a line of each image, ``(B, H, W)``."""
    (y, x), (y_end, x_end) = ([each[:, None, None] for each in point] for point in (start, end))
    dy, dx = y_end - y, x_end - x
    along = ((rows - y) * dy + (columns - x) * dx) / (dy * dy + dx * dx).clamp_min(1e-12)
    along = along.clamp(0, 1)
    return (rows - y - along * dy).square() + (columns - x - along * dx).square()


def _as_mask(hidden: Tensor) -> Tensor:
    return hidden[:, None].float()
