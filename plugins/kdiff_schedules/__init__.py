"""Schedules and noise processes: how `n` steps are spent on a range of noise levels.

Pure Python floats throughout: neither torch nor NumPy is imported.
"""

from .custom import Custom
from .exponential import Exponential, PolyExponential
from .karras import Karras
from .process import BetaProcess, CosineBetas, LinearBetas, ScaledLinearBetas
from .table import TableTime
from .vp import VP

__all__ = [
    "VP",
    "BetaProcess",
    "CosineBetas",
    "Custom",
    "Exponential",
    "Karras",
    "LinearBetas",
    "PolyExponential",
    "ScaledLinearBetas",
    "TableTime",
]
