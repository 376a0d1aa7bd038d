"""Entries of the exact denoisers."""

from __future__ import annotations

from collections.abc import Iterable

from kdiff_core import Entry, hookimpl


@hookimpl
def kdiff_denoisers() -> Iterable[Entry]:
    """Return the denoiser of the digits that ship, and that of the user's own data."""
    return [
        Entry(
            "digits-exact",
            "kdiff_exact.empirical:digits_exact",
            aliases=("digits",),
            summary="Exact denoiser of 1,797 handwritten digits, 8 by 8, ten classes: ready to sample from.",
            reference="Alpaydin & Kaynak 1998, UCI Optical Recognition of Handwritten Digits, CC BY 4.0",
        ),
        Entry(
            "empirical",
            "kdiff_exact.empirical:empirical",
            summary="Exact denoiser of your own data: an array, a .npy or .npz file, a folder of images.",
            reference="Karras et al. 2022, arXiv:2206.00364, appendix B.3",
        ),
    ]
