"""The hooks that a plugin may implement; each returns an iterable of `Entry`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from .registry import Entry

hookspec = pluggy.HookspecMarker("kdiff")
hookimpl = pluggy.HookimplMarker("kdiff")


@hookspec
def kdiff_samplers() -> Iterable[Entry]:
    """Samplers: factories of `Sampler`."""
    return ()


@hookspec
def kdiff_modifiers() -> Iterable[Entry]:
    """Modifiers: factories of `Sampler` whose first parameter, `solver`, is the sampler they wrap."""
    return ()


@hookspec
def kdiff_schedules() -> Iterable[Entry]:
    """Schedules: factories of `Schedule`."""
    return ()


@hookspec
def kdiff_processes() -> Iterable[Entry]:
    """Noise processes: factories of what a model was trained on."""
    return ()


@hookspec
def kdiff_noise() -> Iterable[Entry]:
    """Noise sources: factories of `NoiseSource`."""
    return ()


@hookspec
def kdiff_denoisers() -> Iterable[Entry]:
    """Denoisers that are ready to sample from."""
    return ()


@hookspec
def kdiff_models() -> Iterable[Entry]:
    """Network architectures that can be built and trained."""
    return ()


@hookspec
def kdiff_guidance() -> Iterable[Entry]:
    """Guidance: factories that wrap a denoiser, their first parameter, into a guided one."""
    return ()


@hookspec
def kdiff_losses() -> Iterable[Entry]:
    """Training losses: factories of `TrainingLoss`."""
    return ()


@hookspec
def kdiff_densities() -> Iterable[Entry]:
    """Densities of noise levels to train at: factories of `Density`."""
    return ()


@hookspec
def kdiff_datasets() -> Iterable[Entry]:
    """Data sets to train on and to compare with: factories of `Dataset`."""
    return ()


@hookspec
def kdiff_conditions() -> Iterable[Entry]:
    """Conditions that a network takes: factories of modules that turn one into what the network knows."""
    return ()


@hookspec
def kdiff_augmentations() -> Iterable[Entry]:
    """Augmentations of batches, with the condition that tells the network of them."""
    return ()


@hookspec
def kdiff_features() -> Iterable[Entry]:
    """Networks whose features sets of images are compared by."""
    return ()


@hookspec
def kdiff_commands() -> Iterable[Entry]:
    """Commands of ``kdiff``: factories of functions, whose parameters typer reads."""
    return ()
