"""How names are compared: forgiving in form, strict in meaning."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_FORM = str.maketrans({"_": None, "-": None, ".": None, "+": "p"})
_VERSION_DIGITS = 6


def normalise(name: str) -> str:
    """Return the form in which names are compared.

    Case, spaces, ``_``, ``-`` and ``.`` do not matter, and ``+`` is ``p``: "DPM++ 2M" is "dpmpp_2m". A colon
    stays, so that what stands before it (a host or a distribution) is compared on its own.
    """
    return "".join(name.casefold().split()).translate(_FORM)


def split_version(name: str) -> tuple[str, int | None]:
    """Split ``NAME@2`` into the name and 2; a name without a version gives None."""
    base, _, number = name.rpartition("@")
    digits = number.strip()
    # A very long number is no version, and Python refuses to convert it.
    if base and digits.isascii() and digits.isdigit() and len(digits) <= _VERSION_DIGITS:
        return base, int(digits)
    return name, None


def nearest(name: str, among: Iterable[str], n: int = 5) -> list[str]:
    """Return up to `n` of the names `among` that look most like `name`, best first, as they are written."""
    written: dict[str, str] = {}
    for other in among:
        written.setdefault(normalise(other), other)
    return [written[key] for key in difflib.get_close_matches(normalise(name), written, n)]


def did_you_mean(name: object, among: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?``, of the nearest of some names, for a message; empty if none is near."""
    close = nearest(str(name), among, 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def quoted(names: Iterable[str], last: str = "and") -> str:
    """Return the names as a message has them: ``'a', 'b' and 'c'``."""
    words = [repr(name) for name in names]
    return f" {last} ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
