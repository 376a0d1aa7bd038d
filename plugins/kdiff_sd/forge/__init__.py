"""kdiff in Forge and A1111: what the extension folder ``pack`` registers there.

::

    from kdiff_sd.forge import register

    register()

The host's own modules are imported when `register` is called, not before.
"""

from __future__ import annotations

from .registration import register as register
from .samplers import host_function as host_function
from .schedules import host_schedule as host_schedule
