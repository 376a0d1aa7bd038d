"""Laws of noise sources. The subject makes a source of a seed, or of a list of seeds, one for each sample."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import combinations, permutations
from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

from ...draw import StepNoise
from ...state import flatten
from ..catalogue import LawBroken, law, require
from .denoisers import global_randomness_untouched

Make = Callable[[Any], Any]

# Statistics are refused beyond so many of their standard deviations. A sound source is beyond 6 once in 5e8
# statistics (once in 1e8 for the fourth moment, whose tail is a little heavier), so that not one of thousands
# of examples rejects it, while a variance that is 4 % off is seen in 60,000 values.
SIGMAS = 6.0
VALUES = 60_000

seeds = st.integers(0, 2**32 - 2)
several = st.lists(seeds, min_size=2, max_size=5, unique=True)


class Ask(NamedTuple):
    """The arguments of one draw."""

    sigma_from: float = 2.0
    sigma_to: float = 1.0
    stream: str = "step"
    visit: int = 0


ASKED = {
    "a step": Ask(),
    "the next interval": Ask(1.0, 0.5),
    "an interval apart": Ask(9.0, 5.0),
    "another stream": Ask(stream="restart"),
    "another visit": Ask(visit=1),
    "the initial noise": Ask(0.0, 0.0, "start"),
}


def empty(batch: int, size: int, dtype: str, device: str) -> Tensor:
    """A state to draw for; its values are not read."""
    return torch.zeros(batch, size, dtype=getattr(torch, dtype), device=device)


def drawn(source: Any, x: Any, ask: Ask = ASKED["a step"]) -> Any:
    """Noise of a source, as the core asks for it."""
    return source.noise(x, ask.sigma_from, ask.sigma_to, ask.stream, ask.visit)


def unrelated(draws: dict[str, Tensor]) -> dict[str, float]:
    """Require that draws are different and do not correlate."""
    for (a, first), (b, second) in combinations(draws.items(), 2):
        require(not torch.equal(first, second), f"{a} and {b} get the same noise")
    rows = torch.stack([draw.double().flatten() for draw in draws.values()])
    found = (torch.corrcoef(rows) - torch.eye(len(rows), dtype=rows.dtype, device=rows.device)).abs()
    worst = int(found.argmax())
    a, b = (list(draws)[i] for i in divmod(worst, len(rows)))
    greatest, bound = float(found.max()), SIGMAS / rows.shape[1] ** 0.5
    message = f"the noises of {a} and {b} correlate; they must be independent"
    require(greatest <= bound, message, correlation=greatest, bound=bound)
    return {"correlation": greatest}


@law("noise", seed=seeds, ask=st.sampled_from(sorted(ASKED)))
def unit_normal(
    make: Make, *, seed: int, ask: str, device: str = "cpu", dtype: str = "float64"
) -> dict[str, float]:
    """Noise is standard normal: mean 0, variance 1, fourth moment 3, in every sample.

    A sampler gives each draw the weight that keeps the marginal's variance; noise of another variance leaves
    grain or blur that adds up over the steps, and uniform noise passes for normal only after many of them.
    Measured on 60,000 values a sample, to 6 standard deviations of each statistic: ``1 / sqrt(n)``, ``sqrt(2
    / n)``, ``sqrt(96 / n)``.
    """
    found = {}
    for row in drawn(make(seed), empty(2, VALUES, dtype, device), ASKED[ask]).double():
        for name, power, value, spread in (
            ("mean", 1, 0, 1),
            ("variance", 2, 1, 2),
            ("fourth moment", 4, 3, 96),
        ):
            found[name] = float((row**power).mean())
            bound = SIGMAS * (spread / VALUES) ** 0.5
            message = f"the {name} of its noise is {found[name]:.4f}, not {value}"
            require(
                abs(found[name] - value) <= bound, message, **{name.split()[0]: found[name], "bound": bound}
            )
    return found


@law("noise", seed=seeds, apart=st.sampled_from([1, 2, 1000]))
def independent_between_samples(
    make: Make, *, seed: int, apart: int, device: str = "cpu", dtype: str = "float64"
) -> dict[str, float]:
    """Samples, seeds and the tensors of one state get independent noise.

    Images of one batch that share noise look alike, seeds that are next to each other are what people try one
    after the other, and picture and sound of one state are two tensors. Typical breakers: one draw expanded
    over the batch, ``seed + index`` (sample 1 of seed 0 is then sample 0 of seed 1), a generator seeded anew
    for each tensor.
    """
    other = seed - apart if seed >= apart else seed + apart
    like = {"a": empty(2, 20_000, dtype, device), "b": empty(2, 20_000, dtype, device)}
    draws: dict[str, Tensor] = {}
    for name, number in (("a seed", seed), (f"the seed {other - seed:+d}", other)):
        for part, leaf in zip(("first", "second"), flatten(drawn(make(number), like)), strict=True):
            draws |= {f"sample {i} of {name}, {part} tensor": row for i, row in enumerate(leaf)}
    return unrelated(draws)


@law("noise", seed=seeds)
def independent_between_draws(
    make: Make, *, seed: int, device: str = "cpu", dtype: str = "float64"
) -> dict[str, float]:
    """Disjoint intervals, streams, visits and the initial noise are independent of each other.

    Each step's noise is fresh in every derivation; noise that comes again drives the state the same way
    twice. Typical breakers: a seed made of the step's index alone, a stream or visit that is left out of the
    key, so that a restart goes back over the very noise that led there.
    """
    source, x = make(seed), empty(1, 20_000, dtype, device)
    return unrelated({name: drawn(source, x, ask) for name, ask in ASKED.items()})


@law("noise", seed=seeds, order=st.permutations(sorted(ASKED)))
def pure_function_of_its_arguments(
    make: Make, *, seed: int, order: Sequence[str], device: str = "cpu", dtype: str = "float64"
) -> None:
    """Noise depends on the seed and the draw's arguments alone: asked again, in any order, the same bits.

    A run that is resumed, replayed from its manifest or looked at twice asks in another order or from the
    middle. Typical breakers: a generator that goes on from draw to draw, a counter of calls, a cache that is
    keyed by less.
    """
    source, x = make(seed), empty(2, 50, dtype, device)
    first = {name: drawn(source, x, ask).clone() for name, ask in ASKED.items()}
    for name in order:
        same = torch.equal(drawn(source, x, ASKED[name]), first[name])
        require(same, f"{name}: the second time the same call gives other noise")
    fresh = make(seed)
    for name in order:
        same = torch.equal(drawn(fresh, x, ASKED[name]), first[name])
        require(same, f"{name}: its noise depends on what was drawn before it")


@law("noise", chosen=several)
def same_for_any_batch(make: Make, *, chosen: list[int], device: str = "cpu", dtype: str = "float64") -> None:
    """Sample i of a list of seeds is what its seed alone gives, whatever the batch, its size and its order.

    So that one image of a grid can be made again alone, and a batch can be cut to fit the memory. Of one seed
    for all samples, the first of a large batch are those of a small one. Typical breakers: one draw for the
    whole batch, the place in the batch as part of the key, noise that is normalised over the batch.
    """
    x = empty(len(chosen), 50, dtype, device)
    whole = drawn(make(chosen), x)
    turned = drawn(make([*chosen[1:], chosen[0]]), x).roll(1, 0)
    for i, seed in enumerate(chosen):
        require(torch.equal(whole[i], turned[i]), f"sample {i} changes with its place in the batch")
        alone = drawn(make(seed), x[:1])[0]
        require(torch.equal(whole[i], alone), f"in a batch, sample {i} is not what its seed alone gives")
    one = make(chosen[0])
    message = "with one seed for all samples, the first samples change with the size of the batch"
    require(torch.equal(drawn(one, x)[:1], drawn(one, x[:1])), message)


@law("noise", seed=seeds, precision=st.sampled_from(["float32", "float64"]), nest=st.booleans())
def like_the_state(make: Make, *, seed: int, precision: str, nest: bool, device: str = "cpu") -> None:
    """Noise has the structure, shapes, dtype and device of the state, and is the caller's own memory.

    The core writes into it and adds it to the state; noise of another dtype or device stops the run or slows
    each step, and memory that is used again changes under the sampler's hands. The state itself is only
    looked at.
    """
    x = torch.ones(3, 2, 4, 4, dtype=getattr(torch, precision), device=device)
    state = {"picture": x, "sound": [torch.ones_like(x[:, 0])]} if nest else x
    source = make(seed)
    found = drawn(source, state)
    require(type(found) is type(state), f"for a {type(state).__name__} it returns a {type(found).__name__}")
    leaves = flatten(found)
    for new, old in zip(leaves, flatten(state), strict=True):
        for name in ("shape", "dtype", "device"):
            got, wanted = getattr(new, name), getattr(old, name)
            require(got == wanted, f"its {name} is {got}, that of the state {wanted}")
        require(bool((old == 1).all()), "it writes into the state it is given")
    kept = [leaf.clone() for leaf in leaves]
    for leaf in leaves:
        leaf.zero_()
    again = flatten(drawn(source, state))
    same = all(map(torch.equal, kept, again))
    require(same, "writing into what it returned changes what it returns next: give out fresh memory")
    require(not any(map(torch.any, leaves)), "the next draw overwrites an earlier one: give out fresh memory")


@law("noise", seed=seeds, ask=st.sampled_from(sorted(ASKED)))
def global_random_state_is_untouched(
    make: Make, *, seed: int, ask: str, device: str = "cpu", dtype: str = "float64"
) -> None:
    """Drawing noise leaves the global random states of torch, NumPy and Python as they are.

    A host seeds them for its own purposes, and two runs side by side would change each other's images.
    Typical breakers: ``torch.randn`` without a generator, ``torch.manual_seed`` before it.
    """
    with global_randomness_untouched("it"):
        drawn(make(seed), empty(2, 10, dtype, device), ASKED[ask])


WIDTHS = st.lists(st.floats(0.3, 2.0), min_size=3, max_size=3)
INTERVALS = ((0, 3), (0, 2), (1, 3), (1, 2), (0, 1))


@law("noise", share=0.5, seed=seeds, widths=WIDTHS, order=st.permutations(range(5)))
def increments_of_one_brownian_path(
    make: Make, *, seed: int, widths: Any, order: Any, device: str = "cpu", dtype: str = "float64"
) -> dict[str, float]:
    """Noise over overlapping intervals is increments of one Brownian path, whatever is asked for first.

    Noises of two intervals have the covariance overlap / sqrt(length length'), and the noise of a whole is
    made of its parts': without that dpmpp_sde has half the variance it should have at ten steps. A source
    that says ``brownian = True`` leaves this to the core, which asks it for disjoint pieces only and is tried
    with it here; one that says False draws the increments itself. Typical breaker: False, and independent
    draws all the same.
    """
    source, x = make(seed), empty(1, 20_000, dtype, device)
    declared = isinstance(getattr(source, "brownian", None), bool)
    require(declared, "its attribute brownian is not True or False")
    ends = [1.0 + sum(widths[i:]) for i in range(4)]
    asked = [(ends[i], ends[j]) for i, j in INTERVALS]
    near = (ends[0] - ends[1]) / (ends[0] - ends[3])
    worst = error = 0.0
    for first in permutations(range(5), 2):
        step, found = StepNoise(source, x, [x], {}), {}
        for i in (*first, *(i for i in order if i not in first)):
            start, end = asked[i]
            found[i] = step(start, end, "step").double()
        for i, j in combinations(range(5), 2):
            worst = max(worst, _covariance(asked[i], asked[j], found[i], found[j]))
        whole = found[4] * near**0.5 + found[2] * (1 - near) ** 0.5
        error = max(error, float((whole - found[0]).abs().max()))
    rounding = 1e-10 if dtype == "float64" else 1e-4
    require(error <= rounding, "the noise of a whole is not made of that of its parts", error=error)
    return {"error of a covariance": worst, "error of the sum": error}


def _covariance(one: tuple[float, float], other: tuple[float, float], x: Tensor, y: Tensor) -> float:
    """Require that the noises of two intervals have the covariance of increments; return its error."""
    (a, b), (c, d) = one, other
    expected: float = max(0.0, min(a, c) - max(b, d)) / ((a - b) * (c - d)) ** 0.5
    found = float((x * y).mean())
    bound = SIGMAS * ((1 + expected**2) / x.numel()) ** 0.5
    message = f"the noises of [{a:.3g}, {b:.3g}] and [{c:.3g}, {d:.3g}] are not of one Brownian path"
    require(abs(found - expected) <= bound, message, covariance=found, expected=expected)
    return abs(found - expected)


CHILD = """
import pickle, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
make, x, asked = pickle.load(sys.stdin.buffer)
found = [make([3, 5]).noise(x, *ask).tolist() for ask in asked]
sys.stdout.buffer.write(pickle.dumps(found))
"""


@law("noise", slow=True)
def same_bits_in_another_process(make: Make, *, dtype: str = "float64") -> None:
    """Another process, started afresh, draws the same bits.

    An image is made again tomorrow, and a batch is spread over processes. Typical breakers: ``hash`` of a
    string, which Python salts anew in each process, the time or the process's number in the key. The function
    that makes the source must be picklable for this: a class, or a function of a module.
    """
    x, asked = empty(2, 20, dtype, "cpu"), [tuple(ask) for ask in ASKED.values()]
    try:
        sent = pickle.dumps(sys.path) + pickle.dumps((make, x, asked))
    except Exception as error:
        raise LawBroken(
            f"the function that makes it cannot be pickled, so no process can ({error})"
        ) from error
    salted = {**os.environ, "PYTHONHASHSEED": "random"}
    command = [sys.executable, "-c", CHILD]
    child = subprocess.run(command, input=sent, capture_output=True, check=False, env=salted)
    last = child.stderr.decode(errors="replace").strip().splitlines()[-1:]
    require(child.returncode == 0, f"another process cannot draw it: {''.join(last)}")
    here = [make([3, 5]).noise(x, *ask).tolist() for ask in asked]
    require(pickle.loads(child.stdout) == here, "another process draws other noise")
