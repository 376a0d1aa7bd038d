"""The tableaux that have names."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ..tableau import Tableau
from .constructed import CONSTRUCTED, two_stage
from .decimals import DECIMAL
from .high import HIGH
from .implicit import IMPLICIT
from .low import LOW
from .middle import FIFTH, FOURTH

__all__ = ["TABLEAUX", "two_stage"]

_ALL = sorted((*LOW, *FOURTH, *FIFTH, *HIGH, *DECIMAL, *CONSTRUCTED), key=lambda tableau: tableau.order)
TABLEAUX: Mapping[str, Tableau] = MappingProxyType({t.name: t for t in (*_ALL, *IMPLICIT)})
