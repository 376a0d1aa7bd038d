"""What `kdiff check` is asked to check: names and distributions, as things that can be built one by one."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from ..building import parameters
from ..errors import KdiffError, ParameterError, UnknownNameError
from ..lookup import default_registry
from ..names import nearest, normalise, quoted
from ..registry import BUILTIN, ResolvedEntry
from ..testing.catalogue import KINDS
from .console import Options
from .explain import entries_named

if TYPE_CHECKING:
    from ..testing.subjects import Subject

_PATHS = ("ve", "flow")


@frozen
class Target:
    """Something to check, not built yet.

    Attributes:
        kind: One of the kit's kinds, or "plugin" for a plugin that is not there.
        name: The name it is built by.
        entry: What the name stands for; None for a path or a plugin.
        options: Options to build it with.
        offered: Whether it comes from a distribution, so that nobody was asked for options.
        broken: What is wrong with the plugin.
    """

    kind: str
    name: str
    entry: ResolvedEntry | None = None
    options: Mapping[str, Any] = field(factory=dict, eq=False)
    offered: bool = False
    broken: str = ""

    @property
    def same(self) -> tuple[Any, ...]:
        """What two targets share that are one thing under two names."""
        return (
            (self.kind, self.name) if self.entry is None else (self.kind, self.entry.id, self.entry.version)
        )

    @property
    def needs(self) -> tuple[str, ...]:
        """Options that it cannot be built without; the kit gives a noise source its seed."""
        if self.entry is None or not self.offered:
            return ()
        try:
            known = parameters(self.entry) or {}
        except Exception:  # said when it is built
            return ()
        given = {*self.entry.defaults, *(["seed"] if self.kind == "noise" else [])}
        return tuple(n for n, p in known.items() if p.default is inspect.Parameter.empty and n not in given)

    def build(self) -> Subject:
        """Build it.

        Raises:
            Exception: Whatever its factory raises.
        """
        from ..testing.subjects import subjects_named

        return subjects_named(self.name, self.kind, **self.options)[0]


def find_targets(
    names: Sequence[str], distribution: str | None, kind: str | None, options: Options
) -> list[Target]:
    """Return what to check, each thing once.

    Args:
        names: Names of any kind.
        distribution: A distribution, for all that it offers.
        kind: Only this kind.
        options: Options of a sampler, the only thing named.

    Raises:
        ParameterError: Nothing is asked for, or nothing that can be checked.
        UnknownNameError: Nothing has one of the names.
    """
    check_kind(kind)
    if not names and distribution is None:
        raise ParameterError(
            "name what to check, such as `kdiff check euler`\n`kdiff check --distribution kdiff-core` checks "
            "all built-ins, `kdiff check --list` lists the checks."
        )
    found = [target for name in names for target in _named(name, kind, options)]
    if distribution is not None:
        found += _offered(distribution, kind)
    first: dict[tuple[Any, ...], Target] = {}
    for target in found:
        first.setdefault(target.same, target)
    return _with_options([*first.values()], names, options)


def check_kind(kind: str | None) -> str | None:
    """Return a kind, refusing one that cannot be checked.

    Raises:
        ParameterError: It cannot.
    """
    if kind is not None and kind not in KINDS:
        raise ParameterError(f"--kind {kind!r}: what can be checked is a {quoted(KINDS, 'or')}")
    return kind


def _with_options(targets: list[Target], names: Sequence[str], options: Options) -> list[Target]:
    """Return the targets, refusing options that are for none of them or for several."""
    if options and (len(targets) != 1 or len(names) != 1 or targets[0].kind != "sampler"):
        what = quoted(f"{target.kind} {target.name}" for target in targets)
        raise ParameterError(f"--set gives options to one sampler, given by its name; this is {what:.200}")
    return targets


def _named(name: str, kind: str | None, options: Options) -> list[Target]:
    """Return what a name stands for, of one kind or of all that have it."""
    kind = kind or ("sampler" if options and _is_sampler(name) else None)
    path = [Target("path", name)] if name in _PATHS and kind in (None, "path") else []
    if kind == "path" and not path:
        raise UnknownNameError(f"there is no path {name!r}; there are {quoted(_PATHS)}")
    if kind is not None:
        return path or [_target(default_registry().entry(kind, name), name, options)]
    try:
        entries = entries_named(name)
    except UnknownNameError:
        if not path:
            raise
        entries = []
    found = [_target(entry, name, options) for entry in entries if entry.kind in KINDS]
    if not found and not path:
        what = " and a ".join(entry.kind for entry in entries)
        raise ParameterError(f"{name!r} is a {what}; what can be checked is a {quoted(KINDS, 'or')}")
    return found + path


def _is_sampler(name: str) -> bool:
    try:
        default_registry().entry("sampler", name)
    except KdiffError:
        return False
    return True


def _target(entry: ResolvedEntry, name: str, options: Options) -> Target:
    return Target(entry.kind, name, entry, options)


def _offered(distribution: str, kind: str | None) -> list[Target]:
    """Return all that a distribution offers, and its plugins that could not be loaded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is broken becomes a target
        records = default_registry().plugins()
    key = normalise(distribution)
    own = [record for record in records if normalise(record.distribution) == key]
    if not own:
        raise UnknownNameError(_no_distribution(distribution, {record.distribution for record in records}))
    entries = [
        entry
        for each in KINDS
        if each != "path" and kind in (None, each)
        for entry in default_registry().list(each, hosts=True)
        if normalise(entry.plugin.distribution) == key
    ]
    found = [Target(e.kind, _shortest(e), e, offered=True) for e in entries]
    if key == normalise(BUILTIN) and kind in (None, "path"):
        found += [Target("path", name) for name in _PATHS]
    found += [Target("plugin", r.entry_point, broken=_why(r.state, r.error)) for r in own if r.state != "ok"]
    if not found:
        what = f"no {kind}" if kind else "nothing"
        raise ParameterError(
            f"{distribution} offers {what} that can be checked; `kdiff plugins` shows what it does"
        )
    return found


def _no_distribution(name: str, known: Iterable[str]) -> str:
    close = quoted(nearest(name, known), "or")
    hint = f"; did you mean {close}?" if close else ""
    return f"no distribution {name!r} with a plugin is installed{hint}\n`kdiff plugins` lists them."


def _why(state: str, error: str) -> str:
    return f"the plugin is {state}: {' '.join(error.split())}"


def _shortest(entry: ResolvedEntry) -> str:
    """Return an entry's own name if that leads to it, or else the one that always does."""
    try:
        return entry.name if default_registry().entry(entry.kind, entry.name) == entry else entry.id
    except KdiffError:  # two plugins have it
        return entry.id
