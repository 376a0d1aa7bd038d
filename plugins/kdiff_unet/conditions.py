"""Conditions: modules that turn what a network is told into what it can use.

What a condition is, `kdiff_core.training.Condition` says; those of plugins are found by name like these.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException
from torch.nn import functional

from kdiff_core.errors import ParameterError
from kdiff_core.lookup import get_condition
from kdiff_core.names import did_you_mean, quoted

from .embedding import FEATURES, time_features


class ClassCondition(nn.Module):
    """One of several classes: ``(B,)`` int64, -1 for none, which adds nothing.

    Args:
        width: Width of the network's embedding.
        classes: Number of classes.
    """

    yields = ("embedding",)

    def __init__(self, width: int, *, classes: int) -> None:
        super().__init__()
        self.classes = at_least_one("classes", classes)
        # As it is made, with a standard deviation of 1: a smaller one is learned much later.
        self.table = nn.Embedding(classes, width)

    def forward(self, value: Tensor | None, x: Tensor) -> dict[str, Tensor]:
        """Return the class's embedding.

        Raises:
            ParameterError: Not ``(B,)`` integers, or (seen on the CPU only) a number of no class.
        """
        if value is None:
            return {"embedding": self.table.weight.new_zeros(x.shape[0], self.table.embedding_dim)}
        if value.shape != x.shape[:1] or value.is_floating_point() or value.dtype == torch.bool:
            raise ParameterError(
                f"a class is one integer a sample, {(x.shape[0],)}; given are {value.dtype} "
                f"{tuple(value.shape)}"
            )
        low, high = _ends(value)
        if low < -1 or high >= self.classes:
            raise ParameterError(f"classes are 0 to {self.classes - 1}, -1 is none; given: {low} to {high}")
        rows: Tensor = self.table(value.clamp(min=0))
        return {"embedding": rows * (value >= 0)[:, None].to(rows)}


def _ends(value: Tensor) -> tuple[int, int]:
    """Return the least and the greatest; -1 and -1 where reading them would wait for a device."""
    if value.device.type == "cpu" and not torch.compiler.is_compiling():
        with contextlib.suppress(DataDependentOutputException):  # memory is estimated without values
            return int(value.min()), int(value.max())
    return -1, -1


class VectorCondition(nn.Module):
    """Numbers that say something of a sample, ``(B, size)``; zeros say nothing.

    Args:
        width: Width of the network's embedding.
        size: Length of the vector.
    """

    yields = ("embedding",)

    def __init__(self, width: int, *, size: int) -> None:
        super().__init__()
        # Without a bias zeros add nothing.
        self.linear = nn.Linear(at_least_one("size", size), width, bias=False)

    def forward(self, value: Tensor | None, x: Tensor) -> dict[str, Tensor]:
        """Return the vector's embedding."""
        weight = self.linear.weight
        if value is None:
            return {"embedding": weight.new_zeros(x.shape[0], weight.shape[0])}
        need("a vector", value, (x.shape[0], weight.shape[1]))
        return {"embedding": self.linear(value.to(weight.dtype))}


class NumberCondition(nn.Module):
    """A number whose size matters, such as a guidance scale or an aspect ratio: ``(B,)``, NaN for none.

    Args:
        width: Width of the network's embedding.
        scale: Standard deviation of the frequencies of its features: the inverse of what is a small change.
    """

    yields = ("embedding",)

    def __init__(self, width: int, *, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.linear = nn.Linear(FEATURES, width)

    def forward(self, value: Tensor | None, x: Tensor) -> dict[str, Tensor]:
        """Return the number's embedding."""
        weight = self.linear.weight
        if value is None:
            return {"embedding": weight.new_zeros(x.shape[0], weight.shape[0])}
        need("a number", value, (x.shape[0],))
        features = time_features(value.nan_to_num(), "fourier", self.scale).to(weight.dtype)
        return {"embedding": self.linear(features) * value.isfinite()[:, None]}


class TokensCondition(nn.Module):
    """A sequence, as a text encoder gives it: ``(B, T, size)``, with a mask that is true where it counts.

    Args:
        width: Width of the network's embedding, which its tokens have too.
        size: Width of the tokens that are given.
        mask: Keyword of the mask, ``(B, T)``; where it is not given all tokens count.
    """

    yields = ("tokens",)

    def __init__(self, width: int, *, size: int, mask: str = "token_mask") -> None:
        super().__init__()
        self.also = (mask,)
        self.linear = nn.Linear(at_least_one("size", size), width)

    def forward(self, value: Tensor | None, x: Tensor, **more: Tensor | None) -> dict[str, Tensor]:
        """Return the tokens and their mask; no tokens where there are none."""
        mask = more[self.also[0]]
        weight = self.linear.weight
        if value is None:
            value, mask = x.new_zeros(x.shape[0], 0, weight.shape[1]), None
        if value.ndim != 3:
            raise ParameterError(f"tokens are (B, T, {weight.shape[1]}); given are {tuple(value.shape)}")
        need("tokens", value, (x.shape[0], value.shape[1], weight.shape[1]))
        if mask is None:
            mask = torch.ones(value.shape[:2], dtype=torch.bool, device=x.device)
        need(self.also[0], mask, tuple(value.shape[:2]))
        return {"tokens": self.linear(value.to(weight.dtype)), "mask": mask.bool()}


class ConcatCondition(nn.Module):
    """Channels beside the state's: a mask, a masked or a small image, the previous estimate.

    Args:
        width: Width of the network's embedding; of no use here.
        channels: Number of channels.
        resize: How other sizes become the state's: "nearest", "linear", or None to refuse them.
    """

    yields = ("channels",)

    def __init__(self, width: int, *, channels: int, resize: str | None = None) -> None:
        super().__init__()
        if resize not in (None, "nearest", "linear"):
            raise ParameterError(f"resize={resize!r} must be None, 'nearest' or 'linear'")
        self.channels, self.resize = at_least_one("channels", channels), resize

    def forward(self, value: Tensor | None, x: Tensor) -> dict[str, Tensor]:
        """Return the channels; zeros where there are none."""
        shape = (x.shape[0], self.channels, *x.shape[2:])
        if value is None:
            return {"channels": x.new_zeros(shape)}
        value = value.to(x.dtype)
        if self.resize and value.ndim == x.ndim and value.shape[2:] != x.shape[2:]:
            linear = {3: "linear", 4: "bilinear", 5: "trilinear"}[x.ndim]
            mode = "nearest" if self.resize == "nearest" else linear
            value = functional.interpolate(value, size=x.shape[2:], mode=mode)
        need("channels", value, shape)
        return {"channels": value}


class Known(NamedTuple):
    """What all conditions say together.

    Attributes:
        embedding: To be added to that of the time, ``(B, width)``; None where no condition has any.
        tokens: For cross-attention, ``(B, T, width)``.
        mask: Which of them count, ``(B, T)``.
        channels: To be put beside the state.
    """

    embedding: Tensor | None
    tokens: Tensor | None
    mask: Tensor | None
    channels: tuple[Tensor, ...]


class Conditions(nn.Module):
    """The conditions of a network, by the keywords they are given by.

    Args:
        wanted: Of each keyword the name of a registered condition as "kind", and its options.
        width: Width of the network's embedding.

    Raises:
        UnknownNameError: No plugin has a condition of that name.
        ParameterError: It refuses an option, or yields what there is not.
    """

    def __init__(self, wanted: Mapping[str, Mapping[str, Any]], width: int) -> None:
        super().__init__()
        self.by_name = nn.ModuleDict()
        for name, each in wanted.items():
            if hasattr(self.by_name, name):
                raise ParameterError(
                    f"a condition cannot be named {name!r}, which modules have for themselves"
                )
            options = {key: value for key, value in each.items() if key != "kind"}
            module = get_condition(each["kind"], width=width, **options)
            yields = getattr(module, "yields", ())
            if not yields or not {*yields} <= {"embedding", "tokens", "channels"}:
                raise ParameterError(
                    f"condition {name!r} ({each['kind']!r}): its attribute yields={yields!r} must name what "
                    "it returns: 'embedding', 'tokens', 'channels'"
                )
            self.by_name[name] = module

    def that_yield(self, what: str) -> list[Any]:
        """Return the conditions that yield "embedding", "tokens" or "channels"."""
        modules: list[Any] = list(self.by_name.values())
        return [module for module in modules if what in module.yields]

    @property
    def channels(self) -> int:
        """Number of channels that are put beside the state."""
        return sum(module.channels for module in self.that_yield("channels"))

    def forward(self, x: Tensor, cond: Mapping[str, Any]) -> Known:
        """Ask all conditions.

        Raises:
            ParameterError: A keyword that no condition has.
        """
        also = {name: tuple(getattr(module, "also", ())) for name, module in self.by_name.items()}
        known = {*also, *(each for names in also.values() for each in names)}
        for name in cond:
            if name not in known:
                raise ParameterError(
                    f"the network has no condition {name!r}{did_you_mean(name, known) or '.'} It has "
                    f"{quoted(known) or 'none'}."
                )
        embedding, tokens, masks, channels = None, [], [], []
        for name, module in self.by_name.items():
            said = module(cond.get(name), x, **{each: cond.get(each) for each in also[name]})
            if "embedding" in said:
                embedding = said["embedding"] if embedding is None else embedding + said["embedding"]
            if "tokens" in said:
                tokens.append(said["tokens"])
                everything = torch.ones(tokens[-1].shape[:2], dtype=torch.bool, device=x.device)
                masks.append(said.get("mask", everything))
            if "channels" in said:
                channels.append(said["channels"].to(x.dtype))
        return Known(
            embedding,
            torch.cat(tokens, dim=1) if tokens else None,
            torch.cat(masks, dim=1) if masks else None,
            tuple(channels),
        )


def at_least_one(name: str, value: Any) -> int:
    """Return a whole number of at least 1.

    Raises:
        ParameterError: It is none.
    """
    if type(value) is not int or value < 1:
        raise ParameterError(f"{name}={value!r} must be a whole number of at least 1")
    return value


def need(what: str, value: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse a tensor of another shape.

    Raises:
        ParameterError: It has another.
    """
    if tuple(value.shape) != shape:
        raise ParameterError(f"{what} must have the shape {shape}; given is {tuple(value.shape)}")
