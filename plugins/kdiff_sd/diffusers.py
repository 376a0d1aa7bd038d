"""`KDiffScheduler`: kdiff's samplers and schedules as a scheduler of diffusers' pipelines.

::

    from kdiff_sd.diffusers import KDiffScheduler

    pipe.scheduler = KDiffScheduler.from_config(pipe.scheduler.config, sampler="dpmpp_2m", schedule="karras")

This module needs diffusers. Pipelines find `SchedulerMixin` in it when they are loaded again.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils import BaseOutput
from torch import Tensor

from kdiff_core.errors import ParameterError
from kdiff_core.lookup import get_sampler, get_schedule
from kdiff_core.noise import KeyedNoise
from kdiff_core.state import wide
from kdiff_core.stepper import Mark, Stepper

from . import driven, scheduler_config
from .host_state import as_planned, denoise, factors, levels_of, scale_of


@dataclass
class KDiffSchedulerOutput(BaseOutput):
    """What `KDiffScheduler.step` returns.

    Attributes:
        prev_sample: State for the next model call, or the final one.
        pred_original_sample: The model's estimate of the data.
    """

    prev_sample: Tensor
    pred_original_sample: Tensor


class KDiffScheduler(SchedulerMixin, ConfigMixin):
    """Any sampler that can be traced, on any schedule, for any pipeline that calls ``scheduler.step``.

    Make one from a pipeline's own scheduler config, which says what the model was trained on and what its
    output is. States are what DDIM's are: ``(x0 + sigma noise) / sqrt(1 + sigma^2)`` for eps, v and x0
    models, so that `scale_model_input` has nothing to do, and ``(1 - sigma) x0 + sigma noise`` for flow.
    Between the steps they are kept in float32 or better, whatever the pipeline's dtype.

    Args:
        num_train_timesteps: Length of the table that the model was trained on; the config's.
        sampler: Name of a sampler, or a label that names a schedule too ("DPM++ 2M Karras").
        schedule: Name of a schedule. Default: the label's, else what the config asks for itself.
        sampler_options: Parameters of the sampler.
        schedule_options: Parameters of the schedule.
        quantised: Whether the model is told the nearest whole timestep, as an int64.
        initial_noise: Standard deviation of the first state: "unit" is 1 as in DDIM, "sigma" is
            ``sigma / sqrt(1 + sigma^2)`` as in `kdiff_core.start` and in diffusers' Euler with linspace.
        seed: Seed of the steps' noise in pipelines that hand over no generator. Default: a hash of each
            sample's first state, so that equal first states give equal images.

    Raises:
        ParameterError: A parameter that is none, or that JSON cannot hold.
        UnknownNameError: No plugin offers the sampler or the schedule.
        CapabilityError: The sampler cannot be driven from outside: it chooses its steps as it goes, or needs
            more than the guided output.
    """

    _compatibles: list[str] = []
    order = 1
    _handed: Mark

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        sampler: str = "dpmpp_2m",
        schedule: str | None = None,
        sampler_options: dict[str, Any] | None = None,
        schedule_options: dict[str, Any] | None = None,
        quantised: bool = False,
        initial_noise: str = "unit",
        seed: int | None = None,
    ) -> None:
        if initial_noise not in ("unit", "sigma"):
            raise ParameterError(f"initial_noise={initial_noise!r}: it is 'unit' or 'sigma'")
        name, schedule = scheduler_config.names(sampler, schedule)
        if schedule is None and schedule_options:
            raise ParameterError("schedule_options are given, and no schedule")
        self._sampler = get_sampler(name, **scheduler_config.options("sampler_options", sampler_options))
        driven.check_driven(self._sampler)
        options = scheduler_config.options("schedule_options", schedule_options)
        self._schedule = None if schedule is None else get_schedule(schedule, **options)
        if seed is not None:
            KeyedNoise(seed)  # refuses what is no seed
        self.timesteps = torch.arange(num_train_timesteps - 1, -1, -1)
        self._run: driven.Planned | None = None
        self._reset()

    def _reset(self) -> None:
        self._stepper: Stepper | None = None
        self._begin_index: int | None = None
        self._step_index: int | None = None

    @classmethod
    def from_config(cls, config: Any = None, return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """Make a scheduler from another one's config.

        Args:
            config: The config, such as ``pipe.scheduler.config``. Keys that are not this class's are kept.
            return_unused_kwargs: As in diffusers.
            **kwargs: Parameters of this class, or new values of keys that the config has.

        Raises:
            ParameterError: A key that is neither.
        """
        if not isinstance(config, Mapping):
            raise ParameterError(f"config={config!r:.60}: give a scheduler's config, a mapping")
        own = set(inspect.signature(cls.__init__).parameters) - {"self"}
        if unknown := sorted(set(kwargs) - own - set(config)):
            raise ParameterError(f"from_config: {unknown} are no parameters of {cls.__name__} or its config")
        for name in {"sampler", "schedule"} & set(kwargs):  # options belong to what they were given for
            kwargs.setdefault(f"{name}_options", None)
        merged = {**config, **kwargs}
        model = super().from_config({key: merged[key] for key in own & set(merged)})
        others = {key: value for key, value in merged.items() if key not in own and not key.startswith("_")}
        # What another class is made from again: what it did not choose stays its default.
        unset = set(config.get("_use_default_values", ())) - set(kwargs)
        model.register_to_config(**others, _use_default_values=sorted(unset - own))
        return (model, {}) if return_unused_kwargs else model

    # -- what a run will do

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
    ) -> None:
        """Plan a run; whatever was running is forgotten. Give one of the first three ways.

        Args:
            num_inference_steps: Number of steps.
            device: Where `timesteps` shall be.
            timesteps: Timesteps of the steps, then comes level 0; not shifted.
            sigmas: Levels, with the last; on flow before the shift, and without the 0. The line ``1, ...,
                1/n`` that flow pipelines send by themselves stands for `n` steps of a named schedule.
            mu: Shift of a config with ``use_dynamic_shifting``.

        Raises:
            ParameterError: Not one of the three, or `mu` is missing.
            GridError: Levels that do not fall.
        """
        config, process = self.config, scheduler_config.process_of(self.config, mu)
        asked = num_inference_steps, timesteps, sigmas
        grid = scheduler_config.grid_of(config, process, self._schedule, *asked)
        self._run = driven.Planned.of(self._sampler, grid, process)
        self._reset()
        self.num_inference_steps = grid.steps
        self.order = self._run.calls_a_step
        levels = [float(level) for level in self._run.plan.evaluation_sigmas]
        self.sigmas = torch.tensor([*levels, self._run.plan.levels[-1]], dtype=torch.float32, device="cpu")
        exact = [scheduler_config.timestep_of(config, process, level) for level in levels]
        told = torch.tensor(exact, dtype=torch.float32, device="cpu")
        self._told = told.round().long() if config.quantised else told
        self.timesteps = self._told.to(device)

    @property
    def init_noise_sigma(self) -> float:
        """Standard deviation of the first state of a run, by which pipelines multiply unit noise."""
        process = self._process_now()
        if process.path == "ve" and self.config.initial_noise == "unit":
            return 1.0
        level = process.sigma_max if self._run is None else float(self.sigmas[0])
        return float(level * scale_of(process, level))

    @property
    def step_index(self) -> int | None:
        """Number of the next model call among `timesteps`; None before the first."""
        return self._step_index

    @property
    def begin_index(self) -> int | None:
        """Number of the model call that the run begins with, if the pipeline said."""
        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Begin the run with another model call than the first: image to image.

        Raises:
            ParameterError: There is no such call, or `set_timesteps` was not called.
            CapabilityError: No run of the sampler can begin there; see `kdiff_sd.driven.Planned.tail`.
        """
        self._planned().tail(begin_index)
        self._begin_index = begin_index

    def _planned(self) -> driven.Planned:
        if self._run is None:
            raise ParameterError("call set_timesteps before step or set_begin_index")
        return self._run

    # -- the run

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """Return the sample as it is: states have the variance that the model expects."""
        return sample

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> KDiffSchedulerOutput | tuple[Tensor, Tensor]:
        """Take the model's output and go on to the next model call.

        Args:
            model_output: The output, like `sample`; with a learned variance twice its channels.
            timestep: What the model was told; looked at only where a run begins without `set_begin_index`.
            sample: The state, as the last step returned it or as the pipeline changed it.
            generator: Generator of the noise, or one for each sample. Default: see `seed`.
            return_dict: Whether to return an object and not a tuple of its two tensors.

        Raises:
            ParameterError: `set_timesteps` was not called, or no run begins here, or this one is at its end.
            NonFiniteError: An output with NaN or infinite values.
        """
        stepper = self._stepper or self._start(timestep, sample, generator)
        process = self._planned().process
        if stepper.done:
            raise ParameterError("this run is at its end; call set_timesteps for another one")
        self._noise.use(generator)
        same, scale = self._handed.unchanged(sample), scale_of(process, stepper.sigma)
        edited = None if same else sample.to(stepper.x.dtype) / scale
        x = stepper.x if edited is None else edited
        denoised = denoise(self.config, process, model_output, x, stepper.sigma)
        after = stepper.step(denoised, edited) * scale_of(process, stepper.sigma)
        previous = after.to(sample.dtype)
        self._handed = Mark.of(previous)
        self._step_index = (self._step_index or 0) + 1
        pair = previous, denoised.to(sample.dtype)
        return KDiffSchedulerOutput(*pair) if return_dict else pair

    def _start(self, timestep: Any, sample: Tensor, generator: Any) -> Stepper:
        """Begin the run with the state that the model was given."""
        run, call = self._planned(), self._begin_index
        if call is None:
            call = run.call_told(self._told.tolist(), float(timestep))
        plan, place = run.tail(call)
        seed = self.config.seed
        self._noise = driven.HostNoise(KeyedNoise(driven.seeds_of(sample) if seed is None else seed))
        self._noise.use(generator)  # a sampler may draw before it has the first output
        state = sample.to(wide(sample)) / scale_of(run.process, plan.evaluation_sigmas[place])
        stepper = self._stepper = driven.begin(plan, place, state, self._noise)
        self._handed, self._step_index = Mark.of(sample), call
        return stepper

    # -- noise on data, for image to image, inpainting and training

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return data with noise at the levels of timesteps ``(B,)``; works before `set_timesteps` too."""
        alpha, sigma = self._factors(timesteps, original_samples)
        return alpha * original_samples + sigma * noise.to(original_samples)

    def scale_noise(self, sample: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        """`add_noise` as flow pipelines call it."""
        return self.add_noise(sample, noise, timestep)

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return what a v model learns to predict, ``alpha noise - sigma x0``; on flow ``noise - x0``."""
        if self._process_now().path == "flow":
            return noise - sample
        alpha, sigma = self._factors(timesteps, sample)
        return alpha * noise.to(sample) - sigma * sample

    def _factors(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the factors of data and noise in a state at timesteps, each ``(B, 1, ...)``."""
        process = self._process_now()
        sigma = levels_of(self.config, process, timesteps, like)
        if self._run is not None:
            sigma = as_planned(sigma, timesteps, self._told, self.sigmas)
        return factors(process, sigma, like)

    def _process_now(self) -> Any:
        """Return the process of the run, or before one that of the config; levels do not depend on mu."""
        return scheduler_config.process_of(self.config, 1.0) if self._run is None else self._run.process

    def __len__(self) -> int:
        """Return the number of timesteps that the model was trained on."""
        return int(self.config.num_train_timesteps)
