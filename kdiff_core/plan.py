"""Moved to plans.py (kd.plan is a function); this file goes away in a minute: import from .plans."""

from .plans import *  # noqa
from .plans import trace, written, read, Combine, Evaluate, Noise, Plan, PlanStep  # noqa
