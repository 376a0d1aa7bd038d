"""No check rejects a correct sampler, however many examples it is given."""

from __future__ import annotations

import pytest

import kdiff_core as kd
from kdiff_core.testing import check_sampler

SAMPLERS = [
    kd.get_sampler("euler"),
    kd.get_sampler("heun"),
    kd.get_sampler("dpm2"),
    kd.get_sampler("dpmpp_2m"),
    kd.get_sampler("dpmpp_2s"),
    kd.get_sampler("lms"),
    kd.get_sampler("dpm_solver_3s"),
    kd.get_sampler("dpm_solver_3m"),
    kd.get_sampler("dpmpp_sde"),
    kd.get_sampler("dpmpp_2m_sde"),
    kd.get_sampler("dpmpp_3m_sde", eta=0.0, corrected=True),
    kd.get_sampler("euler_ancestral"),
    kd.get_sampler("heun", eta=0.5),
    kd.get_sampler("heun", s_churn=40.0),
    kd.get_sampler("ddim", eta=0.5),
]


@pytest.mark.kdiff_slow
@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_correct_samplers_are_never_rejected(sampler):
    """Over a thousand examples of another seed, no law rejects a sampler that is right."""
    report = check_sampler(sampler, examples=1000, seed=11)
    assert report.ok, str(report)


@pytest.mark.kdiff_slow
@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_correct_samplers_are_not_rejected_in_single_precision(sampler):
    """Over a hundred examples on float32 states, no law rejects a sampler that is right."""
    report = check_sampler(sampler, examples=100, seed=12, dtype="float32")
    assert report.ok, str(report)
