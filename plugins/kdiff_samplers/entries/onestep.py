"""Entries."""

from __future__ import annotations

from kdiff_core import Entry

SAMPLERS: tuple[Entry, ...] = ()
HOSTS: tuple[Entry, ...] = ()
