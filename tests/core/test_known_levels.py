"""What is computed of a run's levels once: the same as at each call, and never for levels that changed."""

from __future__ import annotations

import threading

import pytest
import torch
from support import F64
from torch.utils._python_dispatch import TorchDispatchMode

import kdiff_core as kd
from kdiff_core.known_levels import known, repeated
from kdiff_core.parameterisations import Parameterised

PAIRS = [
    ("epsilon", "sd"), ("v", "sd"), ("x0", "cosine"), ("flow", "sd3"), ("cosmos", "edm"), ("edm", "edm"),
    ("consistency", "edm"), ("lcm", "sd"), ("trigflow", "trigflow"),
]  # fmt: skip


def network(z, t):
    return torch.sin(3 * z) + 1e-3 * t.to(z.dtype).reshape(-1, *[1] * (z.ndim - 1))


def run(denoiser, inner, sampler="heun", steps=5, dtype=F64, shape=(3, 2, 5), **options):
    """Run a denoiser, or a function around one, on levels of the one inside."""
    schedule = kd.get_schedule("karras" if inner.path == "ve" else "sgm_uniform")
    sigmas = schedule(steps, process=inner.process)
    x = kd.start(sigmas, like=torch.empty(shape, dtype=dtype), path=inner.path, seed=1)
    if denoiser is not inner:
        denoiser.path = inner.path
    return kd.get_sampler(sampler).run(denoiser, x, sigmas, seed=2, **options).x


def unknown(denoiser):
    """The denoiser, with levels that are new tensors."""

    def call(x, sigma, **cond):
        sigma = sigma.clone()
        assert known(sigma) is None
        return denoiser(x, sigma, **cond)

    return call


class Count(TorchDispatchMode):
    """Counts what torch does."""

    calls = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [F64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("prediction", "process"), PAIRS)
def test_a_run_is_the_same_bit_for_bit(prediction, process, dtype):
    """States do not depend on whether the factors are computed once a run or at each call."""
    for options in ({}, {"negated": True, "dtype": torch.float32}):
        denoiser = Parameterised(network, prediction, process=process, **options)
        for sampler in ("heun", "dpmpp_2m_sde"):
            found = run(denoiser, denoiser, sampler, dtype=dtype)
            assert torch.equal(found, run(unknown(denoiser), denoiser, sampler, dtype=dtype))


@pytest.mark.parametrize("batched", [False, True])
def test_a_call_of_a_run_is_four_operations(batched):
    """Beside the network: scale the state, copy the time, weigh state and output; under guidance too."""
    counts = []

    class Counted(Parameterised):
        def __call__(self, x, sigma, **cond):
            with Count() as count:
                found = super().__call__(x, sigma, **cond)
            counts.append(count.calls)
            return found

    denoiser = Counted(lambda z, t, label=None: z, "v", process="sd", about={"classes": 3})
    run(denoiser, denoiser, "euler", 6)
    assert counts[1:] == [4] * 5
    assert counts[0] > 20, "the factors of all levels"
    counts.clear()
    guided = kd.get_guidance("cfg", denoiser, scale=2.0, batched=batched)
    label = torch.tensor([0, 1, 2])
    run(guided, guided, "euler", 6, cond={"label": label})
    first = 1 if batched else 2
    assert counts[first:] == [4] * (5 * first)


@pytest.mark.parametrize("quiet", [False, True])
@pytest.mark.parametrize("kind", ["cfg", "tiled"])
def test_levels_are_known_through_what_repeats_them(kind, quiet):
    """Guidance in one batch, and tiles, call with the run's levels, repeated; states are the same."""
    seen = []

    def around(denoiser):
        if kind == "tiled":
            return kd.get_guidance("tiled", denoiser, tile=4, overlap=2)
        return kd.get_guidance("cfg", denoiser, scale=2.0, batched=True, uncond={"label": torch.zeros(1)})

    def labelled(z, t, label=None):
        return network(z, t) if label is None else network(z, t) + label.reshape(-1, 1, 1, 1)

    denoiser = Parameterised(labelled, "v", process="sd")

    def watched(x, sigma, **cond):
        found = known(sigma)
        seen.append(None if found is None else found.evaluation)
        return denoiser(x, sigma, **cond)

    def made(call):
        guided = around(call)

        def denoise(x, sigma, **cond):
            with torch.inference_mode(quiet):
                return guided(x, sigma, **cond).clone()

        return denoise

    options = {"shape": (2, 1, 4, 8), "cond": {"label": torch.ones(2)} if kind == "cfg" else {}}
    found = run(made(watched), denoiser, "euler", 3, **options)
    assert sorted(set(seen), key=str) == ([None] if quiet else [0, 1, 2])
    assert torch.equal(found, run(made(unknown(denoiser)), denoiser, "euler", 3, **options))


def halved(denoiser):
    return lambda x, sigma: denoiser(x, sigma / 2 + 0.01)


def halved_in_place(denoiser):
    return lambda x, sigma: denoiser(x, sigma.div_(2).add_(0.01))


def own_for_each(denoiser):
    def call(x, sigma):
        sigma[1:] /= 2
        return denoiser(x, sigma)

    return call


def all_in_place(denoiser):
    """The first call is as it is, and writes over the levels of all others."""
    seen = []

    def call(x, sigma):
        found = denoiser(x, sigma)
        if not seen:
            seen.append(sigma)
            sigma._base.mul_(0.9)
        return found

    return call


@pytest.mark.parametrize("change", [halved, halved_in_place, own_for_each, all_in_place])
@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_changed_levels_are_not_taken_for_the_runs(change, sampler):
    """A wrapper that changes the levels, in place or not, gets what it asked for."""
    denoiser = Parameterised(network, "v", process="sd")
    found = run(change(denoiser), denoiser, sampler)
    assert torch.equal(found, run(change(unknown(denoiser)), denoiser, sampler))
    assert not torch.equal(found, run(denoiser, denoiser, sampler))


def test_states_and_denoisers_of_one_call_are_told_apart():
    """At one level another denoiser, batch, number of dimensions, or dtype has factors of its own."""
    first, second = Parameterised(network, "v", process="sd"), Parameterised(network, "edm", process="sd")
    third = Parameterised(network, "v", process="sd", dtype=torch.float32)

    def together(call):
        def denoise(x, sigma):
            once = call(first)(x, sigma) + call(second)(x, sigma) + call(third)(x, sigma)
            flat = call(first)(x.flatten(1), sigma).reshape(x.shape)
            single = call(first)(x.float(), sigma).double() + call(third)(x.float(), sigma).double()
            twice = call(first)(x.repeat(2, 1, 1), repeated(sigma, 2)).chunk(2)
            return (once + flat + single + twice[0] + twice[1]) / 8

        return denoise

    found = run(together(lambda denoiser: denoiser), first)
    assert torch.equal(found, run(together(unknown), first))


def test_a_network_may_write_to_its_time():
    """Two calls at one level are told the same, though the network writes to the time that it got."""
    told = []

    def writes(z, t):
        told.append(t.tolist())
        t.zero_()
        return z

    denoiser = Parameterised(writes, "v", process="sd")
    run(lambda x, sigma: (denoiser(x, sigma) + denoiser(x, sigma)) / 2, denoiser, "euler", 3)
    assert told[0::2] == told[1::2]
    assert told[0][0] > told[2][0] > 0


def test_gradients_to_levels_and_states():
    """A wrapper that asks for the gradient of a level gets it; gradients through a run are the same."""
    denoiser = Parameterised(network, "v", process="sd")
    slopes = []

    def sloped(x, sigma):
        with torch.enable_grad():
            sigma.requires_grad_()
            found = denoiser(x, sigma)
            slopes.append(torch.autograd.grad(found.sum(), sigma)[0])
        return found.detach()

    run(sloped, denoiser)
    assert all(float(slope.abs().min()) > 0 for slope in slopes)

    def gradient(call, **options):
        sigmas = kd.get_schedule("karras")(4, process=denoiser.process)
        x = (kd.start(sigmas, like=torch.empty(2, 3, dtype=F64), seed=0)).requires_grad_()
        kd.get_sampler("heun").run(call, x, sigmas, **options).x.sum().backward()
        return x.grad

    expected = gradient(unknown(denoiser))
    assert torch.equal(gradient(denoiser), expected)
    assert torch.equal(gradient(denoiser, checkpoint_gradients=True), expected)


def test_a_transform_leaves_nothing_behind():
    """After a call inside of a derivative or in inference mode the run's other calls are as they were."""
    denoiser = Parameterised(network, "v", process="sd")

    def mixed(call):
        def denoise(x, sigma):
            def inside(z):
                assert known(sigma) is None
                return call(z, sigma)

            value, back = torch.func.vjp(inside, x)
            with torch.inference_mode():
                again = call(x, sigma)
            return (value + again.clone() + call(x, sigma)) / 3 + 0 * back(x)[0]

        return denoise

    assert torch.equal(run(mixed(denoiser), denoiser), run(mixed(unknown(denoiser)), denoiser))
    with torch.inference_mode():
        found = run(denoiser, denoiser)
    assert torch.equal(found, run(denoiser, denoiser))

    def inference_first(x, sigma):
        with torch.inference_mode():
            denoiser(x, sigma)
        with torch.enable_grad():
            z = x.clone().requires_grad_()
            return torch.autograd.grad(denoiser(z, sigma).sum(), z)[0]

    assert bool(run(inference_first, denoiser).isfinite().all())


def test_only_the_run_that_calls_is_known():
    """Levels are known within their own run: not in a run inside of it, in another thread, or afterwards."""
    denoiser = Parameterised(network, "v", process="sd")
    kept, inside = [], []

    def outer(x, sigma):
        kept.append(sigma)
        answers = [known(sigma)]
        thread = threading.Thread(target=lambda: answers.append(known(sigma)))
        thread.start()
        thread.join()

        def inner(z, level):
            answers.extend([known(level), known(sigma)])
            return denoiser(z, level)

        run(inner, denoiser, "euler", 1)
        inside.append([None if answer is None else answer.evaluation for answer in answers])
        return denoiser(x, sigma)

    run(outer, denoiser, "euler", 3)
    assert inside == [[number, None, 0, None] for number in range(3)]
    assert [known(sigma) for sigma in kept] == [None] * 3


def test_functions_of_a_level_are_called_at_each_call():
    """A prediction or a time of one's own gets the levels of a call, `(B,)`, as it is said to."""
    seen = []

    def time(level):
        seen.append(len(level.sigma))
        return level.sigma

    denoiser = Parameterised(network, "v", process="sd", time=time)
    seen.clear()
    run(denoiser, denoiser, "euler", 3)
    assert seen == [3, 3, 3]


def test_a_run_that_goes_on_is_the_same():
    """From a checkpoint on the factors are those of the evaluations that are left."""
    denoiser = Parameterised(network, "v", process="sd")
    sigmas = kd.get_schedule("karras")(6, process=denoiser.process)
    x, sampler = kd.start(sigmas, like=torch.empty(2, 3, dtype=F64), seed=0), kd.get_sampler("dpmpp_2m")
    half = sampler.run(denoiser, x, sigmas, stop=3)
    found = sampler.run(denoiser, resume=half.checkpoint)
    assert torch.equal(found.x, sampler(denoiser, x, sigmas))
