"""What `kdiff sample` checks before it loads a model: the files to write, and whose the options are."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..building import added_options, parameters
from ..entry import is_file
from ..errors import ParameterError
from ..guide import guide_entries, shared_out
from ..lookup import default_registry, parse_label
from ..sample_job import DEFAULT_SCHEDULE

if TYPE_CHECKING:
    from ..registry import ResolvedEntry
    from .console import Options

_PLACEHOLDERS = {"data": "FOLDER", "levels": "[10,5,1,0]"}


def check_file(file: Path | None, allowed: tuple[str, ...]) -> None:
    """Refuse a file that could not be written once the samples are there.

    Raises:
        ParameterError: It is a folder, lies in none or in one that cannot be written to, or has another end.
    """
    if file is None:
        return
    folder = file.absolute().parent
    if file.is_dir():
        raise ParameterError(f"{file}: is a folder; name a file in it, such as {file / f'x{allowed[0]}'}")
    if file.suffix.lower() not in allowed:
        raise ParameterError(f"{file}: the name must end in {' or '.join(allowed)}")
    if not folder.is_dir():
        raise ParameterError(f"{file}: there is no folder {file.parent}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ParameterError(f"{file}: the folder {file.parent} cannot be written to")


def check_distinct(files: dict[str, Path | None]) -> None:
    """Refuse one file that is given by two options.

    Raises:
        ParameterError: It names the two.
    """
    options: dict[Path, str] = {}
    for option, file in files.items():
        if file is not None and (first := options.setdefault(file.absolute(), option)) != option:
            raise ParameterError(f"{first} and {option} are both {file}; give them different names")


def check_options(
    given: dict[str, Options], model: str, sampler: str, schedule: str | None, guide: str | None = None
) -> None:
    """Refuse options that are missing, or that belong to another part of the run.

    Args:
        given: Options by "sampler", "schedule", "model" and "guide".
        model: Name of the model.
        sampler: Name of the sampler, or a label.
        schedule: Name of the schedule, if one is given.
        guide: Names of the guidance, if they are given.

    Raises:
        ParameterError: The message has the ``--set`` to write.
        UnknownNameError: A name is unknown.
    """
    registry = default_registry()
    name, inside = parse_label(sampler)
    usual = sampler if is_file("sampler", sampler) else DEFAULT_SCHEDULE
    entries = {
        "sampler": registry.entry("sampler", name if inside else sampler),
        "schedule": registry.entry("schedule", schedule or inside or usual),
        "model": registry.entry("denoiser", model),
    }
    if given["sampler"]:
        _check_owner(entries, given["sampler"])
    for part, entry in entries.items():
        _check_missing(part, entry, given[part])
    if guide is not None:
        kinds = guide_entries(guide)
        for entry, own in zip(kinds, shared_out(kinds, given["guide"]), strict=True):
            _check_missing("guide", entry, own)


def _check_owner(entries: dict[str, ResolvedEntry], given: Options) -> None:
    """Refuse an option without an owner that is not the sampler's but the model's or the schedule's."""
    sampler = entries["sampler"]
    own = parameters(sampler)
    if own is None:
        return  # it takes any
    known = set(own).union(*added_options(sampler, default_registry().list("modifier")).values())
    for option, value in given.items():
        for part in ("model", "schedule"):
            if option not in known and option in (parameters(entries[part]) or {}):
                raise ParameterError(
                    f"--set {option}={value}: {sampler} has no option {option!r}; "
                    f"did you mean --set {part}.{option}={value}?"
                )


def _check_missing(part: str, entry: ResolvedEntry, given: Options) -> None:
    prefix = "" if part == "sampler" else f"{part}."
    known = list((parameters(entry) or {}).items())
    for option, parameter in known[1:] if part == "guide" else known:  # the first is what it guides
        if option == entry.argument:
            continue  # it is refused with the name to write
        if parameter.default is inspect.Parameter.empty and option not in {**entry.defaults, **given}:
            value = _PLACEHOLDERS.get(option, "VALUE")
            raise ParameterError(f"{entry.name} needs {option}: give it with --set {prefix}{option}={value}")
