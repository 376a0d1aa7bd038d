"""Entries of losses, densities, data sets, augmentations and feature networks."""

from __future__ import annotations

from collections.abc import Iterable

from kdiff_core import Entry, hookimpl


@hookimpl
def kdiff_losses() -> Iterable[Entry]:
    """Return the losses."""
    return []


@hookimpl
def kdiff_densities() -> Iterable[Entry]:
    """Return the densities."""
    return []


@hookimpl
def kdiff_datasets() -> Iterable[Entry]:
    """Return the datasets."""
    return []


@hookimpl
def kdiff_augmentations() -> Iterable[Entry]:
    """Return the augmentations."""
    return []


@hookimpl
def kdiff_features() -> Iterable[Entry]:
    """Return the features."""
    return []
