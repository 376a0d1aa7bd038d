"""The process that a diffusers ``scheduler_config.json`` describes. diffusers itself is not needed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kdiff_core.errors import ParameterError
from kdiff_core.names import nearest, quoted
from kdiff_core.protocols import Process

from .betas import (
    CosineBetas,
    ExponentialBetas,
    GivenBetas,
    LaplaceBetas,
    LinearBetas,
    ScaledLinearBetas,
    SigmoidBetas,
)
from .continuous import LogUniform, StableCascade, Tangent
from .flow import Flow
from .shift import token_shift

_FILE = "scheduler_config.json"
_RAMPS = {"linear": LinearBetas, "scaled_linear": ScaledLinearBetas, "sigmoid": SigmoidBetas}
_SHAPES = {"squaredcos_cap_v2": CosineBetas, "laplace": LaplaceBetas, "exp": ExponentialBetas}
Config = Mapping[str, Any]


def process_from_diffusers(config: Config | str | Path, *, tokens: int | None = None) -> Process:
    """Return the noise process of a diffusers scheduler.

    Read are the tables of betas (``beta_schedule``, ``beta_start``, ``beta_end``, ``trained_betas``,
    ``num_train_timesteps``), ``rescale_betas_zero_snr``, ``snr_shift_scale``, ``prediction_type``, flow's
    ``shift``, ``flow_shift`` and the dynamic shift, and the levels of EDM and of continuous schedulers. How
    steps are spaced (``timestep_spacing``, ``use_karras_sigmas``) is the schedule's business.

    Args:
        config: The config, or the path of a ``scheduler_config.json`` or of the folder that has it.
        tokens: Number of image tokens, where the config has ``use_dynamic_shifting``.

    Raises:
        ParameterError: No such file, no config, an unknown ``beta_schedule``, or `tokens` are missing.
    """
    found = _read(config)
    name = str(found.get("_class_name", ""))
    if name.startswith("FlowMatch") or found.get("use_flow_sigmas") or _predicts_flow(found):
        return _flow(found, tokens)
    if make := _CONTINUOUS.get(name):
        return make(found)
    return _table(found)


def _predicts_flow(config: Config) -> bool:
    return bool(config.get("prediction_type") == "flow_prediction")


def _read(config: Config | str | Path) -> Config:
    """Return the config, read from its file."""
    if isinstance(config, Mapping):
        return config
    if not isinstance(config, str | Path):
        raise ParameterError(f"config={config!r:.80}: give a scheduler's config or the path of its file")
    path = Path(config)
    path = path / _FILE if path.is_dir() else path
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ParameterError(f"config={str(config)!r}: there is no {path}") from error
    except ValueError as error:
        raise ParameterError(f"{path} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ParameterError(f"{path} has no config but {type(found).__name__}; give a {_FILE}")
    return found


def _flow(config: Config, tokens: int | None) -> Process:
    """Return a flow process with the shift that a scheduler gives it."""
    steps = config.get("num_train_timesteps", 1000)
    if not config.get("use_dynamic_shifting"):
        shift = config.get("flow_shift" if "flow_shift" in config else "shift", 1.0)
        return Flow(shift, steps=steps)
    if tokens is None:
        raise ParameterError(
            "this config has use_dynamic_shifting: its shift depends on the size of the image; "
            "give tokens=, the number of image tokens"
        )
    keys = {
        "base_tokens": "base_image_seq_len",
        "max_tokens": "max_image_seq_len",
        "base_shift": "base_shift",
        "max_shift": "max_shift",
        "form": "time_shift_type",
    }
    return Flow(token_shift(tokens, **{k: config[v] for k, v in keys.items() if v in config}), steps=steps)


def _table(config: Config) -> Process:
    """Return a table of betas."""
    options: dict[str, Any] = {"prediction": config.get("prediction_type", "epsilon")}
    options["zero_snr"] = bool(config.get("rescale_betas_zero_snr", False))
    options["snr_shift"] = config.get("snr_shift_scale", 1.0)
    if (given := config.get("trained_betas")) is not None:
        return GivenBetas(given, **options)
    options["steps"] = config.get("num_train_timesteps", 1000)
    if "beta_schedule" not in config:
        raise ParameterError(
            f"this config of {config.get('_class_name', 'no _class_name')!r} has no beta_schedule, "
            "trained_betas or flow shift; kdiff does not know its process"
        )
    shape = config["beta_schedule"]
    if shape in _SHAPES:
        return _SHAPES[shape](**options)
    if shape not in _RAMPS:
        known = [*_RAMPS, *_SHAPES]
        close = nearest(str(shape), known, 1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ParameterError(f"beta_schedule={shape!r}: {hint}there are {quoted(known)}")
    if missing := [key for key in ("beta_start", "beta_end") if key not in config]:
        raise ParameterError(f"beta_schedule={shape!r} needs {quoted(missing)}, which this config lacks")
    ends = {key: config[key] for key in ("beta_start", "beta_end")}
    return _RAMPS[shape](**ends, **options)


def _edm(config: Config) -> Process:
    return LogUniform(config.get("sigma_min", 0.002), config.get("sigma_max", 80.0), prediction=_says(config))


def _cosine(config: Config) -> Process:
    low, high = config.get("sigma_min", 0.3), config.get("sigma_max", 500.0)
    return Tangent(low, high, config.get("sigma_data", 1.0), prediction=_says(config))


def _cascade(config: Config) -> Process:
    # Its scaler stands in the exponent of the time; only 1 is in use.
    if config.get("scaler", 1.0) != 1.0:
        raise ParameterError(f"scaler={config['scaler']}: kdiff knows Würstchen's process with scaler 1 only")
    return StableCascade(offset=config.get("s", 0.008))


def _ve(config: Config) -> Process:
    return LogUniform(
        config.get("sigma_min", 0.01), config.get("sigma_max", 1348.0), prediction=_says(config)
    )


def _trigflow(config: Config) -> Process:
    data = config.get("sigma_data", 0.5)
    return Tangent(0.002, 80.0, data, prediction=config.get("prediction_type", "trigflow"))


def _says(config: Config) -> str:
    return str(config.get("prediction_type", "epsilon"))


_CONTINUOUS: dict[str, Callable[[Config], Process]] = {
    "EDMEulerScheduler": _edm,
    "EDMDPMSolverMultistepScheduler": _edm,
    "CosineDPMSolverMultistepScheduler": _cosine,
    "DDPMWuerstchenScheduler": _cascade,
    "ScoreSdeVeScheduler": _ve,
    "SCMScheduler": _trigflow,
}
