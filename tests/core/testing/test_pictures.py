"""Pictures of samplers: what is drawn, that it is what the checks measure, that nothing else is touched."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from attrs import frozen
from sampler_mutants import RatioInverted

import kdiff_core as kd
from kdiff_core.errors import MissingExtraError, ParameterError
from kdiff_core.testing import pictures
from kdiff_core.testing.drawing import ENDINGS, matplotlib_figure


@frozen
class Clamped(kd.StepSampler):
    """Euler with the estimate clamped; order 1."""

    linear = False

    def step(self, ctx, x, sigma, sigma_next):
        """Clamp before moving on."""
        return ctx.to(x, ctx.denoise(x, sigma).clamp(-9, 9), sigma, sigma_next)


@frozen
class Crash(kd.StepSampler):
    """It divides by zero."""

    def step(self, ctx, x, sigma, sigma_next):
        """Divide."""
        return x * (1 / 0)


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def titles(drawn):
    return [axes.get_title(loc="left") for axes in drawn.axes]


def test_what_is_drawn_of_a_sampler():
    """Three panels: a step for each ratio and path, a run, the variances; orders are in the legends."""
    drawn = pictures.figure("dpmpp_2m")
    assert titles(drawn) == ["Error of one step", "Error of a run", "Variance over the exact one"]
    step, run, variance = drawn.axes
    assert legend(step) == [*(f"{name}: 2.00, 2.00" for name in pictures.RATIOS), "order 2, slope 3"]
    assert legend(run) == ["VE: 2.00", "flow: 2.00", "order 2"]
    assert legend(variance) == ["0.01", "0.1", "1", "4", "within 5%"]
    line = variance.get_lines()[0]
    assert list(line.get_xdata()) == list(pictures.STEPS)
    sampler = kd.get_sampler("dpmpp_2m")
    assert list(line.get_ydata()) == [pictures.variance_ratios(sampler, "ve", n)[0] for n in pictures.STEPS]


def test_a_wrong_ratio_shows():
    """With the step ratio inverted the order is as declared on even steps, and one too low on others."""
    orders = {name: pictures.step_errors(RatioInverted(), "ve", r)[1] for name, r in pictures.RATIOS.items()}
    assert orders["as long"] == pytest.approx(2.0, abs=0.05)
    assert orders["twice as long"] == pytest.approx(1.0, abs=0.05)
    assert orders["half as long"] == pytest.approx(1.0, abs=0.05)


def test_variances_approach_the_exact_ones():
    """More steps bring the variance of each data nearer to the exact one, noise or not."""
    for name in ("dpmpp_sde", "euler"):
        off = [
            np.abs(np.log(pictures.variance_ratios(kd.get_sampler(name), "flow", n))) for n in (10, 40, 160)
        ]
        assert (off[0] > 2 * off[1]).all()
        assert (off[1] > 2 * off[2]).all()


def test_what_cannot_be_had_is_left_out():
    """Without a plan there is a run alone; a sampler that raises has the reason in place of its curves."""
    assert titles(pictures.figure(Clamped())) == ["Error of a run"]
    drawn = pictures.figure(Crash())
    assert [axes.get_lines()[:] for axes in drawn.axes] == [[], [], []]
    assert all("ZeroDivisionError" in axes.texts[0].get_text() for axes in drawn.axes)

    @frozen
    class Noisy(Clamped):
        """Order 1, and it cannot do without noise."""

        stochastic = True

    with pytest.raises(ParameterError, match="nothing to draw"):
        pictures.figure(Noisy())


@pytest.mark.parametrize(("ending", "begins"), [(".png", b"\x89PNG"), (".svg", b"<?xml")])
def test_files(tmp_path, ending, begins):
    """A PNG or an SVG, the same each time."""
    for name in ("a", "b"):
        pictures.plot(Clamped(), tmp_path / f"{name}{ending}")
    found = (tmp_path / f"a{ending}").read_bytes()
    assert found.startswith(begins)
    assert ending == ".svg" or found == (tmp_path / f"b{ending}").read_bytes()
    assert ending in ENDINGS


def test_other_files_are_refused(tmp_path):
    """Before anything is drawn."""
    with pytest.raises(ParameterError, match=r"\.png or \.svg"):
        pictures.plot(Crash(), tmp_path / "a.jpg")


def test_without_matplotlib(monkeypatch):
    """The extra is named."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"kdiff-core\[plot\]"):
        matplotlib_figure()


def test_no_global_state():
    """pyplot, which keeps figures and picks a screen, is not loaded."""
    code = (
        "import sys; from kdiff_core.testing.pictures import figure; figure('euler'); "
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("False", "")
