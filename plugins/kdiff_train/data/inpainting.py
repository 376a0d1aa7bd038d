"""`inpainting`: another data set, with the condition from which a network learns to fill holes."""

from __future__ import annotations

from typing import Any

from attrs import evolve, field, frozen

from kdiff_core.errors import ParameterError
from kdiff_core.lookup import get_augmentation, get_dataset
from kdiff_core.names import quoted
from kdiff_core.parameters import whole
from kdiff_core.training import Augmentation, Dataset

from ..keys import uniform
from ..masks import MASKS, Mask, hide


@frozen(eq=False)
class Inpainting:
    """Images of another data set, each with `variants` masks.

    Sample `i` is image ``i % n`` of the data set's `n` under a mask that is a function of `seed` and `i`. It
    has the condition ``concat``: the mask, 1 where hidden, and the image, 0 where hidden.

    A mask must move with the image. So an augmentation is given here, and none to the trainer: it
    changes the image before the mask hides a part of it, and its vector is the condition ``augment``.

    Attributes:
        data: The data set.
        mask: The kind of masks.
        variants: Masks of each image.
        augmentation: What changes the images, or None.
        seed: Seed of the masks and of the augmentation.
    """

    data: Dataset
    mask: Mask
    variants: int = field(default=100, validator=whole(1))
    augmentation: Augmentation | None = None
    seed: int = 0

    @property
    def fingerprint(self) -> str:
        """What identifies the samples, if the data set says what identifies its own."""
        own = getattr(self.data, "fingerprint", None)
        if own is None:
            raise AttributeError(f"{self.data!r} has no fingerprint")
        return f"{own}-{evolve(self, data=None)}"  # type: ignore[arg-type]

    def __len__(self) -> int:
        """Number of samples: of images times masks."""
        return len(self.data) * self.variants

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return sample `index`: that of the data set with ``concat``, and ``augment``."""
        if not 0 <= index < len(self):
            raise IndexError(f"there is no sample {index}; there are {len(self)}")
        sample = dict(self.data[index % len(self.data)])
        x = sample["x"][None]
        if self.augmentation is not None:
            drawn = uniform(self.seed, "inpainting augmentation", index, 1, self.augmentation.draws)
            x, vector = self.augmentation(x, drawn)
            sample["augment"] = vector[0]
        masks = self.mask(uniform(self.seed, "inpainting", index, 1, self.mask.draws), *x.shape[2:])
        return {**sample, "x": x[0], "concat": hide(x, masks)[0]}

    def __getattr__(self, name: str) -> Any:
        """Find what the data set says of itself."""
        if name not in ("sample_shape", "value_range", "classes", "class_names"):
            raise AttributeError(f"Inpainting has no attribute {name!r}")
        return getattr(self.data, name)


def inpainting(
    data: Any,
    mask: str = "mixed",
    options: dict[str, Any] | None = None,
    mask_options: dict[str, Any] | None = None,
    variants: int = 100,
    augmentation: Any = None,
    augmentation_options: dict[str, Any] | None = None,
    seed: int = 0,
) -> Inpainting:
    """Return a data set for training a network that fills holes.

    Args:
        data: A data set of images or its name, which `options` go with.
        mask: "box", "half", "brush", "free_form" or "mixed"; see `kdiff_train.masks`.
        options: Options of the data set.
        mask_options: Attributes of the mask.
        variants: Masks of each image, at least 1; the data set is that many times as long.
        augmentation: An augmentation or its name, which `augmentation_options` go with.
        augmentation_options: Options of the augmentation.
        seed: Seed of the masks and of the augmentation.

    Raises:
        ParameterError: No such mask, or an option that it has not.
    """
    if mask not in MASKS:
        raise ParameterError(f"mask={mask!r}: there are {quoted(MASKS)}")
    try:
        made = MASKS[mask](**(mask_options or {}))
    except TypeError as error:
        raise ParameterError(f"mask {mask!r}: {error}") from error
    change = None if augmentation is None else get_augmentation(augmentation, **(augmentation_options or {}))
    return Inpainting(get_dataset(data, **(options or {})), made, variants, change, seed)
