"""Guidance by name: several kinds around each other, each with its options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .building import build, parameters
from .entry import ResolvedEntry
from .errors import ParameterError
from .lookup import default_registry
from .names import normalise, quoted
from .setup import text_condition

if TYPE_CHECKING:
    from .sample_job import SampleJob

Options = dict[str, Any]


def guide_entries(guide: Any) -> list[ResolvedEntry]:
    """Return what a name such as "apg" or "cfg+rescale" stands for, the innermost first.

    Raises:
        UnknownNameError: No plugin offers one of the names.
        ParameterError: It is no such name.
    """
    if not isinstance(guide, str):
        raise ParameterError(
            f"guide={guide!r:.40}: give the name of a guidance, such as 'apg' or 'cfg+rescale'"
        )
    return [default_registry().entry("guidance", name) for name in guide.split("+")]


def shared_out(
    entries: Sequence[ResolvedEntry], options: Mapping[str, Any], scale: float | None = None
) -> list[Options]:
    """Return the options of each kind of guidance.

    Args:
        entries: The kinds, the innermost first.
        options: By ``name``, where one kind has such an option, or by ``kind.name``.
        scale: The option of that name for the first kind that has it.

    Raises:
        ParameterError: Nobody has an option, several have, or the scale is given twice.
    """
    found: list[Options] = [{} for _ in entries]
    for key, value in options.items():
        kind, _, name = key.rpartition(".")
        named = [i for i, each in enumerate(entries) if not kind or _is_called(each, kind)]
        # One that takes any option is asked last.
        having = [i for i in named if name in (parameters(entries[i]) or {})]
        having = having or [i for i in named if _has(entries[i], name)]
        if len(having) != 1:
            raise ParameterError(_no_owner(entries, key, name, having))
        found[having[0]][name] = value
    if scale is not None:
        scaled = next((i for i, each in enumerate(entries) if _has(each, "scale")), None)
        if scaled is None:
            kinds = quoted(each.name for each in entries)
            raise ParameterError(f"guidance={scale}: {kinds} has no scale; leave it out, set its own options")
        if "scale" in found[scaled]:
            raise ParameterError(
                f"guidance={scale}: the option scale of {entries[scaled].name!r} is given too"
            )
        found[scaled]["scale"] = scale
    return found


def guided(job: SampleJob, model: Any) -> Any:
    """Return the model of a job with the guidance that the job asks for around it.

    Raises:
        ParameterError: There is nothing to guide to, or something given has no use.
    """
    if job.guide is None and job.guidance is None:
        for name in ("negative", "guide_options"):
            if getattr(job, name):
                raise ParameterError(
                    f"{name}={getattr(job, name)!r:.40} without guidance; give guidance= or guide="
                )
        return model
    entries = guide_entries("cfg" if job.guide is None else job.guide)
    options = shared_out(entries, job.guide_options, job.guidance)
    comparing = [i for i, entry in enumerate(entries) if _has(entry, "uncond")]
    if job.label is None and job.prompt is None and any("uncond" not in options[i] for i in comparing):
        what = f"guidance={job.guidance}" if job.guide is None else f"guide={job.guide!r}"
        raise ParameterError(
            f"{what} without a prompt: no text to guide to; give prompt= (--prompt)"
            if callable(getattr(model, "encode", None))
            else f"{what} without a label: no class to guide to; give label= (--class)"
        )
    if job.negative is not None and job.prompt is None:
        raise ParameterError(
            f"negative={job.negative!r:.40} without a prompt: no text is compared; leave it out"
        )
    if job.negative is not None and not comparing:
        raise ParameterError(f"negative={job.negative!r:.40}: guide={job.guide!r} has no use for it")
    for entry, own in zip(entries, options, strict=True):
        model = build(entry, [model], {**_compared(job, model, entry, own), **own})
    return model


def _compared(job: SampleJob, model: Any, entry: ResolvedEntry, own: Options) -> Options:
    """Return the conditions that one kind compares with; where the model has a label for them, nothing."""
    if job.prompt is None or not _has(entry, "uncond"):
        return {}
    if "negatives" not in (parameters(entry) or {}) or "negatives" in own:
        return {"uncond": text_condition(model, "negative", job.negative, job.n)}
    negative = text_condition(model, "negative", job.negative, job.n)
    return {
        "uncond": text_condition(model, "negative", None, job.n),
        "negatives": [(negative, 1.0)],
    }


def _is_called(entry: ResolvedEntry, name: str) -> bool:
    return normalise(name) in {normalise(each) for each in (entry.name, *entry.aliases)}


def _has(entry: ResolvedEntry, option: str) -> bool:
    known = parameters(entry)
    return known is None or option in known


def _no_owner(entries: Sequence[ResolvedEntry], key: str, name: str, having: Sequence[int]) -> str:
    kinds = quoted(each.name for each in entries)
    if having:
        ways = quoted((f"{entries[i].name}.{name}" for i in having), "or")
        return f"guide option {key!r}: each of {kinds} has it; write {ways}"
    takes = "; ".join(f"{each.name} takes {', '.join(list(parameters(each) or {})[1:])}" for each in entries)
    return f"guide option {key!r}: not of {kinds}: {takes}"
