"""Evaluation: the distances against closed forms and brute force, and a report that says what it rests on."""

from __future__ import annotations

import json
import math
import os

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import kdiff_core as kd
from kdiff_core.errors import ParameterError
from kdiff_exact.empirical import EmpiricalDenoiser
from kdiff_train.data.arrays import Arrays
from kdiff_train.evaluate import METRICS, evaluate
from kdiff_train.evaluate.classifier import classifier
from kdiff_train.evaluate.distances import (
    frechet,
    kernel_distance,
    nearest,
    precision,
    recall,
    sliced_wasserstein,
)
from kdiff_train.evaluate.features import extract
from kdiff_train.evaluate.levels import bits_per_dim, loss_by_level

pytest.importorskip("torchmetrics")
F64 = torch.float64
seeds = st.integers(0, 10_000)


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    """A cache of its own, so that nothing is found that another run left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


class Normal:
    """The exact denoiser of independent normal numbers."""

    def __init__(self, mean=0.0, deviation=0.5, path="ve", shape=(1, 2, 2)):
        self.mean, self.deviation, self.path, self.sample_shape = mean, deviation, path, shape
        self.sigma_min, self.sigma_max = 0.05, 20.0 if path == "ve" else 1.0

    def __call__(self, x, sigma):
        sigma = sigma.reshape(-1, *[1] * (x.ndim - 1))
        alpha = 1 - sigma if self.path == "flow" else 1.0
        weight = alpha * self.deviation**2 / (alpha**2 * self.deviation**2 + sigma**2)
        return self.mean + weight * (x - alpha * self.mean)


# -- Fréchet


def exact_set(seed, n, mean, covariance):
    """Vectors whose own mean and covariance are the given ones."""
    x = normal(seed, n, len(mean))
    x = x - x.mean(0)
    x = x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / (n - 1))).T
    return x @ torch.linalg.cholesky(covariance).T + mean


@given(seed=seeds, dims=st.integers(1, 6), offset=st.floats(-100, 100))
@settings(max_examples=30)
def test_frechet_is_the_closed_form(seed, dims, offset):
    """Of sets with known means and covariances, which do not commute, it is that of the normal laws."""
    means = normal(seed, 2, dims) + offset
    roots = normal(seed + 1, 2, dims, dims)
    first, second = (root @ root.T + 0.1 * torch.eye(dims, dtype=F64) for root in roots)
    found = frechet(exact_set(2, 50, means[0], first), exact_set(3, 60, means[1], second))
    mixed = np.trace(scipy.linalg.sqrtm(first.numpy() @ second.numpy()).real)
    expected = float((means[0] - means[1]).square().sum() + first.trace() + second.trace()) - 2 * mixed
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_frechet_of_few_vectors_is_biased():
    """Two sets of one law are apart, four times less with four times as many: the floor is needed."""
    means = [
        np.mean([frechet(normal(2 * k, n, 16), normal(2 * k + 1, n, 16)) for k in range(6)])
        for n in (100, 400)
    ]
    assert means[0] > 1
    assert 3.4 < means[0] / means[1] < 5


def test_frechet_with_fewer_vectors_than_features():
    """Covariances without full rank give a finite distance, 0 of a set to itself."""
    x = normal(0, 20, 40)
    assert frechet(x, x) == pytest.approx(0, abs=1e-5)
    assert 0 < frechet(x, normal(1, 20, 40)) < 200


# -- kernel distance


def brute_kid(x, y):
    def kernel(a, b):
        return (1 + a @ b.T / a.shape[1]) ** 3

    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    n, m = len(x), len(y)
    within = (xx.sum() - xx.diag().sum()) / (n * (n - 1)) + (yy.sum() - yy.diag().sum()) / (m * (m - 1))
    return float(within - 2 * xy.mean())


@given(seed=seeds, n=st.integers(2, 40))
@settings(max_examples=20)
def test_kernel_distance_is_the_unbiased_estimate(seed, n):
    """Up to 1,000 vectors it is the U-statistic of all of them, in any order."""
    x, y = normal(seed, n, 5), normal(seed + 1, n, 5) + 0.3
    assert kernel_distance(x, y) == pytest.approx(brute_kid(x, y), rel=1e-9, abs=1e-12)


def test_kernel_distance_is_unbiased():
    """In the mean over pairs of few vectors of one law it is 0; of two laws it is that of many."""
    same = [kernel_distance(normal(2 * k, 10, 4), normal(2 * k + 1, 10, 4)) for k in range(200)]
    assert abs(np.mean(same)) < 3 * np.std(same) / math.sqrt(200)
    apart = [kernel_distance(normal(2 * k, 10, 4) + 0.5, normal(2 * k + 1, 10, 4)) for k in range(200)]
    many = brute_kid(normal(1, 3000, 4) + 0.5, normal(2, 3000, 4))
    assert abs(np.mean(apart) - many) < 3 * np.std(apart) / math.sqrt(200) + 0.02
    assert many > 0.2


def test_kernel_distance_of_many_is_repeatable(monkeypatch):
    """Subsets of more vectors than one takes are always the same, and the global random state stays."""
    monkeypatch.setattr("kdiff_train.evaluate.distances.KID_SUBSET", 100)
    x, y = normal(0, 110, 3), normal(1, 110, 3)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = kernel_distance(x, y)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert kernel_distance(x, y) == first == pytest.approx(brute_kid(x, y), abs=0.02)


# -- precision, recall, slices, neighbours


@given(seed=seeds, n=st.integers(5, 30), m=st.integers(5, 30))
@settings(max_examples=20)
def test_precision_is_the_definition(seed, n, m):
    """It is counted one by one: a vector lies in a ball that reaches to the third nearest other centre."""
    x, y = normal(seed, n, 2), normal(seed + 1, m, 2) * 0.7
    inside = 0
    for point in x:
        for i, centre in enumerate(y):
            others = sorted(math.dist(centre, y[j]) for j in range(m) if j != i)
            if math.dist(point, centre) <= others[2]:
                inside += 1
                break
    assert precision(x, y) == pytest.approx(inside / n)
    assert recall(y, x) == precision(x, y)


def test_precision_and_recall_of_known_sets():
    """A set has both of itself; one mode of two has precision but half the recall; a far one has none."""
    left, right = normal(0, 100, 2), normal(1, 100, 2) + 50
    both = torch.cat([left, right])
    assert (precision(both, both), recall(both, both)) == (1, 1)
    near = normal(2, 200, 2) * 0.5
    assert precision(near, both) == 1
    assert 0.3 < recall(near, both) <= 0.5
    assert (precision(both + 1000, both), recall(both + 1000, both)) == (0, 0)
    with pytest.raises(ParameterError, match="4 vectors or more"):
        precision(both[:3], both)


@given(seed=seeds, n=st.integers(1, 30))
@settings(max_examples=20)
def test_sliced_wasserstein(seed, n):
    """It is 0 for one set in any order; a move by v gives |v| over the root of the dimension; it scales."""
    x = normal(seed, n, 6)
    assert sliced_wasserstein(x, x[torch.randperm(n, generator=torch.Generator().manual_seed(seed))]) < 1e-12
    move = normal(seed + 1, 6)
    assert sliced_wasserstein(x + move, x) == pytest.approx(float(move.norm()) / math.sqrt(6), rel=0.25)
    y = normal(seed + 2, n, 6)
    assert sliced_wasserstein(3 * x, 3 * y) == pytest.approx(3 * sliced_wasserstein(x, y))
    with pytest.raises(ParameterError, match="equal numbers"):
        sliced_wasserstein(x, torch.cat([y, y]))


@given(seed=seeds)
@settings(max_examples=10)
def test_nearest_is_the_least_distance(seed):
    """It is the least of all distances, exactly 0 for a copy."""
    x, y = normal(seed, 7, 3), normal(seed + 1, 9, 3)
    y[4] = x[2]
    found = nearest(x + 1e6, y + 1e6)
    assert float(found[2]) == 0
    expected = [min(math.dist(a, b) for b in y.tolist()) for a in x.tolist()]
    torch.testing.assert_close(nearest(x, y), torch.tensor(expected, dtype=F64))


# -- levels


@pytest.mark.parametrize("path", ["ve", "flow"])
def test_losses_are_those_of_known_denoisers(path):
    """On normal data the exact denoiser has loss 1 at all levels, and one that says 0 has its own."""
    data = {"x": (0.5 * normal(0, 2000, 1, 2, 2)).float()}
    model = Normal(path=path)
    found = loss_by_level(model, data, data, levels=5)
    assert [level.sigma for level in found] == pytest.approx(np.geomspace(model.sigma_max, 0.05, 5))
    for level in found:
        assert level.held_out == pytest.approx(1, abs=0.05)
        assert level.train == level.held_out
    nothing = Normal(path=path, deviation=0.0)
    for level in loss_by_level(nothing, data, None, levels=5):
        alpha = 1.0 if path == "ve" else 1 - level.sigma
        best = 0.25 * level.sigma**2 / (alpha**2 * 0.25 + level.sigma**2)
        assert level.held_out == pytest.approx(0.25 / best, rel=0.05)
        assert level.train is None


def test_losses_do_not_depend_on_batches():
    """The noise of a sample is that of its number, whatever the batch."""
    data = {"x": normal(0, 10, 1, 2, 2).float()}
    ones, threes = (loss_by_level(Normal(), data, None, batch=batch) for batch in (1, 3))
    for one, three in zip(ones, threes, strict=True):
        assert one.held_out == pytest.approx(three.held_out, rel=1e-6)


def test_bits_are_those_of_a_normal_law():
    """Of normal data they are the entropy of the data with the noise of the lowest level."""
    x = 0.5 * normal(0, 40, 1, 2, 2)
    variance = 0.25 + 0.05**2
    nats = 0.5 * math.log(2 * math.pi * variance) + float(x.square().mean()) / (2 * variance)
    found = bits_per_dim(Normal(), {"x": x}, batch=16)
    assert found == pytest.approx(nats / math.log(2), abs=0.002)


# -- features


def test_a_classifier_is_trained_once(monkeypatch):
    """It is the same bits each time, comes from the file then, and differs by data; it knows the digits."""
    before = torch.get_rng_state()
    first = classifier("digits", images=4000)
    assert torch.equal(before, torch.get_rng_state())
    test = kd.get_dataset("digits", split="test")
    assert first.accuracy(test.x, test.labels) > 0.9
    assert first(test.x[:3]).shape == (3, 64)
    monkeypatch.setenv("XDG_CACHE_HOME", os.environ["XDG_CACHE_HOME"] + "/other")
    assert classifier("digits", images=4000).sha256 == first.sha256
    monkeypatch.setattr("kdiff_train.evaluate.classifier._train", None)
    assert classifier("digits", images=4000).sha256 == first.sha256
    with pytest.raises(TypeError):  # others have to be trained
        classifier("digits", {"split": "test"}, images=4000)
    with pytest.raises(ParameterError, match="no images with classes"):
        classifier("arrays", {"data": torch.zeros(5, 3)})


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_features_of_a_file(tmp_path):
    """A network of either kind gives its features of what it takes; a wrong hash stops it."""
    network = torch.nn.Flatten()
    torch.jit.save(torch.jit.trace(network, torch.zeros(2, 3, 4, 4)), tmp_path / "net.pt")
    batch = torch.export.Dim("batch")
    program = torch.export.export(network, (torch.zeros(2, 3, 4, 4),), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "net.pt2")
    x = normal(0, 5, 1, 4, 4).float()
    for name in ("net.pt", "net.pt2"):
        found = kd.get_features("file", path=tmp_path / name, values="bytes", channels=3)
        torch.testing.assert_close(found(x), ((x + 1) * 127.5).expand(-1, 3, -1, -1).flatten(1))
        again = kd.get_features("file", path=tmp_path / name, sha256=found.sha256, size=(4, 4), channels=3)
        assert again(torch.zeros(3, 1, 9, 5)).shape == (3, 48)
        with pytest.raises(ParameterError, match="nothing of it was run"):
            kd.get_features("file", path=tmp_path / name, sha256="0" * 64)
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    for name, message in (("bad.pt", "no TorchScript"), ("none.pt", "no such file")):
        with pytest.raises(ParameterError, match=message):
            kd.get_features("file", path=tmp_path / name)


@given(batch=st.integers(1, 9))
def test_features_are_extracted_in_batches(batch):
    """The batch changes nothing; what is not finite is refused."""
    x = normal(0, 8, 1, 2, 2)
    assert torch.equal(extract(kd.get_features("pixels"), x, batch=batch), x.flatten(1))
    with pytest.raises(ParameterError, match="no finite row"):
        extract(kd.get_features("pixels"), x / 0)


# -- the whole


def data_sets(n=60, shape=(1, 2, 2), classes=None):
    held, train = (0.5 * normal(seed, n, *shape).float() for seed in (1, 2))
    labels = None if classes is None else torch.arange(n) % classes
    return Arrays(held, labels, name="held"), Arrays(train, labels, name="train")


def test_a_report_says_what_it_rests_on():
    """It has n, evaluations, sampler, schedule, features and floors, in its table and in its JSON."""
    held, train = data_sets()
    report = evaluate(Normal(), held, train=train, sampler="Heun Karras", steps=6, seed=3, features="pixels")
    assert (report.n, report.steps, report.evaluations, report.seed) == (60, 6, 11, 3)
    assert (report.sampler.lower(), report.schedule.lower(), report.features) == ("heun", "karras", "pixels")
    assert [score.name for score in report.scores] == list(METRICS)
    assert all(score.floor is not None for score in report.scores)
    assert len(report.loss) == 10
    stored = json.loads(report.to_json())
    assert stored["scores"][0] == report["fid"]._asdict()
    assert stored["evaluations"] == 11
    text = str(report)
    for words in ("n=60", "6 steps", "11 evaluations", "pixels", "fid", "sigma"):
        assert words in text
    # The exact denoiser's samples are as good as real data.
    assert report["fid"].value < 2 * report["fid"].floor
    assert report["precision"].value > 0.8
    assert report["nearest"].value > 0.5 * report["nearest"].floor
    with pytest.raises(KeyError, match="no score 'is'"):
        report["is"]


def test_reports_are_repeatable():
    """Neither the global random state nor the batch enters; the state stays."""
    held, train = data_sets()
    options = {"train": train, "steps": 4, "features": "pixels", "metrics": ["fid", "kid", "loss"]}
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = evaluate(Normal(), held, **options)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(1)
    assert evaluate(Normal(), held, **options) == first
    split = evaluate(Normal(), held, batch=7, **options)
    for one, other in zip(first.scores, split.scores, strict=True):
        assert other.value == pytest.approx(one.value, rel=1e-4, abs=1e-6)


def test_a_worse_model_scores_worse():
    """A wrong mean and a lost spread are seen by the scores that are to see them."""
    held, train = data_sets(200)
    options = {"train": train, "steps": 8, "features": "pixels"}
    good, moved, narrow = (evaluate(m, held, **options) for m in (Normal(), Normal(0.5), Normal(0.0, 0.1)))
    for name in ("fid", "kid", "sliced_wasserstein"):
        assert min(moved[name].value, narrow[name].value) > 3 * max(good[name].value, good[name].floor)
    assert narrow["precision"].value == 1
    assert narrow["recall"].value < 0.5 * good["recall"].value
    assert all(level.held_out > 1.2 for level in moved.loss if level.sigma > 0.5)


def test_the_floor_is_the_score_of_real_data():
    """Given the training data for samples, each score is its own floor."""
    held, train = data_sets()
    report = evaluate(None, held, train=train, samples=train.x, metrics=["fid", "kid", "precision"])
    assert all(score.value == score.floor for score in report.scores)
    assert (report.sampler, report.evaluations) == ("", 0)


def test_half_of_the_data_is_the_floor_where_nothing_else_is_known():
    """Without training data there are half as many samples, and no nearest neighbours."""
    held, _ = data_sets()
    report = evaluate(Normal(), held, steps=3)
    assert report.n == 30
    assert "nearest" not in [score.name for score in report.scores]
    assert report["fid"].floor > 0
    assert all(level.train is None for level in report.loss)


def test_memorising_is_seen():
    """Samples of a model that knows its data by heart are nearer to them than other data are."""
    held, train = data_sets(60, (1, 3, 3))
    by_heart = EmpiricalDenoiser(train.x, smoothing=0.01, sigma_max=20.0)
    report = evaluate(by_heart, held, train=train, steps=12, metrics=["nearest", "loss"])
    assert report["nearest"].value < 0.2 * report["nearest"].floor
    middle = next(level for level in report.loss if level.sigma < 0.5)
    assert middle.train < 0.5 * middle.held_out


def test_named_data_have_splits():
    """By name the held-out part is compared, with the features of that data set by default."""
    test = kd.get_dataset("digits", split="test")
    report = evaluate(None, "digits", samples=test.x, features="pixels", metrics=["fid", "nearest"])
    assert report["fid"].value == pytest.approx(0, abs=1e-4)
    assert report["nearest"].value == report["nearest"].floor
    assert (report.data, report.n) == ("digits", 355)
    drawn = evaluate("digits", "digits", n=24, steps=3, metrics=["sliced_wasserstein"], features="pixels")
    assert drawn.conditional
    assert drawn["sliced_wasserstein"].value < 1


def test_samples_are_drawn_of_the_classes_of_the_data():
    """A conditional model is asked for the classes that the held-out data have, in any batch."""
    held, train = data_sets(12, classes=3)
    asked = []

    class Conditional(Normal):
        classes = 3

        def __call__(self, x, sigma, label=None):
            asked.append(label.tolist())
            return super().__call__(x, sigma)

    report = evaluate(Conditional(), held, train=train, steps=1, batch=5, metrics=["fid"])
    assert report.conditional
    assert [label for each in asked for label in each] == held.labels.tolist()
    asked.clear()
    fixed = evaluate(Conditional(), held, train=train, steps=1, metrics=["fid"], label=1)
    assert asked == [[1] * 12]
    assert not fixed.conditional


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ["fidd"]}, "did you mean 'fid'"),
        ({"metrics": ["nearest"], "train": None}, "give train="),
        ({"n": 100}, "needed are 2 to 60"),
        ({"stepz": 3}, "no option 'stepz'; did you mean 'steps'"),
        ({"n": 10, "index": [3]}, "no option 'index'"),
        ({"samples": torch.zeros(60, 3)}, "the data"),
        ({"samples": torch.zeros(60, 1, 2, 2) / 0}, "sample 0 has a value that is not finite"),
        ({"samples": torch.zeros(60, 1, 2, 2), "steps": 3}, "nothing is drawn"),
        ({"conditional": True}, "the data have no classes"),
    ],
)
def test_evaluate_refuses(options, message):
    """What cannot be done is refused, with what would be right, before a model call."""

    class Uncalled(Normal):
        def __call__(self, x, sigma):
            raise AssertionError

    held, train = data_sets()
    with pytest.raises(ParameterError, match=message):
        evaluate(Uncalled(), held, **{"train": train, "features": "pixels", **options})


def test_a_report_without_model():
    """A metric of the model, and samples, need one."""
    held, train = data_sets()
    for metric in ("loss", "fid"):
        with pytest.raises(ParameterError, match="model"):
            evaluate(None, held, train=train, metrics=[metric])
    with pytest.raises(ParameterError, match="has no splits"):
        evaluate(Normal(), "latents")


def test_models_that_decode_are_compared_by_what_they_decode():
    """Of a model of latents the decoded samples are compared; it has no loss on the data."""

    class Latent(Normal):
        def decode(self, x):
            return x.repeat_interleave(2, 3)

    held, train = data_sets(40, (1, 2, 4))
    report = evaluate(Latent(), held, train=train, steps=3, features="pixels")
    assert report.loss == ()
    assert report["fid"].value > 0
    with pytest.raises(ParameterError, match="decodes its states"):
        evaluate(Latent(), held, train=train, metrics=["loss"])


def test_likelihood_is_reported(tmp_path):
    """Bits per dimension stand among the scores, and the report can be written."""
    held, train = data_sets(20)
    report = evaluate(Normal(), held, train=train, metrics=["log_likelihood"])
    assert [score.name for score in report.scores] == ["bits_per_dim"]
    assert 0.7 < report["bits_per_dim"].value < 1.5
    report.write(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["n"] == 20
