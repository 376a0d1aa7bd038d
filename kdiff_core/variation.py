"""Variations of a seed: its noise turned a little towards another seed's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .begin import check_variation
from .noise import KeyedNoise
from .state import Leaves, flatten_like


def varied(
    noise: Leaves, source: Any, like: Any, seed: int | Sequence[int] | None, strength: float
) -> Leaves:
    """Return unit noise turned towards that of another seed.

    On the sphere between the two: ``cos(s pi / 2) a + sin(s pi / 2) b``. Independent noises are taken for
    orthogonal, which in many dimensions they are nearly, and so the result is normal with unit variance
    exactly, in any number of them. Where both have the same seed and sample number, it is that noise.

    Args:
        noise: Tensors of the unit noise, the caller's own.
        source: Where it comes from.
        like: A state, for its structure.
        seed: The other seed, its samples numbered as those of `source`; or one for each sample.
        strength: 0 to 1.

    Raises:
        ParameterError: Not a strength.
        NoiseError: Seeds that do not fit the batch.
    """
    check_variation(seed, strength)
    if seed is None:
        return noise
    if not strength:
        return noise
    batch, keyed = noise[0].shape[0], isinstance(source, KeyedNoise)
    mine = source.samples(batch) if keyed else []
    numbers = [number for _, number in mine] if keyed and isinstance(KeyedNoise(seed).seed, int) else None
    other = KeyedNoise(seed, numbers)
    other.check(batch)
    found = flatten_like(like, other.noise(like, 0.0, 0.0, "start", 0))
    same = [a == b for a, b in zip(mine, other.samples(batch), strict=True)] if keyed else []
    angle = strength * math.pi / 2
    near, far = (math.cos(angle), math.sin(angle)) if strength < 1 else (0.0, 1.0)
    result = []
    for a, b in zip(noise, found, strict=True):
        turned = a * near + b.to(a) * far
        for i, equal in enumerate(same):
            if equal:
                turned[i] = a[i]
        result.append(turned)
    return result
