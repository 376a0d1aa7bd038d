"""From an entry and options to the object: defaults, refusals, and modifiers chosen by their options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import Parameter
from typing import Any

from attrs import NOTHING

from .entry import ResolvedEntry
from .errors import KdiffError, ParameterError, PluginError
from .names import did_you_mean, quoted

Options = Mapping[str, Any]


def factory_of(entry: ResolvedEntry) -> Callable[..., Any]:
    """Return the factory of an entry.

    Raises:
        PluginError: Its import string does not lead to a callable.
    """
    try:
        factory = entry.load()
    except KdiffError:
        raise  # it says already what is missing
    except Exception as error:
        raise PluginError(
            f"{entry}: its factory {entry.factory!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if not callable(factory):
        raise PluginError(f"{entry}: its factory {entry.factory!r} is not callable but {factory!r}")
    return factory


def parameters(entry: ResolvedEntry) -> dict[str, Parameter] | None:
    """Return what the factory can be given by name; None if it takes anything, or cannot say."""
    try:
        found = inspect.signature(factory_of(entry)).parameters.values()
    except ValueError:
        return None
    if any(p.kind is Parameter.VAR_KEYWORD for p in found):
        return None
    return {p.name: p for p in found if p.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)}


def describe(entry: ResolvedEntry, known: Mapping[str, Parameter]) -> str:
    """Return the options with their defaults, as a message has them."""
    words = []
    for name, parameter in known.items():
        default = entry.defaults.get(name, parameter.default)
        shown = "..." if default is NOTHING else repr(default)
        words.append(name if default is Parameter.empty else f"{name}={shown}")
    return ", ".join(words) or "no options"


def build(entry: ResolvedEntry, args: Sequence[Any], options: Options) -> Any:
    """Call the factory with the entry's defaults and the caller's options.

    Raises:
        ParameterError: An option is unknown, missing or refused.
        PluginError: The factory cannot be imported, or does not take the entry's own defaults.
    """
    known = parameters(entry)
    if entry.argument and entry.argument in entry.defaults and entry.argument in options:
        raise ParameterError(
            f"{entry}: {entry.argument}={options[entry.argument]!r:.60} is given by the name already; "
            "leave it out"
        )
    if entry.argument and entry.argument not in {**entry.defaults, **options}:
        raise ParameterError(
            f"{entry} needs its {entry.argument} behind a colon: {entry.name}:{entry.argument.upper()}"
        )
    if known is not None:
        if own := [name for name in entry.defaults if name not in known]:
            raise PluginError(f"{entry}: its factory has no option {quoted(own)}, which its defaults give")
        if unknown := [name for name in options if name not in known]:
            raise _unknown_option(entry, unknown[0], known, {})
    factory = factory_of(entry)
    try:
        return factory(*args, **{**entry.defaults, **options})
    except (TypeError, ValueError) as error:
        if isinstance(error, KdiffError) and not isinstance(error, ParameterError):
            raise  # it says something else than that a parameter is wrong
        # attrs puts the attribute and the value behind the message.
        message = error.args[0] if error.args else type(error).__name__
        raise ParameterError(f"{entry}: {message}") from error


def build_sampler(
    entry: ResolvedEntry, args: Sequence[Any], options: Options, modifiers: Iterable[ResolvedEntry]
) -> Any:
    """Build a sampler; options that are not its own wrap it in the modifiers that have them.

    Args:
        entry: The sampler's entry.
        args: Positional arguments of its factory.
        options: The caller's options.
        modifiers: The modifiers there are; the first of those chosen comes to lie innermost.

    Raises:
        ParameterError: An option is unknown, or belongs to several modifiers of which none is chosen.
    """
    known = parameters(entry)
    foreign = [] if known is None else [name for name in options if name not in known]
    if not foreign:
        return build(entry, args, options)
    modifiers = list(modifiers)
    owners, faults = _owners(modifiers)
    for name in foreign:
        if name not in owners:
            own = {key: value for key, value in options.items() if key in (known or {})}
            fitting, _ = _owners(m for m in modifiers if _fits(m, entry, args, own))
            raise _unknown_option(entry, name, known or {}, fitting, faults)
    sampler = build(entry, args, {name: value for name, value in options.items() if name not in foreign})
    chosen = _assign(entry, foreign, owners)
    for modifier in modifiers:
        if names := [name for name in foreign if chosen[name] == modifier]:
            sampler = build(modifier, [sampler], {name: options[name] for name in names})
    return sampler


def added_options(
    entry: ResolvedEntry, modifiers: Iterable[ResolvedEntry]
) -> dict[str, dict[str, Parameter]]:
    """Return the options that modifiers add to a sampler, by the names of the modifiers that take it."""
    found: dict[str, dict[str, Parameter]] = {}
    known = parameters(entry) or {}
    for modifier in modifiers:
        if _fits(modifier, entry, (), {}):
            added = list((parameters(modifier) or {}).items())[1:]  # the first is the sampler that it wraps
            found[modifier.name] = {name: parameter for name, parameter in added if name not in known}
    return found


def _fits(modifier: ResolvedEntry, entry: ResolvedEntry, args: Sequence[Any], options: Options) -> bool:
    """Whether a modifier takes a sampler; a sampler that cannot be built says nothing against it."""
    try:
        sampler = build(entry, args, options)
    except Exception:
        return True
    try:
        build(modifier, [sampler], {})
    except Exception:
        return False
    return True


def _owners(modifiers: Iterable[ResolvedEntry]) -> tuple[dict[str, list[ResolvedEntry]], list[str]]:
    """Return the modifiers that have each option, and what is wrong with modifiers that cannot say."""
    owners: dict[str, list[ResolvedEntry]] = {}
    faults = []
    for modifier in modifiers:
        try:
            known = parameters(modifier) or {}
        except KdiffError as error:  # it must not stand in the way of the other modifiers
            faults.append(str(error))
            continue
        for name in list(known)[1:]:  # the first is the sampler that it wraps
            owners.setdefault(name, []).append(modifier)
    for name, having in owners.items():
        # Installing a plugin must not make an option of a built-in ambiguous.
        owners[name] = [m for m in having if m.plugin.builtin] or having
    return owners, faults


def _assign(
    entry: ResolvedEntry, names: Sequence[str], owners: Mapping[str, list[ResolvedEntry]]
) -> dict[str, ResolvedEntry]:
    """Return the modifier of each option: its only owner, else the owner that another option has chosen."""
    chosen = {name: owners[name][0] for name in names if len(owners[name]) == 1}
    for name in names:
        if name in chosen:
            continue
        # Only what single owners chose counts, so that the order of the options does not matter.
        already = [m for m in owners[name] if any(chosen.get(n) == m for n in names if len(owners[n]) == 1)]
        if len(already) == 1:
            chosen[name] = already[0]
            continue
        having = quoted(m.name for m in owners[name])
        if already:
            raise ParameterError(
                f"{entry}: option {name!r} belongs to each of the modifiers {having} that the other options "
                f'choose; build them one by one, with get("modifier", name, sampler, {name}=...)'
            )
        own = [o for m in owners[name] for o, having_it in owners.items() if having_it == [m]]
        advice = f"say which by adding {quoted(own, 'or')}" if own else 'build one with get("modifier", ...)'
        raise ParameterError(
            f"{entry} has no option {name!r} of its own, and the modifiers {having} all have it; {advice}"
        )
    return chosen


def _unknown_option(
    entry: ResolvedEntry,
    name: str,
    known: Mapping[str, Parameter],
    owners: Mapping[str, list[ResolvedEntry]],
    faults: Sequence[str] = (),
) -> ParameterError:
    lines = [f"{entry} has no option {name!r}{did_you_mean(name, [*known, *owners])}"]
    lines.append(f"It takes {describe(entry, known)}.")
    added: dict[str, list[str]] = {}
    for option, modifier in ((o, m.name) for o, having in owners.items() for m in having if o not in known):
        added.setdefault(modifier, []).append(option)
    if added:
        texts = (f"{', '.join(options)} ({modifier!r})" for modifier, options in added.items())
        lines.append(f"Modifiers add {'; '.join(texts)}.")
    lines.extend(f"Not asked: {fault}" for fault in faults)
    return ParameterError("\n".join(lines))
