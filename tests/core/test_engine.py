"""The engine: what bad input gets, faults in the middle of a run, ownership of memory, resuming."""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise

import pytest
import torch
from attrs import field, frozen
from support import DEVICE, F64, Gaussian, levels, state

import kdiff_core as kd
from kdiff_core import errors

EULER, TWO_M = kd.get_sampler("euler"), kd.get_sampler("dpmpp_2m")
GRID = levels("ve", 6)


def never(x, sigma):
    """A denoiser that must not be called."""
    raise AssertionError("the denoiser was called before the input was refused")


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.ones(2, 3, dtype=torch.int64), "float"),
        (torch.tensor(1.0), "batch dimension"),
        (torch.ones(0, 3), "batch dimension"),
        (torch.tensor([[1.0, torch.nan]]), "NaN"),
        (torch.tensor([[1.0, torch.inf]]), "NaN"),
        ({"a": torch.ones(2, 3), "b": torch.ones(3, 3)}, "need the same"),
        ({}, "no tensor"),
        ("x", "no state"),
    ],
)
def test_bad_states_are_refused_before_any_call(x, message):
    """An integer, batchless, empty or non-finite state is refused before the model is called."""
    with pytest.raises(errors.StateError, match=message):
        EULER(never, x, GRID)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"seed": [1, 2]}, errors.NoiseError, "2 given for a batch of 3"),
        ({"seed": 1, "noise": kd.noise_from(torch.randn_like)}, errors.NoiseError, "both"),
        ({"noise": "brown"}, errors.NoiseError, "noise source"),
        ({"noise": [torch.Generator()] * 2}, errors.NoiseError, "give one or 3"),
        ({"noise": kd.KeyedNoise(index=[1])}, errors.NoiseError, "index"),
        ({"seed": -1}, errors.ParameterError, "seed"),
        ({"seed": 1.5}, errors.ParameterError, "seed"),
        ({"stop": 0}, errors.ParameterError, "6 steps"),
        ({"stop": 7}, errors.ParameterError, "6 steps"),
    ],
)
def test_bad_options_are_refused_before_any_call(options, kind, message):
    """Seeds that do not fit, two noise sources and steps out of range are refused before any call."""
    with pytest.raises((kind, TypeError), match=message):
        EULER.run(never, state(), GRID, **options)


def test_levels_above_one_on_a_flow_path_are_refused():
    """A VE grid on a flow model is refused with the question that helps."""
    denoiser = Gaussian("flow")
    with pytest.raises(errors.GridError, match="flow path"):
        EULER(denoiser, state(), GRID)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: x[:, :2], "shape"),
        (lambda x: None, "NoneType"),
        (lambda x: (x, x), "tuple"),
        (lambda x: x.to("meta"), "meta"),
    ],
)
def test_bad_outputs_are_refused_with_the_step(answer, message):
    """An output of another shape or device, or no tensor, is refused, with the step noted."""
    with pytest.raises(errors.DenoiserError, match=message) as caught:
        EULER(lambda x, sigma: answer(x), state(), GRID)
    assert any("step 0 of 6" in note for note in caught.value.__notes__)


def test_a_denoiser_that_cannot_be_called_or_guided_is_refused():
    """No callable, or no guided outputs where a sampler needs them, is an error before any call."""

    @frozen
    class NeedsUncond(kd.StepSampler):
        """Moves with the unconditional output; order 1."""

        needs = frozenset({"uncond"})

        def step(self, ctx, x, sigma, sigma_next):
            found = ctx.predict(x, sigma)
            return found.denoised + (x - found.uncond) * (sigma_next / sigma)

    with pytest.raises(errors.CapabilityError, match="not callable"):
        EULER(3, state(), GRID)
    with pytest.raises(errors.CapabilityError, match="uncond"):
        NeedsUncond()(never, state(), GRID)

    class Guided:
        path = "ve"

        def __call__(self, x, sigma):
            return self.predict(x, sigma).denoised

        def predict(self, x, sigma):
            found = Gaussian()(x, sigma)
            return kd.Prediction(found * 1.1, found, found)

    assert bool(torch.isfinite(NeedsUncond()(Guided(), state(), GRID)).all())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("sampler", [TWO_M, kd.get_sampler("heun"), kd.get_sampler("dpmpp_sde")])
def test_a_non_finite_output_is_located(bad, sampler):
    """A NaN in one model output names the sampler, step, level and evaluation."""
    calls = 0

    def breaks(x, sigma):
        nonlocal calls
        calls += 1
        return Gaussian()(x, sigma) * (bad if float(sigma[0]) == GRID[3] else 1.0)

    with pytest.raises(errors.NonFiniteError, match=rf"model output at sigma={GRID[3]:.6g}") as caught:
        sampler(breaks, state(), GRID, seed=0)
    name = type(sampler).__name__
    assert name in str(caught.value)
    assert "kdiff-core" in str(caught.value)
    assert "step" in str(caught.value)


def test_a_state_that_overflows_is_told_from_an_output():
    """A state that overflows, its outputs being finite, is named as the state."""
    sign = 1.0

    def explodes(x, sigma):
        nonlocal sign
        sign = -sign
        return torch.full_like(x, 3e38 * sign)

    with pytest.raises(errors.NonFiniteError, match="the state at"):
        TWO_M(explodes, state().float(), GRID)


def test_a_model_that_raises_keeps_its_exception_and_the_run():
    """A model's own exception comes through with the step noted and a checkpoint that goes on from there."""
    calls, whole = 0, TWO_M(Gaussian(), state(), GRID)

    def fails(x, sigma):
        nonlocal calls
        calls += 1
        if calls == 4:
            raise MemoryError("full")
        return Gaussian()(x, sigma)

    with pytest.raises(MemoryError, match="full") as caught:
        TWO_M(fails, state(), GRID)
    assert any("step 3 of 6" in note for note in caught.value.__notes__)
    after = TWO_M.run(Gaussian(), resume=caught.value.partial.checkpoint)
    assert torch.equal(after.x, whole)
    assert after.evaluations == 6


def test_a_callback_may_stop_the_run_and_keeps_what_was_computed():
    """An exception from a callback ends the run with the state of that step on it."""

    class Enough(Exception):
        pass

    def callback(info):
        if info.index == 2:
            raise Enough

    whole = TWO_M.run(Gaussian(), state(), GRID, trajectory=True)
    with pytest.raises(Enough) as caught:
        TWO_M(Gaussian(), state(), GRID, callback=callback)
    assert torch.equal(caught.value.partial.x, whole.trajectory[3])
    assert torch.equal(TWO_M(Gaussian(), None, None, resume=caught.value.partial.checkpoint), whole.x)


def test_what_is_handed_out_is_the_callers_own():
    """Writing into anything a callback or a result holds changes nothing else."""
    plain = TWO_M(Gaussian(), state(), GRID)

    def vandal(info):
        info.x.zero_(), info.denoised.zero_(), info.x_next.zero_()

    assert torch.equal(TWO_M(Gaussian(), state(), GRID, callback=vandal), plain)
    result = TWO_M.run(Gaussian(), state(), GRID, trajectory=True)
    result.trajectory[-1].zero_()
    assert torch.equal(result.x, plain)
    static = torch.zeros(3, 4, dtype=F64, device=DEVICE)
    final = EULER(lambda x, sigma: static, state(), [*GRID[:1], 0.0])
    assert final.data_ptr() != static.data_ptr()


@pytest.mark.parametrize("keep", [lambda x: x, lambda x: x[:, :2], lambda x: x.detach()])
def test_a_model_may_keep_its_input(keep):
    """States that a model keeps, whole or as a view, are not written over."""
    kept, copies = [], []

    def keeps(x, sigma):
        kept.append(keep(x))
        copies.append(keep(x).clone())
        return Gaussian()(x, sigma)

    result = kd.get_sampler("heun")(keeps, state(), GRID)
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))
    assert torch.equal(result, kd.get_sampler("heun")(Gaussian(), state(), GRID))


def test_a_model_may_write_to_its_sigma():
    """A model that changes its sigma in place changes no other evaluation, of this run or of a later one."""
    plain = kd.get_sampler("heun")(Gaussian(), state(), GRID)

    def writes(x, sigma):
        found = Gaussian()(x, sigma)
        sigma.mul_(1000.0).log_()
        return found

    for denoiser in (writes, Gaussian(), writes, Gaussian()):
        assert torch.equal(kd.get_sampler("heun")(denoiser, state(), GRID), plain)


def test_buffers_are_reused():
    """A model that keeps nothing sees the same one or two buffers in every step of Euler and 2M."""
    for sampler in (EULER, TWO_M):
        seen = []

        def denoiser(x, sigma, seen=seen):
            seen.append(x.data_ptr())
            return Gaussian()(x, sigma)

        sampler(denoiser, state(), levels("ve", 30))
        assert len(set(seen)) == 2  # the caller's own state and one of the run's


def test_a_model_may_return_its_input_or_a_view_of_it():
    """An output that is the input's memory is right, not overwritten while it is needed."""
    for sampler in (EULER, TWO_M, kd.get_sampler("lms"), kd.get_sampler("heun")):
        same = sampler(lambda x, sigma: x, state(), GRID)
        assert torch.allclose(same, state(), rtol=1e-12)


def test_a_model_that_returns_one_buffer_is_found_out():
    """An output in the memory of an earlier one that the sampler still needs is refused, not used."""
    static = torch.zeros(3, 4, dtype=F64, device=DEVICE)

    def one_buffer(x, sigma):
        return static.copy_(Gaussian()(x, sigma))

    with pytest.raises(errors.DenoiserError, match="clone"):
        TWO_M(one_buffer, state(), GRID)
    assert torch.equal(EULER(one_buffer, state(), GRID), EULER(Gaussian(), state(), GRID))


def test_dataclasses_and_lists_are_states():
    """A dataclass or a list of tensors goes in, reaches the model as such, and comes out."""

    @dataclasses.dataclass
    class Pair:
        image: torch.Tensor
        sound: torch.Tensor

    def denoiser(x, sigma):
        assert isinstance(x, Pair)
        return Pair(Gaussian()(x.image, sigma), Gaussian()(x.sound, sigma))

    result = TWO_M(denoiser, Pair(state(), state(seed=1)), GRID)
    assert torch.equal(result.sound, TWO_M(Gaussian(), state(seed=1), GRID))
    listed = TWO_M(lambda x, sigma: [Gaussian()(x[0], sigma)], [state()], GRID)
    assert torch.equal(listed[0], TWO_M(Gaussian(), state(), GRID))


def test_model_outputs_in_another_dtype_are_cast():
    """A model that computes in half precision leaves the state's dtype alone."""
    result = TWO_M(lambda x, sigma: Gaussian()(x, sigma).bfloat16(), state().float(), GRID)
    assert result.dtype == torch.float32


def test_a_parameter_that_requires_gradients_is_enough():
    """Gradients reach a parameter of the denoiser though neither x nor a condition asks for them."""
    scale = torch.nn.Parameter(torch.ones((), dtype=F64, device=DEVICE))
    for name in ("euler", "heun", "dpmpp_2m", "lms"):
        result = kd.get_sampler(name)(lambda x, sigma: Gaussian()(x, sigma) * scale, state(), GRID)
        (gradient,) = torch.autograd.grad(result.sum(), scale)
        assert float(gradient) != 0.0
    with torch.no_grad():
        assert not EULER(lambda x, sigma: x * scale, state(), GRID).requires_grad


def test_a_sampler_that_is_not_linear_runs_eagerly_and_says_so():
    """Clamping is found out while tracing; the sampler runs on tensors and the result says why."""

    @frozen
    class Clamped(kd.StepSampler):
        """Euler with a clamped estimate; order 1."""

        def step(self, ctx, x, sigma, sigma_next):
            return ctx.to(x, ctx.denoise(x, sigma).clamp(-1, 1), sigma, sigma_next)

    result = Clamped().run(Gaussian(), state(), GRID)
    assert not result.info["traced"]
    assert "clamp" in result.info["why_eager"]
    assert bool((result.x.abs() <= 1e3).all())
    with pytest.raises(errors.TraceError):
        Clamped().plan(GRID)
    with pytest.raises(errors.CapabilityError, match="no plan"):
        Clamped().run(Gaussian(), state(), GRID, stop=2)


def test_a_sampler_may_keep_values_and_find_them():
    """What a step keeps is found by name; what it did not keep is an error that lists what there is."""

    @frozen
    class Keeps(kd.StepSampler):
        """Adams-Bashforth of order 1 from a kept slope; order 1."""

        memory = 1
        wanted: str = field(default="slope")

        def step(self, ctx, x, sigma, sigma_next):
            slope = (x - ctx.denoise(x, sigma)) / sigma
            ctx.keep(slope=slope)
            old = getattr(ctx.past[0], self.wanted) if ctx.past else slope
            return x + old * (sigma_next - sigma)

    plan = Keeps().plan(GRID)
    assert plan.operands <= 3
    assert torch.isfinite(Keeps()(Gaussian(), state(), GRID)).all()
    with pytest.raises(AttributeError, match="kept"):
        Keeps("other").plan(GRID)


def test_a_weight_that_is_not_finite_is_refused_before_any_call():
    """A step whose weights overflow is refused with the step, not run into NaN."""

    @frozen
    class Overflows(kd.StepSampler):
        """Not a method; order 1."""

        def step(self, ctx, x, sigma, sigma_next):
            return x * (float("inf") if ctx.index == 1 else 1.0) + ctx.denoise(x, sigma)

    with pytest.raises(errors.PlanError, match="step 1"):
        Overflows()(never, state(), GRID)


def test_the_denoiser_gets_its_sigma_and_conditions():
    """Each call gets a level for each sample, in the state's dtype, and the conditions as given."""
    seen = []

    def denoiser(x, sigma, **cond):
        seen.append((sigma.shape, sigma.dtype, cond))
        return Gaussian()(x, sigma)

    EULER(denoiser, state().float(), GRID, cond={"text": "a"})
    assert seen == [(torch.Size([3]), torch.float32, {"text": "a"})] * 6


def test_plans_are_cached_and_written_and_read_exactly():
    """A plan is made once for a grid, and read back from JSON it is equal and gives the same bits."""
    assert TWO_M.plan(GRID) is TWO_M.plan(GRID)
    for name in ("dpmpp_2m", "dpmpp_sde", "heun"):
        plan = kd.get_sampler(name).plan(GRID)
        again = kd.Plan.from_dict(json.loads(json.dumps(plan.to_dict())))
        assert again == plan
        assert again.table() == plan.table()
    for bad in ({}, {"kdiff_plan": 1}, {"kdiff_plan": 2, "steps": []}, []):
        with pytest.raises(errors.PlanError):
            kd.Plan.from_dict(bad)


def test_overlapping_noise_is_drawn_in_disjoint_pieces():
    """The two noises of a dpmpp_sde step become two draws over disjoint intervals, each made once."""
    plan = kd.get_sampler("dpmpp_sde").plan(GRID)
    pieces = plan.increments()
    assert len(pieces.noises) == len(plan.noises)
    ends = [(n.sigma_from, n.sigma_to) for n in pieces.noises]
    assert all(a > b for a, b in ends)
    assert all(b >= c or d >= a for (a, b), (c, d) in pairwise(ends))
    assert pieces.operands == plan.operands + 1


def test_resume_refuses_what_does_not_fit(tmp_path):
    """A checkpoint of another sampler, beside x, without its noise, or no checkpoint at all is refused."""
    sampler = kd.get_sampler("euler_ancestral")
    at = sampler.run(Gaussian(), state(), GRID, noise=torch.Generator(), stop=2).checkpoint
    with pytest.raises(errors.ParameterError, match="Ancestral"):
        EULER.run(Gaussian(), resume=at)
    with pytest.raises(errors.ParameterError, match="checkpoint"):
        sampler.run(Gaussian(), state(), GRID, resume=at)
    with pytest.raises(errors.NoiseError, match="again"):
        sampler.run(Gaussian(), resume=at)
    with pytest.raises(errors.ParameterError, match="path"):
        sampler.run(Gaussian("flow"), resume=at, noise=torch.Generator())
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(errors.StateError, match="no kdiff checkpoint"):
        kd.Checkpoint.load(tmp_path / "other.safetensors")


@pytest.mark.parametrize("name", ["heun", "dpmpp_2m", "dpmpp_sde"])
def test_a_resumed_run_has_callbacks_and_locates_faults(name):
    """After a resume, also inside a step, callbacks get what they would have got, and a NaN is located."""
    sampler, whole, after = kd.get_sampler(name), [], []
    sampler(Gaussian(), state(), GRID, seed=1, callback=whole.append)
    at = sampler.run(Gaussian(), state(), GRID, seed=1, stop=2).checkpoint
    sampler.run(Gaussian(), resume=at, callback=after.append)
    assert [info.index for info in after] == [2, 3, 4, 5]
    for a, b in zip(whole[2:], after, strict=True):
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.x_next, b.x_next)

    def breaks(x, sigma):
        return Gaussian()(x, sigma) * (torch.nan if float(sigma[0]) == GRID[4] else 1.0)

    with pytest.raises(errors.NonFiniteError, match=f"model output at sigma={GRID[4]:.6g}"):
        sampler.run(breaks, resume=at)

    stepper = kd.Stepper(sampler, state(), GRID, seed=1)
    stepper.step(Gaussian()(stepper.x, stepper.sigma_tensor))
    inside: list = []
    sampler.run(Gaussian(), resume=stepper.checkpoint(), callback=inside.append)
    assert torch.equal(inside[-1].x_next, whole[-1].x_next)


def test_nested_checkpoints_go_through_a_file(tmp_path):
    """The structure of a nested state survives the file."""
    x = {"a": state(), "b": [state(seed=1)]}

    def denoiser(x, sigma):
        return {"a": Gaussian()(x["a"], sigma), "b": [Gaussian()(x["b"][0], sigma)]}

    whole = TWO_M(denoiser, x, GRID)
    TWO_M.run(denoiser, x, GRID, stop=3).checkpoint.save(tmp_path / "half")
    after = TWO_M(denoiser, None, None, resume=kd.Checkpoint.load(tmp_path / "half", device=DEVICE.type))
    assert torch.equal(after["b"][0], whole["b"][0])


@pytest.mark.parametrize("name", ["euler", "heun", "dpmpp_2m", "dpmpp_sde"])
def test_inference_mode_changes_nothing(name):
    """Under torch.inference_mode a run, and a stepper with an edit in place, give the same bits."""
    sampler = kd.get_sampler(name)

    def stepped():
        stepper = kd.Stepper(sampler, state(), GRID, seed=1)
        while not stepper.done:
            if stepper.index == 2:
                stepper.x.mul_(0.9)
            stepper.step(Gaussian()(stepper.x, stepper.sigma_tensor))
        return stepper.x

    plain = sampler(Gaussian(), state(), GRID, seed=1), stepped()
    with torch.inference_mode():
        assert torch.equal(sampler(Gaussian(), state(), GRID, seed=1), plain[0])
        assert torch.equal(stepped(), plain[1])


def test_an_interrupt_is_no_exception_and_keeps_the_run_too():
    """An interruption that is not an Exception, as hosts raise it, comes through with the partial result."""

    def interrupted(info):
        if info.index == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        TWO_M(Gaussian(), state(), GRID, callback=interrupted)
    assert caught.value.partial.evaluations == 2


def test_progress_counts_model_calls(capsys):
    """The progress bar's total is the number of model calls, known beforehand."""
    kd.get_sampler("heun")(Gaussian(), state(), GRID, progress=True)
    assert "11/11" in capsys.readouterr().err
