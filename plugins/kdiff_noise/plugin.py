"""Entries of the noise sources."""

from __future__ import annotations

from collections.abc import Iterable

from kdiff_core import Entry, hookimpl


@hookimpl
def kdiff_noise() -> Iterable[Entry]:
    """Return the default source."""
    return [
        Entry(
            "keyed",
            "kdiff_core.noise:KeyedNoise",
            summary="The default: a pure function of seed, sample, interval and visit, whatever the batch.",
        ),
        Entry(
            "brownian",
            "kdiff_noise.brownian:BrownianNoise",
            aliases=("brownian_tree",),
            summary="One Brownian path for each sample, the same for any schedule and number of steps.",
            reference="arXiv:2001.01328",
        ),
        Entry(
            "offset",
            "kdiff_noise.shaped:OffsetNoise",
            summary="White noise and a value that all places of a channel share.",
            reference="Guttenberg 2023",
        ),
        Entry(
            "pyramid",
            "kdiff_noise.shaped:PyramidNoise",
            aliases=("multires",),
            summary="White noise and coarser noise, each level weaker by a discount.",
            reference="Whitaker 2023",
        ),
        Entry(
            "perlin",
            "kdiff_noise.shaped:PerlinNoise",
            summary="White noise and smooth bumps.",
            reference="Perlin 2002",
        ),
        Entry(
            "coloured",
            "kdiff_noise.shaped:ColouredNoise",
            aliases=("colored", "pink"),
            summary="Noise whose power falls with a power of the spatial frequency; pink by default.",
        ),
    ]
