"""Chunks of a batch: any size gives the same, memory that does not suffice gives smaller ones."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import DEVICE, F64, Gaussian, levels, state

import kdiff_core as kd
from kdiff_core.chunking import Chunked, ChunkWarning, out_of_memory
from kdiff_core.errors import DenoiserError, ParameterError
from kdiff_core.manifest import manifest_of


class Spread:
    """A model of each sample by itself, with conditions of all kinds; remembers the sizes of its calls."""

    path = "ve"
    kind = "spread"

    def __init__(self, most=10**6, error=None):
        self.most, self.error = most, error or torch.OutOfMemoryError("CUDA out of memory. Tried ...")
        self.sizes = []

    def __call__(self, x, sigma, shift=None, scale=1.0, nested=None):
        self.sizes.append(len(x))
        if len(x) > self.most:
            raise self.error
        level = sigma[:, None].to(x.dtype)
        out = x * scale / (1 + level**2)
        if shift is not None:
            out = out + shift
        if nested is not None:
            out = out * nested["rows"][0] + nested["whole"]
        return out


class Guided(Spread):
    def predict(self, x, sigma, **cond):
        cond_out = self(x, sigma, **cond)
        return kd.Prediction(cond_out * 1.5, cond_out, cond_out * 0.5)


CONDITIONS = {
    "shift": torch.arange(6.0, dtype=F64, device=DEVICE)[:, None],
    "scale": 0.7,
    "nested": {
        "whole": torch.arange(4.0, dtype=F64, device=DEVICE),
        "rows": [torch.linspace(0.5, 1, 6, dtype=F64, device=DEVICE)[:, None]],
    },
}


def sampled(model, name="dpmpp_2m_sde", x=None, cond=CONDITIONS, **options):
    sampler = kd.get_sampler(name)
    x = state(6) if x is None else x
    return sampler.run(model, x, levels("ve", 5), seed=0, cond=cond, **options)


@given(chunk=st.one_of(st.integers(1, 9), st.just("auto")), name=st.sampled_from(["euler", "lms", "restart"]))
def test_a_chunk_of_any_size_gives_the_bits_of_none(chunk, name):
    """Splitting the batch and its conditions changes no bit for a model that treats samples alone."""
    whole, parts = sampled(Spread(), name), sampled(Spread(), name, chunk=chunk)
    assert torch.equal(whole.x, parts.x)
    assert whole.evaluations == parts.evaluations


@given(chunk=st.integers(1, 7), batch=st.integers(1, 7))
def test_no_call_is_larger_than_a_chunk(chunk, batch):
    """A batch is covered once, by calls of the chunk's size and a last one of the rest."""
    model = Spread()
    Chunked(model, chunk)(state(batch), torch.ones(batch))
    assert model.sizes == [chunk] * (batch // chunk) + [batch % chunk] * (batch % chunk > 0)


@given(most=st.integers(1, 6), chunk=st.sampled_from(["auto", 1, 3, 4, 8]))
def test_full_memory_halves_the_chunk_says_so_once_and_changes_nothing(most, chunk):
    """A model that runs out of memory above a size gives the bits of one that does not, with one warning."""
    expected = sampled(Spread()).x
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = Spread(most)
        result = sampled(model, chunk=chunk)
    assert torch.equal(result.x, expected)
    first = min(6, 6 if chunk == "auto" else chunk)
    assert [w.category for w in caught] == [ChunkWarning] * (first > most)
    if first > most:
        size = result.info["chunk"]
        assert f"{first} samples" in str(caught[0].message)
        assert f"chunk={size} " in str(caught[0].message)
        assert size <= most < 2 * size + 1
    assert max(model.sizes[-5:]) <= most, "the smaller size is kept for the calls that follow"


@given(chunk=st.integers(1, 6), levels_of=st.lists(st.floats(0.1, 9.0), min_size=6, max_size=6))
def test_each_sample_keeps_its_own_level(chunk, levels_of):
    """Samples at different levels, as adaptive samplers ask for, are split with their levels."""
    x, sigma = state(6), torch.tensor(levels_of, dtype=F64, device=DEVICE)
    expected = Spread()(x, sigma, **CONDITIONS)
    assert torch.equal(Chunked(Spread(), chunk)(x, sigma, **CONDITIONS), expected)


def test_samples_that_are_done_are_not_computed_again():
    """When memory is full in the middle of a batch, the run goes on from there."""

    class Later(Spread):
        def __call__(self, x, sigma, **cond):
            self.most = 4 if not self.sizes else 2
            return super().__call__(x, sigma, **cond)

    model, x = Later(), state(10)
    with pytest.warns(ChunkWarning, match="with 4 samples; the run goes on with 2 a call"):
        found = Chunked(model, 4)(x, torch.ones(10))
    assert model.sizes == [4, 4, 2, 2, 2]
    assert torch.equal(found, Spread()(x, torch.ones(10)))


def test_one_sample_that_does_not_fit_is_an_error_that_says_what_to_do():
    """A chunk of one that fails raises the original error with a note."""
    model = Spread(0)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        sampled(model, chunk=4)
    assert any("offload=True" in note and "half precision" in note for note in caught.value.__notes__)
    assert model.sizes == [4, 2, 1]


def test_without_chunks_full_memory_is_an_error():
    """Nobody's batch is split unasked."""
    model = Spread(3)
    with pytest.raises(torch.OutOfMemoryError):
        sampled(model)
    assert model.sizes == [6]


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (torch.OutOfMemoryError("anything"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 5.96 GB)"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 MiB"), True),
        (RuntimeError("XPU out of memory. Tried to allocate"), True),
        (RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried"), True),
        (RuntimeError("an illegal memory access was encountered"), False),
        (RuntimeError("index out of memory bounds"), False),
        (NotImplementedError("CUDA out of memory"), False),
        (MemoryError(), False),
    ],
)
def test_what_counts_as_full_memory(error, full):
    """Torch's own class and the words of its backends count; other errors of memory do not."""
    assert out_of_memory(error) is full


def test_another_error_of_the_model_is_left_alone():
    """An error that is not of memory is raised at once, from the first call."""
    model = Spread(0, RuntimeError("an illegal memory access was encountered"))
    with pytest.raises(RuntimeError, match="illegal"):
        sampled(model, chunk=4)
    assert model.sizes == [4]


def test_memory_that_a_failed_call_held_is_free_before_the_next():
    """The tensors of a call that failed are gone when the smaller one begins."""
    import weakref

    held = []

    def model(x, sigma):
        assert all(ref() is None for ref in held), "the failed call still holds its memory"
        big = x * 2
        held.append(weakref.ref(big))
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return x * 0.5 + 0 * big

    with pytest.warns(ChunkWarning):
        Chunked(model)(state(8), torch.ones(8))
    assert len(held) == 3 + 3  # 8 and 4 fail; four calls of 2, the first of which counts with them


class Pair(NamedTuple):
    image: torch.Tensor
    sound: torch.Tensor


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_nests_keep_their_order(chunk):
    """Of a nest each tensor is split and put back in its place, whatever the order of the model's output."""

    def model(x, sigma):
        if isinstance(x, dict):
            return {key: x[key] * (0.5 if key == "image" else 0.25) for key in sorted(x)}
        return Pair(x.image * 0.5, x.sound * 0.25)

    for x in ({"sound": state(5, 3), "image": state(5, 3, 1)}, Pair(state(5, 2), state(5, 3))):
        whole, parts = sampled(model, "lms", x, {}), sampled(model, "lms", x, {}, chunk=chunk)
        assert type(parts.x) is type(x)
        for a, b in zip(kd.state.flatten(whole.x), kd.state.flatten(parts.x), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["euler_cfg_pp", "dpmpp_2m_cfg_pp"])
@pytest.mark.parametrize("chunk", [1, 4, "auto"])
def test_a_guided_model_is_called_in_chunks_too(name, chunk):
    """All outputs of a guided model are put together, through full memory too."""
    expected = sampled(Guided(), name).x
    model = Guided(4 if chunk == "auto" else 10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ChunkWarning)
        assert torch.equal(sampled(model, name, chunk=chunk).x, expected)
    assert max(model.sizes[-3:]) <= 4


def test_the_wrapper_has_what_the_model_has_and_nothing_more():
    """Attributes come from the model inside; without predict there is none."""
    model = Chunked(Spread(), 3)
    assert (model.path, model.kind) == ("ve", "spread")
    assert not hasattr(model, "predict")
    assert callable(Chunked(Guided(), 3).predict)
    with pytest.raises(AttributeError, match="no attribute 'colour'"):
        _ = model.colour


def test_a_flow_model_stays_one_in_chunks():
    """The path of the model inside decides the run."""
    model = Gaussian("flow")
    grid, x = levels("flow", 4), state(4, scale=1.0)
    sampler = kd.get_sampler("dpmpp_2m")
    torch.testing.assert_close(
        sampler(model, x, grid, chunk=3), sampler(model, x, grid), rtol=1e-14, atol=1e-14
    )


def test_gradients_go_through_chunks():
    """The gradient with respect to the initial state is that of the whole batch."""
    grads = []
    for chunk in (None, 2):
        x = state(5).requires_grad_()
        sampled(Spread(), "heun", x, {}, chunk=chunk).x.pow(2).sum().backward()
        grads.append(x.grad)
    assert torch.equal(*grads)


def test_an_output_of_another_shape_is_refused():
    """A model that mixes up a chunk's shape is told so."""
    with pytest.raises(DenoiserError, match=r"shape \(2, 3\).* for a state of shape \(2, 4\)"):
        Chunked(lambda x, sigma: x[:, 1:], 2)(state(4), torch.ones(4))


@pytest.mark.parametrize("chunk", [0, -1, 2.0, True, "many"])
def test_a_chunk_that_is_none_is_refused(chunk):
    """A chunk is a whole number of at least 1, or "auto"; nothing is run with another."""
    model = Spread()
    with pytest.raises(ParameterError, match="chunk="):
        sampled(model, chunk=chunk)
    assert not model.sizes


def test_chunks_by_name():
    """`kd.sample` and the manifest of a run know chunks; the samples are those of the whole batch."""
    job = kd.SampleJob("digits", 5, steps=3, chunk=2)
    setup = job.setup()
    again = kd.SampleJob.from_manifest(manifest_of(setup))
    assert (again.chunk, setup.denoiser.size) == (2, 2)
    whole = kd.sample("digits", 5, steps=3)
    torch.testing.assert_close(kd.sample("digits", 5, steps=3, chunk=2, offload=True), whole)
    with pytest.raises(ParameterError, match="chunk='few'"):
        kd.sample("digits", 5, steps=3, chunk="few")


def test_a_mask_goes_around_the_chunks():
    """What a mask keeps for each sample is not split wrongly: the samples are those of the whole batch."""
    init, mask = torch.rand(5, 1, 8, 8) * 2 - 1, (torch.rand(5, 1, 8, 8) > 0.5).float()
    options = {"steps": 3, "init": init, "mask": mask}
    whole = kd.sample("digits", 5, **options)
    torch.testing.assert_close(kd.sample("digits", 5, chunk=2, **options), whole)
