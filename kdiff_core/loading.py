"""Plugins: which may be imported, finding them, and loading each on its own."""

from __future__ import annotations

import inspect
import os
import time
import traceback
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from attrs import frozen

from .entry import BUILTIN, HOOKS, Entry, PluginRecord
from .errors import PluginError
from .names import nearest, normalise, quoted

if TYPE_CHECKING:
    import importlib.metadata

GROUP = "kdiff"


def _flag(value: str) -> bool:
    return value.strip().lower() not in {"", "0", "false", "no"}


def from_environment(argument: Iterable[str] | None, variable: str) -> tuple[str, ...] | None:
    """Return the names in the argument, or where it is None those in an environment variable, or None."""
    if argument is None:
        argument = [name for name in os.environ.get(variable, "").split(",") if name.strip()] or None
    elif isinstance(argument, str):
        argument = argument.split(",")
    return None if argument is None else tuple(name.strip() for name in argument)


@frozen
class Switches:
    """Which plugins may be imported. None leaves a choice to the environment."""

    plugins: Iterable[str] | None = None
    block: Iterable[str] | None = None
    disable: bool | None = None
    strict: bool | None = None

    def why_blocked(self, distribution: str, entry_point: str) -> str:
        """Return what forbids a plugin, or an empty string."""
        names = {normalise(distribution), normalise(entry_point), normalise(f"{distribution}:{entry_point}")}
        builtin = normalise(distribution) == normalise(BUILTIN)
        if names & set(map(normalise, from_environment(self.block, "KDIFF_BLOCK") or ())):
            return "blocked by KDIFF_BLOCK or Registry(block=...)"
        disable = _flag(os.environ.get("KDIFF_DISABLE_PLUGINS", "")) if self.disable is None else self.disable
        if disable and not builtin:
            return "blocked by KDIFF_DISABLE_PLUGINS or Registry(disable=True)"
        allowed = from_environment(self.plugins, "KDIFF_PLUGINS")
        if allowed is not None and not builtin and not names & set(map(normalise, allowed)):
            return "not among KDIFF_PLUGINS or Registry(plugins=...)"
        return ""

    @property
    def is_strict(self) -> bool:
        """Whether a broken plugin raises at once."""
        return _flag(os.environ.get("KDIFF_STRICT", "")) if self.strict is None else self.strict


@frozen
class Found:
    """An installed plugin that is not imported yet."""

    distribution: str
    version: str
    point: importlib.metadata.EntryPoint

    def record(self, **more: Any) -> PluginRecord:
        """Return the record of it."""
        return PluginRecord(self.distribution, self.version, self.point.name, self.point.value, **more)

    def broken(self, error: BaseException, import_ms: float) -> PluginRecord:
        """Return the record of what went wrong."""
        return self.record(
            state="broken",
            error="".join(traceback.format_exception_only(error)).strip(),
            traceback="".join(traceback.format_exception(error)),
            import_ms=import_ms,
            exception=error,
        )

    def load(self) -> tuple[PluginRecord, dict[str, list[Entry]]]:
        """Import the plugin and ask its hooks. What goes wrong becomes part of the record, not an error."""
        start = time.perf_counter()
        try:
            entries = read_plugin(self.point.load())
        except (Exception, SystemExit) as error:  # one plugin's exit must not end the host's process
            return self.broken(error, 1e3 * (time.perf_counter() - start)), {}
        counts = {kind: len(items) for kind, items in entries.items()}
        return self.record(import_ms=1e3 * (time.perf_counter() - start), counts=counts), entries


def discover() -> list[Found]:
    """Return the installed plugins, in an order that the file system has no say in."""
    import importlib.metadata

    found = []
    for point in importlib.metadata.entry_points(group=GROUP):
        dist = point.dist
        found.append(Found((dist and dist.name) or "unknown", (dist and dist.version) or "", point))
    return sorted(found, key=lambda f: (normalise(f.distribution), f.point.name))


def read_plugin(plugin: object) -> dict[str, list[Entry]]:
    """Ask a plugin's hooks for its entries.

    It is asked through a plugin manager of its own, so that nothing stays behind when something is wrong.

    Raises:
        PluginError: A hook is misspelt, not marked, or returns something else than entries.
        pluggy.PluginValidationError: A hook asks for an argument that there is none of.
    """
    import pluggy

    from . import hookspecs

    if inspect.isclass(plugin):
        plugin = plugin()
    manager = pluggy.PluginManager("kdiff")
    manager.add_hookspecs(hookspecs)
    manager.register(plugin)
    for name, hook in vars(manager.hook).items():
        if not name.startswith("_") and not hook.has_spec():
            proposal = nearest(name, HOOKS.values(), 1) or list(HOOKS.values())
            raise PluginError(f"there is no hook {name!r}; did you mean {quoted(proposal, 'or')}?")
    entries = {
        kind: _entries(name, impl.function)
        for kind, name in HOOKS.items()
        for impl in getattr(manager.hook, name).get_hookimpls()
    }
    for name in HOOKS.values():
        function = getattr(plugin, name, None)
        if callable(function) and not (hasattr(function, "kdiff_impl") or hasattr(function, "kdiff_spec")):
            raise PluginError(f"the function {name!r} is not marked as a hook; put @hookimpl above it")
    if not entries:
        raise PluginError(f"it has no hook; write one of {quoted(HOOKS.values(), 'or')}, below @hookimpl")
    return entries


def _entries(hook: str, function: Callable[[], Any]) -> list[Entry]:
    """Return what a hook returns, checked."""
    result = function()
    if not isinstance(result, Iterable) or isinstance(result, Entry | str | bytes):
        raise PluginError(f"hook {hook!r} must return a list of Entry, not {result!r}")
    entries = list(result)
    for index, entry in enumerate(entries):
        if not isinstance(entry, Entry):
            raise PluginError(f"hook {hook!r} must return a list of Entry; its item {index} is {entry!r}")
    return entries
