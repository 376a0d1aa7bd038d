"""Finding samplers, schedules and the rest by name, each with the plugin that provides it."""

from __future__ import annotations

import inspect
import threading
import warnings
from collections.abc import Iterable
from typing import Any, TypeAlias

from attrs import evolve

from .building import build, build_sampler
from .entry import BUILTIN, HOOKS, Entry, PluginRecord, ResolvedEntry, file_entry, is_file
from .errors import ParameterError, PluginError, UnknownNameError
from .index import Index
from .loading import Switches, discover, from_environment, read_plugin
from .names import nearest, normalise, quoted, split_version

__all__ = [
    "BUILTIN", "KINDS", "Entry", "KdiffPluginWarning", "PluginRecord", "Registry", "ResolvedEntry",
    "normalise",
]  # fmt: skip

KINDS = tuple(HOOKS)
Entries: TypeAlias = list[ResolvedEntry]


class KdiffPluginWarning(UserWarning):
    """A plugin is broken, or claims a name that is taken."""


class Registry:
    """Names and what they stand for; independent of every other registry.

    Plugins are found through the entry-point group ``kdiff`` and imported on the first look-up. Arguments
    that are None leave the choice to the environment, which is read then.

    Args:
        plugins: The only plugins to import, by distribution, entry point or ``distribution:entry-point``
            (``KDIFF_PLUGINS``, comma-separated). The built-ins stay.
        block: Plugins not to import (``KDIFF_BLOCK``).
        disable: Whether to import no third-party plugin (``KDIFF_DISABLE_PLUGINS=1``).
        strict: Whether a broken plugin raises at once (``KDIFF_STRICT=1``).
        prefer: Choices between plugins that share a name, as ``distribution:name`` (``KDIFF_PREFER``).
        load: Whether to look for installed plugins at all; without, there is only what is registered by hand.
    """

    def __init__(
        self,
        *,
        plugins: Iterable[str] | None = None,
        block: Iterable[str] | None = None,
        disable: bool | None = None,
        strict: bool | None = None,
        prefer: Iterable[str] | None = None,
        load: bool = True,
    ) -> None:
        self._switches = Switches(plugins, block, disable, strict)
        self._prefer = prefer
        self._discover = load
        self._lock = threading.RLock()
        self._loading = False
        self._loaded: Index | None = None
        self._warned: set[str] = set()

    @property
    def _index(self) -> Index:
        """The index, loaded by whoever asks first."""
        if self._loaded is None:
            with self._lock:
                if self._loading:
                    raise PluginError(
                        "a plugin looks up a name while the plugins are being loaded; "
                        "do it in the factory of the entry, not on import or in a hook"
                    )
                if self._loaded is None:
                    self._loading = True
                    try:
                        self._loaded = self._load()
                    finally:
                        self._loading = False
                    # Last, as a warning may be an error: then the next look-up finds everything in place.
                    self._warn(self._loaded)
        return self._loaded

    def _load(self) -> Index:
        index = Index(prefer=from_environment(self._prefer, "KDIFF_PREFER") or ())
        for found in discover() if self._discover else []:
            if why := self._switches.why_blocked(found.distribution, found.point.name):
                index = index.adding(found.record(state="blocked", error=why), {})
                continue
            index = index.loading(found)
            record = index.records[-1]
            if record.exception and self._switches.is_strict:
                raise PluginError(f"plugin {record} is broken: {record.error}") from record.exception
        return index

    def _warn(self, index: Index) -> None:
        for message in index.warnings():
            if message not in self._warned:
                self._warned.add(message)
                warnings.warn(message, KdiffPluginWarning, stacklevel=3)

    def register(self, plugin: object, name: str | None = None) -> PluginRecord:
        """Add a plugin by hand, as tests and notebooks do: whole, or not at all.

        Args:
            plugin: A module or an object with hooks.
            name: What stands for its distribution. Default: the module's or the class's name.

        Returns:
            Its record.

        Raises:
            PluginError: It is not right; nothing of it is registered.
        """
        _ = self._index  # what is installed comes first
        named = plugin if inspect.ismodule(plugin) or inspect.isclass(plugin) else type(plugin)
        module = str(getattr(named, "__name__", named))
        label = name or module
        try:
            entries = read_plugin(plugin)
            record = PluginRecord(label, "", label, module, counts={k: len(v) for k, v in entries.items()})
            with self._lock:
                self._loaded = self._index.adding(record, entries)
        except (Exception, SystemExit) as error:
            raise PluginError(f"plugin {label!r} ({module}) is broken: {error}") from error
        self._warn(self._loaded)
        return record

    def prefer(self, name: str) -> None:
        """Choose who gives a name that several plugins claim.

        Args:
            name: ``distribution:name``; a later choice comes before an earlier one.

        Raises:
            UnknownNameError: No plugin offers it.
        """
        if not self._index.offers(name):
            ids = nearest(name, {e.id for kind in KINDS for e in self.list(kind, hosts=True)})
            raise UnknownNameError(
                f"no plugin offers {name!r}; write distribution:name, such as "
                f"{quoted(ids or [f'{BUILTIN}:euler'], 'or')}"
            )
        with self._lock:
            self._loaded = evolve(self._index, prefer=(*self._index.prefer, name))

    def plugins(self) -> list[PluginRecord]:
        """Return a record of every plugin found, broken and blocked ones too."""
        return list(self._index.records)

    def entry(self, kind: str, name: str) -> ResolvedEntry:
        """Return what a name stands for.

        Args:
            kind: One of `KINDS`.
            name: A name, an alias, ``distribution:name`` or ``host:name``; with ``@2`` its second version; of
                an entry with an argument ``name:argument``. Of samplers and schedules also the path of a
                tuned file, which ends in ``.json``, of denoisers that of one in `entry.SUFFIXES`.

        Raises:
            UnknownNameError: No plugin offers it.
            AmbiguousNameError: Several third-party plugins offer it.
            PluginError: It belongs to a broken plugin.
            ParameterError: There is no such kind, or the name is no string.
        """
        _check_kind(kind)
        if not isinstance(name, str):
            raise ParameterError(f"the name of a {kind} must be a string, not {name!r}")
        return file_entry(kind, name) if is_file(kind, name) else self._index.find(kind, name)

    def get(self, kind: str, name: str, /, *args: Any, **options: Any) -> Any:
        """Build what a name stands for.

        Options that a sampler does not have, but a modifier has, wrap it in that modifier:
        ``get("sampler", "heun", s_churn=40.0)``.

        Args:
            kind: One of `KINDS`.
            name: As in `entry`.
            *args: Positional arguments of the factory, such as the denoiser that guidance wraps.
            **options: Its options, over the entry's defaults.

        Raises:
            ParameterError: An option is unknown, missing or refused.
            PluginError: The factory cannot be imported.
        """
        entry = self.entry(kind, name)
        if kind == "sampler":
            return build_sampler(entry, args, options, [*self._index.bare("modifier")])
        return build(entry, args, options)

    def provider(self, kind: str, name: str) -> PluginRecord:
        """Return the plugin that a name comes from."""
        return self.entry(kind, name).plugin

    def parse_label(self, label: str) -> tuple[str, str | None]:
        """Split a label into sampler and schedule: "Euler a Karras" is "euler_ancestral" and "karras".

        Returns:
            The sampler's name, and the schedule's or None.

        Raises:
            UnknownNameError: It is no sampler, with or without a schedule behind it.
            AmbiguousNameError: It can be read in more than one way.
        """
        if not isinstance(label, str):
            raise ParameterError(f"a label must be a string, not {label!r}")
        if is_file("sampler", label):
            return label, None
        key = normalise(split_version(label)[0])
        if ("sampler", key) not in self._index.owners and (split := self._index.split(label)):
            return split
        return self._index.canonical(self.entry("sampler", label)), None

    def list(self, kind: str, hosts: bool = False) -> Entries:
        """Return the entries of a kind in their newest versions, sorted by name.

        Args:
            kind: One of `KINDS`.
            hosts: Whether to list the hosts' own variants ("comfyui:beta") too.
        """
        _check_kind(kind)
        index = self._index
        entries = [index.latest(owner) for owner in index.versions if owner.kind == kind]
        return sorted((e for e in entries if hosts or not e.hosted), key=lambda e: (e.name, e.id))


def _check_kind(kind: str) -> None:
    if kind not in HOOKS:
        raise ParameterError(f"there is no kind {kind!r}; there are {quoted(KINDS)}")
