"""Entries of the guidance methods."""

from __future__ import annotations

from collections.abc import Iterable

from kdiff_core import Entry, hookimpl


@hookimpl
def kdiff_guidance() -> Iterable[Entry]:
    """Return the guidance methods; each wraps a denoiser, its first parameter."""
    return [
        Entry(
            "cfg",
            "kdiff_guidance.cfg:CFG",
            summary="Classifier-free guidance: u + scale (c - u).",
            reference="Ho & Salimans 2022, arXiv:2207.12598, eq. 6",
        )
    ]
