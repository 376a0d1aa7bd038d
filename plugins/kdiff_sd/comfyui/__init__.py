"""kdiff in ComfyUI: its samplers, schedules and modifiers as nodes and in the drop-downs.

The folder ``pack`` in this package is the node pack; ``kdiff hosts comfyui`` copies or links it. ComfyUI's
own modules are imported where they are used, never with this package.
"""

from __future__ import annotations

from .ksampler import as_ksampler, sampler_function
from .nodes import node_mappings
from .registration import (
    register_dropdown,
    register_schedules,
    schedule_function,
    unregister_dropdown,
    unregister_schedules,
)

__all__ = [
    "as_ksampler",
    "node_mappings",
    "register_dropdown",
    "register_schedules",
    "sampler_function",
    "schedule_function",
    "unregister_dropdown",
    "unregister_schedules",
]
