"""How a row of a table is written."""

from __future__ import annotations

from typing import Any

from kdiff_core import Entry


def entry(name: str, factory: str, reference: str, summary: str, *aliases: str, **defaults: Any) -> Entry:
    """An entry of this package; `defaults` are options given before the caller's."""
    return Entry(name, f"kdiff_schedules.{factory}", aliases, summary, reference, defaults)
