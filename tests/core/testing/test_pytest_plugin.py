"""The pytest plugin: tests of a third party's samplers, the options, and what start-up costs."""

from __future__ import annotations

import json
import os
import re
import sys
from textwrap import dedent

import pytest
import torch

import kdiff_core.testing as kit
from kdiff_core.testing import catalogue, pytest_plugin

HEADER = """
from attrs import define, frozen
from hypothesis import strategies as st
from kdiff_core import StepSampler
from kdiff_core.testing import LawBroken, Settings, law, parametrize_with_checks


@law("sampler", level=st.integers(0, 1000))
def stays_low(sampler, level, device="cpu", dtype="float64"):
    '''A step that begins below 100 ends below 100.

    The reason.
    '''
    with open("seen.txt", "a") as file:
        print(device, dtype, level, file=file)
    if sampler.order == 3 and level >= 100:
        raise LawBroken("it ends too high", level=level, limit=100)


@law("sampler", slow=True)
def compiles(sampler):
    '''It compiles.'''


@frozen
class Good(StepSampler):
    order = 2

    def step(self, ctx, x, sigma, sigma_next):
        return ctx.to(x, ctx.denoise(x, sigma), sigma, sigma_next)


@frozen
class Bad(Good):
    order = 3


ONLY = ("parameters_round_trip", "stays_low")
"""
# A conftest that writes down what each process of pytest sees.
SEES = """
import json, os
import attrs
from kdiff_core.testing import Settings

def pytest_collection_finish(session):
    with open(os.environ.get("PYTEST_XDIST_WORKER", "main") + ".json", "w") as file:
        json.dump(attrs.asdict(Settings.from_environment()), file)
"""


@pytest.fixture(autouse=True)
def _apart(monkeypatch):
    """Laws of the tests inside are gone behind them; the options of the tests outside do not reach them."""
    catalogue.all_checks()  # before pytester looks: what it finds loaded stays loaded
    monkeypatch.setattr(catalogue, "_CATALOGUE", dict(catalogue._CATALOGUE))
    for name in pytest_plugin.NAMES:
        monkeypatch.delenv(pytest_plugin.PREFIX + name.upper(), raising=False)


@pytest.fixture(name="laws")
def fixture_laws(pytester):
    """Run a file of checks, in this process."""

    def run(body, *options):
        pytester.makepyfile(test_inside=HEADER + dedent(body))
        return pytester.runpytest_inprocess("-ra", "--strict-markers", *options)

    return run


ALL = """
    @parametrize_with_checks([Good(), Bad()], only=ONLY)
    def test_laws(check):
        check()
"""
BAD = """
    @parametrize_with_checks([Bad()], only="stays_low")
    def test_laws(check):
        check()
"""


# -- the checks as tests


def test_a_good_and_a_buggy_sampler(laws):
    """Each check of each sampler is a test, named after both; only the law that is broken fails."""
    result = laws(ALL, "-v")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines_random(
        [
            "*test_laws?parameters_round_trip-Good()? PASSED*",
            "*test_laws?stays_low-Good()? PASSED*",
            "*test_laws?stays_low-Bad()? FAILED*",
        ]
    )


def test_a_failure_says_what_is_needed(laws):
    """It has the law, the simplest example's numbers, the seed and a snippet, and no code of the kit's."""
    shown = laws(BAD, "--kdiff-seed=7").stdout.str()
    assert "law: A step that begins below 100 ends below 100." in shown
    assert "found: it ends too high" in shown
    assert "numbers: level = 100, limit = 100" in shown
    assert "seed: 7;" in shown
    assert "from test_inside import stays_low" in shown
    assert "stays_low(Bad(), level=100)" in shown
    assert "run_check(" not in shown
    assert "hypothesis" not in re.sub(r"^(plugins|rootdir):.*$", "", shown, flags=re.MULTILINE)


def test_an_exception_is_a_failure_with_its_traceback(laws):
    """A check that meets an error of the sampler's own shows it where it was raised."""
    body = """
    @law("sampler")
    def runs(sampler):
        '''It runs.'''
        sampler.go()

    @frozen
    class Broken(Good):
        def go(self):
            raise ZeroDivisionError("nothing is left")

    @parametrize_with_checks([Broken()], only="runs")
    def test_laws(check):
        check()
    """
    result = laws(body)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*found: it raises ZeroDivisionError: nothing is left", "*in go*"])


def test_a_known_failure_is_expected(laws):
    """It is xfailed, with the reason that the sampler gives."""
    body = """
    @frozen
    class Known(Bad):
        known_failures = {"stays_low": "rounds up, see #12"}

    @parametrize_with_checks([Known()], only=ONLY)
    def test_laws(check):
        check()
    """
    result = laws(body)
    result.assert_outcomes(passed=1, xfailed=1)
    result.stdout.fnmatch_lines(["XFAIL *stays_low-Known()* - rounds up, see #12*"])


def test_a_known_failure_that_is_fixed_is_red(laws):
    """Once the law holds the test fails, so that the excuse is taken out."""
    body = """
    @parametrize_with_checks([Good()], only=ONLY, known_failures={"stays_low": "rounds up, see #12"})
    def test_laws(check):
        check()
    """
    result = laws(body)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*XPASS(strict)*rounds up, see #12*"])


@pytest.mark.parametrize(("options", "passed"), [((), 0), (("--kdiff-slow",), 2)])
def test_slow_checks(laws, options, passed):
    """Slow checks, and other tests marked so, run only with --kdiff-slow."""
    body = """
    import pytest

    @parametrize_with_checks([Good()], only="compiles")
    def test_laws(check):
        check()

    @pytest.mark.kdiff_slow
    def test_of_ones_own():
        pass
    """
    result = laws(body, *options)
    result.assert_outcomes(passed=passed, skipped=2 - passed)
    if not passed:
        result.stdout.fnmatch_lines(["SKIPPED*slow; run with --kdiff-slow"])


def test_the_mark_selects(laws):
    """``-m kdiff`` runs the checks and nothing else."""
    laws(ALL + "\n    def test_other():\n        pass\n", "-m", "kdiff").assert_outcomes(
        passed=3, failed=1, deselected=1
    )


# -- the options


def seen(pytester):
    """The examples that a check was given: device, dtype and number."""
    return [tuple(line.split()) for line in (pytester.path / "seen.txt").read_text().splitlines()]


GOOD = BAD.replace("Bad", "Good")


@pytest.mark.parametrize(("place", "note"), [("cpu", pytest_plugin.NO_GPU), ("cuda", "")])
def test_options_reach_the_checks(laws, pytester, monkeypatch, place, note):
    """Examples and dtype are those asked for; cuda without a GPU is the CPU, and the header says so."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: place == "cuda")
    result = laws(GOOD, "--kdiff-examples=7", "--kdiff-dtype=float32", "--kdiff-device=cuda")
    found = seen(pytester)
    assert len(found) == 7
    assert {line[:2] for line in found} == {(place, "float32")}
    assert f"kdiff: device {place}{note}, float32, 7 examples, seed 0" in result.stdout.lines


def test_one_seed_one_set_of_examples(laws, pytester):
    """A seed brings the same examples again, another one others."""
    drawn = []
    for seed in (1, 1, 2):
        laws(GOOD, f"--kdiff-seed={seed}").assert_outcomes(passed=1)
        drawn.append(seen(pytester))
        (pytester.path / "seen.txt").unlink()
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(drawn[0]) == 20


@pytest.mark.parametrize(
    "option",
    [
        "--kdiff-device=tpu",
        "--kdiff-dtype=float16",
        "--kdiff-examples=0",
        "--kdiff-examples=x",
        "--kdiff-seed=x",
    ],
)
def test_an_unknown_value_is_a_usage_error(pytester, option):
    """It is refused before anything runs, and the message has the option."""
    result = pytester.runpytest_inprocess(option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{option.partition('=')[0]}*"])


@pytest.mark.parametrize("variable", ["DTYPE", "EXAMPLES"])
def test_an_unknown_value_of_a_variable_is_one_too(pytester, monkeypatch, variable):
    """What the environment says is looked at in the same way."""
    monkeypatch.setenv(f"KDIFF_CHECK_{variable}", "some")
    result = pytester.runpytest_inprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*in the environment, as KDIFF_CHECK_*some*"])


def test_the_header_is_unobtrusive(pytester):
    """It has a line of kdiff only where something is not as it is by default."""
    for options in ((), ("--kdiff-seed=0", "--kdiff-examples=20", "--kdiff-device=cpu")):
        pytester.runpytest_inprocess(*options).stdout.no_fnmatch_line("kdiff:*")
    result = pytester.runpytest_inprocess("--kdiff-examples=1", "--kdiff-slow")
    result.stdout.fnmatch_lines(["kdiff: device cpu, float64, 1 example, seed 0, slow checks too"])


def test_the_environment_is_as_before(pytester, monkeypatch):
    """What was there comes back, and what was not is gone; an option goes before a variable."""
    monkeypatch.setenv("KDIFF_CHECK_EXAMPLES", "5")
    result = pytester.runpytest_inprocess("--kdiff-examples=3", "--kdiff-dtype=float32")
    result.stdout.fnmatch_lines(["kdiff: device cpu, float32, 3 examples, seed 0"])
    assert os.environ["KDIFF_CHECK_EXAMPLES"] == "5"
    assert "KDIFF_CHECK_DTYPE" not in os.environ
    pytester.runpytest_inprocess().stdout.fnmatch_lines(["kdiff: device cpu, float64, 5 examples, seed 0"])


def test_workers_share_the_choices(pytester):
    """With -n 2 and a random seed the checks run, and both workers see the options and the header's seed."""
    pytester.makepyfile(test_inside=HEADER + dedent(ALL), conftest=SEES)
    options = ("-n2", "--kdiff-seed=random", "--kdiff-examples=40", "--kdiff-dtype=float32", "--kdiff-slow")
    result = pytester.runpytest_subprocess(*options)
    result.assert_outcomes(passed=3, failed=1)
    (header,) = (line for line in result.stdout.lines if line.startswith("kdiff:"))
    seed = int(re.search(r"seed (\d+)", header)[1])
    wanted = kit.Settings(40, seed, "cpu", "float32", slow=True)
    for worker in ("gw0", "gw1"):
        assert kit.Settings(**json.loads((pytester.path / f"{worker}.json").read_text())) == wanted


def test_a_random_seed_is_another_each_time(pytester):
    """Two runs show two seeds."""
    lines = [pytester.runpytest_inprocess("--kdiff-seed=random").stdout.lines for _ in range(2)]
    first, second = (next(line for line in run if line.startswith("kdiff:")) for run in lines)
    assert first != second


# -- start-up


def test_start_up_loads_nothing_heavy(pytester):
    """Collecting an empty folder loads the plugin, but neither torch, Hypothesis, numpy nor attrs."""
    spy = """
    import sys

    def pytest_collection_finish(session):
        assert session.config.pluginmanager.has_plugin("kdiff")
        print("loaded", *sorted({name.partition(".")[0] for name in sys.modules}))
    """
    pytester.makepyfile(spy=dedent(spy))
    shown = pytester.runpytest_subprocess("--collect-only", "-p", "spy").stdout.str()
    loaded = set(re.search(r"^loaded (.*)$", shown, re.MULTILINE)[1].split())
    assert "kdiff_core" in loaded
    assert loaded & {"torch", "hypothesis", "numpy", "scipy", "mpmath", "attr", "attrs"} == set()


def test_the_plugin_costs_no_time(pytester):
    """It loads itself and the two packages that it is in, in a few milliseconds."""
    code = """
    import sys, time
    import pytest
    before, best = set(sys.modules), 1.0
    for _ in range(5):
        for name in set(sys.modules) - before:
            del sys.modules[name]
        begin = time.perf_counter()
        import kdiff_core.testing.pytest_plugin
        best = min(best, time.perf_counter() - begin)
    print(*sorted(name for name in set(sys.modules) - before if not name in sys.stdlib_module_names))
    assert best < 0.05, best
    """
    result = pytester.run(sys.executable, "-c", dedent(code))
    assert result.ret == 0, result.stderr.str()
    assert result.stdout.lines == ["kdiff_core kdiff_core.testing kdiff_core.testing.pytest_plugin"]


def test_the_plugins_prefix_is_the_settings():
    """The plugin writes what `Settings.from_environment` reads."""
    assert pytest_plugin.PREFIX == sys.modules[kit.Settings.__module__].PREFIX
