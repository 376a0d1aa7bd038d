"""Requests of every kind share the calls of one model, and none of them notices."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import F64, Gaussian, interval_noise, levels, state

import kdiff_core as kd
from kdiff_core.errors import DenoiserError, KdiffError, NonFiniteError, ParameterError, UnknownNameError

SAMPLERS = ("euler", "heun", "dpmpp_2m", "dpmpp_sde", "lms", "euler_ancestral", "uni_pc", "restart")


class Watched:
    """A batch-exact model that notes the size of each call, and does as it is told."""

    path = "ve"

    def __init__(self, broken=lambda x: False):
        self.inner, self.sizes, self.broken = Gaussian("ve"), [], broken

    def __call__(self, x, sigma, **cond):
        self.sizes.append(len(sigma))
        if self.broken(x):
            raise MemoryError("too much")
        shift = cond.get("shift", 0.0)
        return self.inner(x, sigma) + (shift.reshape(-1, 1) if isinstance(shift, torch.Tensor) else shift)


def submitted(runner, wanted):
    """Submit, and return the requests beside what each gets alone."""
    pairs = []
    for name, steps, batch, seed, shift in wanted:
        x, grid = state(batch, seed=seed), levels("ve", steps)
        cond = {"shift": torch.full((batch,), shift, dtype=F64)}
        pairs.append(
            (
                runner.submit(name, x, grid, seed=seed, cond=cond),
                kd.get_sampler(name).run(Watched(), x, grid, seed=seed, cond=cond),
            )
        )
    return pairs


requests = st.lists(
    st.tuples(
        st.sampled_from(SAMPLERS), st.integers(1, 7), st.integers(1, 5), st.integers(0, 99), st.floats(-1, 1)
    ),
    min_size=1,
    max_size=6,
)


@given(requests, st.integers(1, 9), st.integers(1, 4))
@settings(deadline=None)
def test_each_gets_what_it_would_have_got_alone(wanted, max_batch, max_running):
    """Whatever goes together, a request's result and evaluations are those of its run alone, bit for bit."""
    model = Watched()
    runner = kd.BatchRunner(model, max_batch=max_batch, max_running=max_running)
    pairs = submitted(runner, wanted)
    runner.run()
    for request, alone in pairs:
        assert torch.equal(request.result().x, alone.x)
        assert request.result().evaluations == alone.evaluations
    assert max(model.sizes) <= max_batch
    assert sum(model.sizes) == runner.rows == sum(alone.evaluations * len(alone.x) for _, alone in pairs)
    assert len(model.sizes) == runner.calls


@given(st.lists(st.integers(1, 6), min_size=1, max_size=8), st.integers(1, 8))
@settings(deadline=None)
def test_calls_are_full_and_nobody_is_passed_over(batches, max_batch):
    """A call has all rows that wait or as many as fit, and nobody waits longer than for the others' rows."""
    runner = kd.BatchRunner(Watched(), max_batch=max_batch)
    following, waiting, taken = runner._next, [], []

    def watched():
        waiting.append(sum(pending.left for pending in runner._waiting))
        shares = following()
        taken.append(sum(share.rows for share in shares))
        return shares

    runner._next = watched
    pairs = submitted(runner, [("euler", 4, b, i, 0.0) for i, b in enumerate(batches)])
    runner.run()
    assert taken == [min(max_batch, rows) for rows in waiting]
    for (request, _), batch in zip(pairs, batches, strict=True):
        assert request.waited <= (sum(batches) - batch) // max_batch


def test_a_request_may_bring_its_own_guidance():
    """Requests with guidance of different scales share the calls of the model beneath it."""
    base, grid = Watched(), levels("ve", 5)
    guides = [
        lambda m, s=s: kd.get_guidance("cfg", m, scale=s, uncond={"shift": torch.zeros(2, dtype=F64)})
        for s in (2.0, 5.0)
    ]
    runner = kd.BatchRunner(base)
    cond = {"shift": torch.ones(2, dtype=F64)}
    found = [
        runner.submit(name, state(2), grid, guide=guide, cond=cond)
        for guide in guides
        for name in ("dpmpp_2m", "euler_cfg_pp")
    ]
    runner.run()
    for request, (guide, name) in zip(
        found, [(g, n) for g in guides for n in ("dpmpp_2m", "euler_cfg_pp")], strict=True
    ):
        alone = kd.get_sampler(name)(guide(Watched()), state(2), grid, cond=cond)
        assert torch.equal(request.result().x, alone)
    assert set(base.sizes) == {8}


def test_a_guided_model_is_shared_with_all_its_outputs():
    """A model with ``predict`` answers requests that need its outputs, and others, each in its own calls."""
    model = kd.get_guidance("cfg", Watched(), scale=3.0, uncond={"shift": torch.zeros(1, dtype=F64)})
    runner, grid = kd.BatchRunner(model, max_batch=3), levels("ve", 4)
    cond = {"shift": torch.ones(2, dtype=F64)}
    names = ("euler_cfg_pp", "euler", "dpmpp_2m_cfg_pp")
    found = [runner.submit(name, state(2, seed=i), grid, cond=cond) for i, name in enumerate(names)]
    runner.run()
    for i, (request, name) in enumerate(zip(found, names, strict=True)):
        alone = kd.get_sampler(name)(model, state(2, seed=i), grid, cond=cond)
        assert torch.equal(request.result().x, alone)


def test_other_shapes_and_conditions_wait_for_calls_of_their_own():
    """States of another shape or dtype and conditions of another kind never meet in a call."""
    seen = []

    def model(x, sigma, **cond):
        seen.append((x.shape[1:], x.dtype, cond.get("word")))
        return x * 0.5

    runner, grid = kd.BatchRunner(model), levels("ve", 3)
    for dims in (2, 3):
        for dtype in (torch.float32, F64):
            for word in ("a", "b"):
                runner.submit("euler", torch.ones(1, dims, dtype=dtype), grid, cond={"word": word})
                runner.submit("euler", torch.ones(2, dims, dtype=dtype), grid, cond={"word": word})
    runner.run()
    assert len(seen) == 3 * 8
    assert len(set(seen)) == 8


def test_a_condition_without_rows_is_shared_by_those_who_have_the_same_object():
    """A tensor that has no row for each sample reaches the model as it is; another one is another call."""
    seen, tables = [], [torch.arange(10.0, dtype=F64).reshape(5, 2) + k for k in range(2)]

    def model(x, sigma, table, few):
        seen.append((len(sigma), id(table), len(few)))
        return x * few.reshape(-1, 1) + table.sum()

    runner, grid = kd.BatchRunner(model, max_batch=4), levels("ve", 2)
    for table in tables:
        for batch in (1, 2, 3):
            few = torch.full((batch,), 0.1 * batch, dtype=F64)
            runner.submit("euler", state(batch), grid, cond={"table": table, "few": few})
    runner.run()
    assert {identity for _, identity, _ in seen} == {id(table) for table in tables}
    assert all(rows == few for rows, _, few in seen)
    assert max(rows for rows, *_ in seen) == 4


def test_nests_are_shared():
    """States that are dicts, whatever the order of their keys, share calls and keep their own form."""

    def model(x, sigma):
        sizes.append(len(sigma))
        return {"b": x["b"] * 0.5, "a": x["a"] * 0.25}

    sizes = []
    runner, grid = kd.BatchRunner(model), levels("ve", 3)
    one = {"a": torch.ones(1, 2), "b": torch.ones(1, 3)}
    two = {"b": torch.full((2, 3), 2.0), "a": torch.full((2, 2), 3.0)}
    found = [runner.submit("heun", x, grid) for x in (one, two)]
    runner.run()
    assert set(sizes) == {3}
    for request, x in zip(found, (one, two), strict=True):
        alone = kd.get_sampler("heun")(model, x, grid)
        assert all(torch.equal(request.result().x[key], alone[key]) for key in x)
        assert list(request.result().x) == list(x)


def test_a_request_whose_output_is_not_finite_ends_alone():
    """NaN in one request's rows ends it with the place, and leaves the others as they were."""

    def model(x, sigma):
        out = x * 0.5
        out[x[:, 0] > 50] = float("nan")
        return out

    runner, grid = kd.BatchRunner(model), levels("ve", 6)
    good = [runner.submit("dpmpp_2m", state(1, seed=s, scale=0.1), grid) for s in range(3)]
    bad = runner.submit("dpmpp_2m", torch.full((1, 4), 100.0, dtype=F64), grid)
    runner.run()
    with pytest.raises(NonFiniteError, match="step 0 of 6"):
        bad.result()
    for s, request in enumerate(good):
        alone = kd.get_sampler("dpmpp_2m")(model, state(1, seed=s, scale=0.1), grid)
        assert torch.equal(request.result().x, alone)


def test_a_model_that_fails_for_one_request_fails_for_that_one():
    """When a shared call raises, each of its requests is asked for alone; those that raise again fail."""
    model = Watched(broken=lambda x: bool((x[:, 0] == 100.0).any()))
    runner = kd.BatchRunner(model)
    pairs = submitted(runner, [("heun", 3, 2, s, 0.0) for s in range(3)])
    bad = runner.submit(
        "heun",
        torch.full((1, 4), 100.0, dtype=F64),
        levels("ve", 3),
        cond={"shift": torch.zeros(1, dtype=F64)},
    )
    runner.run()
    with pytest.raises(MemoryError, match="too much"):
        bad.result()
    for request, alone in pairs:
        assert torch.equal(request.result().x, alone.x)


def test_an_output_of_another_shape_is_refused():
    """A model that answers with another shape than it was given is told so through each request."""
    runner = kd.BatchRunner(lambda x, sigma: x[:1])
    found = [runner.submit("euler", state(1, seed=s), levels("ve", 2)) for s in range(2)]
    found.append(runner.submit("euler", state(3), levels("ve", 2)))
    runner.run()
    with pytest.raises(DenoiserError, match="shape"):
        found[2].result()
    assert found[0].result().x.shape == (1, 4)  # alone it is right


def test_cancelling_harms_nobody_else():
    """A request that is cancelled, before it began or in the middle, makes no further call; others go on."""
    model = Watched()
    runner = kd.BatchRunner(model, max_running=3)
    pairs = submitted(runner, [("heun", 5, 1, s, 0.0) for s in range(5)])
    for _ in range(3):
        runner.step()
    pairs[1][0].cancel()
    pairs[4][0].cancel()
    runner.run()
    for i, (request, alone) in enumerate(pairs):
        if i in (1, 4):
            with pytest.raises(CancelledError, match=f"request {i} was cancelled"):
                request.result()
        else:
            assert torch.equal(request.result().x, alone.x)
    assert pairs[1][0].calls == 3
    assert pairs[4][0].calls == 0
    partial = pairs[1][0]._future.exception().partial
    assert partial.evaluations == 3


def test_a_callback_may_stop_its_request_and_submit_another():
    """A callback that raises ends its own request; one that submits adds to the run that is going on."""
    runner, grid, added = kd.BatchRunner(Watched()), levels("ve", 4), []

    def stop(info):
        if info.index == 1:
            raise InterruptedError("enough")

    def more(info):
        if info.index == 2:
            added.append(runner.submit("euler", state(1), grid, seed=0))

    first = runner.submit("euler", state(1), grid, callback=stop)
    second = runner.submit("euler", state(1), grid, callback=more)
    runner.run()
    with pytest.raises(InterruptedError, match="enough"):
        first.result()
    assert torch.equal(second.result().x, added[0].result().x)


def test_waiting_for_oneself_is_refused():
    """A callback that waits for a request, or makes a call itself, is told that this would never end."""
    runner, grid = kd.BatchRunner(Watched()), levels("ve", 2)
    other = runner.submit("euler", state(1), grid)
    for wait in (lambda info: other.result(), lambda info: runner.step()):
        request = runner.submit("euler", state(1), grid, callback=wait)
        with pytest.raises(KdiffError, match="would wait for itself"):
            request.result()


def test_serving_from_a_thread():
    """Inside ``with`` requests from several threads are served as they come; leaving it waits for all."""
    model, found = Watched(), []

    def client(seed):
        x = state(1, seed=seed)
        request = runner.submit("dpmpp_2m", x, levels("ve", 4 + seed))
        found.append((request.result(60).x, kd.get_sampler("dpmpp_2m")(Watched(), x, levels("ve", 4 + seed))))

    with kd.BatchRunner(model, max_batch=4) as runner:
        clients = [threading.Thread(target=client, args=(s,)) for s in range(6)]
        for thread in clients:
            thread.start()
        last = runner.submit("euler", state(1), levels("ve", 3))
        for thread in clients:
            thread.join()
        with pytest.raises(KdiffError, match="serving already"):
            runner.__enter__()
    assert last.done
    assert len(found) == 6
    assert all(torch.equal(served, alone) for served, alone in found)


def test_leaving_with_an_exception_cancels():
    """An exception inside ``with`` cancels what is not over, and comes out."""

    def fail():
        with kd.BatchRunner(Watched()) as runner:
            found.append(runner.submit("euler", state(1), levels("ve", 2000)))
            raise ZeroDivisionError

    found = []
    with pytest.raises(ZeroDivisionError):
        fail()
    assert found[0].done


def test_an_interrupted_call_is_made_again():
    """After an interrupt in a model call, the runner goes on where it was, with the same results."""
    model, calls = Watched(), []

    def interrupted(x, sigma, **cond):
        calls.append(len(sigma))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return model(x, sigma, **cond)

    runner = kd.BatchRunner(interrupted, max_batch=3)
    pairs = submitted(runner, [("heun", 4, 2, s, 0.3) for s in range(3)])
    with pytest.raises(KeyboardInterrupt):
        runner.run()
    runner.run()
    assert all(torch.equal(request.result().x, alone.x) for request, alone in pairs)


def test_given_noise_and_trajectories_belong_to_their_request():
    """A noise source, a trajectory and a callback are the request's own."""
    runner, grid, seen = kd.BatchRunner(Watched()), levels("ve", 4), []
    x = state(2)
    request = runner.submit(
        "dpmpp_sde", x, grid, noise=interval_noise(x), trajectory=True, callback=seen.append
    )
    runner.submit("dpmpp_sde", x, grid, seed=3)
    runner.run()
    alone = kd.get_sampler("dpmpp_sde").run(Watched(), x, grid, noise=interval_noise(x), trajectory=True)
    pairs = zip(request.result().trajectory, alone.trajectory, strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert [info.index for info in seen] == [0, 1, 2, 3]


def test_no_gradient_is_recorded():
    """Parameters and states that require gradients leave no graph behind."""
    weight = torch.ones(4, dtype=F64, requires_grad=True)
    runner = kd.BatchRunner(lambda x, sigma: x * weight * 0.5)
    grid = levels("ve", 3)[:-1]  # it ends with a sum, not with the output of the model
    found = [runner.submit("heun", state(1, seed=s).requires_grad_(), grid) for s in range(2)]
    runner.run()
    assert not any(request.result().x.requires_grad for request in found)


def test_refusals():
    """Numbers below 1, a model that is none and unknown samplers are refused at once."""
    for options in ({"max_batch": 0}, {"max_running": 0}, {"max_batch": 1.5}):
        with pytest.raises(ParameterError, match="at least 1"):
            kd.BatchRunner(Watched(), **options)
    with pytest.raises(ParameterError, match="not callable"):
        kd.BatchRunner("digits")
    runner = kd.BatchRunner(Watched())
    with pytest.raises(UnknownNameError):
        runner.submit("eulr", state(1), levels("ve", 2))
    bad = runner.submit("euler", state(1), [1.0, 2.0, 0.0])
    with pytest.raises(ValueError, match="levels"):
        bad.result()
    assert runner.calls == 0
