"""What a user sees after `pip install` of kdiff and of plugins, good and bad.

The distributions are built and installed into fresh environments, without network: those see the packages
of the running environment, all but kdiff, through a folder of links.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from textwrap import dedent

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PLUGINS = ("tenliner", "broken", "taken", "misspelt", "parts")
PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input")
OFFLINE = ("--no-deps", "--no-index", "--no-build-isolation")

PARTS = {
    "model": "plain",
    "data": {"dataset": {"name": "stripes", "n": 32}},
    "loss": "absolute",
    "augmentation": "upside",
    "drop": {"label": 0.1},
    "optimizer": {"lr": 1e-2},
    "rate": "constant",
    "batch": {"size": 16},
    "images": 8000,
    "log": {"every": 800},
}

pytestmark = pytest.mark.packaging


def environment(**more):
    """The variables for a child: none that leads to the source tree or switches plugins."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "KDIFF_", "COVERAGE", "PIP_"))}
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1", **more}


def link_packages(folder):
    """Fill a folder with links to every installed package but kdiff's own, editable or not."""
    folder.mkdir()
    for path in map(Path, sys.path):
        if path.name not in ("site-packages", "dist-packages") or not path.is_dir():
            continue
        for entry in path.iterdir():
            # A .pth file may lead to the source tree, an editable finder surely does.
            ours = "kdiff" in entry.name.lower() and "k_diffusion" not in entry.name
            if ours or entry.suffix == ".pth" or entry.name.startswith(("__editable__", "_editable_")):
                continue
            if not (folder / entry.name).exists():
                (folder / entry.name).symlink_to(entry)


class Environment:
    """A virtual environment in which to install distributions and to run Python."""

    def __init__(self, path):
        venv.create(path, symlinks=True)
        self.path = path
        scripts = "Scripts" if os.name == "nt" else "bin"
        self.python = path / scripts / Path(sys.executable).name
        self.command = path / scripts / "kdiff"
        variables = {"base": str(path), "platbase": str(path)}
        self.site = Path(sysconfig.get_path("purelib", "venv", variables))
        link_packages(path / "packages")
        (self.site / "packages.pth").write_text(f"{path / 'packages'}\n")

    def run(self, *arguments, check=True, **variables):
        """Run Python with these arguments, outside of the source tree."""
        result = subprocess.run(
            [self.python, *arguments],
            capture_output=True,
            text=True,
            cwd=self.path,
            env=environment(**variables),
            check=False,
            timeout=300,
        )
        if check:
            assert result.returncode == 0, f"{arguments}\n{result.stdout}\n{result.stderr}"
        return result

    def snippet(self, code, **more):
        """Run a few lines of Python."""
        return self.run("-c", dedent(code), **more)

    def install(self, *what):
        """Install distributions, without network."""
        self.run(*PIP, "install", "--quiet", *OFFLINE, *map(str, what))


@pytest.fixture(scope="session", name="wheel")
def fixture_wheel(tmp_path_factory):
    """The wheel of kdiff-core, built from the source tree."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, *PIP, "wheel", "--quiet", *OFFLINE, "--wheel-dir", str(folder), str(ROOT)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment(), timeout=300, cwd=folder
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = folder.glob("kdiff_core-*.whl")
    return made


@pytest.fixture(scope="session", name="clean")
def fixture_clean(wheel, tmp_path_factory):
    """An environment with the wheel alone."""
    made = Environment(tmp_path_factory.mktemp("clean") / "env")
    made.install(wheel)
    return made


@pytest.fixture(scope="session", name="mixed")
def fixture_mixed(wheel, tmp_path_factory):
    """An environment with the wheel and all plugins beside each other."""
    made = Environment(tmp_path_factory.mktemp("mixed") / "env")
    # Copied, so that a build leaves nothing in the source tree.
    copies = tmp_path_factory.mktemp("plugins")
    for name in PLUGINS:
        shutil.copytree(HERE / name, copies / name)
    made.install(wheel, *(copies / name for name in PLUGINS))
    return made


def alone(name):
    """The switch that leaves only one of the plugins."""
    return {"KDIFF_PLUGINS": f"{name}-dist"}


# -- the wheel


def test_the_wheel_has_all_built_ins(clean):
    """Every built-in of every kind is found in the wheel, and its factory can be imported from there."""
    result = clean.snippet(
        """
        import warnings
        warnings.simplefilter("error")
        import kdiff_core as kd
        from kdiff_core.registry import KINDS
        registry = kd.default_registry()
        for record in registry.plugins():
            assert record.state == "ok" and record.distribution == "kdiff-core", record
        for kind in KINDS:
            for entry in registry.list(kind, hosts=True):
                assert callable(entry.load()), entry
                print(kind, entry.name)
        assert kd.list_samplers()
        """
    )
    names = result.stdout.splitlines()
    assert "sampler euler" in names
    assert "schedule karras" in names


def test_the_wheel_stands_alone(clean):
    """No module of kdiff comes from the source tree, and every one is a file that the wheel installed."""
    result = clean.snippet(
        """
        import sys, kdiff_core as kd
        from kdiff_core.registry import KINDS
        for kind in KINDS:
            for entry in kd.default_registry().list(kind, hosts=True):
                entry.load()
        for name, module in sys.modules.items():
            if name.startswith("kdiff") and module.__file__:
                print(module.__file__)
        """
    )
    files = result.stdout.splitlines()
    assert any("kdiff_samplers" in file for file in files)
    assert [file for file in files if not Path(file).is_relative_to(clean.site)] == []


def test_the_command_is_installed(clean):
    """The `kdiff` command lists the samplers."""
    result = clean.run(str(clean.command), "samplers")
    assert "euler" in result.stdout


# -- a sampler in ten lines


def test_a_third_partys_sampler_is_found(mixed):
    """An installed plugin's sampler is found by name, with distribution and version, and samples."""
    result = mixed.snippet(
        """
        import torch, kdiff_core as kd
        sampler = kd.get_sampler("log midpoint")
        x = sampler(lambda x, sigma: torch.zeros_like(x), torch.ones(2, 3), [10.0, 1.0, 0.0])
        record = kd.default_registry().provider("sampler", "log_midpoint")
        print(type(sampler).__module__, record.distribution, record.version, x.abs().max().item())
        """,
        **alone("tenliner"),
    )
    assert result.stdout.split() == ["kdiff_tenliner", "tenliner-dist", "0.3", "0.0"]
    assert "Warning" not in result.stderr


def its_own_tests(where, *options):
    """Run the plugin's own tests where it is installed; what pytest prints."""
    config, tests = HERE / "tenliner" / "pyproject.toml", HERE / "tenliner" / "tests"
    fixed = ("-m", "pytest", "-p", "no:cacheprovider", "--strict-markers", "-c", str(config), str(tests))
    return where.run(*fixed, *options, OMP_NUM_THREADS="1", **alone("tenliner")).stdout


def count(printed, outcome):
    """How many tests had an outcome."""
    return sum(map(int, re.findall(rf"(\d+) {outcome}", printed.splitlines()[-1])))


def test_its_own_tests_pass(mixed):
    """Every check of the kit that applies is a test, and passes; those left out are the slow ones."""
    printed = its_own_tests(mixed)
    found = mixed.snippet(
        """
        from kdiff_tenliner import Midpoint
        from kdiff_core.testing import checks_for
        checks = list(checks_for(Midpoint()))
        print(sum(not check.slow for check in checks), sum(check.slow for check in checks))
        """,
        **alone("tenliner"),
    )
    quick, slow = map(int, found.stdout.split())
    assert quick >= 10
    assert (count(printed, "passed"), count(printed, "skipped")) == (quick, slow)


def test_its_own_tests_take_options(mixed):
    """The kit's options and marks come with the wheel's entry point."""
    options = ("--kdiff-examples", "3", "--kdiff-dtype", "float64", "--kdiff-seed", "4")
    printed = its_own_tests(mixed, *options, "-m", "kdiff", "-k", "parameters_round_trip")
    assert "kdiff: device cpu, float64, 3 examples, seed 4" in printed.splitlines()
    assert count(printed, "passed") == 1


def test_the_command_lists_plugins(mixed):
    """`kdiff plugins` shows each plugin's distribution, version and state, the broken ones too."""
    shown = mixed.run(str(mixed.command), "plugins", COLUMNS="200").stdout
    for name, version, state in (
        ("tenliner", "0.3", "ok"),
        ("broken", "1.4", "broken"),
        ("taken", "0.1", "ok"),
        ("parts", "0.5", "ok"),
    ):
        (line,) = [text for text in shown.splitlines() if f"{name}-dist" in text]
        assert version in line
        assert state in line


# -- the parts of a training


def test_a_third_partys_parts_are_found(mixed):
    """A loss, data set, network, condition and augmentation come by name from an installed distribution."""
    result = mixed.snippet(
        """
        import kdiff_core as kd
        found = {
            "loss": ("absolute", kd.get_loss("absolute")),
            "dataset": ("stripes", kd.get_dataset("stripes", n=8)),
            "model": ("plain", kd.get_model("plain")),
            "condition": ("one_hot", kd.get_condition("one_hot", width=8, classes=4)),
            "augmentation": ("upside", kd.get_augmentation("upside")),
        }
        for kind, (name, part) in found.items():
            record = kd.default_registry().provider(kind, name)
            print(kind, type(part).__module__, record.distribution, record.version)
        """,
        **alone("parts"),
    )
    kinds = ("loss", "dataset", "model", "condition", "augmentation")
    assert result.stdout.splitlines() == [f"{kind} kdiff_parts parts-dist 0.5" for kind in kinds]
    assert "Warning" not in result.stderr


def test_a_training_of_a_third_partys_parts(mixed, tmp_path):
    """A run of nothing but those parts learns; its model file draws each class where its light column is."""
    pytest.importorskip("accelerate")
    result = mixed.snippet(
        f"""
        import kdiff_core as kd
        from kdiff_train.config_file import make_config
        from kdiff_train.trainer import Trainer
        config = make_config({PARTS})
        losses = []
        note = lambda event: event.kind == "log" and losses.append(event.values["loss"])
        done = Trainer(config, {str(tmp_path)!r}, callbacks=[note]).run()
        assert losses[-1] < 0.7 * losses[0], losses
        drawn = kd.sample(str(done.model), n=4, sampler="euler", steps=8, seed=1, label=[0, 1, 2, 3])
        print(*drawn.mean((1, 2)).argmax(1).tolist())
        """,
        OMP_NUM_THREADS="1",
        **alone("parts"),
    )
    assert result.stdout.split() == ["0", "1", "2", "3"]


# -- bad company


def test_all_at_once(mixed):
    """Beside two broken plugins and one with a taken name, everything else works, with a warning for each."""
    result = mixed.snippet(
        """
        import warnings, kdiff_core as kd
        from kdiff_core.registry import KdiffPluginWarning
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(2):
                kd.get_sampler("euler"), kd.get_sampler("log_midpoint"), kd.get_loss("absolute")
        assert all(w.category is KdiffPluginWarning for w in caught), caught
        print(*(str(w.message).splitlines()[0] for w in caught), sep="\\n")
        """
    )
    first, second, third = result.stdout.splitlines()
    assert first.startswith("plugin broken-dist 1.4 (entry point 'lost_sampler', kdiff_broken) is broken")
    assert second.startswith("plugin misspelt-dist 0.2")
    assert third.startswith("plugin taken-dist 0.1")


def test_a_broken_plugin(mixed):
    """It is warned of once; euler works; its own name raises PluginError with the original error as cause."""
    result = mixed.snippet(
        """
        import kdiff_core as kd
        kd.get_sampler("euler"); kd.get_sampler("heun")
        for name in ("lost_sampler", "broken-dist:lost"):
            try:
                kd.get_sampler(name)
            except kd.PluginError as error:
                print(type(error).__name__, repr(error.__cause__))
        """,
        **alone("broken"),
    )
    cause = "PluginError RuntimeError('this plugin needs a driver that is not installed')"
    assert result.stdout.splitlines() == [cause] * 2
    assert result.stderr.count("KdiffPluginWarning") == 1
    assert "this plugin needs a driver" in result.stderr


def test_a_broken_plugin_when_strict(mixed):
    """With KDIFF_STRICT=1 the first look-up raises it; blocked, it is not even imported."""
    strict = mixed.snippet(
        "import kdiff_core as kd; kd.get_sampler('euler')", check=False, KDIFF_STRICT="1", **alone("broken")
    )
    assert strict.returncode == 1
    assert "PluginError: plugin broken-dist 1.4" in strict.stderr
    blocked = mixed.snippet(
        "import sys, kdiff_core as kd; kd.get_sampler('euler'); print('kdiff_broken' in sys.modules)",
        KDIFF_STRICT="1",
        KDIFF_BLOCK="broken-dist,misspelt-dist",
        KDIFF_PREFER="kdiff-core:euler",
    )
    assert blocked.stdout.strip() == "False"
    assert blocked.stderr == ""


def test_a_name_that_is_taken(mixed):
    """A built-in keeps its name, the plugin's is at taken-dist:euler, the warning has both; a choice wins."""
    code = """
        import kdiff_core as kd
        print(type(kd.get_sampler("euler")).__module__, type(kd.get_sampler("taken-dist:euler")).__module__)
        """
    result = mixed.snippet(code, **alone("taken"))
    bare, full = result.stdout.split()
    assert bare.startswith("kdiff_samplers.")
    assert full == "kdiff_taken"
    assert "'kdiff-core:euler'" in result.stderr
    assert "'taken-dist:euler'" in result.stderr
    chosen = mixed.snippet(code, KDIFF_PREFER="taken-dist:euler", **alone("taken"))
    assert chosen.stdout.split() == ["kdiff_taken", "kdiff_taken"]
    assert chosen.stderr == ""


def test_a_misspelt_hook(mixed):
    """The error names the hook that there is none of and proposes the right one."""
    result = mixed.snippet(
        """
        import kdiff_core as kd
        try:
            kd.get_sampler("unheard_of")
        except kd.UnknownNameError as error:
            print(error)
        """,
        **alone("misspelt"),
    )
    for text in (result.stdout, result.stderr):
        assert "there is no hook 'kdiff_sampler'; did you mean 'kdiff_samplers'?" in text
