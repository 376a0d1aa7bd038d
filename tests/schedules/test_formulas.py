"""Bare schedules: each one's levels by its formula in NumPy, and its count for every n."""

import numpy as np
import pytest
from scipy import stats

import kdiff_core as kd
from kdiff_core.errors import GridError, ParameterError

SD, SD3 = kd.get_process("sd"), kd.get_process("sd3")
LOW, HIGH = 0.0291675, 14.614642
COUNTS = (1, 2, 3, 10, 47)
NAMES = [entry.name for entry in kd.list_schedules() if entry.name != "custom"]


def at_times(places):
    """Levels of the table of Stable Diffusion at times between 0 and 1."""
    return np.exp(np.interp(np.asarray(places) * 999, np.arange(1000), np.log(SD.levels)))


def laplace(u):
    """Quantiles of a Laplace distribution of log sigma, cut at the range."""
    found = stats.laplace(0.0, 0.5)
    ends = found.cdf(np.log([HIGH, LOW]))
    return np.exp(found.ppf(ends[0] + u * (ends[1] - ends[0])))


def warp(curve):
    """Levels of a warp whose curve goes from w(0) to w(1)."""
    return lambda u: LOW + (HIGH - LOW) * (curve(1 - u) - curve(0.0)) / (curve(1.0) - curve(0.0))


def bong(y):
    y = np.asarray(y, dtype=float)
    slope = np.arctan(8 * (y - 0.4))
    return np.where(y > 0.4, 0.5 + slope / np.arctan(4.8) / 2, 0.5 + slope / np.arctan(3.2) / 2)


def normal(y):
    return 1 / (1 + np.exp(-3 * stats.norm.ppf(0.01 + 0.98 * y)))


# Of u = i / (n - 1).
RANGE = {
    "flow_linspace": lambda u: HIGH + u * (LOW - HIGH),
    "kl_optimal": lambda u: np.tan(u * np.arctan(LOW) + (1 - u) * np.arctan(HIGH)),
    "laplace": laplace,
    "logsnr": lambda u: HIGH * (LOW / HIGH) ** u,
    "ve": lambda u: np.sqrt(HIGH**2 * (LOW / HIGH) ** (2 * u)),
    "tangent": warp(lambda y: np.arctan(8 * (y - 0.4))),
    "bong_tangent": warp(bong),
    "probit": warp(normal),
    "hyper": warp(lambda y: np.sinh(2 * y)),
    "sinner": warp(lambda y: y - np.sin(4 * np.pi * y) / (8 * np.pi)),
}
# Times of the n levels above 0.
TIMED = {
    "uniform": lambda n: np.linspace(1, 0, n),
    "sgm_uniform": lambda n: np.linspace(1, 0, n + 1)[:-1],
    "trailing": lambda n: np.arange(1000, 0, -1000 / n)[:n] / 999 - 1 / 999,
    "leading": lambda n: np.arange(n)[::-1] / n,
    "quadratic": lambda n: np.linspace(1, 0, n) ** 2,
    "beta": lambda n: stats.beta.ppf(1 - np.arange(n) / n, 0.6, 0.6),
    "lcm": lambda n: (999 - 20 * np.floor(np.linspace(0, 50, n, endpoint=False))) / 999,
}  # fmt: skip


@pytest.mark.parametrize("n", COUNTS)
@pytest.mark.parametrize("name", RANGE)
def test_range_formulas(name, n):
    """A schedule between two levels has the levels of its formula, then 0."""
    found = list(kd.get_schedule(name)(n, sigma_min=LOW, sigma_max=HIGH))
    expected = RANGE[name](np.arange(n) / max(n - 1, 1))
    np.testing.assert_allclose(found[:-1], expected, rtol=1e-9)
    assert found[-1] == 0


@pytest.mark.parametrize("n", COUNTS)
@pytest.mark.parametrize("name", TIMED)
def test_time_formulas(name, n):
    """A schedule in time has the table's levels at the times of its formula, log-linear between entries."""
    found = list(kd.get_schedule(name)(n, process=SD))
    np.testing.assert_allclose(found[:-1], at_times(TIMED[name](n)), rtol=1e-9)
    assert found[-1] == 0


@pytest.mark.parametrize("n", COUNTS)
def test_schedules_down_to_zero(n):
    """TrigFlow's angles and the linear-quadratic curve are evenly cut from the top down to 0."""
    found = list(kd.get_schedule("trigflow")(n, sigma_min=0.002, sigma_max=80.0))
    np.testing.assert_allclose(found, 0.5 * np.tan(np.arctan(160) * np.linspace(1, 0, n + 1)), rtol=1e-9)
    found = list(kd.get_schedule("linear_quadratic")(n, sigma_min=0.001, sigma_max=1.0))
    half = n // 2
    if half:
        np.testing.assert_allclose(found[: half + 1], 1 - 0.025 * np.arange(half + 1) / half, rtol=1e-12)
        bends = np.diff(found[half:], 2)
        np.testing.assert_allclose(bends, bends.mean() if len(bends) else 0, atol=1e-12)  # a parabola
        # With the line's slope where it begins: the first difference is half a bend more.
        curve = np.polyfit(np.arange(3), [*found[half:], 0.0][:3], 2) if n - half >= 2 else None
        assert curve is None or curve[1] == pytest.approx(-0.025 / half, rel=1e-9)
    assert (found[0], found[-1]) == (1, 0)


@pytest.mark.parametrize("n", [2, 5, 40])
def test_log_snr_on_flow(n):
    """On flow, lambda is evenly spaced from that of 0.9999 on, behind a first level of 1."""
    found = np.array(kd.get_schedule("logsnr")(n, process=SD3))
    lambdas = np.log((1 - found[1:-1]) / found[1:-1])
    first = np.log(0.0001 / 0.9999)
    np.testing.assert_allclose(np.diff([first, *lambdas]), (lambdas[-1] - first) / (n - 1), rtol=1e-9)
    assert found[0] == 1
    assert found[-2] == SD3.sigma_min


def test_flow_line_is_the_shifted_line():
    """Uniform in a shifted flow's time is the shifted line, and so is the shifted line over its range."""
    s = np.linspace(1, 1e-3, 12)
    expected = [*(3 * s / (1 + 2 * s)), 0]
    for name in ("uniform", "shifted"):
        np.testing.assert_allclose(list(kd.get_schedule(name)(12, process=SD3)), expected, rtol=1e-12)
    np.testing.assert_allclose(list(kd.get_schedule("shifted", shift=3.0)(12)), expected, rtol=1e-12)


AYS = [14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029]


@pytest.mark.parametrize("n", COUNTS)
def test_tables(n):
    """A table of levels is log-linear in its index; n + 1 of them, the last replaced by 0."""
    at = np.linspace(0, 10, n + 1)
    expected = np.exp(np.interp(at, np.arange(11), np.log(AYS)))
    np.testing.assert_allclose(list(kd.get_schedule("ays")(n))[:-1], expected[:-1], rtol=1e-12)


@pytest.mark.parametrize("key", ["StableDiffusion", "StableDiffusionXL", "StableDiffusionVideo"])
def test_tables_of_diffusers(key):
    """For ten steps AYS is diffusers' table, number for number."""
    tables = pytest.importorskip("diffusers.schedulers").AysSchedules
    model = {"StableDiffusion": "sd", "StableDiffusionXL": "sdxl", "StableDiffusionVideo": "svd"}[key]
    assert list(kd.get_schedule("ays", model=model)(10)) == tables[f"{key}Sigmas"]


def test_gits_in_six_steps():
    """For six steps GITS is the table that its authors give, which ends above 0."""
    assert list(kd.get_schedule("gits")(6)) == [80, 10.9836, 3.8811, 1.584, 0.5666, 0.1698, 0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("process", [SD, SD3], ids=["sd", "sd3"])
def test_counts(name, process):
    """Each bare schedule gives n falling steps of a real model for n from 1 to 1000."""
    schedule = kd.get_schedule(name)
    for n in [*range(1, 12), *range(13, 1001, 83), 999, 1000]:
        assert schedule(n, process=process).steps == n


@pytest.mark.kdiff_slow
@pytest.mark.parametrize("name", NAMES)
def test_every_count(name):
    """Each bare schedule gives n falling steps for every n from 1 to 1000."""
    schedule = kd.get_schedule(name)
    assert all(schedule(n, process=SD).steps == n for n in range(1, 1001))


@pytest.mark.parametrize("name", TIMED)
def test_a_process_is_needed(name):
    """A schedule in time without a process refuses, and says where one comes from."""
    with pytest.raises(ParameterError, match="get_process"):
        kd.get_schedule(name)(10, sigma_min=LOW, sigma_max=HIGH)


@pytest.mark.parametrize("name", TIMED)
def test_a_process_of_its_own(name):
    """A schedule made with a process uses it where it is given none, and the model's where it is."""
    made = kd.get_schedule(name, process="sd")
    assert made(10) == kd.get_schedule(name)(10, process=SD)
    assert made(10, process=SD3) == kd.get_schedule(name)(10, process=SD3)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sinner", {"scale": 1.0}),
        ("sinner", {"count": 0}),
        ("probit", {"tail": 0.5}),
        ("tangent", {"pivot": 1.0}),
        ("quadratic", {"power": 0.0}),
        ("laplace", {"beta": -1.0}),
        ("logsnr", {"path": "vp"}),
        ("ays", {"model": "flux"}),
        ("lcm", {"original_steps": 0}),
    ],
)
def test_bad_parameters(name, options):
    """Parameters that would make levels rise, or mean nothing, are refused when the schedule is made."""
    with pytest.raises(ParameterError, match=next(iter(options))):
        kd.get_schedule(name, **options)


def test_tables_refuse_no_steps():
    """A table of levels refuses what is no count."""
    with pytest.raises(GridError, match="at least 1"):
        kd.get_schedule("ays")(0)
