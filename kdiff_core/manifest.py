"""The manifest of a run: what every file that ``kdiff sample`` writes carries, and what replays it.

It is JSON: names and versions, the exact levels, the noise, the place. Nothing is unpickled.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from . import __version__
from .begin import nameless, recorded, replayed
from .errors import KdiffError, ParameterError
from .guide import guide_entries
from .lookup import default_registry, get_sampler, get_schedule
from .manifest_file import VERSION, check, dumped, pillow, read_manifest, write_gif, write_npz, write_png

if TYPE_CHECKING:
    from .registry import ResolvedEntry
    from .result import Result
    from .sample_job import SampleJob
    from .setup import Setup


def manifest_of(setup: Setup, result: Result | None = None, **more: Any) -> dict[str, Any]:
    """Describe a run so that it can be repeated.

    Args:
        setup: The run, built.
        result: What came of it, for the number of model calls.
        **more: Further JSON-able entries, such as how the picture was made.

    Returns:
        JSON-able data. ``replayable`` is false, and ``why_not`` says why, where an object was given that no
        name of the registry stands for.
    """
    job = setup.job
    parts = {
        "model": _model(setup),
        "sampler": _described("sampler", setup.sampler_name, setup.sampler, job.sampler_options),
        "schedule": None
        if setup.schedule is None
        else _described("schedule", setup.schedule_name, setup.schedule, job.schedule_options),
    }
    unnamed = [f"the {k} is the object {p['object']}" for k, p in parts.items() if p and "object" in p]
    unnamed += nameless(job)
    if not _is_json(job.guide_options):
        unnamed.append(f"the guide's options have the object {dict(job.guide_options)!r}")
    return {
        "kdiff_manifest": VERSION,
        "kdiff": __version__,
        **_place(str(setup.like.device)),
        "replayable": not unnamed,
        "why_not": "; ".join(unnamed),
        **parts,
        "path": setup.path,
        "levels": [float(level).hex() for level in setup.grid],
        "steps": setup.grid.steps,
        "noise": {"source": "keyed", "seed": setup.noise.seed, "index": setup.noise.index},
        "n": int(job.n),
        "label": job.label,
        "guidance": job.guidance,
        "prompt": job.prompt,
        "negative": job.negative,
        "guide": None if job.guide is None else "+".join(map(_version_of, guide_entries(job.guide))),
        "guide_options": _packed(dict(job.guide_options)) if _is_json(job.guide_options) else {},
        **recorded(job),
        "dtype": job.dtype,
        "device": str(setup.like.device),
        "evaluations": None if result is None else result.evaluations,
        "chunk": job.chunk,
        "compile": job.compile,
        **more,
    }


def job_of(manifest: Mapping[str, Any]) -> SampleJob:
    """Return the job that a manifest describes.

    Raises:
        ParameterError: It is no manifest, one of a later version, or of a run with nameless objects.
    """
    from .sample_job import SampleJob

    check(manifest, "the manifest")
    if not manifest.get("replayable"):
        raise ParameterError(
            f"this run cannot be replayed: {manifest.get('why_not')}, which has no name in the registry; "
            "register it in a plugin and ask for it by name"
        )
    try:
        model, sampler, schedule = manifest["model"], manifest["sampler"], manifest["schedule"]
        return SampleJob(
            model=_versioned(model),
            n=operator.index(manifest["n"]),
            sampler=_versioned(sampler),
            schedule=None if schedule is None else _versioned(schedule),
            steps=manifest["steps"],
            seed=manifest["noise"]["seed"],
            index=manifest["noise"]["index"],
            label=manifest["label"],
            guidance=manifest["guidance"],
            prompt=manifest.get("prompt"),
            negative=manifest.get("negative"),
            guide=manifest.get("guide"),
            guide_options=_unpacked(manifest.get("guide_options", {})),
            device=manifest["device"],
            dtype=manifest["dtype"],
            levels=tuple(float.fromhex(level) for level in manifest["levels"]),
            chunk=manifest.get("chunk"),
            compile=manifest.get("compile", False),
            model_options=_unpacked(model["options"]),
            sampler_options=_unpacked(sampler["options"]),
            schedule_options={} if schedule is None else _unpacked(schedule["options"]),
            **replayed(manifest),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, KdiffError):
            raise
        raise ParameterError(f"the manifest cannot be read: {type(error).__name__}: {error}") from error


def differences(manifest: Mapping[str, Any], setup: Setup) -> list[str]:
    """Say in words what is not as it was when the manifest was written, and may explain other bits."""
    now = manifest_of(setup)
    pairs = [
        (key, manifest.get(key), now[key]) for key in ("kdiff", "torch", "cpu", "threads", "device", "gpu")
    ]
    for part in ("model", "sampler", "schedule"):
        then, new = manifest.get(part) or {}, now[part] or {}
        label = f"{part} {new.get('name')}: "
        pairs += [(label + key, then.get(key), new.get(key)) for key in ("distribution", "version", "is")]
    found = [f"{what}: {then} then, {new} now" for what, then, new in pairs if then != new]
    return [*([changed] if (changed := data_change(manifest, setup)) else []), *found]


def data_change(manifest: Mapping[str, Any], setup: Setup) -> str:
    """Say that the data of the model is not what it was, if so."""
    then = (manifest.get("model") or {}).get("data_sha256")
    now = _model(setup).get("data_sha256")
    if then is None or then == now:
        return ""
    where = setup.job.model_options.get("data")
    return f"the data of the model has changed: {where if isinstance(where, str) else setup.job.model}"


def _model(setup: Setup) -> dict[str, Any]:
    """Describe the model, its data in a way that leads to it from any folder and tells whether it changed."""
    options = {**setup.job.model_options, **(getattr(setup.model, "replay_options", None) or {})}
    found = _described("denoiser", setup.job.model, None, options)
    fingerprint = getattr(setup.model, "data_sha256", None)
    return found if fingerprint is None else {**found, "data_sha256": fingerprint}


def _described(kind: str, given: Any, built: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Describe one part of a run: its entry and options, or the object if it has no name."""
    if isinstance(given, str):
        entry: ResolvedEntry | None = default_registry().entry(kind, given)
    else:
        entry, options = _entry_of(kind, given)
    if entry is None or not _is_json(options):
        return {"object": repr(given if entry is None else dict(options))}
    return {
        "name": entry.name,
        "id": entry.id,
        "entry_version": entry.version,
        "distribution": entry.plugin.distribution,
        "version": entry.plugin.version,
        "options": _packed(dict(options)),
        "parameters": {name: _informed(value) for name, value in _parameters(built)},
        "is": "" if built is None else repr(built),
    }


def _entry_of(kind: str, thing: Any) -> tuple[ResolvedEntry | None, dict[str, Any]]:
    """Return an entry and the options that rebuild an object exactly, or None."""
    if not attrs.has(type(thing)) or kind not in ("sampler", "schedule"):
        return None, {}
    get = get_sampler if kind == "sampler" else get_schedule
    flat = {name: value for name, value in _parameters(thing) if _is_json(value)}
    inner = dict(_parameters(getattr(thing, "solver", None)))
    for entry in default_registry().list(kind, hosts=True):
        for options in ({}, flat, {**inner, **flat}):
            try:
                if get(entry.id, **options) == thing:
                    return entry, options
            except KdiffError:
                continue
    return None, {}


def _parameters(thing: Any) -> list[tuple[str, Any]]:
    if thing is None or not attrs.has(type(thing)):
        return []
    return [
        (field.alias or field.name, getattr(thing, field.name))
        for field in attrs.fields(type(thing))
        if field.init
    ]


def _is_json(value: Any) -> bool:
    """Whether a value comes back from JSON as it was."""
    try:
        return bool(json.loads(json.dumps(value if not isinstance(value, Mapping) else dict(value))) == value)
    except (TypeError, ValueError):
        return False


def _informed(value: Any) -> Any:
    """Return a value for people: as strict JSON has it, else as Python writes it."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return repr(value)
    return value


def _packed(value: Any) -> Any:
    """Return a value with infinite floats, which strict JSON does not have, as ``{"float": "inf"}``."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if isinstance(value, Mapping):
        return {key: _packed(one) for key, one in value.items()}
    return [_packed(one) for one in value] if isinstance(value, list) else value


def _unpacked(value: Any) -> Any:
    """Return what `_packed` was given."""
    if isinstance(value, Mapping):
        if set(value) == {"float"} and isinstance(value["float"], str):
            return float(value["float"])
        return {key: _unpacked(one) for key, one in value.items()}
    return [_unpacked(one) for one in value] if isinstance(value, list) else value


def _version_of(entry: ResolvedEntry) -> str:
    return f"{entry.id}@{entry.version}"


def _versioned(part: Mapping[str, Any]) -> str:
    return f"{part['id']}@{part['entry_version']}"


def _place(device: str) -> dict[str, Any]:
    """What else decides the bits: torch, the processor, the number of threads."""
    import torch

    gpu = torch.cuda.get_device_name(device) if device.startswith("cuda") else ""
    return {
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
    }


__all__ = [
    "data_change",
    "differences",
    "dumped",
    "job_of",
    "manifest_of",
    "pillow",
    "read_manifest",
    "write_gif",
    "write_npz",
    "write_png",
]
