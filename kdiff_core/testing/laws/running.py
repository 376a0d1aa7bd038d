"""Laws of a run: however it is driven, cut, batched or moved, a sampler makes the same samples."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st

from ...adaptive import AdaptiveSampler
from ...noise import KeyedNoise, noise_from
from ...result import Checkpoint
from ...stepper import Stepper
from .. import strategies as draw
from ..catalogue import law, require
from ..measure import smooth_grid
from ..problems import Gaussian, random_state
from ..randomness import global_randomness_untouched
from ..variants import Function, model_for, untraced
from .exactness import SEEDS, allowed, difference, equal
from .plans import traced


def same_bits(found: Any, expected: Any, message: str) -> None:
    """Require that two states are equal bit for bit."""
    off = difference(found, expected) if not torch.equal(found, expected) else 0.0
    require(torch.equal(found, expected), message, difference=off)


def driven(stepper: Stepper, model: Any) -> Any:
    """The result of a stepper, one model output at a time."""
    while not stepper.done:
        stepper.step(model(stepper.x, stepper.sigma_tensor))
    return stepper.x


def pushable(sampler: Any) -> bool:
    """Whether a Stepper can drive it: it has a plan, and needs one output at a time."""
    return traced(sampler) and not sampler.needs


@law("sampler", when=pushable, grid=draw.grids, seed=SEEDS)
def stepper_equals_engine(
    sampler: Any, *, path: str, grid: Any, seed: int, device: str = "cpu", dtype: str = "float64"
) -> None:
    """Driven from outside, one model output at a time, it makes the same bits as when it is run.

    Hosts that own the model's call (diffusers) and hosts that hand it over (ComfyUI) get one sampler.
    """
    x = random_state(seed, device=device, dtype=dtype)
    model = model_for(sampler, Gaussian(path))
    stepper = Stepper(sampler, x, grid, path=path, seed=seed)  # type: ignore[arg-type]
    pushed = driven(stepper, model)
    same_bits(pushed, sampler(model, x, grid, seed=seed), "the Stepper's result is not the engine's")


@law("sampler", when=traced, share=0.5, grid=draw.grids, seed=SEEDS, part=st.floats(0.0, 1.0))
def resume_equals_run(
    sampler: Any, *, path: str, grid: Any, seed: int, part: float, device: str = "cpu", dtype: str = "float64"
) -> None:
    """Stopped after any step, saved to a file and resumed, it makes the bits of one run.

    The history goes with the checkpoint. A sampler that keeps something elsewhere loses it.
    """
    steps = len(sampler.levels(grid, path)) - 1
    stop, x = 1 + round(part * (steps - 1)), random_state(seed, device=device, dtype=dtype)
    model = model_for(sampler, Gaussian(path))
    whole = sampler.run(model, x, grid, seed=seed)
    half = sampler.run(model, x, grid, seed=seed, stop=stop)
    with tempfile.TemporaryDirectory() as folder:
        half.checkpoint.save(Path(folder) / "run.safetensors")
        loaded = Checkpoint.load(Path(folder) / "run.safetensors", device=device)
    after = sampler.run(model, resume=loaded)
    same_bits(after.x, whole.x, f"resumed after {stop} of {steps} steps it ends elsewhere")
    require(after.evaluations == whole.evaluations, "the evaluations of both halves do not add up")
    if pushable(sampler):
        pushed = driven(Stepper.resume(half.checkpoint), model)
        same_bits(pushed, whole.x, "a Stepper resumed there ends elsewhere")


@law("sampler", seed=SEEDS, warp=st.floats(-0.5, 0.5))
def pure(
    sampler: Any, *, path: str, seed: int, warp: float, device: str = "cpu", dtype: str = "float64"
) -> None:
    """A run repeats itself and changes nothing: not its inputs, not the random state of torch, NumPy, Python.

    Two runs share one sampler, a host goes on drawing from its own generator, and a failed run is replayed to
    find the place. State on the object, arithmetic in place and calls of a global generator break all of
    that.
    """
    for run in (sampler, untraced(sampler)) if traced(sampler) else (sampler,):
        x, grid = random_state(seed, device=device, dtype=dtype), smooth_grid(path, 5, warp)
        model, copy = _Watching(model_for(sampler, Gaussian(path))), x.clone()
        with global_randomness_untouched("it"):
            first = run(model, x, grid, seed=seed)
        same_bits(x, copy, "it writes into the state that it was given")
        require(model.untouched(), "it writes into an output of the denoiser")
        kept = first.clone()
        run(model, x * 2.0, smooth_grid(path, 3), seed=seed)
        same_bits(first, kept, "a second run writes into the result of the first")
        same_bits(
            run(model, x, grid, seed=seed), first, "run again after another run, it gives something else"
        )


class _Watching:
    """A denoiser that keeps its outputs, and sees whether anyone writes into them."""

    def __init__(self, model: Any) -> None:
        self.model, self.path = model, model.path
        self.outputs: list[tuple[Any, Any]] = []
        if hasattr(model, "predict"):
            self.predict = lambda x, sigma: self.kept(model.predict(x, sigma))

    def kept(self, output: Any) -> Any:
        parts = output if isinstance(output, tuple) else (output,)
        self.outputs += [(part, part.clone()) for part in parts]
        return output

    def __call__(self, x: Any, sigma: Any) -> Any:
        return self.kept(self.model(x, sigma))

    def untouched(self) -> bool:
        return all(torch.equal(output, copy) for output, copy in self.outputs)


@law("sampler", grid=draw.grids, seed=SEEDS, order=st.permutations(range(5)), size=st.integers(1, 4))
def independent_of_the_batch(
    sampler: Any,
    *,
    path: str,
    grid: Any,
    seed: int,
    order: Any,
    size: int,
    device: str = "cpu",
    dtype: str = "float64",
) -> None:
    """A sample is the same, bit for bit, alone, at any place of a batch and in any chunk of it.

    One seed is one image, whatever else is made beside it. A norm, a mean or a step size taken over the batch
    makes images depend on their neighbours.
    """
    x, model = random_state(seed, batch=5, device=device, dtype=dtype), model_for(sampler, Gaussian(path))
    whole = sampler(model, x, grid, noise=KeyedNoise(seed))
    chosen = list(order)[:size]
    part = sampler(model, x[chosen], grid, noise=KeyedNoise(seed, index=chosen))
    same_bits(part, whole[chosen], f"samples {chosen} of a batch of 5 are others when made alone")


@law("sampler", grid=draw.grids, seed=SEEDS)
def nested_states(
    sampler: Any, *, path: str, grid: Any, seed: int, device: str = "cpu", dtype: str = "float64"
) -> None:
    """A nest of tensors (image, sound, ...) gives what its parts give alone.

    Models of several modalities sample them side by side; a step does arithmetic and never looks inside a
    state.
    """
    problem = Gaussian(path, covariance=0.7)
    image = random_state(seed, device=device, dtype=dtype)
    sound = random_state(seed + 1, shape=(2, 2), device=device, dtype=dtype)

    def denoise(x: Any, sigma: Any) -> Any:
        return {"image": problem(x["image"], sigma), "sound": (problem(x["sound"][0], sigma),)}

    nest = {"image": image, "sound": (sound,)}
    both = sampler(model_for(sampler, Function(path, denoise)), nest, grid, seed=seed)
    alone = sampler(model_for(sampler, problem), image, grid, seed=seed)
    same_bits(both["image"], alone, "the first part is not what it is alone")
    require(both["sound"][0].shape == sound.shape, "the second part has another shape")
    if not sampler.stochastic:
        second = sampler(model_for(sampler, problem), sound, grid)
        same_bits(both["sound"][0], second, "the second part is not what it is alone")


@law("sampler", grid=draw.grids, seed=SEEDS, dtype=st.sampled_from(["float32", "float64", "bfloat16"]))
def dtype_and_device_kept(
    sampler: Any, *, path: str, grid: Any, seed: int, dtype: str, device: str = "cpu"
) -> dict[str, float] | None:
    """States keep their dtype and device; in float32 the result is that of float64, rounded.

    All weights are computed in double precision, on the host; only states are of the caller's precision. The
    results of an adaptive sampler, whose steps then differ, are not compared.
    """
    problem = Gaussian(path)
    x, fixed = (random_state(seed + i, scale=s, device=device) for i, s in ((0, 10.0), (1, 1.0)))
    model, noise = model_for(sampler, problem), noise_from(lambda a, b: fixed)
    kind = getattr(torch, dtype)
    result = sampler(model, x.to(kind), grid, noise=noise)
    require(result.dtype == kind, f"a state of {kind} came back as {result.dtype}")
    require(result.device == x.device, f"a state on {x.device} came back on {result.device}")
    require(result.shape == x.shape, f"a state of {tuple(x.shape)} came back as {tuple(result.shape)}")
    if dtype == "bfloat16" or isinstance(sampler, AdaptiveSampler):
        return None
    exact = sampler(model, x.to(kind).double(), grid, noise=noise)
    tolerance = allowed(sampler, grid, path, x, problem, dtype)
    return {f"error in {dtype}": equal(result, exact, tolerance, f"{dtype} and float64")["error"]}


@law(
    "sampler",
    share=0.3,
    steps=st.sampled_from((1, 2, 3, 10, 100, 1000)),
    first=st.floats(1.0, 2e4),
    last=st.floats(1e-4, 0.5),
    warp=st.floats(-0.9, 0.9),
    end=st.sampled_from(("", "from 1", "to 0", "from 1 to 0")),
)
def finite_on_extreme_grids(
    sampler: Any,
    *,
    path: str,
    steps: int,
    first: float,
    last: float,
    warp: float,
    end: str,
    device: str = "cpu",
    dtype: str = "float64",
) -> None:
    """From 1e-4 to 2e4, in one step or in a thousand, the result is finite.

    Schedules in use differ by such factors. Overflow in an exponential, a logarithm of 0 and steps too close
    to tell apart show here. A flow path may begin at 1, where there is only noise.
    """
    grid = smooth_grid(path, steps, warp, first, last)
    grid[0] = 1.0 if path == "flow" and "from 1" in end else grid[0]
    grid = [*grid[:-1], 0.0] if "to 0" in end else grid
    x = random_state(0, scale=max(1.0, grid[0]), device=device, dtype=dtype)
    result = sampler(model_for(sampler, Gaussian(path)), x, grid, seed=0)
    require(
        bool(torch.isfinite(result).all()),
        f"not finite on {steps} steps from {grid[0]:.4g} to {grid[-1]:.4g}",
    )


@law("sampler", share=0.3, seed=SEEDS, warp=st.floats(-0.5, 0.5))
def gradients_flow(
    sampler: Any, *, path: str, seed: int, warp: float, device: str = "cpu"
) -> dict[str, float]:
    """The gradient of the result with respect to the state and to a condition is the finite difference.

    Guidance by a loss, inversion and tuning differentiate through the run; buffers are then not reused.
    """
    grid, problem = smooth_grid(path, 4, warp), Gaussian(path)

    def shifted(x: Any, sigma: Any, shift: Any) -> Any:
        return problem(x, sigma) + shift

    model = model_for(sampler, Function(path, shifted))

    def total(x: Any, shift: Any) -> Any:
        return sampler(model, x, grid, seed=seed, cond={"shift": shift}).sum()

    x = random_state(seed, device=device).requires_grad_()
    shift = torch.zeros((), dtype=torch.float64, device=device, requires_grad=True)
    found = [float(g.sum()) for g in torch.autograd.grad(total(x, shift), (x, shift))]
    step = 1e-4
    with torch.no_grad():
        zero = shift.detach()
        pairs = [
            (total(x + step, zero), total(x - step, zero)),
            (total(x, zero + step), total(x, zero - step)),
        ]
    worst = 0.0
    for name, gradient, (above, below) in zip(("x", "a condition"), found, pairs, strict=True):
        expected = float(above - below) / (2 * step)
        off = abs(gradient - expected)
        worst = max(worst, off)
        require(
            off <= 1e-6 * abs(expected) + 1e-6,
            f"the gradient of {name} is {gradient:.6g}, the difference quotient {expected:.6g}",
        )
    return {"error": worst}
