"""The kit on schedules, processes, noise, denoisers and paths: built-ins pass, each planted bug is found."""

from __future__ import annotations

import math
import random
from functools import partial

import pytest
import torch
from attrs import frozen

import kdiff_core as kd
from kdiff_core.path import FLOW, VE
from kdiff_core.testing import LawBroken, check, parametrize_with_checks
from kdiff_exact.empirical import EmpiricalDenoiser, digits_exact
from kdiff_guidance.cfg import CFG
from kdiff_schedules.betas import CosineBetas, LinearBetas, ScaledLinearBetas
from kdiff_schedules.custom import Custom
from kdiff_schedules.exponential import PolyExponential
from kdiff_schedules.karras import Karras
from kdiff_schedules.vp import VP

# ---------------------------------------------------------------------------------------- what must pass


def own_levels(n):
    return [1 - i / n for i in range(n + 1)]


@frozen(repr=False)
class Own(Custom):
    """Levels of the user's own, which no range changes."""

    spans = False

    def __repr__(self):
        return "Own()"  # without an address, which differs between workers


class Toy:
    """A small conditional denoiser: normal data about 1, or about 0 without the condition."""

    path = "ve"
    sample_shape = (3,)
    batch_exact = True
    mean = 1.0

    def __repr__(self):
        return f"{type(self).__name__}()"

    def __call__(self, x, sigma, mean=None):
        s = sigma.reshape(-1, *[1] * (x.ndim - 1))
        mean = self.mean if mean is None else mean
        return mean + (x - mean) / (1 + s * s)


def points(path):
    return EmpiricalDenoiser(torch.randn(9, 2, 3, generator=torch.Generator().manual_seed(0)), path=path)


SCHEDULES = [
    *(entry.name for entry in kd.list_schedules(hosts=True) if entry.name != "custom"),
    Karras(rho=1.0),
    Karras(rho=50.0),
    PolyExponential(rho=2.0),
    VP(beta_d=1.0),
    Own(function=own_levels),
]
GIVEN = ("betas", "alphas_cumprod", "diffusers")  # they need what they are made from
PROCESSES = [
    *(entry.name for entry in kd.list_processes() if entry.name not in GIVEN),
    ScaledLinearBetas(steps=2),
    LinearBetas(steps=4000),
    CosineBetas(steps=10),
]
NOISE = [entry.name for entry in kd.list_noise()]
DENOISERS = [
    "digits-exact",
    points("flow"),
    EmpiricalDenoiser([[0.0], [1.0]], smoothing=0.0),
    Toy(),
    CFG(Toy(), scale=3.0, uncond={"mean": 0.0}),
    CFG(digits_exact(), scale=1.0),
]
PATHS = [VE, FLOW]
EVERYTHING = [
    *((subject, "schedule") for subject in SCHEDULES),
    *((subject, "process") for subject in PROCESSES),
    *((subject, "noise") for subject in NOISE),
    *((subject, "denoiser") for subject in DENOISERS),
    *((subject, "path") for subject in PATHS),
]


@parametrize_with_checks(SCHEDULES, kind="schedule")
def test_schedules(check):
    """Every schedule that comes with kdiff keeps the laws."""
    check()


@parametrize_with_checks(PROCESSES, kind="process")
def test_processes(check):
    """Every noise process that comes with kdiff keeps the laws."""
    check()


@parametrize_with_checks(NOISE, kind="noise")
def test_noise(check):
    """Every noise source that comes with kdiff keeps the laws."""
    check()


@parametrize_with_checks(DENOISERS, kind="denoiser")
def test_denoisers(check):
    """The exact denoisers, guided and not, keep the laws."""
    check()


@parametrize_with_checks(PATHS, kind="path")
def test_paths(check):
    """Both noise paths keep the laws."""
    check()


@pytest.mark.kdiff_slow
@pytest.mark.parametrize(("subject", "kind"), EVERYTHING, ids=str)
def test_sound_things_are_never_rejected(subject, kind):
    """Over 300 examples of another seed, none of the laws rejects what is right."""
    report = check(subject, kind, examples=300, seed=1)
    assert report.ok, str(report)


def test_a_steep_polyexponential_is_known_to_run_out_of_floats():
    """PolyExponential with a large rho refuses many steps, as its docstring says: the law finds the limit."""
    found = check(PolyExponential(rho=7.0), "schedule", only="gives_exactly_n_steps")
    assert "GridError" in found["gives_exactly_n_steps"].message


# ------------------------------------------------------------------------------------ planted: schedules


@frozen
class OneTooMany(Karras):
    """Returns a step more than asked for."""

    def __call__(self, n, **options):
        return super().__call__(n + (n > 0), **options)


@frozen
class Rounded(Karras):
    """Rounds its levels, so that some repeat."""

    def __call__(self, n, **options):
        return [round(level, 1) for level in super().__call__(n, **options)]


@frozen
class SkipsSigmaMin(Karras):
    """Spends its steps down to 0, so that the lowest level is not reached."""

    def ramp(self, sigma_min, sigma_max):
        return super().ramp(sigma_min / 2, sigma_max)

    def __call__(self, n, **options):
        return [*super().__call__(n + 1, **options)[: n + (n == 1)], 0.0][: n + 1]


@frozen
class IgnoresSigmaMax(Karras):
    """Starts from its own highest level, whatever it is told."""

    def __call__(self, n, *, sigma_max=None, **options):
        return super().__call__(n, sigma_max=sigma_max and sigma_max * 0.9, **options)


@frozen
class PrefersTheProcess(Karras):
    """Takes the process's range even where one is given."""

    def resolve(self, sigma_min, sigma_max, process):
        given = (sigma_min, sigma_max) if process is None else (None, None)
        return super().resolve(*given, process)


@frozen
class BelowTheRange(Karras):
    """Leaves out the lower end, but goes below it."""

    meets_min = False

    def ramp(self, sigma_min, sigma_max):
        return super().ramp(sigma_min / 2, sigma_max)

    def levels(self, n, low, high, process):
        return [*super().levels(n + 1, low / 2, high, process)[:n], 0.0]


@frozen
class AboveTheRange(Karras):
    """Leaves out the upper end, but goes above it."""

    meets_max = False

    def levels(self, n, low, high, process):
        return [high * 1.5, *list(super().levels(n, low, high, process))[1:]]


@frozen
class Jittered(Karras):
    """Moves its levels at random."""

    def __call__(self, n, **options):
        grid = list(super().__call__(n, **options))
        return [grid[0], *(level * (1 - 1e-9 * random.random()) for level in grid[1:])]


@frozen
class AcceptsNoSteps(Karras):
    """Takes 0 steps for 1."""

    def __call__(self, n, **options):
        return super().__call__(n or 1, **options)


@frozen
class DividesByZero(Karras):
    """Computes with the number of steps before it looks at it."""

    def __call__(self, n, **options):
        return super().__call__(n, **options) if 1 / n else None


@frozen
class SortsItsEnds(Karras):
    """Swaps the ends of a range that is upside down."""

    def __call__(self, n, *, sigma_min=None, sigma_max=None, process=None):
        if sigma_min is not None and sigma_max is not None and sigma_min > sigma_max:
            sigma_min, sigma_max = sigma_max, sigma_min
        return super().__call__(n, sigma_min=sigma_min, sigma_max=sigma_max, process=process)


class NoValue:
    """Compares by identity."""

    def __call__(self, n, **options):
        return Karras()(n, **options)


# ------------------------------------------------------------------------------------ planted: processes


@frozen
class Line:
    """Levels on a line in time; the planted bugs change it."""

    path: str = "ve"
    sigma_min: float = 0.1
    sigma_max: float = 10.0

    def sigma(self, t):
        return self.sigma_min + t * (self.sigma_max - self.sigma_min)

    def t(self, sigma):
        return (sigma - self.sigma_min) / (self.sigma_max - self.sigma_min)


@frozen
class TimeInTheLog(Line):
    """Its time belongs to another spacing than its levels."""

    def t(self, sigma):
        return math.log(sigma / self.sigma_min) / math.log(self.sigma_max / self.sigma_min)


@frozen
class CountedFromTheNoise(Line):
    """Its time runs the other way."""

    def sigma(self, t):
        return super().sigma(1 - t)


@frozen
class OtherEnds(Line):
    """Declares a range that is not its own."""

    def sigma(self, t):
        return super().sigma(0.1 + 0.9 * t)


# ---------------------------------------------------------------------------------------- planted: noise


class Source:
    """Keyed noise; the planted bugs change it. A class is a function of the seed."""

    brownian = True

    def __init__(self, seed):
        self.inner = kd.KeyedNoise(seed)

    def noise(self, x, sigma_from, sigma_to, stream="step", visit=0):
        return self.inner.noise(x, sigma_from, sigma_to, stream, visit)


class Weak(Source):
    def noise(self, x, *key):
        return each(super().noise(x, *key), lambda leaf: leaf * 0.9**0.5)


class Uniform(Source):
    def noise(self, x, *key):
        return each(super().noise(x, *key), lambda leaf: torch.special.erf(leaf / 2**0.5) * 3**0.5)


class FromTheGlobalGenerator(Source):
    def noise(self, x, *key):
        return each(x, torch.randn_like)


class SeededGlobally(Source):
    def noise(self, x, *key):
        torch.manual_seed(hash((self.inner.seed, key[:2], key[3:])))
        return each(x, torch.randn_like)


class OnePlace(Source):
    """Its noise depends on the place in the batch, not on the sample's own seed alone."""

    def noise(self, x, *key):
        batch = each(x, lambda leaf: leaf.shape[0])
        first = self.inner.seed[0] if isinstance(self.inner.seed, tuple) else self.inner.seed
        return kd.KeyedNoise(first, index=range(batch)).noise(x, *key)


class OneForAll(Source):
    def noise(self, x, *key):
        return each(super().noise(x, *key), lambda leaf: leaf[:1].expand_as(leaf).clone())


class NextSeed(Source):
    """Sample 1 of seed 0 is sample 0 of seed 1."""

    def __init__(self, seed):
        self.seed = seed
        super().__init__(seed)

    def noise(self, x, *key):
        if isinstance(self.seed, int):
            batch = (x["a"] if isinstance(x, dict) else x).shape[0]
            return kd.KeyedNoise([self.seed + i for i in range(batch)]).noise(x, *key)
        return super().noise(x, *key)


class AnyStream(Source):
    def noise(self, x, sigma_from, sigma_to, stream="step", visit=0):
        return super().noise(x, sigma_from, sigma_to, "step", visit)


class AnyVisit(Source):
    def noise(self, x, sigma_from, sigma_to, stream="step", visit=0):
        return super().noise(x, sigma_from, sigma_to, stream, 0)


class GreyGrain(Source):
    """All channels of a sample share one draw."""

    def noise(self, x, *key):
        return each(super().noise(x, *key), lambda leaf: leaf[:, :1].expand_as(leaf).clone())


class Blurred(Source):
    """Neighbours correlate; the variance is mended."""

    def noise(self, x, *key):
        return each(super().noise(x, *key), lambda leaf: (leaf + leaf.roll(1, -1)) / 2**0.5)


class HalfTwice(Source):
    """The second half of a sample repeats the first."""

    def noise(self, x, *key):
        def repeated(leaf):
            rows = leaf.flatten(1)
            half = rows.shape[1] // 2
            return torch.cat([rows[:, :half], rows[:, :half], rows[:, 2 * half :]], 1).view_as(leaf)

        return each(super().noise(x, *key), repeated)


class RoundedLevels(Source):
    """Late steps, whose levels are the same to two digits, repeat their noise."""

    def noise(self, x, sigma_from, sigma_to, *key):
        return super().noise(x, round(sigma_from, 2), round(sigma_to, 2), *key)


class FourDigits(Source):
    """Late steps of a thousand repeat their noise."""

    def noise(self, x, sigma_from, sigma_to, *key):
        return super().noise(x, round(sigma_from, 4), round(sigma_to, 4), *key)


class FromOnly(Source):
    def noise(self, x, sigma_from, sigma_to, *key):
        return super().noise(x, sigma_from, 0.0, *key)


class ToOnly(Source):
    def noise(self, x, sigma_from, sigma_to, *key):
        return super().noise(x, 0.0, sigma_to, *key)


class Sorted(Source):
    """A rising interval gets the noise of the falling one, backwards as on a path."""

    def noise(self, x, sigma_from, sigma_to, *key):
        found = super().noise(x, max(sigma_from, sigma_to), min(sigma_from, sigma_to), *key)
        return each(found, lambda leaf: leaf if sigma_from >= sigma_to else -leaf)


class EvenAndOddVisits(Source):
    def noise(self, x, sigma_from, sigma_to, stream="step", visit=0):
        return super().noise(x, sigma_from, sigma_to, stream, visit % 2)


class LengthOfTheStream(Source):
    def noise(self, x, sigma_from, sigma_to, stream="step", visit=0):
        return super().noise(x, sigma_from, sigma_to, "s" * len(stream), visit)


class OneString(Source):
    """Visit 11 of a stream is visit 1 of another whose name ends in 1."""

    def noise(self, x, sigma_from, sigma_to, stream="step", visit=0):
        return super().noise(x, sigma_from, sigma_to, f"{stream}{visit}", 0)


class SumOfSeedAndVisit(Source):
    """A visit of a seed is the next visit of the seed before it."""

    def noise(self, x, sigma_from, sigma_to, stream="step", visit=0):
        seed = self.inner.seed
        seed = seed + visit if isinstance(seed, int) else [number + visit for number in seed]
        return kd.KeyedNoise(seed).noise(x, sigma_from, sigma_to, stream, 0)


class ShortSeed(Source):
    bits = 16

    def __init__(self, seed):
        one = isinstance(seed, int)
        super().__init__(seed % 2**self.bits if one else [number % 2**self.bits for number in seed])


class LowHalfOfTheSeed(ShortSeed):
    bits = 32


class RefusesLongSeeds(Source):
    """Says that it does not take a seed beyond 32 bits, which is sound."""

    def __init__(self, seed):
        if max([seed] if isinstance(seed, int) else seed) >= 2**32:
            raise kd.ParameterError("seed: at most 32 bits")
        super().__init__(seed)


class SaysItIsBrownian(Source):
    """Draws overlapping intervals independently, and tells the core to leave them to it."""

    brownian = False


class Float32(Source):
    def noise(self, x, *key):
        return each(super().noise(x, *key), lambda leaf: leaf.float())


class OneBuffer(Source):
    kept: dict = {}

    def noise(self, x, *key):
        def buffered(leaf):
            return self.kept.setdefault((leaf.shape, leaf.dtype), leaf).copy_(leaf)

        return each(super().noise(x, *key), buffered)


def each(x, f):
    """A function of each tensor of a state."""
    if isinstance(x, dict):
        return {key: each(value, f) for key, value in x.items()}
    return [each(value, f) for value in x] if isinstance(x, list) else f(x)


def generators(seed):
    """One generator after the other: the source that `kd.noise_from` makes of torch's generators."""
    numbers = seed if isinstance(seed, list) else [seed]
    return kd.noise_from([torch.Generator().manual_seed(number) for number in numbers])


# ------------------------------------------------------------------------------------ planted: denoisers


class Normalises(Toy):
    batch_exact = False

    def __call__(self, x, sigma):
        return super().__call__(x - x.mean(), sigma)


class WritesIntoX(Toy):
    def __call__(self, x, sigma):
        return super().__call__(x.clamp_(-1, 1), sigma)


class ReturnsOneBuffer(Toy):
    buffer: dict = {}

    def __call__(self, x, sigma):
        found = super().__call__(x, sigma)
        return self.buffer.setdefault((x.shape, x.dtype), found).copy_(found)


class ReturnsX(Toy):
    def __call__(self, x, sigma):
        return x.view(x.shape)


class WholeNumbers(Toy):
    def __call__(self, x, sigma):
        return super().__call__(x, sigma).round().long()


class FirstLevelForAll(Toy):
    batch_exact = False

    def __call__(self, x, sigma):
        return super().__call__(x, sigma[:1])


class NotFiniteAtTheTop(Toy):
    path = "flow"

    def __call__(self, x, sigma):
        return super().__call__(x, sigma / (1 - sigma)) / (1 - sigma).reshape(-1, 1)


class Dropout(Toy):
    def __call__(self, x, sigma):
        return torch.nn.functional.dropout(super().__call__(x, sigma), 0.5)


class Counts(Toy):
    batch_exact = False
    calls = 0

    def __call__(self, x, sigma):
        self.calls += 1
        return super().__call__(x, sigma) + self.calls


class OtherGuidance(CFG):
    def __call__(self, x, sigma, **cond):
        return self.denoiser(x, sigma, **cond)


class Network(Toy):
    """Computes in a precision of its own, as networks do, and casts; sums differ with the batch."""

    batch_exact = False

    def __init__(self, dtype):
        self.dtype = dtype

    def __call__(self, x, sigma):
        found = super().__call__(x, sigma).to(self.dtype)
        return (found * (1 + torch.finfo(self.dtype).eps * len(x))).to(x.dtype)


class AlmostExact(Toy):
    """Its last digits depend on the size of the batch, as those of a matrix product do."""

    batch_exact = False

    def __call__(self, x, sigma):
        return super().__call__(x, sigma) * (1 + 4e-16 * len(x))


class SaysExact(AlmostExact):
    batch_exact = True


# ---------------------------------------------------------------------------------------- planted: paths


class Squared(type(VE)):
    """Its lambda is that of variances, twice as long."""

    def lambda_(self, sigma):
        return 2 * super().lambda_(sigma)


class Upwards(type(FLOW)):
    def lambda_(self, sigma):
        return -super().lambda_(sigma)


class RoundTrip(type(VE)):
    def from_ratio(self, ratio):
        return ratio / (1 + ratio)


class OnFloats(type(VE)):
    def sigma(self, lambda_):
        return math.exp(-lambda_)


class TooHigh(type(FLOW)):
    """Goes down by VE's rule in the level itself, from which flow cannot be renoised for small eta."""

    def ancestral_down(self, sigma, sigma_next, eta):
        return sigma_next * (1 + eta * sigma_next / sigma)


class NoLimits(type(FLOW)):
    def ratio(self, sigma):
        return sigma / (1 - sigma)


MUTANTS = [
    (OneTooMany(), "schedule", "gives_exactly_n_steps", "it gives 2"),
    (Rounded(), "schedule", "gives_exactly_n_steps", "repeats"),
    (SkipsSigmaMin(), "schedule", "spans_the_range_given", "sigma_min"),
    (BelowTheRange(), "schedule", "spans_the_range_given", "below sigma_min"),
    (AboveTheRange(), "schedule", "takes_its_range_from_a_process", "above sigma_max"),
    (IgnoresSigmaMax(), "schedule", "spans_the_range_given", "sigma_max"),
    (PrefersTheProcess(), "schedule", "takes_its_range_from_a_process", "beside a process"),
    (Jittered(), "schedule", "same_levels_every_time", "other levels"),
    (AcceptsNoSteps(), "schedule", "refuses_what_is_no_count", "n=0"),
    (DividesByZero(), "schedule", "refuses_what_is_no_count", "ZeroDivisionError"),
    (SortsItsEnds(), "schedule", "refuses_what_is_no_range", "sigma_min=10.0"),
    (Own(function=lambda n: range(n, -1, -1)), "schedule", "schedule_is_a_value", "pickled"),
    (NoValue(), "schedule", "schedule_is_a_value", "another value"),
    (TimeInTheLog(), "process", "time_and_level_are_inverse", "no inverse"),
    (CountedFromTheNoise(), "process", "level_rises_with_time", "does not rise"),
    (OtherEnds(), "process", "ends_are_declared", "sigma_min"),
    (Line(path="flow"), "process", "path_is_declared", "above 1"),
    (Line(path="vp"), "process", "path_is_declared", "'vp'"),
    (Weak, "noise", "unit_normal", "variance"),
    (Uniform, "noise", "unit_normal", "fourth moment"),
    (FromTheGlobalGenerator, "noise", "global_random_state_is_untouched", "torch"),
    (FromTheGlobalGenerator, "noise", "pure_function_of_its_arguments", "second time"),
    (SeededGlobally, "noise", "global_random_state_is_untouched", "torch"),
    (generators, "noise", "pure_function_of_its_arguments", "second time"),
    (OnePlace, "noise", "same_for_any_batch", "place"),
    (OneForAll, "noise", "independent_between_samples", "same noise"),
    (NextSeed, "noise", "independent_between_samples", "same noise"),
    (AnyStream, "noise", "independent_between_draws", "another stream"),
    (AnyVisit, "noise", "independent_between_draws", "another visit"),
    (GreyGrain, "noise", "independent_within_a_sample", "along dimension 1"),
    (Blurred, "noise", "independent_within_a_sample", "1 apart along dimension 3"),
    (HalfTwice, "noise", "independent_within_a_sample", "within a sample"),
    (RoundedLevels, "noise", "independent_between_draws", "a late interval and the last interval"),
    (RoundedLevels, "noise", "every_draw_its_own", "same noise"),
    (FourDigits, "noise", "every_draw_its_own", "same noise"),
    (FromOnly, "noise", "every_draw_its_own", "same noise"),
    (ToOnly, "noise", "every_draw_its_own", "same noise"),
    (Sorted, "noise", "every_draw_its_own", "its sign"),
    (EvenAndOddVisits, "noise", "independent_between_draws", "the visit after"),
    (LengthOfTheStream, "noise", "independent_between_draws", "same letters"),
    (OneString, "noise", "every_draw_its_own", "visit 11"),
    (SumOfSeedAndVisit, "noise", "every_draw_its_own", "the next seed"),
    (ShortSeed, "noise", "every_seed_its_own", "bit 16"),
    (LowHalfOfTheSeed, "noise", "seeds_beyond_32_bits", "bit 32"),
    (SaysItIsBrownian, "noise", "increments_of_one_brownian_path", "Brownian"),
    (Float32, "noise", "like_the_state", "dtype"),
    (OneBuffer, "noise", "like_the_state", "fresh memory"),
    (Normalises(), "denoiser", "independent_of_the_batch", "batch"),
    (WritesIntoX(), "denoiser", "pure_function_of_its_inputs", "writes into x"),
    (Counts(), "denoiser", "pure_function_of_its_inputs", "second time"),
    (ReturnsOneBuffer(), "denoiser", "output_is_fresh_memory", "writes over"),
    (ReturnsX(), "denoiser", "output_is_fresh_memory", "memory of x"),
    (WholeNumbers(), "denoiser", "output_like_the_state", "dtype"),
    (FirstLevelForAll(), "denoiser", "each_sample_at_its_own_level", "other levels"),
    (NotFiniteAtTheTop(), "denoiser", "finite_over_its_range", "NaN"),
    (Dropout(), "denoiser", "draws_no_global_randomness", "torch"),
    (OtherGuidance(Toy(), 3.0, {"mean": 0.0}), "denoiser", "predict_agrees_with_the_call", "predict"),
    (SaysExact(), "denoiser", "independent_of_the_batch", "batch"),
    (Squared(), "path", "lambda_and_level_are_inverse", "not lambda's inverse"),
    (Upwards(), "path", "lambda_falls_as_noise_rises", "does not fall"),
    (RoundTrip(), "path", "ratio_and_level_are_inverse", "no inverse"),
    (Squared(), "path", "ratio_and_lambda_are_made_of_alpha", "log(alpha / sigma)"),
    (OnFloats(), "path", "same_on_numbers_of_any_kind", "floats"),
    (TooHigh(), "path", "ancestral_step_keeps_the_marginal", "sigma_next"),
    (NoLimits(), "path", "ends_are_limits", "ZeroDivisionError"),
    (Squared(), "path", "one_object_in_every_process", "another object"),
]


@pytest.mark.parametrize(
    ("subject", "kind", "name", "word"),
    MUTANTS,
    ids=[f"{getattr(m[0], '__name__', type(m[0]).__name__)}-{m[2]}" for m in MUTANTS],
)
def test_planted_bugs_are_found(subject, kind, name, word):
    """Each bug is rejected by the law that it breaks, with a message that says what is wrong."""
    found = check(subject, kind, only=name)[name]
    assert found.status == "failed"
    assert word in found.message
    with pytest.raises(LawBroken, match=name):
        found.raise_if_broken()


def test_a_source_that_refuses_long_seeds_is_sound():
    """A source may take 32 bits, if it says so: only a seed that is cut in silence is a bug."""
    report = check(RefusesLongSeeds, "noise")
    assert report.ok, str(report)


@pytest.mark.parametrize(
    "denoiser", [AlmostExact(), Network(torch.float32), Network(torch.bfloat16)], ids=["exact", "f32", "bf16"]
)
def test_rounding_of_a_batch_is_no_bug(denoiser):
    """A denoiser whose last digits depend on the batch passes, unless it says that they do not."""
    assert check(denoiser, "denoiser").ok


def salted(seed):
    """Noise keyed by the hash of a string, which is another one in each process."""
    return partial(kd.KeyedNoise, index=None)([hash("step") % 1000 + number for number in seed])


@pytest.mark.kdiff_slow
@pytest.mark.parametrize(("make", "word"), [(salted, "other noise"), (lambda seed: 0, "cannot be pickled")])
def test_noise_that_differs_between_processes_is_found(make, word):
    """A key that Python salts, and a source that cannot be sent to a process, are rejected."""
    found = check(make, "noise", only="same_bits_in_another_process", slow=True)
    assert word in found["same_bits_in_another_process"].message
