"""Noise that is made ahead for a GPU: the logic, with the streams of a GPU that is not there."""

from __future__ import annotations

import contextlib

import pytest
import torch
from support import Gaussian, levels, state

import kdiff_core as kd
from kdiff_core import draw, job


class _Stream:
    def __init__(self, *args):
        pass

    def wait_event(self, event):
        assert event.recorded


class _Event:
    recorded = False

    def record(self, stream):
        self.recorded = True


@pytest.fixture
def prefetched(monkeypatch):
    """Every run prefetches, as on a GPU; returns the list of requests drawn in the main thread."""
    missed = []

    class Prefetch(draw._Prefetch):
        def __call__(self, request, buffer):
            before = len(self.pending) + len(self.requests)
            leaves = super().__call__(request, buffer)
            if not before:
                missed.append(request)
            return leaves

    monkeypatch.setattr(torch.cuda, "Stream", _Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "Event", _Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: _Stream())
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: None)

    def drawer(source, x, leaves, requests):
        return Prefetch(source, x, leaves, requests) if source is not None else None

    monkeypatch.setattr(job, "drawer", drawer)
    return missed


@pytest.mark.parametrize("name", ["euler_ancestral", "dpmpp_sde", "dpmpp_3m_sde"])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_prefetched_noise_is_the_noise_asked_for(name, steps, prefetched, monkeypatch):
    """A run that draws ahead makes the bits of one that draws when asked, and draws nothing twice."""
    sampler, grid = kd.get_sampler(name), levels("ve", steps)
    ahead = sampler(Gaussian(), state(), grid, seed=3)
    assert prefetched == []
    monkeypatch.undo()
    assert torch.equal(ahead, sampler(Gaussian(), state(), grid, seed=3))


def test_a_resumed_run_prefetches_from_where_it_is(prefetched):
    """After a resume the requests of the first half are skipped."""
    sampler, grid = kd.get_sampler("dpmpp_sde"), levels("ve", 6)
    whole = sampler(Gaussian(), state(), grid, seed=3)
    at = sampler.run(Gaussian(), state(), grid, seed=3, stop=3).checkpoint
    assert torch.equal(sampler.run(Gaussian(), resume=at).x, whole)
    assert prefetched == []


def test_a_fault_in_the_thread_reaches_the_caller(prefetched, monkeypatch):
    """What goes wrong while noise is made ahead is raised in the run that asks for it."""

    def fails(*args, **options):
        raise MemoryError("no pinned memory")

    monkeypatch.setattr(kd.KeyedNoise, "noise", fails)
    with pytest.raises(MemoryError, match="pinned"):
        kd.get_sampler("euler_ancestral")(Gaussian(), state(), levels("ve", 4), seed=3)
