"""Entries of the networks, their conditions and the trained model."""

from __future__ import annotations

from collections.abc import Iterable

from kdiff_core import Entry, hookimpl


@hookimpl
def kdiff_models() -> Iterable[Entry]:
    """Return the models."""
    return []


@hookimpl
def kdiff_conditions() -> Iterable[Entry]:
    """Return the conditions."""
    return []


@hookimpl
def kdiff_denoisers() -> Iterable[Entry]:
    """Return the denoisers."""
    return []
