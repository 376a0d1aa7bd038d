"""A plugin whose hook has lost a letter."""

from kdiff_core import Entry, hookimpl


@hookimpl
def kdiff_sampler():
    """What this plugin would offer."""
    return [Entry("unheard_of", dict)]
