"""Inpainting: a part of the data is known, and the rest is made to go with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from attrs import Attribute, field, frozen
from torch import Tensor

from kdiff_core import Prediction
from kdiff_core.errors import ParameterError, StateError
from kdiff_core.state import Leaves, check_output, flatten, flatten_like, rebuild, wide

from .guided import Guidance, has_parts
from .masks import fitted, rows, shares
from .vectors import column


def shown(state: Any) -> str:
    """The shapes of a state, in place of its values."""
    return "None" if state is None else f"<{', '.join(str(tuple(leaf.shape)) for leaf in flatten(state))}>"


def known(instance: object, attribute: Attribute[Any], value: Any) -> None:
    """Accept a state: finite, floating point."""
    name = f"{type(instance).__name__}: {attribute.name}"
    try:
        leaves = flatten(value)
    except StateError as error:
        raise ParameterError(f"{name}: {error}") from error
    if not leaves or not all(v.ndim and v.is_floating_point() and v.isfinite().all() for v in leaves):
        raise ParameterError(f"{name} must be a state of finite floating-point tensors, (1, ...) or (B, ...)")


def known_if_given(instance: object, attribute: Attribute[Any], value: Any) -> None:
    """The same, or None."""
    if value is not None:
        known(instance, attribute, value)


@frozen(eq=False)
class Inpaint(Guidance):
    """Keeps the known part of an image: at every evaluation the output there is the image.

    ``D = mask D(x) + (1 - mask) image``, for the guided, the conditional and the unconditional output alike.
    Begin the run with ``kd.start(sigmas, like, x0=image, ...)``. Every sampler that is exact for a constant
    output then carries the known part as ``alpha image + sigma noise``, which is what the model sees: with
    the run's own noise, fresh where the sampler adds fresh noise, and for soft masks of the right variance.
    No noise is drawn here, so a sample does not depend on its batch.

    A run that begins with pure noise needs `noise`: what the model sees is then blended too, ``mask x +
    (1 - mask) (alpha image + sigma noise)``, with one noise for all levels, as hosts do.

    A run to level 0 ends in the image itself where the mask is 0. Place it around guidance that puts several
    conditions into one call, unless the image and the mask have one row.

    Its other options, `sigma_low` and `sigma_high`, are those of `Guidance`: outside of them nothing is kept.

    Args:
        denoiser: The denoiser, guided or not.
        image: The known data, a state of one row or of one for each sample; for a latent model the latents.
        mask: How much each place may change: 1 is made anew, 0 kept, values between are blended. Of the shape
            of the last dimensions of a tensor, ``(H, W)``, ``(1, H, W)``, ``(B, 1, H, W)``, ...; of another
            size than the state it is resized, each place getting the mean of what it covers. One for all
            tensors of a state, or a nest of them.
        noise: Unit noise, a state like `image`. Default: the run's own.

    Raises:
        ParameterError: `image` or `noise` is no state, or `mask` has values outside 0 to 1.
    """

    image: Any = field(validator=known, repr=shown)
    mask: Any = field(converter=shares, repr=shown)
    noise: Any = field(default=None, validator=known_if_given, repr=shown, kw_only=True)

    def share(self, mask: Tensor, sigma: Tensor) -> Tensor:
        """Share of the model's output, between 0 and 1.

        Args:
            mask: The mask, of a size that goes with the tensor, in float32 or float64.
            sigma: Levels, ``(B, 1, ...)``.
        """
        return mask

    def __call__(self, x: Any, sigma: Tensor, **cond: Any) -> Any:
        """Return the output, the image in place of it where that is known."""
        if self._nowhere(sigma):
            return self.denoiser(x, sigma, **cond)
        given, weights = flatten(x), self._weights(x, sigma)
        output = self.denoiser(self._seen(x, given, sigma, weights), sigma, **cond)
        return self._kept(x, given, output, weights)

    @property
    def predict(self) -> Callable[..., Prediction]:
        """The three outputs, the image in place of each, where the denoiser has them."""
        if not has_parts(self.denoiser):
            raise AttributeError("predict")
        return self._predict

    def _predict(self, x: Any, sigma: Tensor, **cond: Any) -> Prediction:
        if self._nowhere(sigma):
            return self.parts(x, sigma, cond)
        given, weights = flatten(x), self._weights(x, sigma)
        found = self.parts(self._seen(x, given, sigma, weights), sigma, cond)
        return Prediction(*(self._kept(x, given, output, weights) for output in found))

    def restored(self, x: Any) -> Any:
        """Return an end state with the image itself where the mask is 0.

        Of a run that ends at level 0 it is there already; some samplers end a little above.
        """
        given, images = flatten(x), self._like(self.image, x, flatten(x), "image")
        leaves = [
            torch.where(mask == 0, image.to(leaf.dtype), leaf)
            for leaf, image, mask in zip(given, images, self._masks(x), strict=True)
        ]
        return rebuild(x, leaves)

    def _masks(self, x: Any) -> Leaves:
        """For each tensor of a state its mask."""
        given = flatten(x)
        masks = [self.mask] * len(given) if isinstance(self.mask, Tensor) else flatten_like(x, self.mask)
        return [fitted(mask, leaf) for mask, leaf in zip(masks, given, strict=True)]

    def _weights(self, x: Any, sigma: Tensor) -> Leaves:
        """For each tensor of a state the share of the model's output."""
        inside, found = self._inside(sigma), []
        for leaf, mask in zip(flatten(x), self._masks(x), strict=True):
            weight = self.share(mask, column(sigma, leaf))
            found.append(weight if inside is None else torch.where(column(inside, leaf), weight, 1.0))
        return found

    def _like(self, state: Any, x: Any, given: Leaves, name: str) -> Leaves:
        """The tensors of one of the fields, to go with those of a state."""
        return [
            rows(leaf.to(like.device, wide(like)), like, f"{type(self).__name__}: {name}")
            for leaf, like in zip(flatten_like(x, state), given, strict=True)
        ]

    def _seen(self, x: Any, given: Leaves, sigma: Tensor, weights: Leaves) -> Any:
        """The state that the model is given."""
        if self.noise is None:
            return x
        leaves = []
        images, noises = (self._like(getattr(self, n), x, given, n) for n in ("image", "noise"))
        for leaf, weight, image, noise in zip(given, weights, images, noises, strict=True):
            level = column(sigma.to(wide(leaf)), leaf)
            there = image * self._path.alpha(level) + noise * level
            leaves.append(torch.lerp(there, leaf.to(there), weight.to(there)).to(leaf.dtype))
        return rebuild(x, leaves)

    def _kept(self, x: Any, given: Leaves, output: Any, weights: Leaves) -> Any:
        """An output with the image in its place; exactly either where the share is 0 or 1."""
        leaves = []
        images = self._like(self.image, x, given, "image")
        for new, leaf, weight, image in zip(
            check_output(output, x, given), given, weights, images, strict=True
        ):
            leaves.append(torch.lerp(image, new.to(image), weight.to(image)).to(leaf.dtype))
        return rebuild(x, leaves)
