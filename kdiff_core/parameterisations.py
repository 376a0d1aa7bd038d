"""Networks that predict something else than the data, as denoisers: eps, v, flow, EDM and others."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from attrs import field, frozen
from torch import Tensor

from .errors import DenoiserError, ParameterError
from .known_levels import RunLevels, known, transforming
from .lookup import get_process
from .names import did_you_mean, quoted
from .predictions import (
    ALIASES,
    INPUTS,
    PREDICTIONS,
    TIMES,
    Level,
    Prediction,
    Weights,
    table_place,
)  # fmt: skip
from .protocols import PathName, Process
from .state import wide


def _to_process(process: Process | str | None) -> Process:
    # None is replaced when the denoiser is made.
    return None if process is None else get_process(process)  # type: ignore[return-value]


class Factors(NamedTuple):
    """What each sample's level is to a network.

    Attributes:
        c_in: Factor of its input, ``(B, 1, ...)``.
        time: What it is told, ``(B,)``.
        c_skip: Weight of the state, ``(B, 1, ...)``.
        c_out: Weight of its output, ``(B, 1, ...)``, with the sign.
    """

    c_in: Tensor
    time: Tensor
    c_skip: Tensor
    c_out: Tensor


@frozen(eq=False)
class Parameterised:
    """A denoiser made of a network ``network(c_in x, time, **cond)``.

    Weights and time are computed in float64 on the device of the levels; in a run of a plan once for all of
    its levels, unless `prediction` or `time` is a function. The network gets its input in its own dtype; the
    time, which half precision would round to other timesteps, in float32 at least.

    Args:
        network: A module, or any function of a state ``(B, ...)``, a time ``(B,)`` and conditions by name.
        prediction: What its output is, a name in `PREDICTIONS` ("eps", "v", "x0" and "flow" are short), or a
            function of a `Level` that returns the weights. Default: what the process says.
        process: What it was trained on, a noise process or its name. Default: the prediction's usual one.
        negated: Whether the output has the other sign, as ``x0 - noise`` of a flow.
        quantised: Whether the timestep is rounded to the table's nearest entry, an int64.
        learned_variance: Whether the second half of the output's channels is no part of the prediction
            (Nichol & Dhariwal 2021, arXiv:2102.09672); see `variance`.
        sigma_data: Standard deviation of the data, above 0. Default: the prediction's.
        input: Name of ``c_in`` in `INPUTS`. Default: the prediction's.
        time: Name in `TIMES`, or a function of a `Level`. Default: the prediction's.
        time_scale: Factor of the time. Default: the prediction's.
        time_dtype: Dtype of the time.
        dtype: Dtype of the network. Default: that of its first floating-point parameter, or the state's.
        about: Other attributes of a `kdiff_core.Denoiser`, such as ``sample_shape``, by name.

    Raises:
        ParameterError: An unknown name, no process, or a prediction that means nothing on the process.
    """

    network: Callable[..., Any]
    prediction: str | Weights = field(default=None)  # replaced when made, like the other None
    process: Process = field(default=None, converter=_to_process, kw_only=True)
    negated: bool = field(default=False, kw_only=True)
    quantised: bool = field(default=False, kw_only=True)
    learned_variance: bool = field(default=False, kw_only=True)
    sigma_data: float = field(default=None, kw_only=True)
    input: str = field(default=None, kw_only=True)
    time: str | Callable[[Level], Tensor] = field(default=None, kw_only=True)
    time_scale: float = field(default=None, kw_only=True)
    time_dtype: torch.dtype | None = field(default=None, kw_only=True)
    _dtype: torch.dtype | None = field(default=None, kw_only=True)
    about: Mapping[str, Any] = field(factory=dict, kw_only=True)
    _weights: Weights = field(init=False, repr=False)
    _tables: dict[torch.device, Tensor] = field(factory=dict, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        if not callable(self.network):
            raise ParameterError(f"Parameterised: network={self.network!r:.40} cannot be called")
        process: Process | None = self.process
        name = getattr(process, "prediction", None) if self.prediction is None else self.prediction
        if name is None:
            raise ParameterError("Parameterised: prediction= is needed: what the network's output is")
        name = ALIASES.get(name, name) if isinstance(name, str) else name
        usual = Prediction(name) if callable(name) else _known("prediction", name, PREDICTIONS)
        if process is None and usual.process is None:
            raise ParameterError("Parameterised: process= is needed: what it was trained on, such as 'sd'")
        process = get_process(usual.process) if process is None else process
        found = {"prediction": name, "process": process, "_weights": usual.weights}
        usually = {
            "input": usual.input or ("vp" if process.path == "ve" else "state"),
            "time": usual.time,
            "time_scale": usual.time_scale,
            "sigma_data": usual.data,
        }
        found |= {each: value for each, value in usually.items() if getattr(self, each) is None}
        for each, value in found.items():
            object.__setattr__(self, each, value)
        self._check()

    def _check(self) -> None:
        _known("input", self.input, INPUTS)
        if not callable(self.time):
            _known("time", self.time, TIMES)
        if not 0 < self.sigma_data < math.inf:
            raise ParameterError(f"Parameterised: sigma_data={self.sigma_data} must be finite and above 0")
        ends = self.level(torch.tensor([self.sigma_min, self.sigma_max], dtype=torch.float64))
        numbers = torch.stack([*self._weights(ends), INPUTS[self.input](ends), self._time(ends, None)])
        if not bool(numbers.isfinite().all()):
            raise ParameterError(
                f"Parameterised: prediction {self.prediction!r} means nothing at an end of {self.process}, "
                "as of noise alone at sigma = 1 on flow; use one that does, as 'v_prediction'"
            )

    @property
    def path(self) -> PathName:
        """The process's noise path."""
        return self.process.path

    @property
    def sigma_min(self) -> float:
        """The process's lowest level."""
        return self.process.sigma_min

    @property
    def sigma_max(self) -> float:
        """The process's highest level."""
        return self.process.sigma_max

    @property
    def dtype(self) -> torch.dtype | None:
        """What the network computes in, if it says."""
        if self._dtype is None:
            return next((p.dtype for p in self.parameters() if p.is_floating_point()), None)
        return self._dtype

    def parameters(self) -> Iterator[Tensor]:
        """The network's parameters; a plain function has none."""
        found = getattr(self.network, "parameters", None)
        return iter(found()) if callable(found) else iter(())

    def to(self, device: Any) -> Parameterised:
        """Move the network to a device, in place, unless it is a plain function; return the denoiser."""
        move = getattr(self.network, "to", None)
        if callable(move):
            move(device)
        return self

    def __call__(self, x: Tensor, sigma: Tensor, **cond: Any) -> Tensor:
        """Return the denoised state.

        Args:
            x: State, ``(B, ...)``.
            sigma: Noise level of each sample, ``(B,)``.
            **cond: Conditions, which the network gets by name.

        Raises:
            DenoiserError: The network returned something other than a tensor of the state's shape.
        """
        factors, output = self._raw(x, sigma, cond)
        if self.learned_variance:
            output = self._halves(x, output)[0]
        if output.shape != x.shape:
            raise DenoiserError(
                f"the network returned the shape {tuple(output.shape)} for a state {tuple(x.shape)}"
                + ("; is it learned_variance=True?" if output.shape[1:2] == (2 * x.shape[1],) else "")
            )
        state = x.to(factors.c_skip.dtype)
        return torch.addcmul(factors.c_skip * state, factors.c_out, output.to(state)).to(x.dtype)

    def variance(self, x: Tensor, sigma: Tensor, **cond: Any) -> Tensor:
        """Return the channels of the network's output that are no prediction, ``(B, C, ...)``, as they are.

        Of a learned range they say where between its bounds the log-variance of a step is, from -1 to 1
        (Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 15, there from 0 to 1).

        Args:
            x: State, ``(B, C, ...)``.
            sigma: Noise level of each sample, ``(B,)``.
            **cond: Conditions.

        Raises:
            ParameterError: It has no such channels.
        """
        if not self.learned_variance:
            raise ParameterError("Parameterised: the network has no variance; learned_variance is False")
        return self._halves(x, self._raw(x, sigma, cond)[1])[1]

    def level(self, sigma: Tensor) -> Level:
        """Return the level of each sample, ``(B,)``, in float64 (float32 where the device has none)."""
        exact = sigma.to(torch.float32 if sigma.device.type == "mps" else torch.float64)
        alpha = torch.ones_like(exact) if self.path == "ve" else 1 - exact
        return Level(alpha, exact, self.sigma_data, lambda: self._timestep(exact))

    def times(self, sigma: Tensor) -> Tensor:
        """Return what conditions the network at levels ``(B,)``."""
        return self._time(self.level(sigma), None)

    def _time(self, level: Level, dtype: torch.dtype | None) -> Tensor:
        time = self.time(level) if callable(self.time) else TIMES[self.time](level)
        if self.time_dtype is None and self.quantised and self.time == "timestep" and self.time_scale == 1:
            return time.long()
        exact = torch.float64 if (dtype or self.dtype) == torch.float64 else torch.float32
        return (time * self.time_scale).to(self.time_dtype or exact)

    def _factors(self, x: Tensor, sigma: Tensor, dtype: torch.dtype) -> Factors:
        """Return the factors at each sample's level: those of the run's levels, if it is one of them."""
        found = None if callable(self.time) or callable(self.prediction) else known(sigma)
        if found is None:
            return self._computed(x, self.level(sigma), dtype)
        key = (self, len(sigma), x.ndim, wide(x), dtype)
        if key not in found.run.kept:
            found.run.kept[key] = self._of_run(x, found.run, len(sigma), dtype)
        factors: Factors = found.run.kept[key][found.evaluation]
        return factors._replace(time=factors.time.clone())  # a network may write to it

    def _of_run(self, x: Tensor, run: RunLevels, size: int, dtype: torch.dtype) -> list[Factors]:
        """Return the factors at each level of a run, for a batch."""
        with torch.inference_mode(False):  # later calls may record gradients
            levels = self.level(run.values().repeat_interleave(size))
            columns = [torch.split(each, size) for each in self._computed(x, levels, dtype)]
        return [Factors(*row) for row in zip(*columns, strict=True)]

    def _computed(self, x: Tensor, level: Level, dtype: torch.dtype) -> Factors:
        """Return the factors at levels, for states like `x` and a network of a dtype."""
        c_skip, c_out = (_beside(weight, x) for weight in self._weights(level))
        c_in, time = _beside(INPUTS[self.input](level), x), self._time(level, dtype)
        return Factors(c_in, time, c_skip, -c_out if self.negated else c_out)

    def _raw(self, x: Tensor, sigma: Tensor, cond: Mapping[str, Any]) -> tuple[Factors, Tensor]:
        """Return the factors and the network's whole output."""
        dtype = self.dtype or x.dtype
        factors = self._factors(x, sigma, dtype)
        output = self.network((x * factors.c_in).to(dtype), factors.time, **cond)
        if not isinstance(output, Tensor):
            raise DenoiserError(
                f"the network returned a {type(output).__name__}, no tensor; give a function that takes the "
                "tensor out of it"
            )
        return factors, output

    def _halves(self, x: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
        """Return the prediction and the variance of an output."""
        if x.ndim < 2 or output.shape[1:2] != (2 * x.shape[1],):
            raise DenoiserError(
                f"learned_variance: the network returned the shape {tuple(output.shape)} for a state "
                f"{tuple(x.shape)}; needed are twice its channels"
            )
        prediction, variance = output.chunk(2, 1)
        return prediction, variance

    def _timestep(self, sigma: Tensor) -> Tensor:
        """Return the place of each level in the process's table, within it."""
        levels = getattr(self.process, "levels", None)
        if levels is None:
            last = getattr(self.process, "steps", 1000) - 1
            place = sigma.new_tensor([self.process.t(v) * last for v in sigma.tolist()]).clamp(0, last)
        else:
            table = self._tables.get(sigma.device)
            if table is None:
                table = torch.tensor(levels, dtype=torch.float64).log().to(sigma)
                # Kept, unless it is of a function that is transformed, or has no values (a FakeTensor).
                if torch.compiler.is_compiling() or (type(table) is Tensor and not transforming()):
                    self._tables[sigma.device] = table
            place = table_place(sigma, table)
        return place.round() if self.quantised else place

    def __getattr__(self, name: str) -> Any:
        """Find other attributes in `about`."""
        if name.startswith("_") or name == "about" or name not in self.about:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return self.about[name]


def _known(kind: str, name: Any, names: Mapping[str, Any]) -> Any:
    """Return what a name stands for.

    Raises:
        ParameterError: Nothing.
    """
    if name not in names:
        raise ParameterError(
            f"Parameterised: {kind}={name!r}: there are {quoted(names)}{did_you_mean(name, names)}"
        )
    return names[name]


def _beside(weight: Tensor, x: Tensor) -> Tensor:
    """Return a weight for each sample, ``(B, 1, ...)``, in the state's dtype, float32 for half precision."""
    return weight.to(wide(x)).reshape(-1, *[1] * (x.ndim - 1))
