"""What an author tests of a sampler, with nothing but kdiff_core."""

import math

import torch

import kdiff_core as kd


def denoiser(x, sigma):
    """The exact denoiser of data that is normally distributed with variance one."""
    return x / (1 + sigma.view(-1, 1) ** 2)


def error(steps):
    """How far the sampler ends from the exact solution, ``x`` in proportion to ``sqrt(1 + sigma^2)``."""
    first, last = 10.0, 0.1
    sigmas = [first * (last / first) ** (i / steps) for i in range(steps + 1)]
    x = torch.full((1, 1), first, dtype=torch.float64)
    exact = first * math.sqrt((1 + last**2) / (1 + first**2))
    return abs(kd.get_sampler("log_midpoint")(denoiser, x, sigmas).item() - exact)


def test_second_order():
    """Twice the steps leave a quarter of the error."""
    assert 3.5 < error(40) / error(80) < 4.5


def test_two_evaluations_a_step():
    """Its plan asks the model twice a step."""
    assert kd.plan(kd.get_sampler("log_midpoint"), [10.0, 3.0, 1.0]).evaluations == 4
