"""`kdiff plot schedules`: the levels of schedules as a picture, or as a table."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ParameterError
from ..grid import Grid
from ..lookup import get_process, get_schedule
from .checks import check_file
from .console import complete, say, say_json, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# After the four of the kit's pictures.
_MORE = ("#e69f00", "#56b4e9", "#6e7681", "#8c564b", "#bcbd22", "#24292f")
_MARKED = 60  # more steps than this are a line without marks

plots = typer.Typer(
    name="plot",
    help="Draw what kdiff computes.\n\nExample: `kdiff plot schedules karras beta --out schedules.svg`",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(plots, rich_help_panel="Look closer")


@plots.command()
def schedules(
    names: Annotated[
        list[str],
        typer.Argument(
            help='Schedules, with options in parentheses: karras "karras(rho=5)" comfyui:beta.',
            autocompletion=complete("schedule"),
        ),
    ],
    steps: Annotated[int, typer.Option("--steps", "-n", min=1, help="Number of steps.")] = 20,
    process: Annotated[
        str,
        typer.Option(
            "--process",
            help='What the model was trained on: sd, "flow(shift=3)"...',
            autocompletion=complete("process"),
        ),
    ] = "sd",
    sigma_min: Annotated[
        float | None, typer.Option(help="Lowest level above 0. Default: the process's.")
    ] = None,
    sigma_max: Annotated[float | None, typer.Option(help="Highest level. Default: the process's.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A .png or .svg file; else a table.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Draw the noise levels of schedules over the steps, on a logarithmic axis, or print them as a table.

    The last level is usually 0, which such an axis does not have: the picture leaves it out. A schedule that
    gives another number of steps than asked for, as some hosts' do, ends where it ends.

    Example: `kdiff plot schedules karras "karras(rho=5)" beta` for a table

    `kdiff plot schedules karras comfyui:beta a1111:beta -n 10 --out schedules.svg` for a picture

    `kdiff plot schedules uniform beta --process "flow(shift=3)" --out flow.png` for a flow model
    """  # fmt: skip
    check_file(out, (".png", ".svg"))
    if out is not None:
        from ..testing.drawing import matplotlib_figure

        matplotlib_figure()
    trained = _made(process, "process")
    grids: dict[str, Grid] = {
        name: _made(name, "schedule")(steps, sigma_min=sigma_min, sigma_max=sigma_max, process=trained)
        for name in names
    }
    if out is not None:
        from ..testing.drawing import save

        save(draw_levels(grids), out)
    if as_json:
        say_json({name: list(grid) for name, grid in grids.items()})
    elif out is not None:
        say(f"picture: {out}")
    else:
        _table(grids)


def _made(text: str, kind: str) -> Any:
    """Return the schedule or process that ``name(option=value, ...)`` stands for.

    Raises:
        ParameterError: What stands in the parentheses are no options.
    """
    name, bracket, inside = text.partition("(")
    get = get_schedule if kind == "schedule" else get_process
    if not bracket:
        return get(text)
    try:
        if not inside.rstrip().endswith(")"):
            raise SyntaxError("no closing parenthesis")
        call = ast.parse(f"f({inside}", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(word.arg is None for word in call.keywords):
            raise SyntaxError("an option without its name")
        options = {str(word.arg): _value(word.value) for word in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise ParameterError(
            f"{text!r}: write options as name(option=value, ...), such as 'karras(rho=5)'"
        ) from error
    return get(name.strip(), **options)


def _value(node: ast.expr) -> Any:
    """Return a Python literal; a bare word is a string."""
    return node.id if isinstance(node, ast.Name) else ast.literal_eval(node)


def _table(grids: Mapping[str, Grid]) -> None:
    """Print a column of levels for each schedule."""
    longest = max(len(grid) for grid in grids.values())
    rows = [
        [str(i), *(f"{grid[i]:.6g}" if i < len(grid) else "" for grid in grids.values())]
        for i in range(longest)
    ]
    table(["step", *grids], rows)


def draw_levels(grids: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the levels above 0 of grids over the steps.

    Args:
        grids: Levels by the name that the legend has.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    from ..testing.drawing import COLOURS, blank, finish

    figure, (axes,) = blank(1)
    from matplotlib.ticker import MaxNLocator

    colours = (*COLOURS, *_MORE)
    for number, (name, levels) in enumerate(grids.items()):
        above = [level for level in levels if level > 0]
        axes.plot(
            range(len(above)), above, label=name, linewidth=1.6, markersize=3.5,
            marker="o" if len(above) <= _MARKED else None,
            color=colours[number % len(colours)], linestyle="-" if number < len(colours) else "--",
        )  # fmt: skip
    finish(axes, "", "step", "")
    axes.set_xscale("linear")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("noise level sigma", fontsize=10)
    return figure
