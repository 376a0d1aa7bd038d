"""What all networks of this package share: the signature, conditions, padding, checkpointing, groups."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from kdiff_core.errors import ParameterError

from .conditions import Conditions, Known
from .config import NetworkConfig
from .embedding import LogVariance, TimeEmbedding
from .resample import CONV, from_patches, pad_to, to_patches

DECAYED = (nn.Linear, *CONV.values())


class Network(nn.Module):
    """A network that is told the time and conditions; a subclass has ``body``.

    Args:
        config: What it is made of.
        reads_tokens: Whether it has attention to tokens.

    Attributes:
        name: The name it is registered by.
        config: What it is made of; ``get_model(name, **attrs.asdict(config))`` makes another.
        logvar: The log-variance head, where the config has one: times ``(B,)`` to ``(B,)``.

    Raises:
        ParameterError: Attention to tokens that no condition gives, or tokens that nothing reads.
    """

    name: ClassVar[str]
    config: NetworkConfig
    logvar: Callable[[Tensor], Tensor]

    def __init__(self, config: Any, reads_tokens: bool) -> None:
        super().__init__()
        self.config = config
        self.conditions = Conditions(config.conditions, config.width)
        if reads_tokens != bool(self.conditions.that_yield("tokens")):
            raise ParameterError(
                f"{self.name}: cross_attention is on, but no condition yields tokens; add such as "
                "conditions={'tokens': {'kind': 'tokens', 'size': 768}}"
                if reads_tokens
                else f"{self.name}: a condition yields tokens, but cross_attention is off"
            )
        self.time = self.make_time()
        if config.logvar:
            self.logvar = LogVariance(config.time, config.fourier_scale)
        self.checkpointing: bool = config.checkpointing

    def make_time(self) -> nn.Module:
        """Return the module that embeds the time."""
        config = self.config
        return TimeEmbedding(config.width, config.time, config.fourier_scale)

    @property
    def ins(self) -> int:
        """Channels that the body reads: of patches of the state and of what is put beside it."""
        return (self.config.in_channels + self.conditions.channels) * self.patch

    @property
    def outs(self) -> int:
        """Channels that the body returns."""
        return self.config.outputs * self.patch

    @property
    def patch(self) -> int:
        """Number of values in a patch of one channel."""
        return int(self.config.patch_size**self.config.dims)

    def forward(self, x: Tensor, time: Tensor, **cond: Any) -> Tensor:
        """Return the output, like `x` in size.

        Args:
            x: State, ``(B, in_channels, *spatial)``, of any sizes.
            time: What the network is told of the noise level, ``(B,)``.
            **cond: Conditions by name; one that is absent, or None, has its null value.

        Returns:
            ``(B, out_channels, *spatial)``.

        Raises:
            ParameterError: Shapes that do not fit, or a condition that the network has not.
        """
        self._check(x, time)
        known = self.conditions(x, cond)
        h = torch.cat([x, *known.channels], dim=1) if known.channels else x
        h, inside = pad_to(h, self.config.multiple)
        out = self.body(to_patches(h, self.config.patch_size), self.embed(time, known), known)
        out = from_patches(out, self.config.patch_size)
        return out[inside] if inside else out

    def embed(self, time: Tensor, known: Known) -> Tensor:
        """Return what is known of time and conditions, ``(B, width)``, activated."""
        embedding = self.time(time)
        if known.embedding is not None:
            embedding = embedding + known.embedding
        return functional.silu(embedding)

    def body(self, h: Tensor, embedding: Tensor, known: Known) -> Tensor:
        """Return the output for patches.

        Args:
            h: Patches of the state and of what is beside it, ``(B, ins, *spatial)``.
            embedding: What is known, ``(B, width)``.
            known: Tokens and their mask.
        """
        raise NotImplementedError

    def run(self, block: nn.Module, *args: Any) -> Any:
        """Call a block; with checkpointing it is computed again in the backward pass."""
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(block, *args, use_reentrant=False)
        return block(*args)

    def set_checkpointing(self, on: bool) -> None:
        """Keep no more than the inputs of blocks for the backward pass, and compute the rest again there."""
        self.checkpointing = on

    def param_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Return groups for an optimiser: matrices and kernels with decay, all else without.

        Norms, biases, embeddings, gains and normalised weights are not decayed.

        Args:
            weight_decay: Decay of the first group.
        """
        decayed = {
            id(module.weight): module.weight for module in self.modules() if isinstance(module, DECAYED)
        }
        rest = [parameter for parameter in self.parameters() if id(parameter) not in decayed]
        groups = [
            {"params": list(decayed.values()), "weight_decay": weight_decay},
            {"params": rest, "weight_decay": 0.0},
        ]
        return [group for group in groups if group["params"]]

    def _check(self, x: Tensor, time: Tensor) -> None:
        config = self.config
        if x.ndim != config.dims + 2 or x.shape[1] != config.in_channels:
            sizes = "".join(f", n{d + 1}" for d in range(config.dims))
            raise ParameterError(
                f"{self.name}: the state must be (B, {config.in_channels}{sizes}); given is {tuple(x.shape)}"
            )
        if time.shape != x.shape[:1]:
            raise ParameterError(
                f"{self.name}: the time must be one number a sample, {(x.shape[0],)}; given is "
                f"{tuple(time.shape)}"
            )


def builder(network: type[Network], config: type[NetworkConfig]) -> Callable[..., Network]:
    """Return the function that makes a network of its config's options, which `inspect.signature` shows."""

    def build(**options: Any) -> Network:
        return network(config(**options))  # type: ignore[call-arg]

    build.__doc__ = f"Return a new {network.__name__}; the options are those of `{config.__name__}`."
    build.__name__ = build.__qualname__ = network.name
    build.__signature__ = inspect.signature(config)  # type: ignore[attr-defined]
    return build
