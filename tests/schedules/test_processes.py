"""Noise processes: laws that hold for each, then tables found by NumPy and by diffusers."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kdiff_core as kd
from kdiff_core.errors import ParameterError
from kdiff_schedules.betas import GivenAlphas, GivenBetas, ScaledLinearBetas
from kdiff_schedules.diffusers_config import process_from_diffusers
from kdiff_schedules.flow import Flow

GIVEN = ("betas", "alphas_cumprod", "diffusers")
NAMES = [entry.name for entry in kd.list_processes(hosts=True) if entry.name not in GIVEN]
TABLES = [name for name in NAMES if hasattr(kd.get_process(name), "levels")]
law = settings(deadline=None)


@pytest.mark.parametrize("name", NAMES)
def test_round_trip(name):
    """The time of the level at a time is that time, and the level at the time of a level that level."""
    process = kd.get_process(name)

    @law
    @given(st.floats(0, 1))
    def trip(t):
        level = process.sigma(t)
        assert process.sigma_min <= level <= process.sigma_max
        assert process.sigma(process.t(level)) == pytest.approx(level, rel=1e-10)
        assert process.t(level) == pytest.approx(t, abs=1e-8)

    trip()


@pytest.mark.parametrize("name", NAMES)
def test_ends_are_met_bit_for_bit(name):
    """Time 0 and time 1 are the lowest and the highest level, and those are times 0 and 1."""
    process = kd.get_process(name)
    assert (process.sigma(0.0), process.sigma(1.0)) == (process.sigma_min, process.sigma_max)
    assert (process.t(process.sigma_min), process.t(process.sigma_max)) == (0.0, 1.0)


@pytest.mark.parametrize("name", TABLES)
def test_quantised(name):
    """A quantised level is the entry that is nearest in log sigma, and its timestep that entry's place."""
    process = kd.get_process(name)
    logs = np.log(process.levels)

    @law
    @given(st.floats(math.log(process.sigma_min) - 1, math.log(process.sigma_max) + 1))
    def nearest(log):
        place = int(process.timestep(math.exp(log), quantised=True))
        assert abs(logs[place] - log) <= np.abs(logs - log).min() + 1e-9
        assert process.quantise(math.exp(log)) == process.levels[place]

    nearest()


def levels_of(abar):
    """Levels of a table of abar, through the cumulative product."""
    return np.sqrt((1 - abar) / abar)


def steps_of(alpha_bar):
    """The table of abar that ratios of a function give, cut at 0.999."""
    edges = np.array([alpha_bar(i / 1000) for i in range(1001)])
    return np.cumprod(1 - np.minimum(1 - edges[1:] / edges[:-1], 0.999))


def laplace(t):
    snr = np.exp(-0.5 * np.copysign(1, 0.5 - t) * np.log(1 - 2 * np.abs(0.5 - t) + 1e-6))
    return np.sqrt(snr / (1 + snr))


ROOTS = np.linspace(0.00085**0.5, 0.012**0.5, 1000)
SD = np.cumprod(1 - ROOTS**2)
GEODIFF = 1 / (1 + np.exp(-np.linspace(-6, 6, 1000))) * (0.02 - 1e-4) + 1e-4


def rescaled(abar):
    """Lin et al.'s algorithm 1, on roots of abar."""
    root = np.sqrt(abar)
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2


@pytest.mark.parametrize(
    ("name", "abar"),
    [
        ("sd", SD),
        ("linear", np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))),
        ("sqrt", np.cumprod(1 - np.sqrt(np.linspace(1e-4, 0.02, 1000)))),
        ("sigmoid", np.cumprod(1 - GEODIFF)),
        ("cosine", steps_of(lambda t: np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2)),
        ("laplace", steps_of(laplace)),
        ("exp", steps_of(lambda t: np.exp(-12 * t))),
    ],
)
def test_tables(name, abar):
    """Each table of betas is what NumPy finds through the cumulative product."""
    np.testing.assert_allclose(kd.get_process(name).levels, levels_of(abar), rtol=2e-9)


def test_zero_terminal_snr():
    """Rescaled, the table is Lin et al.'s but for its last entry, which has the level of the least abar."""
    process = kd.get_process("sd", zero_snr=True)
    np.testing.assert_allclose(process.levels[:-1], levels_of(rescaled(SD)[:-1]), rtol=1e-9)
    assert process.sigma_max == pytest.approx(math.sqrt(2**24 - 1), rel=1e-14)
    comfyui = kd.get_process("sd", zero_snr=True, abar_min=4.8973451890853435e-08)
    assert comfyui.sigma_max == pytest.approx(4518.765, rel=1e-6)
    assert comfyui.levels[:-1] == process.levels[:-1]


def test_snr_shift():
    """A shift of the SNR is abar / (s + (1 - s) abar), and CogVideoX's comes before the rescaling."""
    abar = SD / (3 + (1 - 3) * SD)
    np.testing.assert_allclose(kd.get_process("sd", snr_shift=3.0).levels, levels_of(abar), rtol=1e-9)
    found = kd.get_process("cogvideox").levels
    np.testing.assert_allclose(found[:-1], levels_of(rescaled(abar)[:-1]), rtol=1e-9)


def test_given_tables():
    """Betas and alphas_cumprod as given make the table that they come from, as arrays too."""
    sd = kd.get_process("sd")
    for process in (
        kd.get_process("betas", betas=ROOTS**2),
        kd.get_process("alphas_cumprod", alphas_cumprod=list(SD)),
        GivenAlphas(SD, zero_snr=False),
    ):
        np.testing.assert_allclose(process.levels, sd.levels, rtol=1e-9)
        assert process.steps == 1000
    assert GivenAlphas([0.9, 0.5, 0.0]).sigma_max == pytest.approx(4096, rel=1e-4)
    np.testing.assert_allclose(GivenAlphas(SD).betas(), ROOTS**2, rtol=1e-9)


def test_continuous_formulas():
    """VP, VE, EDM, the tangents and StableCascade have the levels of their formulas."""
    t = np.linspace(0, 1, 11)

    def levels(name, **options):
        return [kd.get_process(name, **options).sigma(float(at)) for at in t]

    tau = 1e-3 + t * (1 - 1e-3)
    np.testing.assert_allclose(levels("vp"), np.sqrt(np.exp(19.9 * tau**2 / 2 + 0.1 * tau) - 1), rtol=1e-9)
    np.testing.assert_allclose(levels("ve"), 0.02 * 5000**t, rtol=1e-12)
    np.testing.assert_allclose(levels("edm"), 0.002 * 40000**t, rtol=1e-12)
    angles = np.interp(t, [0, 1], np.arctan([0.002 / 0.5, 80 / 0.5]))
    np.testing.assert_allclose(levels("trigflow"), 0.5 * np.tan(angles), rtol=1e-10)
    angles = np.interp(t, [0, 1], np.arctan([0.03, 500]))
    np.testing.assert_allclose(levels("continuous_v"), np.tan(angles), rtol=1e-9)


@pytest.mark.parametrize("shift", [1.0, 2.0])
def test_stable_cascade(shift):
    """At the model's time the level is that of the shifted log-SNR of a squared cosine."""
    process = kd.get_process("stable_cascade", shift=shift)
    time = np.linspace(0.01, 0.99, 9)
    abar = (np.cos((time + 0.008) / 1.008 * np.pi / 2) / np.cos(0.008 / 1.008 * np.pi / 2)) ** 2
    logsnr = np.log(abar / (1 - abar)) + 2 * np.log(1 / shift)
    np.testing.assert_allclose([process.level(float(at)) for at in time], np.exp(-logsnr / 2), rtol=1e-9)
    assert process.sigma_min == pytest.approx(0.01 * shift, rel=1e-4)


@pytest.mark.parametrize("shift", [1.0, 3.0, 0.5])
def test_flow_table(shift):
    """A flow process's entries are the shifted (i + 1) / 1000, the last being exactly 1."""
    s = np.arange(1, 1001) / 1000
    process = Flow(shift)
    found = [process.sigma(i / 999) for i in range(1000)]
    np.testing.assert_allclose(found, shift * s / (1 + (shift - 1) * s), rtol=1e-12)
    assert (process.path, found[-1]) == ("flow", 1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GivenBetas([0.1, 1.2]), r"betas\[1\]=1.2"),
        (lambda: GivenBetas([0.1]), "steps"),
        (lambda: GivenAlphas([0.5, 0.6]), "below the one before"),
        (lambda: GivenAlphas([0.0, 0.6]), r"alphas_cumprod\[0\]"),
        (lambda: kd.get_process("flow", shift=0.0), "shift"),
        (lambda: kd.get_process("ve", sigma_min=5.0, sigma_max=1.0), "below sigma_max"),
        (lambda: ScaledLinearBetas(snr_shift=-1.0), "snr_shift"),
        (lambda: kd.get_process("betas"), "betas"),
    ],
)
def test_refusals(make, message):
    """What is no process is refused when it is made, with what is wrong."""
    with pytest.raises(ParameterError, match=message):
        make()


# -- from diffusers' configs


CONFIGS = {
    "DDIMScheduler": [
        {"beta_schedule": name, "beta_start": 0.00085, "beta_end": 0.012}
        for name in ("linear", "scaled_linear", "squaredcos_cap_v2")
    ]
    + [
        {"beta_schedule": "scaled_linear", "rescale_betas_zero_snr": True},
        {"trained_betas": [0.1, 0.2, 0.3], "num_train_timesteps": 3, "beta_schedule": "linear"},
        {"beta_schedule": "linear", "num_train_timesteps": 100},
    ],
    "DDPMScheduler": [{"beta_schedule": "sigmoid"}, {"beta_schedule": "laplace"}],
    "HeunDiscreteScheduler": [{"beta_schedule": "exp"}],
    "CogVideoXDDIMScheduler": [
        {"beta_schedule": "scaled_linear", "snr_shift_scale": 3.0, "beta_start": 0.00085, "beta_end": 0.012},
        {"beta_schedule": "scaled_linear", "snr_shift_scale": 3.0, "rescale_betas_zero_snr": True},
    ],
}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers with NumPy 2
@pytest.mark.parametrize(
    ("name", "options"), [(name, options) for name, many in CONFIGS.items() for options in many], ids=str
)
def test_diffusers_tables(name, options):
    """A scheduler's config, through JSON, gives the table that the scheduler itself computes."""
    diffusers = pytest.importorskip("diffusers")
    scheduler = getattr(diffusers, name)(**options)
    process = process_from_diffusers(json.loads(scheduler.to_json_string()))
    abar = scheduler.alphas_cumprod.double().numpy()
    keep = abar > 1e-6  # nothing but rounding is left of float32 below
    assert keep.sum() >= 3
    np.testing.assert_allclose(1 / (1 + np.square(process.levels))[keep], abar[keep], rtol=2e-4)
    assert process.prediction == "epsilon"


def test_diffusers_flow():
    """Flow configs give their shift, dynamic ones that of the number of tokens."""
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0, "num_train_timesteps": 1000}
    assert process_from_diffusers(config) == Flow(3.0)
    config |= {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15,
               "base_image_seq_len": 256, "max_image_seq_len": 4096}  # fmt: skip
    assert process_from_diffusers(config, tokens=4096).shift == pytest.approx(math.exp(1.15))
    with pytest.raises(ParameterError, match="tokens="):
        process_from_diffusers(config)
    config |= {"time_shift_type": "linear"}
    assert process_from_diffusers(config, tokens=256).shift == pytest.approx(0.5)
    unipc = {"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True, "flow_shift": 5.0}
    assert process_from_diffusers(unipc | {"beta_schedule": "linear"}) == Flow(5.0)


def test_diffusers_continuous():
    """EDM's and SCM's configs give their own levels, and keep what the model predicts."""
    edm = process_from_diffusers({"_class_name": "EDMEulerScheduler", "prediction_type": "v_prediction"})
    assert (edm.sigma_min, edm.sigma_max, edm.prediction) == (0.002, 80.0, "v_prediction")
    assert process_from_diffusers({"_class_name": "SCMScheduler"}) == kd.get_process("trigflow")


def test_diffusers_files(tmp_path):
    """A file, the folder it is in, and the registry's name lead to the same process."""
    config = {"_class_name": "PNDMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085,
              "beta_end": 0.012, "prediction_type": "v_prediction"}  # fmt: skip
    file = tmp_path / "scheduler_config.json"
    file.write_text(json.dumps(config), encoding="utf-8")
    expected = ScaledLinearBetas(prediction="v_prediction")
    for given_config in (config, file, str(file), tmp_path):
        assert kd.get_process("diffusers", config=given_config) == expected


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"beta_schedule": "scaled_liner"}, "did you mean 'scaled_linear'"),
        ({"_class_name": "Strange"}, "no beta_schedule"),
        ({"beta_schedule": "linear", "beta_start": 0.1}, "needs 'beta_end'"),
        ("nowhere/scheduler_config.json", "there is no"),
        (3, "give a scheduler's config"),
    ],
)
def test_diffusers_refusals(config, message):
    """What is no config is refused, an unknown schedule of betas with the nearest."""
    with pytest.raises(ParameterError, match=message):
        process_from_diffusers(config)


def test_diffusers_broken_files(tmp_path):
    """A file that is no JSON, or no object, is refused by its name."""
    file = tmp_path / "scheduler_config.json"
    for text, message in (("{", "no JSON"), ("[1]", "no config but list")):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ParameterError, match=message):
            process_from_diffusers(file)
