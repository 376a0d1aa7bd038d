"""Plans for hosts that call the model themselves, and what their configs say; diffusers is not needed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support import SAMPLERS, Gaussian, levels, state

import kdiff_core as kd
from kdiff_core.errors import CapabilityError, GridError, ParameterError
from kdiff_core.noise import KeyedNoise
from kdiff_sd import scheduler_config
from kdiff_sd.driven import HostNoise, Planned, begin, seeds_of
from kdiff_sd.host_state import denoise, factors, levels_of, scale_of
from kdiff_sd.scheduler_config import grid_of, level_of, process_of, timestep_of

SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000}
FLOW = {"shift": 3.0, "num_train_timesteps": 1000}
VE, ON_FLOW = process_of(SD), process_of(FLOW)
DRIVEN = {name: each for name, each in SAMPLERS.items() if each.linear and not each.needs}


def planned(sampler, process=VE, steps=6):
    grid = kd.Grid.of(levels(process.path, steps))
    return Planned.of(kd.get_sampler(sampler), grid, process)


class Counting(kd.StepSampler):
    """Calls the model at levels that depend on the number of steps, and reads an earlier output."""

    memory = 1

    def step(self, ctx, x, sigma, sigma_next):
        denoised = ctx.denoise(x, sigma * (1 + 0.1 / len(ctx.grid)))
        before = ctx.past[0].x if ctx.past else x
        return ctx.to(x, denoised, sigma, sigma_next) + 0.01 * (x - before)


def drive(plan, call, x, noise):
    """Run a plan from a model call on."""
    stepper = begin(plan, call, x, noise)
    while not stepper.done:
        stepper.step(Gaussian(path=plan.path.name)(stepper.x, stepper.sigma_tensor))
    return stepper.x


@pytest.mark.parametrize("name", DRIVEN)
@pytest.mark.parametrize("process", [VE, ON_FLOW], ids=["ve", "flow"])
def test_a_run_driven_from_its_first_call_is_the_engines(name, process):
    """From the state of its first model call on, a driven run is the engine's, noise and all."""
    run = planned(DRIVEN[name], process)
    x = state() * (0.1 if process.path == "flow" else 1)
    result = DRIVEN[name].run(Gaussian(path=process.path), x, run.grid, seed=3, process=process)
    # A host that has churn makes the churned state itself; here the engine does.
    x = kd.Stepper(DRIVEN[name], x, run.grid, path=process.path, seed=3, process=process).x
    plan, call = run.tail(0)
    assert call == 0
    assert torch.equal(drive(plan, 0, x, HostNoise(KeyedNoise(3))), result.x)


@pytest.mark.parametrize("name", ["heun", "dpm2", "dpmpp_sde", "euler_ancestral", "rk4"])
def test_a_run_without_memory_goes_on_as_planned_from_a_later_step(name):
    """Begun at a later step, a sampler without memory does what it does there in the whole run."""
    run = planned(name)
    whole = run.sampler.run(Gaussian(), state(), run.grid, seed=3, trajectory=True, process=VE)
    plan, call = run.tail(3 * run.calls_a_step)
    noise = HostNoise(KeyedNoise(3))
    assert plan == run.plan
    assert torch.equal(drive(plan, call, whole.trajectory[3], noise), whole.x)


@pytest.mark.parametrize("name", ["dpmpp_2m", "uni_pc", "lms", "deis", "dpmpp_3m_sde"])
def test_a_run_with_memory_begins_afresh_at_a_later_step(name):
    """Begun at a later step, a multistep sampler does what it does on the levels that are left."""
    run = planned(name)
    plan, call = run.tail(3)
    alone = run.sampler(Gaussian(), state(), run.grid[3:], seed=3, process=VE)
    assert torch.equal(drive(plan, call, state(), HostNoise(KeyedNoise(3))), alone)


def test_calls_inside_a_step_and_calls_planned_otherwise_are_refused():
    """No run begins inside a step, at a call that is not there, or where a sampler would call otherwise."""
    with pytest.raises(CapabilityError, match="inside a step"):
        planned("heun").tail(3)
    with pytest.raises(CapabilityError, match="different numbers"):
        planned("plms").tail(3)
    with pytest.raises(CapabilityError, match="other model calls"):
        planned(Counting()).tail(3)
    for call in (-1, 6):
        with pytest.raises(ParameterError, match="0 to 5"):
            planned("euler").tail(call)


def test_a_timestep_finds_the_call_that_begins_a_step():
    """Of two calls with one timestep, the end of a step and the start of the next, the start is found."""
    run = planned("heun")
    told = [float(level) for level in run.plan.evaluation_sigmas]
    assert told[3] == told[4]
    assert run.call_told(told, told[3]) == 4
    with pytest.raises(ParameterError, match="no step of this run begins there"):
        run.call_told(told, told[3] + 1e-3)


def test_most_steps_decide_what_a_host_calls_the_order():
    """The last step, a first step with a start, a step without a call: most steps count."""
    assert {name: planned(name).calls_a_step for name in ("euler", "heun", "plms", "restart", "rk4")} == {
        "euler": 1, "heun": 2, "plms": 1, "restart": 2, "rk4": 4,
    }  # fmt: skip


def test_seeds_are_a_sample_s_own():
    """A sample's seed depends on its first state alone: not on its batch, but on each of its bits."""
    x = state(batch=3).float()
    assert seeds_of(x[1:2]) == seeds_of(x)[1:2]
    assert len({*seeds_of(x), *seeds_of(torch.nextafter(x, x + 1))}) == 6


def test_the_hosts_noise_follows_the_last_generator():
    """With generators the draws are theirs, in order and by sample; without, keyed by the interval."""
    noise, x = HostNoise(KeyedNoise(1)), torch.zeros(2, 3)
    keyed = noise.noise(x, 2.0, 1.0)
    noise.use([torch.Generator().manual_seed(s) for s in (4, 5)])
    drawn = noise.noise(x, 2.0, 1.0)
    assert torch.equal(drawn[1], torch.randn(3, generator=torch.Generator().manual_seed(5)))
    noise.use(None)
    assert torch.equal(noise.noise(x, 2.0, 1.0), keyed)
    with pytest.raises(ParameterError, match="give a torch"):
        noise.use(4)


# -- what a config says


def test_timesteps_and_levels_are_inverse():
    """The level of the timestep of a level is the level, on a table, on flow and for ``log(sigma) / 4``."""
    continuous = {**SD, "timestep_type": "continuous", "prediction_type": "v_prediction"}
    for config in (SD, FLOW, continuous):
        process = process_of(config)
        for level in np.geomspace(process.sigma_min * 1.01, process.sigma_max * 0.99, 7):
            told = timestep_of(config, process, float(level))
            assert level_of(config, process, told) == pytest.approx(level, rel=1e-12)
            found = levels_of(config, process, torch.tensor([told], dtype=torch.float64), torch.zeros(1))
            assert float(found) == pytest.approx(level, rel=1e-12)
    assert timestep_of(FLOW, ON_FLOW, 0.25) == 250
    assert timestep_of(continuous, process_of(continuous), math.e) == 0.25
    assert timestep_of(SD, VE, VE.levels[313]) == 313
    assert timestep_of(SD, VE, 100.0) == 999


def test_the_model_s_output_is_read_by_the_prediction_type():
    """Of data and noise each kind of output, made from them, gives the data back."""
    x0, noise = state(seed=1, scale=1.0), state(seed=2, scale=1.0)
    for prediction in ("epsilon", "v_prediction", "sample", "flow_prediction"):
        config = FLOW if prediction == "flow_prediction" else {**SD, "prediction_type": prediction}
        process, sigma = process_of(config), 0.7
        root = math.hypot(1.0, sigma)
        x = (0.3 if prediction == "flow_prediction" else 1.0) * x0 + sigma * noise
        output = {
            "epsilon": noise, "sample": x0, "v_prediction": (noise - sigma * x0) / root,
            "flow_prediction": noise - x0,
        }[prediction]  # fmt: skip
        assert torch.allclose(denoise(config, process, output, x, sigma), x0, rtol=1e-12, atol=1e-12)
        half = denoise(config, process, output.half(), x, sigma)
        assert half.dtype == x.dtype


def test_outputs_are_clipped_and_freed_of_a_learned_variance():
    """``clip_sample`` bounds the data; of a learned variance's channels the first half is the output."""
    x = state(seed=1, scale=3.0).reshape(3, 4, 1)
    clipped = {**SD, "prediction_type": "sample", "clip_sample": True, "clip_sample_range": 2.0}
    assert torch.equal(denoise(clipped, process_of(clipped), x, x, 1.0), x.clamp(-2, 2))
    learned = {**SD, "variance_type": "learned_range"}
    twice = torch.cat([x, x + 1], 1)
    assert torch.equal(denoise(learned, VE, twice, x, 0.5), x - 0.5 * x)


def test_a_pipeline_s_state_has_unit_variance():
    """On VE a pipeline's state is kdiff's times a factor that gives unit variance; on flow they are equal."""
    alpha, sigma = factors(VE, torch.tensor([0.5, 2.0], dtype=torch.float64), torch.zeros(2, 3, 4).double())
    assert alpha.shape == (2, 1, 1)
    assert torch.allclose(alpha**2 + sigma**2, torch.ones_like(alpha))
    assert float(sigma[1]) == pytest.approx(2.0 * scale_of(VE, 2.0))
    alpha, sigma = factors(ON_FLOW, torch.tensor([0.25]), torch.zeros(1, 2))
    assert (float(alpha), float(sigma), scale_of(ON_FLOW, 0.25)) == (0.75, 0.25, 1.0)


def test_a_flow_s_levels_are_shifted_once():
    """Levels that a pipeline sends are shifted, by the config or by mu, and end in 0; timesteps are not."""
    dynamic = {**FLOW, "use_dynamic_shifting": True}
    for config, mu, shift in ((FLOW, None, 3.0), (dynamic, 1.5, math.exp(1.5))):
        process = process_of(config, mu)
        found = grid_of(config, process, None, None, None, np.linspace(1.0, 0.25, 4))
        wanted = [shift * s / (1 + (shift - 1) * s) for s in (1.0, 0.75, 0.5, 0.25)]
        assert list(found) == pytest.approx([*wanted, 0.0], rel=1e-12)
        told = grid_of(config, process, None, None, [900.0, 100.0], None)
        assert list(told) == pytest.approx([0.9, 0.1, 0.0])
    linear = process_of({**dynamic, "time_shift_type": "linear"}, 1.5)
    assert linear.shift == 1.5
    with pytest.raises(ParameterError, match="mu="):
        process_of(dynamic)


def test_a_pipeline_s_own_line_stands_for_a_number_of_steps():
    """A named schedule replaces the line that flow pipelines always send, but no levels of the user's."""
    karras, line = kd.get_schedule("karras"), np.linspace(1.0, 1 / 8, 8)
    assert grid_of(FLOW, ON_FLOW, karras, None, None, line) == karras(8, process=ON_FLOW)
    mine = grid_of(FLOW, ON_FLOW, karras, None, None, [1.0, 0.25])
    assert list(mine) == pytest.approx([1.0, 0.5, 0.0])


def test_terminal_levels_and_flags():
    """``shift_terminal`` is where the levels above 0 end; a flag's schedule spends the spacing's range."""
    stretched = {**FLOW, "shift_terminal": 0.1}
    assert grid_of(stretched, ON_FLOW, None, 5, None, None)[-2] == pytest.approx(0.1, rel=1e-12)
    config = {**SD, "use_karras_sigmas": True, "timestep_spacing": "leading", "steps_offset": 1}
    plain = scheduler_config.spaced({**config, "use_karras_sigmas": False}, VE, 5)
    low, high = plain[-2], plain[0]
    assert scheduler_config.spaced(config, VE, 5) == kd.get_schedule("karras")(
        5, sigma_min=low, sigma_max=high
    )
    assert high < VE.sigma_max
    assert scheduler_config.spaced(config, VE, 1).steps == 1


def test_what_cannot_be_run_is_refused():
    """Levels that rise, two ways at once, and configs of models that are driven otherwise."""
    with pytest.raises(GridError):
        grid_of(SD, VE, None, None, [10.0, 20.0], None)
    with pytest.raises(ParameterError, match="one of"):
        grid_of(SD, VE, None, 4, [10.0], None)
    with pytest.raises(CapabilityError, match="'thresholding'"):
        process_of({**SD, "thresholding": True})
    with pytest.raises(CapabilityError, match="'invert_sigmas'"):
        process_of({**FLOW, "invert_sigmas": True})
    for flag in ("use_karras_sigmas", "use_lu_lambdas"):
        both = {**SD, "use_flow_sigmas": True, "prediction_type": "flow_prediction", flag: True}
        with pytest.raises(CapabilityError, match=f"'use_flow_sigmas' and '{flag}'"):
            scheduler_config.spaced(both, ON_FLOW, 4)
        named = grid_of(both, ON_FLOW, kd.get_schedule("karras"), 4, None, None)
        assert named == kd.get_schedule("karras")(4, process=ON_FLOW)
    with pytest.raises(CapabilityError, match="prediction_type='noise'"):
        process_of({**SD, "prediction_type": "noise"})
    with pytest.raises(ParameterError, match="names a schedule"):
        scheduler_config.names("DPM++ 2M Karras", "exponential")
    assert scheduler_config.names("DPM++ 2M Karras", None) == ("dpmpp_2m", "karras")
