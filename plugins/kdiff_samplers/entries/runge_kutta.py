"""Runge-Kutta methods, a name for each tableau."""

from __future__ import annotations

from kdiff_core import Entry

from ..tableaux import TABLEAUX
from .table import entry

SAMPLERS: tuple[Entry, ...] = (
    entry(
        "rk", "runge_kutta:RungeKutta", "Kutta 1901", "any Runge-Kutta method, by its tableau", "runge_kutta"
    ),
    *(
        entry(
            name, "runge_kutta:RungeKutta", tableau.reference, tableau.summary, *tableau.aliases,
            defaults={"tableau": name},
        )
        for name, tableau in TABLEAUX.items()
    ),
)  # fmt: skip

HOSTS: tuple[Entry, ...] = ()
