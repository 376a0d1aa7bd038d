"""What a plugin implements for training: `Dataset`, `Density`, `TrainingLoss`, `Augmentation`, `Features`.

And `Condition`, by which a network is told more than the noise level.

All randomness comes in as numbers that the caller drew by a key, so that what happens to the n-th image of a
run is the same after a resume, for any number of processes, and however many workers load data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class Dataset(Protocol):
    """Samples by number, in no order of its own.

    Optional attributes say more, as of a `kdiff_core.Denoiser`: ``sample_shape``, ``value_range``,
    ``classes``, ``class_names``.
    """

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        """Return sample `index`: ``"x"``, a float32 tensor, and its conditions by name.

        A class is ``"label"``, an integer. The same index gives the same sample.
        """
        ...


@runtime_checkable
class Density(Protocol):
    """A density of noise levels to train at."""

    def sigma(self, u: Tensor) -> Tensor:
        """Return the levels below which the fractions `u` of the mass lie, the inverse of `cdf`; float64."""
        ...

    def cdf(self, sigma: Tensor) -> Tensor:
        """Return the mass below each level."""
        ...

    def log_pdf(self, sigma: Tensor) -> Tensor:
        """Return the log-density with respect to sigma."""
        ...


@runtime_checkable
class TrainingLoss(Protocol):
    """What is made small."""

    def __call__(
        self, denoiser: Any, x0: Tensor, sigma: Tensor, noise: Tensor, cond: Mapping[str, Any]
    ) -> Tensor:
        """Return each sample's loss, ``(B,)``, with gradients to the denoiser's parameters.

        Args:
            denoiser: A `kdiff_core.parameterisations.Parameterised` over the network.
            x0: Data, ``(B, ...)``.
            sigma: A level for each sample, ``(B,)``.
            noise: Of unit variance, like `x0`.
            cond: Conditions.
        """
        ...


@runtime_checkable
class Augmentation(Protocol):
    """Changes images in a batch, and tells the network how, so that it does not leak into what is drawn.

    `size` and `draws` may be attributes or properties.
    """

    @property
    def size(self) -> int:
        """Length of the vector that describes a change; all zero describes none."""
        ...

    @property
    def draws(self) -> int:
        """Number of uniform numbers that one image takes."""
        ...

    def __call__(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return the changed images ``(B, C, H, W)`` and what was done, ``(B, size)``.

        Args:
            x: Images.
            u: Uniform numbers in ``[0, 1)``, ``(B, draws)``; a sample's own decide what happens to it.
        """
        ...


@runtime_checkable
class Condition(Protocol):
    """A module that turns what a network is told into what it can use.

    Its factory gets ``width=``, the width of the network's embedding, and the options in its config.
    Optional attributes: ``channels``, the number of channels, if it yields any; ``also``, further keywords
    that it wants, such as that of a mask.

    Attributes:
        yields: What it returns: any of "embedding", "tokens", "channels".
    """

    yields: tuple[str, ...]

    def __call__(self, value: Any, x: Tensor, **also: Any) -> Mapping[str, Tensor]:
        """Return any of these, by name.

        ``"embedding"``, ``(B, width)``, is added to the embedding of the time; ``"tokens"``, ``(B, T,
        width)``, with ``"mask"``, ``(B, T)``, true where a token counts, is for cross-attention;
        ``"channels"``, ``(B, channels, *spatial)``, is put beside the state.

        Args:
            value: What the network was given; None stands for the null value, as a sample's own null does.
            x: State, ``(B, C, *spatial)``.
            **also: What was given by the further keywords.
        """
        ...


@runtime_checkable
class Features(Protocol):
    """Turns images into vectors, by which sets of images are compared."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return the features, ``(B, F)``, of images ``(B, C, H, W)`` in the data's own range."""
        ...
