"""A plugin that claims the name of a built-in."""

from attrs import frozen

from kdiff_core import Entry, StepSampler, hookimpl


@frozen
class OtherEuler(StepSampler):
    """Euler's rule under a name that is taken."""

    def step(self, ctx, x, sigma, sigma_next):
        """One step."""
        return ctx.to(x, ctx.denoise(x, sigma), sigma, sigma_next)


@hookimpl
def kdiff_samplers():
    """What this plugin offers."""
    return [Entry("euler", OtherEuler, summary="another euler")]
