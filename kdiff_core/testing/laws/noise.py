"""Laws of noise sources. The subject makes a source of a seed, or of a list of seeds, one for each sample."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, permutations
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from ...brownian import Visits
from ...draw import StepNoise
from ...state import flatten
from ..catalogue import LawBroken, law, require
from ..randomness import global_randomness_untouched
from . import statistics
from .statistics import ASKED, PICTURE, SMALL, drawn, empty

Make = Callable[[Any], Any]

seeds = st.integers(0, 2**32 - 2)
several = st.lists(seeds, min_size=2, max_size=5, unique=True)


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
    for sample in drawn(make(seed), empty(2, (4, 100, 150), dtype, device), ASKED[ask]).double():
        found = statistics.standard_normal(sample)
    return found


@law("noise", seed=seeds, ask=st.sampled_from(sorted(ASKED)))
def independent_within_a_sample(
    make: Make, *, seed: int, ask: str, device: str = "cpu", dtype: str = "float64"
) -> dict[str, float]:
    """Channels, neighbours and halves of a sample get independent noise.

    The marginal of a step is that of white noise; channels that share it leave grey grain, neighbours that
    share it leave blotches, and a part that comes twice shows as a pattern. Typical breakers: one channel
    expanded over all, noise that is resized or smoothed to fit, a short draw repeated up to the size.
    """
    like = {"picture": empty(1, PICTURE, dtype, device), "row": empty(1, (20_000,), dtype, device)}
    found = drawn(make(seed), like, ASKED[ask])
    return {"correlation": max(statistics.unrelated_within(leaf[0]) for leaf in flatten(found))}


@law("noise", seed=seeds, apart=st.sampled_from([1, 2, 1000, 2**16]))
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
    like = {"a": empty(2, PICTURE, dtype, device), "b": empty(2, (20_000,), dtype, device)}
    draws: dict[str, Tensor] = {}
    for name, number in (("a seed", seed), (f"the seed {other - seed:+d}", other)):
        for part, leaf in zip(("first", "second"), flatten(drawn(make(number), like)), strict=True):
            draws |= {f"sample {i} of {name}, {part} tensor": row for i, row in enumerate(leaf)}
    return statistics.unrelated(draws)


@law("noise", seed=seeds)
def independent_between_draws(
    make: Make, *, seed: int, device: str = "cpu", dtype: str = "float64"
) -> dict[str, float]:
    """Disjoint intervals, streams, visits and the initial noise are independent of each other.

    Each step's noise is fresh in every derivation; noise that comes again drives the state the same way
    twice. Typical breakers: a seed made of the step's index alone, a stream or visit that is left out of the
    key, so that a restart goes back over the very noise that led there.
    """
    source, x = make(seed), empty(1, PICTURE, dtype, device)
    return statistics.unrelated({name: drawn(source, x, ask) for name, ask in ASKED.items()})


@law("noise", seed=seeds, lowest=st.floats(0.002, 0.5), ratio=st.floats(1.01, 2.0))
def every_draw_its_own(
    make: Make, *, seed: int, lowest: float, ratio: float, device: str = "cpu", dtype: str = "float64"
) -> None:
    """No two draws are alike, of whatever interval, stream, visit, sample or neighbouring seed.

    Schedules of a thousand steps have levels that differ in the fourth digit, steps share an end with those
    that churn or a restart takes upwards again, and names and counts are the plugins' own. Typical breakers:
    levels that are rounded, one end of the interval left out of the key, the length of a stream's name, a sum
    or a string of several parts, so that sample 1 of a visit is sample 0 of the next.
    """
    levels = [lowest * ratio**i for i in range(11, -1, -1)]
    x = empty(2, SMALL, dtype, device)

    def draws() -> Iterator[tuple[str, Tensor]]:
        for name, number in (("a seed", seed), ("the next seed", seed + 1)):
            source = make(number)
            for ask in statistics.many_asks(levels, rising=bool(getattr(source, "brownian", False))):
                a, b, stream, visit = ask
                yield f"{name} from {a!r} to {b!r}, {stream!r}, visit {visit}", drawn(source, x, ask)

    statistics.all_different(draws())


@law("noise", share=0.5, seed=seeds)
def every_seed_its_own(make: Make, *, seed: int, device: str = "cpu", dtype: str = "float64") -> None:
    """Each of the 32 bits of a seed counts.

    Hosts draw seeds at random from all that they offer; of 16 bits, two of 300 images are likely to be the
    same one. Typical breakers: a seed taken modulo a smaller number, one that goes through float32.
    """
    statistics.all_different(statistics.every_bit(make, seed, range(32), dtype, device))


@law("noise", share=0.5, seed=seeds)
def seeds_beyond_32_bits(make: Make, *, seed: int, device: str = "cpu", dtype: str = "float64") -> None:
    """Seeds beyond 32 bits are refused, or each of their bits counts as well.

    ComfyUI's seeds have 64 bits; one of which the upper half is dropped gives another seed's picture, and
    nothing says so. Typical breakers: ``seed & 0xffffffff``, and ``torch.Generator.manual_seed``, which
    keeps 32 bits on the CPU: hash the seed into the key, raise for larger ones, or list the law in
    `known_failures`.
    """
    statistics.all_different(statistics.every_bit(make, seed, range(32, 63), dtype, device))


@law("noise", seed=seeds, order=st.permutations(sorted(ASKED)))
def pure_function_of_its_arguments(
    make: Make, *, seed: int, order: Sequence[str], device: str = "cpu", dtype: str = "float64"
) -> None:
    """Noise depends on the seed and the draw's arguments alone: asked again, in any order, the same bits.

    A run that is resumed, replayed from its manifest or looked at twice asks in another order or from the
    middle. Typical breakers: a generator that goes on from draw to draw, a counter of calls, a cache that is
    keyed by less.
    """
    source, x = make(seed), empty(2, (50,), dtype, device)
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
    x = empty(len(chosen), SMALL, dtype, device)
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
        drawn(make(seed), empty(2, SMALL, dtype, device), ASKED[ask])


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
    source, x = make(seed), empty(1, PICTURE, dtype, device)
    declared = isinstance(getattr(source, "brownian", None), bool)
    require(declared, "its attribute brownian is not True or False")
    ends = [1.0 + sum(widths[i:]) for i in range(4)]
    asked = [(ends[i], ends[j]) for i, j in INTERVALS]
    near = (ends[0] - ends[1]) / (ends[0] - ends[3])
    worst = error = 0.0
    for first in permutations(range(5), 2):
        step, found = StepNoise(source, x, [x], Visits(), 0), {}
        for i in (*first, *(i for i in order if i not in first)):
            start, end = asked[i]
            found[i] = step(start, end, "step").double()
        for i, j in combinations(range(5), 2):
            worst = max(worst, statistics.of_one_path(asked[i], asked[j], found[i], found[j]))
        whole = found[4] * near**0.5 + found[2] * (1 - near) ** 0.5
        error = max(error, float((whole - found[0]).abs().max()))
    rounding = 1e-10 if dtype == "float64" else 1e-4
    require(error <= rounding, "the noise of a whole is not made of that of its parts", error=error)
    return {"error of a covariance": worst, "error of the sum": error}


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
    x, asked = empty(2, (20,), dtype, "cpu"), [tuple(ask) for ask in ASKED.values()]
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
