"""``kdiff check``: what it checks, what it prints, its exit statuses."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from textwrap import dedent

import pytest
import torch

import kdiff_core as kd
from kdiff_core.cli import main
from kdiff_core.testing import LawBroken, checks_for
from kdiff_core.testing.catalogue import all_checks
from kdiff_core.testing.subjects import subjects_named

MEMORY = ("--only", "memory_is_enough_and_needed")
QUICK = ("--examples", 2, "--only", "describes_itself")
PLANTED = """
    from attrs import field, frozen
    import kdiff_core as kd

    @frozen
    class Bug(kd.StepSampler):
        '''Order 1, Nobody 2024: it declares a memory that it does not use.'''

        memory = 1

        def step(self, ctx, x, sigma, sigma_next):
            return ctx.to(x, ctx.denoise(x, sigma), sigma, sigma_next)

    @frozen
    class Known(Bug):
        '''Order 1, Nobody 2024.'''

        known_failures = {"memory_is_enough_and_needed": "the bug is planted"}

    @frozen
    class Mended(Bug):
        '''Order 1, Nobody 2024.'''

        known_failures = {"describes_itself": "it used to say nothing"}

    @frozen
    class Crash(kd.StepSampler):
        '''Order 1, Nobody 2024.'''

        amount: float = field(default=1.0, converter=float)
        memory = 1

        def step(self, ctx, x, sigma, sigma_next):
            print("a print of the sampler")
            return x * (1 / 0)

    def needy(steps, data):
        return None

    def refusing():
        raise kd.errors.ParameterError("give levels")

    class Planted:
        @kd.hookimpl
        def kdiff_samplers(self):
            made = {"bug": Bug, "known": Known, "mended": Mended, "crash": Crash}
            gone = kd.Entry("gone", "kdiff_no_such:Thing")
            return [*(kd.Entry(f"planted_{name}", made[name]) for name in made), gone]

        @kd.hookimpl
        def kdiff_schedules(self):
            return [kd.Entry("planted_needy", needy), kd.Entry("planted_refusing", refusing)]

    plugin = Planted()
"""


def install(folder, name, points):
    """Lay down a distribution as pip leaves it."""
    (folder / f"{name}-1.0.dist-info").mkdir()
    (folder / f"{name}-1.0.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: 1.0\n")
    (folder / f"{name}-1.0.dist-info" / "entry_points.txt").write_text(f"[kdiff]\n{points}\n")


@pytest.fixture
def registry(monkeypatch, tmp_path):
    """A registry of its own, which finds the distribution `planted`, with its bugs."""
    install(tmp_path, "planted", "planted = kdiff_planted:plugin")
    (tmp_path / "kdiff_planted.py").write_text(dedent(PLANTED))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "kdiff_planted", raising=False)
    found = kd.Registry()
    monkeypatch.setattr("kdiff_core.lookup._default", found)
    yield found
    sys.modules.pop("kdiff_planted", None)


@pytest.fixture
def kdiff(capsys, monkeypatch):
    """Run the command; returns exit status, output and errors."""
    monkeypatch.setenv("COLUMNS", "120")

    def run(*args):
        with pytest.raises(SystemExit) as left:
            main([str(arg) for arg in args])
        return (left.value.code or 0, *capsys.readouterr())

    return run


def squeezed(text):
    """Return a text without line breaks, frames and runs of spaces."""
    return " ".join(text.replace("\N{BOX DRAWINGS LIGHT VERTICAL}", " ").split())


def test_a_sampler_that_keeps_its_laws(kdiff):
    """Status 0: what it is and declares, a row for each check with what was measured, a line to sum up."""
    status, out, err = kdiff("check", "euler", "--examples", 2, "--only", "one_step_order", *QUICK[2:])
    lines = out.splitlines()
    assert (status, err) == (0, "")
    assert lines[0].split() == ["euler", "sampler", "Euler()"]
    version = kd.list_samplers()[0].plugin.version
    assert lines[1] == f"order 1 · memory 0 · no noise · 1 call a step · kdiff-core {version}"
    assert lines[3].split() == ["check", "measured", "examples", "time"]
    (row,) = [line for line in lines if "one_step_order" in line]
    assert row.startswith("\N{CHECK MARK} ")
    assert "order 1.00" in row or "order 0.99" in row
    assert lines[-1].startswith("2 laws hold · 3 examples · seed 0 · ")
    assert [check.name for check in all_checks("sampler") if squeezed(check.law)[:20] in squeezed(out)] == []
    _, out, _ = kdiff("check", "euler", "--verbose", "--examples", 2, "--only", "one_step_order", *QUICK[2:])
    for check in all_checks("sampler"):
        assert (squeezed(check.law)[:20] in squeezed(out)) == (check.name in out)


def test_all_laws_that_apply_are_checked(kdiff):
    """Without --only every check that applies has its result, and slow ones say that they were left out."""
    status, out, _ = kdiff("check", "heun", "--examples", 1, "--json", "--path", "ve", "--path", "ve")
    (report,) = json.loads(out)
    sampler = kd.get_sampler("heun")
    assert [result["check"] for result in report["results"]] == [c.name for c in checks_for(sampler)]
    assert {r["check"] for r in report["results"] if r["status"] == "skipped"} == {
        check.name for check in checks_for(sampler) if check.slow
    }
    assert (status, report["ok"], report["settings"]["paths"]) == (0, True, ["ve"])


def test_a_planted_bug_is_found(kdiff, registry):
    """Status 1: the law, the numbers, the seed, and Python, bare of lines, that raises LawBroken."""
    status, out, _ = kdiff("check", "planted_bug", *MEMORY, *QUICK, "--seed", 3)
    (report,) = json.loads(kdiff("check", "planted_bug", *MEMORY, "--seed", 3, "--json")[1])
    (result,) = report["results"]
    assert (status, report["ok"], result["status"]) == (1, False, "failed")
    assert "1 law broken · 1 law holds" in out.splitlines()[-1]
    panel = squeezed(out[out.index("\N{BOX DRAWINGS LIGHT ARC DOWN AND RIGHT}") :])
    assert "planted_bug breaks memory_is_enough_and_needed" in panel
    for word in (result["law"], result["message"], "declared = 1", "seed 3; "):
        assert squeezed(word) in panel
    assert f"\n{result['snippet']}\n\n" in out
    with pytest.raises(LawBroken, match="memory"):
        exec(result["snippet"], {})


def test_an_exception_is_a_finding(kdiff, registry):
    """A bug that raises is shown with its place, with -v in full; what it prints does not go to stdout."""
    args = ("check", "planted_crash", *MEMORY)
    status, out, err = kdiff(*args)
    assert (status, "a print of the sampler" in err, "a print of" in out) == (1, True, False)
    assert "it raises ZeroDivisionError" in out
    assert "/kdiff_planted.py:" in out
    assert "Traceback" not in out
    assert "? calls a step" in out
    assert "Traceback" in kdiff(*args, "-v")[1]
    json.loads(kdiff(*args, "--json")[1])


def test_options_of_a_sampler(kdiff, registry):
    """--set builds the sampler with options, which what reproduces a failure has too."""
    status, out, _ = kdiff("check", "heun", "--set", "s_churn=40", "--set", "s_tmax=inf", *QUICK)
    head = squeezed(out).partition(" order ")[0]
    assert (status, head.startswith("heun(s_churn=40.0, s_tmax=float(")) == (0, True)
    assert "Churn(solver=Heun(), s_churn=40.0" in head
    (subject,) = subjects_named("heun", "sampler", s_churn=40)
    assert subject.expression == 'kd.get_sampler("heun", s_churn=40.0)'
    (noise,) = subjects_named("keyed")
    assert noise.expression == 'lambda seed: kd.get_noise("keyed", seed=seed)'
    args = ("check", "planted_crash", "--set", "amount=2", *MEMORY)
    assert 'kd.get_sampler("planted_crash", amount=2.0)' in kdiff(*args)[1]


def test_known_failures(kdiff, registry):
    """What is known to break is shown as known, status 0; once it holds, status 1."""
    status, out, _ = kdiff("check", "planted_known", *MEMORY)
    assert (status, ": the bug is planted" in squeezed(out)) == (0, True)
    assert "0 laws hold · 1 known to be broken · " in out
    status, out, _ = kdiff("check", "planted_mended", *QUICK)
    assert (status, "planted_mended keeps describes_itself" in out) == (1, True)
    assert "take it out of known_failures" in out
    assert "it used to say nothing" in out


def test_a_distribution(kdiff, registry):
    """All that it offers is checked, a row each; what cannot be built is red, and status 2."""
    status, out, _ = kdiff("check", "--distribution", "Planted", *MEMORY, *QUICK)
    rows = {
        line.split()[1]: squeezed(line) for line in out.splitlines() if line[2:3] == " " and line[3:4] > " "
    }
    assert status == 2
    assert "planted_bug sampler 1/2" in rows["planted_bug"]
    assert "memory_is_enough_and_needed" in rows["planted_bug"]
    assert "planted_crash sampler 1/2" in rows["planted_crash"]
    assert "PluginError" in rows["gone"]
    assert "needs steps, data" in rows["planted_needy"]
    assert "give levels" in rows["planted_refusing"]
    assert "planted_bug breaks memory" in out
    assert "1 could not be checked" in squeezed(out)
    status, out, _ = kdiff("check", "--distribution", "planted", "--kind", "sampler", *QUICK, "--json")
    found = {report["subject"]: report for report in json.loads(out)}
    assert (status, found["gone"]["ok"], "kdiff_no_such" in found["gone"]["error"]) == (2, False, True)
    assert found["planted_crash"]["results"][0]["status"] == "passed"


def test_a_plugin_that_is_broken(kdiff, registry, tmp_path):
    """A plugin of a distribution that cannot be imported is a red row, and status 2."""
    install(tmp_path, "halved", "good = kdiff_planted:plugin\nbad = kdiff_no_such_module")
    status, out, err = kdiff("check", "--distribution", "halved", "--kind", "sampler", *QUICK)
    (row,) = [line for line in out.splitlines() if " bad " in line]
    assert (status, err, "plugin is broken" in squeezed(out)) == (2, "", True)
    assert "PluginError" in row
    assert "halved:planted_bug" in out


def test_all_built_ins(kdiff):
    """`--distribution kdiff-core` has every sampler, with the hosts' own, and the two paths."""
    status, out, _ = kdiff("check", "--distribution", "kdiff-core", *QUICK, "--json")
    assert (status, {r["subject"] for r in json.loads(out) if r["results"]}) == (
        0,
        {entry.name for entry in kd.list_samplers(hosts=True) if entry.plugin.builtin},
    )
    status, out, _ = kdiff("check", "--distribution", "kdiff-core", "--list", "--json")
    assert status == 0
    assert {check["kind"] for check in json.loads(out)} == {check.kind for check in all_checks()}


def test_several_names_and_kinds(kdiff):
    """A name of several kinds is checked as each; the same thing under two names once; --kind picks."""
    found = json.loads(kdiff("check", "linear", "--examples", 1, "--json")[1])
    assert [report["kind"] for report in found] == ["schedule", "process"]
    found = json.loads(kdiff("check", "linear", "--kind", "process", "--examples", 1, "--json")[1])
    assert [report["kind"] for report in found] == ["process"]
    status, out, _ = kdiff("check", "euler", "k_euler", "heun", *QUICK)
    names = [line.split()[1] for line in out.splitlines() if line.startswith("\N{CHECK MARK}")]
    assert (status, names, "Euler()" in out) == (0, ["euler", "heun"], False)
    status, out, _ = kdiff("check", "euler", "heun", *QUICK, "-v")
    assert ("Euler()" in out, "Heun()" in out) == (True, True)
    assert squeezed(next(c.reason for c in all_checks() if c.name == QUICK[-1]))[:30] in squeezed(out)


def test_the_worst_order_is_shown(kdiff):
    """With several samplers the measured order that is farthest from the declared one has a column."""
    args = ("--examples", 2, "--only", "one_step_order")
    out = kdiff("check", "heun", "euler", *args)[1]
    measured = json.loads(kdiff("check", "heun", *args, "--json")[1])[0]["results"][0]["measured"]["order"]
    worst = max(measured, key=lambda order: abs(order - 2))
    assert f"{worst:.2f} of 2" in out
    assert " of 1 " in out


def test_list(kdiff):
    """--list has every check with its law, those of a kind or those that apply to a name; -v the reasons."""
    status, out, _ = kdiff("check", "--list")
    names = {line.split()[0] for line in out.splitlines()[2:] if line[:1].strip()}
    assert (status, names) == (0, {check.name for check in all_checks()})
    rows = json.loads(kdiff("check", "euler", "--list", "--json")[1])
    assert [row["name"] for row in rows] == [c.name for c in checks_for(kd.get_sampler("euler"))]
    assert {"law", "reason", "kind", "slow"} <= set(rows[0])
    rows = json.loads(kdiff("check", "--list", "--kind", "path", "--json")[1])
    assert {row["kind"] for row in rows} <= {"path"}
    check = next(check for check in all_checks() if check.name == QUICK[-1])
    assert squeezed(check.reason) in squeezed(kdiff("check", "--list", "-v", *QUICK[2:])[1])


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["euller"], "did you mean 'euler'"),
        (["karas"], "did you mean 'karras'"),
        (["euler", "--kind", "schedule"], "no schedule 'euler'"),
        (["euler", "--kind", "thing"], "--kind 'thing'"),
        (["ve", "--kind", "sampler"], "no sampler 've'"),
        (["vp", "--kind", "path"], "'ve' and 'flow'"),
        (["churn"], "is a modifier"),
        ([], "kdiff check euler"),
        (["euler", "--only", "describe_itself"], "did you mean 'describes_itself'"),
        (["--list", "--only", "describe_itself"], "did you mean 'describes_itself'"),
        (["karras", "--only", "describes_itself"], "does not apply to 'karras'"),
        (["--distribution", "kdiff-cor"], "did you mean 'kdiff-core'"),
        (["--distribution", "kdiff-core", "--kind", "model"], "--kind 'model'"),
        (["euler", "--path", "vp"], "'ve' or 'flow'"),
        (["euler", "--set", "s_chrn=1"], "did you mean 's_churn'"),
        (["euler", "--set", "s_churn"], "key=value"),
        (["euler", "--set", "schedule.rho=1"], "--set schedule.rho=1"),
        (["karras", "--set", "rho=1"], "schedule karras"),
        (["euler", "heun", "--set", "s_churn=1"], "one sampler"),
        (["euler", "--device", "tpu"], "cpu, cuda"),
        (["euler", "--dtype", "int8"], "float64, float32"),
        (["euler", "--examples", "0"], "--examples"),
        (["empirical"], "data"),
    ],
    ids=" ".join,
)
def test_refusals(kdiff, args, says):
    """What cannot be run is said on stderr with what would be right; status 2, nothing on stdout."""
    status, out, err = kdiff("check", *args)
    assert (status, out) == (2, "")
    assert says in squeezed(err)
    assert "Traceback" not in err


def test_one_that_cannot_be_built(kdiff, registry):
    """The only thing asked for is refused in a line; among others it is a row."""
    status, out, err = kdiff("check", "gone")
    assert (status, out, "kdiff_no_such" in err) == (2, "", True)
    status, out, _ = kdiff("check", "gone", "euler", *QUICK)
    assert (status, "1 could not be checked · 1 law holds" in out) == (2, True)


def test_without_the_extra():
    """Without Hypothesis the command says what to install, with status 2."""
    code = (
        "import sys; sys.modules['hypothesis'] = None; import kdiff_core.cli as c; c.main(['check', 'ddim'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert 'pip install "kdiff-core[testing]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_cuda_without_a_gpu(kdiff, monkeypatch):
    """A missing GPU is a line on stderr, and the CPU does it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    status, out, err = kdiff("check", "euler", "--device", "cuda", *QUICK, "--json")
    assert (status, json.loads(out)[0]["settings"]["device"]) == (0, "cpu")
    assert len(err.splitlines()) == 1
    assert "no GPU" in err


def test_other_settings(kdiff):
    """What is not as by default is in the last line; a slow check that --only names is run."""
    more = ("--dtype", "float32", "--path", "flow", "--seed", 5, *QUICK)
    assert "float32 · only flow · seed 5" in kdiff("check", "euler", *more)[1].splitlines()[-1]
    (report,) = json.loads(kdiff("check", "euler", *QUICK, "--json")[1])
    assert report["settings"]["slow"]


@pytest.mark.parametrize("columns", ["80", "60"])
def test_narrow_terminals(kdiff, registry, monkeypatch, columns):
    """No line but those of the code is longer than the terminal, and every word of a law is there."""
    monkeypatch.setenv("COLUMNS", columns)
    status, out, _ = kdiff("check", "planted_bug", *MEMORY, *QUICK)
    code = json.loads(kdiff("check", "planted_bug", *MEMORY, "--json")[1])[0]["results"][0]["snippet"]
    assert f"\n{code}\n" in out
    assert max(map(len, out.replace(code, "").splitlines())) <= int(columns)
    law = next(check.law for check in all_checks() if check.name == MEMORY[1])
    assert (status, set(law.split()) <= set(out.split())) == (1, True)
    out = kdiff("check", "--distribution", "planted", "--kind", "sampler", *QUICK)[1]
    assert max(map(len, out.splitlines())) <= int(columns)


def test_streams_that_have_ascii_only(registry, monkeypatch):
    """Where the output has no marks, dots and lines, words take their place."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(SystemExit):
        main(["check", "planted_bug", *MEMORY, *map(str, QUICK)])
    stream.flush()
    out = stream.buffer.getvalue().decode("ascii")
    first = [line.split()[0] for line in out.splitlines() if "describes_itself" in line]
    assert (first, "FAIL" in out, "1 law broken | 1 law holds" in out) == (["ok"], True, True)


def test_progress_on_a_terminal(kdiff, monkeypatch):
    """On a terminal, stderr names the check that runs; NO_COLOR leaves the output plain."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    status, out, err = kdiff("check", "euler", *QUICK)
    assert (status, "\x1b[32m" in out) == (0, True)
    assert "euler  describes_itself" in err
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[32m" not in kdiff("check", "euler", *QUICK)[1]


def test_help_teaches_by_example(kdiff):
    """The help has examples that can be copied."""
    status, out, _ = kdiff("check", "--help")
    assert (status, "Example" in out, "kdiff check heun --set s_churn=40" in out) == (0, True, True)


def test_a_picture(kdiff, registry, tmp_path, monkeypatch):
    """--plot writes a picture of the sampler, options and all, and says where; with --json nothing more."""
    monkeypatch.chdir(tmp_path)
    status, out, err = kdiff("check", "heun", "--set", "s_churn=40", "--plot", "heun.svg", *QUICK)
    assert (status, out.splitlines()[-1], err) == (0, "picture: heun.svg", "")
    assert (tmp_path / "heun.svg").read_text(encoding="utf-8").startswith("<?xml")
    status, out, err = kdiff("check", "planted_crash", "--plot", "crash.png", "--json", *QUICK)
    assert (status, len(json.loads(out)), "a print of the sampler" in err) == (0, 1, True)
    assert (tmp_path / "crash.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["euler", "--plot", "a.jpg"], ".png or .svg"),
        (["euler", "--plot", "nowhere/a.png"], "no folder nowhere"),
        (["euler", "heun", "--plot", "a.png"], "sampler euler' and 'sampler heun"),
        (["karras", "--plot", "a.png"], "kdiff check euler --plot a.png"),
        (["--distribution", "kdiff-core", "--plot", "a.png"], "one sampler"),
        (["euler", "--list", "--plot", "a.png"], "--list runs nothing"),
    ],
    ids=" ".join,
)
def test_pictures_that_cannot_be(kdiff, tmp_path, monkeypatch, args, says):
    """They are refused before any check runs, and no file is written."""
    monkeypatch.chdir(tmp_path)
    status, out, err = kdiff("check", *args)
    assert (status, out, list(tmp_path.iterdir())) == (2, "", [])
    assert says in squeezed(err)
