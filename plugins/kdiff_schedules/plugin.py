"""What this package offers."""

from __future__ import annotations

from collections.abc import Iterable

from kdiff_core import Entry, hookimpl

from .entries import around, between, hosts, processes, timed


@hookimpl
def kdiff_schedules() -> Iterable[Entry]:
    """The schedules, those around others, and the variants that a host's name stands for."""
    return [*between.SCHEDULES, *timed.SCHEDULES, *around.SCHEDULES, *around.HOSTS, *hosts.HOSTS]


@hookimpl
def kdiff_processes() -> Iterable[Entry]:
    """The noise processes that models were trained on."""
    return list(processes.PROCESSES)
