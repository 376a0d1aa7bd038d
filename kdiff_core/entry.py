"""What a plugin registers, and what the registry knows about it."""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from attrs import asdict, evolve, field, frozen

from .errors import ParameterError
from .names import normalise, split_version

BUILTIN = "kdiff-core"
HOOKS = {
    "sampler": "kdiff_samplers",
    "modifier": "kdiff_modifiers",
    "schedule": "kdiff_schedules",
    "process": "kdiff_processes",
    "noise": "kdiff_noise",
    "denoiser": "kdiff_denoisers",
    "model": "kdiff_models",
    "guidance": "kdiff_guidance",
    "loss": "kdiff_losses",
    "density": "kdiff_densities",
    "dataset": "kdiff_datasets",
    "condition": "kdiff_conditions",
    "augmentation": "kdiff_augmentations",
    "features": "kdiff_features",
    "command": "kdiff_commands",
}
# The entry that an ending of a file's name leads to, by kind; the file is its argument.
SUFFIXES = {"denoiser": {".safetensors": "trained"}}
# What reads a name that is a tuned file's, by kind.
FILES = {
    "sampler": "kdiff_core.tuning.tuned:tuned_sampler",
    "schedule": "kdiff_core.tuning.tuned:tuned_schedule",
}
_IMPORT_STRING = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def _texts(value: Any) -> tuple[str, ...]:
    """Return the aliases as a tuple; one string would become a tuple of its letters."""
    if isinstance(value, str):
        raise ParameterError(f"aliases are a list of names; write ({value!r},) rather than {value!r}")
    return tuple(value)


def _read_only(value: Mapping[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(dict(value))


@frozen
class Entry:
    """One thing that a plugin offers by name.

    Attributes:
        name: The name it is found by. A host-qualified name ("comfyui:beta") is a host's own variant, which
            ordinary listings leave out.
        factory: What makes it: an import string ("package.module:Class"), which is imported when it is asked
            for, or a callable.
        aliases: Other names for it: labels ("DPM++ 2M"), host-qualified names ("a1111:Euler a").
        summary: One line for listings.
        reference: The paper or the source it follows.
        defaults: Options given to the factory before the caller's own.
        version: Counts the changes of its numbers; ``NAME@1`` asks for version 1.
        argument: Name of the option that is given behind a colon: of an entry "diffusers" with the argument
            "path", ``diffusers:PATH`` is the entry with that path.

    Raises:
        ParameterError: An attribute is not as described.
    """

    name: str
    factory: str | Callable[..., Any] = field()
    aliases: tuple[str, ...] = field(default=(), converter=_texts)
    summary: str = ""
    reference: str = ""
    defaults: Mapping[str, Any] = field(factory=dict, converter=_read_only, hash=False)
    version: int = 1
    argument: str = ""

    def __attrs_post_init__(self) -> None:
        for name in (self.name, *self.aliases):
            if not isinstance(name, str) or not normalise(name).strip(":"):
                raise ParameterError(f"an entry needs a name with letters or digits, not {name!r}")
            if "@" in name:
                raise ParameterError(f"a name must not have an '@', which asks for a version: {name!r}")
        if isinstance(self.factory, str):
            if not _IMPORT_STRING.fullmatch(self.factory):
                raise ParameterError(
                    f"entry {self.name!r}: the factory {self.factory!r} must be 'package.module:name'"
                )
        elif not callable(self.factory):
            raise ParameterError(
                f"entry {self.name!r}: the factory must be a callable or 'package.module:name', "
                f"not {self.factory!r}"
            )
        if not isinstance(self.version, int) or self.version < 1:
            raise ParameterError(f"entry {self.name!r}: the version counts from 1, not {self.version!r}")

    def load(self) -> Callable[..., Any]:
        """Return the factory, imported if need be."""
        if not isinstance(self.factory, str):
            return self.factory
        module, _, path = self.factory.partition(":")
        found: Any = importlib.import_module(module)
        factory: Callable[..., Any] = functools.reduce(getattr, path.split("."), found)
        return factory


@frozen
class PluginRecord:
    """What became of one plugin.

    Attributes:
        distribution: What was installed, or the name given to `Registry.register`.
        version: The distribution's version.
        entry_point: Name of the entry point.
        module: What the entry point names.
        state: "ok", "broken" (see `error`) or "blocked" (not imported; `error` says by what).
        error: In a line what is wrong; empty where nothing is.
        traceback: The same in full.
        import_ms: Milliseconds that importing it and asking its hooks took.
        counts: Number of entries of each kind.
        exception: What was raised.
    """

    distribution: str
    version: str
    entry_point: str
    module: str
    state: Literal["ok", "broken", "blocked"] = "ok"
    error: str = ""
    traceback: str = field(default="", repr=False)
    import_ms: float = 0.0
    counts: Mapping[str, int] = field(factory=dict, converter=_read_only, hash=False)
    exception: BaseException | None = field(default=None, eq=False, repr=False)

    @property
    def builtin(self) -> bool:
        """Whether it belongs to kdiff itself."""
        return normalise(self.distribution) == normalise(BUILTIN)

    def answers_to(self, key: str) -> bool:
        """Whether a normalised name must be this plugin's: it has its distribution or is its entry point."""
        distribution, point = normalise(self.distribution), normalise(self.entry_point)
        return key == point or key.startswith(f"{distribution}:")

    def __str__(self) -> str:
        version = f" {self.version}" if self.version else ""
        return f"{self.distribution}{version} (entry point {self.entry_point!r}, {self.module})"


@frozen
class ResolvedEntry(Entry):
    """An entry together with its kind and the plugin that provides it."""

    kind: str = field(kw_only=True)
    plugin: PluginRecord = field(kw_only=True)

    @classmethod
    def of(cls, entry: Entry, kind: str, plugin: PluginRecord) -> ResolvedEntry:
        """Return `entry` with where it comes from."""
        return cls(**asdict(entry, recurse=False), kind=kind, plugin=plugin)

    @property
    def id(self) -> str:
        """The name that always works: ``distribution:name``."""
        return f"{self.plugin.distribution}:{self.name}"

    @property
    def hosted(self) -> bool:
        """Whether it is a host's own variant."""
        return ":" in self.name

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r} of {self.plugin.distribution}"


def with_argument(entry: ResolvedEntry, text: str) -> ResolvedEntry:
    """Return an entry with its argument, under a name that leads to it; of a path from any folder."""
    place = Path(text).expanduser()
    text = str(place.absolute()) if place.exists() else text
    defaults = {**entry.defaults, entry.argument: text}
    return evolve(entry, name=f"{entry.name}:{text}", defaults=defaults)


def is_file(kind: str, name: Any) -> bool:
    """Whether a name is that of a tuned file: of a sampler or a schedule, ending in ``.json``."""
    return kind in FILES and isinstance(name, str) and split_version(name)[0].lower().endswith(".json")


def file_entry(kind: str, name: str) -> ResolvedEntry:
    """Return the entry of a tuned file; its name, the whole path, leads to it from any folder."""
    place = split_version(name)[0].removeprefix(f"{BUILTIN}:")
    file = str(Path(place).expanduser().absolute())
    plugin = PluginRecord(BUILTIN, "", "tuning", "kdiff_core.tuning")
    return ResolvedEntry(
        file, FILES[kind], summary="A tuned file.", defaults={"file": file}, kind=kind, plugin=plugin
    )
