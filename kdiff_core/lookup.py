"""`get_sampler` and its like: what the registry of the process has by a name."""

from __future__ import annotations

from typing import Any

from . import protocols, training
from .errors import ParameterError
from .names import quoted
from .registry import Entries, PluginRecord, Registry

_PROTOCOLS: dict[str, type] = {
    "sampler": protocols.Sampler,
    "schedule": protocols.Schedule,
    "process": protocols.Process,
    "noise": protocols.NoiseSource,
    "denoiser": protocols.Denoiser,
    "loss": training.TrainingLoss,
    "density": training.Density,
    "dataset": training.Dataset,
    "augmentation": training.Augmentation,
    "features": training.Features,
}

_default = Registry()


def default_registry() -> Registry:
    """Return the registry that the functions of this module, and so `kdiff_core.get_sampler`, ask."""
    return _default


def _get(kind: str, name: Any, *args: Any, **options: Any) -> Any:
    if isinstance(name, str):
        return default_registry().get(kind, name, *args, **options)
    if isinstance(name, type) or not isinstance(name, _PROTOCOLS.get(kind, object)) or name is None:
        raise ParameterError(f"expected the name of a {kind} or a {kind} itself, not {name!r}")
    if args or options:
        given = quoted([*map(str, args), *options])
        raise ParameterError(f"options ({given}) go with the name of a {kind}; {name!r} is made already")
    return name


def get_sampler(name: Any, /, **options: Any) -> Any:
    """Return the sampler of that name; see `Registry.get`. A sampler is returned as it is."""
    return _get("sampler", name, **options)


def get_modifier(name: Any, /, *args: Any, **options: Any) -> Any:
    """Return the modifier of that name around a sampler, its first argument."""
    return _get("modifier", name, *args, **options)


def get_schedule(name: Any, /, **options: Any) -> Any:
    """Return the schedule of that name; a schedule is returned as it is."""
    return _get("schedule", name, **options)


def get_process(name: Any, /, **options: Any) -> Any:
    """Return the noise process of that name; a process is returned as it is."""
    return _get("process", name, **options)


def get_noise(name: Any, /, **options: Any) -> Any:
    """Return the noise source of that name; a noise source is returned as it is."""
    return _get("noise", name, **options)


def get_denoiser(name: Any, /, **options: Any) -> Any:
    """Return the denoiser of that name; a denoiser is returned as it is."""
    return _get("denoiser", name, **options)


def get_model(name: Any, /, **options: Any) -> Any:
    """Return a new model of that name; a model is returned as it is."""
    return _get("model", name, **options)


def get_guidance(name: Any, /, *args: Any, **options: Any) -> Any:
    """Return the guidance of that name around a denoiser, its first argument."""
    return _get("guidance", name, *args, **options)


def get_loss(name: Any, /, **options: Any) -> Any:
    """Return the training loss of that name; one that is made already is returned as it is."""
    return _get("loss", name, **options)


def get_density(name: Any, /, **options: Any) -> Any:
    """Return the density of noise levels of that name; one that is made already is returned as it is."""
    return _get("density", name, **options)


def get_dataset(name: Any, /, **options: Any) -> Any:
    """Return the data set of that name; one that is made already is returned as it is."""
    return _get("dataset", name, **options)


def get_condition(name: Any, /, **options: Any) -> Any:
    """Return the condition of a network of that name; one that is made already is returned as it is."""
    return _get("condition", name, **options)


def get_augmentation(name: Any, /, **options: Any) -> Any:
    """Return the augmentation of that name; one that is made already is returned as it is."""
    return _get("augmentation", name, **options)


def get_features(name: Any, /, **options: Any) -> Any:
    """Return the feature network of that name; one that is made already is returned as it is."""
    return _get("features", name, **options)


def get_command(name: Any, /, **options: Any) -> Any:
    """Return the function of the command of that name; one that is made already is returned as it is."""
    return _get("command", name, **options)


def list_samplers(hosts: bool = False) -> Entries:
    """Return the samplers; see `Registry.list`."""
    return default_registry().list("sampler", hosts)


def list_modifiers(hosts: bool = False) -> Entries:
    """Return the modifiers; see `Registry.list`."""
    return default_registry().list("modifier", hosts)


def list_schedules(hosts: bool = False) -> Entries:
    """Return the schedules; see `Registry.list`."""
    return default_registry().list("schedule", hosts)


def list_processes(hosts: bool = False) -> Entries:
    """Return the noise processes; see `Registry.list`."""
    return default_registry().list("process", hosts)


def list_noise(hosts: bool = False) -> Entries:
    """Return the noise sources; see `Registry.list`."""
    return default_registry().list("noise", hosts)


def list_denoisers(hosts: bool = False) -> Entries:
    """Return the denoisers; see `Registry.list`."""
    return default_registry().list("denoiser", hosts)


def list_models(hosts: bool = False) -> Entries:
    """Return the models; see `Registry.list`."""
    return default_registry().list("model", hosts)


def list_guidance(hosts: bool = False) -> Entries:
    """Return the kinds of guidance; see `Registry.list`."""
    return default_registry().list("guidance", hosts)


def list_losses(hosts: bool = False) -> Entries:
    """Return the training losses; see `Registry.list`."""
    return default_registry().list("loss", hosts)


def list_densities(hosts: bool = False) -> Entries:
    """Return the densities of noise levels; see `Registry.list`."""
    return default_registry().list("density", hosts)


def list_datasets(hosts: bool = False) -> Entries:
    """Return the data sets; see `Registry.list`."""
    return default_registry().list("dataset", hosts)


def list_conditions(hosts: bool = False) -> Entries:
    """Return the conditions of networks; see `Registry.list`."""
    return default_registry().list("condition", hosts)


def list_augmentations(hosts: bool = False) -> Entries:
    """Return the augmentations; see `Registry.list`."""
    return default_registry().list("augmentation", hosts)


def list_features(hosts: bool = False) -> Entries:
    """Return the feature networks; see `Registry.list`."""
    return default_registry().list("features", hosts)


def list_commands(hosts: bool = False) -> Entries:
    """Return the commands that plugins add to ``kdiff``; see `Registry.list`."""
    return default_registry().list("command", hosts)


def list_plugins() -> list[PluginRecord]:
    """Return a record of every plugin found; see `Registry.plugins`."""
    return default_registry().plugins()


def parse_label(label: str) -> tuple[str, str | None]:
    """Split a label such as "DPM++ 2M Karras"; see `Registry.parse_label`."""
    return default_registry().parse_label(label)
