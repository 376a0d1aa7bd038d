"""The exact denoiser: its formula, its limits, batches, classes, paths, data and errors."""

import math
import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kdiff_core.errors import KdiffError, ParameterError, StateError
from kdiff_exact.data import load, load_digits
from kdiff_exact.empirical import EmpiricalDenoiser, digits_exact, empirical

law = settings(deadline=None)  # how long an example takes says nothing on a shared machine
seeds = st.integers(0, 2**31 - 1)
smoothings = st.sampled_from([0.0, 0.05, 0.3])


@pytest.fixture(scope="module")
def digits():
    return digits_exact()


def draw(seed, *shape, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def brute_force(data, x, sigma, smoothing, alpha=1.0):
    """The posterior mean of one sample, in float64, point by point, with log weights by `math`."""
    variance = alpha**2 * smoothing**2 + sigma**2
    logs = [-float(((x - alpha * y) ** 2).sum()) / (2 * variance) for y in data]
    weights = [math.exp(v - max(logs)) for v in logs]
    parts = [
        w * (y + alpha * smoothing**2 / variance * (x - alpha * y))
        for w, y in zip(weights, data, strict=True)
    ]
    return sum(parts) / sum(weights)


@law
@given(seeds, st.integers(1, 12), st.integers(1, 4), st.floats(0.01, 100), smoothings)
def test_formula_on_ve(seed, points, batch, sigma, smoothing):
    """On the VE path each sample is the mixture's posterior mean, written out."""
    data = draw(seed, points, 2, 3)
    x = draw(seed + 1, batch, 2, 3) * (1 + sigma)
    found = EmpiricalDenoiser(data, smoothing=smoothing)(x, torch.full((batch,), sigma, dtype=x.dtype))
    for i in range(batch):
        torch.testing.assert_close(found[i], brute_force(data, x[i], sigma, smoothing), rtol=1e-9, atol=1e-9)


@law
@given(seeds, st.integers(1, 12), st.floats(0.01, 1), smoothings)
def test_formula_on_flow(seed, points, sigma, smoothing):
    """On the flow path too, sigma = 1 included, where only noise is left."""
    data = draw(seed, points, 5)
    x = draw(seed + 1, 1, 5)
    denoiser = EmpiricalDenoiser(data, smoothing=smoothing, path="flow")
    found = denoiser(x, torch.tensor([sigma], dtype=x.dtype))
    expected = brute_force(data, x[0], sigma, smoothing, 1 - sigma)
    torch.testing.assert_close(found[0], expected, rtol=1e-9, atol=1e-9)
    if sigma == 1:
        torch.testing.assert_close(found[0], data.mean(0))


@law
@given(seeds, st.floats(0.01, 0.99), smoothings)
def test_paths_agree(seed, sigma, smoothing):
    """A flow state is a VE state in other units: D_flow(x, s) = D_ve(x / (1 - s), s / (1 - s))."""
    data = draw(seed, 9, 4)
    x = draw(seed + 1, 3, 4)
    level = torch.full((3,), sigma, dtype=x.dtype)
    flow = EmpiricalDenoiser(data, smoothing=smoothing, path="flow")(x, level)
    ve = EmpiricalDenoiser(data, smoothing=smoothing)(x / (1 - sigma), level / (1 - level))
    torch.testing.assert_close(flow, ve, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_low_noise_limit(digits, dtype):
    """At sigma = 1e-4 a point comes back as itself; without smoothing a state near it becomes the point."""
    data = torch.from_numpy(load_digits().data)[:20].to(dtype)
    sigma = torch.full((20,), 1e-4, dtype=dtype)
    torch.testing.assert_close(digits(data, sigma), data)
    plain = digits_exact(smoothing=0)
    near = data + 1e-2 * draw(0, 20, 1, 8, 8, dtype=dtype)
    torch.testing.assert_close(plain(near, sigma), data)
    torch.testing.assert_close(plain(near, 0 * sigma), data)


@law
@given(seeds, st.floats(1e-3, 0.05))
def test_low_noise_shrinks_to_the_nearest_point(seed, sigma):
    """Between far points D is the nearest one, plus its Gaussian's share of the way to x."""
    data = torch.eye(4, dtype=torch.float64) * 10
    x = data + draw(seed, 4, 4) * sigma
    share = 0.1**2 / (0.1**2 + sigma**2)
    found = EmpiricalDenoiser(data, smoothing=0.1)(x, torch.full((4,), sigma, dtype=x.dtype))
    torch.testing.assert_close(found, data + share * (x - data), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_high_noise_limit(digits, dtype):
    """At sigma = 2e4 D is the data's mean."""
    x = 2e4 * draw(0, 5, 1, 8, 8, dtype=dtype)
    found = digits(x, torch.full((5,), 2e4, dtype=dtype))
    mean = torch.from_numpy(load_digits().data).to(dtype).mean(0)
    torch.testing.assert_close(found, mean.expand(5, 1, 8, 8), rtol=0, atol=5e-3)


@law
@given(seeds, st.lists(st.integers(0, 7), min_size=1, max_size=8), st.sampled_from(["ve", "flow"]))
def test_batch_independence(seed, order, path):
    """A sample's result is the same bits alone, in any batch, in any place and beside any levels."""
    denoiser = digits_exact(path=path)
    x = draw(seed, 8, 1, 8, 8, dtype=torch.float32)
    sigma = torch.linspace(0.02, 1, 8)
    label = torch.tensor([-1, 0, 1, 9, -1, 3, 3, 5])
    whole = denoiser(x, sigma, label=label)
    assert torch.equal(denoiser(x[order], sigma[order], label=label[order]), whole[order])
    for i in range(8):
        assert torch.equal(denoiser(x[i : i + 1], sigma[i : i + 1], label=label[i : i + 1])[0], whole[i])


@law
@given(seeds, st.floats(0.05, 20))
def test_classes(seed, sigma):
    """A label restricts the mixture to its class, sample by sample; -1 and no label are the whole."""
    data = draw(seed, 12, 3)
    labels = torch.arange(12) % 3
    x = draw(seed + 1, 4, 3)
    level = torch.full((4,), sigma, dtype=x.dtype)
    found = EmpiricalDenoiser(data, labels=labels)(x, level, label=torch.tensor([0, 1, 2, -1]))
    for c in range(3):
        alone = EmpiricalDenoiser(data[labels == c])(x, level)
        torch.testing.assert_close(found[c], alone[c], rtol=1e-12, atol=1e-12)
    whole = EmpiricalDenoiser(data)(x, level)
    assert torch.equal(found[3], whole[3])
    assert torch.equal(EmpiricalDenoiser(data, labels=labels)(x, level, label=None), whole)


def test_large_samples_in_blocks(monkeypatch):
    """Data compared in blocks gives what it gives at once."""
    data, x = draw(0, 50, 6), draw(1, 3, 6)
    level = torch.ones(3, dtype=x.dtype)
    at_once = EmpiricalDenoiser(data)(x, level)
    monkeypatch.setattr("kdiff_exact.empirical._BLOCK", 20)
    torch.testing.assert_close(EmpiricalDenoiser(data)(x, level), at_once, rtol=1e-14, atol=1e-14)


def test_result_is_fresh_and_like_x(digits):
    """The result has x's dtype, never its memory nor that of an earlier result; x is left alone."""
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        x = draw(0, 2, 1, 8, 8, dtype=torch.float32).to(dtype)
        before, level = x.clone(), torch.ones(2, dtype=dtype)
        first, second = digits(x, level), digits(x, level)
        assert first.dtype == dtype
        assert first.shape == x.shape
        assert len({x.data_ptr(), first.data_ptr(), second.data_ptr()}) == 3
        assert torch.equal(x, before)
        assert not first.requires_grad


def test_gradient():
    """The gradient with respect to the state is the derivative."""
    denoiser = EmpiricalDenoiser(draw(0, 6, 3), smoothing=0.2)
    x = draw(1, 2, 3).requires_grad_()
    level = torch.tensor([0.3, 2.0], dtype=x.dtype)
    assert torch.autograd.gradcheck(lambda v: denoiser(v, level), x)


def test_attributes(digits):
    """What a sampler or a host asks for is declared."""
    assert (digits.path, digits.sample_shape, digits.classes) == ("ve", (1, 8, 8), 10)
    assert digits.value_range == (-1.0, 1.0)
    assert 0 < digits.sigma_min < digits.sigma_max
    assert digits_exact(path="flow").sigma_max == 1
    assert digits.class_names[3] == "3"
    assert "1797 points" in repr(digits)
    x, level = draw(0, 2, 1, 8, 8), torch.ones(2, dtype=torch.float64)
    assert torch.equal(pickle.loads(pickle.dumps(digits))(x, level), digits(x, level))


def test_digits_are_the_digits():
    """The stored digits are scikit-learn's, pixel for pixel, scaled to [-1, 1]."""
    datasets = pytest.importorskip("sklearn.datasets")
    real = datasets.load_digits()
    ours = load_digits()
    np.testing.assert_array_equal((ours.data.reshape(-1, 64) + 1) * 8, real.data)
    np.testing.assert_array_equal(ours.labels, real.target)


def test_sampling_gives_digits_of_the_class(digits):
    """Twenty Euler steps down from noise end near real digits of the class asked for."""
    levels = [*np.geomspace(digits.sigma_max, digits.sigma_min, 20).tolist(), 0.0]
    label = torch.arange(10)
    x = draw(0, 10, 1, 8, 8, dtype=torch.float32) * levels[0]
    for now, after in pairwise(levels):
        denoised = digits(x, torch.full((10,), now), label=label)
        x = x + (after - now) * (x - denoised) / now
    data = load_digits()
    distance = torch.cdist(x.reshape(10, 64), torch.from_numpy(data.data).reshape(-1, 64))
    assert distance.amin(1).max() / 8 < 0.2
    assert data.labels[distance.argmin(1).numpy()].tolist() == label.tolist()


def level_of(x):
    return torch.ones(len(x) if x.ndim else 1)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 8, 8), r"\(B, 1, 8, 8\)"),
        (torch.zeros(2, 64), r"\(B, 1, 8, 8\)"),
        (torch.zeros(()), "shape"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.int64), "floating"),
        (np.zeros((2, 1, 8, 8)), "ndarray"),
    ],
)
def test_bad_states(digits, x, message):
    """A state that is not one of this data is refused with the shape that is."""
    with pytest.raises(StateError, match=message):
        digits(x, level_of(x))


@pytest.mark.parametrize(
    ("cond", "message"),
    [
        ({"label": torch.tensor([0, 10])}, r"label\[1\] is 10"),
        ({"label": torch.tensor([-2, 0])}, r"label\[0\] is -2"),
        ({"label": torch.tensor([0, 1, 2])}, r"\(2,\) integers"),
        ({"label": torch.tensor([0.0, 1.0])}, "integers"),
        ({"prompt": "a cat"}, "'prompt'"),
    ],
)
def test_bad_conditions(digits, cond, message):
    """A label that is no class, and a condition that is not known, are refused."""
    with pytest.raises(ParameterError, match=message):
        digits(torch.zeros(2, 1, 8, 8), torch.ones(2), **cond)


def test_label_without_classes():
    """A label for data without classes is refused, not ignored."""
    with pytest.raises(ParameterError, match="no classes"):
        EmpiricalDenoiser([[0.0], [1.0]])(torch.zeros(1, 1), torch.ones(1), label=torch.tensor([0]))


def test_bad_sigma(digits):
    """One level a sample, nothing else."""
    with pytest.raises(ParameterError, match=r"\(2,\)"):
        digits(torch.zeros(2, 1, 8, 8), torch.ones(3))


@pytest.mark.parametrize(
    "options",
    [
        {"smoothing": -1},
        {"smoothing": math.nan},
        {"path": "vp"},
        {"sigma_min": 0},
        {"sigma_min": 5, "sigma_max": 4},
        {"path": "flow", "sigma_max": 2},
        {"sigma_max": math.inf},
        {"labels": [0]},
        {"labels": [0, 2]},
        {"labels": [-1, 0]},
        {"labels": [0.0, 1.0]},
        {"labels": ["a", "b"]},
        {"data": []},
        {"data": 3.0},
        {"data": [[0.0], [math.nan]]},
        {"data": [[0.0], [1.0, 2.0]]},
        {"data": np.zeros((2, 2), np.uint8)},
        {"data": np.zeros((2, 2), complex)},
        {"data": "nowhere"},
        {"data": [[0.0]], "size": 8},
    ],
    ids=repr,
)
def test_bad_parameters(options):
    """Data and parameters that make no distribution are refused."""
    with pytest.raises(KdiffError):
        empirical(**{"data": [[0.0], [1.0]], **options})


@pytest.mark.parametrize("make", [list, np.array, torch.tensor])
def test_array_kinds(make):
    """Lists, arrays and tensors are the same data, and are copied."""
    data = make([[0.0, 1.0], [2.0, 3.0]])
    denoiser = empirical(data)
    x = torch.zeros(1, 2)
    before = denoiser(x, torch.ones(1))
    if make is not list:
        data[:] = 7
    assert torch.equal(denoiser(x, torch.ones(1)), before)
    assert denoiser.value_range == (0.0, 3.0)


def test_array_files(tmp_path):
    """.npy and .npz files are read, with the labels that a .npz brings."""
    data, labels = np.arange(12.0).reshape(4, 3), np.array([0, 1, 1, 0])
    np.save(tmp_path / "a.npy", data)
    np.savez(tmp_path / "b.npz", data=data, labels=labels)
    np.savez(tmp_path / "c.npz", points=data)
    np.testing.assert_array_equal(load(tmp_path / "a.npy").data, data)
    np.testing.assert_array_equal(load(tmp_path / "c.npz").data, data)
    assert empirical(tmp_path / "b.npz").classes == 2
    assert empirical(str(tmp_path / "a.npy"), labels=labels).classes == 2
    with pytest.raises(ParameterError, match="only one"):
        empirical(tmp_path / "b.npz", labels=labels)


def test_bad_files(tmp_path):
    """Files that are no arrays of numbers are refused by name; pickled objects are never loaded."""
    np.save(tmp_path / "object.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 no archive")
    (tmp_path / "note.txt").write_text("no data")
    np.savez(tmp_path / "two.npz", a=np.zeros(2), b=np.zeros(2))
    for name in ("object.npy", "text.npy", "broken.npz", "note.txt", "two.npz", "missing.npy"):
        with pytest.raises(ParameterError, match=name):
            load(tmp_path / name)


def picture(path, *shape, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def test_folder_round_trip(tmp_path):
    """A folder of PNG images becomes their pixels in [-1, 1]; grey ones keep one channel."""
    pixels = [picture(tmp_path / f"{i}.png", 4, 6, seed=i) for i in range(3)]
    (tmp_path / "notes.txt").write_text("not an image")
    denoiser = empirical(tmp_path)
    assert denoiser.sample_shape == (1, 4, 6)
    assert denoiser.classes is None
    found = (load(tmp_path).data[:, 0] + 1) * 127.5
    np.testing.assert_allclose(found, np.stack(pixels), atol=1e-4)


def test_folder_of_classes(tmp_path):
    """Subfolders are classes in the order of their names; one colour image makes all of them RGB."""
    for name in ("cats", "bats"):
        (tmp_path / name).mkdir()
    colour = picture(tmp_path / "cats" / "a.png", 4, 4, 3)
    grey = picture(tmp_path / "bats" / "a.PNG", 4, 4)
    denoiser = empirical(tmp_path)
    assert (denoiser.classes, denoiser.class_names) == (2, ("bats", "cats"))
    assert denoiser.value_range == (-1.0, 1.0)
    found = np.rint((load(tmp_path).data + 1) * 127.5)
    np.testing.assert_array_equal(found[1], colour.transpose(2, 0, 1))
    np.testing.assert_array_equal(found[0], np.stack([grey] * 3))


def test_folder_sizes(tmp_path):
    """Images of several sizes are refused naming the file, unless a size is given."""
    picture(tmp_path / "a.png", 4, 4)
    picture(tmp_path / "b.jpg", 9, 5)
    with pytest.raises(ParameterError, match=r"b\.jpg: is 9 by 5.*size="):
        empirical(tmp_path)
    assert empirical(tmp_path, size=8).sample_shape == (1, 8, 8)
    assert empirical(tmp_path, size=(3, 5)).sample_shape == (1, 3, 5)
    with pytest.raises(ParameterError, match="size=0"):
        empirical(tmp_path, size=0)


def test_bad_folders(tmp_path):
    """Empty, mixed and broken folders are refused naming the place."""
    with pytest.raises(ParameterError, match="no image"):
        empirical(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ParameterError, match="empty: has no image"):
        empirical(tmp_path)
    picture(tmp_path / "a.png", 4, 4)
    with pytest.raises(ParameterError, match=r"a\.png: lies beside"):
        empirical(tmp_path)
    (tmp_path / "empty" / "b.png").write_bytes(b"not a picture")
    (tmp_path / "a.png").unlink()
    with pytest.raises(ParameterError, match=r"b\.png: cannot be read"):
        empirical(tmp_path)
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "empty" / "b.png")
    with pytest.raises(ParameterError, match=r"b\.png: .*8-bit"):
        empirical(tmp_path)
