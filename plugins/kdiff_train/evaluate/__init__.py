"""Evaluation: how near samples are to held-out data, and how near data is to itself.

A score means nothing without the number of samples, how they were drawn, the features it was computed in,
and what real data score against other real data of the same number: a `Report` has all of them.
"""

from .levels import LevelLoss
from .report import Report, Score
from .run import METRICS, evaluate

__all__ = ["METRICS", "LevelLoss", "Report", "Score", "evaluate"]
