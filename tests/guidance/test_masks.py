"""Inpainting, differential diffusion, and the resampling that brings both nearer to the exact conditional."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import kdiff_core as kd
from kdiff_core.errors import DenoiserError, GridError, ParameterError
from kdiff_core.testing import Gaussian, check_denoiser
from kdiff_core.testing.variants import untraced
from kdiff_exact.empirical import EmpiricalDenoiser
from kdiff_guidance.masks import fitted
from tests.support import F64, SAMPLERS, levels

few = settings(max_examples=10, deadline=None)
seeds = st.integers(0, 10_000)
both = pytest.mark.parametrize("path", ["ve", "flow"])
SIZE = (2, 4, 6)
# They end above level 0 by their own rule.
ABOVE_ZERO = {"dpm_adaptive", "dpm_fast", "comfyui:uni_pc", "comfyui:uni_pc_bh2"}
# They are not exact for a constant output: a host's coarse quadrature, and other samplers' statistics.
INEXACT = {"comfyui:deis", "ipndm_v", "dpm_solver_v3, statistics"}


def draw(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def chance(seed, *shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


class Seen(EmpiricalDenoiser):
    """A denoiser that notes what it is given."""

    seen = ()

    def __call__(self, x, sigma, **cond):
        self.seen = (*self.seen, (x.clone(), sigma.clone()))
        return super().__call__(x, sigma, **cond)


def model(path="ve"):
    return Seen(draw(0, 9, *SIZE), labels=torch.arange(9) % 3, smoothing=0.3, path=path)


def image(seed=1, batch=1):
    return draw(seed, batch, *SIZE)


def alpha(path, sigma):
    return 1 - sigma if path == "flow" else 1.0


def begin(path, grid, x0, batch=3, seed=0):
    return kd.start(grid, torch.empty(batch, *SIZE, dtype=F64), path, seed=seed, x0=x0)


class Guided:
    """A guided denoiser of two values, for every sampler there is."""

    def __init__(self, path):
        self.path, self.data, self.seen = path, Gaussian(path, 0.3, (0.01, 0.2, 1.0, 4.0)), []

    def __call__(self, x, sigma, **cond):
        return self.predict(x, sigma).denoised

    def predict(self, x, sigma, **cond):
        self.seen.append((x.clone(), sigma[:, None].clone()))
        found = self.data(x, sigma)
        return kd.Prediction(1.1 * found, found, 0.9 * found)


KNOWN = torch.tensor([[1.0, -2.0, 0.5, 0.25]], dtype=F64)
PARTS = torch.tensor([0.0, 1.0, 0.0, 0.5], dtype=F64)


@both
@pytest.mark.parametrize("name", SAMPLERS)
def test_known_region_is_kept(name, path):
    """Every sampler ends in the known image where the mask is 0, and on the way the model sees its noise."""
    guided, grid, sampler = Guided(path), levels(path, 6), SAMPLERS[name]
    x = kd.start(grid, torch.empty(3, 4, dtype=F64), path, seed=0, x0=KNOWN)
    found = sampler(kd.get_guidance("inpaint", guided, KNOWN, PARTS), x, grid, seed=1)
    off = (found - KNOWN)[:, PARTS == 0].abs().max()
    assert off <= (0.1 if name in ABOVE_ZERO else 4e-16 if "lms" in name else 0.0)
    assert (found - KNOWN)[:, PARTS > 0].abs().min() > 1e-6
    noise = (x - alpha(path, grid[0]) * KNOWN) / grid[0]
    for seen, sigma in guided.seen if not sampler.stochastic and name not in INEXACT else ():
        expected = alpha(path, sigma) * KNOWN + sigma * noise
        kept = PARTS == 0
        torch.testing.assert_close(seen[:, kept], expected[:, kept], rtol=1e-9, atol=1e-9)


@both
@pytest.mark.parametrize(
    "name", ["euler_ancestral", "dpmpp_2m_sde", "dpmpp_sde", "ddpm", "repaint", "restart"]
)
def test_noise_of_the_known_region(name, path):
    """With a sampler that adds noise the known region's noise has unit variance at every evaluation."""
    grid, data = levels(path, 6), Gaussian(path)
    seen = []

    def look(x, sigma):
        seen.append((x.clone(), float(sigma[0])))
        return data(x, sigma)

    look.path = path
    known = torch.full((1, 4), 0.7, dtype=F64)
    x = kd.start(grid, torch.empty(4000, 4, dtype=F64), path, seed=3, x0=known)
    options = {"jump": 2, "times": 1} if name == "repaint" else {}
    kd.get_sampler(name, **options)(kd.get_guidance("inpaint", look, known, torch.zeros(4)), x, grid, seed=4)
    for state, sigma in seen:
        noise = (state - alpha(path, sigma) * known) / sigma
        assert abs(float(noise.mean())) < 5 / math.sqrt(16000)
        assert abs(float(noise.var()) - 1) < 5 * math.sqrt(2 / 16000)


@both
@few
@given(seed=seeds, name=st.sampled_from(["euler", "dpmpp_2m", "dpmpp_sde", "uni_pc", "heun"]))
@pytest.mark.parametrize("kind", ["inpaint", "differential"])
def test_ends_of_the_mask(kind, path, seed, name):
    """A mask of ones is the run without it and a mask of zeros the image, both bit for bit."""
    grid, known = levels(path, 4), image(seed)
    more = {"sigmas": grid} if kind == "differential" else {}
    x, sampler = begin(path, grid, known, seed=seed), kd.get_sampler(name)
    for noise in (None, draw(seed + 1, 1, *SIZE)):
        ones, zeros = (
            kd.get_guidance(kind, model(path), known, f(4, 6), noise=noise, **more)
            for f in (torch.ones, torch.zeros)
        )
        assert torch.equal(sampler(ones, x, grid, seed=5), sampler(model(path), x, grid, seed=5))
        assert torch.equal(sampler(zeros, x, grid, seed=5), known.expand(3, *SIZE))


@both
@few
@given(seed=seeds, sigma=st.floats(0.01, 0.99))
def test_formula(path, seed, sigma):
    """The output is blended by the mask, and so is what the model sees where noise is given."""
    x, level, known, noise = (
        draw(seed, 3, *SIZE),
        torch.full((3,), sigma, dtype=F64),
        image(seed, 3),
        draw(9, 1, *SIZE),
    )
    mask, inner = chance(seed, 3, 1, 4, 6), model(path)
    plain = kd.get_guidance("inpaint", inner, known, mask)
    torch.testing.assert_close(
        plain(x, level), mask * inner(x, level) + (1 - mask) * known, rtol=1e-12, atol=1e-12
    )
    inner.seen = ()
    kd.get_guidance("inpaint", inner, known, mask, noise=noise)(x, level)
    there = alpha(path, sigma) * known + sigma * noise
    torch.testing.assert_close(inner.seen[0][0], mask * x + (1 - mask) * there, rtol=1e-12, atol=1e-12)


@few
@given(seed=seeds, scale=st.floats(-2, 8))
def test_inside_or_outside_of_guidance(seed, scale):
    """Guidance of what is inpainted is what is inpainted of guidance, its three outputs included."""
    x, level, label = draw(seed, 3, *SIZE), torch.full((3,), 0.7, dtype=F64), torch.tensor([0, 1, 2])
    known, mask = image(seed), chance(seed, 4, 6).round()
    outside = kd.get_guidance("inpaint", kd.get_guidance("cfg", model(), scale), known, mask)
    inside = kd.get_guidance("cfg", kd.get_guidance("inpaint", model(), known, mask), scale)
    for a, b in zip(
        outside.predict(x, level, label=label), inside.predict(x, level, label=label), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
        kept = (mask == 0).expand(3, *SIZE)
        assert torch.equal(a[kept], known.expand(3, *SIZE)[kept])
    assert torch.equal(outside(x, level, label=label), outside.predict(x, level, label=label).denoised)
    assert not hasattr(kd.get_guidance("inpaint", model(), known, mask), "predict")
    batched = kd.get_guidance("cfg", kd.get_guidance("inpaint", model(), known, mask), scale, batched=True)
    assert torch.equal(batched(x, level, label=label), inside(x, level, label=label))


@both
@pytest.mark.parametrize("name", ["euler", "dpmpp_2m", "dpmpp_2m_sde", "uni_pc"])
def test_eager_and_alone(name, path):
    """A run on tensors is the traced one, and a sample with its mask alone what it is in a batch."""
    grid, known, mask = levels(path, 5), image(2, 3), chance(3, 3, 1, 4, 6)
    x, sampler = begin(path, grid, known), kd.get_sampler(name)
    traced = sampler(kd.get_guidance("inpaint", model(path), known, mask), x, grid, seed=1)
    eager = untraced(sampler)(kd.get_guidance("inpaint", model(path), known, mask), x, grid, seed=1)
    torch.testing.assert_close(eager, traced, rtol=1e-10, atol=1e-10)
    for i in range(3):
        row = slice(i, i + 1)
        start = kd.start(grid, x[row], path, noise=kd.KeyedNoise(0, [i]), x0=known[row])
        one = kd.get_guidance("inpaint", model(path), known[row], mask[row])
        assert torch.equal(sampler(one, start, grid, noise=kd.KeyedNoise(1, [i])), traced[row])


@both
@pytest.mark.parametrize("kind", ["inpaint", "differential"])
def test_the_kit(kind, path):
    """The conformance kit for denoisers finds nothing."""
    more = {"sigmas": levels(path, 5)} if kind == "differential" else {}
    for noise in (None, draw(4, 1, *SIZE)):
        built = kd.get_guidance(kind, model(path), image(), chance(1, 4, 6), noise=noise, **more)
        check_denoiser(built, examples=4).raise_if_broken()


def test_levels():
    """Above and below its levels nothing is kept, sample by sample."""
    x, known = draw(0, 4, *SIZE), image()
    level = torch.tensor([0.2, 0.5, 0.8, 0.9], dtype=F64)
    kept = kd.get_guidance("inpaint", model(), known, torch.zeros(4, 6), sigma_low=0.2, sigma_high=0.8)
    expected = model()(x, level)
    expected[1:3] = known
    assert torch.equal(kept(x, level), expected)
    assert torch.equal(kept(x, level + 1), model()(x, level + 1))


def test_sizes_of_masks():
    """A mask of another size gets the mean of what each place covers; single sizes serve all."""
    like = torch.empty(2, 3, 4, 6, dtype=F64)
    mask = chance(0, 8, 18)
    blocks = mask.reshape(4, 2, 6, 3).mean((1, 3))
    torch.testing.assert_close(fitted(mask, like)[0, 0], blocks, rtol=1e-12, atol=1e-12)
    assert fitted(mask[None], like).shape == (1, 1, 4, 6)
    assert fitted(chance(0, 2, 3, 8, 18), like).shape == like.shape
    coarse = chance(1, 2, 3)
    assert torch.equal(fitted(coarse, like)[0, 0], coarse.repeat_interleave(2, 0).repeat_interleave(2, 1))
    assert fitted(chance(0, 2, 1, 1, 6), like).shape == (2, 1, 1, 6)
    video = torch.empty(1, 2, 3, 4, 6, dtype=F64)
    torch.testing.assert_close(fitted(mask, video)[0, 0, 0], blocks, rtol=1e-12, atol=1e-12)
    assert fitted(chance(0, 9, 8, 18), video).shape == (1, 1, 3, 4, 6)


def test_nests():
    """Of a nest each tensor is kept by the one mask, or by one of its own."""

    def twice(x, sigma):
        return {"image": x["image"] * 0 + 2, "sound": x["sound"] * 0 + 3}

    x = {"image": torch.zeros(1, 1, 4, 4), "sound": torch.zeros(1, 1, 2, 2)}
    known = {"image": torch.full((1, 1, 4, 4), 7.0), "sound": torch.full((1, 1, 2, 2), 8.0)}
    left = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    found = kd.get_guidance("inpaint", twice, known, left)(x, torch.ones(1))
    assert torch.equal(found["sound"][0, 0], torch.tensor([[8.0, 3.0], [8.0, 3.0]]))
    assert found["image"][0, 0, 0].tolist() == [7, 7, 2, 2]
    own = {"sound": torch.ones(2, 2), "image": torch.zeros(4, 4)}
    found = kd.get_guidance("inpaint", twice, known, own)(x, torch.ones(1))
    assert found["image"].unique().tolist() == [7]
    assert found["sound"].unique().tolist() == [3]


# -- differential diffusion


@both
@few
@given(seed=seeds, kept=st.integers(1, 7))
def test_one_strength_is_image_to_image(path, seed, kept):
    """A map of one value is a run over the last steps of the grid from the noised image."""
    grid, known, sampler = levels(path, 8), image(seed), kd.get_sampler("euler")
    strength = torch.full((4, 6), kept / 8)  # single precision: 0.7 is a little less
    whole = kd.get_guidance("differential", model(path), known, strength, grid)
    found = sampler(whole, begin(path, grid, known, seed=seed), grid)
    tail = grid[8 - kept :]
    expected = sampler(model(path), begin(path, tail, known, seed=seed), tail)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@few
@given(seed=seeds)
def test_the_mask_widens(seed):
    """Going down places are freed for good, for the last `floor(s n)` steps each; 0 never, 1 always."""
    grid, strength = levels("ve", 10), chance(seed, 4, 6)
    strength[0, :2] = torch.tensor([0.0, 1.0])
    method = kd.get_guidance("differential", lambda x, s: x * 0 + 1, torch.zeros(1, *SIZE), strength, grid)
    free = torch.stack([method(torch.zeros(1, *SIZE), torch.tensor([s]))[0, 0] for s in grid[:-1]])
    assert torch.equal(free, free.cummax(0).values)
    assert torch.equal(free.sum(0).long(), (strength * 10 + 1e-4).long())
    assert free[:, 0, 0].sum() == 0
    assert free[:, 0, 1].sum() == 10
    high = method(torch.zeros(1, *SIZE), torch.tensor([grid[0] * 1.1]))[0, 0]
    assert torch.equal(high, (strength == 1).float())


def test_a_map_of_zeros_and_ones_is_a_mask():
    """Where the strengths are 0 and 1 it is inpainting, bit for bit."""
    grid, known, mask = levels("flow", 6), image(), chance(5, 4, 6).round()
    x = begin("flow", grid, known)
    found = [
        kd.get_sampler("dpmpp_2m_sde")(method, x, grid, seed=1)
        for method in (
            kd.get_guidance("inpaint", model("flow"), known, mask),
            kd.get_guidance("differential", model("flow"), known, mask, grid),
        )
    ]
    assert torch.equal(*found)


# -- RePaint


class Basis:
    """Noise whose each number is 1 in a row of its own and 0 elsewhere: a run's result, term by term."""

    brownian = fills = False

    def __init__(self, dims):
        self.dims, self.count = dims, 0

    def noise(self, x, sigma_from, sigma_to, stream="step", visit=0):
        found = torch.zeros_like(x)
        for j in range(self.dims):
            found[1 + self.dims * (1 + self.count) + j, j] = 1.0
        self.count += 1
        return found


def conditional(sampler, path, grid, known):
    """Exact mean and deviation of the second value, given the first: a run is affine in its noise."""
    data = Gaussian(path, (0.3, -0.5), ((1.0, 0.8), (0.8, 1.0)))
    given_first = torch.tensor([[known, 0.0]], dtype=F64)
    noises = len(sampler.plan(grid, path).noises)
    x = (alpha(path, grid[0]) * given_first).repeat(3 + 2 * noises, 1)
    x[1, 0] += grid[0]
    x[2, 1] += grid[0]
    method = kd.get_guidance("inpaint", data, given_first, torch.tensor([0.0, 1.0]))
    found = sampler(method, x, grid, noise=Basis(2) if noises else None)[:, 1]
    return float(found[0]), float((found[1:] - found[0]).norm())


@both
@pytest.mark.parametrize("solver", ["ddpm", "euler", "heun"])
def test_resampling_finds_the_conditional(solver, path):
    """The more often it jumps, the nearer mean and deviation come to the exact conditional ones."""
    grid, known = levels(path, 20), 1.3
    mean, deviation = -0.5 + 0.8 * (known - 0.3), math.sqrt(1 - 0.8**2)
    errors = []
    for times in (0, 1, 3, 9, 27):
        found = conditional(kd.get_sampler("repaint", solver=solver, jump=5, times=times), path, grid, known)
        errors.append(math.hypot(found[0] - mean, found[1] - deviation))
    assert all(after < before for before, after in pairwise(errors))
    assert errors[-1] < errors[0] / 3


def test_jumps():
    """It visits the grid with its jumps; the model is called for each level that it goes down again."""
    sampler = kd.get_sampler("repaint", solver="euler", jump=2, times=2)
    grid = [5.0, 4.0, 3.0, 2.0, 1.0, 0.0]
    down = [5, 4, 3, 4 + 1, 4, 3, 5, 4, 3, 2, 1, 3, 2, 1, 3, 2, 1, 0]
    assert list(sampler.levels(grid)) == down
    assert sampler.plan(grid).evaluations == 5 + 2 * 2 * 2
    flow = [1.0, 0.8, 0.6, 0.4, 0.2, 0.0]
    assert list(sampler.levels(flow, "flow")) == [1, 0.8, 0.6, 0.4, 0.2, 0.6, 0.4, 0.2, 0.6, 0.4, 0.2, 0]
    never = kd.get_sampler("repaint", solver="euler", jump=2, times=0)
    assert never.plan(grid).ops == kd.plan("euler", grid).ops
    assert not never.stochastic
    assert kd.get_sampler("heun", jump=3, times=4) == kd.get_sampler(
        "repaint", solver="heun", jump=3, times=4
    )


# -- refusals

ONES = torch.ones(4, 6)


def keep(known, mask):
    return kd.get_guidance("inpaint", model(), known, mask)


def run(known, mask, denoiser=None):
    return kd.get_guidance("inpaint", denoiser or model(), known, mask)(
        draw(0, 3, *SIZE), torch.ones(3, dtype=F64)
    )


SEVERAL, DEEP, SMALL = torch.ones(3, 4, 6), torch.ones(1, 1, 1, 4, 6), draw(0, 1, 2, 4, 5)
REFUSED = {
    "values above 1": (lambda: keep(image(), 2 * ONES), ParameterError, "from 2 to 2"),
    "values of NaN": (lambda: keep(image(), ONES * math.nan), ParameterError, "between 0"),
    "a mask that is none": (lambda: keep(image(), "left"), ParameterError, "no tensor"),
    "an image that is none": (lambda: keep(3, ONES), ParameterError, "image"),
    "an image of NaN": (lambda: keep(image() * math.nan, ONES), ParameterError, "finite"),
    "an image of another size": (lambda: run(SMALL, ONES), ParameterError, "one row"),
    "an image of another batch": (lambda: run(image(0, 2), ONES), ParameterError, r"\(3, ...\)"),
    "a mask of three channels": (lambda: run(image(), SEVERAL), ParameterError, "one channel"),
    "a mask of two batches": (lambda: run(image(), SEVERAL[:2, None]), ParameterError, "one sample"),
    "a mask of more dimensions": (lambda: run(image(), DEEP), ParameterError, "mask: shape"),
    "a model of another shape": (lambda: run(image(), ONES, lambda x, s: x[:, :1]), DenoiserError, "shape"),
    "no grid": (
        lambda: kd.get_guidance("differential", model(), image(), ONES, [1.0, 2.0]),
        GridError,
        "decreas",
    ),
    "a memory": (lambda: kd.get_sampler("repaint", solver="dpmpp_2m"), ParameterError, "leaves behind"),
    "a rise": (lambda: kd.get_sampler("repaint", solver="restart"), ParameterError, "goes back up"),
    "no jump": (lambda: kd.get_sampler("repaint", jump=0), ParameterError, "jump"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refusals(what):
    """What cannot be is refused with what would be right."""
    act, error, message = REFUSED[what]
    with pytest.raises(error, match=message):
        act()
