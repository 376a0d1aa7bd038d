"""Entries of the Stable Diffusion adapters."""

from __future__ import annotations

from collections.abc import Iterable

from kdiff_core import Entry, hookimpl


@hookimpl
def kdiff_denoisers() -> Iterable[Entry]:
    """Return the denoisers."""
    return [
        Entry(
            "diffusers",
            "kdiff_sd.diffusers_pipelines:load_pipeline",
            summary="diffusers:PATH, a pipeline of diffusers: its folder or its name on the hub.",
            argument="path",
        ),
    ]
