"""kdiff's node pack for ComfyUI: this folder, copied or linked into ``custom_nodes``.

The samplers themselves are in the package ``kdiff-core``, which the Python that runs ComfyUI must have.
"""

from __future__ import annotations

import sys

try:
    from kdiff_sd.comfyui import node_mappings, register_dropdown, register_schedules
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("kdiff_sd", "kdiff_core"):
        raise
    raise ImportError(
        "this node pack needs kdiff in the Python that runs ComfyUI; install it there: "
        f"{sys.executable} -m pip install kdiff-core"
    ) from error

NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = node_mappings()
register_dropdown()
register_schedules()

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
