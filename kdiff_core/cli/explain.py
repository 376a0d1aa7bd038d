"""`kdiff show` and `kdiff plan`: everything about one thing."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import attrs
import typer

from ..building import added_options, factory_of, parameters
from ..errors import ParameterError, UnknownNameError
from ..lookup import default_registry, get_sampler, get_schedule, parse_label
from ..names import nearest, quoted
from ..registry import KINDS, ResolvedEntry
from .console import complete, console, parse_options, provider, say, say_json, table
from .facts import calls_per_step, described

_DECLARED = ("order", "order_smooth", "memory", "stochastic", "reaches_zero", "rises", "needs", "linear")
# Where `kdiff plan` is told no range: that of Stable Diffusion, or a flow model's.
_RANGE = {"ve": (0.03, 14.6), "flow": (0.02, 1.0)}


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (show, plan):
        app.command(rich_help_panel="Look closer")(command)


def show(
    name: Annotated[str, typer.Argument(help="A name or an alias, of any kind.", autocompletion=complete())],
    kind: Annotated[str | None, typer.Option(help=f"Only this kind: {', '.join(KINDS)}.")] = None,
) -> None:
    """Show everything about one sampler, schedule, model...: parameters, properties, names, source.

    Example: `kdiff show dpmpp_2m_sde` or `kdiff show linear --kind process`
    """
    entries = entries_named(name) if kind is None else [default_registry().entry(kind, name)]
    for number, entry in enumerate(entries):
        if number:
            say()
        _show(entry)


def entries_named(name: str) -> list[ResolvedEntry]:
    """Return the entries of a name, of all kinds."""
    found: list[ResolvedEntry] = []
    unknown = None
    for kind in KINDS:
        try:
            found.append(default_registry().entry(kind, name))
        except UnknownNameError as error:
            unknown = unknown or error
    if found:
        return found
    pool = {
        word: k
        for k in KINDS
        for e in default_registry().list(k, hosts=True)
        for word in (e.name, *e.aliases)
    }
    close = quoted(nearest(name, pool), "or")
    first = f"nothing is called {name!r}" + (f"; did you mean {close}?" if close else "")
    rest = [line for line in str(unknown).splitlines() if line.startswith("It may belong")]
    raise UnknownNameError("\n".join([first, *rest]))


def _show(entry: ResolvedEntry) -> None:
    """Print one entry."""
    console().print(f"[bold cyan]{entry.name}[/]  [dim]{entry.kind}, version {entry.version}[/]")
    say(entry.summary)
    facts = {
        "reference": entry.reference,
        "provider": provider(entry),
        "id": entry.id,
        "other names": ", ".join(entry.aliases),
        **_made_by(entry),
    }
    say()
    for label, value in facts.items():
        if value != "":
            say(f"  {label + ':':14} {value}")
    try:
        factory, known = factory_of(entry), parameters(entry)
    except Exception:  # the facts have it
        return
    say()
    if known:
        heads = ["parameter", "type", "default"]
        table(heads, [_parameter(entry, p) for p in known.values()], ["type", "default"])
    else:
        say("no parameters" if known == {} else "takes any parameters")
    if entry.kind == "sampler":
        _show_added(entry)
    if text := inspect.getdoc(factory):
        say()
        say(text)


def _show_added(entry: ResolvedEntry) -> None:
    """Print the options that a sampler gets from modifiers."""
    rows = []
    for name, added in added_options(entry, default_registry().list("modifier")).items():
        modifier = default_registry().entry("modifier", name)
        rows += [(*_parameter(modifier, parameter), name) for parameter in added.values()]
    if rows:
        say()
        say("Modifiers add, and come with, these:")
        say()
        table(["parameter", "type", "default", "modifier"], rows, ["type", "default"])


def _made_by(entry: ResolvedEntry) -> dict[str, Any]:
    """Return the source, and what a sampler says of itself; of a broken one, what is wrong."""
    try:
        found = {"source": _source(factory_of(entry))}
        return found | _declared(entry) if entry.kind == "sampler" else found
    except Exception as error:
        return {"broken": described(error)}


def _declared(entry: ResolvedEntry) -> dict[str, Any]:
    """Return what a sampler says of itself, and the model calls of a step."""
    sampler = get_sampler(entry.id)
    found = {key.replace("_", " "): getattr(sampler, key) for key in _DECLARED if hasattr(sampler, key)}
    shown = {key: ("yes" if v else "no") if isinstance(v, bool) else v for key, v in found.items()}
    shown["needs"] = ", ".join(sorted(shown.get("needs") or ())) or "nothing more"
    try:
        calls = calls_per_step(sampler)
        shown["calls/step"] = "known only from a run" if calls is None else f"{calls:g}"
    except Exception as error:
        shown |= {"calls/step": "?", "broken": described(error)}
    return {**shown, "is": repr(sampler)}


def _parameter(entry: ResolvedEntry, parameter: inspect.Parameter) -> tuple[str, str, str]:
    empty = inspect.Parameter.empty
    kind = parameter.annotation
    if kind is empty:  # attrs leaves it out where a converter decides
        kind = _field_types(entry).get(parameter.name, empty)
    kind = "" if kind is empty or kind is None else inspect.formatannotation(kind).strip("'")
    default = entry.defaults.get(parameter.name, parameter.default)
    if type(default).__name__ == "_Nothing":
        return parameter.name, kind, "made when needed"
    return parameter.name, kind, "required" if default is empty else repr(default)


def _field_types(entry: ResolvedEntry) -> dict[str, Any]:
    factory = factory_of(entry)
    if not inspect.isclass(factory) or not attrs.has(factory):
        return {}
    return {field.alias or field.name: field.type for field in attrs.fields(factory)}


def _source(factory: Any) -> str:
    try:
        return inspect.getsourcefile(factory) or ""
    except TypeError:
        return ""


def plan(
    name: Annotated[
        str,
        typer.Argument(
            help='A sampler, or a label such as "DPM++ 2M Karras".', autocompletion=complete("sampler")
        ),
    ],
    steps: Annotated[int, typer.Option("--steps", min=1, help="Number of steps.")] = 5,
    schedule: Annotated[
        str | None,
        typer.Option("--schedule", help="Schedule. Default: karras.", autocompletion=complete("schedule")),
    ] = None,
    path: Annotated[str, typer.Option("--path", help="Noise path: ve or flow.")] = "ve",
    sigma_min: Annotated[float | None, typer.Option("--sigma-min", help="Lowest level above 0.")] = None,
    sigma_max: Annotated[float | None, typer.Option("--sigma-max", help="Highest level.")] = None,
    options: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A parameter.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a sampler does on a grid: every model call, noise and combination, before any is made.

    Example: `kdiff plan heun --steps 3 --set s_churn=40`
    """
    if path not in _RANGE:
        raise ParameterError(f"--path {path!r}: give 've' or 'flow'")
    given = parse_options(options or [])
    sampler_name, inside = parse_label(name)
    if inside and schedule:
        raise ParameterError(
            f"{name!r} names the schedule {inside!r}; leave --schedule out, or ask for {sampler_name!r}"
        )
    low, high = _RANGE[path]
    sigmas = get_schedule(schedule or inside or "karras", **given["schedule"])(
        steps,
        sigma_min=low if sigma_min is None else sigma_min,
        sigma_max=high if sigma_max is None else sigma_max,
    )
    found = get_sampler(sampler_name if inside else name, **given["sampler"]).plan(sigmas, path)
    if as_json:
        say_json(found.to_dict())
    else:
        say(found.table())
