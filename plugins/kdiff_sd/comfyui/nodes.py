"""Nodes: one for each sampler, each modifier and each schedule, made from what the registry lists."""

from __future__ import annotations

from typing import Any, ClassVar

from kdiff_core.errors import KdiffError
from kdiff_core.lookup import (
    default_registry,
    get_modifier,
    get_sampler,
    get_schedule,
    list_modifiers,
    list_noise,
    list_samplers,
    list_schedules,
)
from kdiff_core.registry import ResolvedEntry

from .ksampler import DEFAULT_NOISE, as_ksampler, sampler_of
from .registration import schedule_function
from .run import HOST_NOISE
from .widgets import options_of, widgets_of

_NOISE = "Noise of the steps: kdiff's, keyed by seed and place in the batch, or ComfyUI's generator."
_SAMPLER = {"tooltip": "A sampler of kdiff."}
_MODEL = {"tooltip": "Whose noise levels to spend."}
_DENOISE = "Share of the way that is sampled: 1 begins with noise, less with an image."
_STEPS = {"default": 20, "min": 1, "max": 10000, "tooltip": "Number of steps."}


class KdiffNode:
    """What the nodes share; a subclass is one entry of the registry.

    Attributes:
        kind: Kind of the entry.
        name: Its name.
    """

    FUNCTION = "make"
    kind: ClassVar[str]
    name: ClassVar[str]

    @classmethod
    def entry(cls) -> ResolvedEntry:
        """Return the entry."""
        return default_registry().entry(cls.kind, cls.name)


class SamplerNode(KdiffNode):
    """A sampler, with its parameters."""

    CATEGORY = "kdiff/samplers"
    RETURN_TYPES = ("SAMPLER",)
    kind = "sampler"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802  # ComfyUI's name
        """Return the widgets."""
        sources = [DEFAULT_NOISE, HOST_NOISE, *(e.name for e in list_noise() if e.name != DEFAULT_NOISE)]
        noise = (sources, {"default": DEFAULT_NOISE, "tooltip": _NOISE})
        return {"required": {**widgets_of(cls.entry()), "noise": noise}}

    def make(self, noise: str, **values: Any) -> tuple[Any]:
        """Return the sampler."""
        sampler = get_sampler(self.name, **options_of(self.entry(), values))
        return (as_ksampler(sampler, noise=noise),)


class ModifierNode(KdiffNode):
    """A modifier around a sampler."""

    CATEGORY = "kdiff/modifiers"
    RETURN_TYPES = ("SAMPLER",)
    kind = "modifier"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802  # ComfyUI's name
        """Return the socket and the widgets."""
        return {"required": {"sampler": ("SAMPLER", _SAMPLER), **widgets_of(cls.entry(), 1)}}

    def make(self, sampler: Any, **values: Any) -> tuple[Any]:
        """Return the modified sampler."""
        solver, noise, inpaint_options = sampler_of(sampler)
        modified = get_modifier(self.name, solver, **options_of(self.entry(), values, 1))
        return (as_ksampler(modified, noise=noise, inpaint_options=inpaint_options),)


class ScheduleNode(KdiffNode):
    """A schedule on a model's noise levels."""

    CATEGORY = "kdiff/schedules"
    RETURN_TYPES = ("SIGMAS",)
    kind = "schedule"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802  # ComfyUI's name
        """Return the socket and the widgets."""
        denoise = {"default": 1.0, "min": 0.01, "max": 1.0, "step": 0.01, "tooltip": _DENOISE}
        own = {"model": ("MODEL", _MODEL), "steps": ("INT", _STEPS), "denoise": ("FLOAT", denoise)}
        return {"required": own | {f"{_own(n)}": w for n, w in widgets_of(cls.entry()).items()}}

    def make(self, model: Any, steps: int, denoise: float = 1.0, **values: Any) -> tuple[Any]:
        """Return the levels, ``(steps + 1,)`` in float32 on the CPU."""
        entry = self.entry()
        given = {name: values[_own(name)] for name in widgets_of(entry) if _own(name) in values}
        schedule = get_schedule(self.name, **options_of(entry, given))
        if denoise < 1:
            schedule = get_schedule("strength", schedule=schedule, strength=denoise)
        return (schedule_function(schedule)(model.get_model_object("model_sampling"), steps),)


def _own(name: str) -> str:
    """Return the name of a schedule's widget, beside those that every schedule has."""
    return f"schedule_{name}" if name in ("model", "steps", "denoise") else name


_NODES = (
    ("KdiffSampler", "sampler", SamplerNode, list_samplers),
    ("KdiffModifier", "modifier", ModifierNode, list_modifiers),
    ("KdiffSchedule", "schedule", ScheduleNode, list_schedules),
)


def node_mappings() -> tuple[dict[str, type], dict[str, str]]:
    """Return ComfyUI's ``NODE_CLASS_MAPPINGS`` and ``NODE_DISPLAY_NAME_MAPPINGS``.

    An entry whose plugin is broken has no node: one broken plugin must not take the others from the menu.
    """
    classes: dict[str, type] = {}
    names: dict[str, str] = {}
    for prefix, word, base, listed in _NODES:
        for entry in listed():
            try:
                widgets_of(entry)
            except KdiffError:
                continue
            key = f"{prefix}_{entry.name}"
            made = {"name": entry.name, "DESCRIPTION": entry.summary, "__doc__": entry.summary}
            classes[key] = type(key, (base,), made)
            names[key] = f"kdiff {word}: {entry.name}"
    return classes, names
