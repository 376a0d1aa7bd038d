"""What networks predict, and what they are told of the noise level: three functions of the level each.

A network sees the state times a factor and a number that stands for the noise level; the denoised state is
a weighted sum of the state and of the network's output:

``D = c_skip x + c_out F(c_in x, time)``

(Karras et al. 2022, arXiv:2206.00364, eq. 7). `INPUTS` has ``c_in``, `PREDICTIONS` the weights
``(c_skip, c_out)``, `TIMES` the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Level(NamedTuple):
    """The noise level of each sample, float64 and ``(B,)``: a state is ``alpha x0 + sigma noise``.

    Attributes:
        alpha: Factor of the data: 1 on VE, ``1 - sigma`` on flow.
        sigma: Factor of the noise.
        data: Standard deviation of the data that the network was made for.
        timestep: Place in the process's table, computed when asked for.
    """

    alpha: Tensor
    sigma: Tensor
    data: float
    timestep: Callable[[], Tensor]


# Of a level, the weights (c_skip, c_out) of the state and of the network's output.
Weights = Callable[[Level], tuple[Tensor, Tensor]]


def epsilon(level: Level) -> tuple[Tensor, Tensor]:
    """The noise: ``D = (x - sigma F) / alpha``. Ho et al. 2020, arXiv:2006.11239."""
    return 1 / level.alpha, -level.sigma / level.alpha


def sample(level: Level) -> tuple[Tensor, Tensor]:
    """The data itself: ``D = F``."""
    return torch.zeros_like(level.sigma), torch.ones_like(level.sigma)


def v_prediction(level: Level) -> tuple[Tensor, Tensor]:
    """``F = (alpha noise - sigma x0) / sqrt(alpha^2 + sigma^2)``. Salimans & Ho 2022, arXiv:2202.00512."""
    square = level.alpha**2 + level.sigma**2
    return level.alpha / square, -level.sigma / square.sqrt()


def flow_prediction(level: Level) -> tuple[Tensor, Tensor]:
    """``F = noise - x0``: ``D = (x - sigma F) / (alpha + sigma)``. Liu et al. 2022, arXiv:2209.03003."""
    total = level.alpha + level.sigma
    return 1 / total, -level.sigma / total


def edm(level: Level) -> tuple[Tensor, Tensor]:
    """EDM's preconditioning. Karras et al. 2022, arXiv:2206.00364, table 1, here for any alpha."""
    square = (level.alpha * level.data) ** 2 + level.sigma**2
    return level.alpha * level.data**2 / square, level.sigma * level.data / square.sqrt()


def trigflow(level: Level) -> tuple[Tensor, Tensor]:
    """``D = cos(t) x_t - sin(t) sigma_data F``, ``x_t = cos(t) x``. Lu & Song 2024, arXiv:2410.11081."""
    c_skip, c_out = edm(level)
    return c_skip, -c_out


def consistency(level: Level) -> tuple[Tensor, Tensor]:
    """The boundary ``D(x, 0.002) = x``. Song et al. 2023, arXiv:2303.01469, appendix C."""
    ratio, low = level.sigma / level.alpha, 0.002
    c_skip = level.data**2 / ((ratio - low) ** 2 + level.data**2)
    return c_skip / level.alpha, level.data * (ratio - low) / (ratio**2 + level.data**2).sqrt()


def lcm(level: Level) -> tuple[Tensor, Tensor]:
    """A noise prediction with a boundary at timestep 0. Luo et al. 2023, arXiv:2310.04378.

    ``D = c_skip x_vp + c_out x0``, ``x0`` being what `epsilon` gives, ``x_vp`` the state of the VP process,
    and the boundary's time ten timesteps each, as in the code of its authors.
    """
    place = 10 * level.timestep() / level.data
    c_skip, c_out = 1 / (place**2 + 1), place / (place**2 + 1).sqrt()
    from_state, from_output = epsilon(level)
    return c_skip * INPUTS["vp"](level) + c_out * from_state, c_out * from_output


INPUTS: dict[str, Callable[[Level], Tensor]] = {
    "state": lambda level: torch.ones_like(level.sigma),
    # The state of a variance-preserving process.
    "vp": lambda level: (level.alpha**2 + level.sigma**2).rsqrt(),
    # Unit variance, for data of the standard deviation `data`.
    "unit": lambda level: ((level.alpha * level.data) ** 2 + level.sigma**2).rsqrt(),
    # The state of a rectified flow.
    "flow": lambda level: 1 / (level.alpha + level.sigma),
}

TIMES: dict[str, Callable[[Level], Tensor]] = {
    "timestep": lambda level: level.timestep(),
    "sigma": lambda level: level.sigma,
    "noise_fraction": lambda level: level.sigma / (level.alpha + level.sigma),
    "data_fraction": lambda level: level.alpha / (level.alpha + level.sigma),
    "angle": lambda level: torch.atan2(level.sigma, level.alpha * level.data),
    "quarter_log": lambda level: (level.sigma / level.alpha).log() / 4,
    "log_half": lambda level: (level.sigma / level.alpha / 2).log(),
}


class Prediction(NamedTuple):
    """What networks of one kind have in common; every part can be given otherwise.

    Attributes:
        weights: The weights ``(c_skip, c_out)``.
        input: Name of ``c_in``; None is "vp" on the VE path and "state" on the flow path.
        time: Name of the time.
        time_scale: Factor of the time.
        data: Standard deviation of the data.
        process: Name of the usual noise process.
    """

    weights: Weights
    input: str | None = None
    time: str = "timestep"
    time_scale: float = 1.0
    data: float = 1.0
    process: str | None = None


PREDICTIONS: dict[str, Prediction] = {
    "epsilon": Prediction(epsilon),
    "v_prediction": Prediction(v_prediction),
    "sample": Prediction(sample),
    "flow_prediction": Prediction(flow_prediction, "flow", "noise_fraction", 1000.0, process="flow"),
    "cosmos": Prediction(flow_prediction, "flow", "noise_fraction", process="edm"),
    "edm": Prediction(edm, "unit", "quarter_log", data=0.5, process="edm"),
    "trigflow": Prediction(trigflow, "unit", "angle", data=0.5, process="trigflow"),
    "consistency": Prediction(consistency, "unit", "quarter_log", 1000.0, 0.5, "edm"),
    "lcm": Prediction(lcm, data=0.5),
}
ALIASES = {"eps": "epsilon", "v": "v_prediction", "x0": "sample", "flow": "flow_prediction"}


def table_place(sigma: Tensor, log_levels: Tensor) -> Tensor:
    """Return the place of levels in a rising table, linear in log sigma between entries, within the table.

    Args:
        sigma: Levels, ``(B,)``, at least 0.
        log_levels: Logarithms of the table's levels, ``(T,)``, in the device and dtype of `sigma`.
    """
    logs = sigma.log()
    low = (torch.searchsorted(log_levels, logs, right=True) - 1).clamp(0, len(log_levels) - 2)
    within = (logs - log_levels[low]) / (log_levels[low + 1] - log_levels[low])
    return low + within.clamp(0, 1)


def table_level(place: Tensor, log_levels: Tensor) -> Tensor:
    """Return the levels at places in a rising table, the inverse of `table_place`."""
    low = place.floor().long().clamp(0, len(log_levels) - 2)
    return torch.lerp(log_levels[low], log_levels[low + 1], place - low).exp()
