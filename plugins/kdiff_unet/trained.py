"""Networks that were trained, as denoisers that are ready to sample from."""

from __future__ import annotations

from pathlib import Path

import torch
from attrs import evolve

from kdiff_core.errors import ParameterError
from kdiff_core.model_file import read_model
from kdiff_core.parameterisations import Parameterised


def trained(file: str | Path, dtype: str = "float32", device: str = "cpu") -> Parameterised:
    """Return the denoiser in a model file; see `kdiff_core.model_file`.

    Args:
        file: A ``.safetensors`` file that training wrote.
        dtype: Dtype of the network's weights: "float32", "bfloat16", "float16" or "float64".
        device: Where it is to be.

    Raises:
        ParameterError: It cannot be read, or the dtype is none of these.
    """
    dtypes = {name: getattr(torch, name) for name in ("float32", "bfloat16", "float16", "float64")}
    if dtype not in dtypes:
        raise ParameterError(f"dtype={dtype!r} must be one of {', '.join(dtypes)}")
    return read_model(file, dtypes[dtype], device)


def mnist(dtype: str = "float32", device: str = "cpu") -> Parameterised:
    """Return the network that ships, trained on 4,000 of MNIST's digits by ``kdiff train --preset mnist``.

    Args:
        dtype: As in `trained`.
        device: Where it is to be.
    """
    found = trained(Path(__file__).with_name("mnist.safetensors"), dtype, device)
    # Its name leads to the file, so a replay needs no path.
    about = {name: value for name, value in found.about.items() if name != "replay_options"}
    return evolve(found, about=about)
