"""`kdiff samplers`, `schedules`, `denoisers`, `noise`, `plugins`: what there is."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..errors import KdiffError
from ..registry import ResolvedEntry, default_registry, get_sampler
from .console import provider, say_json, table

_STEPS = 10
Hosts = Annotated[bool, typer.Option("--hosts", help="Also other names, and the hosts' own variants.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (samplers, schedules, denoisers, noise, plugins):
        app.command(rich_help_panel="What there is")(command)


def samplers(hosts: Hosts = False, as_json: AsJson = False) -> None:
    """List the samplers: order, model calls a step, whether they draw noise.

    Example: `kdiff samplers --hosts` shows the names that other programs use for them.
    """
    rows = [_sampler_row(entry) for entry in default_registry().list("sampler", hosts)]
    if as_json:
        say_json(rows)
        return
    heads = ["name", "order", "calls/step", "noise", "memory", "reference", "provider", "summary"]
    keys = ["name", "order", "calls_per_step", "stochastic", "memory", "reference", "provider", "summary"]
    _print(rows, heads, keys, hosts)


def schedules(hosts: Hosts = False, as_json: AsJson = False) -> None:
    """List the noise schedules.

    Example: `kdiff schedules`, then `kdiff show karras` for the parameters of one.
    """
    _list("schedule", hosts, as_json)


def denoisers(hosts: Hosts = False, as_json: AsJson = False) -> None:
    """List the models that can be sampled from.

    Example: `kdiff denoisers`, then `kdiff sample digits`.
    """
    _list("denoiser", hosts, as_json)


def noise(hosts: Hosts = False, as_json: AsJson = False) -> None:
    """List the noise sources.

    Example: `kdiff noise --json`
    """
    _list("noise", hosts, as_json)


def plugins(as_json: AsJson = False) -> None:
    """List the plugins: version, state, time to import, what they offer, and what is wrong with broken ones.

    Example: `KDIFF_BLOCK=some-plugin kdiff plugins` leaves one out.
    """
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the table shows what is broken
        records = default_registry().plugins()
    rows: list[dict[str, Any]] = [
        {
            "distribution": r.distribution,
            "version": r.version,
            "entry_point": r.entry_point,
            "module": r.module,
            "state": r.state,
            "import_ms": round(r.import_ms, 1),
            "offers": dict(r.counts),
            "error": r.error,
        }
        for r in records
    ]
    if as_json:
        say_json(rows)
        return
    heads = ["distribution", "version", "entry point", "state", "import ms", "offers"]
    table(heads, [_plugin_cells(row) for row in rows])


def _plugin_cells(row: dict[str, Any]) -> list[Any]:
    point = f"{row['entry_point']} = {row['module']}"
    return [row["distribution"], row["version"], point, _state(row["state"]), row["import_ms"], _offers(row)]


def _state(state: str) -> Any:
    from rich.text import Text

    return Text(state, style={"ok": "green", "broken": "bold red"}.get(state, "yellow"))


def _offers(row: dict[str, Any]) -> str:
    """Return what a plugin offers, or the last line of what is wrong with it."""
    if row["error"]:
        return str(row["error"].strip().splitlines()[-1])
    return ", ".join(f"{count} {kind}" for kind, count in row["offers"].items() if count)


def _list(kind: str, hosts: bool, as_json: bool) -> None:
    rows = [_row(entry) for entry in default_registry().list(kind, hosts)]
    if as_json:
        say_json(rows)
        return
    keys = ["name", "summary", "reference", "provider"]
    _print(rows, keys, keys, hosts)


def _print(rows: list[dict[str, Any]], heads: list[str], keys: list[str], hosts: bool) -> None:
    if hosts:
        heads, keys = [*heads, "other names"], [*keys, "aliases"]
    cells = [[", ".join(row[k]) if k == "aliases" else row[k] for k in keys] for row in rows]
    table(heads, cells, wrapped=("summary", "reference", "other names"))


def _row(entry: ResolvedEntry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "id": entry.id,
        "entry_version": entry.version,
        "summary": entry.summary,
        "reference": entry.reference,
        "provider": provider(entry),
        "aliases": list(entry.aliases),
    }


def _sampler_row(entry: ResolvedEntry) -> dict[str, Any]:
    """Describe a sampler; one that cannot be built is listed all the same."""
    row = {
        **_row(entry),
        "order": None,
        "memory": None,
        "stochastic": None,
        "calls_per_step": None,
        "error": "",
    }
    try:
        sampler = get_sampler(entry.id)
        row |= {key: getattr(sampler, key) for key in ("order", "memory", "stochastic")}
        row["calls_per_step"] = calls_per_step(sampler)
    except KdiffError as error:
        row["error"] = str(error)
    return row


def calls_per_step(sampler: Any) -> float | None:
    """Return the model calls of a step, from the plan on ten steps without the last, which goes to 0."""
    levels = [10.0 * 0.6**i for i in range(_STEPS)]
    try:
        steps = [step for step in sampler.plan([*levels, 0.0]).steps if step.sigma_next > 0]
    except KdiffError:
        return None
    calls = sum(type(op).__name__ == "Evaluate" for step in steps for op in step.ops)
    return round(calls / max(1, len(steps)), 2)
