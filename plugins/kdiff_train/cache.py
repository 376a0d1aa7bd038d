"""Where files that can be made again are kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """Return the folder of a kind of files in the user's cache; it need not exist.

    It is ``kdiff/NAME`` in ``XDG_CACHE_HOME``, or in ``~/.cache`` where that is not set.
    """
    root = os.environ.get("XDG_CACHE_HOME")
    return Path(root if root else Path.home() / ".cache") / "kdiff" / name
