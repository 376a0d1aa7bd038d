"""What the networks of this package are made of: validated, JSON-able, and saved with the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import Attribute, field, frozen

from kdiff_core.errors import ParameterError
from kdiff_core.parameters import one_of, positive, whole

MODULATIONS = ("add", "adagn", "film", "ada_zero")
RESAMPLING = ("average", "conv", "shuffle", "filter")
SKIPS = ("concat", "add", "lerp")
TIMES = ("fourier", "positional")


def refuse(config: object, name: str, wanted: str) -> ParameterError:
    """Return the refusal of a config's value."""
    return ParameterError(f"{type(config).__name__}: {name}={getattr(config, name)!r} must be {wanted}")


def below_one(instance: object, attribute: Attribute[Any], value: Any) -> None:
    """Accept a share that is not the whole: a number of at least 0 and below 1."""
    if not isinstance(value, float | int) or isinstance(value, bool) or not 0 <= value < 1:
        raise refuse(instance, attribute.name, "a number of at least 0 and below 1")


def optional(least: int) -> Any:
    """Accept None or a whole number of at least `least`."""

    def validate(instance: object, attribute: Attribute[Any], value: Any) -> None:
        if value is not None and (type(value) is not int or value < least):
            raise refuse(instance, attribute.name, f"None or a whole number of at least {least}")

    return validate


def numbers(least: int) -> Any:
    """Accept a tuple of whole numbers of at least `least`, not empty."""

    def validate(instance: object, attribute: Attribute[Any], value: Any) -> None:
        good = isinstance(value, tuple) and value
        if not good or any(type(each) is not int or each < least for each in value):
            raise refuse(instance, attribute.name, f"whole numbers of at least {least}, one for each level")

    return validate


def as_tuple(value: Any) -> Any:
    """Return a list, which JSON has, as a tuple; leave anything else to the validator."""
    return tuple(value) if isinstance(value, list) else value


def as_flags(value: Any) -> Any:
    """Return booleans for each level as a tuple, and one boolean as it is."""
    return tuple(value) if isinstance(value, list | tuple) else value


def _conditions(value: Any) -> Any:
    """Return a copy that no one else holds."""
    if not isinstance(value, Mapping):
        return value
    return {name: dict(each) if isinstance(each, Mapping) else each for name, each in value.items()}


def _check_conditions(instance: object, attribute: Attribute[Any], value: Any) -> None:
    good = isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(each, dict) and isinstance(each.get("kind"), str)
        for name, each in value.items()
    )
    if not good:
        raise refuse(
            instance, attribute.name, "a mapping such as {'label': {'kind': 'class', 'classes': 10}}"
        )
    for name in value:
        if not name.isidentifier() or name in ("x", "time"):
            raise ParameterError(f"{type(instance).__name__}: a condition cannot be named {name!r}")


@frozen(kw_only=True)
class NetworkConfig:
    """What all networks of this package have.

    Attributes:
        in_channels: Channels of the state.
        out_channels: Channels of the output. Default: those of the state; twice as many for a learned
            variance.
        dims: Dimensions of the data: 1, 2 or 3.
        patch_size: The network works on patches of so many values a side.
        embedding: Width of the embedding of time and conditions. Default: `width`.
        time: "fourier" for times of about -2 to 2, as EDM's and flow's; "positional" for timesteps to 1000.
        fourier_scale: Standard deviation of the frequencies of "fourier", in periods for each unit of time.
        conditions: What it is told, by the keyword of `forward`: the name of a registered condition as
            "kind", and that condition's options.
        dropout: Share of values that training drops, at least 0 and below 1.
        logvar: Whether there is a log-variance head, ``logvar(time)``, which a loss must train.
        checkpointing: Whether blocks are computed again in the backward pass rather than kept.

    Raises:
        ParameterError: A value is not as described.
    """

    in_channels: int = field(default=3, validator=whole(1))
    out_channels: int | None = field(default=None, validator=optional(1))
    dims: int = field(default=2, validator=one_of(1, 2, 3))
    patch_size: int = field(default=1, validator=whole(1))
    embedding: int | None = field(default=None, validator=optional(2))
    time: str = field(default="fourier", validator=one_of(*TIMES))
    fourier_scale: float = field(default=1.0, validator=positive)
    conditions: dict[str, dict[str, Any]] = field(
        factory=dict, converter=_conditions, validator=_check_conditions, hash=False
    )
    dropout: float = field(default=0.0, validator=below_one)
    logvar: bool = field(default=False, validator=one_of(True, False))
    checkpointing: bool = field(default=False, validator=one_of(True, False))

    @property
    def outputs(self) -> int:
        """Number of channels of the output."""
        return self.in_channels if self.out_channels is None else self.out_channels

    @property
    def multiple(self) -> int:
        """What the sizes of a state are padded to a multiple of."""
        return self.patch_size

    @property
    def width(self) -> int:
        """Width of the embedding: as asked for, else 128."""
        return self.embedding or 128


@frozen(kw_only=True)
class LevelsConfig(NetworkConfig):
    """What networks with levels of falling resolution have.

    Attributes:
        channels: Channels of each level, the finest first.
        depths: Number of encoder blocks of each level; the decoder has one more.
        self_attention: For each level, or for all, whether each block is followed by self-attention.
        cross_attention: The same for attention to the tokens of the conditions.
        middle_attention: Whether the middle has self-attention.
        head_dim: Channels of an attention head; a level that has fewer has one head.
    """

    channels: tuple[int, ...] = field(default=(64, 128, 256), converter=as_tuple, validator=numbers(1))
    depths: tuple[int, ...] = field(default=(2, 2, 2), converter=as_tuple, validator=numbers(1))
    self_attention: tuple[bool, ...] | bool = field(default=False, converter=as_flags)
    cross_attention: tuple[bool, ...] | bool = field(default=False, converter=as_flags)
    middle_attention: bool = field(default=True, validator=one_of(True, False))
    head_dim: int = field(default=64, validator=whole(1))

    def __attrs_post_init__(self) -> None:
        levels = len(self.channels)
        if len(self.depths) != levels:
            raise refuse(self, "depths", f"one number for each of the {levels} levels of channels")
        for name in ("self_attention", "cross_attention"):
            flags = self.at_levels(name)
            if len(flags) != levels or not all(type(flag) is bool for flag in flags):
                raise refuse(self, name, f"a boolean, or one for each of the {levels} levels")
        for level, channels in enumerate(self.channels):
            attends = self.at_levels("self_attention")[level] or self.at_levels("cross_attention")[level]
            last = level == levels - 1 and self.middle_attention
            if (attends or last) and channels > self.head_dim and channels % self.head_dim:
                raise refuse(self, "head_dim", f"a divisor of the channels {channels} of level {level}")

    def at_levels(self, name: str) -> tuple[bool, ...]:
        """Return the flag of each level."""
        flags: tuple[bool, ...] | bool = getattr(self, name)
        return flags if isinstance(flags, tuple) else (flags,) * len(self.channels)

    @property
    def multiple(self) -> int:
        """What the sizes of a state are padded to a multiple of."""
        return int(self.patch_size * 2 ** (len(self.channels) - 1))

    @property
    def width(self) -> int:
        """Width of the embedding: as asked for, else four times the channels of the first level."""
        return self.embedding or 4 * self.channels[0]


def _kernel(instance: object, attribute: Attribute[Any], value: Any) -> None:
    good = isinstance(value, tuple) and len(value) >= 2 and len(value) % 2 == 0
    if not good or any(type(v) not in (int, float) for v in value) or not abs(sum(value)) > 1e-6:
        raise refuse(instance, attribute.name, "an even number of weights, such as (1, 3, 3, 1)")
    if value != value[::-1]:
        raise refuse(instance, attribute.name, "symmetric")


@frozen(kw_only=True)
class UNetConfig(LevelsConfig):
    """A UNet. Ronneberger et al. 2015, arXiv:1505.04597; Ho et al. 2020, arXiv:2006.11239.

    Attributes:
        modulation: How a block is told of the embedding. "add": added between its convolutions (Ho et al.
            2020). "adagn": scale and shift after its second norm (Dhariwal & Nichol 2021, arXiv:2105.05233).
            "film": scale and shift after both norms (Perez et al. 2018, arXiv:1709.07871). "ada_zero": as
            "adagn", and a gate of the block, 0 at first (Peebles & Xie 2022, arXiv:2212.09748).
        feed_forward: Whether attention is followed by a feed-forward layer, as in a transformer.
        qk_norm: Whether attention normalises queries and keys.
        groups: Most groups of a group norm; a group has at least four channels.
        resample: "average": mean of 2 values a side, and nearest neighbour. "conv": strided convolution, and
            nearest neighbour with a convolution. "shuffle": pixels to channels and back. "filter": `kernel`.
        kernel: Weights of "filter" along each dimension, an even number of them; their scale has no effect.
        skip: How the decoder takes up what the encoder kept: "concat", "add", or "lerp", a learned mixture
            (Crowson et al. 2024, arXiv:2401.11605).
    """

    modulation: str = field(default="adagn", validator=one_of(*MODULATIONS))
    feed_forward: bool = field(default=False, validator=one_of(True, False))
    qk_norm: bool = field(default=False, validator=one_of(True, False))
    groups: int = field(default=32, validator=whole(1))
    resample: str = field(default="average", validator=one_of(*RESAMPLING))
    kernel: tuple[float, ...] = field(default=(1, 3, 3, 1), converter=as_tuple, validator=_kernel)
    skip: str = field(default="concat", validator=one_of(*SKIPS))


def _share(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if not isinstance(value, float | int) or isinstance(value, bool) or not 0 < value < 1:
        raise refuse(instance, attribute.name, "between 0 and 1")


@frozen(kw_only=True)
class MagnitudeConfig(LevelsConfig):
    """A magnitude-preserving UNet. Karras et al. 2023, arXiv:2312.02696.

    Attributes:
        residual_balance: Share of a block's new value in its sum with the old one.
        attention_balance: The same of attention.
        concat_balance: Share of what the encoder kept in the decoder's concatenation.
        condition_balance: Share of the conditions in their sum with the time.
        clip: Values of the residual path are kept within so much of 0.
    """

    residual_balance: float = field(default=0.3, validator=_share)
    attention_balance: float = field(default=0.3, validator=_share)
    concat_balance: float = field(default=0.5, validator=_share)
    condition_balance: float = field(default=0.5, validator=_share)
    clip: float = field(default=256.0, validator=positive)


@frozen(kw_only=True)
class TransformerConfig(NetworkConfig):
    """A diffusion transformer. Peebles & Xie 2022, arXiv:2212.09748.

    Attributes:
        channels: Width of a token.
        depth: Number of blocks.
        head_dim: Channels of an attention head, a divisor of `channels`.
        positions: "rotary" (Su et al. 2021, arXiv:2104.09864), along each dimension, or "sincos", added.
        cross_attention: Whether blocks attend to the tokens of the conditions.
        expansion: Width of the feed-forward layer, in widths of a token.
        qk_norm: Whether attention normalises queries and keys (Henry et al. 2020, arXiv:2010.04245).
    """

    patch_size: int = field(default=2, validator=whole(1))
    channels: int = field(default=256, validator=whole(2))
    depth: int = field(default=6, validator=whole(1))
    head_dim: int = field(default=64, validator=whole(1))
    positions: str = field(default="rotary", validator=one_of("rotary", "sincos"))
    cross_attention: bool = field(default=False, validator=one_of(True, False))
    expansion: int = field(default=4, validator=whole(1))
    qk_norm: bool = field(default=True, validator=one_of(True, False))

    def __attrs_post_init__(self) -> None:
        if self.channels % self.head_dim:
            raise refuse(self, "head_dim", f"a divisor of channels={self.channels}")
        size = self.head_dim if self.positions == "rotary" else self.channels
        if size % (2 * self.dims):
            what = "head_dim" if self.positions == "rotary" else "channels"
            raise refuse(self, what, f"a multiple of {2 * self.dims}: a sine and a cosine each dimension")

    @property
    def width(self) -> int:
        """Width of the embedding: as asked for, else that of a token."""
        return self.embedding or self.channels
