"""``python -m kdiff_core.cli`` is ``kdiff``."""

from . import main

main()
