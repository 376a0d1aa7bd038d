"""The application: its commands, its own options, and what becomes of errors."""

from __future__ import annotations

import sys
import warnings
from typing import Annotated, Any

import typer

from .. import __version__
from ..errors import KdiffError
from . import check, doctor, explain, hosts, listing, plot, sample, tune
from .console import console
from .plugged import Commands

HELP = """Diffusion samplers, schedules and models by name.

`kdiff sample` draws 64 handwritten digits with a model that ships; `kdiff samplers` lists what there is.
"""

app = typer.Typer(
    name="kdiff",
    cls=Commands,
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
sample.add_to(app)
listing.add_to(app)
hosts.add_to(app)
explain.add_to(app)
check.add_to(app)
doctor.add_to(app)
plot.add_to(app)
tune.add_to(app)


def _version(wanted: bool) -> None:
    if wanted:
        console().print(f"kdiff {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; works anywhere.")
    ] = False,
) -> None:
    """Options that come before a command."""


def run(args: list[str]) -> None:
    """Run the command; refusals become one red line and exit status 2.

    Args:
        args: Arguments.
    """
    warnings.showwarning = _show_warning
    debug = "--debug" in args
    try:
        app([word for word in args if word != "--debug"], prog_name="kdiff")
    except (KdiffError, OSError) as error:
        if debug:
            raise
        first, *rest = str(error).splitlines() or [type(error).__name__]
        rest += getattr(error, "__notes__", [])
        from rich.text import Text

        console(stderr=True).print(Text.assemble(("error: ", "bold red"), (first, "red")), soft_wrap=True)
        if rest:
            console(stderr=True).print("\n".join(rest), markup=False, soft_wrap=True)
        sys.exit(2)


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """Show a warning as one line, without the source line that Python adds."""
    from rich.text import Text

    console(stderr=True).print(Text.assemble(("warning: ", "yellow"), str(message)), soft_wrap=True)
