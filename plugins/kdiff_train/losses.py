"""Training losses: an error of the denoised sample, weighted by the noise level.

What a network predicts and what its error is weighted by are two things. The error of any prediction is a
multiple of the error of the denoised sample, so every loss is one of the weights of `WEIGHTS` on

``|D(x; sigma) - x0|^2``

(Kingma & Gao 2023, arXiv:2303.00848). The weights are functions of the noise-to-signal ratio
``r = sigma / alpha``, the same on VE and flow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from attrs import Attribute, field, frozen
from torch import Tensor

from kdiff_core.errors import CapabilityError, ParameterError
from kdiff_core.names import did_you_mean, quoted
from kdiff_core.parameters import positive

# Of the ratio sigma / alpha, float64, the standard deviation of the data, and gamma.
Weight = Callable[[Tensor, float, float], Tensor]

WEIGHTS: dict[str, Weight] = {
    # The denoised sample itself.
    "x0": lambda r, data, gamma: torch.ones_like(r),
    # The noise: the SNR. Ho et al. 2020, arXiv:2006.11239, eq. 14.
    "eps": lambda r, data, gamma: r**-2,
    # v: SNR + 1. Salimans & Ho 2022, arXiv:2202.00512, section 4.
    "v": lambda r, data, gamma: 1 + r**-2,
    # noise - x0. Liu et al. 2022, arXiv:2209.03003.
    "flow": lambda r, data, gamma: (1 + 1 / r) ** 2,
    # The network's output under EDM's preconditioning. Karras et al. 2022, arXiv:2206.00364, table 1.
    "edm": lambda r, data, gamma: data**-2 + r**-2,
    # Hang et al. 2023, arXiv:2303.09556.
    "min_snr": lambda r, data, gamma: (r**-2).clamp(max=gamma),
    # Smooth in place of the corner. Crowson et al. 2024, arXiv:2401.11605.
    "soft_min_snr": lambda r, data, gamma: 1 / (r**2 + 1 / gamma),
}
NORMS = ("squared", "pseudo_huber", "multi_scale")


def _known(names: Mapping[str, Any] | tuple[str, ...]) -> Any:
    def validate(instance: object, attribute: Attribute[str], value: Any) -> None:
        if value not in names:
            raise ParameterError(
                f"Loss: {attribute.name}={value!r}: there are {quoted(names)}{did_you_mean(value, names)}"
            )

    return validate


@frozen
class Loss:
    """A weighted error of the denoised sample.

    Attributes:
        weight: Name in `WEIGHTS`: the error of what is made small.
        norm: "squared" (the mean over a sample), "pseudo_huber" (``sqrt(|e|^2 + c^2) - c`` of the root mean
            square e: Song & Dhariwal 2023, arXiv:2310.14189, section 3.3) or "multi_scale" (the sum over
            halved images down to `smallest`, each by ``smallest / side``: Hoogeboom et al. 2023,
            arXiv:2301.11093).
        gamma: Of the weights min_snr and soft_min_snr: the highest SNR that counts, above 0.
        sigma_data: Standard deviation of the data. Default: the denoiser's.
        c: Of pseudo_huber, above 0: errors above it count linearly. Default 0.00054, of a root mean square.
        smallest: Of multi_scale, the smallest side of an image.
        uncertainty: Whether the network's log-variance u(sigma) weights it too, ``L / e^u + u``: Karras et
            al. 2023, arXiv:2312.02696.
    """

    weight: str = field(default="edm", validator=_known(WEIGHTS))
    norm: str = field(default="squared", validator=_known(NORMS))
    gamma: float = field(default=5.0, converter=float, validator=positive)
    sigma_data: float | None = None
    c: float = field(default=0.00054, converter=float, validator=positive)
    smallest: int = field(default=32, validator=positive)
    uncertainty: bool = False

    def weights(self, denoiser: Any, sigma: Tensor) -> Tensor:
        """Return the weight of the squared error at each level, ``(B,)``, float64 where there is one."""
        level = denoiser.level(sigma)
        data = getattr(denoiser, "sigma_data", 1.0) if self.sigma_data is None else self.sigma_data
        return WEIGHTS[self.weight](level.sigma / level.alpha, data, self.gamma)

    def __call__(
        self, denoiser: Any, x0: Tensor, sigma: Tensor, noise: Tensor, cond: Mapping[str, Any]
    ) -> Tensor:
        """Return each sample's loss, ``(B,)``, float32; see `kdiff_core.training.TrainingLoss`.

        Raises:
            CapabilityError: `uncertainty`, and the network has no log-variance.
        """
        level = denoiser.level(sigma)
        x = _beside(level.alpha, x0) * x0 + _beside(level.sigma, x0) * noise
        error = denoiser(x.to(x0), sigma, **cond) - x0
        error = error * _beside(self.weights(denoiser, sigma).sqrt(), error).to(error)
        values = self._norm(error)
        if not self.uncertainty:
            return values
        log_variance = getattr(denoiser.network, "logvar", None)
        if log_variance is None:
            raise CapabilityError(
                "the loss weights by uncertainty, but the network has no log-variance head: build it with "
                "one, or give uncertainty=False"
            )
        u: Tensor = log_variance(denoiser.times(sigma)).to(values)
        return values * (-u).exp() + u

    def _norm(self, error: Tensor) -> Tensor:
        if self.norm == "multi_scale":
            return _multi_scale(error, self.smallest)
        squared = _mean(error**2)
        if self.norm == "squared":
            return squared
        return squared / ((squared + self.c**2).sqrt() + self.c)


def _beside(value: Tensor, x: Tensor) -> Tensor:
    """Give a value of each sample the dimensions of a state."""
    return value.reshape(-1, *[1] * (x.ndim - 1))


def _mean(values: Tensor) -> Tensor:
    return values.flatten(1).mean(1)


def _multi_scale(error: Tensor, smallest: int) -> Tensor:
    """Return the sum of squared errors of ever smaller images; errors can be halved, as halving is linear."""
    total = torch.zeros(error.shape[0], dtype=error.dtype, device=error.device)
    pool = {3: torch.nn.functional.avg_pool1d, 4: torch.nn.functional.avg_pool2d}.get(
        error.ndim, torch.nn.functional.avg_pool3d
    )
    while True:
        side = min(error.shape[2:])
        total = total + _mean(error**2) * (smallest / side)
        if side % 2 or side // 2 < smallest or any(each % 2 for each in error.shape[2:]):
            return total
        error = pool(error, 2)
