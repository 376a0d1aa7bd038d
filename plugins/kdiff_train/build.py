"""From a config to the parts of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType
from torch import nn

from kdiff_core.errors import MissingExtraError, ParameterError
from kdiff_core.lookup import get_augmentation, get_dataset, get_density, get_loss, get_model, get_process
from kdiff_core.model_file import ABOUT
from kdiff_core.names import did_you_mean, quoted
from kdiff_core.parameterisations import Parameterised
from kdiff_core.predictions import ALIASES, PREDICTIONS

from . import keys
from .config import Config
from .data.loading import take

_MEASURED = 1024


def make_accelerator(config: Config, folder: Path | None = None) -> Accelerator:
    """Return accelerate's face of the device, the processes, the precision and the trackers.

    Raises:
        ParameterError: An unknown tracker, or one that writes files where there is no folder; fp16 on a CPU.
        MissingExtraError: A tracker's package is not installed.
    """
    known, there = [str(each) for each in LoggerType], [str(each) for each in get_available_trackers()]
    for name in config.log.trackers:
        if name not in known:
            raise ParameterError(
                f"log.trackers: {name!r}: there are {quoted(known)}{did_you_mean(name, known)}"
            )
        if name not in there:
            raise MissingExtraError(f"log.trackers: {name!r} is not installed: pip install {name}")
    state = AcceleratorState._shared_state
    if state and state.get("_mixed_precision", config.precision) != config.precision:
        AcceleratorState._reset_state()  # of an earlier run in this process
    try:
        made = Accelerator(
            mixed_precision=config.precision, log_with=config.log.trackers or None, project_dir=folder
        )
    except ValueError as error:
        raise ParameterError(f"the run cannot be set up: {error}") from error
    if config.precision == "fp16" and made.device.type == "cpu":
        AcceleratorState._reset_state()
        raise ParameterError("precision: fp16 needs a GPU, and would not be used; 'bf16' works on a CPU too")
    return made


def make_network(config: Config) -> nn.Module:
    """Return the network, its weights a function of the seed; torch's generator stays as it is."""
    with keys.seeded(config.seed, "weights", 0):
        network: nn.Module = get_model(config.model.name, **config.model.options)
    if config.checkpointing:
        if not hasattr(network, "set_checkpointing"):
            raise ParameterError(f"checkpointing: the model {config.model.name!r} cannot")
        network.set_checkpointing(True)  # type: ignore[operator]
    return network


def make_dataset(config: Config) -> Any:
    """Return the data set."""
    return get_dataset(config.data.dataset.name, **config.data.dataset.options)


def make_density(config: Config, denoiser: Parameterised) -> Any:
    """Return the density of levels.

    Raises:
        ParameterError: It has levels that the denoiser's path does not.
    """
    options = dict(config.density.options)
    if config.density.name == "uniform" and "process" not in options:
        options["process"] = denoiser.process
    elif isinstance(options.get("process"), dict):
        options["process"] = _process(options["process"])
    density = get_density(config.density.name, **options)
    highest = float(density.sigma(torch.tensor([1 - 2.0**-52], dtype=torch.float64)))
    if denoiser.path == "flow" and highest > 1:
        raise ParameterError(
            f"density {config.density.name!r} has levels up to {highest:.3g}, a flow has none above 1: use "
            "'logit_normal', 'uniform' or 'mode', or give sigma_max"
        )
    return density


def make_loss(config: Config) -> Any:
    """Return the loss."""
    return get_loss(config.loss.name, **config.loss.options)


def make_augmentation(config: Config) -> Any:
    """Return the augmentation, or None."""
    chosen = config.augmentation
    return None if chosen is None else get_augmentation(chosen.name, **chosen.options)


def denoiser_options(config: Config, dataset: Any) -> dict[str, Any]:
    """Return the options of the denoiser as a model file has them, what is to be measured measured."""
    wanted = config.denoiser
    options: dict[str, Any] = {"prediction": wanted.prediction}
    if wanted.process is not None:
        options["process"] = {"name": wanted.process.name, "options": dict(wanted.process.options)}
    if wanted.sigma_data == "auto":
        usual = PREDICTIONS.get(ALIASES.get(wanted.prediction, wanted.prediction))
        if usual is not None and usual.data != 1.0:
            chosen = keys.order(config.seed, len(dataset), 0, min(_MEASURED, len(dataset)), "sigma_data")
            options["sigma_data"] = round(float(take(dataset, chosen.tolist())["x"].std()), 4)
    elif isinstance(wanted.sigma_data, str):
        raise ParameterError(f"denoiser.sigma_data={wanted.sigma_data!r} must be a number, 'auto' or nothing")
    elif wanted.sigma_data is not None:
        options["sigma_data"] = wanted.sigma_data
    return options


def make_denoiser(network: nn.Module, options: dict[str, Any], about: dict[str, Any]) -> Parameterised:
    """Return the denoiser of a network, of options as a model file has them."""
    process = _process(options.get("process"))
    return Parameterised(network, **{**options, "process": process}, about=about)


def _process(said: Any) -> Any:
    return get_process(said["name"], **said.get("options", {})) if isinstance(said, dict) else said


def conditions_of(network: Any) -> Any:
    """Return the conditions that a network says it has, by name; None if it does not say."""
    return getattr(getattr(network, "config", None), "conditions", None)


def about(dataset: Any, network: Any) -> dict[str, Any]:
    """Return what a data set says of its samples; no classes if the network is not told of them."""
    found = {name: getattr(dataset, name, None) for name in ABOUT}
    conditions = conditions_of(network)
    if conditions is not None and "label" not in conditions:
        found |= {"classes": None, "class_names": None}
    if found.get("sample_shape") is None:
        found["sample_shape"] = tuple(dataset[0]["x"].shape)
    return {k: list(v) if isinstance(v, tuple) else v for k, v in found.items() if v is not None}
