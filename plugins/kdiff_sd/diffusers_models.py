"""diffusers' models as denoisers, called as their pipelines call them.

Conditions go to the model by its own names: ``encoder_hidden_states``, ``added_cond_kwargs``, ... diffusers
itself is not imported here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from attrs import evolve, field, frozen
from torch import Tensor

from kdiff_core.errors import CapabilityError, ParameterError
from kdiff_core.lookup import get_process
from kdiff_core.names import quoted
from kdiff_core.parameterisations import Parameterised

from .diffusers_branches import Branch, branch_of
from .scheduler_config import continuous_process, is_continuous, is_flow


def _whole(x: Tensor) -> AbstractContextManager[None]:
    return nullcontext()


@frozen(eq=False)
class Network:
    """A model of diffusers as a network: ``model(x, time, **cond)``.

    Args:
        model: The model.
        branch: What is degraded while it runs.
    """

    model: Any
    branch: Branch = field(default=_whole, kw_only=True)

    def __call__(self, x: Tensor, t: Tensor, **cond: Any) -> Any:
        """Return the model's output."""
        with self.branch(x):
            return self.call(x, t, cond)

    def call(self, x: Tensor, t: Tensor, cond: Mapping[str, Any]) -> Any:
        """Call the model as a UNet or a transformer of images or videos is called."""
        return self.model(x, timestep=t, return_dict=False, **cond)[0]

    def parameters(self) -> Iterator[Tensor]:
        """The model's parameters."""
        found: Iterator[Tensor] = self.model.parameters()
        return found


@frozen(eq=False)
class _Labelled(Network):
    """A UNet2DModel, whose condition is a class for each sample."""

    def call(self, x: Tensor, t: Tensor, cond: Mapping[str, Any]) -> Any:
        """Call the model with ``class_labels``."""
        renamed = {"class_labels" if name == "label" else name: value for name, value in cond.items()}
        return super().call(x, t, renamed)


@frozen(eq=False)
class _Told(Network):
    """A UNet2DConditionModel; one that is guidance-distilled is told a scale.

    Args:
        guidance: The scale.
    """

    guidance: float = field(default=3.5, kw_only=True)

    def call(self, x: Tensor, t: Tensor, cond: Mapping[str, Any]) -> Any:
        """Call the model, with ``timestep_cond`` where it was made for that."""
        size = self.model.config.get("time_cond_proj_dim")
        if size is None:
            return super().call(x, t, cond)
        told = _waves(1000 * (self.guidance - 1), size, x).expand(len(x), size)
        return super().call(x, t, {"timestep_cond": told, **cond})


def _waves(value: float, size: int, like: Tensor) -> Tensor:
    """Return a number's sines and cosines, of frequencies from 1 to 1/10000: how a UNet is told a scale."""
    falling = torch.arange(size // 2, device=like.device) / (size // 2 - 1)
    angle = value * 10000.0**-falling
    return torch.cat([angle.sin(), angle.cos(), angle.new_zeros(size % 2)]).to(like.dtype)


@frozen(eq=False)
class _Flux(Network):
    """A FluxTransformer2DModel: its tokens are squares of 2 by 2 pixels, in rows.

    Args:
        guidance: What a guidance-distilled model is told.
    """

    guidance: float = field(default=3.5, kw_only=True)

    def call(self, x: Tensor, t: Tensor, cond: Mapping[str, Any]) -> Any:
        """Call the model with packed latents and with the places of the tokens."""
        size, channels, height, width = x.shape
        if height % 2 or width % 2:
            raise ParameterError(f"Flux: latents of {height} by {width}: both must be even")
        rows, columns = height // 2, width // 2
        tokens = x.reshape(size, channels, rows, 2, columns, 2).permute(0, 2, 4, 1, 3, 5)
        given = dict(cond)
        if self.model.config.guidance_embeds:
            told = x.new_full((size,), self.guidance, dtype=torch.float32)
            given.setdefault("guidance", told)
        text = given["encoder_hidden_states"]
        output = super().call(
            tokens.reshape(size, rows * columns, channels * 4),
            t,
            given | {"img_ids": _places(rows, columns, x), "txt_ids": x.new_zeros(text.shape[1], 3)},
        )
        square = output.reshape(size, rows, columns, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
        return square.reshape(size, channels, height, width)


def _places(rows: int, columns: int, x: Tensor) -> Tensor:
    """Return ``(rows columns, 3)``: 0, the row and the column of each token."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([torch.zeros_like(row), row, column], -1).reshape(-1, 3).to(x)


@frozen(eq=False)
class ModelDenoiser(Parameterised):
    """A model of diffusers as a denoiser, with the branches that guidance leads away from.

    Its arguments are those of `Parameterised`; `from_diffusers` makes one.
    """

    @property
    def data_sha256(self) -> str:
        """A hash of some values of each of its weights, which tells one model from another."""
        return fingerprint(self.parameters())

    def to(self, device: Any) -> ModelDenoiser:
        """Move the model to a device; return the denoiser."""
        self.network.model.to(device)  # type: ignore[attr-defined]
        return self

    def degraded(self, name: str, **options: Any) -> ModelDenoiser:
        """Return the denoiser of the same model, a part of which is degraded during each call.

        Not for calls of one model from several threads at once.

        Args:
            name: "perturbed_attention" or "smoothed_energy", of a UNet with text; "skip_layers".
            **options: Of the branch; see `kdiff_sd.diffusers_branches`.

        Raises:
            ParameterError: The model has no such branch, or no such layers.
        """
        network: Any = self.network
        return evolve(self, network=evolve(network, branch=branch_of(network.model, name, **options)))


def fingerprint(parameters: Iterable[Tensor]) -> str:
    """Return a hash of 64 values of each tensor, the same on every device."""
    found = hashlib.sha256()
    for each in parameters:
        values = each.detach().flatten()
        found.update(str(tuple(each.shape)).encode())
        found.update(values[:: max(1, len(values) // 64)].double().cpu().numpy().tobytes())
    return found.hexdigest()


# How each model is called, and its latents' shape where its config does not say: Flux and Wan.
_MODELS: dict[str, tuple[type[Network], tuple[int, ...]]] = {
    "UNet2DModel": (_Labelled, ()),
    "UNet2DConditionModel": (_Told, ()),
    "SD3Transformer2DModel": (Network, ()),
    "FluxTransformer2DModel": (_Flux, (128, 128)),
    "WanTransformer3DModel": (Network, (21, 60, 104)),
}


def from_diffusers(
    model: Any,
    scheduler: Any,
    *,
    sample_shape: Sequence[int] | None = None,
    embedded_guidance: float = 3.5,
    **options: Any,
) -> ModelDenoiser:
    """Return the denoiser of a diffusers model.

    What the output is, the noise process and what the model is told of it are read from the two configs.

    Args:
        model: A ``UNet2DModel``, ``UNet2DConditionModel``, ``SD3Transformer2DModel``,
            ``FluxTransformer2DModel`` or ``WanTransformer3DModel``.
        scheduler: A scheduler of diffusers, or its config.
        sample_shape: Of a state without its batch. Default: what the model's config says; of Flux 128 by 128
            latents, of Wan 21 frames of 60 by 104.
        embedded_guidance: The scale that a guidance-distilled Flux or UNet (as those of latent consistency,
            Luo et al. 2023, arXiv:2310.04378) is told.
        **options: Of `Parameterised`, in place of what the configs say.

    Raises:
        CapabilityError: Another model, or one that takes other channels beside the state.
        ParameterError: A config that kdiff does not know.
    """
    network, found = described(model, scheduler, sample_shape, embedded_guidance)
    about = {**found.pop("about"), **options.pop("about", {})}
    return ModelDenoiser(network, about=about, **{**found, **options})


def described(
    model: Any, scheduler: Any, sample_shape: Sequence[int] | None, embedded_guidance: float
) -> tuple[Network, dict[str, Any]]:
    """Return the network and the options of `from_diffusers`'s denoiser."""
    kind = type(model).__name__
    if kind not in _MODELS:
        raise CapabilityError(
            f"{kind}: kdiff wraps {quoted(_MODELS)}; give Parameterised a function of yours"
        )
    network_of, usual = _MODELS[kind]
    shape = tuple(sample_shape or _shape(model, usual))
    about: dict[str, Any] = {"sample_shape": shape}
    more: dict[str, Any] = {"guidance": embedded_guidance} if network_of in (_Told, _Flux) else {}
    if kind == "UNet2DModel":
        about |= {"value_range": (-1.0, 1.0)}
        if classes := model.config.num_class_embeds:
            about["classes"] = classes
    found = trained_as(scheduler, _tokens(kind, model, shape))
    if network_of is _Flux:
        found["time_scale"] = 1.0  # it multiplies itself
    return network_of(model, **more), {**found, "learned_variance": _variance(model), "about": about}


def trained_as(scheduler: Any, tokens: int | None = None) -> dict[str, Any]:
    """Return the options of `Parameterised` that a scheduler's config asks for.

    Args:
        scheduler: A scheduler of diffusers, or its config.
        tokens: Number of image tokens, which a dynamic shift depends on.

    Raises:
        ParameterError: A config that kdiff does not know.
    """
    config = {**getattr(scheduler, "config", scheduler)}
    if hasattr(scheduler, "config"):
        config["_class_name"] = type(scheduler).__name__
    if is_continuous(config):
        return {"process": continuous_process(config), "time": "quarter_log"}
    name = str(config.get("_class_name", ""))
    if is_flow(config):
        config["_class_name"] = "FlowMatch"  # whatever scheduler it drives
    needs_tokens = config.get("use_dynamic_shifting")
    process = get_process("diffusers", config=config, **({"tokens": tokens} if needs_tokens else {}))
    if name.startswith("EDM"):
        negated = config.get("prediction_type") == "v_prediction"
        data = config.get("sigma_data", 0.5)
        return {"process": process, "prediction": "edm", "negated": negated, "sigma_data": data}
    if process.path == "flow":
        return {"process": process, "time_scale": float(config.get("num_train_timesteps", 1000))}
    return {"process": process}


def _shape(model: Any, usual: Iterable[int]) -> tuple[int, ...]:
    """Return the shape of a state, as the config says or as is usual."""
    channels = model.config.in_channels
    if type(model).__name__ == "FluxTransformer2DModel":
        return (channels // 4, *usual)
    size = model.config.get("sample_size")
    if size is None:
        if not usual:
            raise ParameterError(f"{type(model).__name__}: its config has no sample_size; give sample_shape=")
        return (channels, *usual)
    return (channels, *(size if isinstance(size, list | tuple) else (size, size)))


def _tokens(kind: str, model: Any, shape: Sequence[int]) -> int:
    """Return the number of image tokens of a sample."""
    patch = 2 if kind == "FluxTransformer2DModel" else model.config.get("patch_size") or 1
    patches = patch if isinstance(patch, list | tuple) else [patch] * (len(shape) - 1)
    found = 1
    for size, each in zip(shape[1:], patches, strict=True):
        found *= size // each
    return found


def _variance(model: Any) -> bool:
    """Whether half of the output's channels are the variance.

    Raises:
        CapabilityError: The numbers of channels fit in no other way.
    """
    channels, out = model.config.in_channels, model.config.get("out_channels") or model.config.in_channels
    if out not in (channels, 2 * channels):
        raise CapabilityError(
            f"{type(model).__name__} takes {channels} channels and returns {out}: an inpainting or editing "
            "model, which kdiff does not wrap; use kdiff_sd.diffusers.KDiffScheduler in its own pipeline"
        )
    return bool(out == 2 * channels)
