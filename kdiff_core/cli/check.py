"""`kdiff check`: put what is installed through the conformance kit."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import CapabilityError, ParameterError
from ..names import quoted
from .checking import Outcome, prepare, refuse_unknown, run
from .checks import check_file
from .console import complete, console, parse_options, say, say_json
from .facts import described
from .findings import forgive
from .targets import Target, check_kind, find_targets
from .verdict import show, show_checks

if TYPE_CHECKING:
    from ..testing import Check, Settings

_PATHS = ("ve", "flow")
_KINDS = ("sampler", "schedule", "process", "noise", "denoiser")

Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME",
        help="Samplers, schedules, processes, noise sources, denoisers, and the paths ve and flow.",
        autocompletion=complete(*_KINDS),
        show_default=False,
    ),
]
Distribution = Annotated[
    str | None,
    typer.Option(metavar="DIST", help="All that an installed distribution offers, such as kdiff-core."),
]
Kind = Annotated[str | None, typer.Option(help=f"Only this kind: {', '.join(_KINDS)} or path.")]
Examples = Annotated[int, typer.Option(min=1, help="Random examples of a law; dear ones get a part.")]
Seed = Annotated[int, typer.Option(min=0, help="One seed, one set of examples.")]
Device = Annotated[str, typer.Option(help="cpu, or cuda where there is a GPU.")]
Dtype = Annotated[str, typer.Option(help="Of the states: float64 or float32; tolerances follow.")]
Slow = Annotated[bool, typer.Option("--slow", help="Also what compiles; --only does without this.")]
Only = Annotated[
    list[str] | None,
    typer.Option(metavar="CHECK", help="Only this check; again for more. --list lists them."),
]
NoisePath = Annotated[
    list[str] | None, typer.Option("--path", metavar="PATH", help="Only this noise path: ve or flow.")
]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="An option of a sampler: s_churn=40.")
]
Plot = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Draw a sampler's errors and variance: .png or .svg.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Listing = Annotated[bool, typer.Option("--list", help="List the checks, or those that apply, and run none.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Also why each law must hold, each table, and tracebacks.")
]


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Look closer")(check)


def check(
    names: Names = None,
    distribution: Distribution = None,
    kind: Kind = None,
    examples: Examples = 20,
    seed: Seed = 0,
    device: Device = "cpu",
    dtype: Dtype = "float64",
    slow: Slow = False,
    only: Only = None,
    path: NoisePath = None,
    options: Set = None,
    plot: Plot = None,
    as_json: AsJson = False,
    listing: Listing = False,
    verbose: Verbose = False,
) -> None:
    """Check that samplers, schedules and the rest keep their laws: order, exactness, noise, plans...

    A law that breaks is shown with the simplest example found, and with Python that shows it again. Status 0
    if all hold that are not known to be broken, 1 if one does not, 2 if something could not be checked.

    Example: `kdiff check dpmpp_2m`

    `kdiff check heun --set s_churn=40 --examples 100 --seed 7`

    `kdiff check dpmpp_sde --plot dpmpp_sde.svg` for a picture too

    `kdiff check --distribution my-plugin --json` for a machine

    `kdiff check --list -v` for every law and its reason
    """
    from ..testing import Settings, run_check  # noqa: F401  # which says what extra is missing

    begin = time.perf_counter()
    where: dict[str, Any] = {"device": device, "dtype": dtype, "paths": _paths(path)}
    settings = Settings(examples=examples, seed=seed, slow=slow or bool(only), **where)
    _check_plot(plot, listing)
    if listing and not names and distribution is None:
        _list(_every(kind, only or []), as_json, verbose)
        return
    targets = find_targets(names or [], distribution, kind, _sampler_options(options or []))
    _one_sampler(plot, targets)
    outcomes = prepare(targets, only or [])
    if listing:
        found = {(c.kind, c.name): c for outcome in outcomes for c in outcome.checks}
        _list([*found.values()], as_json, verbose)
        return
    outcomes = run(outcomes, _on_device(settings))
    if as_json:
        say_json([_strict(_data(outcome, settings)) for outcome in outcomes])
    else:
        forgive()
        show(outcomes, time.perf_counter() - begin, verbose)
    if plot is not None:
        _draw(outcomes[0], plot, quiet=as_json)
    raise typer.Exit(_status(outcomes))


# -- what is asked for


def _paths(given: Sequence[str] | None) -> tuple[str, ...]:
    for path in given or ():
        if path not in _PATHS:
            raise ParameterError(f"--path {path!r}: give 've' or 'flow'")
    return tuple(path for path in _PATHS if path in (given or _PATHS))


def _sampler_options(words: Sequence[str]) -> dict[str, Any]:
    found = parse_options(words)
    for part in ("schedule", "model"):
        for option, value in found[part].items():
            raise ParameterError(
                f"--set {part}.{option}={value}: a sampler is checked on its own; give its options, such as "
                "--set s_churn=40"
            )
    return found["sampler"]


def _check_plot(file: Path | None, listing: bool) -> None:
    """Refuse a picture that could not be drawn or written in the end."""
    if file is None:
        return
    from ..testing.drawing import ENDINGS, matplotlib_figure

    if listing:
        raise ParameterError(f"--plot {file}: --list runs nothing; leave out one of the two")
    check_file(file, ENDINGS)
    matplotlib_figure()


def _one_sampler(file: Path | None, targets: Sequence[Target]) -> None:
    """Refuse a picture of what is not one sampler."""
    if file is not None and (len(targets) != 1 or targets[0].kind != "sampler"):
        what = quoted(f"{target.kind} {target.name}" for target in targets)
        raise ParameterError(
            f"--plot {file}: a picture is of one sampler, this is {what:.200}; write "
            f"`kdiff check euler --plot {file}`, and another command for each further one"
        )


def _on_device(settings: Settings) -> Settings:
    """Return the settings, without a GPU where there is none."""
    from attrs import evolve

    from ..testing.running import check_device

    try:
        check_device(settings.device)
    except CapabilityError:
        note = "there is no GPU that torch can use: checking on the CPU"
        console(stderr=True).print(f"[yellow]note:[/] {note}", soft_wrap=True)
        return evolve(settings, device="cpu")
    return settings


def _every(kind: str | None, only: Sequence[str]) -> list[Check]:
    """Return the checks of a kind, or of all."""
    from ..testing.catalogue import all_checks

    known = all_checks(check_kind(kind))
    refuse_unknown(only, known)
    return [check for check in known if not only or check.name in only]


# -- what comes of it


def _status(outcomes: Sequence[Outcome]) -> int:
    if any(outcome.error is not None for outcome in outcomes):
        return 2
    return int(any(outcome.report is not None and not outcome.report.ok for outcome in outcomes))


def _draw(outcome: Outcome, file: Path, quiet: bool) -> None:
    """Write the picture, and say where it is; what the sampler prints goes to stderr."""
    from ..testing.pictures import plot

    with contextlib.redirect_stdout(sys.stderr):
        plot(outcome.subject, file)
    if not quiet:
        say(f"picture: {file}")


def _list(checks: Sequence[Check], as_json: bool, verbose: bool) -> None:
    if as_json:
        keys = ("name", "kind", "law", "reason", "slow")
        say_json([{key: getattr(check, key) for key in keys} for check in checks])
    else:
        forgive()
        show_checks(checks, verbose)


def _data(outcome: Outcome, settings: Settings) -> dict[str, Any]:
    """Return a report as data; where there is none the same keys, and why."""
    from attrs import asdict

    if outcome.report is not None:
        return outcome.report.to_dict()
    found = {"subject": outcome.target.name, "kind": outcome.target.kind, "ok": outcome.error is None}
    found |= {"declared": {}, "settings": asdict(settings), "results": []}
    if outcome.error is not None:
        return {**found, "error": described(outcome.error)}
    return {**found, "not_checked": outcome.unchecked}


def _strict(value: Any) -> Any:
    """Return data without NaN and infinity, which strict JSON has not: as strings."""
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
