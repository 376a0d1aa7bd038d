"""Averages of the weights of any width, made after the run of a few snapshots of two averages.

Two averages with weights that grow as a power of the images seen (`kdiff_train.ema.Power`) are written now
and then. Any other power-function average is close to a linear combination of the snapshots: the one whose
profile over the run is nearest in the least-squares sense. Karras et al. 2023, arXiv:2312.02696, section 3.2.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from kdiff_core.errors import ParameterError
from kdiff_core.files import write_whole
from kdiff_core.model_file import describe_model, read_model, write_model

from .ema import Average, Power, exponent, put


class Snapshot(NamedTuple):
    """An average as it was at some time.

    Attributes:
        file: Where its tensors are.
        images: Images seen.
        std: Width of its profile, as a part of the run so far.
        averaged: Names of the tensors that are averages; others are the newest.
    """

    file: Path
    images: int
    std: float
    averaged: tuple[str, ...]


def write_snapshot(folder: str | Path, images: int, averages: Mapping[str, Average]) -> None:
    """Write the power-function averages among some.

    Args:
        folder: Of the snapshots; made if need be.
        images: Images seen.
        averages: By name.

    Raises:
        ParameterError: None of them is a power-function average.
    """
    chosen = {n: a for n, a in averages.items() if isinstance(a.profile, Power)}
    if not chosen:
        raise ParameterError(
            "snapshots are of power-function averages, and the run has none: give ema two, such as "
            "{narrow: {name: power, std: 0.05}, wide: {name: power, std: 0.1}}"
        )
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, average in chosen.items():
        about = {
            "images": str(images),
            "std": repr(average.profile.std),  # type: ignore[attr-defined]
            "averaged": json.dumps(average.averaged),
        }
        tensors = {k: v.cpu().contiguous().clone() for k, v in average.tensors.items()}
        write_whole(Path(folder) / f"{name}-{images:012d}.safetensors", save(tensors, metadata=about))


def snapshots(folder: str | Path) -> list[Snapshot]:
    """Return the snapshots in a folder, the oldest first.

    Raises:
        ParameterError: There is none.
    """
    found = []
    for file in Path(folder).glob("*.safetensors"):
        with safe_open(str(file), framework="pt") as opened:
            said = opened.metadata()
        averaged = tuple(json.loads(said["averaged"]))
        found.append(Snapshot(file, int(said["images"]), float(said["std"]), averaged))
    if not found:
        raise ParameterError(
            f"there are no snapshots in {folder}; checkpoint.snapshots says how often they come"
        )
    return sorted(found, key=lambda each: (each.images, each.std))


def overlap(images: Tensor, gamma: Tensor, others: Tensor, other_gamma: Tensor) -> Tensor:
    """Return the inner products of profiles ``(g + 1) t^g / T^(g + 1)`` on ``[0, T]``.

    ``(a + 1) (b + 1) / (a + b + 1) min(S, T)^(a + b + 1) / (S^(a + 1) T^(b + 1))``, all float64, of each of
    `images` and `gamma` with each of `others` and `other_gamma`.
    """
    s, a = images[:, None], gamma[:, None]
    t, b = others[None, :], other_gamma[None, :]
    low = torch.minimum(s, t)
    # As powers of ratios, which do not overflow.
    return (a + 1) * (b + 1) / (a + b + 1) * (low / s) ** a * (low / t) ** b / torch.maximum(s, t)


def weights(images: Sequence[float], stds: Sequence[float], std: float, at: float) -> list[float]:
    """Return the weight of each snapshot in the average of another width.

    Args:
        images: Images seen at each snapshot.
        stds: Width of each.
        std: Width wanted, above 0 and below 0.28.
        at: Images seen when it is wanted.

    Raises:
        ParameterError: A width is out of range.
    """
    places = torch.tensor(images, dtype=torch.float64)
    gammas = torch.tensor([exponent(each) for each in stds], dtype=torch.float64)
    wanted = (
        torch.tensor([float(at)], dtype=torch.float64),
        torch.tensor([exponent(std)], dtype=torch.float64),
    )
    gram = overlap(places, gammas, places, gammas)
    right = overlap(places, gammas, *wanted)
    found: list[float] = torch.linalg.lstsq(gram, right, driver="gelsd").solution[:, 0].tolist()
    return found


def reconstruct(folder: str | Path, std: float, images: int | None = None) -> dict[str, Tensor]:
    """Return the weights of the power-function average of another width.

    Args:
        folder: Of the snapshots.
        std: Width, as a part of the run up to `images`, above 0 and below 0.28.
        images: Images seen when it is wanted. Default: at the last snapshot. Later ones do not count.

    Raises:
        ParameterError: There are no snapshots until then, or the width is out of range.
    """
    found = snapshots(folder)
    at = found[-1].images if images is None else images
    used = [each for each in found if each.images <= at]
    if not used:
        raise ParameterError(f"the first snapshot was written at image {found[0].images}, none until {at}")
    factors = weights([each.images for each in used], [each.std for each in used], std, at)
    total: dict[str, Tensor] = {}
    for snapshot, factor in zip(used, factors, strict=True):
        with safe_open(str(snapshot.file), framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118  (it is no dict)
                tensor = opened.get_tensor(name)
                if name not in snapshot.averaged:
                    total[name] = tensor
                elif name in total:
                    total[name] += factor * tensor.double()
                else:
                    total[name] = factor * tensor.double()
    return {name: t.float() if name in used[-1].averaged else t for name, t in total.items()}


def write_post_hoc_model(folder: str | Path, file: str | Path, std: float, images: int | None = None) -> None:
    """Write the model file of a run with the average of another width.

    Args:
        folder: Of the run, with its ``model.safetensors`` and ``snapshots``.
        file: Where.
        std: Width; see `reconstruct`.
        images: Images seen when it is wanted.

    Raises:
        ParameterError: The run has no model or no snapshots, or the width is out of range.
    """
    tensors = reconstruct(Path(folder) / "snapshots", std, images)
    model = Path(folder) / "model.safetensors"
    description, denoiser = describe_model(model), read_model(model)
    network: object = denoiser.network
    put(network, tensors)  # type: ignore[arg-type]
    record = {**description["training"], "ema": {"name": "post_hoc", "std": std}}
    write_model(file, network, description["denoiser"], description["about"], record)  # type: ignore[arg-type]
