"""What a run's images meet, by their number: data, noise, level, changes, dropped conditions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kdiff_core.errors import ParameterError
from kdiff_core.names import did_you_mean, quoted

from . import keys
from .config import Config
from .data.loading import loader, take


class Batch(NamedTuple):
    """Images of a run in a row.

    Attributes:
        first: Number of the first of them.
        x0: Data, ``(B, ...)``.
        sigma: Levels, ``(B,)``.
        noise: Unit noise, like the data.
        cond: Conditions by name.
        previous: Which of them the network is given its own estimate of, ``(B,)``; None: none.
        u: The levels' place in the density, ``(B,)``, float64, on the CPU.
        sample: Their numbers in the data set, ``(B,)``, on the CPU.
    """

    first: int
    x0: Tensor
    sigma: Tensor
    noise: Tensor
    cond: dict[str, Tensor]
    previous: Tensor | None
    u: Tensor
    sample: Tensor


class Batches:
    """Makes the batches of a run.

    Args:
        config: The run.
        dataset: The samples.
        density: Of the levels.
        augmentation: What is done to them, or None.
        conditions: Those of the network, by name, as its config has them; None: it takes what the data have.
        alpha: Factor of the data, of levels ``(B,)``.

    Raises:
        ParameterError: A condition that is to be dropped is not there, or one that is to be told; or the
            network's is of another size than the augmentation's.
    """

    def __init__(
        self,
        config: Config,
        dataset: Any,
        density: Any,
        augmentation: Any,
        conditions: Mapping[str, Any] | None,
        alpha: Any,
    ) -> None:
        self.config, self.dataset, self.density = config, dataset, density
        self.augmentation, self.conditions, self.alpha = augmentation, conditions, alpha
        given = self.given(set(dataset[0]) - {"x"})
        for name in config.drop:
            if name not in given:
                raise ParameterError(
                    f"drop: the network is given no condition {name!r}{did_you_mean(name, given) or '.'} "
                    f"It is given {quoted(sorted(given)) or 'none'}: what both the data set and it have."
                )
        for name, wanted in (("augment", augmentation), ("previous", config.self_conditioning)):
            if wanted and conditions is not None and name not in conditions:
                raise ParameterError(
                    f"the network needs the condition {name!r}, by which it is told: add it to the "
                    "conditions of the model"
                )
        size = (conditions or {}).get("augment", {}).get("size")
        if augmentation is not None and size not in (None, augmentation.size):
            raise ParameterError(
                f"the network's condition 'augment' has the size {size}; the augmentation's vector has "
                f"{augmentation.size} numbers"
            )

    def given(self, names: set[str]) -> set[str]:
        """Return which conditions of the data the network has."""
        known = names if self.conditions is None else {*self.conditions, *self._masks()}
        return names & known

    def _masks(self) -> set[str]:
        kinds = (self.conditions or {}).values()
        return {each.get("mask", "token_mask") for each in kinds if each.get("kind") == "tokens"}

    def samples(self, first: int, start: int, share: int) -> Iterator[dict[str, Tensor]]:
        """Yield the samples of one process, update after update, without end.

        Args:
            first: Number of the run's next image.
            start: Where the process's share of a batch begins.
            share: Images of its share.
        """
        config = self.config

        def indices() -> Iterator[int]:
            number = first + start
            while True:
                yield from keys.order(config.seed, len(self.dataset), number, share).tolist()
                number += config.batch.size

        pinned = torch.cuda.is_available()
        return loader(self.dataset, indices(), share, config.data.workers, pinned)

    def at(self, first: int, count: int, device: Any) -> Batch:
        """Return the batch of the images number `first`, `first` + 1, ... of the run."""
        index = keys.order(self.config.seed, len(self.dataset), first, count)
        return self.make(first, take(self.dataset, index.tolist()), device)

    def make(self, first: int, samples: Mapping[str, Tensor], device: Any) -> Batch:
        """Return the batch of samples, which are the images number `first`, `first` + 1, ... of the run."""
        config, seed = self.config, self.config.seed
        # Copied: what is done to a batch must not be done to the data set.
        x0 = samples["x"].to(device, torch.float32, non_blocking=True, copy=True)
        count = x0.shape[0]
        cond = {
            name: samples[name].to(device, non_blocking=True)
            for name in sorted(self.given(set(samples) - {"x"}))
        }
        for name, share in sorted(config.drop.items()):
            gone = keys.uniform(seed, f"drop {name}", first, count)[:, 0] < share
            self._drop(cond, name, gone.to(device))
        if self.augmentation is not None:
            u = keys.uniform(seed, "augmentation", first, count, self.augmentation.draws)
            x0, cond["augment"] = self.augmentation(x0, u)
        u = self._levels(first, count)
        sigma = self.density.sigma(u).to(device, torch.float32)
        noise = self._noise(first, x0)
        x0 = self._perturbed(first, x0, sigma)
        previous = None
        if config.self_conditioning:
            drawn = keys.uniform(seed, "self-conditioning", first, count)[:, 0]
            previous = (drawn < config.self_conditioning).to(device)
        index = keys.order(seed, len(self.dataset), first, count)
        return Batch(first, x0, sigma, noise, cond, previous, u, index)

    def _levels(self, first: int, count: int) -> Tensor:
        if self.config.noise.stratified:
            return keys.stratified(self.config.seed, first, count, self.config.batch.size)
        return keys.uniform(self.config.seed, "level", first, count)[:, 0]

    def _noise(self, first: int, x0: Tensor) -> Tensor:
        seed, offset = self.config.seed, self.config.noise.offset
        noise = keys.normal(seed, "noise", first, *x0.shape)
        if offset:
            added = keys.normal(seed, "offset", first, *x0.shape[:2])
            noise += offset * added.reshape(*x0.shape[:2], *[1] * (x0.ndim - 2))
        return noise.to(x0.device, non_blocking=True)

    def _perturbed(self, first: int, x0: Tensor, sigma: Tensor) -> Tensor:
        """Add noise that the network is not asked for: data that are noisier by the same in the state."""
        size = self.config.noise.perturbation
        if not size:
            return x0
        added = keys.normal(self.config.seed, "perturbation", first, *x0.shape).to(x0.device)
        ratio = (sigma / self.alpha(sigma)).reshape(-1, *[1] * (x0.ndim - 1))
        changed: Tensor = x0 + size * ratio.to(x0) * added
        return changed

    def _drop(self, cond: dict[str, Tensor], name: str, gone: Tensor) -> None:
        """Put the value that stands for nothing where a condition is dropped."""
        value = cond[name]
        kind = (self.conditions or {}).get(name, {}).get("kind")
        if kind == "tokens":
            mask = self.conditions[name].get("mask", "token_mask")  # type: ignore[index]
            seen = cond.get(mask, torch.ones(value.shape[:2], dtype=torch.bool, device=value.device))
            cond[mask] = seen & ~gone[:, None]
            return
        nothing = (
            -1 if kind == "class" or not value.is_floating_point() else torch.nan if kind == "number" else 0
        )
        cond[name] = torch.where(gone.reshape(-1, *[1] * (value.ndim - 1)), nothing, value).to(value.dtype)


def alpha_of(path: str) -> Any:
    """Return the factor of the data as a function of the level, of a path."""
    return torch.ones_like if path == "ve" else lambda sigma: 1 - sigma
