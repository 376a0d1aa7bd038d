"""What this package offers."""

from __future__ import annotations

from collections.abc import Iterable

from kdiff_core import Entry, hookimpl

from .entries import basic, corrector, multistep, onestep
from .entries.table import entry as row


@hookimpl
def kdiff_samplers() -> Iterable[Entry]:
    """The samplers, and the variants that a host's name stands for."""
    tables = (basic, multistep, onestep, corrector)
    return [entry for table in tables for entry in (*table.SAMPLERS, *table.HOSTS)]


@hookimpl
def kdiff_modifiers() -> Iterable[Entry]:
    """Churn, ancestral noise and restarts, for any one-step sampler; CFG++, for any."""
    return [
        row("churn", "churn:Churn", "arXiv:2206.00364", "adds noise before each step"),
        row("ancestral", "ancestral:Ancestral", "arXiv:2010.02502", "overshoots, then adds fresh noise"),
        row("restart", "restart:Restart", "arXiv:2306.14878", "goes up with noise, and down again"),
        row("cfg_pp", "cfg_pp:CFGpp", "arXiv:2406.08070", "guided data, unconditional noise"),
    ]
