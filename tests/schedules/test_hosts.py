"""Host-qualified schedules: each host's numbers and count, by formulas in NumPy and by diffusers itself."""

import numpy as np
import pytest
from scipy import stats

import kdiff_core as kd
from kdiff_core.errors import ParameterError

# diffusers with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SD, SD3, EDM = kd.get_process("sd"), kd.get_process("sd3"), kd.get_process("edm")
COUNTS = (1, 2, 3, 4, 7, 10, 20, 30, 50, 100)
EXACT = 1e-6

BETAS = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
ABAR = np.cumprod(1 - BETAS)
TABLES = {
    "sd": np.sqrt((1 - ABAR) / ABAR),
    "sd3": 3 * np.arange(1, 1001) / 1000 / (1 + 2 * np.arange(1, 1001) / 1000),
    "edm": np.exp(np.linspace(np.log(0.002), np.log(80), 1000)),
}
PROCESSES = {"sd": SD, "sd3": SD3, "edm": EDM}


def simple(table, n):
    return [*(table[-(1 + int(i * len(table) / n))] for i in range(n)), 0]


def ddim_uniform(table, n):
    return [*table[1 :: max(len(table) // n, 1)][::-1], 0]


def beta(table, n):
    places = np.rint(stats.beta.ppf(1 - np.linspace(0, 1, n, endpoint=False), 0.6, 0.6) * 999).astype(int)
    return [*table[[p for i, p in enumerate(places) if i == 0 or p != places[i - 1]]], 0]


def turbo(table, n):
    return [*table[(np.arange(1, 11) * 100 - 1)[::-1][:n]], 0]


@pytest.mark.parametrize("n", COUNTS)
@pytest.mark.parametrize("model", TABLES)
@pytest.mark.parametrize("rule", [simple, ddim_uniform, beta, turbo], ids=lambda f: f.__name__)
def test_comfyui_entries(rule, model, n):
    """ComfyUI's entries of the table are those of its rule, count included, whatever range is asked for."""
    schedule = kd.get_schedule(f"comfyui:{rule.__name__}")
    found = schedule(n, process=PROCESSES[model])
    np.testing.assert_allclose(list(found), rule(TABLES[model], n), rtol=EXACT)
    assert schedule(n, process=PROCESSES[model], sigma_min=0.5, sigma_max=0.9) == found


@pytest.mark.parametrize(("name", "n", "steps"), [
    ("comfyui:ddim_uniform", 30, 31), ("comfyui:ddim_uniform", 7, 8), ("comfyui:ddim_uniform", 10, 10),
    ("comfyui:beta", 500, 475), ("comfyui:turbo", 20, 10), ("comfyui:laplace", 12, 11),
    ("comfyui:laplace", 1000, 997),
])  # fmt: skip
def test_hosts_count(name, n, steps):
    """Where a host's count is not the one asked for it stays the host's."""
    assert kd.get_schedule(name)(n, process=SD).steps == steps


def in_time(table, times, log=True):
    """Levels at broken places of a table, log-linear or linear."""
    if log:
        return np.exp(np.interp(times, np.arange(len(table)), np.log(table)))
    return np.interp(times, np.arange(len(table)), table)


@pytest.mark.parametrize("n", COUNTS)
@pytest.mark.parametrize("sgm", [False, True])
def test_comfyui_uniform(sgm, n):
    """ComfyUI's normal and sgm_uniform are uniform in the table's index, and shift a flow's lowest twice."""
    schedule = kd.get_schedule("comfyui:sgm_uniform" if sgm else "comfyui:normal")
    times = np.linspace(999, 0, n + 1)[:-1] if sgm else np.linspace(999, 0, n)
    np.testing.assert_allclose(list(schedule(n, process=SD))[:-1], in_time(TABLES["sd"], times), rtol=EXACT)
    low = 3 * 0.001 / 1.002
    s = np.linspace(1, low, n + 1)[:-1] if sgm else np.linspace(1, low, n)
    np.testing.assert_allclose(list(schedule(n, process=SD3))[:-1], 3 * s / (1 + 2 * s), rtol=EXACT)


@pytest.mark.parametrize("n", COUNTS)
def test_comfyui_laplace(n):
    """ComfyUI's laplace cuts a Laplace distribution's quantiles at the range; each level counts once."""
    u = np.linspace(0, 1, n)
    found = np.exp(-0.5 * np.sign(0.5 - u) * np.log(1 - 2 * np.abs(0.5 - u) + 1e-5))
    expected = -np.unique(-np.clip(found, SD.sigma_min, SD.sigma_max))
    expected = [*expected, 0] if n == 1 else expected
    np.testing.assert_allclose(list(kd.get_schedule("comfyui:laplace")(n, process=SD)), expected, rtol=EXACT)


AYS = np.log([14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029])


@pytest.mark.parametrize("n", COUNTS)
def test_a1111(n):
    """A1111's kl_optimal ends above 0, its beta is linear in sigma, its AYS has a 0 behind n levels."""
    low, high = TABLES["sd"][[0, -1]]

    def levels(name):
        return list(kd.get_schedule(f"a1111:{name}")(n, process=SD))

    i = np.arange(n + 1)
    expected = np.tan(i / n * np.arctan(low) + (1 - i / n) * np.arctan(high))
    np.testing.assert_allclose(levels("KL Optimal"), expected, rtol=EXACT)
    share = stats.beta.ppf(1 - np.linspace(0, 1, n), 0.6, 0.6)
    np.testing.assert_allclose(levels("Beta"), [*(low + share * (high - low)), 0], rtol=EXACT)
    expected = np.exp(np.interp(np.linspace(0, 1, n), np.linspace(0, 1, 11), AYS))
    np.testing.assert_allclose(levels("Align Your Steps"), [*expected, 0], rtol=EXACT)
    # Python rounds halves to even, as np.round does.
    places = [round(1000 * j / n) - 1 for j in range(n, 0, -1)]
    np.testing.assert_allclose(levels("turbo"), [*TABLES["sd"][places], 0], rtol=EXACT)


@pytest.mark.parametrize(("name", "expected"), [
    ("comfyui:kl_optimal", [14.6, 4.23, 2.39, 1.60, 1.13, 0.815, 0.573, 0.372, 0.195, 0.029, 0]),
    ("a1111:kl_optimal", [14.6, 4.57, 2.63, 1.79, 1.30, 0.962, 0.712, 0.509, 0.336, 0.178, 0.029]),
    ("comfyui:beta", [14.6, 11.5, 7.37, 4.37, 2.62, 1.62, 1.03, 0.655, 0.396, 0.199, 0]),
    ("a1111:beta", [14.6, 13.9, 12.5, 10.6, 8.44, 6.20, 4.05, 2.15, 0.716, 0.029, 0]),
    ("diffusers:beta", [14.6, 13.9, 12.5, 10.6, 8.44, 6.20, 4.05, 2.15, 0.716, 0.029, 0]),
    ("comfyui:ays", [14.6, 6.32, 3.77, 2.18, 1.34, 0.862, 0.555, 0.380, 0.234, 0.113, 0]),
    ("a1111:ays", [14.6, 5.96, 3.34, 1.86, 1.10, 0.675, 0.431, 0.261, 0.123, 0.029, 0]),
])  # fmt: skip
def test_same_name_other_numbers(name, expected):
    """Where hosts disagree about a name, each qualified name has its host's numbers, here for ten steps."""
    np.testing.assert_allclose(list(kd.get_schedule(name)(10, process=SD)), expected, rtol=6e-3)


def spaced(spacing, rule, n):
    """Times of diffusers' three copies of timestep_spacing."""
    if spacing == "trailing":
        return np.arange(1000, 0, -1000 / n)[:n].round() - 1
    if spacing == "leading":
        points = n + (rule == "dpm")
        return (np.arange(points) * (1000 // points))[::-1][:n]
    if rule == "dpm":
        return np.linspace(0, 999, n + 1).round()[::-1][:-1]
    return np.linspace(0, 999, n)[::-1] if rule == "euler" else np.linspace(0, 999, n).round()[::-1]


@pytest.mark.parametrize("n", COUNTS)
@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize("rule", ["euler", "ddim", "dpm"])
def test_spacings(rule, spacing, n):
    """Each of the three copies of timestep_spacing has its own endpoints and rounding."""
    found = kd.get_schedule(f"diffusers:{spacing}", rule=rule)(n, process=SD)
    expected = in_time(TABLES["sd"], spaced(spacing, rule, n), log=False)
    np.testing.assert_allclose(list(found), [*expected, 0], rtol=EXACT)


# -- diffusers itself, which computes in float32

SPACINGS = [("linspace", 0), ("leading", 1), ("trailing", 0)]
RULES = {"euler": "EulerDiscreteScheduler", "ddim": "DDIMScheduler", "dpm": "DPMSolverMultistepScheduler"}
FLOAT32 = 3e-5  # the error of its table, at its lowest level


def scheduler_of(name, **options):
    diffusers = pytest.importorskip("diffusers")
    ends = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    return getattr(diffusers, name)(**ends, **options)


@pytest.mark.parametrize("n", [1, 2, 7, 10, 30, 50])
@pytest.mark.parametrize(("spacing", "offset"), SPACINGS)
@pytest.mark.parametrize("rule", RULES)
def test_diffusers_spacings(rule, spacing, offset, n):
    """Each of the three copies of timestep_spacing gives its scheduler's own times, and so its levels."""
    scheduler = scheduler_of(RULES[rule], timestep_spacing=spacing, steps_offset=offset)
    scheduler.set_timesteps(n)
    times = scheduler.timesteps.double().numpy()
    options = {"rule": rule} | ({"steps_offset": offset} if spacing == "leading" else {})
    found = list(kd.get_schedule(f"diffusers:{spacing}", **options)(n, process=SD))
    np.testing.assert_allclose(found, [*in_time(TABLES["sd"], times, log=False), 0], rtol=EXACT)
    if hasattr(scheduler, "sigmas"):
        np.testing.assert_allclose(found, scheduler.sigmas.double().numpy(), rtol=FLOAT32)


@pytest.mark.parametrize("n", [1, 2, 10, 30])
@pytest.mark.parametrize("name", ["karras", "exponential", "beta"])
def test_diffusers_sigmas(name, n):
    """The karras, exponential and beta of diffusers over the whole table are the qualified names'."""
    scheduler = scheduler_of("EulerDiscreteScheduler", **{f"use_{name}_sigmas": True})
    if n > 1:  # with one step its range has but one level
        scheduler.set_timesteps(n)
        found = list(kd.get_schedule(f"diffusers:{name}")(n, process=SD))
        np.testing.assert_allclose(found, scheduler.sigmas.double().numpy(), rtol=FLOAT32)


@pytest.mark.parametrize("n", [1, 2, 4, 8, 25])
def test_diffusers_lcm(n):
    """The times of diffusers' LCM scheduler are those that the schedule takes."""
    scheduler = scheduler_of("LCMScheduler")
    scheduler.set_timesteps(n)
    found = list(kd.get_schedule("diffusers:lcm")(n, process=SD))
    np.testing.assert_allclose(found, [*TABLES["sd"][scheduler.timesteps.numpy()], 0], rtol=EXACT)


@pytest.mark.parametrize("n", [2, 4, 25])
def test_diffusers_flow(n):
    """The flow grid of diffusers is shifted twice by default; shifted once it is the bare one's."""
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(n)
    found = list(kd.get_schedule("diffusers:flow_linspace")(n, process=SD3))
    np.testing.assert_allclose(found, scheduler.sigmas.double().numpy(), rtol=FLOAT32)
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 1000, n))
    found = list(kd.get_schedule("shifted", shift=3.0)(n))
    np.testing.assert_allclose(found, scheduler.sigmas.double().numpy(), rtol=FLOAT32)
    if n == 4:
        assert kd.get_schedule("diffusers:flow_linspace")(4, process=SD3)[3] == pytest.approx(
            0.00893, rel=1e-3
        )
        assert kd.get_schedule("uniform")(4, process=SD3)[3] == pytest.approx(0.00299, rel=2e-3)


def test_hosts_need_a_process():
    """A host's rule for a table refuses to do without one."""
    for name in ("comfyui:simple", "comfyui:normal", "diffusers:linspace"):
        with pytest.raises(ParameterError, match="get_process"):
            kd.get_schedule(name)(10, sigma_min=0.1, sigma_max=1.0)
