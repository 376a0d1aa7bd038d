"""The style of the kit's pictures: figures, panels and lines, without any of matplotlib's global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# How a file's name may end.
ENDINGS = (".png", ".svg")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa4499")
BAND = 0.05
_TICKS = (0.25, 0.5, 0.7, 1.0, 1.4, 2.0, 4.0)

_INK, _GREY, _PALE = "#24292f", "#6e7681", "#e6e8eb"
_PANEL, _DPI = (4.6, 4.5), 150
_STYLES: Mapping[str, Mapping[str, Any]] = {
    "ve": {"linestyle": "-", "marker": "o"},
    "flow": {"linestyle": (0, (3, 2)), "marker": "o", "markerfacecolor": "white"},
}


def blank(panels: int, title: str = "", note: str = "") -> tuple[Figure, list[Axes]]:
    """Return an empty figure of some panels side by side.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    kind = matplotlib_figure()
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    top = 0.85 if title else 1.0  # the rest is for the words above
    made = kind(
        figsize=(_PANEL[0] * panels, _PANEL[1]),
        layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08, rect=(0.0, 0.0, 1.0, top)),
        facecolor="white",
    )
    places = [made.add_subplot(1, panels, i + 1) for i in range(panels)]
    made.text(0.012, 0.975, title, va="top", fontsize=14, color=_INK, weight="bold")
    made.text(0.012, 0.915, note, va="top", fontsize=10, color=_GREY)
    return made, places


def matplotlib_figure() -> type[Figure]:
    """Return matplotlib's class of figures.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError('pictures need matplotlib: pip install "kdiff-core[plot]"') from error
    return Figure


def curve(
    axes: Axes, x: Sequence[float], y: Sequence[float], path: str, colour: str, label: str = ""
) -> None:
    """Draw a line, solid on VE, dashed on flow; places without an error above 0 are left out."""
    points = [(a, b) for a, b in zip(x, y, strict=True) if b > 0]
    style = {"color": colour, "linewidth": 1.6, "markersize": 4.5, "markeredgewidth": 1.3, **_STYLES[path]}
    axes.plot(*zip(*points, strict=True), label=label or "_", **style) if points else None


def guide(axes: Axes, x: Sequence[float], power: float, label: str) -> None:
    """Draw a dotted line of a slope just below the curves."""
    ends = np.array([min(x), max(x)], dtype=float)
    lowest = [np.array(line.get_data(), dtype=float) for line in axes.get_lines()]
    if not lowest:
        return
    factor = 0.35 * min(float(np.min(ys / xs**power)) for xs, ys in lowest)
    axes.plot(ends, factor * ends**power, color=_GREY, linewidth=1.2, linestyle=(0, (1, 1.5)), label=label)


def finish_variance(
    axes: Axes, title: str, steps: Sequence[float], legend: str = "variance of the data"
) -> None:
    """Mark where a ratio is 1 and what is near it, and put axes, names and a legend on a panel."""
    axes.axhspan(1 - BAND, 1 + BAND, color=_PALE, zorder=0, label=f"within {BAND:.0%}")
    axes.axhline(1.0, color=_GREY, linewidth=0.8, zorder=1)
    finish(axes, title, "steps", legend)
    low, high = axes.get_ylim()
    low, high = min(low, 0.47), max(high, 2.1)
    ticks = [tick for tick in _TICKS if low <= tick <= high]
    if high / low <= _TICKS[-1] / _TICKS[0]:  # else the powers of ten that are there
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_yticks([], minor=True)
    axes.set_ylim(low, high)
    count_steps(axes, steps)


def finish(axes: Axes, title: str, x: str, legend: str) -> None:
    """Put logarithmic axes, names and a legend on a panel."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_title(title, loc="left", fontsize=11.5, color=_INK)
    axes.set_xlabel(x, fontsize=10, color=_INK)
    axes.tick_params(which="both", labelsize=9, color=_PALE, labelcolor=_INK)
    axes.tick_params(which="minor", length=0)
    axes.grid(which="major", color=_PALE, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_PALE)
    found = axes.legend(
        title=legend, fontsize=9, title_fontsize=9, alignment="left", framealpha=0.9, edgecolor="none"
    )
    found.get_title().set_color(_GREY)


def count_steps(axes: Axes, steps: Sequence[float]) -> None:
    """Name the numbers of steps on the axis."""
    axes.set_xticks(steps, [str(n) for n in steps])
    axes.set_xticks([], minor=True)


def save(drawn: Figure, file: Any) -> None:
    """Write a figure, without a date in it.

    Args:
        drawn: The figure.
        file: A path with an ending, or a binary stream, which gets an SVG.
    """
    svg = not isinstance(file, (str, Path)) or Path(file).suffix.lower() == ".svg"
    drawn.savefig(file, format="svg" if svg else "png", dpi=_DPI, metadata={"Date": None} if svg else None)


def instead(axes: Axes, text: str) -> None:
    """Show a text in place of curves."""
    axes.clear()
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", color=_GREY, transform=axes.transAxes)
