"""What the registry and the conformance kit hold, put in while the pages are built.

``<!-- table: samplers -->`` becomes a table, ``<!-- laws: sampler -->`` the laws of samplers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import kdiff_core as kd
from kdiff_core.cli.facts import calls_per_step
from kdiff_core.errors import KdiffError
from kdiff_core.testing.catalogue import all_checks

HOSTS = {
    "k_diffusion": "k-diffusion",
    "comfyui": "ComfyUI",
    "a1111": "A1111, Forge",
    "diffusers": "diffusers",
}


def _entries(kind: str, hosts: bool = False) -> list[Any]:
    """The built-ins of a kind: what else is installed where the pages are built is left out."""
    return [entry for entry in getattr(kd, f"list_{kind}")(hosts=hosts) if entry.plugin.builtin]


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _table(heads: list[str], rows: Iterable[Iterable[str]]) -> str:
    return "\n".join([_row(heads), _row("---" for _ in heads), *map(_row, rows)])


def _codes(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _linked(reference: str) -> str:
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", reference)


def _order(entry: Any, sampler: Any) -> str:
    try:
        still = kd.get_sampler(entry.name, eta=0.0).order
    except KdiffError:  # it has no eta
        still = sampler.order
    return str(sampler.order) if still == sampler.order else f"{sampler.order} ({still} with eta 0)"


def _evaluations(sampler: Any) -> str:
    count = calls_per_step(sampler)
    return "varies" if count is None else f"{count:.2g}"


def _known_as(entry: Any) -> str:
    """Names in hosts, a line for each host, and labels."""
    lines = []
    for host, title in HOSTS.items():
        names = [alias.partition(":")[2] for alias in entry.aliases if alias.startswith(f"{host}:")]
        # k-diffusion's functions are also known without "sample_".
        names = [name for name in names if f"sample_{name}" not in names]
        if names:
            lines.append(f"{title}: {_codes(names)}")
    others = [alias for alias in entry.aliases if ":" not in alias]
    return "<br>".join([*lines, *([f"also {_codes(others)}"] if others else [])])


def samplers() -> str:
    """The built-in samplers."""
    rows = []
    for entry in _entries("samplers"):
        sampler = kd.get_sampler(entry.name)
        rows.append(
            [
                f"`{entry.name}`",
                entry.summary,
                _order(entry, sampler),
                _evaluations(sampler),
                "yes" if sampler.stochastic else "",
                _linked(entry.reference),
                _known_as(entry),
            ]
        )
    return _table(["Name", "What", "Order", "Evaluations", "Noise", "Reference", "Elsewhere"], rows)


def host_variants() -> str:
    """The samplers that stand for one host's own numbers."""
    rows = [[f"`{e.name}`", e.summary] for e in _entries("samplers", hosts=True) if e.hosted]
    return _table(["Name", "What"], rows)


def _plain(kind: str) -> Callable[[], str]:
    def table() -> str:
        rows = [[f"`{e.name}`", e.summary, _linked(e.reference), _known_as(e)] for e in _entries(kind)]
        return _table(["Name", "What", "Reference", "Elsewhere"], rows)

    return table


TABLES = {
    "samplers": samplers,
    "host variants": host_variants,
    **{
        kind: _plain(kind)
        for kind in ("modifiers", "schedules", "processes", "noise", "denoisers", "models", "guidance")
    },
}


def laws(kind: str) -> str:
    """The checks of a kind: a heading for each, the law, the reason, and whether it is slow."""
    parts = []
    for check in all_checks(kind):
        slow = ["Slow: run where it is asked for, with `--slow` or `--kdiff-slow`."] if check.slow else []
        parts += [f"### {check.name}", f"**{check.law}**", check.reason, *slow]
    return "\n\n".join(part for part in parts if part)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put tables and laws in; mkdocs calls this for every page."""
    markdown = re.sub(r"<!-- table: ([\w ]+) -->", lambda found: TABLES[found[1]](), markdown)
    return re.sub(r"<!-- laws: (\w+) -->", lambda found: laws(found[1]), markdown)
