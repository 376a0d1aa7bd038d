"""The ``kdiff`` command."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

MISSING = 'kdiff: the command line needs its extra: pip install "kdiff-core[cli]"\n'


def main(args: Sequence[str] | None = None) -> None:
    """Run the command and leave the process with its exit status: 2 for anything that kdiff refuses.

    Args:
        args: Arguments. Default: the process's.
    """
    # Threads that wait for one another sleep, not spin: on a busy machine small models ran 40 times slower.
    for variable in ("GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        os.environ.setdefault(variable, "0")
    try:
        from .app import run
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("typer", "click", "rich", "shellingham"):
            raise
        sys.stderr.write(MISSING)
        raise SystemExit(2) from None
    run(list(sys.argv[1:] if args is None else args))
