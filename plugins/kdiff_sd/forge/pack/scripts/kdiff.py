"""kdiff's extension for Forge and A1111: the folder above, copied or linked into ``extensions``.

The samplers themselves are in the package ``kdiff-core``, which the Python that runs the host must have.
"""

from __future__ import annotations

import sys

try:
    from kdiff_sd.forge import register
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("kdiff_sd", "kdiff_core"):
        raise
    raise ImportError(
        "this extension needs kdiff in the Python that runs the host; install it there: "
        f"{sys.executable} -m pip install kdiff-core"
    ) from error

register()
