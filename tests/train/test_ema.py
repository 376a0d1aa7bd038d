"""Averages of weights: what they weigh, and averages of any width made afterwards."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("accelerate")

from training_support import tiny, train

from kdiff_core.errors import ParameterError
from kdiff_core.model_file import read_model
from kdiff_train.ema import PROFILES, Average, Power, exponent, make_profile
from kdiff_train.post_hoc import reconstruct, snapshots, weights, write_post_hoc_model, write_snapshot


def history(n=400, size=6):
    """The weights of a network over n updates: a walk that calms down."""
    generator = torch.Generator().manual_seed(0)
    steps = torch.randn(n, size, generator=generator, dtype=torch.float64)
    return 1 + (steps / torch.arange(1, n + 1).sqrt()[:, None]).cumsum(0)


def network(value):
    made = torch.nn.Module()
    made.weight = torch.nn.Parameter(value.clone())
    made.register_buffer("count", torch.tensor(0))
    return made


def exact(path, std):
    """The average over all updates with the weights of the power-function profile."""
    power = exponent(std) + 1
    ends = torch.arange(len(path) + 1, dtype=torch.float64) ** power
    return (ends.diff()[:, None] * path).sum(0) / ends[-1]


@given(std=st.floats(0.005, 0.28))
def test_the_exponent_has_the_width(std):
    """The profile t^gamma on [0, 1] has the standard deviation that was asked for."""
    gamma = exponent(std)
    mean, second = (gamma + 1) / (gamma + 2), (gamma + 1) / (gamma + 3)
    assert (second - mean**2) ** 0.5 == pytest.approx(std, rel=1e-6)


def test_widths_out_of_range_are_refused():
    """A flat average or a negative width has no exponent."""
    for std in (0, -0.1, 0.29):
        with pytest.raises(ParameterError, match=r"must be above 0 and below 0\.2887"):
            Power(std)


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("std", [0.05, 0.1, 0.25])
def test_the_power_average_is_exact(std, batch):
    """The running average is the sum over all updates with the weights of its profile, for any batch."""
    path = history()
    average = Average(network(path[0]), Power(std))
    for k, value in enumerate(path):
        average.update(network(value), k * batch, (k + 1) * batch)
    torch.testing.assert_close(average.tensors["weight"], exact(path, std), rtol=1e-10, atol=0)


def test_other_averages_by_hand():
    """The half-life halves, ramps up with the run, and the warm-up keeps what its formula says."""
    assert make_profile("half_life", images=100, rampup=0).decay(500, 600) == pytest.approx(0.5)
    assert make_profile("half_life", images=100, rampup=0.05).decay(0, 200) == pytest.approx(0.5**20)
    warm = make_profile("warmup", inverse_gamma=2, power=0.5, highest=0.9, batch=10)
    assert warm.decay(60, 70) == pytest.approx(1 - (1 + 6 / 2) ** -0.5)
    assert warm.decay(10_000, 10_010) == 0.9
    assert warm.decay(0, 10) == 0


@pytest.mark.parametrize("name", PROFILES)
def test_an_average_of_constant_weights_is_them(name):
    """However it forgets, the average of weights that stay is the weights."""
    value = torch.tensor([0.1, 0.7], dtype=torch.float64)
    average = Average(network(value), make_profile(name))
    for k in range(20):
        average.update(network(value), 8 * k, 8 * k + 8)
    torch.testing.assert_close(average.tensors["weight"], value, rtol=1e-14, atol=0)


def test_buffers_are_the_newest():
    """What is no parameter is not averaged, integers neither; half-precision weights are kept in float32."""
    made = network(torch.ones(2).half())
    average = Average(made, Power(0.1))
    made.count += 3
    average.update(made, 8, 16)
    assert int(average.tensors["count"]) == 3
    assert average.tensors["weight"].dtype == torch.float32
    assert average.averaged == ["weight"]


def test_bad_profiles_are_refused():
    """An unknown name or option names the nearest."""
    with pytest.raises(ParameterError, match="did you mean 'half_life'"):
        make_profile("halflife")
    with pytest.raises(ParameterError, match="did you mean 'std'"):
        make_profile("power", sdt=0.1)


# -- afterwards


def written(folder, path, every, stds=(0.05, 0.1)):
    """Write snapshots of two averages over a history."""
    averages = {f"s{std}": Average(network(path[0]), Power(std)) for std in stds}
    for k, value in enumerate(path):
        for average in averages.values():
            average.update(network(value), k, k + 1)
        if (k + 1) % every == 0:
            write_snapshot(folder, k + 1, averages)


@pytest.mark.parametrize("std", [0.03, 0.05, 0.07, 0.1, 0.15, 0.2])
def test_any_width_afterwards(tmp_path, std):
    """Made of few snapshots, the average of any width is near the exact one over all updates."""
    path = history(800)
    written(tmp_path, path, 50)
    found = reconstruct(tmp_path, std)["weight"].double()
    wanted = exact(path, std)
    # What a wrong width would give lies far off.
    wrong = max(float((exact(path, other) - wanted).abs().max()) for other in (std / 2, min(2 * std, 0.28)))
    error = float((found - wanted).abs().max())
    assert error < 0.03 * wrong
    if std in (0.05, 0.1):
        assert error < 1e-6


def test_an_earlier_time(tmp_path):
    """An average can be had as of an earlier time, of the snapshots until then."""
    path = history(800)
    written(tmp_path, path, 50)
    found = reconstruct(tmp_path, 0.07, images=400)["weight"].double()
    wanted, wrong = exact(path[:400], 0.07), exact(path[:400], 0.14)
    assert float((found - wanted).abs().max()) < 0.05 * float((wrong - wanted).abs().max())
    with pytest.raises(ParameterError, match="the first snapshot was written at image 50, none until 20"):
        reconstruct(tmp_path, 0.1, images=20)


def test_a_snapshot_is_itself():
    """The weights of the snapshots for one that is among them are 1 and 0s."""
    found = weights([100, 100, 200, 200], [0.05, 0.1, 0.05, 0.1], 0.1, 200)
    np.testing.assert_allclose(found, [0, 0, 0, 1], atol=1e-8)


def test_no_snapshots_is_said(tmp_path):
    """Where there are none, or the run has no power-function average, it is said what to set."""
    with pytest.raises(ParameterError, match=r"checkpoint\.snapshots says how often"):
        snapshots(tmp_path)
    with pytest.raises(ParameterError, match="the run has none: give ema two"):
        train(tiny(checkpoint={"snapshots": 16}), tmp_path)


def test_a_model_of_another_width(tmp_path):
    """After a run its model is written with another average, and reads as any model."""
    ema = {"narrow": {"name": "power", "std": 0.05}, "wide": {"name": "power", "std": 0.1}}
    trainer = train(tiny(ema=ema, checkpoint={"snapshots": 16}), tmp_path)
    assert [each.images for each in snapshots(tmp_path / "snapshots")] == [
        16,
        16,
        32,
        32,
        48,
        48,
        64,
        64,
        80,
        80,
    ]
    write_post_hoc_model(tmp_path, tmp_path / "b.safetensors", 0.1)
    model = read_model(tmp_path / "b.safetensors")
    wide = trainer.averages["wide"].tensors
    for name, tensor in model.network.state_dict().items():
        torch.testing.assert_close(tensor, wide[name], rtol=1e-5, atol=1e-6)
    assert model.training["ema"] == {"name": "post_hoc", "std": 0.1}
