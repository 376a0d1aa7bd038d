"""Many samples in files: the same bits for any number of processes, and after any crash."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdiff_core.cli import main
from kdiff_core.cli.sample import _label
from kdiff_core.errors import ParameterError
from kdiff_core.manifest import read_manifest
from kdiff_core.sample_job import SampleJob
from kdiff_core.shards import INDEX, Process, Shards, read_shards

N = 11
JOB = {"model": "digits", "n": N, "sampler": "euler_ancestral", "steps": 3}
CLASSES = tuple(i % 10 for i in range(N))
IMAGES = torch.linspace(-1, 1, N * 64).reshape(N, 1, 8, 8)
JOBS = {
    "plain": {},
    "guided": {"label": CLASSES, "guidance": 2.0, "guide": "cfg+rescale"},
    "seeds": {"seed": tuple(range(100, 100 + N)), "index": tuple(range(7, 7 + 2 * N, 2))},
    "images": {"init": IMAGES, "strength": 0.5, "variation_seed": CLASSES, "variation_strength": 0.3},
    "one image": {"init": IMAGES[5], "mask": torch.ones(8, 8).triu()},
    "chunked": {"chunk": 2},
}


class Painter:
    """A denoiser that takes text, and whose states are decoded."""

    sample_shape, decoded_shape = (2,), (3,)
    sigma_min, sigma_max = 0.1, 1.0

    def encode(self, texts):
        return {"length": torch.tensor([float(len(text or "")) for text in texts])}

    def decode(self, x):
        return torch.cat([x, x.sum(1, keepdim=True)], 1)

    def __call__(self, x, sigma, *, length):
        return 0 * x + length[:, None]


def contents(folder):
    """The bytes of all files by name."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The files of each job by one process, in files of three."""
    found = {}
    for name, more in JOBS.items():
        folder = tmp_path_factory.mktemp("alone")
        Shards(SampleJob(**JOB, **more), folder, 3).run(Process())
        found[name] = contents(folder)
    return found


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("name", JOBS)
def test_any_number_of_processes_makes_the_same_files(tmp_path, alone, name, world):
    """Two and three processes, in any order, share the files out and make those of one, byte by byte."""
    job = SampleJob(**JOB, **JOBS[name])
    made = [Shards(job, tmp_path, 3).run(Process(rank, world)) for rank in reversed(range(world))]
    assert contents(tmp_path) == alone[name]
    assert sorted(file.name for files in made for file in files) == sorted(alone[name].keys() - {INDEX})
    assert all(files for files in made)


@pytest.mark.parametrize("name", JOBS)
def test_files_hold_the_samples_of_the_whole(tmp_path, name):
    """Sample i of the files is sample i of one run of all, to rounding, whatever it is given."""
    job = SampleJob(**JOB, **JOBS[name])
    Shards(job, tmp_path, 3).run()
    found, whole = read_shards(tmp_path), job.run().x.numpy()
    assert np.array_equal(found["index"], job.index or range(N))
    assert np.abs(found["samples"] - whole).max() < 1e-4
    assert len({sample.tobytes() for sample in found["samples"]}) == N


@given(n=st.integers(1, 40), size=st.integers(1, 45), data=st.data())
def test_parts_make_up_the_whole(n, size, data):
    """What there is one of for each sample is cut as the samples are, and nothing else is changed."""
    each = data.draw(st.lists(st.integers(0, 9), min_size=n, max_size=n).map(tuple))
    words = tuple(f"word {i}" for i in each)
    seed = data.draw(st.sampled_from([7, each]))
    job = SampleJob("a model", n, seed=seed, label=each, prompt=words, negative=words, variation_seed=each)
    shards = Shards(job, "nowhere", size)
    parts = [shards.part(number) for number in range(shards.count)]
    assert all(1 <= part.n <= size for part in parts)
    # With a seed of its own, each is sample 0 of it, as in a run in one piece.
    assert sum((part.index for part in parts), ()) == (tuple(range(n)) if seed == 7 else (0,) * n)
    assert all(part.seed == 7 for part in parts) or sum((part.seed for part in parts), ()) == each
    for name in ("label", "prompt", "negative", "variation_seed"):
        assert sum((getattr(part, name) for part in parts), ()) == getattr(job, name)
    assert {(part.model, part.sampler, part.guidance) for part in parts} == {("a model", "dpmpp_2m", None)}


def test_texts_and_decoded_samples(tmp_path):
    """Each sample has its own text, and what is written is decoded."""
    words = ("a", "bbb", "cc", "dddd", "eeeee")
    Shards(SampleJob(Painter(), prompt=words, steps=2), tmp_path, 2).run()
    lengths = np.array([len(word) for word in words], dtype=np.float32)
    assert np.array_equal(read_shards(tmp_path)["samples"], lengths[:, None] * np.float32([1, 1, 2]))


def test_the_model_is_built_once(tmp_path, monkeypatch):
    """All files are made with one model."""
    built = []
    get = sys.modules["kdiff_core.sample_job"].get_denoiser
    monkeypatch.setattr(
        "kdiff_core.sample_job.get_denoiser", lambda *a, **k: built.append(get(*a, **k)) or built[-1]
    )
    Shards(SampleJob(**JOB), tmp_path, 2).run()
    assert len(built) == 1


# -- crashes


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_run_goes_on_where_it_stopped(tmp_path, alone, after):
    """Stopped after a file, with another torn and a third lost, it makes what is missing and no more."""

    def crash(file, setup):
        if len(list(tmp_path.glob("shard-*"))) == after:
            raise KeyboardInterrupt

    shards = Shards(SampleJob(**JOB), tmp_path, 3)
    with pytest.raises(KeyboardInterrupt):
        shards.run(on_file=crash)
    torn = shards.file(after - 1)
    torn.write_bytes(torn.read_bytes()[:-50])
    assert shards.missing() == list(range(after - 1, 4))
    made = [file.name for rank in (1, 0) for file in shards.run(Process(rank, 2))]
    assert sorted(made) == [f"shard-{number:05d}.npz" for number in range(after - 1, 4)]
    assert contents(tmp_path) == alone["plain"]
    assert shards.run() == []


def test_processes_of_their_own(tmp_path, alone):
    """Two processes as torchrun starts them, one killed and begun again as the only one, make the same."""
    command = [
        sys.executable,
        "-m",
        "kdiff_core.cli",
        "sample",
        "digits",
        "-n",
        str(N),
        "-s",
        "euler_ancestral",
    ]
    command += ["--steps", "3", "--shard-size", "3", "-o", f"{tmp_path / 'shards'}/"]

    def start(**variables):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    both = [start(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank)) for rank in range(2)]
    out, error = both[1].communicate(timeout=100)
    assert (both[1].returncode, out, error) == (0, b"", b"")
    both[0].kill()
    both[0].communicate()
    lone = start()
    out, error = lone.communicate(timeout=100)
    assert (lone.returncode, error) == (0, b"")
    assert b"of 4 files" in out
    found = contents(tmp_path / "shards")
    for name, data in alone["plain"].items():
        if name != INDEX:  # the manifests may name another number of threads
            (tmp_path / "theirs.npz").write_bytes(data)
            with np.load(tmp_path / "theirs.npz") as a, np.load(tmp_path / "shards" / name) as b:
                assert a["samples"].tobytes() == b["samples"].tobytes()
    assert found.keys() == alone["plain"].keys()


# -- refusals


@pytest.mark.parametrize(
    ("more", "size", "says"),
    [
        ({"n": 12}, 3, "'n'"),
        ({}, 4, "'size'"),
        ({"seed": 1}, 3, "'seed'"),
        ({"label": 3}, 3, "'label'"),
        ({"label": (*CLASSES[:-1], 5), "guidance": 2.0}, 3, "'label'"),
        ({"steps": 4}, 3, "'steps'"),
        ({"sampler": "heun"}, 3, "'sampler'"),
        ({"init": IMAGES, "strength": 0.5}, 3, "'init'"),
        ({"variation_seed": (*CLASSES[:-1], 5), "variation_strength": 0.1}, 3, "'variation_seed'"),
    ],
)
def test_a_folder_of_another_job_is_refused(tmp_path, more, size, says):
    """What differs is named, before anything is written; the last sample counts as the first does."""
    base = dict(JOB)
    if "guidance" in more:
        base |= {"label": CLASSES, "guidance": 2.0}
    if "variation_seed" in more:
        base |= {"variation_seed": CLASSES, "variation_strength": 0.1}
    Shards(SampleJob(**base), tmp_path, 3).run(Process(1, 4))
    before = contents(tmp_path)
    with pytest.raises(ParameterError, match="samples of another job") as caught:
        Shards(SampleJob(**{**base, **more}), tmp_path, size).run()
    assert says in str(caught.value)
    assert contents(tmp_path) == before


def test_images_that_differ_late_are_told(tmp_path):
    """An array to begin with is known by its values, not by where it lies."""
    given = {**JOB, "strength": 0.5}
    Shards(SampleJob(**given, init=IMAGES), tmp_path, 3).run(Process(1, 4))
    Shards(SampleJob(**given, init=IMAGES.clone()), tmp_path, 3).run(Process(2, 4))
    other = IMAGES.clone()
    other[-1, 0, 0, 0] += 0.5
    with pytest.raises(ParameterError, match="differs in 'init'"):
        Shards(SampleJob(**given, init=other), tmp_path, 3).run()


def test_what_is_no_folder_of_samples(tmp_path):
    """Files of nobody, an index that is torn, none, and missing files are refused, each with what to do."""
    shards = Shards(SampleJob(**JOB), tmp_path, 3)
    with pytest.raises(ParameterError, match=r"no shards\.json"):
        read_shards(tmp_path)
    shards.run(Process(0, 2))
    with pytest.raises(ParameterError, match=r"2 of 4 files are missing, shard-00001\.npz the first"):
        read_shards(tmp_path)
    (tmp_path / INDEX).write_text("{")
    with pytest.raises(ParameterError, match="cannot be read"):
        shards.run()
    (tmp_path / INDEX).unlink()
    with pytest.raises(ParameterError, match="take an empty folder"):
        shards.run()
    with pytest.raises(ParameterError, match="size=0"):
        Shards(SampleJob(**JOB), tmp_path, 0)


def test_the_process_of_the_environment():
    """The environment says which process it is; what it cannot mean is refused."""
    assert Process.current({}) == Process(0, 1, 0)
    assert Process.current({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}) == Process(5, 8, 1)
    for wrong in ({"RANK": "2", "WORLD_SIZE": "2"}, {"RANK": "-1"}, {"LOCAL_RANK": "x"}, {"RANK": "1"}):
        with pytest.raises(ParameterError):
            Process.current(wrong)


# -- the command


@pytest.fixture
def kdiff(capsys, monkeypatch, tmp_path):
    """Run the command in an empty folder; returns exit status, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*args):
        with pytest.raises(SystemExit) as left:
            main([str(arg) for arg in args])
        return (left.value.code or 0, *capsys.readouterr())

    return run


def test_the_command(kdiff, tmp_path):
    """A folder is made, its files replay bit for bit, and the same command again makes nothing."""
    given = (
        "sample",
        "digits",
        "-n",
        5,
        "--steps",
        3,
        "--class",
        "0-2,7",
        "--guidance",
        2,
        "--shard-size",
        2,
    )
    status, out, error = kdiff(*given, "-o", "shards/")
    assert (status, "3 of 3 files" in out, error) == (0, True, "")
    assert read_manifest("shards/shard-00001.npz")["label"] == [2, 7]
    for number in range(3):
        assert kdiff("replay", f"shards/shard-0000{number}.npz", "-o", "again.npz")[0] == 0
    # A folder that is there needs no slash.
    assert "0 of 3 files" in kdiff(*given, "-o", "shards")[1]
    assert json.loads((tmp_path / "shards" / INDEX).read_text())["label"] == [0, 1, 2, 7, 0]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--shard-size", 2], "give --output shards/"),
        (["-o", "x.npz", "--shard-size", 2], "give --output shards/"),
        (["-o", "x/", "--trajectory", "a.png"], "--trajectory is of one picture"),
        (["-o", "x/", "--columns", 3], "--columns is of one picture"),
        (["-o", "x/", "--class", "12"], "--class 12"),
        (["-o", "x/", "--class", "9-0"], "0-9 or 1,7"),
        (["-o", "x/", "--class", "0-12"], "classes are 0 to 9"),
    ],
)
def test_the_command_refuses(kdiff, tmp_path, args, says):
    """What does not go with a folder is refused, and nothing is written."""
    status, _, error = kdiff("sample", "digits", "-n", 20, *args)
    assert (status, says in error) == (2, True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        (None, None),
        ("7", 7),
        ("-1", -1),
        ("cat", "cat"),
        ("tench, Tinca tinca", "tench, Tinca tinca"),
        ("0-2", (0, 1, 2, 0, 1)),
        ("5,1-2", (5, 1, 2, 5, 1)),
        ("3,3", (3, 3, 3, 3, 3)),
    ],
)
def test_lists_of_classes(text, labels):
    """Numbers and ranges are a list, each class in turn; all else is a number or a name."""
    assert _label(text, 5) == labels
