"""Schedules around others, and grids cut and put together: laws of composition, then hosts' numbers."""

import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kdiff_core as kd
from kdiff_core.errors import GridError, ParameterError
from kdiff_core.testing import check
from kdiff_schedules.surgery import concatenate, invert, rescale, split, split_at

SD, SD3, FLOW = kd.get_process("sd"), kd.get_process("sd3"), kd.get_process("flow")
law = settings(deadline=None)
counts = st.integers(1, 200)


def schedule(name, **options):
    return kd.get_schedule(name, **options)


COMPOSED = [
    schedule("shifted", schedule="karras", shift=0.4),
    schedule("shifted", schedule=schedule("shifted", schedule="beta"), shift=5.0, power=1.5),
    schedule("dynamic_shift", tokens=1024, form="linear"),
    schedule("empirical_shift", schedule="sgm_uniform", tokens=6000),
    schedule("stretched", schedule=schedule("dynamic_shift"), terminal=0.05),
    schedule("strength", schedule="karras", strength=0.3),
    schedule("strength", schedule="rescaled", strength=0.75),
    schedule("joined", first="karras", second=schedule("shifted"), share=0.2),
    schedule("rescaled", schedule=schedule("ays", model="svd")),
    schedule("rescaled", schedule="sgm_uniform"),
]


@pytest.mark.parametrize("composed", COMPOSED, ids=repr)
def test_composed_schedules_keep_the_laws(composed):
    """A schedule of schedules is a schedule: the kit rejects none of them."""
    report = check(composed, "schedule", examples=8)
    assert report.ok, str(report)


@law
@given(counts, st.floats(0.1, 10), st.floats(0.1, 10))
def test_shifts_compose(n, first, second):
    """One shift after another is the shift by their product."""
    twice = schedule("shifted", schedule=schedule("shifted", shift=first), shift=second)
    once = schedule("shifted", shift=first * second)
    np.testing.assert_allclose(list(twice(n, process=FLOW)), list(once(n, process=FLOW)), rtol=1e-9)


@law
@given(counts, st.floats(0.1, 10))
def test_a_shift_multiplies_the_noise_to_signal(n, shift):
    """Of each level, s / (1 - s) is the inner schedule's times k, over the range that is shifted onto it."""
    outer = np.array(schedule("shifted", schedule="karras", shift=shift)(n, process=FLOW))[1:-1]
    low = FLOW.sigma_min / (1 - FLOW.sigma_min) / shift
    inner = np.array(schedule("karras")(n, sigma_min=low / (1 + low), sigma_max=1.0))[1:-1]
    np.testing.assert_allclose(outer / (1 - outer), shift * inner / (1 - inner), rtol=1e-9)


@law
@given(st.integers(2, 200), st.floats(0.1, 10), st.sampled_from([SD, SD3, FLOW]))
def test_a_shift_keeps_the_ends(n, shift, process):
    """Whatever the shift, the range's ends are met bit for bit."""
    found = schedule("shifted", schedule="karras", shift=shift)(n, process=process)
    assert (found[0], found[n - 1]) == (process.sigma_max, process.sigma_min)


def test_a_shift_on_ve_multiplies_the_level():
    """On VE sigma itself is multiplied: exponential levels stay what they are, arctangents' do not."""
    levels = list(schedule("exponential")(9, process=SD))
    shifted = list(schedule("shifted", schedule="exponential", shift=3.0)(9, process=SD))
    np.testing.assert_allclose(shifted, levels, rtol=1e-12)
    arctan = np.array(schedule("shifted", schedule="kl_optimal", shift=3.0)(9, process=SD))[:-1]
    np.testing.assert_allclose(np.diff(np.arctan(arctan / 3), 2), 0, atol=1e-12)


@law
@given(counts, st.integers(64, 9000))
def test_tokens(n, tokens):
    """The dynamic shift is e^mu with mu a line through 0.5 at 256 and 1.15 at 4096 tokens, or mu itself."""
    mu = 0.5 + (tokens - 256) / 3840 * 0.65
    for form, shift in (("exponential", math.exp(mu)), ("linear", mu)):
        found = schedule("dynamic_shift", tokens=tokens, form=form)(n, process=FLOW)
        expected = schedule("shifted", shift=shift)(n, process=FLOW)
        np.testing.assert_allclose(list(found), list(expected), rtol=1e-9)


@pytest.mark.parametrize(("tokens", "n", "mu"), [
    (4096, 200, 0.00016927 * 4096 + 0.45666666),
    (4096, 10, 8.73809524e-05 * 4096 + 1.89833333),
    (4096, 105, ((0.00016927 + 8.73809524e-05) * 4096 + 0.45666666 + 1.89833333) / 2),
    (5000, 10, 0.00016927 * 5000 + 0.45666666),
])  # fmt: skip
def test_empirical_shift(tokens, n, mu):
    """Flux 2's mu is the one fit at 200 steps, the other at 10, half of each between, the one beyond 4300."""
    found = schedule("empirical_shift", tokens=tokens)(n, process=FLOW)
    expected = schedule("shifted", shift=math.exp(mu))(n, process=FLOW)
    np.testing.assert_allclose(list(found), list(expected), rtol=1e-9)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("form", ["exponential", "linear"])
def test_diffusers_dynamic_shift(form):
    """With mu and a terminal, diffusers' flow scheduler has the levels of the two schedules composed."""
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, shift_terminal=0.1, time_shift_type=form
    )
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 20, 20), mu=0.5 + (2048 - 256) / 3840 * 0.65)
    shifted = schedule("dynamic_shift", tokens=2048, form=form)
    k = shifted.factor(20)
    low = k / 20 / (1 + (k - 1) / 20)
    found = schedule("stretched", schedule=shifted, terminal=0.1)(20, sigma_min=low, sigma_max=1.0)
    np.testing.assert_allclose(list(found), scheduler.sigmas.double().numpy(), rtol=1e-5)


@law
@given(st.integers(2, 200), st.floats(0.01, 0.9))
def test_stretched(n, terminal):
    """The last level above 0 is the terminal one, and 1 - s is in proportion to what it was."""
    inner = np.array(schedule("flow_linspace")(n))
    found = np.array(schedule("stretched", terminal=terminal)(n))
    assert found[-2] == terminal
    np.testing.assert_allclose((1 - found[1:-1]) / (1 - inner[1:-1]), (1 - terminal) / (1 - 1e-3), rtol=1e-9)


@law
@given(counts, st.floats(0.05, 1.0))
def test_strength(n, strength):
    """Exactly n steps are the last of int(n / strength); diffusers and A1111 keep a part of n."""
    found = schedule("strength", strength=strength)(n, process=SD)
    assert found == schedule("karras")(int(n / strength), process=SD)[-n - 1 :]
    kept = int(n * strength)
    if kept:
        found = schedule("diffusers:strength", strength=strength)(n, process=SD)
        assert found == schedule("karras")(n, process=SD)[n - kept :]
    else:
        with pytest.raises(GridError, match="leaves no step"):
            schedule("diffusers:strength", strength=strength)(n, process=SD)
    found = schedule("a1111:denoise", strength=strength)(n, process=SD)
    assert found.steps == int(min(strength, 0.999) * n) + 1


def test_three_strengths():
    """Of one strength and 20 steps the three hosts make 20, 10 and 11 steps."""
    steps = [
        schedule(name, strength=0.5)(20, process=SD).steps
        for name in ("comfyui:denoise", "diffusers:strength", "a1111:denoise")
    ]
    assert steps == [20, 10, 11]


def test_steps_of():
    """ComfyUI's start and end steps cut the grid of all steps; beyond the end there is nothing to cut."""
    whole = schedule("karras")(20, process=SD)
    assert schedule("comfyui:steps", start=5, end=12)(20, process=SD) == whole[5:13]
    assert schedule("comfyui:steps", start=5, end=10000)(20, process=SD) == whole[5:]
    with pytest.raises(GridError, match="no step from 12 to 12"):
        schedule("comfyui:steps", start=12, end=12)(20, process=SD)


@law
@given(st.integers(3, 200), st.floats(0.05, 0.95), st.floats(0.05, 10.0))
def test_joined(n, share, at):
    """Two schedules meet at the level asked for, each on its own part of the range."""
    found = schedule("joined", at=at, share=share)(n, process=SD)
    assert (found.steps, found[0], found[n - 1]) == (n, SD.sigma_max, SD.sigma_min)
    upper, lower = split(found, list(found).index(at))
    assert upper == schedule("exponential")(upper.steps + 1, sigma_min=at, sigma_max=SD.sigma_max)[:-1]
    assert lower == schedule("karras")(lower.steps, sigma_min=SD.sigma_min, sigma_max=at)


@law
@given(st.integers(2, 200))
def test_rescaled(n):
    """Log levels are those of the table on a line, from one end of the range to the other."""
    source = np.log(np.array(schedule("ays")(n))[:-1])
    found = np.log(np.array(schedule("rescaled", schedule="ays")(n, sigma_min=0.002, sigma_max=80.0))[:-1])
    np.testing.assert_allclose(found, np.interp(-source, -source[[0, -1]], np.log([80, 0.002])), rtol=1e-9)


def test_the_inner_schedules_own_range():
    """Without a range or a process that of the inner schedule counts: a table's, a process of its own."""
    assert schedule("strength", schedule="ays", strength=0.5)(5) == schedule("ays")(10)[5:]
    assert schedule("rescaled", schedule="ays")(10)[9] == 0.029
    beta = schedule("beta", process="sd")
    assert schedule("strength", schedule=beta, strength=0.5)(5) == beta(10)[5:]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: schedule("shifted", schedule="karas"), KeyError, "karras"),
        (lambda: schedule("shifted", shift=-1.0), ParameterError, "shift"),
        (lambda: schedule("shifted")(5, sigma_min=0.1, sigma_max=10.0), ParameterError, "process="),
        (lambda: schedule("shifted", schedule="ays")(5, process=FLOW), GridError, "flow path"),
        (lambda: schedule("dynamic_shift", form="cubic"), ParameterError, "form"),
        (
            lambda: schedule("dynamic_shift", form="linear", base_shift=-5.0, tokens=1),
            ParameterError,
            "tokens",
        ),
        (lambda: schedule("stretched", terminal=2.0)(5), GridError, "below the first level"),
        (lambda: schedule("strength", strength=0.0), ParameterError, "strength"),
        (lambda: schedule("joined", first="ays"), ParameterError, "one end of its range"),
        (lambda: schedule("joined", at=100.0)(5, process=SD), GridError, "at=100.0"),
        (lambda: split([3, 2, 1], 2), GridError, "step=2 of 2"),
        (lambda: split_at([3, 2, 1], 3), GridError, "sigma=3"),
        (lambda: concatenate([3, 2], [2.5, 1]), GridError, "rises"),
        (lambda: rescale([3, 0], 1, 2), GridError, "1 levels above 0"),
    ],
)
def test_refusals(make, error, message):
    """What cannot be composed or cut is refused, with what would be right."""
    with pytest.raises((error, kd.KdiffError), match=message):
        make()


grids = st.lists(st.floats(1e-3, 100), min_size=3, max_size=30, unique=True).map(
    lambda levels: kd.Grid.of(sorted(levels, reverse=True))
)


@law
@given(grids, st.data())
def test_cut_and_put_together(grid, data):
    """A grid that is cut at a step and put together is what it was; cut at a level it has that level too."""
    step = data.draw(st.integers(1, grid.steps - 1))
    assert concatenate(*split(grid, step)) == grid
    between = (grid[step - 1] + grid[step]) / 2
    if grid[step] < between < grid[step - 1]:
        upper, lower = split_at(grid, between)
        assert upper[-1] == lower[0] == between
        assert set(concatenate(upper, lower)) == {*grid, between}


@law
@given(grids)
def test_rescale_and_back(grid):
    """A grid brought to another range and back is what it was, and ends where it is told."""
    there = rescale(grid, 0.01, 50.0)
    assert (there[0], there[-1]) == (50.0, 0.01)
    np.testing.assert_allclose(list(rescale(there, grid[-1], grid[0])), list(grid), rtol=1e-9)


def test_invert():
    """The way from data to noise has the levels above 0, rising."""
    assert list(invert(schedule("karras")(5, process=SD))) == list(schedule("karras")(5, process=SD))[-2::-1]


@pytest.mark.parametrize("composed", COMPOSED, ids=repr)
def test_values(composed):
    """A schedule of schedules is a value: equal when pickled, with the same hash."""
    assert pickle.loads(pickle.dumps(composed)) == composed
    assert hash(pickle.loads(pickle.dumps(composed))) == hash(composed)
