"""The config of a training run: what a YAML or JSON file says, and `kdiff train` runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import Attribute, asdict, field, frozen

from kdiff_core.errors import ParameterError
from kdiff_core.parameters import fraction, not_negative, one_of, positive, whole


class Named(Mapping[str, Any]):
    """A registered thing and its options, as ``{name: lognormal, mean: -1.2}`` or just ``lognormal``."""

    def __init__(self, name: str, options: Mapping[str, Any] | None = None) -> None:
        self.name, self.options = name, dict(options or {})

    def __getitem__(self, key: str) -> Any:
        return self.name if key == "name" else self.options[key]

    def __iter__(self) -> Iterator[str]:
        return iter(("name", *self.options))

    def __len__(self) -> int:
        return 1 + len(self.options)

    def __repr__(self) -> str:
        return f"Named({self.name!r}, {self.options!r})"


def _optional(check: Any) -> Any:
    """Accept None too."""

    def validate(instance: object, attribute: Attribute[Any], value: Any) -> None:
        if value is not None:
            check(instance, attribute, value)

    return validate


def _shares(instance: object, attribute: Attribute[Any], value: Mapping[str, float]) -> None:
    for name, share in value.items():
        if not 0 <= share <= 1:
            raise ParameterError(f"{attribute.name}: {name}={share} must be from 0 to 1")


def _micro(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if value is None or value == "auto":
        return
    if type(value) is not int or value < 1:
        raise ParameterError(f"micro={value!r} must be a whole number of at least 1, 'auto' or nothing")


@frozen(kw_only=True)
class DenoiserConfig:
    """How the network becomes a denoiser; see `kdiff_core.parameterisations.Parameterised`.

    Attributes:
        prediction: What the network's output is.
        process: The noise process. Default: the prediction's usual one.
        sigma_data: Standard deviation of the data. Default: "auto", measured on up to 1,024 samples, where
            the prediction uses it; else the prediction's.
    """

    prediction: str = "edm"
    process: Named | None = None
    sigma_data: float | str | None = "auto"


@frozen(kw_only=True)
class DataConfig:
    """Where samples come from.

    Attributes:
        dataset: The data set and its options.
        workers: Processes that read ahead; 0 reads in the training process.
    """

    dataset: Named = field(factory=lambda: Named("digits"))
    workers: int = field(default=0, validator=whole(0))


@frozen(kw_only=True)
class NoiseConfig:
    """What noise is added, beside that of the process.

    Attributes:
        offset: Standard deviation of a number added to the noise of a whole channel: Guttenberg 2023,
            "Diffusion with offset noise".
        perturbation: Standard deviation of noise added to the noise that the network sees, but not to what
            it is asked for: Ning et al. 2023, arXiv:2301.11706.
        stratified: Whether the levels of a batch fall one in each equal part of the density.
    """

    offset: float = field(default=0.0, validator=not_negative)
    perturbation: float = field(default=0.0, validator=not_negative)
    stratified: bool = True


@frozen(kw_only=True)
class OptimizerConfig:
    """What updates the weights.

    Attributes:
        name: A name in `kdiff_train.optimizers.OPTIMIZERS`, or an import path.
        lr: Learning rate.
        weight_decay: Decay of the weights that decay.
        clip: Norm to which gradients are cut, or None.
        options: Other arguments, such as ``betas``.
    """

    name: str = "adamw"
    lr: float = field(default=1e-3, validator=positive)
    weight_decay: float = field(default=0.0, validator=not_negative)
    clip: float | None = field(default=1.0, validator=_optional(positive))
    options: dict[str, Any] = field(factory=dict)


@frozen(kw_only=True)
class BatchConfig:
    """How many images an update of the weights sees.

    Attributes:
        size: Images for one update, over all processes.
        micro: Images at a time on one process; None: all of its share. "auto" is the most that fits. It
            changes results by rounding alone.
    """

    size: int = field(default=64, validator=whole(1))
    micro: int | str | None = field(default=None, validator=_micro)


@frozen(kw_only=True)
class CheckpointConfig:
    """What is written to go on from.

    Attributes:
        every: Images between checkpoints; None: only at the end.
        keep: Newest checkpoints to keep.
        snapshots: Images between snapshots of the power-function averages, for `kdiff_train.post_hoc`; None:
            no snapshots.
    """

    every: int | None = field(default=100_000, validator=_optional(whole(1)))
    keep: int = field(default=3, validator=whole(1))
    snapshots: int | None = field(default=None, validator=_optional(whole(1)))


@frozen(kw_only=True)
class LogConfig:
    """What is reported.

    Attributes:
        every: Images between reports.
        levels: Number of parts of the density by which the loss is told apart.
        gradient_noise: Whether the gradient noise scale is measured, where a batch has several micro-batches.
        trackers: Trackers of accelerate, such as "tensorboard" and "wandb".
        project: Name for trackers.
    """

    every: int = field(default=6_400, validator=whole(1))
    levels: int = field(default=4, validator=whole(1))
    gradient_noise: bool = True
    trackers: list[str] = field(factory=list)
    project: str = "kdiff"


@frozen(kw_only=True)
class SamplesConfig:
    """Images drawn as training goes on.

    Attributes:
        every: Images between drawings; None: only at the end.
        n: How many.
        sampler: Name or label of a sampler.
        steps: Its steps.
        guidance: Scale of guidance, for networks with classes.
        seed: Seed of their noise.
    """

    every: int | None = field(default=None, validator=_optional(whole(1)))
    n: int = field(default=64, validator=whole(1))
    sampler: str = "DPM++ 2M Karras"
    steps: int = field(default=30, validator=whole(1))
    guidance: float | None = None
    seed: int = field(default=0, validator=whole(0))


@frozen(kw_only=True)
class Config:
    """A training run.

    Attributes:
        model: The network and its options.
        denoiser: How it becomes a denoiser.
        data: Where samples come from.
        augmentation: What is done to them, or None. The network has the condition ``augment``.
        loss: What is made small.
        density: At which noise levels.
        noise: What noise is added.
        drop: Shares of samples of which conditions are dropped, by name, such as ``{label: 0.1}``.
        self_conditioning: Share of samples for which the network, which has the condition ``previous``, is
            given its own estimate: Chen et al. 2022, arXiv:2208.04202. 0: never.
        optimizer: What updates the weights.
        rate: The learning rate by images seen; see `kdiff_train.rate`.
        ema: Averages of the weights by name; see `kdiff_train.ema`. Default: one, "ema".
        batch: How many images an update sees.
        images: Length of the run.
        seed: All that is random is a function of it.
        precision: "no", "bf16" or "fp16".
        compile: Whether the network is compiled.
        channels_last: Whether its weights lie channels last.
        checkpointing: Whether its activations are computed again in the backward pass.
        patience: Updates in a row that may be skipped for a loss or gradient that is not finite.
        checkpoint: What is written to go on from.
        log: What is reported.
        samples: Images drawn as training goes on.
    """

    model: Named = field(factory=lambda: Named("unet"))
    denoiser: DenoiserConfig = field(factory=DenoiserConfig)
    data: DataConfig = field(factory=DataConfig)
    augmentation: Named | None = None
    loss: Named = field(factory=lambda: Named("edm"))
    density: Named = field(factory=lambda: Named("lognormal"))
    noise: NoiseConfig = field(factory=NoiseConfig)
    drop: dict[str, float] = field(factory=dict, validator=_shares)
    self_conditioning: float = field(default=0.0, validator=not_negative)
    optimizer: OptimizerConfig = field(factory=OptimizerConfig)
    rate: Named = field(factory=lambda: Named("constant", {"warmup": 10_000}))
    ema: dict[str, Named] = field(factory=lambda: {"ema": Named("warmup")})
    batch: BatchConfig = field(factory=BatchConfig)
    images: int = field(default=1_000_000, validator=whole(1))
    seed: int = field(default=0, validator=whole(0))
    precision: str = field(default="no", validator=one_of("no", "bf16", "fp16"))
    compile: bool = False
    channels_last: bool = False
    checkpointing: bool = False
    patience: int = field(default=20, validator=whole(1))
    checkpoint: CheckpointConfig = field(factory=CheckpointConfig)
    log: LogConfig = field(factory=LogConfig)
    samples: SamplesConfig = field(factory=SamplesConfig)

    def __attrs_post_init__(self) -> None:
        if self.self_conditioning:
            fraction(self, _attribute("self_conditioning"), self.self_conditioning)


def _attribute(name: str) -> Any:
    return Config.__attrs_attrs__[[a.name for a in Config.__attrs_attrs__].index(name)]


def plain(config: Any) -> dict[str, Any]:
    """Return a config as JSON has it, which reads back as the same config."""
    return asdict(config, value_serializer=lambda _, __, value: _plain(value), recurse=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Named):
        return dict(value)
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return value
