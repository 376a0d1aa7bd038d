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
        )
    ]
