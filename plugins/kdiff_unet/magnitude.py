"""A UNet whose layers keep the magnitude of what passes, from the paper on training dynamics of diffusion.

Karras et al. 2023, arXiv:2312.02696. The magnitude of a tensor is the root of its mean square. Weights have
magnitude 1 whatever the optimiser does to them: a layer uses them normalised, and training sets them back on
the sphere before each step, so that the learning rate alone says how fast they turn.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from kdiff_core.state import wide

from . import resample
from .attention import heads_of, split, with_nothing
from .conditions import Known
from .config import MagnitudeConfig
from .embedding import FEATURES, time_features
from .network import Network, builder

SILU = 0.596  # root of the mean square of silu(x) for x of the standard normal distribution


def normalised(x: Tensor, dims: tuple[int, ...], eps: float = 1e-4) -> Tensor:
    """Return `x` divided by its magnitude over some dimensions; what is 0 stays 0."""
    # Unlike a square root, the norm has a finite gradient at 0.
    length: Tensor = torch.linalg.vector_norm(x, dim=dims, keepdim=True, dtype=wide(x))
    return x / (length / math.sqrt(x.numel() / length.numel()) + eps).to(x.dtype)


def silu(x: Tensor) -> Tensor:
    """The activation of magnitude 1."""
    return functional.silu(x) / SILU


def mixed(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Return ``(1 - share) a + share b`` at the magnitude that independent `a` and `b` have."""
    scale = math.hypot(1 - share, share)
    return a * ((1 - share) / scale) + b * (share / scale)


def beside(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Concatenate channels so that `b` contributes `share` of the whole, which keeps its magnitude."""
    scale = math.sqrt((a.shape[1] + b.shape[1]) / ((1 - share) ** 2 + share**2))
    left = a * (scale * (1 - share) / math.sqrt(a.shape[1]))
    return torch.cat([left, b * (scale * share / math.sqrt(b.shape[1]))], dim=1)


class Weights(nn.Module):
    """A convolution or a matrix, without bias, that keeps magnitudes.

    Args:
        ins: Channels of the input.
        outs: Channels of the output.
        dims: Dimensions of the data; 0 for a matrix on the last dimension.
        kernel: Length of the kernel.
    """

    def __init__(self, ins: int, outs: int, dims: int = 0, kernel: int = 1) -> None:
        super().__init__()
        self.dims = dims
        self.weight = nn.Parameter(torch.randn(outs, ins, *[kernel] * dims))

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        """Return the output, times a gain."""
        weight = normalised(self.weight, tuple(range(1, self.weight.ndim)))
        weight = (weight * (gain / math.sqrt(self.weight[0].numel()))).to(x.dtype)
        if self.dims == 0:
            return functional.linear(x, weight)
        convolve = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[self.dims]
        return convolve(x, weight, padding=self.weight.shape[-1] // 2)

    def settle(self) -> None:
        """Set the weights back to magnitude 1.

        A second call changes no more than rounding, so that two passes may come before the backward one;
        autograd, which would refuse that, is not told.
        """
        weight = self.weight.data
        weight.copy_(normalised(weight, tuple(range(1, weight.ndim))))


class TimeFeatures(nn.Module):
    """The time as features of magnitude 1, and a matrix on them."""

    def __init__(self, width: int, kind: str, scale: float) -> None:
        super().__init__()
        self.kind, self.scale = kind, scale
        self.linear = Weights(FEATURES, width)

    def forward(self, time: Tensor) -> Tensor:
        """Return the embedding, ``(B, width)``."""
        # The sines and cosines of an angle have a mean square of one half.
        features = math.sqrt(2) * time_features(time, self.kind, self.scale)
        embedding: Tensor = self.linear(features.to(self.linear.weight.dtype))
        return embedding


class MagnitudeAttention(nn.Module):
    """Attention with normalised queries, keys and values: of places, or of places to tokens."""

    def __init__(self, config: MagnitudeConfig, channels: int, width: int = 0) -> None:
        super().__init__()
        self.heads, self.share = heads_of(channels, config.head_dim), config.attention_balance
        self.dropout = config.dropout
        self.query = Weights(channels, channels)
        self.pair = Weights(width or channels, 2 * channels)
        self.nothing = nn.Parameter(torch.randn(1, 1, width)) if width else None
        self.out = Weights(channels, channels)

    def forward(self, x: Tensor, tokens: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Return the new state, ``(B, C, *spatial)``."""
        seen = own = x.flatten(2).transpose(1, 2)
        if self.nothing is not None and tokens is not None and mask is not None:
            seen, mask = with_nothing(tokens, mask, self.nothing)
            seen = normalised(seen, (2,))
        q, k, v = (
            normalised(split(part, self.heads), (3,))
            for part in (self.query(own), *self.pair(seen).chunk(2, dim=2))
        )
        found = functional.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=None if mask is None else mask[:, None, None, :],
            dropout_p=self.dropout if self.training else 0.0,
        )
        new = self.out(found.transpose(1, 2).flatten(2))
        return mixed(x, new.transpose(1, 2).reshape(x.shape), self.share)


class MagnitudeLayer(nn.Module):
    """A residual block with attention: the encoder's normalises each place's channels as it begins.

    Args:
        config: What it is made of.
        ins: Channels of the input.
        outs: Channels of the output.
        kept: Channels of what the encoder kept; 0 for an encoder's layer.
        itself: Whether places attend to one another.
        tokens: Whether they attend to tokens.
    """

    def __init__(
        self,
        config: MagnitudeConfig,
        ins: int,
        outs: int,
        kept: int = 0,
        itself: bool = False,
        tokens: bool = False,
    ) -> None:
        super().__init__()
        dims = config.dims
        self.config, self.decodes = config, kept > 0
        self.shortcut = Weights(ins + kept, outs, dims) if ins + kept != outs else None
        self.conv1 = Weights(outs if not kept else ins + kept, outs, dims, 3)
        self.linear = Weights(config.width, outs)
        self.gain = nn.Parameter(torch.zeros(()))
        self.dropout = nn.Dropout(config.dropout)
        self.conv2 = Weights(outs, outs, dims, 3)
        self.attention = MagnitudeAttention(config, outs) if itself else None
        self.cross = MagnitudeAttention(config, outs, config.width) if tokens else None

    def forward(
        self, h: Tensor, kept: Tensor | None, embedding: Tensor, tokens: Tensor | None, mask: Tensor | None
    ) -> Tensor:
        """Return the new state."""
        config = self.config
        if kept is not None:
            h = beside(h, kept, config.concat_balance)
        x = h if self.shortcut is None else self.shortcut(h)
        if not self.decodes:
            h = x = normalised(x, (1,))
        new = self.conv1(silu(h))
        scale = self.linear(embedding, self.gain) + 1
        new = silu(new * scale[(..., *[None] * config.dims)])
        h = mixed(x, self.conv2(self.dropout(new)), config.residual_balance)
        if self.attention is not None:
            h = self.attention(h)
        if self.cross is not None:
            h = self.cross(h, tokens, mask)
        return h.clamp(-config.clip, config.clip)


class MagnitudeUNet(Network):
    """The UNet of the configuration that its authors call G. An untrained one returns exactly 0.

    Args:
        config: What it is made of.
    """

    name: ClassVar[str] = "magnitude"
    config: MagnitudeConfig

    def __init__(self, config: MagnitudeConfig) -> None:
        reads = config.at_levels("cross_attention")
        super().__init__(config, any(reads))
        dims, channels = config.dims, config.channels
        attends = list(zip(config.at_levels("self_attention"), reads, strict=True))
        # A channel of ones stands for the biases.
        self.enter = Weights(self.ins + 1, channels[0], dims, 3)
        kept = [channels[0]]
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        for level, outs in enumerate(channels):
            kept += [kept[-1]] if level else []
            layers = nn.ModuleList()
            for _ in range(config.depths[level]):
                layers.append(MagnitudeLayer(config, kept[-1], outs, 0, *attends[level]))
                kept.append(outs)
            self.encoder.append(layers)
        own = channels[-1]
        middle = (config.middle_attention, attends[-1][1])
        self.middle = nn.ModuleList(
            [MagnitudeLayer(config, own, own, 0, *middle), MagnitudeLayer(config, own, own)]
        )
        for level in reversed(range(len(channels))):
            layers = nn.ModuleList()
            for _ in range(config.depths[level] + 1):
                layers.append(MagnitudeLayer(config, own, channels[level], kept.pop(), *attends[level]))
                own = channels[level]
            self.decoder.append(layers)
        self.leave = Weights(own, self.outs, dims, 3)
        self.leave_gain = nn.Parameter(torch.zeros(()))
        self.shrink, self.grow = resample.Average(), resample.Nearest()

    def make_time(self) -> nn.Module:
        """Return the module that embeds the time."""
        return TimeFeatures(self.config.width, self.config.time, self.config.fourier_scale)

    def embed(self, time: Tensor, known: Known) -> Tensor:
        """Return what is known of time and conditions, ``(B, width)``, activated."""
        embedding = self.time(time)
        if known.embedding is not None:
            embedding = mixed(embedding, normalised(known.embedding, (1,)), self.config.condition_balance)
        return silu(embedding)

    def forward(self, x: Tensor, time: Tensor, **cond: Any) -> Tensor:
        """Return the output; in training the weights are set back to magnitude 1 first."""
        if self.training:
            for module in self.modules():
                if isinstance(module, Weights):
                    module.settle()
        return super().forward(x, time, **cond)

    def body(self, h: Tensor, embedding: Tensor, known: Known) -> Tensor:
        """Return the output for patches."""
        said = (embedding, known.tokens, known.mask)
        h = self.enter(torch.cat([h, torch.ones_like(h[:, :1])], dim=1))
        kept = [h]
        for level, layers in enumerate(self.encoder):
            if level:
                h = self.shrink(h)
                kept.append(h)
            for layer in layers:  # type: ignore[attr-defined]
                h = self.run(layer, h, None, *said)
                kept.append(h)
        for layer in self.middle:
            h = self.run(layer, h, None, *said)
        for level, layers in enumerate(self.decoder):
            for layer in layers:  # type: ignore[attr-defined]
                h = self.run(layer, h, kept.pop(), *said)
            if level < len(self.encoder) - 1:
                h = self.grow(h)
        out: Tensor = self.leave(h, self.leave_gain)
        return out


magnitude = builder(MagnitudeUNet, MagnitudeConfig)
