"""Schedules and noise processes: how `n` steps are spent on a range of noise levels.

Pure Python floats throughout: neither torch nor NumPy is imported, SciPy only for Beta distributions.
"""

from .betas import (
    CosineBetas,
    ExponentialBetas,
    GivenAlphas,
    GivenBetas,
    LaplaceBetas,
    LinearBetas,
    ScaledLinearBetas,
    SigmoidBetas,
    SqrtBetas,
)
from .continuous import ContinuousVP, LogUniform, StableCascade, Tangent
from .curves import KLOptimal, Laplace, LevelBeta, LevelUniform, LinearQuadratic, LogSNR, TrigFlow
from .custom import Custom
from .diffusers_config import process_from_diffusers
from .exponential import Exponential, PolyExponential
from .flow import Flow
from .karras import Karras
from .parts import Joined, Rescaled, Strength, Stretched
from .process import BetaProcess
from .shift import DynamicShift, EmpiricalShift, Shifted
from .surgery import concatenate, invert, rescale, split, split_at
from .table import TableTime
from .tabled import AYS, GITS
from .times import LCM, Beta, Leading, Quadratic, SGMUniform, Trailing, Uniform
from .vp import VE, VP
from .warps import BongTangent, Hyper, Probit, Sinner, TangentRamp

__all__ = [
    "AYS",
    "GITS",
    "LCM",
    "VE",
    "VP",
    "Beta",
    "BetaProcess",
    "BongTangent",
    "ContinuousVP",
    "CosineBetas",
    "Custom",
    "DynamicShift",
    "EmpiricalShift",
    "Exponential",
    "ExponentialBetas",
    "Flow",
    "GivenAlphas",
    "GivenBetas",
    "Hyper",
    "Joined",
    "KLOptimal",
    "Karras",
    "Laplace",
    "LaplaceBetas",
    "Leading",
    "LevelBeta",
    "LevelUniform",
    "LinearBetas",
    "LinearQuadratic",
    "LogSNR",
    "LogUniform",
    "PolyExponential",
    "Probit",
    "Quadratic",
    "Rescaled",
    "SGMUniform",
    "ScaledLinearBetas",
    "Shifted",
    "SigmoidBetas",
    "Sinner",
    "SqrtBetas",
    "StableCascade",
    "Strength",
    "Stretched",
    "TableTime",
    "Tangent",
    "TangentRamp",
    "Trailing",
    "TrigFlow",
    "Uniform",
    "concatenate",
    "invert",
    "process_from_diffusers",
    "rescale",
    "split",
    "split_at",
]
