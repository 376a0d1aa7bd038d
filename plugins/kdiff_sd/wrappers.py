"""Denoisers of models as others ship them: CompVis, OpenAI, k-diffusion, EDM."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor

from kdiff_core.errors import CapabilityError, ParameterError
from kdiff_core.lookup import get_process
from kdiff_core.parameterisations import Parameterised
from kdiff_core.protocols import PathName, Process


def table_of(alphas_cumprod: Any, prediction: str = "epsilon") -> Process:
    """Return the noise process of a model's ``alphas_cumprod``, a tensor or an array ``(T,)``."""
    values = torch.as_tensor(alphas_cumprod).double().tolist()
    process: Process = get_process("alphas_cumprod", alphas_cumprod=values, prediction=prediction)
    return process


def from_compvis(model: Any, *, prediction: str | None = None, **options: Any) -> Parameterised:
    """Return the denoiser of a latent diffusion model (Rombach et al. 2021, arXiv:2112.10752).

    The condition is ``cond``, what ``get_learned_conditioning`` returns.

    Args:
        model: With ``apply_model(x, t, cond)`` and ``alphas_cumprod``.
        prediction: Default: the model's ``parameterization`` ("eps", "v" or "x0"), else "epsilon".
        **options: Of `Parameterised`.
    """
    prediction = prediction or str(getattr(model, "parameterization", "epsilon"))
    process = options.pop("process", None) or table_of(model.alphas_cumprod)
    return Parameterised(_ApplyModel(model), prediction, process=process, **options)


@frozen(eq=False)
class _ApplyModel:
    """A latent diffusion model as a network."""

    model: Any

    def __call__(self, x: Tensor, t: Tensor, cond: Any = None) -> Any:
        return self.model.apply_model(x, t, cond)

    def parameters(self) -> Iterable[Tensor]:
        return self.model.parameters() if isinstance(self.model, torch.nn.Module) else ()


def from_guided_diffusion(model: Callable[..., Any], diffusion: Any, **options: Any) -> Parameterised:
    """Return the denoiser of OpenAI's guided diffusion (Dhariwal & Nichol 2021, arXiv:2105.05233).

    Conditions, such as ``y``, go to the model by name.

    Args:
        model: ``model(x, t, **cond)``.
        diffusion: Its diffusion: ``alphas_cumprod``, and if it says so ``model_mean_type``,
            ``model_var_type`` and ``rescale_timesteps``.
        **options: Of `Parameterised`.

    Raises:
        CapabilityError: The model predicts the previous state, or the diffusion is a respaced one.
    """
    mean, variance = (_enum(diffusion, f"model_{kind}_type") for kind in ("mean", "var"))
    if mean == "PREVIOUS_X":
        raise CapabilityError("guided diffusion: a model of the previous state is not supported")
    steps = len(diffusion.alphas_cumprod)
    places = list(getattr(diffusion, "timestep_map", range(steps)))
    if places != list(range(steps)):
        raise CapabilityError(
            f"guided diffusion: its {steps} timesteps are a selection of {places[-1] + 1}; make it "
            "without timestep_respacing: a sampler of kdiff takes any number of steps"
        )
    options.setdefault("prediction", "sample" if mean == "START_X" else "epsilon")
    options.setdefault("learned_variance", variance.startswith("LEARNED"))
    if getattr(diffusion, "rescale_timesteps", False):
        options.setdefault("time_scale", 1000.0 / steps)
    process = options.pop("process", None) or table_of(diffusion.alphas_cumprod)
    return Parameterised(model, process=process, **options)


@frozen(eq=False)
class FromKDiffusion:
    """The denoiser of a k-diffusion model, ``model(x, sigma, **cond)``, whose output is the data.

    Args:
        model: The model; its ``sigmas``, ``sigma_min`` and ``sigma_max`` are used if it has them.
        process: Its noise process or its name. Default: the table of its ``sigmas``.
    """

    model: Callable[..., Tensor]
    process: Process | None = field(default=None, kw_only=True)

    path: PathName = field(default="ve", init=False)

    def __attrs_post_init__(self) -> None:
        process, sigmas = self.process, getattr(self.model, "sigmas", None)
        if process is None and isinstance(sigmas, Tensor):
            process = table_of(1 / (1 + sigmas.double() ** 2))
        object.__setattr__(self, "process", None if process is None else get_process(process))

    def __call__(self, x: Tensor, sigma: Tensor, **cond: Any) -> Tensor:
        """Return the model's output."""
        return self.model(x, sigma, **cond)

    def __getattr__(self, name: str) -> Any:
        """Find the ends of its range on the process, else on the model."""
        if name not in ("sigma_min", "sigma_max"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return float(getattr(self.model if self.process is None else self.process, name))


@frozen(eq=False)
class FromEDM:
    """The denoiser of an EDM network, ``net(x, sigma, class_labels)``, whose output is the data.

    Karras et al. 2022, arXiv:2206.00364. Its condition is ``label``, as of every denoiser with classes: -1
    is no class.

    Args:
        net: With ``sigma_min`` and ``sigma_max``, and if it has classes ``label_dim``.
        sigma_min: Lowest level to sample at. Default: the network's, at least 0.002.
        sigma_max: Highest level. Default: the network's, at most 80.
    """

    net: Callable[..., Tensor]
    sigma_min: float = field(default=0.002, kw_only=True)
    sigma_max: float = field(default=80.0, kw_only=True)

    path: PathName = field(default="ve", init=False)

    def __attrs_post_init__(self) -> None:
        low, high = (getattr(self.net, name, getattr(self, name)) for name in ("sigma_min", "sigma_max"))
        object.__setattr__(self, "sigma_min", max(float(low), self.sigma_min))
        object.__setattr__(self, "sigma_max", min(float(high), self.sigma_max))

    @property
    def classes(self) -> int | None:
        """Number of classes, or None."""
        return getattr(self.net, "label_dim", 0) or None

    def __call__(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the network's output.

        Args:
            x: State, ``(B, ...)``.
            sigma: Noise level of each sample, ``(B,)``.
            label: Class of each sample, ``(B,)`` integers, -1 for none.

        Raises:
            ParameterError: Labels for a network without classes, or beyond them.
        """
        if self.classes is None:
            if label is not None:
                raise ParameterError("EDM: label was given, but the network has no classes; leave it out")
            return self.net(x, sigma)
        label = torch.full(sigma.shape, -1) if label is None else torch.as_tensor(label)
        # On a device the question would wait for it.
        if label.is_cpu and bool(((label < -1) | (label >= self.classes)).any()):
            raise ParameterError(f"EDM: labels are 0 to {self.classes - 1}, or -1: {label.tolist()}")
        one_hot = torch.eye(self.classes + 1, dtype=x.dtype, device=x.device)[label.to(x.device)]
        return self.net(x, sigma, one_hot[:, :-1])


def _enum(owner: Any, name: str) -> str:
    """Return the name of an enumeration's member, or an empty text."""
    return str(getattr(getattr(owner, name, None), "name", ""))
