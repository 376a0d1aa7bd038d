"""The ``kdiff`` command: what it prints, the files it writes, its exit statuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from attrs import evolve, frozen
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import kdiff_core as kd
from kdiff_core.cli import main
from kdiff_core.cli.console import parse_options
from kdiff_core.cli.facts import calls_per_step
from kdiff_core.entry import HOOKS
from kdiff_core.errors import ParameterError, UnknownNameError
from kdiff_core.files import write_whole
from kdiff_core.manifest import manifest_of, read_manifest, write_npz, write_png
from kdiff_core.registry import KINDS
from kdiff_core.sample_job import SampleJob

COMMANDS = [hook.removeprefix("kdiff_") for hook in HOOKS.values()]


@pytest.fixture
def kdiff(capsys, monkeypatch, tmp_path):
    """Run the command in an empty folder; returns exit status, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*args):
        with pytest.raises(SystemExit) as left:
            main([str(arg) for arg in args])
        return (left.value.code or 0, *capsys.readouterr())

    return run


@pytest.fixture
def registry(monkeypatch):
    """A registry of its own in place of the default one."""
    found = kd.Registry()
    monkeypatch.setattr("kdiff_core.lookup._default", found)
    return found


@frozen
class Buggy(kd.StepSampler):
    """A sampler whose step divides by zero."""

    def step(self, ctx, x, sigma, sigma_next):
        return x * (1 / 0)


class Bugs:
    """A plugin of samplers with bugs."""

    @kd.hookimpl
    def kdiff_samplers(self):
        return [kd.Entry("buggy", Buggy), kd.Entry("gone", "kdiff_no_such_module:Sampler")]


def tiles(file, columns, rows):
    """Return the cells of a picture's grid as a list of arrays, without the gaps between them."""
    pixels = np.asarray(Image.open(file).convert("L"))
    height, width = pixels.shape[0] / rows, pixels.shape[1] / columns

    def inside(number, size):
        return slice(int((number + 0.2) * size), int((number + 0.8) * size))

    return [pixels[inside(r, height), inside(c, width)] for r in range(rows) for c in range(columns)]


def test_the_default_job_and_its_replay(kdiff):
    """Without arguments: 64 distinct digits in mnist.png, which replays bit for bit."""
    status, out, _ = kdiff("sample")
    assert status == 0
    for word in ("mnist.png", "dpmpp_2m", "karras", "20 steps", "20 evaluations", "kdiff replay mnist.png"):
        assert word in out
    with Image.open("mnist.png") as image:
        assert 224 <= image.width <= 800
        assert image.width == image.height
    assert len({tile.tobytes() for tile in tiles("mnist.png", 8, 8)}) == 64
    status, out, _ = kdiff("replay", "mnist.png")
    assert (status, "equal, bit for bit" in out) == (0, True)
    assert Path("mnist-replay.png").read_bytes() == Path("mnist.png").read_bytes()


def test_the_pictures_are_of_the_samples(kdiff):
    """Each tile of the picture looks like its sample: they correlate, and no other tile does better."""
    kdiff("sample", "digits", "-n", 9)
    samples = kd.sample(n=9)[:, 0, 2:6, 2:6].reshape(9, -1).numpy()
    small = [
        np.asarray(Image.fromarray(tile).resize((4, 4), Image.Resampling.BOX))
        for tile in tiles("digits.png", 3, 3)
    ]
    like = np.corrcoef(samples, np.stack(small).reshape(9, -1))[:9, 9:]
    assert (like.argmax(1) == np.arange(9)).all()


def test_an_array_holds_the_samples(kdiff):
    """An NPZ file has the samples themselves and replays; a changed one is told from it."""
    assert (
        kdiff("sample", "digits", "-n", 5, "-o", "a.npz", "--seed", 3, "--class", 7, "--guidance", 2)[0] == 0
    )
    with np.load("a.npz", allow_pickle=False) as stored:
        samples = stored["samples"]
    expected = kd.sample(n=5, seed=3, label=7, guidance=2.0).numpy()
    assert samples.dtype == expected.dtype
    assert np.array_equal(samples, expected)
    assert kdiff("replay", "a.npz", "-o", "b.npz")[0] == 0
    samples[0, 0, 0, 0] = np.nextafter(samples[0, 0, 0, 0], np.float32(2))
    write_npz("c.npz", {"samples": samples}, {**read_manifest("a.npz"), "torch": "1.0", "threads": 999})
    status, out, _ = kdiff("replay", "c.npz")
    assert status == 1
    assert "different" in out
    assert "torch: 1.0 then" in out
    assert "threads: 999 then" in out


def test_a_changed_picture_is_told(kdiff):
    """One pixel of difference is a difference, and where nothing else has changed that is said."""
    kdiff("sample", "digits", "-n", 4, "--steps", 3)
    with Image.open("digits.png") as image:
        image.load()
        image.putpixel((20, 20), (1, 2, 3))
        write_png("other.png", image, read_manifest("digits.png"))
    status, out, _ = kdiff("replay", "other.png")
    assert (status, "Nothing that the manifest records has changed" in out) == (1, True)


@pytest.mark.parametrize(
    "more",
    [
        ["-s", "heun", "--set", "s_churn=40"],
        ["-s", "DPM++ 2M SDE Exponential"],
        ["--set", "model.path=flow", "--set", "schedule.rho=3", "--columns", "2"],
        ["--dtype", "bfloat16", "--seed", "18446744073709551615"],
    ],
    ids=["churn", "label", "flow", "bfloat16"],
)
def test_other_jobs_replay(kdiff, more):
    """Options of the sampler, the schedule and the model, and other dtypes, replay too."""
    for file in ("x.png", "x.npz"):
        assert kdiff("sample", "digits", "-n", 3, "--steps", 4, "-o", file, *more)[0] == 0
        assert kdiff("replay", file)[0] == 0


def test_a_compiled_job_replays(kdiff, monkeypatch):
    """`--compile` is part of the job and of its manifest."""
    monkeypatch.setattr("kdiff_core.compiling.BACKEND", "eager")
    for how in ("model", "run"):
        options = ("digits", "--steps", 2, "-n", 2, "-o", "c.png")
        assert kdiff("sample", *options, "--compile", how)[0] == 0
        assert read_manifest("c.png")["compile"] == how
        assert kdiff("replay", "c.png")[0] == 0
    assert kd.SampleJob.from_manifest(read_manifest("c.png")).compile == "run"
    kdiff("sample", *options)
    assert kd.SampleJob.from_manifest(read_manifest("c.png")).compile is False
    status, _, error = kdiff("sample", "digits", "--compile", "graph")
    assert status != 0
    assert "compile='graph': give 'model'" in error


def test_trajectories(kdiff):
    """The way from noise has as many frames or columns as levels, and the sheet replays."""
    status, out, _ = kdiff(
        "sample", "digits", "-n", 9, "--steps", 6, "-s", "euler_ancestral", "--trajectory", "t.gif"
    )
    assert (status, "7 frames" in out) == (0, True)
    assert kdiff("replay", "t.gif")[0] == 0
    with Image.open("t.gif") as animation:
        assert animation.n_frames == 7
        animation.seek(6)
        assert animation.info["duration"] > 1000
    assert kdiff("sample", "digits", "-n", 9, "--steps", 6, "--trajectory", "t.png")[0] == 0
    cells = tiles("t.png", 7, 8)
    assert len({cell.tobytes() for cell in cells}) == 56
    assert kdiff("replay", "t.png")[0] == 0


def test_the_plan_is_saved(kdiff):
    """--save-plan writes the plan that was run."""
    assert kdiff("sample", "digits", "-n", 1, "--steps", 4, "-s", "heun", "--save-plan", "p.json")[0] == 0
    plan = kd.Plan.from_dict(json.loads(Path("p.json").read_text()))
    assert plan.evaluations == 7
    status, _, err = kdiff("replay", "p.json")
    assert (status, "is a plan" in err) == (2, True)


def test_the_models_own_file_name(kdiff):
    """The picture is called after the model."""
    assert kdiff("sample", "kdiff-core:digits-exact", "-n", 1, "--steps", 2)[0] == 0
    assert Path("kdiff-core-digits-exact.png").exists()


def test_samples_that_are_no_images(kdiff):
    """Samples of another shape become an NPZ file by default, and no picture."""
    np.save("points.npy", np.random.default_rng(0).normal(size=(20, 3, 4, 5)).astype(np.float32))
    data = "model.data=points.npy"
    assert kdiff("sample", "empirical", "-n", 2, "--steps", 2, "--set", data)[0] == 0
    Path("empirical.png").unlink()
    np.save("points.npy", np.random.default_rng(0).normal(size=(20, 7)).astype(np.float32))
    status, out, _ = kdiff("sample", "empirical", "-n", 2, "--steps", 2, "--set", data)
    assert (status, "wrote empirical.npz" in out) == (0, True)
    status, _, err = kdiff("sample", "empirical", "-n", 2, "-o", "x.png", "--set", data)
    assert (status, ".npz" in err) == (2, True)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["sample", "digis"], "did you mean 'digits'"),
        (["sample", "-s", "eulr"], "did you mean 'euler'"),
        (["sample", "--schedule", "karas"], "did you mean 'karras'"),
        (["sample", "--class", "12"], "classes are 0 to 9"),
        (["sample", "--guidance", "2"], "--class"),
        (["sample", "--set", "s_churn"], "key=value"),
        (["sample", "--set", "foo=1"], "no option 'foo'"),
        (["sample", "--set", "clock.foo=1"], "key=value"),
        (["sample", "-o", "x.jpg"], ".png or .npz"),
        (["sample", "-o", "nowhere/x.png"], "no folder"),
        (["sample", "--save-plan", "nowhere/p.json"], "no folder"),
        (["sample", "empirical"], "empirical needs data: give it with --set model.data=FOLDER"),
        (["sample", "empirical", "--set", "data=imgs"], "did you mean --set model.data=imgs"),
        (["sample", "--set", "rho=5"], "did you mean --set schedule.rho=5"),
        (["sample", "--class", "10"], "--class 10: classes are 0 to 9"),
        (["sample", "--class", "cat"], "--class 'cat': classes are 0 to 9"),
        (["sample", "-o", "x.png", "--trajectory", "x.png"], "different names"),
        (["sample", "--trajectory", "x.mp4"], ".png or .gif"),
        (["sample", "--steps", "0"], "--steps"),
        (["sample", "-n", "0"], "-n"),
        (["sample", "--device", "nowhere"], "device='cpu'"),
        (["sample", "--dtype", "int8"], "dtype='int8'"),
        (["replay", "none.png"], "No such file"),
        (["replay", "none.jpg"], ".png, .npz or .gif"),
        (["show", "eulr"], "did you mean 'euler'"),
        (["show", "euler", "--kind", "schedule"], "no schedule 'euler'"),
        (["show", "euler", "--kind", "thing"], "no kind 'thing'"),
        (["plan", "eulr"], "did you mean 'euler'"),
        (["plan", "euler", "--path", "vp"], "'ve' or 'flow'"),
        (["plan", "DPM++ 2M Karras", "--schedule", "karras"], "leave --schedule out"),
        (["samplerz"], "samplers"),
    ],
    ids=" ".join,
)
def test_refusals(kdiff, args, says):
    """What is wrong is said in a line on stderr with what would be right; status 2, no file, no traceback."""
    status, out, err = kdiff(*args)
    assert (status, out) == (2, "")
    assert says in err
    assert "Traceback" not in err
    assert list(Path().iterdir()) == []


def test_debug_shows_the_traceback(monkeypatch, tmp_path):
    """With --debug, wherever it stands, the error is raised as it is."""
    monkeypatch.chdir(tmp_path)
    for args in (["--debug", "show", "eulr"], ["show", "eulr", "--debug"]):
        with pytest.raises(UnknownNameError):
            main(args)


@frozen
class Stranger(kd.StepSampler):
    """A sampler that no plugin offers."""

    def step(self, ctx, x, sigma, sigma_next):
        return ctx.to(x, ctx.denoise(x, sigma), sigma, sigma_next)


def test_a_nameless_object_is_not_replayed(kdiff):
    """A file from a run with an object that has no name is not replayed, and says why."""
    setup = SampleJob(n=1, sampler=Stranger(), steps=2).setup()
    result = setup.run()
    write_npz("s.npz", {"samples": result.x.numpy()}, manifest_of(setup, result))
    status, _, err = kdiff("replay", "s.npz")
    assert (status, "the sampler is the object Stranger()" in err) == (2, True)


def test_samplers(kdiff):
    """The table and its JSON have every sampler, with what its plan says; --hosts adds the hosts' names."""
    status, out, _ = kdiff("samplers")
    assert status == 0
    names = [entry.name for entry in kd.list_samplers()]
    assert [line.split()[0] for line in out.splitlines()[2:]] == names
    rows = {row["name"]: row for row in json.loads(kdiff("samplers", "--json")[1])}
    assert list(rows) == names
    assert (rows["heun"]["calls_per_step"], rows["heun"]["order"], rows["heun"]["stochastic"]) == (
        2,
        2,
        False,
    )
    assert (rows["euler"]["calls_per_step"], rows["dpm_solver_3s"]["calls_per_step"]) == (1, 3)
    assert rows["ddpm"]["stochastic"]
    status, out, _ = kdiff("samplers", "--hosts")
    assert (status, "comfyui:ddpm" in out, "k_euler_a" in out) == (0, True, True)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("schedules", "karras"),
        ("denoisers", "digits-exact"),
        ("denoisers", "mnist"),
        ("noise", "keyed"),
        ("processes", "sd"),
        ("modifiers", "churn"),
        ("guidance", "cfg"),
    ],
)
def test_other_listings(kdiff, command, name):
    """Every kind is listed as a table and as JSON."""
    assert name in kdiff(command)[1]
    status, out, _ = kdiff(command, "--json")
    assert (status, name in {row["name"] for row in json.loads(out)}) == (0, True)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_the_command_that_refusals_name(kdiff, kind):
    """What the refusal of an unknown name says to run lists the kind."""
    with pytest.raises(UnknownNameError) as caught:
        kd.default_registry().entry(kind, "no such thing")
    command = re.search(r"`kdiff (\w+)` lists them", str(caught.value))[1]
    status, out, _ = kdiff(command)
    assert (status, bool(out)) == (0, True)
    assert len(json.loads(kdiff(command, "--json")[1])) == len(kd.default_registry().list(kind))


@pytest.mark.parametrize("columns", ["80", "40"])
@pytest.mark.parametrize("command", [*COMMANDS, "plugins"])
def test_narrow_terminals_cut_nothing(kdiff, monkeypatch, command, columns):
    """Nothing ends in an ellipsis; on 80 columns no line is longer than that, and names are whole."""
    monkeypatch.setenv("COLUMNS", columns)
    for hosts in ((), ("--hosts",)) if command != "plugins" else ((),):
        _, out, _ = kdiff(command, *hosts)
        assert "\N{HORIZONTAL ELLIPSIS}" not in out
        if columns == "80":
            assert max(map(len, out.splitlines())) <= 80
            rows = json.loads(kdiff(command, *hosts, "--json")[1])
            column = {line.split()[0] for line in out.splitlines() if line[:1].strip()}
            assert {row.get("name", "kdiff-core") for row in rows} <= column
    if command == "samplers" and columns == "80":
        head = kdiff(command)[1].splitlines()[0].split()
        assert head == ["name", "order", "calls", "noise", "reference", "summary"]
    if command == "plugins" and columns == "80":
        assert out.count(" ok ") == len(kd.list_plugins())


def test_a_broken_sampler_costs_its_own_line_only(kdiff, registry):
    """A sampler with a bug in its step is listed and shown with its error, the others as ever."""
    registry.register(Bugs(), "bugs")
    status, out, _ = kdiff("samplers")
    (line,) = [line for line in out.splitlines() if line.startswith("buggy")]
    assert (status, "?" in line, "broken: ZeroDivisionError" in line) == (0, True, True)
    listed = {line.partition(" ")[0] for line in out.splitlines()}
    assert {entry.name for entry in registry.list("sampler")} <= listed
    rows = {row["name"]: row for row in json.loads(kdiff("samplers", "--json")[1])}
    assert "ZeroDivisionError" in rows["buggy"]["error"]
    assert (rows["buggy"]["calls_per_step"], rows["heun"]["calls_per_step"]) == (None, 2)
    assert "ModuleNotFoundError" in rows["gone"]["error"]
    for name, error in (("buggy", "ZeroDivisionError"), ("gone", "ModuleNotFoundError")):
        status, out, _ = kdiff("show", name)
        assert (status, error in out) == (0, True)


def test_show_lists_what_modifiers_add(kdiff):
    """A one-step sampler is shown with the options of the modifiers; one with memory refuses those."""
    out = kdiff("show", "heun")[1]
    line = next(line for line in out.splitlines() if line.startswith("s_churn"))
    assert line.split() == ["s_churn", "float", "0.0", "churn"]
    assert "s_churn" not in kdiff("show", "dpmpp_2m")[1]
    assert "s_churn" not in kdiff("sample", "digits", "--set", "foo=1")[2]
    assert "s_churn" in kdiff("sample", "digits", "-s", "heun", "--set", "foo=1")[2]


def test_one_of_each_is_not_plural(kdiff):
    """One sample in one step."""
    out = kdiff("sample", "digits", "-n", 1, "--steps", 1)[1]
    assert "1 sample of digits" in out
    assert "1 step, 1 evaluation," in out


def test_an_unwritable_folder_is_refused_first(kdiff, monkeypatch):
    """A folder that cannot be written to is refused before the model is built."""
    Path("locked").mkdir()
    monkeypatch.setattr("os.access", lambda *args: False)
    status, _, err = kdiff("sample", "nothing-of-the-kind", "-o", "locked/x.png")
    assert (status, "locked/x.png: the folder locked cannot be written to" in err) == (2, True)


def test_errors_of_writing_name_the_users_file(tmp_path):
    """What the system refuses is said of the name that was given, and nothing is left behind."""
    (tmp_path / "x").mkdir()
    for place in (tmp_path / "x", tmp_path / "no" / "y.png"):
        with pytest.raises(OSError, match=r"'$") as caught:
            write_whole(place, b"data")
        assert caught.value.filename == str(place)
    assert [place.name for place in tmp_path.iterdir()] == ["x"]


def test_the_data_of_a_replay(kdiff, monkeypatch):
    """Data is found from any folder, and a replay says so when it has changed."""
    for name, level in (("cat", 0), ("dog", 200)):
        Path("data", name).mkdir(parents=True)
        Image.new("L", (4, 4), level).save(Path("data", name, "a.png"))
    args = ("-n", 2, "--steps", 3, "--set", "model.data=data", "--class", "dog", "-o", "x.png")
    assert kdiff("sample", "empirical", *args)[0] == 0
    assert read_manifest("x.png")["label"] == "dog"
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert kdiff("replay", "../x.png")[0] == 0
    Image.new("L", (4, 4), 90).save(Path("..", "data", "dog", "a.png"))
    status, out, _ = kdiff("replay", "../x.png")
    assert (status, "the data of the model has changed" in out) == (1, True)


def test_manifests_are_strict_json(kdiff):
    """No NaN and no Infinity, also where an option is infinite; it replays."""

    def refuse(word):
        raise AssertionError(word)

    more = ("--set", "s_churn=5", "--set", "s_tmax=inf")
    assert kdiff("sample", "digits", "-n", 1, "--steps", 3, "-s", "heun", *more)[0] == 0
    with Image.open("digits.png") as image:
        image.load()
        found = json.loads(image.text["kdiff"], parse_constant=refuse)
    assert found["sampler"]["parameters"]["s_tmax"] == "inf"
    assert kdiff("replay", "digits.png")[0] == 0


def test_plugins(kdiff):
    """One line for each plugin."""
    status, out, _ = kdiff("plugins")
    lines = out.splitlines()[2:]
    assert (status, len(lines)) == (0, len(kd.list_plugins()))
    assert any("samplers = kdiff_samplers.plugin" in line and " ok " in line for line in lines)
    rows = json.loads(kdiff("plugins", "--json")[1])
    assert {row["state"] for row in rows if row["distribution"] == "kdiff-core"} == {"ok"}


def test_a_broken_plugin_takes_one_line(kdiff, monkeypatch):
    """A broken plugin is a line with the last line of its error, and warns nobody."""
    from kdiff_core.registry import PluginRecord, Registry

    broken = PluginRecord(
        "bad", "1.0", "bad", "kdiff_bad", "broken", "ImportError: first\nno module named moon " * 9
    )
    monkeypatch.setattr(Registry, "plugins", lambda self: [broken])
    status, out, err = kdiff("plugins")
    assert (status, err, len(out.splitlines())) == (0, "", 3)
    assert "broken" in out
    assert "no module named moon" in out
    traced = evolve(broken, traceback="Traceback\n  where it is\nImportError\n")
    monkeypatch.setattr(Registry, "plugins", lambda self: [traced])
    out = kdiff("plugins")[1]
    assert out.splitlines()[3:] == ["", "bad = kdiff_bad:", *traced.traceback.splitlines()]
    assert json.loads(kdiff("plugins", "--json")[1])[0]["traceback"] == traced.traceback


@pytest.mark.parametrize("name", [entry.name for entry in kd.list_samplers(hosts=True)])
def test_show_every_sampler(kdiff, name):
    """Everything about a sampler: source, parameters, properties."""
    status, out, _ = kdiff("show", name, "--kind", "sampler")
    assert status == 0
    for word in (name, "provider:", "calls/step:", ".py", "stochastic:"):
        assert word in out


def test_show_finds_all_kinds(kdiff):
    """A name that several kinds share is shown for each, an alias for what it stands for."""
    status, out, _ = kdiff("show", "linear")
    assert (status, "schedule, version 1" in out, "process, version 1" in out) == (0, True, True)
    assert "dpmpp_2m" in kdiff("show", "DPM++ 2M")[1]
    assert "required" in kdiff("show", "cfg")[1]


def test_plan(kdiff):
    """The plan as a table and as JSON, on both paths, with options."""
    status, out, _ = kdiff("plan", "heun", "--steps", 3, "--set", "s_churn=40")
    assert (status, "churned" in out, "step 2" in out) == (0, True, True)
    status, out, _ = kdiff("plan", "DPM++ 2M Karras", "--steps", 3, "--path", "flow", "--json")
    plan = kd.Plan.from_dict(json.loads(out))
    assert (status, plan.levels[0], plan.evaluations) == (0, 1.0, 3)
    expected = kd.get_schedule("exponential")(4, sigma_min=0.5, sigma_max=8.0)
    _, out, _ = kdiff(
        "plan",
        "lms",
        "--steps",
        4,
        "--schedule",
        "exponential",
        "--sigma-min",
        0.5,
        "--sigma-max",
        8,
        "--json",
    )
    assert kd.Plan.from_dict(json.loads(out)) == kd.plan("lms", expected)


@pytest.mark.parametrize("command", ["sample", "replay", "show", "plan", "plugins", *COMMANDS])
def test_help_teaches_by_example(kdiff, command):
    """Every command has a help with an example."""
    status, out, _ = kdiff(command, "--help")
    assert (status, "Example" in out, f"kdiff {command}" in out) == (0, True, True)


def test_version_and_help(kdiff):
    """--version prints the version, --help the commands."""
    assert kdiff("--version")[:2] == (0, f"kdiff {kd.__version__}\n")
    status, out, _ = kdiff("--help")
    assert (status, "replay" in out) == (0, True)


@pytest.mark.parametrize(
    "args", [["samplers", "--hosts"], ["plugins"], ["show", "heun"], ["plan", "lms"], ["schedules"]]
)
def test_listing_loads_no_torch(args):
    """What lists, shows and plans loads neither torch nor NumPy."""
    code = (
        "import sys\nfrom kdiff_core.cli import main\ntry:\n    main(sys.argv[1:])\nfinally:\n"
        "    sys.stderr.write(' '.join(m for m in ('torch', 'numpy', 'scipy', 'PIL') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "offered", "not_offered"),
    [
        ("sample -s dpmpp_2", "dpmpp_2m_sde", "euler"),
        ("sample --schedule kar", "karras", "exponential"),
        ("sample dig", "digits-exact", "empirical"),
        ("show scaled", "scaled_linear", "cosine"),
        ("sam", "samplers", "show"),
    ],
)
def test_completion(words, offered, not_offered, monkeypatch):
    """A shell completes commands and the names that are registered."""
    line = f"kdiff {words}"
    monkeypatch.setenv("_KDIFF_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
    done = subprocess.run(
        [sys.executable, "-m", "kdiff_core.cli"], capture_output=True, text=True, check=False
    )
    found = done.stdout.split()
    assert (offered in found, not_offered in found) == (True, False)


def test_without_the_extra():
    """Without typer the command says what to install, with status 2."""
    code = "import sys; sys.modules['typer'] = None; from kdiff_core.cli import main; main(['samplers'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert 'pip install "kdiff-core[cli]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_as_a_module(tmp_path):
    """``python -m kdiff_core.cli`` samples, in a process of its own."""
    args = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "kdiff_core.cli",
        "sample",
        "digits",
        "-n",
        "4",
        "--steps",
        "3",
    ]
    done = subprocess.run(args, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert (done.stderr, (tmp_path / "digits.png").exists()) == ("", True)


def test_a_grid_of_ten_steps_counts_calls():
    """A sampler that cannot be traced has no number of calls a step."""

    class Clamped(Stranger):
        linear = False

        def step(self, ctx, x, sigma, sigma_next):
            return x.clamp(-1, 1)

    assert calls_per_step(Stranger()) == 1
    assert calls_per_step(Clamped()) is None


@given(
    st.dictionaries(
        st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True).filter(str.isidentifier),
        st.one_of(
            st.integers(),
            st.booleans(),
            st.none(),
            st.floats(allow_nan=False),
            st.lists(st.integers()),
            st.just("path/x.npy"),
        ),
        max_size=4,
    )
)
def test_options_read_back_what_python_writes(options):
    """--set takes any Python literal as it is written, and anything else as a string."""
    for owner in ("sampler", "schedule", "model"):
        found = parse_options(f"{owner}.{key}={value}" for key, value in options.items())
        assert found[owner] == options
    assert parse_options(f"{key}={value}" for key, value in options.items())["sampler"] == options


@given(st.text(max_size=20))
def test_any_option_is_read_or_refused(word):
    """A name before an equals sign is an option; any other text is refused with the way to write one."""
    owner, _, name = word.partition("=")[0].strip().rpartition(".")
    if "=" in word and name.isidentifier() and (owner or "." not in word.partition("=")[0]):
        assert owner in ("", "sampler", "schedule", "model") or _refused(word)
    else:
        assert _refused(word)


def _refused(word):
    with pytest.raises(ParameterError, match="key=value"):
        parse_options([word])
    return True
