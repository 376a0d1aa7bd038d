"""Noise sources: keyed noise (the default), noise from a callable, noise from torch generators.

Keyed noise is a pure function of (seed, sample index, stream, interval, visit): sample 7 of seed 0 is the
same whatever the batch size, its place in the batch, the device, a resume, or how often anything was
called. The global random state is never touched. Bit-equal within one build of torch.
"""

from __future__ import annotations

import hashlib
import operator
import secrets
import struct
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from attrs import field, frozen
from torch import Tensor

from .errors import NoiseError, ParameterError, StateError
from .path import as_path, path_grid
from .state import Leaves, check_like, flatten, flatten_like, rebuild

# A CPU generator's state is 3 words, then the 624 words of a Mersenne Twister, each in 8 bytes, ...
_WORDS = slice(3, 627)


class _Twister(threading.local):
    """A CPU generator for each thread, whose whole state is set from a key.

    ``Generator.manual_seed`` keeps only 32 bits of a seed on the CPU: among 100,000 keys two would then
    be likely to share their noise. Here all 19,937 bits of the state come from a hash of the key.
    """

    def __init__(self) -> None:
        self.generator = torch.Generator("cpu")
        with torch.device("cpu"):
            self.state = self.generator.manual_seed(5489).get_state()
        self.words = self.state.numpy().view(np.uint64)[_WORDS]
        if not np.array_equal(self.words, np.random.RandomState(5489).get_state()[1]):  # type: ignore[index]
            raise NoiseError(
                f"torch {torch.__version__} lays out its CPU generator in an unknown way, so keyed noise "
                "cannot be drawn; give noise=kd.noise_from(torch.Generator()) and please report this"
            )

    def seeded(self, key: bytes) -> torch.Generator:
        self.words[:] = np.frombuffer(hashlib.shake_128(key).digest(624 * 4), np.uint32)
        return self.generator.set_state(self.state)


@cache
def _twister() -> _Twister:
    """The generators, made on first use: a layout that is not known must not stop an import."""
    return _Twister()


def _to_seeds(seed: int | Iterable[int]) -> int | tuple[int, ...]:
    if isinstance(seed, Iterable) and getattr(seed, "ndim", 1) != 0:
        return tuple(_whole("seed", value, 64) for value in seed)
    return _whole("seed", seed, 64)


def _to_index(index: Iterable[int] | None) -> tuple[int, ...] | None:
    return None if index is None else tuple(_whole("index", value, 63) for value in index)


def _whole(name: str, value: Any, bits: int) -> int:
    try:
        number = -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = -1
    if not 0 <= number < 2**bits:
        raise ParameterError(f"{name}={value!r:.40}: give an integer from 0 to 2**{bits} - 1")
    return number


@frozen
class KeyedNoise:
    """Independent unit noise for each (seed, sample index, stream, interval, visit).

    Attributes:
        seed: One seed for the run, its samples numbered 0, 1, ...; or a list with one seed for each
            sample, which is then sample 0 of its seed.
        index: Numbers of the samples in the batch, if they are not 0, 1, ... (or all 0 for a list of
            seeds): sample 7 alone is ``KeyedNoise(seed=0, index=[7])``.
    """

    seed: int | tuple[int, ...] = field(default=0, converter=_to_seeds)
    index: tuple[int, ...] | None = field(default=None, converter=_to_index)

    brownian = True
    fills = True

    def check(self, batch: int) -> None:
        """Raise `NoiseError` unless the seeds and indices fit a batch."""
        for name, values in (("seed", self.seed), ("index", self.index)):
            if isinstance(values, tuple) and len(values) != batch:
                raise NoiseError(
                    f"{name}: {len(values)} given for a batch of {batch}; give one for each sample"
                    + (", or a single seed for the run" if name == "seed" else "")
                )

    def samples(self, batch: int) -> list[tuple[int, int]]:
        """Seed and number of each sample of a batch; raises as `check` does."""
        self.check(batch)
        one = isinstance(self.seed, int)
        seeds = [self.seed] * batch if isinstance(self.seed, int) else list(self.seed)
        index = self.index or (range(batch) if one else [0] * batch)
        return list(zip(seeds, index, strict=True))

    def noise(
        self,
        x: Any,
        sigma_from: float,
        sigma_to: float,
        stream: str = "step",
        visit: int = 0,
        out: Leaves | None = None,
    ) -> Any:
        """Unit noise like `x`; see `kdiff_core.protocols.NoiseSource.noise`. `out` is memory to reuse."""
        out = out or [torch.empty_like(leaf) for leaf in flatten(x)]
        self.fill(out, struct.pack("<ddq", float(sigma_from), float(sigma_to), visit) + stream.encode())
        return rebuild(x, out)

    def fill(self, out: Leaves, key: bytes, uniform: bool = False) -> None:
        """Fill the tensors of a state with numbers that are a function of seed, sample and `key` alone.

        Args:
            out: The tensors.
            key: Tells draws apart.
            uniform: Draw from [0, 1) in place of the standard normal distribution.
        """
        samples = self.samples(out[0].shape[0])
        for number, target in enumerate(out):
            _fill(target, [struct.pack("<QqH", *sample, number) + key for sample in samples], uniform)


def _fill(target: Tensor, keys: list[bytes], uniform: bool) -> None:
    """Fill each sample of a tensor with the numbers of its key, drawn on the CPU in its dtype."""
    dtype = torch.float64 if target.dtype == torch.float64 else torch.float32
    if target.is_cpu and target.dtype == dtype and target.is_contiguous():
        for row, key in zip([target] if len(keys) == 1 else target, keys, strict=True):
            generator = _twister().seeded(key)
            row.uniform_(generator=generator) if uniform else row.normal_(generator=generator)
        return
    pinned = target.device.type == "cuda"
    host = torch.empty(target.shape, dtype=dtype, device="cpu", pin_memory=pinned)
    _fill(host, keys, uniform)
    target.copy_(host, non_blocking=pinned)


@frozen
class CallableNoise:
    """Noise from a function ``f(sigma, sigma_next)`` that returns unit noise like the state."""

    function: Callable[[float, float], Any]

    brownian = False
    fills = False

    def noise(self, x: Any, sigma_from: float, sigma_to: float, stream: str = "step", visit: int = 0) -> Any:
        """What the function returns for the interval; its visit and stream are not told apart."""
        return self.function(sigma_from, sigma_to)


@frozen
class GeneratorNoise:
    """Noise from torch generators, one for the batch or one for each sample, in the order of the calls."""

    generators: tuple[torch.Generator, ...]

    brownian = True
    fills = False

    def check(self, batch: int) -> None:
        """Raise `NoiseError` unless there is one generator, or one for each sample."""
        if len(self.generators) not in (1, batch):
            raise NoiseError(f"{len(self.generators)} generators for a batch of {batch}; give one or {batch}")

    def noise(self, x: Any, sigma_from: float, sigma_to: float, stream: str = "step", visit: int = 0) -> Any:
        """Unit noise like `x`."""
        leaves = flatten(x)
        self.check(leaves[0].shape[0])
        return rebuild(x, [self._draw(leaf) for leaf in leaves])

    def _draw(self, leaf: Tensor) -> Tensor:
        if len(self.generators) == 1:
            only = self.generators[0]
            return torch.randn(leaf.shape, generator=only, dtype=leaf.dtype, device=only.device).to(
                leaf.device
            )
        rows = [
            torch.randn(leaf.shape[1:], generator=g, dtype=leaf.dtype, device=g.device).to(leaf.device)
            for g in self.generators
        ]
        return torch.stack(rows)


def noise_from(source: Any) -> Any:
    """Make a noise source.

    Args:
        source: A function ``f(sigma, sigma_next)``, a `torch.Generator`, or a list of generators, one for
            each sample. A noise source is returned as it is.

    Raises:
        NoiseError: Anything else.
    """
    if isinstance(source, torch.Generator):
        return GeneratorNoise((source,))
    if isinstance(source, (list, tuple)) and source and all(isinstance(g, torch.Generator) for g in source):
        return GeneratorNoise(tuple(source))
    if callable(getattr(source, "noise", None)) and not isinstance(source, type):
        return source
    if callable(source) and not isinstance(source, type):
        return CallableNoise(source)
    raise NoiseError(
        f"noise={source!r:.60}: a noise source has .noise(x, sigma_from, sigma_to, stream, visit); "
        "kd.noise_from also takes a function f(sigma, sigma_next) or torch generators"
    )


def choose_source(seed: Any, noise: Any, batch: int, default: int | None = None) -> Any:
    """The noise source that a caller asked for, by a seed or itself.

    Args:
        seed: Seed or seeds, or None.
        noise: What `noise_from` takes, or None.
        batch: Batch size.
        default: Seed where neither is given; None: a fresh one.

    Raises:
        NoiseError: Both are given, or the source does not fit the batch.
    """
    if noise is not None and seed is not None:
        raise NoiseError(
            "seed and noise are both given; a noise source has its own seed, so give one of them"
        )
    if seed is None and noise is None:
        seed = secrets.randbits(32) if default is None else default
    source = KeyedNoise(seed) if noise is None else noise_from(noise)
    check = getattr(source, "check", None)
    if check is not None:
        check(batch)
    return source


def start(
    sigmas: Any,
    like: Any,
    path: str = "ve",
    seed: int | Sequence[int] | None = None,
    x0: Any = None,
    noise: Any = None,
    variation_seed: int | Sequence[int] | None = None,
    variation_strength: float = 0.0,
) -> Any:
    """The state at the first level of a grid: pure noise, or noised data for image to image.

    The noise does not depend on the level, so that one seed gives one composition on every schedule.

    Args:
        sigmas: Grid, or anything that makes one.
        like: A state of the wanted shapes, dtypes and devices; its values are not read.
        path: ``"ve"`` or ``"flow"``.
        seed: Seed of the run, or one for each sample. Default 0.
        x0: Data to start from, a state like `like`, or of one row for all; default none (zero).
        noise: A noise source in place of `seed`.
        variation_seed: Seed, or one for each sample, towards whose noise this one is turned.
        variation_strength: How far, 0 to 1; see `kdiff_core.variation.varied`.

    Returns:
        ``alpha * x0 + sigma * noise``, a state like `like`.

    Raises:
        StateError: `like` or `x0` is no state, or they are not alike.
        GridError: A first level above 1 on a flow path.
        NoiseError: Both a seed and a source, or seeds that do not fit the batch.
        ParameterError: A variation strength outside 0 to 1, or without a seed.
    """
    from .variation import varied

    sigma = path_grid(sigmas, as_path(path))[0]
    leaves = check_like(like)
    source = choose_source(seed, noise, leaves[0].shape[0], default=0)
    drawn = flatten_like(like, source.noise(like, 0.0, 0.0, "start", 0))
    if [n.shape for n in drawn] != [leaf.shape for leaf in leaves]:
        raise NoiseError(f"the noise source {source!r:.80} returned other shapes than those of `like`")
    drawn = [n.to(leaf) for n, leaf in zip(drawn, leaves, strict=True)]
    drawn = varied(drawn, source, like, variation_seed, variation_strength)
    if x0 is None:
        return rebuild(like, [n * sigma for n in drawn])
    data = flatten_like(like, x0)
    if any(d.shape not in (n.shape, (1, *n.shape[1:])) for d, n in zip(data, drawn, strict=True)):
        raise StateError(
            f"x0: shapes {[tuple(d.shape) for d in data]} beside {[tuple(leaf.shape) for leaf in leaves]} of "
            "`like`; both must be equal, or x0 of one row for all samples"
        )
    alpha = as_path(path).alpha(sigma)
    return rebuild(like, [n * sigma + d.to(n) * alpha for n, d in zip(drawn, data, strict=True)])
