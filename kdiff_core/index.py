"""Every name that plugins offer, and whose it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from attrs import evolve, field, frozen

from .entry import BUILTIN, HOOKS, SUFFIXES, Entry, PluginRecord, ResolvedEntry, with_argument
from .errors import AmbiguousNameError, KdiffError, PluginError, UnknownNameError
from .loading import Found
from .names import nearest, normalise, quoted, split_version


@frozen
class Owner:
    """One name of one distribution, whatever its versions and aliases."""

    kind: str
    distribution: str
    key: str


@frozen
class Index:
    """Every entry under each form of its names. A new one is made for each change.

    Attributes:
        records: The plugins, in the order in which they were loaded.
        prefer: Choices between plugins that share a name, as ``distribution:name``; the last one counts.
        owners: Whose a name is, by kind and normalised name.
        versions: The entries of each owner.
        written: A normalised name as somebody wrote it.
    """

    records: tuple[PluginRecord, ...] = ()
    prefer: tuple[str, ...] = ()
    owners: Mapping[tuple[str, str], tuple[Owner, ...]] = field(factory=dict)
    versions: Mapping[Owner, Mapping[int, ResolvedEntry]] = field(factory=dict)
    written: Mapping[tuple[str, str], str] = field(factory=dict)

    # -- making

    def adding(self, record: PluginRecord, entries: Mapping[str, Sequence[Entry]]) -> Index:
        """Return an index with a plugin more.

        Raises:
            PluginError: Two entries of one distribution share a name or an alias.
        """
        owners, written = dict(self.owners), dict(self.written)
        versions = {owner: dict(kept) for owner, kept in self.versions.items()}
        for entry in (ResolvedEntry.of(e, kind, record) for kind, items in entries.items() for e in items):
            owner = Owner(entry.kind, normalise(record.distribution), normalise(entry.name))
            kept = versions.setdefault(owner, {})
            if entry.version in kept:
                raise PluginError(
                    f"{entry} is registered twice with version {entry.version}; give one of them another "
                    "name, or another version if its numbers differ"
                )
            kept[entry.version] = entry
            names = (entry.name, *entry.aliases)
            for name in (*names, *(f"{record.distribution}:{name}" for name in names)):
                place = (entry.kind, normalise(name))
                having = owners.get(place, ())
                for other in having:
                    if other.distribution == owner.distribution and other != owner:
                        taken = next(iter(versions[other].values())).name
                        raise PluginError(f"{entry}: its name or alias {name!r} is also one of {taken!r}")
                owners[place] = having if owner in having else (*having, owner)
                written.setdefault(place, name)
        return evolve(
            self, records=(*self.records, record), owners=owners, versions=versions, written=written
        )

    def loading(self, found: Found) -> Index:
        """Return an index with an installed plugin more; whatever goes wrong becomes part of its record."""
        record, entries = found.load()
        try:
            return self.adding(record, entries)
        except PluginError as error:
            return self.adding(found.broken(error, record.import_ms), {})

    # -- asking

    def latest(self, owner: Owner) -> ResolvedEntry:
        """Return the entry with the newest numbers."""
        kept = self.versions[owner]
        return kept[max(kept)]

    def preferred(self, kind: str, key: str) -> Owner | None:
        """Return who was chosen for a name."""
        for choice in map(normalise, reversed(self.prefer)):
            for owner in self.owners[kind, key]:
                if choice in (f"{owner.distribution}:{key}", f"{owner.distribution}:{owner.key}"):
                    return owner
        return None

    def winner(self, kind: str, key: str) -> Owner | None:
        """Return whose a name is: the only one's, the chosen one's, a built-in's, or nobody's."""
        owners = self.owners[kind, key]
        if len(owners) == 1:
            return owners[0]
        builtin = [o for o in owners if o.distribution == normalise(BUILTIN)]
        return self.preferred(kind, key) or (builtin[0] if builtin else None)

    def offers(self, name: str) -> bool:
        """Whether ``distribution:name`` is there, as any kind."""
        key = normalise(name)
        owners = [owner for kind in HOOKS for owner in self.owners.get((kind, key), ())]
        return any(key.startswith(f"{owner.distribution}:") for owner in owners)

    def bare(self, kind: str) -> Iterator[ResolvedEntry]:
        """The entries, but hosts' variants, that own their names, in the order of their registration."""
        for owner in self.versions:
            if owner.kind == kind and self.winner(kind, owner.key) == owner:
                entry = self.latest(owner)
                if not entry.hosted:
                    yield entry

    def find(self, kind: str, name: str) -> ResolvedEntry:
        """Return what a name stands for; see `Registry.entry`."""
        base, version = split_version(name)
        key = normalise(base)
        if (kind, key) not in self.owners:
            if (found := self._with_argument(kind, base, version)) is not None:
                return found
            raise self._unknown(kind, name, key)
        owner = self.winner(kind, key)
        if owner is None:
            ids = [self.latest(o).id for o in self.owners[kind, key]]
            raise AmbiguousNameError(
                f"{len(ids)} plugins offer the {kind} {name!r}: ask for {quoted(ids, 'or')}; "
                f"Registry.prefer({ids[0]!r}) or KDIFF_PREFER={ids[0]} makes the choice"
            )
        if version is None:
            return self.latest(owner)
        kept = self.versions[owner]
        if version not in kept:
            there = quoted(f"{base}@{v}" for v in sorted(kept))
            raise UnknownNameError(f"there is no version {version} of the {kind} {base!r}; there is {there}")
        return kept[version]

    def _with_argument(self, kind: str, name: str, version: int | None) -> ResolvedEntry | None:
        """Return the entry of a name with an argument behind a colon, or of a file by its ending."""
        for colon in (i for i, letter in enumerate(name) if letter == ":" and name[i + 1 :].strip()):
            if (kind, normalise(name[:colon])) in self.owners:
                entry = self.find(kind, name[:colon] + ("" if version is None else f"@{version}"))
                if entry.argument:
                    return with_argument(entry, name[colon + 1 :].strip())
        for suffix, owner in SUFFIXES.get(kind, {}).items():
            if name.lower().endswith(suffix) and (kind, normalise(owner)) in self.owners:
                return with_argument(self.find(kind, owner), name)
        return None

    def canonical(self, entry: ResolvedEntry) -> str:
        """Return the shortest name that leads to `entry`: its own, with distribution or version if needed."""
        names = (entry.name, entry.id)
        for name in (*names, *(f"{name}@{entry.version}" for name in names)):
            try:
                if self.find(entry.kind, name) == entry:
                    return name
            except KdiffError:
                continue
        return entry.id

    def split(self, label: str) -> tuple[str, str] | None:
        """Return the sampler and the schedule that a label is made of, or None.

        Raises:
            AmbiguousNameError: It can be cut in more than one way.
        """
        key = normalise(label)
        host = key[: key.find(":") + 1]  # a host's label is made of that host's names only
        found = []
        for cut in range(len(host) + 1, len(key)):
            sampler, schedule = key[:cut], host + key[cut:]
            if ("sampler", sampler) in self.owners and ("schedule", schedule) in self.owners:
                pair = self.find("sampler", sampler), self.find("schedule", schedule)
                found.append((self.canonical(pair[0]), self.canonical(pair[1])))
        if len(found) > 1:
            readings = quoted((f"{a} + {b}" for a, b in found), "or")
            raise AmbiguousNameError(f"the label {label!r} can be {readings}; name the two apart")
        return found[0] if found else None

    # -- refusing and warning

    def _unknown(self, kind: str, name: str, key: str) -> UnknownNameError:
        """Return the refusal of a name, or raise what broke the plugin that it belongs to."""
        for record in self.records:
            if record.state == "broken" and record.answers_to(key):
                raise PluginError(
                    f"the {kind} {name!r} belongs to plugin {record}, which is broken: {record.error}"
                ) from record.exception
        others = [k for k in HOOKS if (k, key) in self.owners]
        if kind in ("sampler", "schedule") and not others and (split := self.split(name)):
            return UnknownNameError(
                f"{name!r} is the sampler {split[0]!r} with the schedule {split[1]!r}; "
                "ask for each by its name, or give the label to kd.parse_label or kd.sample"
            )
        first = f"there is no {kind} {name!r}"
        if close := self.near(kind, name, key):
            first += f"; did you mean {quoted(close, 'or')}?"
        lines = [first]
        if others:
            lines.append(f"It is the name of a {quoted(others)}.")
        lines.append(f"`kdiff {HOOKS[kind].removeprefix('kdiff_')}` lists them.")
        if not any(record.builtin for record in self.records):
            lines.append(f"No built-in is known: install {BUILTIN}; in a source tree, pip install -e .")
        missing = [record for record in self.records if record.state != "ok"]
        for r in missing:  # what blocks a plugin is a sentence of its own
            why = r.error if r.state == "blocked" else f"{r.state}: {r.error}"
            lines.append(f"It may belong to plugin {r}, which is {why}")
        return UnknownNameError("\n".join(lines))

    def near(self, kind: str, name: str, key: str) -> list[str]:
        """Return up to five names like `name`; of a qualified one the bare name first, if there is one."""
        bare = self.written.get((kind, key.rpartition(":")[2]))
        # Otherwise each name would be followed by itself with its distribution.
        pool = [w for (k, form), w in self.written.items() if k == kind and (":" in form) == (":" in key)]
        return [*([bare] if bare else []), *nearest(name, pool)][:5]

    def warnings(self) -> Iterator[str]:
        """What a user should know: broken plugins, names that are taken, choices that nobody offers."""
        for record in self.records:
            if record.state == "broken":
                yield f"plugin {record} is broken and left out: {record.error}\n`kdiff plugins` shows more"
        for kind, owner, names in self._taken():
            entry = self.latest(owner)
            winner = self.latest(self.winner(kind, normalise(names[0])) or owner)
            yield (
                f"plugin {entry.plugin} claims the {kind} name {quoted(names)}, which stays with the "
                f"built-in {winner.id!r}; ask for {entry.id!r}, or choose it by KDIFF_PREFER={entry.id} "
                "or Registry.prefer"
            )
        for name in self.prefer:
            if not self.offers(name):
                yield f"{name!r} is preferred (KDIFF_PREFER), but no plugin offers it"

    def _taken(self) -> Iterable[tuple[str, Owner, list[str]]]:
        """The owners that do not get names which they claim, because those are a built-in's."""
        taken: dict[Owner, list[str]] = {}
        for (kind, key), owners in self.owners.items():
            winner = self.winner(kind, key)
            for owner in owners:
                if winner not in (None, owner) and not self.preferred(kind, key):
                    taken.setdefault(owner, []).append(self.written[kind, key])
        return [(owner.kind, owner, names) for owner, names in taken.items()]
