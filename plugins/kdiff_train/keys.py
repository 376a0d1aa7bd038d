"""Random numbers by key: what the n-th image of a run draws is a function of the seed, a name and n.

So it is the same however images are put into batches, accumulated, spread over processes or resumed. The
global random state is never touched.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdiff_core.errors import ParameterError
from kdiff_core.noise import KeyedNoise

_BLOCK = 4  # numbers that a count of Philox gives


def _digest(seed: int, stream: str, number: int = 0) -> bytes:
    if type(seed) is not int or not 0 <= seed < 2**64:
        raise ParameterError(f"seed={seed!r}: give an integer from 0 to 2**64 - 1")
    return hashlib.sha256(struct.pack("<QQ", seed, number) + stream.encode()).digest()


def _bits(key: bytes, first: int, blocks: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """Return the 64-bit numbers of blocks `first`, `first` + 1, ... of a key."""
    generator = np.random.Philox(key=np.frombuffer(key[:16], np.uint64), counter=[first, 0, 0, 0])
    return np.asarray(generator.random_raw(blocks * _BLOCK))


def uniform(seed: int, stream: str, first: int, count: int, draws: int = 1) -> Tensor:
    """Return uniform numbers of images number `first`, `first` + 1, ... of a run.

    Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") counts, so that a batch is
    drawn at once and any split of the images gives the same bits.

    Args:
        seed: Seed of the run, 0 to 2**64 - 1.
        stream: What they are for; other names give independent numbers.
        first: Number of the first image, from 0.
        count: Number of images.
        draws: Numbers for each.

    Returns:
        Float64 ``(count, draws)``, within ``(0, 1)``, on the CPU.

    Raises:
        ParameterError: The seed is out of range.
    """
    blocks = -(-draws // _BLOCK)
    bits = _bits(_digest(seed, stream), first * blocks, count * blocks)
    # 52 bits and a half: neither 0 nor 1 can come out.
    numbers = ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return torch.from_numpy(numbers.reshape(count, blocks * _BLOCK)[:, :draws].copy())


def normal(
    seed: int, stream: str, first: int, count: int, *shape: int, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return unit normal numbers of images number `first`, `first` + 1, ... of a run.

    They are those of `kdiff_core.noise.KeyedNoise`, which fills each image from a generator of its own.

    Args:
        seed: Seed of the run.
        stream: What they are for.
        first: Number of the first image.
        count: Number of images.
        *shape: Shape of each.
        dtype: Float32 or float64.

    Returns:
        ``(count, *shape)``, on the CPU.
    """
    out = torch.empty(count, *shape, dtype=dtype, device="cpu")
    if out.numel():
        KeyedNoise(seed, range(first, first + count)).fill([out], b"train " + stream.encode())
    return out


@lru_cache(maxsize=4)
def _permutation(seed: int, stream: str, n: int, epoch: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    bits = _bits(_digest(seed, stream, epoch), 0, -(-n // _BLOCK))[:n]
    return np.asarray(np.argsort(bits, kind="stable"))


def order(seed: int, n: int, first: int, count: int, stream: str = "order") -> Tensor:
    """Return which of `n` samples the images number `first`, `first` + 1, ... of a run are.

    Epoch by epoch, a permutation that is a function of the seed and of the epoch's number.

    Args:
        seed: Seed of the run.
        n: Samples in the data set, at least 1.
        first: Number of the first image.
        count: Number of images.
        stream: What the order is of.

    Returns:
        Indices, int64 ``(count,)``.

    Raises:
        ParameterError: There is no sample.
    """
    if n < 1:
        raise ParameterError(f"order: n={n}: the data set has no samples")
    numbers = np.arange(first, first + count)
    out = np.empty(count, np.int64)
    for epoch in range(first // n, (first + count - 1) // n + 1):
        within = numbers // n == epoch
        out[within] = _permutation(seed, stream, n, epoch)[numbers[within] % n]
    return torch.from_numpy(out)


def stratified(seed: int, first: int, count: int, batch: int) -> Tensor:
    """Return a uniform number for each image, one in each of `batch` equal parts of ``[0, 1]`` a batch.

    Args:
        seed: Seed of the run.
        first: Number of the first image.
        count: Number of images.
        batch: Images for one update of the weights, over all processes. Batches begin at its multiples.

    Returns:
        Float64 ``(count,)``, within ``(0, 1)``.
    """
    part = order(seed, batch, first, count, "strata")
    return (part + uniform(seed, "level", first, count)[:, 0]) / batch


@contextmanager
def seeded(seed: int, stream: str, number: int, device: Any = "cpu") -> Iterator[None]:
    """Set torch's generators by a key, for what draws from them, such as dropout; they get back their state.

    Args:
        seed: Seed of the run.
        stream: What they are for.
        number: Number of the first image of the micro-batch.
        device: Where the numbers are drawn.
    """
    where = torch.device(device)
    devices = [torch.cuda.current_device()] if where.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        # The CPU's generator keeps 32 bits of a seed: enough for masks, which need not differ for ever.
        key = int.from_bytes(_digest(seed, stream, number)[:7], "little")
        torch.default_generator.manual_seed(key)
        if devices:
            torch.cuda.manual_seed(key)
        yield
