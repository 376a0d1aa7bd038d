"""Parts of a training of one's own: a loss, data, a network, a condition and an augmentation."""

import torch
from attrs import field, frozen
from torch import nn

from kdiff_core import Entry, get_condition, hookimpl


@frozen
class Absolute:
    """The mean absolute error of the denoised sample, by the noise level."""

    def __call__(self, denoiser, x0, sigma, noise, cond):
        """Return the loss of each sample."""
        level = sigma.reshape(-1, *[1] * (x0.ndim - 1))
        denoised = denoiser(x0 + level * noise, sigma, **cond)
        return ((denoised - x0).abs() * (1 + 1 / level)).flatten(1).mean(1)


@frozen
class Stripes:
    """Images of 4 by 4 with one light column; its number is the class."""

    n: int = 64
    classes = 4

    def __len__(self):
        """Return the number of images."""
        return self.n

    def __getitem__(self, index):
        """Return an image and its class."""
        x = -torch.ones(1, 4, 4)
        x[:, :, index % 4] = 1
        return {"x": x, "label": index % 4}


def _told():
    return {"label": {"kind": "one_hot", "classes": 4}, "augment": {"kind": "one_hot", "classes": 1}}


@frozen
class Config:
    """What `Plain` is made of."""

    conditions: dict = field(factory=_told)


class OneHot(nn.Module):
    """A class as a vector; -1, none, is zeros; what is a vector already stays one."""

    yields = ("embedding",)

    def __init__(self, width, *, classes):
        super().__init__()
        self.classes, self.linear = classes, nn.Linear(classes, width, bias=False)

    def forward(self, value, x):
        """Return the embedding."""
        if value is not None and not value.is_floating_point():
            value = nn.functional.one_hot(value + 1, self.classes + 1)[:, 1:]
        shape = (x.shape[0], self.classes)
        return {"embedding": self.linear(x.new_zeros(shape) if value is None else value.to(x))}


class Plain(nn.Module):
    """Two layers over all pixels; its conditions are whatever the registry has by their names."""

    name = "plain"

    def __init__(self, conditions=None):
        super().__init__()
        self.config = Config(conditions or _told())
        self.first, self.last = nn.Linear(17, 32), nn.Linear(32, 16)
        self.told = nn.ModuleDict(
            {
                k: get_condition(v["kind"], width=32, classes=v["classes"])
                for k, v in self.config.conditions.items()
            }
        )

    def forward(self, x, time, **cond):
        """Return the output."""
        hidden = self.first(torch.cat([x.flatten(1), time[:, None].to(x)], 1))
        for name, module in self.told.items():
            hidden = hidden + module(cond.get(name), x)["embedding"]
        return self.last(nn.functional.silu(hidden)).reshape(x.shape)


@frozen
class Upside:
    """Half of the images upside down."""

    size = 1
    draws = 1

    def __call__(self, x, u):
        """Return the images, and which were turned."""
        turned = (u < 0.5).to(x)
        return torch.where(turned[:, :, None, None] > 0, x.flip(2), x), turned


@hookimpl
def kdiff_losses():
    """A loss."""
    return [Entry("absolute", Absolute, summary="mean absolute error")]


@hookimpl
def kdiff_datasets():
    """A data set."""
    return [Entry("stripes", Stripes, summary="one light column")]


@hookimpl
def kdiff_models():
    """An architecture."""
    return [Entry("plain", Plain, summary="two layers")]


@hookimpl
def kdiff_conditions():
    """A condition."""
    return [Entry("one_hot", OneHot, summary="a class as a vector")]


@hookimpl
def kdiff_augmentations():
    """An augmentation."""
    return [Entry("upside", Upside, summary="upside down")]
