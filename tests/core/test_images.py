"""Images and masks that runs begin with, variations of seeds, previews."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import kdiff_core as kd
from kdiff_core.errors import CapabilityError, NoiseError, ParameterError, StateError
from kdiff_core.images import read_image, read_mask
from kdiff_core.manifest import job_of, manifest_of
from kdiff_core.preview import Preview, fit_rgb

F64 = torch.float64
law = settings(deadline=None)
few = settings(max_examples=10, deadline=None)
seeds = st.integers(0, 2**63)
GRID = [10.0, 3.0, 1.0, 0.3, 0.0]
DIGITS = kd.get_denoiser("digits")


@pytest.fixture
def photo(tmp_path):
    """Write pictures of the digits' size, and return where."""
    pil = pytest.importorskip("PIL.Image")

    def write(name, values):
        pil.fromarray(np.asarray(values, np.uint8)).save(tmp_path / name)
        return tmp_path / name

    return write


def levels_of_grey(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape)


def digit(seed=0):
    return torch.from_numpy(levels_of_grey(seed, 1, 8, 8) / 127.5 - 1)


# -- variations


def begun(size=(4, 3, 5), **options):
    return kd.start([1.0, 0.0], torch.empty(*size, dtype=F64), **options)


@law
@given(seed=seeds, other=seeds, strength=st.floats(0, 1))
def test_variation_is_a_turn(seed, other, strength):
    """It is the sum of the two noises by cosine and sine: 0 is the one, 1 the other, exactly."""
    a, b = begun(seed=seed), begun(seed=other)
    found = begun(seed=seed, variation_seed=other, variation_strength=strength)
    angle = strength * math.pi / 2
    expected = a if seed == other else a * math.cos(angle) + b * math.sin(angle)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(begun(seed=seed, variation_seed=other, variation_strength=0.0), a)
    assert torch.equal(begun(seed=seed, variation_seed=other, variation_strength=1.0), b)


@pytest.mark.parametrize("strength", [0.1, 0.5, 0.9])
def test_variance_of_a_variation(strength):
    """Its variance is 1 whatever the strength, in a single dimension too."""
    found = begun((20_000, 1), seed=1, variation_seed=2, variation_strength=strength)
    assert abs(float(found.var()) - 1) < 4 * math.sqrt(2 / 20_000)


@few
@given(seed=seeds, strength=st.floats(0.01, 1))
def test_variations_alone(seed, strength):
    """A varied sample does not depend on its batch, with a seed for the run or one for each."""
    whole = begun(seed=seed, variation_seed=7, variation_strength=strength)
    alone = begun((1, 3, 5), noise=kd.KeyedNoise(seed, [2]), variation_seed=7, variation_strength=strength)
    assert torch.equal(whole[2:3], alone)
    each = begun(seed=[5, 6, 5, 5], variation_seed=[8, 8, 5, 9], variation_strength=strength)
    for i, (own, other) in enumerate(((5, 8), (6, 8), (5, 5), (5, 9))):
        one = begun((1, 3, 5), seed=[own], variation_seed=[other], variation_strength=strength)
        assert torch.equal(each[i : i + 1], one)
    assert torch.equal(each[2:3], begun((1, 3, 5), seed=[5]))
    shared = begun(seed=[5, 6, 5, 5], variation_seed=8, variation_strength=strength)
    torch.testing.assert_close(shared[:2], each[:2], rtol=1e-14, atol=1e-14)


def test_variation_of_nests_and_other_sources():
    """Every tensor of a nest is turned, and any source's noise towards a keyed one."""
    like = {"a": torch.empty(2, 3), "b": torch.empty(2, 4, 4)}
    for noise in (None, kd.noise_from(torch.Generator().manual_seed(3))):
        found = kd.start([2.0, 0.0], like, noise=noise, variation_seed=4, variation_strength=1.0)
        other = kd.start([2.0, 0.0], like, seed=4)
        assert all(torch.equal(found[name], other[name]) for name in like)


# -- runs that begin with an image


@pytest.mark.parametrize("strength", [0.2, 0.5, 1.0])
def test_strength_is_the_schedules(strength):
    """A strength is the start from the noised image at the first level of the schedule "strength"."""
    init = digit()
    found = kd.sample(n=2, steps=4, seed=3, init=init, strength=strength)
    range_ = {"sigma_min": DIGITS.sigma_min, "sigma_max": DIGITS.sigma_max}
    grid = kd.get_schedule("strength", schedule="karras", strength=strength)(4, **range_)
    x = kd.start(grid, torch.empty(2, 1, 8, 8), seed=3, x0=init[None].float())
    assert torch.equal(found, kd.get_sampler("dpmpp_2m")(DIGITS, x, grid))


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "dpmpp_sde", "dpm_fast", "dpm_adaptive"])
def test_a_mask_keeps_the_image(sampler):
    """Where the mask is 0 the samples are the image, with samplers that end above level 0 too."""
    mask = torch.zeros(8, 8)
    mask[:, :3] = 1
    found = kd.sample(n=2, steps=5, init=digit(), mask=mask, sampler=sampler)
    assert torch.equal(found[..., 3:], digit().float().expand(2, 1, 8, 8)[..., 3:])
    assert not torch.allclose(found[..., :3], digit().float()[..., :3], atol=0.1)
    ways = kd.sample(n=2, steps=5, init=digit(), mask=mask, sampler=sampler, trajectory=True)
    assert torch.equal(ways[-1], found)


def test_files_are_arrays(photo):
    """A picture is an array in the data's range, black lowest and white highest; a mask one from 0 to 1."""
    values, mask = levels_of_grey(1, 8, 8), levels_of_grey(2, 8, 8)
    files = {"init": photo("a.png", values), "mask": str(photo("m.png", mask))}
    arrays = {"init": values[None] / 255 * 2 - 1, "mask": mask / 255}
    assert torch.equal(kd.sample(n=2, steps=3, **files), kd.sample(n=2, steps=3, **arrays))
    assert float(read_image(photo("w.png", np.full((4, 6), 255)), (1, 4, 6), (0.0, 3.0)).min()) == 3
    colours = levels_of_grey(3, 4, 6, 3)
    found = read_image(photo("c.png", colours), (3, 4, 6), (0.0, 255.0))
    torch.testing.assert_close(found.movedim(0, -1), torch.from_numpy(colours).double())
    assert read_image(photo("g.png", colours), (4, 6)).shape == (4, 6)


def test_one_for_each():
    """Images and masks of all samples give each what it gets alone."""
    init = torch.stack([digit(i) for i in range(3)])
    mask = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    found = kd.sample(n=3, steps=3, init=init, mask=mask)
    for i in range(3):
        one = kd.sample(n=1, index=[i], steps=3, init=init[i], mask=mask[i])
        assert torch.equal(one, found[i : i + 1])


def test_resizing(photo):
    """A file of another size is refused with the right one, or on request scaled to cover it and cut."""
    wide = np.zeros((16, 48), np.uint8)
    wide[:, 16:32] = 200
    file = photo("wide.png", wide)
    with pytest.raises(ParameterError, match="48 x 16 pixels, but the model makes 8 x 8"):
        kd.sample(n=1, init=file, strength=0.5)
    cut = read_mask(file, (8, 8), resize=True)
    torch.testing.assert_close(cut[:, 2:6], torch.full((8, 4), 200 / 255, dtype=F64), rtol=0, atol=0.02)
    assert torch.isfinite(kd.sample(n=1, steps=2, init=file, strength=0.5, resize=True)).all()


class Latent:
    """A model of latents of one channel and half the size, whose images are grey."""

    path, sample_shape, decoded_shape, value_range = "flow", (4, 4, 6), (3, 8, 12), (-1.0, 1.0)
    sigma_min = 0.01

    def __init__(self):
        self.encoded = []

    def __call__(self, x, sigma):
        return x * 0.5

    def encode_image(self, images):
        self.encoded.append(images)
        return torch.nn.functional.avg_pool2d(images, 2)[:, :1].expand(-1, 4, -1, -1) * 3

    def decode(self, x):
        return (x[:, :1] / 3).repeat_interleave(2, -1).repeat_interleave(2, -2).expand(-1, 3, -1, -1)


def test_latents():
    """Images are encoded one by one; the mask has their size, and is averaged to that of the latents."""
    model, init = Latent(), torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(8, 12)
    mask[:, :5] = 1
    job = kd.SampleJob(model, 2, steps=3, init=init, mask=mask)
    result = job.run()
    latents = Latent().encode_image(init)
    assert [len(each) for each in model.encoded] == [1, 1]
    assert torch.equal(result.x[..., 3:], latents[..., 3:])
    assert not torch.isclose(result.x[..., :3], latents[..., :3]).any()
    assert kd.sample(model, 2, steps=3, init=init, mask=mask).shape == (2, 3, 8, 12)
    blind = Latent()
    blind.encode_image = None
    with pytest.raises(CapabilityError, match="has no encode_image"):
        kd.sample(blind, n=1, steps=2, init=init[:1], strength=0.5)


def test_replay(photo):
    """A manifest has the files, their hashes and the rest, and replays the run; not once they changed."""
    init, mask = photo("i.png", levels_of_grey(0, 8, 8)), photo("m.png", levels_of_grey(1, 8, 8))
    job = kd.SampleJob(
        n=2, steps=3, init=init, mask=mask, strength=0.7, variation_seed=[4, 5], variation_strength=0.2
    )
    setup = job.setup()
    result = setup.run()
    manifest = json.loads(json.dumps(manifest_of(setup, result)))
    again = job_of(manifest)
    assert torch.equal(again.run().x, result.x)
    assert (again.strength, again.variation_seed, again.variation_strength) == (0.7, (4, 5), 0.2)
    photo("m.png", levels_of_grey(2, 8, 8))
    with pytest.raises(ParameterError, match=r"mask: .*m\.png is not what it was"):
        job_of(manifest)
    init.unlink()
    with pytest.raises(ParameterError, match=r"init: .*i\.png is no longer there"):
        job_of(manifest)
    setup = kd.SampleJob(n=1, init=digit(), strength=0.5).setup()
    with pytest.raises(ParameterError, match="the init is an array"):
        job_of(manifest_of(setup))
    for name in ("init", "mask", "strength", "resize", "variation"):  # an older manifest has none
        del manifest[name]
    assert job_of(manifest).init is None


def sampled(**options):
    return lambda: kd.sample(n=2, steps=2, **options)


ODD = torch.zeros(1, 4, 4)
REFUSED = {
    "a strength alone": (sampled(strength=0.5), ParameterError, "strength without an image"),
    "a mask alone": (sampled(mask=ODD), ParameterError, "mask without an image"),
    "an image alone": (sampled(init=digit()), ParameterError, "strength= .* or mask="),
    "no strength": (sampled(init=digit(), strength=0), ParameterError, "above 0"),
    "too much strength": (sampled(init=digit(), strength=1.5), ParameterError, "at most 1"),
    "another size": (sampled(init=ODD, strength=0.5), ParameterError, r"\(1, 8, 8\), or \(2, 1, 8, 8\)"),
    "another batch": (sampled(init=torch.zeros(3, 1, 8, 8), strength=0.5), ParameterError, "the model needs"),
    "integers": (sampled(init=torch.zeros(1, 8, 8).int(), strength=0.5), ParameterError, "floating"),
    "NaN": (sampled(init=digit() * math.nan, strength=0.5), ParameterError, "finite"),
    "a mask of another size": (sampled(init=digit(), mask=ODD), ParameterError, "mask: an array"),
    "a mask above 1": (sampled(init=digit(), mask=torch.full((8, 8), 2.0)), ParameterError, "from 2 to 2"),
    "no file": (sampled(init="nowhere.png", strength=0.5), ParameterError, "nowhere.png: cannot be read"),
    "a variation alone": (sampled(variation_strength=0.5), ParameterError, "variation_seed="),
    "a variation above 1": (sampled(variation_seed=1, variation_strength=2), ParameterError, "from 0"),
    "variations of three": (
        sampled(variation_seed=[1, 2, 3], variation_strength=0.5), NoiseError, "3 given for a batch of 2",
    ),
    "data of another batch": (lambda: begun(x0=torch.zeros(2, 3, 5)), StateError, "one row"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_refusals(what):
    """What cannot be is refused before the model is called, with what would be right."""
    act, error, message = REFUSED[what]
    with pytest.raises(error, match=message):
        act()


def test_no_picture(photo, tmp_path):
    """A file that is no picture, one of 16 bits, and samples that are no images are refused."""
    (tmp_path / "x.png").write_text("no picture")
    with pytest.raises(ParameterError, match="no picture that Pillow knows"):
        read_mask(tmp_path / "x.png", (8, 8))
    pil = pytest.importorskip("PIL.Image")
    pil.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ParameterError, match="8 bits"):
        read_mask(tmp_path / "deep.png", (8, 8))
    with pytest.raises(ParameterError, match="is no image"):
        read_image(photo("a.png", np.zeros((8, 8))), (2, 8, 8))


# -- previews


@few
@given(seed=st.integers(0, 1000), channels=st.integers(4, 16))
def test_fitted_colours(seed, channels):
    """Of a linear decoder the fit finds its factors, whatever the size of the images."""
    rng = torch.Generator().manual_seed(seed)
    latents, factors = (
        torch.randn(s, generator=rng, dtype=F64) for s in ((2, channels, 6, 8), (channels, 3))
    )
    bias = torch.randn(3, generator=rng, dtype=F64)
    small = torch.einsum("bchw,cd->bdhw", latents, factors) + bias[:, None, None]
    images = small.repeat_interleave(4, -1).repeat_interleave(4, -2)
    images[..., ::2] += 1.0  # detail that the latents do not have: its mean over a place is 0
    images[..., 1::2] -= 1.0
    found = fit_rgb(latents, images)
    torch.testing.assert_close(found.factors, factors, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found.bias, bias, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found.of(latents), small, rtol=1e-8, atol=1e-8)
    grey = fit_rgb(latents, images[:, :1])
    torch.testing.assert_close(grey.factors, factors[:, :1].expand(-1, 3), rtol=1e-8, atol=1e-8)


def test_pixels():
    """Data are shown in their range; larger ones averaged, smaller ones enlarged a whole number of times."""
    x = torch.tensor([[[[-1.0, 1.0], [0.0, 5.0]]]])
    assert Preview(size=None).pixels(x)[0, ..., 0].tolist() == [[0, 255], [128, 255]]
    assert Preview(size=5).pixels(x).shape == (1, 4, 4, 3)
    assert Preview(size=1).pixels(x * 0.2)[0, 0, 0].tolist() == [159] * 3
    assert Preview(size=None, value_range=(0.0, 5.0)).pixels(x[:, 0]).shape == (1, 2, 2, 3)
    assert Preview(size=4).pixels(torch.zeros(2, 3, 8, 4)).shape == (2, 4, 2, 3)
    video = torch.zeros(1, 3, 5, 4, 4)
    video[:, :, 2] = 1
    assert (Preview().pixels(video) == 255).all()


def test_every():
    """As a callback it makes an image every so many steps and at the last, of the step's estimate."""
    shown = []
    preview = Preview(every=3, size=None, show=lambda images, info: shown.append((info.index, images)))
    infos = []

    def both(info):
        infos.append(info)
        preview(info)

    kd.sample(n=2, steps=8, callback=both)
    assert [index for index, _ in shown] == [2, 5, 7]
    for index, images in shown:
        assert np.array_equal(images, Preview(size=None).pixels(infos[index].denoised))
    assert preview.images is shown[-1][1]
    plain = kd.sample(n=2, steps=8)
    assert torch.equal(plain, kd.sample(n=2, steps=8, callback=Preview()))


def test_preview_of_latents(tmp_path):
    """Latents are shown by their colours, which one decoded sample gives; the file is whole at every step."""
    pil, calls = pytest.importorskip("PIL.Image"), []

    def decode(x):
        calls.append(len(x))
        return Latent().decode(x)

    file = tmp_path / "p.png"
    preview = Preview(size=None, decode=decode, file=file)
    sizes = []

    def both(info):
        preview(info)
        with pil.open(file) as picture:
            sizes.append(picture.size)

    kd.sample(Latent(), n=3, steps=4, callback=both)
    assert calls == [1]
    assert sizes == [(16, 12)] * 4
    assert [path.name for path in tmp_path.iterdir()] == ["p.png"]


LATENTS = torch.zeros(1, 4, 2, 2)
PREVIEWS = {
    "never": (lambda: Preview(every=0), ParameterError, "every"),
    "no size": (lambda: Preview(size=0), ParameterError, "size"),
    "no range": (lambda: Preview(value_range=(1.0, 1.0)), ParameterError, "value_range"),
    "latents": (lambda: Preview().pixels(torch.zeros(1, 4, 2, 2)), ParameterError, "rgb=fit_rgb"),
    "a vector": (lambda: Preview().pixels(torch.zeros(1, 4)), StateError, r"\(1, 4\)"),
    "few places": (lambda: fit_rgb(LATENTS[..., :1], LATENTS[:, :3]), ParameterError, "give more"),
    "no images": (lambda: fit_rgb(LATENTS, LATENTS), ParameterError, "images"),
}  # fmt: skip


@pytest.mark.parametrize("what", PREVIEWS)
def test_refused_previews(what):
    """What cannot be shown or fitted is refused."""
    act, error, message = PREVIEWS[what]
    with pytest.raises(error, match=message):
        act()
