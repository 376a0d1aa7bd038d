"""kdiff: diffusion samplers as plugins; one definition of each, for every host, each proven.

The names below are loaded when they are first used (PEP 562), so that listing what is installed needs
no torch and answers at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adaptive import AdaptiveSampler as AdaptiveSampler
    from .batching import BatchRunner as BatchRunner
    from .batching import Request as Request
    from .budget import spend as spend
    from .budget import steps_for as steps_for
    from .captured import capture as capture
    from .context import Point as Point
    from .context import Prediction as Prediction
    from .context import StepContext as StepContext
    from .engine import run as run
    from .entry import Entry as Entry
    from .errors import KdiffError as KdiffError
    from .errors import PluginError as PluginError
    from .errors import UnknownNameError as UnknownNameError
    from .estimate import memory as memory
    from .grid import Grid as Grid
    from .hookspecs import hookimpl as hookimpl
    from .inversion import invert as invert
    from .likelihood import log_likelihood as log_likelihood
    from .linear import Linear as Linear
    from .lookup import default_registry as default_registry
    from .lookup import get_augmentation as get_augmentation
    from .lookup import get_condition as get_condition
    from .lookup import get_dataset as get_dataset
    from .lookup import get_denoiser as get_denoiser
    from .lookup import get_density as get_density
    from .lookup import get_features as get_features
    from .lookup import get_guidance as get_guidance
    from .lookup import get_loss as get_loss
    from .lookup import get_model as get_model
    from .lookup import get_modifier as get_modifier
    from .lookup import get_noise as get_noise
    from .lookup import get_process as get_process
    from .lookup import get_sampler as get_sampler
    from .lookup import get_schedule as get_schedule
    from .lookup import list_augmentations as list_augmentations
    from .lookup import list_conditions as list_conditions
    from .lookup import list_datasets as list_datasets
    from .lookup import list_denoisers as list_denoisers
    from .lookup import list_densities as list_densities
    from .lookup import list_features as list_features
    from .lookup import list_guidance as list_guidance
    from .lookup import list_losses as list_losses
    from .lookup import list_models as list_models
    from .lookup import list_modifiers as list_modifiers
    from .lookup import list_noise as list_noise
    from .lookup import list_plugins as list_plugins
    from .lookup import list_processes as list_processes
    from .lookup import list_samplers as list_samplers
    from .lookup import list_schedules as list_schedules
    from .lookup import parse_label as parse_label
    from .noise import KeyedNoise as KeyedNoise
    from .noise import noise_from as noise_from
    from .noise import start as start
    from .path import FLOW as FLOW
    from .path import VE as VE
    from .path import Path as Path
    from .plans import Plan as Plan
    from .preview import Preview as Preview
    from .preview import fit_rgb as fit_rgb
    from .protocols import Denoiser as Denoiser
    from .protocols import NoiseSource as NoiseSource
    from .protocols import Process as Process
    from .protocols import Sampler as Sampler
    from .protocols import Schedule as Schedule
    from .registry import Registry as Registry
    from .result import Checkpoint as Checkpoint
    from .result import Result as Result
    from .result import StepInfo as StepInfo
    from .sample_job import SampleJob as SampleJob
    from .sampler import StepSampler as StepSampler
    from .sampling import KSampler as KSampler
    from .sampling import plan as plan
    from .sampling import sample as sample
    from .stepper import Stepper as Stepper
    from .tuning.counts import tune_steps as tune_steps
    from .tuning.grids import tune_grid as tune_grid
    from .tuning.lessons import Lessons as Lessons
    from .tuning.solvers import tune_weights as tune_weights
    from .tuning.tuned import Tuned as Tuned

_MODULES = {
    "adaptive": ("AdaptiveSampler",),
    "batching": ("BatchRunner", "Request"),
    "budget": ("spend", "steps_for"),
    "captured": ("capture",),
    "context": ("Point", "Prediction", "StepContext"),
    "engine": ("run",),
    "entry": ("Entry",),
    "errors": ("KdiffError", "PluginError", "UnknownNameError"),
    "estimate": ("memory",),
    "grid": ("Grid",),
    "hookspecs": ("hookimpl",),
    "inversion": ("invert",),
    "likelihood": ("log_likelihood",),
    "sample_job": ("SampleJob",),
    "linear": ("Linear",),
    "noise": ("KeyedNoise", "noise_from", "start"),
    "path": ("FLOW", "VE", "Path"),
    "plans": ("Plan",),
    "preview": ("Preview", "fit_rgb"),
    "protocols": ("Denoiser", "NoiseSource", "Process", "Sampler", "Schedule"),
    "lookup": (
        "default_registry", "get_augmentation", "get_condition", "get_dataset", "get_denoiser",
        "get_density", "get_features", "get_guidance", "get_loss", "get_model", "get_modifier",
        "get_noise", "get_process", "get_sampler", "get_schedule", "list_augmentations",
        "list_conditions", "list_datasets", "list_denoisers", "list_densities", "list_features",
        "list_guidance", "list_losses", "list_models", "list_modifiers", "list_noise",
        "list_plugins", "list_processes", "list_samplers", "list_schedules", "parse_label",
    ),
    "registry": ("Registry",),
    "result": ("Checkpoint", "Result", "StepInfo"),
    "sampler": ("StepSampler",),
    "sampling": ("KSampler", "plan", "sample"),
    "stepper": ("Stepper",),
    "tuning.counts": ("tune_steps",),
    "tuning.grids": ("tune_grid",),
    "tuning.lessons": ("Lessons",),
    "tuning.solvers": ("tune_weights",),
    "tuning.tuned": ("Tuned",),
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(_MODULE_OF)
