"""The UNet."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from . import resample
from .blocks import Layer, norm
from .conditions import Known
from .config import UNetConfig
from .embedding import zero
from .network import Network, builder


class UNet(Network):
    """An encoder, a middle and a decoder, which takes up what each layer of the encoder returned.

    Ronneberger et al. 2015, arXiv:1505.04597; for diffusion Ho et al. 2020, arXiv:2006.11239, and Dhariwal &
    Nichol 2021, arXiv:2105.05233. An untrained one returns exactly 0.

    Args:
        config: What it is made of.
    """

    name: ClassVar[str] = "unet"
    config: UNetConfig

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config, any(config.at_levels("cross_attention")))
        dims, channels = config.dims, config.channels
        attends = list(
            zip(config.at_levels("self_attention"), config.at_levels("cross_attention"), strict=True)
        )
        self.enter = resample.conv(dims, self.ins, channels[0])
        kept = [channels[0]]
        self.encoder, self.shrink = nn.ModuleList(), nn.ModuleList()
        for level, outs in enumerate(channels):
            if level > 0:
                self.shrink.append(resample.down(config.resample, dims, kept[-1], config.kernel))
                kept.append(kept[-1])
            layers = nn.ModuleList()
            for _ in range(config.depths[level]):
                layers.append(Layer(config, kept[-1], outs, 0, *attends[level]))
                kept.append(outs)
            self.encoder.append(layers)
        last = channels[-1]
        middle = (config.middle_attention, attends[-1][1])
        self.middle = nn.ModuleList([Layer(config, last, last, 0, *middle), Layer(config, last, last)])
        self.decoder, self.grow = nn.ModuleList(), nn.ModuleList()
        own = last
        for level in reversed(range(len(channels))):
            layers = nn.ModuleList()
            for _ in range(config.depths[level] + 1):
                layers.append(Layer(config, own, channels[level], kept.pop(), *attends[level]))
                own = channels[level]
            self.decoder.append(layers)
            if level > 0:
                self.grow.append(resample.up(config.resample, dims, own, config.kernel))
        self.leave_norm = norm(own, config.groups)
        self.leave = resample.conv(dims, own, self.outs)
        zero(self.leave)

    def body(self, h: Tensor, embedding: Tensor, known: Known) -> Tensor:
        """Return the output for patches."""
        said = (embedding, known.tokens, known.mask)
        h = self.enter(h)
        kept = [h]
        for level, layers in enumerate(self.encoder):
            if level > 0:
                h = self.shrink[level - 1](h)
                kept.append(h)
            for layer in layers:  # type: ignore[attr-defined]
                h = self.run(layer, h, None, *said)
                kept.append(h)
        for layer in self.middle:
            h = self.run(layer, h, None, *said)
        for level, layers in enumerate(self.decoder):
            for layer in layers:  # type: ignore[attr-defined]
                h = self.run(layer, h, kept.pop(), *said)
            if level < len(self.grow):
                h = self.grow[level](h)
        out: Tensor = self.leave(functional.silu(self.leave_norm(h)))
        return out


unet = builder(UNet, UNetConfig)
