"""The numerical kernel: it computes the combination, whatever the weights, and over any memory it may."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import DEVICE, F64

from kdiff_core.combine import combine, combine_recorded, recipe

nonzero = st.floats(-3, 3).filter(lambda w: abs(w) > 1e-3)


@st.composite
def combinations(draw):
    """Weights of every kind: any, with a sum of 1, with a sum of 1 but for noise, with a 1 among them."""
    weights = draw(st.lists(nonzero, min_size=1, max_size=6))
    kind, extras = draw(st.sampled_from(["any", "affine", "noisy", "unit"])), frozenset()
    if kind in ("affine", "noisy"):
        total = sum(weights)
        if abs(total) > 0.1:
            weights = [w / total for w in weights]
    if kind == "noisy":
        extras = frozenset([len(weights)])
        weights = [*weights, draw(nonzero)]
    if kind == "unit":
        weights = [*weights, 1.0]
    return weights, extras


@given(combinations())
def test_computes_the_combination(case):
    """The chain equals the sum of products to rounding, in place of each operand that it allows, or not."""
    weights, extras = case
    generator = torch.Generator().manual_seed(len(weights))
    operands = [torch.randn(3, 5, generator=generator, dtype=F64).to(DEVICE) for _ in weights]
    exact = sum(w * x for w, x in zip(weights, operands, strict=True))
    scale = sum(abs(w) * float(x.abs().max()) for w, x in zip(weights, operands, strict=True))
    chain = recipe(weights, extras)
    assert torch.allclose(combine_recorded(chain, operands), exact, atol=1e-13 * scale, rtol=0)
    for place in (None, *chain.early):
        copies = [x.clone() for x in operands]
        out = torch.empty_like(exact) if place is None else copies[place]
        assert combine(chain, copies, out) is out
        assert torch.equal(out, combine_recorded(chain, operands))


@given(combinations())
def test_one_kernel_fewer_than_operands_for_a_sum_of_one(case):
    """Weights that sum to 1, noise apart, need no plain product."""
    weights, extras = case
    chain = recipe(weights, extras)
    core = sum(w for i, w in enumerate(weights) if i not in extras)
    assert sorted((chain.first, *(link.operand for link in chain.links))) == list(range(len(weights)))
    if len(weights) - len(extras) > 1 and abs(core - 1) < 1e-15:
        assert chain.scale == 1.0


def test_a_small_weight_beside_a_large_state_keeps_its_precision():
    """In float32 a state of 1e4 with weight 1e-6 beside an estimate of 1 is right to the last digits."""
    x, d = torch.full((4,), 2.0e4), torch.full((4,), 0.5)
    for weights in ([1e-6, 1 - 1e-6], [1 - 1e-6, 1e-6]):
        operands = [x, d] if weights[0] < 0.5 else [d, x]
        exact = 2.0e4 * 1e-6 + 0.5 * (1 - 1e-6)
        result = combine(recipe(weights), operands, torch.empty(4))
        assert result.double().tolist() == pytest.approx([exact] * 4, rel=2e-7)
