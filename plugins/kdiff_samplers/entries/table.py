"""How a row of a table is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdiff_core import Entry


def entry(
    name: str,
    factory: str,
    reference: str,
    summary: str,
    *aliases: str,
    defaults: Mapping[str, Any] | None = None,
) -> Entry:
    """An entry of a sampler in this package."""
    return Entry(name, f"kdiff_samplers.{factory}", aliases, summary, reference, defaults or {})


def comfyui(name: str, factory: str, summary: str, *aliases: str, **defaults: Any) -> Entry:
    """An entry of ComfyUI's variant of a sampler."""
    return entry(f"comfyui:{name}", factory, "", f"ComfyUI: {summary}", *aliases, defaults=defaults)
