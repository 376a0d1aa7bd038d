"""The kit itself: its catalogue, its results, its examples, its settings, what it refuses."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import pytest
import torch
from attrs import frozen
from hypothesis import strategies as st
from sampler_mutants import AlphaOne

import kdiff_core.testing as kit
from kdiff_core.errors import CapabilityError, ParameterError, UnknownNameError
from kdiff_core.testing import LawBroken, Settings, catalogue, check, check_sampler, law, run_check
from kdiff_samplers.euler import Euler

CHECKS = catalogue.all_checks()


@frozen
class Short(Euler):
    """Moves a hundredth too little."""

    def step(self, ctx, x, sigma, sigma_next):
        return super().step(ctx, x, sigma, sigma_next) + (x - ctx.denoise(x, sigma)) * 0.01


@pytest.fixture(name="laws")
def fixture_laws(monkeypatch):
    """A catalogue that a test may add to."""
    monkeypatch.setattr(catalogue, "_CATALOGUE", dict(catalogue._CATALOGUE))


def drawn(seed, examples=20, **options):
    """Numbers that a check draws with this seed."""
    seen = []

    @law("sampler", number=st.integers(0, 10**9), **options)
    def notes_its_examples(sampler, number):
        """It is called."""
        seen.append(number)

    check_sampler(Euler(), only="notes_its_examples", seed=seed, examples=examples)
    return seen


# ------------------------------------------------------------------------------------------------- catalogue


@pytest.mark.parametrize("each", CHECKS, ids=lambda c: f"{c.kind}-{c.name}")
def test_each_check_gives_its_law_and_the_reason(each):
    """A check's docstring is one sentence that fits a line, then the reason."""
    assert each.law.endswith(".")
    assert ". " not in each.law
    assert len(each.law) <= 110
    assert each.reason.endswith((".", ".)"))


@pytest.mark.parametrize("each", CHECKS, ids=lambda c: f"{c.kind}-{c.name}")
def test_each_argument_of_a_check_can_be_given(each):
    """The kit has a value for each argument that has no default, and strategies for no other."""
    given = {"path", "device", "dtype", *each.strategies}
    _, *parameters = inspect.signature(each.function).parameters.values()
    assert {p.name for p in parameters if p.default is p.empty} <= given
    assert set(each.strategies) <= {p.name for p in parameters}


@pytest.mark.usefixtures("laws")
def test_a_law_that_cannot_be_registered():
    """A kind that is none, a function without a docstring and a name that is taken are refused."""
    with pytest.raises(ParameterError, match="the kinds are"):
        law("samplers")(lambda sampler: None)
    with pytest.raises(ParameterError, match="needs a docstring"):
        law("sampler")(lambda sampler: None)

    def pure(sampler):
        """It is pure."""

    with pytest.raises(ParameterError, match="'pure' of a sampler"):
        law("sampler")(pure)


# --------------------------------------------------------------------------------------------------- results


def test_results_are_for_machines():
    """A report goes through JSON, and has the law, the numbers, the example and the snippet of a failure."""
    report = check_sampler(Short(), only=("constant_denoiser_is_exact", "step_compiles"), seed=3, slow=False)
    found = json.loads(json.dumps(report.to_dict()))
    assert found["kind"] == "sampler"
    assert found["ok"] is False
    assert found["declared"]["order"] == 1
    assert found["settings"]["seed"] == 3
    failed, skipped = found["results"]
    assert (failed["status"], skipped["status"]) == ("failed", "skipped")
    assert failed["numbers"]["error"] > failed["numbers"]["tolerance"]
    assert failed["example"]["path"] == "ve"
    assert len(failed["example"]["grid"]) > 1
    assert failed["examples"] > 0
    assert failed["seconds"] > 0
    assert "law" in failed
    assert "constant_denoiser_is_exact(" in failed["snippet"]


@pytest.mark.parametrize("name", ["constant_denoiser_is_exact", "same_on_both_paths"])
def test_a_snippet_reproduces_the_failure(name):
    """The script of a failure, run by itself, fails with the same words and the same numbers."""
    found = check_sampler(AlphaOne(), only=name)[name]
    with pytest.raises(LawBroken) as caught:
        exec(found.snippet, {})
    assert str(caught.value) == found.message
    assert caught.value.numbers == found.numbers


def test_a_snippet_of_a_name_asks_for_the_name():
    """A sampler that was asked for by name and options is made in the script as the user made it."""
    from kdiff_core.testing.reproduce import snippet
    from kdiff_core.testing.subjects import subjects_named

    (subject,) = subjects_named("heun", "sampler", s_churn=40)
    text = snippet(catalogue.find_check("sampler", "pure"), subject, {"path": "ve", "seed": 0, "warp": 0.0})
    assert 'kd.get_sampler("heun", s_churn=40.0)' in text
    exec(text, {})


def test_a_failure_for_people():
    """It has the law, the numbers, the seed and a script, and raising it keeps the numbers."""
    found = check_sampler(Short(), only="constant_denoiser_is_exact", seed=4)["constant_denoiser_is_exact"]
    shown = found.explain()
    assert "constant_denoiser_is_exact: Short() breaks a law" in shown
    assert f"law: {found.law}" in shown
    assert "seed: 4;" in shown
    assert "reproduce:" in shown
    with pytest.raises(LawBroken, match="breaks a law") as caught:
        found.raise_if_broken()
    assert caught.value.numbers == found.numbers


def test_a_report_finds_its_results_by_name():
    """A report has a result for each check that ran, and says which ran where one is missing."""
    report = check_sampler("euler", only="describes_itself")
    assert report["describes_itself"].status == "passed"
    assert str(report) == "euler: 1 passed"
    assert report.failures == ()
    report.raise_if_broken()
    with pytest.raises(KeyError, match="describes_itself"):
        report["pure"]


@pytest.mark.usefixtures("laws")
def test_an_exception_in_a_check_is_a_failure():
    """A check that raises something else has failed too, with the traceback and the example it was at."""

    @law("sampler", number=st.integers(0, 9))
    def breaks(sampler, number):
        """It does not break."""
        return {"inverse": 1 / (number - 3)}

    found = check_sampler(Euler(), only="breaks", examples=100)["breaks"]
    assert found.status == "failed"
    assert found.message == "it raises ZeroDivisionError: division by zero"
    assert "ZeroDivisionError" in found.traceback
    assert found.example == {"number": 3}
    assert found.measured["inverse"][0] < 0 < found.measured["inverse"][1]


@pytest.mark.usefixtures("laws")
def test_a_flaky_check_is_said_to_be():
    """A check that fails and then passes on the same example is reported as such."""
    seen = set()

    @law("sampler", number=st.integers(0, 10**9))
    def wavers(sampler, number):
        """It makes up its mind."""
        if number > 10 and number not in seen:
            seen.add(number)
            raise LawBroken("the first time")

    found = check_sampler(Euler(), only="wavers")["wavers"]
    assert found.status == "failed"
    assert "passes on the same example" in found.message
    assert "Flaky" in found.traceback


# -------------------------------------------------------------------------------------------------- examples


@pytest.mark.usefixtures("laws")
def test_one_seed_one_set_of_examples():
    """The same seed gives the same examples, another seed others."""
    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


@pytest.mark.usefixtures("laws")
@pytest.mark.parametrize(("share", "count"), [(1.0, 50), (0.3, 15), (0.001, 1)])
def test_the_budget_is_kept(share, count):
    """A check gets its share of the examples, and one at least."""
    assert len(drawn(0, 50, share=share)) == count


@pytest.mark.usefixtures("laws")
def test_the_budget_is_split_between_the_paths():
    """A check on both paths tries half of its examples on each, and only those that are asked for."""
    seen = []

    @law("sampler", number=st.integers(0, 10**9))
    def walks(sampler, path, number, device="cpu", dtype="float64"):
        """It is called."""
        seen.append((path, device, dtype))

    check_sampler(Euler(), only="walks", examples=20)
    assert [path for path, *_ in seen] == ["ve"] * 10 + ["flow"] * 10
    seen.clear()
    report = check_sampler(Euler(), only="walks", examples=20, paths=("flow",), dtype="float32")
    assert seen == [("flow", "cpu", "float32")] * 20
    assert report["walks"].examples == 20


def test_slow_checks_are_left_out():
    """A check that compiles is skipped, unless it is asked for."""
    assert check_sampler("euler", only="step_compiles", slow=False)["step_compiles"].status == "skipped"


@pytest.mark.parametrize("name", ["euler", "dpmpp_2m", "dpmpp_sde", "heun"])
def test_single_precision(name):
    """In float32 the tolerances are those of float32."""
    report = check_sampler(name, examples=6, dtype="float32")
    assert report.ok, str(report)


# ------------------------------------------------------------------------------------------ expected failures


def test_a_known_failure_is_expected():
    """A check that is known to fail, does, and is no failure; its reason is kept."""
    known = {"constant_denoiser_is_exact": "it is short on purpose"}
    report = check_sampler(Short(), only="constant_denoiser_is_exact", known_failures=known)
    found = report["constant_denoiser_is_exact"]
    assert report.ok
    assert (found.status, found.why) == ("expected", "it is short on purpose")
    assert found.message


def test_a_known_failure_that_passes_is_reported():
    """A check that is said to fail, and passes, is to be taken off the list."""
    report = check_sampler("euler", only="describes_itself", known_failures={"describes_itself": "no docs"})
    assert report["describes_itself"].status == "fixed"
    assert not report.ok
    with pytest.raises(LawBroken, match="take it out of known_failures"):
        report.raise_if_broken()


def test_a_sampler_may_list_its_own_known_failures():
    """What a sampler says of itself is added to what the caller says."""

    @frozen
    class Honest(Short):
        known_failures = {"constant_denoiser_is_exact": "moves too little"}

    report = check_sampler(Honest(), only=("constant_denoiser_is_exact", "describes_itself"))
    assert report["constant_denoiser_is_exact"].status == "expected"
    assert report["describes_itself"].status == "failed"


@pytest.mark.parametrize(
    ("known", "word"), [({"purr": "?"}, "did you mean 'pure'"), ({"pure": " "}, "needs a reason")]
)
def test_known_failures_that_are_refused(known, word):
    """A check that there is not, and a failure without a reason, are errors."""
    with pytest.raises(ParameterError, match=word):
        check_sampler("euler", known_failures=known)


# ------------------------------------------------------------------------------------------- what is refused


def test_only_some_checks():
    """`only` is a name or several; others do not run, and the order is the catalogue's."""
    report = check_sampler("euler", only=["describes_itself", "plan_does_not_grow"])
    assert [result.check for result in report.results] == ["plan_does_not_grow", "describes_itself"]
    with pytest.raises(ParameterError, match="did you mean 'describes_itself'"):
        check_sampler("euler", only="describes_itsself")
    with pytest.raises(ParameterError, match="none of these checks applies"):
        check_sampler("euler", only="output_distribution")


def test_options_that_there_are_not():
    """An unknown setting, and one that is none, are refused."""
    with pytest.raises(ParameterError, match="did you mean 'examples'"):
        check_sampler("euler", example=3)
    for wrong in (
        {"examples": 0},
        {"examples": 1.5},
        {"device": "tpu"},
        {"dtype": "float16"},
        {"paths": ("vp",)},
    ):
        with pytest.raises(ParameterError, match=next(iter(wrong))):
            check_sampler("euler", **wrong)


class Half:
    """Has a step, and little else."""

    order = 1
    stochastic = False

    def step(self, ctx, x, sigma, sigma_next):
        return x


def test_what_is_no_sampler_is_refused_before_any_check():
    """An object that lacks something is told what; a class is told to be called."""
    ran = []
    with pytest.raises(ParameterError, match="is no sampler: it lacks") as caught:
        check_sampler(Half(), on_result=ran.append)
    assert "'memory'" in str(caught.value)
    assert "'order'" not in str(caught.value)
    with pytest.raises(ParameterError, match=r"Euler is a class; the kit checks a value: Euler\(\)"):
        check_sampler(Euler, on_result=ran.append)
    with pytest.raises(ParameterError, match="cannot tell what"):
        check(Half())
    with pytest.raises(UnknownNameError, match="eulr"):
        check_sampler("eulr")
    assert not ran


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    """Without a GPU, asking for it is an error before any check, not a failure of one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    ran = []
    with pytest.raises(CapabilityError, match="there is no GPU"):
        check_sampler("euler", device="cuda", on_result=ran.append)
    assert not ran


def test_results_come_one_by_one():
    """`on_result` sees each result as it comes, and `run_check` runs one check."""
    seen = []
    report = check_sampler("euler", only=("describes_itself", "parameters_round_trip"), on_result=seen.append)
    assert tuple(seen) == report.results
    alone = run_check(catalogue.find_check("sampler", "describes_itself"), "euler")
    assert alone.status == "passed"


# -------------------------------------------------------------------------------------------------- settings


@pytest.fixture(name="environment")
def fixture_environment(monkeypatch):
    """Set some of the kit's variables, and no others."""
    for name in ("EXAMPLES", "SEED", "DEVICE", "DTYPE", "SLOW"):
        monkeypatch.delenv(f"KDIFF_CHECK_{name}", raising=False)

    def put(**values):
        for name, value in values.items():
            monkeypatch.setenv(f"KDIFF_CHECK_{name}", value)

    return put


def test_settings_of_the_environment(environment):
    """The variables are read, empty ones are not there, and what is given by hand wins."""
    assert Settings.from_environment() == Settings()
    environment(EXAMPLES="7", SEED="3", DTYPE="float32", SLOW="1", DEVICE="")
    assert Settings.from_environment() == Settings(examples=7, seed=3, dtype="float32", slow=True)
    report = check_sampler("euler", only="describes_itself", seed=5)
    assert report.settings == Settings(examples=7, seed=5, dtype="float32", slow=True)
    environment(SLOW="0")
    assert not Settings.from_environment().slow


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("EXAMPLES", "many", "KDIFF_CHECK_EXAMPLES='many': give a whole number"),
        ("EXAMPLES", "0", "at least 1"),
        ("SEED", "1.5", "KDIFF_CHECK_SEED"),
        ("SLOW", "yes", "KDIFF_CHECK_SLOW"),
        ("DEVICE", "tpu", "cpu, cuda"),
        ("DTYPE", "half", "float64, float32"),
    ],
)
def test_an_environment_that_is_refused(environment, name, value, word):
    """A variable that is no setting is an error that names it, or the choices."""
    environment(**{name: value})
    with pytest.raises(ParameterError, match=word):
        check_sampler("euler")


# --------------------------------------------------------------------------------------------------- imports


def python(script):
    """What a script prints in a process of its own."""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_importing_the_kit_loads_next_to_nothing():
    """Neither torch nor Hypothesis is loaded by the import, and the names are all there."""
    script = (
        "import sys, kdiff_core.testing as kit\n"
        "print([name for name in ('torch', 'hypothesis', 'mpmath', 'pytest') if name in sys.modules])\n"
        "print(dir(kit) == sorted(kit.__all__))"
    )
    assert python(script).split() == ["[]", "True"]


WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {module!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
import kdiff_core.testing as kit
from kdiff_core.errors import MissingExtraError
try:
    kit.{name}
except MissingExtraError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("module", "name"), [("hypothesis", "check_sampler"), ("pytest", "parametrize_with_checks")]
)
def test_without_the_extra_the_error_says_how_to_get_it(module, name):
    """Where a package of the extra is missing, the message is the command that installs it."""
    shown = python(WITHOUT.format(module=module, name=name))
    assert f"needs {module}" in shown
    assert 'pip install "kdiff-core[testing]"' in shown


def test_the_public_names_are_there():
    """Each name that the kit exports can be loaded; another is an AttributeError."""
    assert all(getattr(kit, name) is not None for name in kit.__all__)
    with pytest.raises(AttributeError, match="no attribute 'check_samplers'"):
        _ = kit.check_samplers
