"""What a plugin implements: `Denoiser`, `Schedule`, `Process`, `Sampler`, `NoiseSource`.

Shapes: `B` is the batch size; a state has the shape ``(B, ...)``, or is a nest (dict, list, tuple,
dataclass) of such tensors with one `B`. Noise levels `sigma` are the standard deviation of the noise
in a state ``x = alpha(sigma) * x0 + sigma * noise``; they are dimensionless, in units of the data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch

    from .grid import Grid
    from .plans import Plan

PathName = Literal["ve", "flow"]


@runtime_checkable
class Denoiser(Protocol):
    """Estimates the clean data ``E[x0 | x]`` of a noisy state.

    A plain function is a denoiser on the VE path. Optional attributes say more: ``path`` (``"ve"`` or
    ``"flow"``); ``process`` (the `Process` it was trained on, which then gives schedules their range);
    ``sigma_min``, ``sigma_max`` (the levels it was made for, where it has no process); ``sample_shape``
    (a sample's shape without `B`); ``value_range`` (the data's lowest and highest value); ``classes``
    (their number; the condition is then ``label``, a ``(B,)`` int64 tensor with -1 for "any");
    ``class_names`` (a name for each class); ``data_sha256`` and ``replay_options`` (a hash of what it was
    made from, and options in place of those it was made with, such as an absolute path: what a manifest
    records). A guided denoiser also has ``predict(x, sigma, **cond)``, whose result has ``.denoised``
    (guided), ``.cond`` and ``.uncond``. One that can run with a part of it degraded has ``degraded(name,
    **options)``, which returns that denoiser. One that takes text has ``encode(texts)``, which returns the
    conditions, a row for each text; a text None is what guidance leads away from where nothing is said. One
    of latents has ``decode(x)``, which returns images ``(B, *decoded_shape)`` in ``value_range``, and where
    it can ``encode_image(images)``, which returns the latents of such images. For the
    conformance kit: ``batch_exact`` (a sample's output does not depend on its batch by a single bit) and
    ``dtype`` (that a network computes in).
    """

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, **cond: Any) -> torch.Tensor:
        """Return the denoised state.

        Args:
            x: State, ``(B, ...)``. Valid during the call; a denoiser that keeps it costs a fresh buffer.
            sigma: Noise level of each sample, ``(B,)``, in the device and dtype of `x`.
            **cond: Conditions, as the caller gave them.

        Returns:
            The estimate, floating point, like `x` in shape and device. Not the memory of an earlier result.
        """
        ...


@runtime_checkable
class Process(Protocol):
    """What a model was trained on: a map between its time `t` and the noise level.

    Optional attributes say more: ``steps`` (the length of the table of times it was trained on, 1000 where
    it does not say: what hosts round to); ``prediction`` (what the model's output is: "epsilon",
    "v_prediction", "sample", "flow_prediction").
    """

    @property
    def path(self) -> PathName:
        """The noise path."""
        ...

    @property
    def sigma_min(self) -> float:
        """The level at time 0, above 0."""
        ...

    @property
    def sigma_max(self) -> float:
        """The level at time 1, finite."""
        ...

    def sigma(self, t: float) -> float:
        """Noise level at time `t` in ``[0, 1]``; rises with `t`."""
        ...

    def t(self, sigma: float) -> float:
        """Time at which the noise level is `sigma`, the inverse of `sigma`."""
        ...


@runtime_checkable
class Schedule(Protocol):
    """A rule that spends `n` steps on a range of noise levels.

    It starts at the highest level and its lowest level above zero is the lowest, where there are two steps
    or more. One that starts below the highest, or stops above the lowest, by its formula says so with the
    optional attribute ``meets_max`` or ``meets_min``, false; no level is outside the range all the same. One
    whose levels are its own, whatever range it is given, says so with ``spans``, false. A law that it breaks
    by design it names in ``known_failures``, with the reason.
    """

    def __call__(
        self,
        n: int,
        *,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        process: Process | None = None,
    ) -> Grid:
        """Return exactly `n` steps: ``n + 1`` strictly decreasing levels, for every ``n >= 1``.

        Args:
            n: Number of steps, at least 1.
            sigma_min: Lowest level above zero. Default: the process's.
            sigma_max: Highest level, the first of the grid. Default: the process's.
            process: What the model was trained on.

        Raises:
            GridError: `n` below 1, or levels that are no range.
            ParameterError: The range is neither given nor known from a process.
        """
        ...


@runtime_checkable
class NoiseSource(Protocol):
    """Unit-variance noise for an interval of noise levels.

    A source whose ``brownian`` is true promises independent draws for disjoint intervals only; the core
    then asks for the pieces of overlapping intervals and combines them into increments of one path.
    """

    brownian: bool

    def noise(self, x: Any, sigma_from: float, sigma_to: float, stream: str = "step", visit: int = 0) -> Any:
        """Draw noise of unit variance.

        Args:
            x: A state; the noise has its shapes, dtypes and devices.
            sigma_from: Level at which the interval begins (the higher one, but for churn).
            sigma_to: Level at which it ends.
            stream: Name that tells independent uses of one interval apart.
            visit: How often this run has asked for the same interval before.

        Returns:
            A state like `x`, the caller's own.
        """
        ...


@runtime_checkable
class Sampler(Protocol):
    """Turns a noisy state into data along a grid of noise levels. See `StepSampler` to write one."""

    @property
    def order(self) -> int:
        """Order of one step, given exact history, on uneven steps."""
        ...

    @property
    def memory(self) -> int:
        """Number of earlier points a step reads."""
        ...

    @property
    def stochastic(self) -> bool:
        """Whether it asks for noise."""
        ...

    def __call__(self, denoiser: Denoiser, x: Any, sigmas: Any, **options: Any) -> Any:
        """Sample; see `kdiff_core.StepSampler.__call__`."""
        ...

    def plan(self, sigmas: Any, path: Any = "ve", process: Process | None = None) -> Plan:
        """What it does on a grid, as data."""
        ...


Callback = Callable[[Any], None]
