"""The commands that plugins add, looked for where no command of kdiff's own has the name."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from ..errors import KdiffError
from ..lookup import default_registry
from ..registry import ResolvedEntry

_PANEL = "From plugins"
_ANY = {"ignore_unknown_options": True, "allow_extra_args": True}


class Commands(TyperGroup):
    """kdiff's own commands, then those of the registry, for which alone plugins are imported."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands."""
        own = super().list_commands(ctx)
        return [*own, *(entry.name for entry in default_registry().list("command") if entry.name not in own)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of a name, or None."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        found = [entry for entry in default_registry().list("command") if entry.name == cmd_name]
        return _made(found[0]) if found else None


def _made(entry: ResolvedEntry) -> Any:
    """Return the command of an entry; of one that is broken, what says so when it is run."""
    app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    try:
        app.command(entry.name, rich_help_panel=_PANEL)(default_registry().get("command", entry.id))
    except KdiffError as error:
        app.command(entry.name, rich_help_panel=_PANEL, context_settings=_ANY)(_broken(error))
    return typer.main.get_command(app)


def _broken(error: KdiffError) -> Any:
    def command() -> None:
        raise error

    command.__doc__ = f"Broken: {error}"
    return command
