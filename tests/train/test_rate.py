"""Learning rates by images seen, and optimisers by name."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdiff_core.errors import MissingExtraError, ParameterError
from kdiff_train.optimizers import OPTIMIZERS, make_optimizer
from kdiff_train.rate import RATES, make_rate

OPTIONS = {"inverse_sqrt": {"reference": 300}, "exponential": {"half_life": 200}, "steps": {"at": [300, 600]}}


@pytest.mark.parametrize("name", RATES)
@given(images=st.integers(1, 3000), warmup=st.integers(0, 200))
def test_every_rate_rises_and_then_does_not(name, images, warmup):
    """A rate is from 0 to 1, rises over the warm-up and never after."""
    rate = make_rate(name, 1000, warmup=warmup, **OPTIONS.get(name, {}))
    now, next_ = rate(images), rate(images + 1)
    assert 0 <= now <= 1
    assert next_ <= now + 1e-12 or images < warmup


def test_known_values():
    """The halves of a linear and a cosine rate, a root, a half-life and a step are as by hand."""
    assert make_rate("constant", 100, warmup=10)(5) == 0.5
    assert make_rate("linear", 100, warmup=20)(60) == pytest.approx(0.5)
    assert make_rate("cosine", 100, lowest=0.1)(25) == pytest.approx(
        0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2
    )
    assert make_rate("cosine", 100)(100) == pytest.approx(0)
    assert make_rate("inverse_sqrt", 100, reference=50)(200) == pytest.approx(0.5)
    assert make_rate("exponential", 100, half_life=50)(100) == pytest.approx(0.25)
    assert [make_rate("steps", 100, at=[10, 20], factor=0.1)(i) for i in (9, 10, 20)] == pytest.approx(
        [1, 0.1, 0.01]
    )


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cosin", {}, "did you mean 'cosine'"),
        ("cosine", {"warm_up": 1}, "did you mean 'warmup'"),
        ("inverse_sqrt", {}, "reference"),
        ("constant", {"warmup": -1}, "warmup=-1"),
    ],
)
def test_bad_rates_are_refused(name, options, message):
    """An unknown name or option names the nearest; a missing one or one out of range is named."""
    with pytest.raises(ParameterError, match=message):
        make_rate(name, 100, **options)


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Conv2d(4, 4, 3), torch.nn.LayerNorm(4))


@pytest.mark.parametrize("name", [n for n in OPTIMIZERS if not n.endswith("8bit")])
def test_every_optimiser_changes_every_weight(name):
    """Each has all parameters in a group, and a step moves them."""
    if name == "muon" and not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    made = network()
    optimizer = make_optimizer(name, made, lr=0.01)
    before = [p.clone() for p in made.parameters()]
    sum((p**2 + p).sum() for p in made.parameters()).backward()
    optimizer.step()
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(before)
    assert all(not torch.equal(a, b) for a, b in zip(before, made.parameters(), strict=True))


def test_muon_takes_matrices_alone():
    """Muon has the matrices and AdamW the rest, and a rate set on a group is what the step takes."""
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    made = network()
    optimizer = make_optimizer("muon", made, lr=0.01, weight_decay=0.1)
    muon, adam = optimizer.parts
    assert {p.ndim for g in muon.param_groups for p in g["params"]} == {2}
    assert 2 not in {p.ndim for g in adam.param_groups for p in g["params"]}
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = [p.clone() for p in made.parameters()]
    sum((p**2 + p).sum() for p in made.parameters()).backward()
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, made.parameters(), strict=True))


def test_a_network_says_what_decays():
    """Where a network has ``param_groups``, they are the groups, with their own factor of the rate."""
    made = network()
    made.param_groups = lambda decay: [
        {"params": [made[0].weight], "weight_decay": decay},
        {"params": [made[0].bias], "weight_decay": 0.0},
    ]
    groups = make_optimizer("adamw", made, lr=0.01, weight_decay=0.3).param_groups
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]


def test_by_import_path():
    """A class is taken by its path, with options."""
    optimizer = make_optimizer("torch.optim:RMSprop", network(), lr=0.1, alpha=0.5)
    assert optimizer.param_groups[0]["alpha"] == 0.5


def test_what_is_not_there_is_said(monkeypatch):
    """A missing package, a class that torch lacks, an unknown name and an unknown option are each named."""
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingExtraError, match="pip install bitsandbytes"):
        make_optimizer("adamw_8bit", network(), lr=0.1)
    with pytest.raises(MissingExtraError, match="has no Nothing"):
        make_optimizer("torch.optim:Nothing", network(), lr=0.1)
    with pytest.raises(ParameterError, match="did you mean 'adamw'"):
        make_optimizer("adam_w", network(), lr=0.1)
    with pytest.raises(ParameterError, match=r"optimizer 'adamw'.*bets"):
        make_optimizer("adamw", network(), lr=0.1, bets=1)
    with pytest.raises(ParameterError, match="lr=0"):
        make_optimizer("adamw", network(), lr=0.0)
