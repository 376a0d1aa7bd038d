"""Degraded branches of diffusers' models: what guidance leads away from.

A branch changes a model for the time of one call, and restores it whatever happens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from attrs import frozen
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from kdiff_core.errors import ParameterError
from kdiff_core.names import quoted

Branch = Callable[[Tensor], AbstractContextManager[None]]
_MIDDLE = ("mid_block",)
_BLOCKS = (7, 8, 9)


def branch_of(model: Any, name: str, **options: Any) -> Branch:
    """Return a branch of a model, which a call enters with its state.

    Args:
        model: The model.
        name: A name in `BRANCHES`.
        **options: Of that branch.

    Raises:
        ParameterError: There is no such branch, or the model has no such layers.
    """
    if name not in BRANCHES:
        raise ParameterError(f"there are the branches {quoted(BRANCHES)}, not {name!r}")
    found: Branch = BRANCHES[name](model, **options)
    return found


def perturbed_attention(model: Any, layers: Sequence[str] = _MIDDLE) -> Branch:
    """Self-attention that attends to its own token only. Ahn et al. 2024, arXiv:2403.17377.

    Args:
        model: A UNet with text.
        layers: Parts of the names of the layers.

    Raises:
        ParameterError: No layer has such a name.
    """
    chosen = _self_attention(model, layers)
    return lambda x: _processed(chosen, _identity)


def smoothed_energy(model: Any, layers: Sequence[str] = _MIDDLE, blur: float = math.inf) -> Branch:
    """Self-attention of blurred queries. Hong 2024, arXiv:2408.00760.

    Args:
        model: A UNet with text.
        layers: Parts of the names of the layers.
        blur: Standard deviation of the blur in the layer's own pixels, above 0; infinite: their mean.

    Raises:
        ParameterError: No layer has such a name, or a blur that is none.
    """
    if not blur > 0:
        raise ParameterError(f"smoothed_energy: blur={blur} must be above 0")
    chosen = _self_attention(model, layers)
    return lambda x: _processed(chosen, _Smoothed(blur, (x.shape[-2], x.shape[-1])))


def skip_layers(model: Any, layers: Sequence[Any] | None = None, single_layers: Sequence[int] = ()) -> Branch:
    """The model without some of its blocks. Hyung et al. 2024, arXiv:2411.18664.

    Args:
        model: A UNet with text or a transformer.
        layers: Of a transformer the numbers of blocks, by default 7, 8 and 9; of a UNet parts of the names of
            its transformer blocks, by default those in the middle.
        single_layers: Numbers of Flux's blocks of one stream.

    Raises:
        ParameterError: There are no such blocks.
    """
    if hasattr(model, "mid_block"):
        names = _MIDDLE if layers is None else layers
        chosen = _named(model, names, "transformer_blocks.", lambda module: hasattr(module, "attn1"))
        return lambda x: _skipped(chosen, pairs=False)
    pairs = hasattr(model, "transformer_blocks")
    blocks = model.transformer_blocks if pairs else model.blocks
    chosen = _numbered(blocks, _BLOCKS if layers is None else layers)
    chosen += _numbered(getattr(model, "single_transformer_blocks", ()), single_layers)
    return lambda x: _skipped(chosen, pairs)


BRANCHES: dict[str, Callable[..., Branch]] = {
    "perturbed_attention": perturbed_attention,
    "smoothed_energy": smoothed_energy,
    "skip_layers": skip_layers,
}


def _self_attention(model: Any, layers: Sequence[str]) -> list[Any]:
    return _named(model, layers, "attn1", lambda module: hasattr(module, "set_processor"))


def _named(model: Any, layers: Sequence[str], kind: str, fits: Callable[[Any], bool]) -> list[Any]:
    """Return the modules of a kind whose names have one of some parts."""
    layers = (layers,) if isinstance(layers, str) else layers
    there = {name: module for name, module in model.named_modules() if kind in name and fits(module)}
    for part in layers:
        if not any(str(part) in name for name in there):
            raise ParameterError(
                f"{type(model).__name__}: no layer has {part!r} in its name: {quoted(there)}"
            )
    return [module for name, module in there.items() if any(str(part) in name for part in layers)]


def _numbered(blocks: Any, numbers: Sequence[int]) -> list[Any]:
    for number in numbers:
        if not isinstance(number, int) or not 0 <= number < len(blocks):
            raise ParameterError(f"layers={list(numbers)}: the blocks are 0 to {len(blocks) - 1}")
    return [blocks[number] for number in numbers]


@contextmanager
def _processed(layers: Sequence[Any], processor: Any) -> Iterator[None]:
    """Give attention layers another processor for a while."""
    own = [layer.processor for layer in layers]
    try:
        for layer in layers:
            layer.set_processor(processor)
        yield
    finally:
        for layer, before in zip(layers, own, strict=True):
            layer.set_processor(before)


@contextmanager
def _skipped(blocks: Sequence[Any], pairs: bool) -> Iterator[None]:
    """Let blocks return what they are given for a while, of two streams both."""

    def unchanged(hidden_states: Tensor, encoder_hidden_states: Any = None, *seen: Any, **more: Any) -> Any:
        return (encoder_hidden_states, hidden_states) if pairs else hidden_states

    own = [block.__dict__.get("forward") for block in blocks]
    try:
        for block in blocks:
            block.forward = unchanged
        yield
    finally:
        for block, before in zip(blocks, own, strict=True):
            block.__dict__.pop("forward", None)
            if before is not None:
                block.forward = before


def _identity(attention: Any, hidden_states: Tensor, *seen: Any, **more: Any) -> Tensor:
    """Attention whose map is the identity."""
    return _out(attention, attention.to_v(hidden_states))


def _out(attention: Any, values: Tensor) -> Tensor:
    for layer in attention.to_out:
        values = layer(values)
    return values


@frozen
class _Smoothed:
    """Attention of blurred queries: a processor of diffusers.

    Args:
        blur: Standard deviation of the blur.
        size: Height and width of the state.
    """

    blur: float
    size: tuple[int, int]

    def __call__(self, attention: Any, hidden_states: Tensor, *seen: Any, **more: Any) -> Tensor:
        q, k, v = (layer(hidden_states) for layer in (attention.to_q, attention.to_k, attention.to_v))
        shape = (len(q), q.shape[1], attention.heads, -1)
        q, k, v = (each.reshape(shape).transpose(1, 2) for each in (self._blurred(q), k, v))
        values = scaled_dot_product_attention(q, k, v, scale=attention.scale)
        return _out(attention, values.transpose(1, 2).flatten(-2))

    def _blurred(self, queries: Tensor) -> Tensor:
        """Return queries ``(B, height width, C)`` blurred over their pixels."""
        if self.blur == math.inf:
            return queries.mean(1, keepdim=True).expand_as(queries)
        height, width = self.size
        while height * width > queries.shape[1]:  # each level of a UNet halves both
            height, width = -(-height // 2), -(-width // 2)
        across, along = (_weights(length, self.blur, queries) for length in (height, width))
        plane = queries.reshape(len(queries), height, width, -1)
        return torch.einsum("ih,jw,bhwc->bijc", across, along, plane).flatten(1, 2)


def _weights(length: int, blur: float, like: Tensor) -> Tensor:
    """Return a Gaussian blur of a line as a matrix, each of whose rows has the sum 1."""
    place = torch.arange(length, device=like.device, dtype=torch.float32)
    return ((place - place[:, None]) ** 2 / (-2 * blur**2)).softmax(-1).to(like.dtype)
