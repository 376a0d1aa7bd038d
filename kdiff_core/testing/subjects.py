"""What is checked: a name or an object, its kind, and the Python that makes it."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import attrs
from attrs import field, frozen

from .. import protocols
from ..errors import ParameterError, UnknownNameError
from ..lookup import default_registry
from ..names import quoted
from ..path import FLOW, VE, Path
from ..sampler import StepSampler
from .catalogue import KINDS, find_check
from .written import reseeded, source_of

_REGISTERED = ("sampler", "schedule", "process", "noise", "denoiser")
_DECLARED = ("order", "order_smooth", "memory", "stochastic", "reaches_zero", "rises", "needs", "linear",
             "path_invariant")  # fmt: skip

# In the repr of what has none of its own: names of tests must be the same in each process.
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


@frozen
class Subject:
    """A thing to check.

    Attributes:
        kind: One of `KINDS`.
        value: What the checks are given: the thing, or for a noise source a function of the seed.
        label: How it is shown.
        code: Python that makes the value: imports, then an expression.
        known_failures: Checks that it is known to fail, with the reason.
    """

    kind: str
    value: Any
    label: str
    imports: tuple[str, ...] = ()
    expression: str = "..."
    known_failures: Mapping[str, str] = field(factory=dict)

    @property
    def declared(self) -> dict[str, Any]:
        """What a sampler says of itself."""
        return {name: getattr(self.value, name) for name in _DECLARED if hasattr(self.value, name)}

    def expecting(self, more: Mapping[str, str] | None) -> Subject:
        """The same with more known failures.

        Raises:
            ParameterError: There is no check of a name.
        """
        known = {**self.known_failures, **(more or {})}
        for name, reason in known.items():
            find_check(self.kind, name)
            if not isinstance(reason, str) or not reason.strip():
                raise ParameterError(f"the known failure {name!r} of {self.label} needs a reason, a sentence")
        return attrs.evolve(self, known_failures=known)


def subject_of(value: Any, kind: str | None = None) -> Subject:
    """The subject that an object or a name stands for.

    Args:
        value: A sampler, schedule, process, denoiser or path, a function ``seed -> noise source``, or a name.
        kind: What it is, where it does not show.

    Raises:
        ParameterError: It is none of these, or could be several.
        UnknownNameError: Nothing has this name.
    """
    if isinstance(value, str):
        found = subjects_named(value, kind)
        if len(found) > 1:
            raise ParameterError(
                f"{value!r} is the name of {quoted(s.kind for s in found)}; say which, as kind='...'"
            )
        return found[0]
    if isinstance(value, Subject):
        return value
    kind = kind or _kind_of(value)
    known = getattr(value, "known_failures", {})
    if kind == "noise":
        value, known = _seeded(value)
    _check_kind(kind, value)
    imports, expression = source_of(value)
    named = isinstance(value, (type, Path)) or hasattr(value, "__qualname__")
    label = expression if named or attrs.has(type(value)) else _ADDRESS.sub("", repr(value))
    return Subject(kind, value, label, imports, expression).expecting(known)


def subjects_named(name: str, kind: str | None = None, **options: Any) -> list[Subject]:
    """The subjects that a name stands for, one of each kind that has it.

    Args:
        name: The name, an alias, or a path's name.
        kind: Only this kind.
        **options: Given to what the name stands for, such as ``s_churn=40.0`` to a sampler; a path has none.

    Raises:
        ParameterError: An option is unknown, missing or refused.
        UnknownNameError: Nothing that can be checked has this name.
        PluginError: It belongs to a plugin that is broken.
    """
    found: list[Subject] = []
    unknown: UnknownNameError | None = None
    for each in _REGISTERED if kind is None else (kind,):
        if each == "path":
            break
        try:
            found.append(_registered(each, name, options))
        except UnknownNameError as error:
            unknown = unknown or error
    if kind in (None, "path") and name in ("ve", "flow"):
        found.append(subject_of(VE if name == "ve" else FLOW))
    if not found:
        raise unknown or UnknownNameError(f"there is no path {name!r}; there are 've' and 'flow'")
    return found


def _registered(kind: str, name: str, options: Mapping[str, Any]) -> Subject:
    entry = default_registry().entry(kind, name)
    make = functools.partial(default_registry().get, kind, entry.id, **options)
    value = functools.partial(_noise, entry.id, **options) if kind == "noise" else make()
    given = [f"{option}={_written(value, option, each)}" for option, each in options.items()]
    arguments = ", ".join([f'"{name}"', *given, *(["seed=seed"] if kind == "noise" else [])])
    expression = f"{'lambda seed: ' if kind == 'noise' else ''}kd.get_{kind}({arguments})"
    known = getattr(value if kind != "noise" else entry.load(), "known_failures", {})
    label = f"{name}({', '.join(given)})" if given else name
    return Subject(kind, value, label, ("import kdiff_core as kd",), expression).expecting(known)


def _written(owner: Any, option: str, given: Any) -> str:
    """An option as Python: 40 is 40.0 where the thing holds it as that, and infinity has no literal."""
    if type(given) is int and isinstance(held := getattr(owner, option, None), float) and held == given:
        given = held
    finite = not isinstance(given, float) or math.isfinite(given)
    return repr(given) if finite else f'float("{given}")'


def _noise(name: str, seed: Any, /, **options: Any) -> Any:
    """A registered noise source; a function of the module, so that checks can send it to a process."""
    return default_registry().get("noise", name, seed=seed, **options)


def _kind_of(value: Any) -> str:
    tests: list[tuple[str, Any]] = [
        ("path", Path),
        ("sampler", protocols.Sampler),
        ("process", protocols.Process),
        ("noise", protocols.NoiseSource),
    ]
    for kind, protocol in tests:
        if isinstance(value, protocol) and not isinstance(value, type):
            return kind
    if hasattr(value, "path") or hasattr(value, "sample_shape"):
        return "denoiser"
    raise ParameterError(
        f"cannot tell what {value!r:.80} is; say kind='...', one of {quoted(KINDS)}, or call check_schedule, "
        "check_denoiser or check_noise"
    )


def _check_kind(kind: str, value: Any) -> None:
    if kind not in KINDS:
        raise ParameterError(f"kind={kind!r}: the kinds are {quoted(KINDS)}")
    wanted = {
        "sampler": protocols.Sampler, "process": protocols.Process, "path": Path,
    }.get(kind)  # fmt: skip
    if isinstance(value, type) and kind != "noise":
        raise ParameterError(f"{value.__name__} is a class; the kit checks a value: {value.__name__}()")
    if kind == "sampler" and isinstance(value, protocols.Sampler) and not isinstance(value, StepSampler):
        raise ParameterError(
            f"{type(value).__name__} is a sampler, but no StepSampler, and the laws are about its step; "
            "derive it from kdiff_core.StepSampler"
        )
    if wanted is not None and not isinstance(value, wanted):
        raise ParameterError(f"{value!r:.80} is no {kind}: it lacks {quoted(_lacking(value, wanted))}")
    if not callable(value) and kind in ("schedule", "noise", "denoiser"):
        raise ParameterError(f"{value!r:.80} is no {kind}: it cannot be called")


def _lacking(value: Any, protocol: Any) -> list[str]:
    names = getattr(protocol, "__protocol_attrs__", None) or [n for n in vars(protocol) if n[0] != "_"]
    return sorted(name for name in names if not hasattr(value, name))


def _seeded(value: Any) -> tuple[Callable[[Any], Any], Mapping[str, str]]:
    """The function of the seed that makes a noise source like this one."""
    if isinstance(value, protocols.NoiseSource) and not isinstance(value, type):
        if not (attrs.has(type(value)) and hasattr(value, "seed")):
            raise ParameterError(
                f"{value!r:.80}: the checks draw with many seeds; give a function of the seed that makes the "
                "source, such as its class"
            )
        return functools.partial(reseeded, value), getattr(value, "known_failures", {})
    return value, getattr(value, "known_failures", {})
