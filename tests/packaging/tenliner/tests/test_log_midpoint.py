"""The laws that every sampler keeps, from kdiff's conformance kit."""

from kdiff_tenliner import Midpoint

from kdiff_core.testing import parametrize_with_checks


@parametrize_with_checks([Midpoint()])
def test_laws(check):
    """Each check of the kit is a test of its own."""
    check()
