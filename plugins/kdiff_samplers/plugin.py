"""What this package offers."""

from __future__ import annotations

from collections.abc import Iterable

from kdiff_core import Entry, hookimpl

from .entries import adaptive, basic, corrector, modifiers, more, multistep, onestep, runge_kutta


@hookimpl
def kdiff_samplers() -> Iterable[Entry]:
    """The samplers, and the variants that a host's name stands for."""
    tables = (basic, multistep, onestep, corrector, more, runge_kutta, adaptive)
    return [entry for table in tables for entry in (*table.SAMPLERS, *table.HOSTS)]


@hookimpl
def kdiff_modifiers() -> Iterable[Entry]:
    """What changes a sampler: its noise, its first and last steps, its guidance, the levels it visits."""
    return list(modifiers.MODIFIERS)
