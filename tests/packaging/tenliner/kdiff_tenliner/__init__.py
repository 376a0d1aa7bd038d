"""A sampler of one's own, found by its name once this package is installed."""

from attrs import frozen

from kdiff_core import Entry, StepSampler, hookimpl


@frozen
class Midpoint(StepSampler):
    """Explicit midpoint rule in log-SNR, order 2: DPM-Solver++(2S), Lu et al. 2022, arXiv:2211.01095."""

    order = 2

    def step(self, ctx, x, sigma, sigma_next):
        """Go half of the way in log-SNR, look, and go all of it."""
        middle = ctx.between(sigma, sigma_next, 0.5)
        half = ctx.to(x, ctx.denoise(x, sigma), sigma, middle)
        return ctx.to(x, ctx.denoise(half, middle), sigma, sigma_next)


@hookimpl
def kdiff_samplers():
    """What this plugin offers."""
    return [Entry("log_midpoint", Midpoint, summary="explicit midpoint rule in log-SNR, second order")]
