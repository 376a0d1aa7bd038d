"""`Wrapped`: a denoiser around another one."""

from __future__ import annotations

from typing import Any


class Wrapped:
    """A denoiser that calls another one, whose attributes (``path``, ``process``, ...) it has too.

    Attributes:
        denoiser: The one inside.
    """

    def __init__(self, denoiser: Any) -> None:
        self.denoiser = denoiser

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the denoiser inside."""
        if name == "denoiser":  # not there yet, as in a copy that is being made
            raise AttributeError(name)
        return getattr(self.denoiser, name)

    def __repr__(self) -> str:
        """Show the denoiser inside."""
        return f"{type(self).__name__}({self.denoiser!r:.60})"
