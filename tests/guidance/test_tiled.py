"""Tiles: their weights, what is exact, seams, conditions, chunks."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import kdiff_core as kd
from kdiff_core.errors import ParameterError, StateError
from kdiff_core.testing import Gaussian, check_denoiser
from kdiff_guidance.tiles import axis

F64 = torch.float64
law = settings(deadline=None)
few = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 10_000)


def draw(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


class Pointwise:
    """A denoiser of each value alone, guided too, that notes the batch sizes of its calls."""

    path, sample_shape = "flow", (2, 4, 4)

    def __init__(self):
        self.calls = []

    def __call__(self, x, sigma, **cond):
        self.calls.append(len(x))
        return torch.sin(x) * sigma.reshape(-1, *[1] * (x.ndim - 1))

    def predict(self, x, sigma, **cond):
        found = self(x, sigma)
        return kd.Prediction(found, found + 1, found - 1)


def total(x, sigma, **cond):
    """A denoiser that puts each sample's mean everywhere."""
    return x.flatten(2).mean(2).reshape(*x.shape[:2], *[1] * (x.ndim - 2)).expand_as(x)


def blur(x, sigma, **cond):
    """A circular mean of three neighbours in the last two dimensions."""
    for dim in (-1, -2):
        x = (x + x.roll(1, dim) + x.roll(-1, dim)) / 3
    return x


@st.composite
def cuts(draw):
    tile = draw(st.integers(1, 12))
    return draw(st.integers(1, 60)), tile, draw(st.integers(0, tile - 1)), draw(st.booleans())


@law
@given(cuts())
def test_partition_of_unity(cut):
    """The weights of all tiles sum to 1 at each place, none is negative, and neighbours overlap enough."""
    size, tile, overlap, circular = cut
    found = axis(*cut)
    sums = torch.zeros(size, dtype=F64)
    for span in found.spans:
        assert (span.weights > 0).all()
        assert len(span.weights) == min(size, tile)
        assert circular or span.start + len(span.weights) <= size
        sums[(span.start + torch.arange(len(span.weights))) % size] += span.weights
    torch.testing.assert_close(sums, torch.ones(size, dtype=F64), rtol=1e-14, atol=0)
    starts = [span.start for span in found.spans]
    ends = [*starts[1:], starts[0] + size] if circular and size > tile else starts[1:]
    assert all(0 < after - start <= tile - overlap for start, after in zip(starts, ends, strict=False))


@law
@given(cuts())
def test_few_tiles(cut):
    """One tile fewer could not cover the dimension with that overlap."""
    size, tile, overlap, circular = cut
    count = len(axis(*cut).spans)
    if size > tile:
        covered = (count - 1) * (tile - overlap) + (0 if circular else overlap)
        assert covered < size


@few
@given(seed=seeds, dims=st.integers(1, 3), tile=st.integers(2, 5), circular=st.booleans())
def test_exact_for_pointwise_denoisers(seed, dims, tile, circular):
    """Of a denoiser of each value alone the result is the denoiser's, in any number of dimensions."""
    x, sigma = draw(seed, 2, 2, *[7, 6, 9][:dims]), torch.tensor([0.3, 0.8], dtype=F64)
    inner = Pointwise()
    tiled = kd.get_guidance("tiled", inner, tile, tile // 2, circular=circular)
    torch.testing.assert_close(tiled(x, sigma), inner(x, sigma), rtol=1e-13, atol=1e-13)
    for a, b in zip(tiled.predict(x, sigma), inner.predict(x, sigma), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)


@few
@given(seed=seeds, extra=st.integers(0, 3))
def test_identical_up_to_a_tile(seed, extra):
    """A state no larger than a tile goes to the denoiser as it is: the same bits, by one call."""
    x, sigma, inner = draw(seed, 2, 2, 4, 4), torch.ones(2, dtype=F64), Pointwise()
    for circular in (False, True):
        tiled = kd.get_guidance("tiled", inner, 4 + extra, 1, circular=circular)
        inner.calls = []
        assert torch.equal(tiled(x, sigma), Pointwise()(x, sigma))
        assert inner.calls == [2]


def test_local_denoisers():
    """Of a denoiser of neighbours it is exact where a place lies in one tile alone, not at its end."""
    x, sigma = draw(0, 1, 1, 12, 12), torch.ones(1, dtype=F64)
    whole, tiled = blur(x, sigma), kd.get_guidance("tiled", blur, 8, 4)(x, sigma)
    torch.testing.assert_close(tiled[..., 1:3, 1:3], whole[..., 1:3, 1:3], rtol=1e-13, atol=1e-13)
    assert not torch.allclose(tiled, whole)


@few
@given(seed=seeds, by=st.integers(1, 11))
def test_circular(seed, by):
    """A circular texture has no seam: moved by tiles' distance, the output moves with it."""
    x, sigma = draw(seed, 1, 2, 12, 12), torch.ones(1, dtype=F64)
    tiled = kd.get_guidance("tiled", blur, 6, 2, circular=(False, True))
    moved = tiled(x.roll(4 * by, -1), sigma)
    torch.testing.assert_close(moved, tiled(x, sigma).roll(4 * by, -1), rtol=1e-12, atol=1e-12)
    flat = kd.get_guidance("tiled", blur, 6, 2)
    assert not torch.allclose(flat(x.roll(4, -1), sigma), flat(x, sigma).roll(4, -1))


@few
@given(seed=seeds, chunk=st.integers(1, 12))
def test_chunks(seed, chunk):
    """The number of tiles in a call changes the calls, not the result."""
    x, sigma, inner = draw(seed, 2, 2, 8, 12), torch.tensor([0.3, 0.8], dtype=F64), Pointwise()
    found = kd.get_guidance("tiled", inner, 4, 0, chunk=chunk)(x, sigma)
    full, rest = divmod(6, chunk)
    assert inner.calls == [2 * chunk] * full + [2 * rest] * (rest > 0)
    assert torch.equal(found, kd.get_guidance("tiled", inner, 4, 0)(x, sigma))


def test_smooth_weights():
    """Where neighbours overlap the output goes from one to the other by a monotone, symmetric weight."""
    x = torch.zeros(1, 1, 12, dtype=F64)
    x[..., 6:] = 1
    found = kd.get_guidance("tiled", total, 8, 4)(x, torch.ones(1))[0, 0]
    assert (found[:4] == 0.25).all()
    assert (found[8:] == 0.75).all()
    assert (found.diff()[3:8] > 0).all()
    torch.testing.assert_close(found + found.flip(0), torch.ones(12, dtype=F64))


def test_conditions():
    """Rows are repeated with their samples, named conditions are cut, everything else goes through."""
    seen = []

    def model(x, sigma, text, depth, nest, scale, mask):
        seen.append((x, sigma, text, depth, nest, scale, mask))
        return x + depth[..., ::2, ::2] * text[:, :, None, None]

    x, sigma, text = draw(0, 2, 1, 4, 6), torch.tensor([0.2, 0.7], dtype=F64), draw(1, 2, 1)
    depth, table, mask = draw(2, 1, 1, 8, 12), draw(3, 5, 7), draw(4, 2, 1, 4, 6)
    tiled = kd.get_guidance("tiled", model, 4, 1, spatial=["depth", "mask"])
    found = tiled(x, sigma, text=text, depth=depth, nest={"rows": [text, table]}, scale=3.0, mask=mask)
    torch.testing.assert_close(
        found, x + depth[..., ::2, ::2] * text[:, :, None, None], rtol=1e-13, atol=1e-13
    )
    ((given, levels, texts, depths, nest, scale, masks),) = seen
    assert given.shape == (4, 1, 4, 4)
    assert depths.shape == (4, 1, 8, 8)
    assert masks.shape == (4, 1, 4, 4)
    assert torch.equal(levels, torch.cat([sigma, sigma]))
    assert torch.equal(texts, torch.cat([text, text]))
    assert torch.equal(nest["rows"][0], texts)
    assert nest["rows"][1] is table
    assert scale == 3.0


def test_runs_and_guidance():
    """A run of a large state, with guidance inside or outside, and the kit for denoisers find nothing."""
    data = kd.get_denoiser("digits")
    tiled = kd.get_guidance("tiled", data, 8, size=(16, 24))
    assert tiled.sample_shape == (1, 16, 24)
    assert kd.sample(tiled, n=2, steps=4).shape == (2, 1, 16, 24)
    x, sigma, cond = torch.randn(2, 1, 8, 12), torch.ones(2), {"label": torch.tensor([1, 2])}
    inside = kd.get_guidance("tiled", kd.get_guidance("cfg", data, 3.0), 8)
    outside = kd.get_guidance("cfg", kd.get_guidance("tiled", data, 8), 3.0)
    for a, b in zip(inside.predict(x, sigma, **cond), outside.predict(x, sigma, **cond), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    assert not hasattr(tiled, "predict")
    problem = Gaussian("flow", 0.3, 0.5)
    check_denoiser(kd.get_guidance("tiled", Whole(problem), 3, 1), examples=4).raise_if_broken()


class Whole:
    """A problem of vectors for states of any shape."""

    path, sample_shape, sigma_min, sigma_max, batch_exact = "flow", (2, 5, 4), 0.01, 1.0, True

    def __init__(self, problem):
        self.problem = problem

    def __call__(self, x, sigma):
        return self.problem(x.flatten(1), sigma).reshape(x.shape)


def test_forwards_and_copies():
    """The denoiser's attributes are found on it, missing ones are missing, and it can be copied."""
    tiled = kd.get_guidance("multidiffusion", Pointwise(), (4, 3), 1)
    assert tiled.path == "flow"
    assert tiled.sample_shape == (2, 4, 4)
    assert not hasattr(tiled, "no_such_thing")
    x, sigma = draw(0, 1, 2, 6, 8), torch.ones(1, dtype=F64)
    for again in (copy.copy(tiled), copy.deepcopy(tiled), pickle.loads(pickle.dumps(tiled))):
        assert torch.equal(again(x, sigma), tiled(x, sigma))


def make(*args, **options):
    return kd.get_guidance("tiled", Pointwise(), *args, **options)


X = torch.zeros(1, 1, 6, 6)
REFUSED = {
    "no length": (lambda: make(0), ParameterError, "tile=.*at least 1"),
    "half a length": (lambda: make(2.5), ParameterError, "whole number"),
    "an overlap of all": (lambda: make(4, 4), ParameterError, "not below tile"),
    "overlaps of other dimensions": (lambda: make((4, 4), (1, 1, 1)), ParameterError, "as many of each"),
    "no chunk": (lambda: make(4, chunk=0), ParameterError, "chunk"),
    "too many dimensions": (lambda: make((4, 4, 4))(X, torch.ones(1)), ParameterError, "2 spatial"),
    "a vector": (lambda: make(4)(X[0, 0], torch.ones(6)), StateError, r"\(B, C, ...\)"),
    "a nest": (lambda: make(4)({"x": X}, torch.ones(1)), StateError, "dict"),
    "a missing condition": (lambda: make(4, spatial="d")(X, torch.ones(1)), ParameterError, "called 'd'"),
    "a condition of another size": (
        lambda: make(4, spatial="d")(X, torch.ones(1), d=X[..., :5]), ParameterError, "whole multiples",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_refusals(what):
    """What cannot be is refused with what would be right."""
    act, error, message = REFUSED[what]
    with pytest.raises(error, match=message):
        act()
