"""On a denoiser polynomial in log-SNR a method of order p is exact up to degree p - 1, and no further."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import few

import kdiff_core as kd
from kdiff_core.path import as_path
from kdiff_core.testing import Polynomial
from kdiff_core.testing.strategies import step_ratios

# Methods that integrate the interpolation of their history exactly under the exponential weight.
EXACT = {
    "euler": (kd.get_sampler("euler"), 0),
    "2M, Heun's correction": (kd.get_sampler("dpmpp_2m_sde", eta=0.0, solver_type="heun"), 1),
    "3M, corrected": (kd.get_sampler("dpmpp_3m_sde", eta=0.0, corrected=True), 2),
    "3M as published": (kd.get_sampler("dpmpp_3m_sde", eta=0.0), 1),
}


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("path", ["ve", "flow"])
@given(ratios=step_ratios(3), lam=st.floats(-1.0, 1.0))
@few
def test_exact_up_to_a_degree_and_no_further(name, path, ratios, lam):
    """The last of three uneven steps makes no error on each power up to the degree, and one on the next."""
    sampler, degree = EXACT[name]
    lambdas = [lam + sum(ratios[:i]) * 0.4 for i in range(4)]
    grid = [as_path(path).sigma(value) for value in lambdas]
    for power in range(degree + 2):
        problem = Polynomial(path, (*[0.0] * power, 1.0))
        x = torch.full((1, 1), 0.5, dtype=torch.float64)
        before, after = sampler.run(problem, x, grid, trajectory=True).trajectory[-2:]
        error = float((after - problem.exact(before, *list(pairwise(grid))[-1])).abs())
        assert (error < 1e-13) == (power <= degree), (power, error)
