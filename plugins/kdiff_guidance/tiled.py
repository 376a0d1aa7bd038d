"""Tiles: states that are too large for a model, in parts that overlap."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import torch
from attrs import Attribute, field, frozen
from attrs.converters import optional
from attrs.validators import optional as if_given
from torch import Tensor

from kdiff_core import Prediction
from kdiff_core.errors import ParameterError, StateError
from kdiff_core.known_levels import repeated
from kdiff_core.parameters import whole
from kdiff_core.state import check_output, wide

from .guided import Cond, denoises, has_parts
from .tiles import Axis, Tile, add, axis, cut, folded


def _each(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)


def _numbers(least: int) -> Callable[[Any, Attribute[Any], Any], None]:
    def validate(instance: Any, attribute: Attribute[Any], value: tuple[Any, ...]) -> None:
        if not value or any(type(one) is not int or one < least for one in value):
            raise ParameterError(
                f"Tiled: {attribute.name}={value}; give a whole number of at least {least}, or one for each "
                "of the last dimensions"
            )

    return validate


@frozen(eq=False)
class Tiled:
    """Denoises a large state in tiles that overlap, and blends their outputs with smooth windows.

    MultiDiffusion, Bar-Tal et al. 2023, arXiv:2302.08113: at each evaluation the output is the weighted mean
    of the tiles' outputs; here the weight of a tile falls from its middle to its ends as ``sin^2``. In each
    dimension as few tiles as can be lie at even distances. A state no larger than a tile is given to the
    denoiser as it is. The denoiser's other attributes are found on this object too.

    An option of each dimension is one number for all of them, or a list with one for each of the last; the
    others are not cut.

    Args:
        denoiser: The denoiser, guided or not, of a state that is one tensor ``(B, C, ...)``.
        tile: Length of a tile in each dimension.
        overlap: How much of it neighbours share at least, below `tile`. Default: half of it.
        circular: In which dimensions tiles go over the end to the beginning, for textures without a seam;
            one that is no longer than a tile has none that do.
        chunk: Most tiles in one call of the denoiser. Default: all.
        spatial: Names of conditions that the tiles cut too: tensors ``(B, C, ...)`` or ``(1, C, ...)`` whose
            sizes are a whole multiple of the state's.
        size: Spatial size of the samples, for ``sample_shape``. Default: the denoiser's.

    Raises:
        ParameterError: An option is out of its range.
    """

    denoiser: Any = field(validator=denoises)
    tile: tuple[int, ...] = field(converter=_each, validator=_numbers(1))
    overlap: tuple[int, ...] = field(converter=_each, validator=_numbers(0))
    circular: tuple[bool, ...] = field(default=False, converter=_each, kw_only=True)
    chunk: int | None = field(default=None, validator=if_given(whole(1)), kw_only=True)
    spatial: tuple[str, ...] = field(default=(), converter=_each, kw_only=True)
    size: tuple[int, ...] | None = field(
        default=None, converter=optional(_each), validator=if_given(_numbers(1)), kw_only=True
    )

    @overlap.default
    def _half(self) -> Any:
        return [one // 2 if isinstance(one, int) else one for one in _each(self.tile)]

    def __attrs_post_init__(self) -> None:
        count = max(len(self.tile), len(self.overlap), len(self.circular))
        tile, overlap, _ = self._options(count)
        if any(lap >= one for one, lap in zip(tile, overlap, strict=True)):
            raise ParameterError(f"Tiled: overlap={self.overlap} is not below tile={self.tile}")

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """A sample's shape."""
        shape = tuple(self.denoiser.sample_shape)
        return shape if self.size is None else (*shape[: -len(self.size)], *self.size)

    def __call__(self, x: Any, sigma: Tensor, **cond: Any) -> Any:
        """Return the blended output."""
        return self._blended(x, sigma, cond, lambda *args, **more: [self.denoiser(*args, **more)])[0]

    @property
    def predict(self) -> Callable[..., Prediction]:
        """The three outputs, each blended, where the denoiser has them."""
        if not has_parts(self.denoiser):
            raise AttributeError("predict")
        return self._predict

    def _predict(self, x: Any, sigma: Tensor, **cond: Any) -> Prediction:
        def outputs(*args: Any, **more: Any) -> list[Any]:
            found = self.denoiser.predict(*args, **more)
            return [found.denoised, found.cond, found.uncond]

        return Prediction(*self._blended(x, sigma, cond, outputs))

    def _blended(self, x: Any, sigma: Tensor, cond: Cond, call: Callable[..., list[Any]]) -> list[Any]:
        """The weighted means of the outputs of all tiles."""
        axes = self.axes(x)
        tiles: list[Tile] = list(product(*(each.spans for each in axes)))
        if len(tiles) == 1:
            return call(x, sigma, **cond)
        chunk, totals = self.chunk or len(tiles), list[Tensor]()
        for at in range(0, len(tiles), chunk):
            some = tiles[at : at + chunk]
            given = torch.cat([cut(x, axes, tile) for tile in some])
            outputs = call(given, repeated(sigma, len(some)), **self._conditions(cond, x, axes, some))
            parts = [torch.split(check_output(output, given, [given])[0], len(x)) for output in outputs]
            size = [each.size + each.tail for each in axes]
            totals = totals or [x.new_zeros(*x.shape[:2], *size, dtype=wide(x)) for _ in parts]
            for total, each in zip(totals, parts, strict=True):
                for tile, part in zip(some, each, strict=True):
                    add(total, part, tile)
        return [folded(total, axes).to(x.dtype) for total in totals]

    def axes(self, x: Any) -> list[Axis]:
        """How each spatial dimension of a state is cut.

        Raises:
            StateError: A state that is not one tensor with spatial dimensions.
            ParameterError: An option for more dimensions than there are.
        """
        if not isinstance(x, Tensor) or x.ndim < 3:
            what = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise StateError(f"Tiled: a state of {what}; tiles are cut of one tensor (B, C, ...)")
        options = [(None, 0, False)] * (x.ndim - 2)
        given = max(len(self.tile), len(self.overlap), len(self.circular))
        if given > len(options):
            raise ParameterError(
                f"Tiled: tile={self.tile}, overlap={self.overlap}, circular={self.circular} for a state with "
                f"{len(options)} spatial dimensions"
            )
        count = len(options) if given == 1 else given
        options[len(options) - count :] = zip(*self._options(count), strict=True)
        return [axis(size, *one) for size, one in zip(x.shape[2:], options, strict=True)]

    def _options(self, count: int) -> list[tuple[Any, ...]]:
        """Tile, overlap and circular for each of the last dimensions."""
        found = [self.tile, self.overlap, self.circular]
        if any(len(one) not in (1, count) for one in found):
            raise ParameterError(
                f"Tiled: tile={self.tile}, overlap={self.overlap} and circular={self.circular}; give one, or "
                "as many of each"
            )
        return [one * count if len(one) == 1 else one for one in found]

    def _conditions(self, cond: Cond, x: Tensor, axes: Sequence[Axis], tiles: Sequence[Tile]) -> Cond:
        """The conditions of some tiles in one batch."""
        if missing := [name for name in self.spatial if name not in cond]:
            raise ParameterError(f"Tiled: spatial={self.spatial}, but no condition is called {missing[0]!r}")

        def repeated(value: Any) -> Any:
            if isinstance(value, Mapping):
                return {key: repeated(one) for key, one in value.items()}
            if type(value) in (list, tuple):
                return type(value)(repeated(one) for one in value)
            if isinstance(value, Tensor) and value.ndim and len(value) == len(x):
                return torch.cat([value] * len(tiles))
            return value

        def sliced(name: str, value: Any) -> Tensor:
            sizes = value.shape[2:] if isinstance(value, Tensor) else ()
            if len(sizes) != len(axes) or any(n % a.size for n, a in zip(sizes, axes, strict=True)):
                raise ParameterError(
                    f"Tiled: condition {name!r} of size {tuple(sizes)} for a state of size "
                    f"{tuple(x.shape[2:])}; its sizes must be whole multiples, to be cut with it"
                )
            parts = [cut(value, axes, tile) for tile in tiles]
            return torch.cat([part.expand(len(x), *part.shape[1:]) for part in parts])

        return {k: sliced(k, v) if k in self.spatial else repeated(v) for k, v in cond.items()}

    def __getattr__(self, name: str) -> Any:
        """Find everything else on the denoiser."""
        if name.startswith("_") or any(name == each.name for each in type(self).__attrs_attrs__):
            raise AttributeError(name)
        return getattr(self.denoiser, name)
