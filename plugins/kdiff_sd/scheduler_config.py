"""What a diffusers scheduler's config says: its noise process, its levels, its timesteps.

diffusers itself is not needed. Keys are those of diffusers' ``scheduler_config.json``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kdiff_core.errors import CapabilityError, ParameterError
from kdiff_core.grid import Grid
from kdiff_core.lookup import get_process, get_schedule, parse_label
from kdiff_core.names import quoted
from kdiff_core.protocols import Process

Config = Mapping[str, Any]

# Set beside it, a flag has its own schedule spend the range of levels that the spacing gives.
_FLAGS = {
    "use_karras_sigmas": "karras",
    "use_exponential_sigmas": "exponential",
    "use_beta_sigmas": "diffusers:beta",
    "use_lu_lambdas": "logsnr",
}
# Whose own rule of ``timestep_spacing`` a config with such a key has; diffusers' Euler's otherwise.
_RULES = {
    "dpm": ("solver_order", "predictor_order"),
    "ddim": ("set_alpha_to_one", "variance_type", "skip_prk_steps"),
}
_PREDICTIONS = ("epsilon", "v_prediction", "sample", "flow_prediction")


def process_of(config: Config, mu: float | None = None) -> Process:
    """Return the noise process that a config describes.

    Args:
        config: The config. One with a ``shift`` and without betas is a flow's.
        mu: Shift of a config with ``use_dynamic_shifting``; not looked at in others.

    Raises:
        ParameterError: `mu` is missing, or kdiff does not know the process.
        CapabilityError: The config asks for what cannot be driven from outside.
    """
    if asked := [key for key in ("invert_sigmas", "thresholding") if config.get(key)]:
        raise CapabilityError(f"this scheduler's config has {quoted(asked)}, which KDiffScheduler cannot do")
    if is_continuous(config):
        return _known(continuous_process(config))
    named = {**config, "_class_name": "FlowMatch" if is_flow(config) else ""}
    if config.get("use_dynamic_shifting"):
        shift = _dynamic_shift(config, mu)
        named |= {"use_dynamic_shifting": False, "shift": shift, "flow_shift": shift}
    process: Process = get_process("diffusers", config=named)
    if process.path == "ve" and not hasattr(process, "levels"):
        raise CapabilityError(
            f"{process}: its models are not told a timestep of a table; KDiffScheduler drives models of eps, "
            "v and x0 with betas, and rectified flows"
        )
    return _known(process)


def _known(process: Any) -> Process:
    if process.prediction not in _PREDICTIONS:
        raise CapabilityError(f"prediction_type={process.prediction!r}: there are {quoted(_PREDICTIONS)}")
    found: Process = process
    return found


def _dynamic_shift(config: Config, mu: float | None) -> float:
    if mu is None:
        raise ParameterError("the config has use_dynamic_shifting: set_timesteps needs mu=")
    return math.exp(mu) if config.get("time_shift_type", "exponential") == "exponential" else float(mu)


def is_flow(config: Config) -> bool:
    """Whether it is the config of a flow's own scheduler."""
    return "shift" in config and "beta_schedule" not in config


def is_continuous(config: Config) -> bool:
    """Whether the model is told ``log(sigma) / 4``, as Stable Video Diffusion is."""
    return config.get("timestep_type") == "continuous" and config.get("prediction_type") == "v_prediction"


def continuous_process(config: Config) -> Process:
    """Return the noise process of such a model."""
    ends = {"sigma_min": config.get("sigma_min") or 0.002, "sigma_max": config.get("sigma_max") or 700.0}
    process: Process = get_process("edm", prediction="v_prediction", **ends)
    return process


def grid_of(
    config: Config,
    process: Process,
    schedule: Any,
    steps: int | None,
    timesteps: Sequence[Any] | None,
    sigmas: Sequence[Any] | None,
) -> Grid:
    """Return the levels of a run; see `kdiff_sd.diffusers.KDiffScheduler.set_timesteps`.

    Args:
        config: The config.
        process: Its process.
        schedule: What spends a number of steps. None: the config itself.
        steps: Number of steps, or
        timesteps: what the model shall be told, or
        sigmas: levels, as a pipeline hands them over.

    Raises:
        ParameterError: Not one of the three is given.
        GridError: Levels that do not fall.
    """
    if sum(way is not None for way in (steps, timesteps, sigmas)) != 1:
        raise ParameterError("set_timesteps: give one of num_inference_steps, timesteps and sigmas")
    named = schedule is not None and process.path == "flow"
    if named and sigmas is not None and is_plain_line(sigmas):
        steps = len(sigmas)
    if steps is not None:
        grid: Grid = spaced(config, process, steps) if schedule is None else schedule(steps, process=process)
        return grid
    if sigmas is not None:
        return from_sigmas(config, process, sigmas)
    assert timesteps is not None
    return Grid.of([*(level_of(config, process, float(t)) for t in timesteps), 0.0])


def spaced(config: Config, process: Process, n: int) -> Grid:
    """Return the levels of `n` steps that the config itself asks for, as diffusers computes them.

    Read are ``timestep_spacing``, ``steps_offset``, ``shift_terminal`` and the flags such as
    ``use_karras_sigmas``. The last level is 0.
    """
    grid: Grid
    if config.get("use_flow_sigmas"):
        grid = _stretched(config, _flow_line(config, process, n))
    elif process.path == "flow":
        line = "uniform" if config.get("use_dynamic_shifting") else "diffusers:flow_linspace"
        grid = _stretched(config, get_schedule(line)(n, process=process))
    elif is_continuous(config):
        grid = get_schedule("exponential")(n, process=process)
    else:
        grid = _by_timestep(config)(n, process=process)
    return _flagged(config, process, grid)


def _flow_line(config: Config, process: Process, n: int) -> Grid:
    """Return the levels of a solver that diffusers wrote for betas and made one for flow by a flag."""
    shift: Any = process
    lowest = 1 / _steps(config)
    if "predict_x0" in config:  # UniPC: from 1, which it keeps off the end of the log-SNR
        line = [1 - (1 - lowest) * i / n for i in range(n)]
        top = 1 - 1e-6
    else:
        line = [(1 - lowest) * (1 - i / n) for i in range(n)]
        top = 1.0
    return Grid.of([*(min(shift.level(level), top) for level in line), 0.0])


def _flagged(config: Config, process: Process, grid: Grid) -> Grid:
    """Return the levels of the schedule of a flag, between those of a grid that are above 0.

    Raises:
        CapabilityError: A solver that was made one for flow has a flag.
    """
    flag, named = next(((key, value) for key, value in _FLAGS.items() if config.get(key)), (None, None))
    if flag is not None and config.get("use_flow_sigmas"):
        raise CapabilityError(
            f"the config has 'use_flow_sigmas' and {flag!r}: diffusers then takes levels of betas, which a "
            f'flow does not have; name a schedule, from_config(config, {flag}=False, schedule="karras")'
        )
    if named is None or grid.steps == 1:
        return grid
    low, high = grid[-2], grid[0]
    if process.path == "ve":
        if _rule(config) == "dpm":
            low, high = process.sigma_min, process.sigma_max
        low, high = config.get("sigma_min") or low, config.get("sigma_max") or high
    found: Grid = get_schedule(named)(grid.steps, sigma_min=low, sigma_max=high, process=process)
    return found


def _by_timestep(config: Config) -> Any:
    spacing = config.get("timestep_spacing") or "linspace"
    offset = {"steps_offset": config.get("steps_offset") or 0} if spacing == "leading" else {}
    return get_schedule(f"diffusers:{spacing}", rule=_rule(config), **offset)


def _rule(config: Config) -> str:
    return next((rule for rule, keys in _RULES.items() if any(key in config for key in keys)), "euler")


def _stretched(config: Config, grid: Grid) -> Grid:
    """Stretch ``1 - sigma`` so that the lowest level above 0 is ``shift_terminal``."""
    terminal = config.get("shift_terminal")
    if not terminal or grid[-2] == 1:
        return grid
    scale = (1 - terminal) / (1 - grid[-2])
    return Grid.of([*(1 - (1 - level) * scale for level in grid[:-1]), 0.0])


def from_sigmas(config: Config, process: Process, sigmas: Iterable[Any]) -> Grid:
    """Return the levels of a list that a pipeline hands over.

    On flow it is not shifted yet, and the 0 behind it may be missing; elsewhere it is the levels themselves.

    Raises:
        GridError: The levels do not fall.
    """
    levels = [float(sigma) for sigma in sigmas]
    if process.path == "ve":
        return Grid.of(levels)
    shift: Any = process
    shifted = [min(shift.level(level), 1.0) for level in levels if level > 0]
    return _flagged(config, process, _stretched(config, Grid.of([*shifted, 0.0])))


def is_plain_line(sigmas: Sequence[Any]) -> bool:
    """Whether levels are ``1, 1 - 1/n, ..., 1/n``: what flow pipelines send where the user gave none."""
    n = len(sigmas)
    return all(abs(float(sigma) - (1 - i / n)) < 1e-5 for i, sigma in enumerate(sigmas))


def timestep_of(config: Config, process: Process, sigma: float) -> float:
    """Return what the model is told at a level: its place in the table, ``1000 sigma`` on flow."""
    if process.path == "flow":
        return sigma * _steps(config)
    if is_continuous(config):
        return math.log(sigma) / 4
    table: Any = process
    return float(min(max(table.timestep(sigma), 0.0), table.steps - 1))


def _steps(config: Config) -> int:
    return int(config.get("num_train_timesteps", 1000))


def level_of(config: Config, process: Process, timestep: float) -> float:
    """Return the level of a timestep, the inverse of `timestep_of`."""
    if process.path == "flow":
        return timestep / _steps(config)
    if is_continuous(config):
        return math.exp(4 * timestep)
    table: Any = process
    return float(table.sigma(timestep / (table.steps - 1)))


def names(sampler: Any, schedule: Any) -> tuple[str, str | None]:
    """Return the names of sampler and schedule, one of which may be in the other's label.

    Raises:
        ParameterError: They are no names, or two schedules are named.
        UnknownNameError: There is no such sampler.
    """
    if not isinstance(sampler, str) or not isinstance(schedule, str | None):
        raise ParameterError(
            f"sampler={sampler!r:.40}, schedule={schedule!r:.40}: a config holds names; parameters go into "
            "sampler_options and schedule_options"
        )
    name, inside = parse_label(sampler)
    if inside is not None and schedule is not None:
        raise ParameterError(f"sampler={sampler!r} names a schedule, and another is given; give one of them")
    return name, schedule if inside is None else inside


def options(name: str, options: Any) -> dict[str, Any]:
    """Return options as a dict that JSON can hold.

    Raises:
        ParameterError: They are none.
    """
    try:
        found: dict[str, Any] = json.loads(json.dumps(dict(options or {})))
    except (TypeError, ValueError) as error:
        raise ParameterError(f"{name}={options!r:.60}: give a dict of numbers, strings and lists") from error
    return found
