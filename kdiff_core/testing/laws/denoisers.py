"""Laws of denoisers: what the core relies on when it calls a model many times with memory of its own."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from ...path import as_path
from ..catalogue import law, require
from ..randomness import global_randomness_untouched

seeds = st.integers(0, 2**31)
# Where between its lowest and its highest level, on a logarithmic scale; one for each sample.
places = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=4)
several = st.lists(st.floats(0.0, 1.0), min_size=2, max_size=4, unique=True)
precisions = st.sampled_from(["float32", "float64"])


def level_range(denoiser: Any) -> tuple[float, float]:
    """Lowest and highest level of a denoiser: its process's, else its own, else what its path usually has."""
    source = getattr(denoiser, "process", None) or denoiser
    low, high = getattr(source, "sigma_min", None), getattr(source, "sigma_max", None)
    usual = 1.0 if getattr(denoiser, "path", "ve") == "flow" else 20.0
    return 0.02 if low is None else float(low), usual if high is None else float(high)


def example(
    denoiser: Any, seed: int, places: list[float], device: str, dtype: str
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """A state, its levels and its conditions: normal data with noise, and labels where there are classes."""
    generator, size = torch.Generator().manual_seed(seed), len(places)
    shape = (size, *getattr(denoiser, "sample_shape", (4,)))
    data, noise = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    low, high = level_range(denoiser)
    path = as_path(getattr(denoiser, "path", "ve"))
    rows, sigmas = [], []
    for i, place in enumerate(places):
        sigmas.append(min(max(low * (high / low) ** place, low), high))
        rows.append(path.alpha(sigmas[-1]) * data[i] + sigmas[-1] * noise[i])
    kind, cond = getattr(torch, dtype), {}
    classes = getattr(denoiser, "classes", None)
    if classes:
        cond["label"] = torch.randint(-1, classes, (size,), generator=generator).to(device)
    return torch.stack(rows).to(device, kind), torch.tensor(sigmas, dtype=kind, device=device), cond


def call(denoiser: Any, x: Tensor, sigma: Tensor, cond: dict[str, Tensor]) -> Tensor:
    """The output, without a gradient, which must be a tensor."""
    with torch.no_grad():
        found = denoiser(x, sigma, **cond)
    require(isinstance(found, Tensor), f"for a tensor it returns a {type(found).__name__}")
    return found  # type: ignore[no-any-return]


def difference(a: Tensor, b: Tensor) -> float:
    """Largest difference, in units of the larger one's largest value; NaN equals NaN."""
    if torch.equal(a.isnan(), b.isnan()):
        a, b = a.nan_to_num(), b.nan_to_num()
    scale = max(float(a.abs().max()), float(b.abs().max()), 1e-6)
    return float((a - b).abs().max()) / scale


def same(denoiser: Any, a: Tensor, b: Tensor, message: str) -> float:
    """Require that two outputs are equal: to half of its digits, or to all of them if `batch_exact`.

    Sums in another order differ in the last digits, and a steep model, such as one that chooses between two
    data points, makes them more. What one sample leaks into another changes the first digits. The digits are
    float32's, in which networks compute whatever the state is in, or those of its attribute ``dtype`` if
    less.
    """
    found, own = difference(a, b), getattr(denoiser, "dtype", None)
    eps = torch.finfo(torch.float32).eps
    if isinstance(own, torch.dtype) and own.is_floating_point:
        eps = max(eps, torch.finfo(own).eps)
    bound = 0.0 if getattr(denoiser, "batch_exact", False) else eps**0.5
    require(found <= bound, message, difference=found, bound=bound)
    return found


def alone(denoiser: Any, x: Tensor, sigma: Tensor, cond: dict[str, Tensor], message: str) -> dict[str, float]:
    """Require that each row of a batch is what the sample alone gives."""
    whole = call(denoiser, x, sigma, cond)
    worst = 0.0
    for i in range(len(x)):
        row = slice(i, i + 1)
        single = call(
            denoiser, x[row].clone(), sigma[row], {name: value[row] for name, value in cond.items()}
        )
        worst = max(worst, same(denoiser, whole[row], single, message))
    return {"difference": worst}


@law("denoiser", seed=seeds, places=places, precision=precisions)
def output_like_the_state(
    denoiser: Any, *, seed: int, places: list[float], precision: str, device: str = "cpu"
) -> None:
    """A denoiser takes float32 and float64 states; its output has their shape and device, in floating point.

    The core combines states and outputs: another shape would be broadcast, whole numbers have lost what lies
    between. The dtype may be the network's own (half precision, say): outputs are cast to that of the state.
    """
    x, sigma, cond = example(denoiser, seed, places, device, precision)
    found = call(denoiser, x, sigma, cond)
    for name in ("shape", "device"):
        got, wanted = getattr(found, name), getattr(x, name)
        require(got == wanted, f"the {name} of its output is {got}, that of the state {wanted}")
    require(found.is_floating_point(), f"the dtype of its output is {found.dtype}, no floating point")


@law("denoiser", seed=seeds, places=places)
def finite_over_its_range(
    denoiser: Any, *, seed: int, places: list[float], device: str = "cpu", dtype: str = "float64"
) -> dict[str, float]:
    """A denoiser's output is finite at every level from sigma_min to sigma_max, both included.

    One NaN ends a run. The ends are where it happens: 0 / 0 at the lowest level, a softmax of huge numbers,
    alpha = 0 at sigma = 1 on flow.
    """
    x, sigma, cond = example(denoiser, seed, [0.0, *places, 1.0], device, dtype)
    found = call(denoiser, x, sigma, cond)
    bad = [float(sigma[i]) for i, row in enumerate(found) if not bool(torch.isfinite(row).all())]
    require(not bad, "its output has NaN or infinite values", sigma=bad[0] if bad else None)
    return {"largest output": float(found.abs().max())}


@law("denoiser", seed=seeds, places=places)
def pure_function_of_its_inputs(
    denoiser: Any, *, seed: int, places: list[float], device: str = "cpu", dtype: str = "float64"
) -> None:
    """A denoiser writes into none of its inputs, and gives the same output for the same input.

    The state is the sampler's memory, read again after the call, and the same seed must give the same image.
    Typical breakers: ``x.clamp_()``, ``x /= scale``, dropout (a network in training mode), a cache or counter
    of calls.
    """
    x, sigma, cond = example(denoiser, seed, places, device, dtype)
    kept = (x.clone(), sigma.clone(), {name: value.clone() for name, value in cond.items()})
    first = call(denoiser, x, sigma, cond).clone()
    for name, now, before in (("x", x, kept[0]), ("sigma", sigma, kept[1])):
        require(torch.equal(now, before), f"it writes into {name}")
    for name, value in cond.items():
        require(torch.equal(value, kept[2][name]), f"it writes into its condition {name}")
    call(denoiser, -x, sigma.flip(0), cond)
    again = call(denoiser, x, sigma, cond)
    same(denoiser, first, again, "the second time the same input gives another output")


@law("denoiser", seed=seeds, places=places)
def draws_no_global_randomness(
    denoiser: Any, *, seed: int, places: list[float], device: str = "cpu", dtype: str = "float64"
) -> None:
    """Calling a denoiser leaves the global random states of torch, NumPy and Python as they are.

    All noise of a run is the source's, keyed by the seed. Noise that a model draws itself cannot be made
    again.
    """
    x, sigma, cond = example(denoiser, seed, places, device, dtype)
    with global_randomness_untouched("it"):
        call(denoiser, x, sigma, cond)


@law("denoiser", seed=seeds, places=places)
def output_is_fresh_memory(
    denoiser: Any, *, seed: int, places: list[float], device: str = "cpu", dtype: str = "float64"
) -> None:
    """A denoiser's output is memory of its own: not the state's, and not that of an earlier output.

    Multistep samplers keep outputs for later steps, and the core writes the next state over the old one.
    Typical breakers: a buffer that is filled anew, the static output of a CUDA graph, an identity or view of
    ``x``.
    """
    x, sigma, cond = example(denoiser, seed, places, device, dtype)
    first = call(denoiser, x, sigma, cond)
    kept = first.clone()
    second = call(denoiser, -2 * x, sigma, cond)
    require(difference(first, kept) == 0, "the next call writes over its earlier output")
    memory = [t.untyped_storage().data_ptr() for t in (x, first, second)]
    require(memory[0] != memory[1], "its output is the memory of x; return a tensor of its own")
    require(memory[1] != memory[2], "two outputs share their memory; return a tensor of its own")


@law("denoiser", seed=seeds, size=st.integers(2, 4), place=st.floats(0.0, 1.0))
def independent_of_the_batch(
    denoiser: Any, *, seed: int, size: int, place: float, device: str = "cpu", dtype: str = "float64"
) -> dict[str, float]:
    """A sample's output does not depend on what else is in the batch.

    A batch is a way to save time: image 3 of seed 0 is the same alone. To half the digits of float32, since
    other kernels sum in another order; exactly for one that declares ``batch_exact = True``. Typical
    breakers: a network in training mode (batch normalisation), a mean or maximum over all of ``x``,
    thresholds taken over the batch.
    """
    x, sigma, cond = example(denoiser, seed, [place] * size, device, dtype)
    message = "a sample's output changes with the others in its batch"
    return alone(denoiser, x, sigma, cond, message)


@law("denoiser", seed=seeds, places=several)
def each_sample_at_its_own_level(
    denoiser: Any, *, seed: int, places: list[float], device: str = "cpu", dtype: str = "float64"
) -> dict[str, float]:
    """A denoiser honours the level of each sample: sigma is ``(B,)``, and rows may differ.

    Guidance, restarts and training evaluate several levels at once. Typical breakers: ``sigma[0]`` for all,
    ``sigma.max()``, a product with ``(B, ...)`` that broadcasts along the last dimension in place of the
    first.
    """
    x, sigma, cond = example(denoiser, seed, places, device, dtype)
    return alone(denoiser, x, sigma, cond, "beside samples at other levels a sample's output changes")


@law("denoiser", when=lambda denoiser: hasattr(denoiser, "predict"), seed=seeds, places=places)
def predict_agrees_with_the_call(
    denoiser: Any, *, seed: int, places: list[float], device: str = "cpu", dtype: str = "float64"
) -> dict[str, float]:
    """A guided denoiser's ``predict(...).denoised`` is what a call gives; ``cond`` and ``uncond`` are like x.

    A sampler asks for the parts (CFG++) or for the whole, as it needs; both must be one model.
    """
    x, sigma, cond = example(denoiser, seed, places, device, dtype)
    whole = call(denoiser, x, sigma, cond)
    with torch.no_grad():
        parts = denoiser.predict(x, sigma, **cond)
    for name in ("denoised", "cond", "uncond"):
        part: Any = getattr(parts, name, None)
        require(isinstance(part, Tensor), f"what predict returns has no tensor .{name}")
        require(part.shape == x.shape, f".{name} has the shape {tuple(part.shape)}, x {tuple(x.shape)}")
    return {
        "difference": same(denoiser, parts.denoised, whole, "predict(...).denoised is not what a call gives")
    }
