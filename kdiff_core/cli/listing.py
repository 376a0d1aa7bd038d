"""`kdiff samplers`, `schedules`, ..., `plugins`: what there is, a command for each kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from ..entry import HOOKS
from ..lookup import default_registry
from ..registry import ResolvedEntry
from .console import console, provider, say, say_json, table
from .facts import sampler_facts

# Below this width the tables leave out what the JSON and `kdiff show` have too.
_NARROW = 100
_HELP = {
    "schedule": "List the noise schedules.\n\nExample: `kdiff schedules`, then `kdiff show karras`.",
    "modifier": "List what wraps a sampler.\n\nExample: `kdiff modifiers`, then `kdiff show churn`.",
    "process": "List the noise processes that models were trained on.\n\nExample: `kdiff processes`",
    "noise": "List the noise sources.\n\nExample: `kdiff noise --json`",
    "denoiser": "List what can be sampled from.\n\nExample: `kdiff denoisers`, then `kdiff sample digits`.",
    "model": "List the networks that plugins offer.\n\nExample: `kdiff models --json`",
    "guidance": "List the kinds of guidance.\n\nExample: `kdiff guidance`, then `kdiff show cfg`.",
    "loss": "List the training losses.\n\nExample: `kdiff losses`, then `kdiff show edm`.",
    "density": "List the densities of noise levels to train at.\n\nExample: `kdiff densities`",
    "dataset": "List the data sets.\n\nExample: `kdiff datasets`, then `kdiff train --preset digits`.",
    "condition": "List the conditions that networks take.\n\nExample: `kdiff conditions`",
    "augmentation": "List the augmentations of training images.\n\nExample: `kdiff augmentations`",
    "features": "List the networks that evaluation compares images by.\n\nExample: `kdiff features`",
    "command": "List the commands that plugins add.\n\nExample: `kdiff commands`, then `kdiff train --help`.",
}
Hosts = Annotated[bool, typer.Option("--hosts", help="Also other names, and the hosts' own variants.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands: `kdiff X` for each hook `kdiff_X`, as the refusals of unknown names say."""
    panel = "What there is"
    app.command(rich_help_panel=panel)(samplers)
    for kind, text in _HELP.items():
        name = HOOKS[kind].removeprefix("kdiff_")
        app.command(name, help=text, rich_help_panel=panel)(_listing(kind))
    app.command(rich_help_panel=panel)(plugins)


def samplers(hosts: Hosts = False, as_json: AsJson = False) -> None:
    """List the samplers: order, model calls a step, whether they draw noise.

    Example: `kdiff samplers --hosts` shows the names that other programs use for them.
    """
    rows = [_row(e) | sampler_facts(e) for e in default_registry().list("sampler", hosts)]
    if as_json:
        say_json(rows)
        return
    for row in rows:
        if row["error"]:
            row["summary"] = f"broken: {row['error']}"
            row |= {key: "?" for key in ("order", "stochastic", "calls_per_step") if row[key] is None}
    heads = {"order": "order", "calls_per_step": "calls", "stochastic": "noise"}
    _print(rows, heads, hosts)


def _listing(kind: str) -> Callable[[bool, bool], None]:
    """Return the command that lists a kind."""

    def command(hosts: Hosts = False, as_json: AsJson = False) -> None:
        rows = [_row(entry) for entry in default_registry().list(kind, hosts)]
        if as_json:
            say_json(rows)
        elif rows:
            _print(rows, {}, hosts)
        else:
            say(f"No installed plugin offers a {kind}.")

    return command


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
            "traceback": r.traceback,
        }
        for r in records
    ]
    if as_json:
        say_json(rows)
        return
    heads = ["distribution", "version", "entry point", "state", "import ms", "offers"]
    table(heads, [_plugin_cells(row) for row in rows], wrapped=("entry point", "offers"))
    for row in rows:
        if row["traceback"]:
            say(f"\n{row['entry_point']} = {row['module']}:")
            say(row["traceback"].rstrip())


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


def _print(rows: list[dict[str, Any]], more: dict[str, str], hosts: bool) -> None:
    """Print a table of entries.

    Args:
        rows: The entries.
        more: Keys of a row and the heads of their columns, between the name and the text.
        hosts: Whether other names are a column.
    """
    narrow = console().width < _NARROW
    foreign = any(not row["builtin"] for row in rows)
    heads = {"name": "name", **more}
    if hosts:
        heads["aliases"] = "other names"
    if not (narrow and hosts):
        heads["reference"] = "reference"
    if foreign or not narrow:
        heads["distribution"] = "provider"
    heads["summary"] = "summary"
    cells = [[", ".join(row[k]) if k == "aliases" else row[k] for k in heads] for row in rows]
    table([*heads.values()], cells, wrapped=("other names", "reference", "provider", "summary"))


def _row(entry: ResolvedEntry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "id": entry.id,
        "entry_version": entry.version,
        "summary": entry.summary,
        "reference": entry.reference,
        "provider": provider(entry),
        "distribution": entry.plugin.distribution,
        "builtin": entry.plugin.builtin,
        "aliases": list(entry.aliases),
    }
