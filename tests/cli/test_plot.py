"""``kdiff plot schedules``: the table it prints, the picture it writes, and what it refuses."""

from __future__ import annotations

import json
import sys

import pytest

import kdiff_core as kd
from kdiff_core.cli import main
from kdiff_core.cli.plot import draw_levels


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


def test_json_has_the_levels(kdiff):
    """The levels printed are those of the schedules, with the options in parentheses."""
    names = ["karras", "karras(rho=5)", "comfyui:ddim_uniform", "shifted(schedule=beta, shift=2.0)"]
    status, out, _ = kdiff("plot", "schedules", *names, "-n", 7, "--json")
    found, sd = json.loads(out), kd.get_process("sd")
    assert status == 0
    assert found == {
        "karras": list(kd.get_schedule("karras")(7, process=sd)),
        "karras(rho=5)": list(kd.get_schedule("karras", rho=5)(7, process=sd)),
        "comfyui:ddim_uniform": list(kd.get_schedule("comfyui:ddim_uniform")(7, process=sd)),
        names[3]: list(kd.get_schedule("shifted", schedule="beta", shift=2.0)(7, process=sd)),
    }


def test_the_table_has_a_row_for_each_level(kdiff):
    """Without a file a table is printed, with a column for each schedule, of its own length."""
    status, out, _ = kdiff("plot", "schedules", "uniform", "comfyui:ddim_uniform", "-n", "7",
                           "--process", "flow(shift=3)")  # fmt: skip
    rows = [line.split() for line in out.splitlines()[2:]]
    assert status == 0
    assert [row[0] for row in rows] == [str(i) for i in range(9)]
    assert rows[0][1] == "1"
    assert len(rows[-1]) == 2  # the host has a step more


@pytest.mark.parametrize(("name", "start"), [("a.svg", b"<?xml"), ("a.png", b"\x89PNG")])
def test_pictures(kdiff, tmp_path, name, start):
    """A picture is written in the format of its name."""
    status, out, _ = kdiff("plot", "schedules", "karras", "exponential", "--out", name)
    assert (status, out) == (0, f"picture: {name}\n")
    assert (tmp_path / name).read_bytes().startswith(start)


def test_lines_are_the_levels_above_zero():
    """Each line has the levels above 0, on a logarithmic axis, under the name given."""
    figure = draw_levels({"a": [4.0, 1.0, 0.0], "b": [2.0, 1.0, 0.5]})
    (axes,) = figure.axes
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.get_lines()}
    assert lines == {"a": [4.0, 1.0], "b": [2.0, 1.0, 0.5]}
    assert (axes.get_yscale(), axes.get_xscale()) == ("log", "linear")


@pytest.mark.parametrize(("words", "message"), [
    (["karas"], "did you mean"),
    (["karras(5)"], "name(option=value"),
    (["karras(rho=5"], "name(option=value"),
    (["karras(rho=open('x'))"], "name(option=value"),
    (["karras(roh=5)"], "did you mean 'rho'"),
    (["karras", "--out", "a.txt"], ".png or .svg"),
    (["karras", "--process", "nothing"], "there is no process"),
])  # fmt: skip
def test_refusals(kdiff, words, message):
    """What cannot be made or written is refused in a line, with status 2 and no picture."""
    status, out, error = kdiff("plot", "schedules", *words)
    assert (status, out) == (2, "")
    assert message in error
    assert "Traceback" not in error


def test_without_matplotlib(kdiff, monkeypatch):
    """Without matplotlib the refusal says which extra has it; a table needs none."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    status, _, error = kdiff("plot", "schedules", "karras", "--out", "a.svg")
    assert status == 2
    assert "kdiff-core[plot]" in error
    assert kdiff("plot", "schedules", "karras")[0] == 0


def test_help_teaches(kdiff):
    """The help has examples that run."""
    status, out, _ = kdiff("plot", "schedules", "--help")
    assert status == 0
    assert "kdiff plot schedules karras" in out
