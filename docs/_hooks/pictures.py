"""Pictures of the page about the laws, drawn while the pages are built: ``pictures/order.svg``, ..."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import torch
from attrs import frozen
from mkdocs.structure.files import File, Files

import kdiff_core as kd
from kdiff_core.cli.plot import draw_levels
from kdiff_core.testing.drawing import COLOURS, blank, curve, finish, finish_variance, guide, save
from kdiff_core.testing.pictures import RATIOS, STEP_SIZES, STEPS, step_errors, variance_ratios


@frozen
class Inverted(kd.StepSampler):
    """DPM-Solver++(2M) with the ratio of its steps upside down."""

    order, memory = 2, 1

    def step(self, ctx: Any, x: Any, sigma: Any, sigma_next: Any) -> Any:
        """Extrapolate by the wrong ratio."""
        denoised = ctx.denoise(x, sigma)
        if ctx.past:
            h = ctx.lambda_(sigma_next) - ctx.lambda_(sigma)
            r = h / (ctx.lambda_(sigma) - ctx.lambda_(ctx.past[0].sigma))
            denoised = denoised + (denoised - ctx.past[0].denoised) / (2.0 * r)
        return ctx.to(x, denoised, sigma, sigma_next)


@frozen
class Independent(kd.StepSampler):
    """DPM-Solver++ (SDE) whose two noises of a step are drawn independently."""

    order, stochastic = 2, True

    def step(self, ctx: Any, x: Any, sigma: Any, sigma_next: Any) -> Any:
        """Take the stage's noise from another stream."""
        stage, denoised = ctx.between(sigma, sigma_next, 0.5), ctx.denoise(x, sigma)
        down = ctx.path.ratio_down(sigma, stage, 1.0)
        noise = ctx.noise(sigma, stage, "stage")
        middle = ctx.renoise(ctx.to(x, denoised, sigma, down), down, stage, noise)
        return ctx.ancestral(x, ctx.denoise(middle, stage), sigma, sigma_next, 1.0)


def order() -> Any:
    """The error of one step, right and with the step ratio inverted, on even and on uneven steps."""
    found, places = blank(2)
    subjects = {"2M": kd.get_sampler("dpmpp_2m"), "2M, ratio inverted": Inverted()}
    for axes, (title, ratios) in zip(
        places, {"Even steps": "as long", "The step before half as long": "half as long"}.items(), strict=True
    ):
        for (name, sampler), colour in zip(subjects.items(), COLOURS, strict=False):
            errors, measured = step_errors(sampler, "ve", RATIOS[ratios])
            path = "ve" if sampler is subjects["2M"] else "flow"  # dashed, where one hides the other
            curve(axes, STEP_SIZES, errors, path, colour, f"{name}: {measured:.2f}")
        guide(axes, STEP_SIZES, 3, "order 2, slope 3")
        finish(axes, title, "size of the step in log-SNR", "error of one step: order")
    low, high = zip(*(axes.get_ylim() for axes in places), strict=True)
    for axes in places:
        axes.set_ylim(min(low), max(high))
    return found


def variance() -> Any:
    """The output's variance over the exact one, with one Brownian path and with independent draws."""
    found, places = blank(2)
    subjects = {"One Brownian path": kd.get_sampler("dpmpp_sde"), "Independent draws": Independent()}
    variances = (0.01, 1.0)
    for axes, (title, sampler) in zip(places, subjects.items(), strict=True):
        ratios = zip(*(variance_ratios(sampler, "ve", n, variances) for n in STEPS), strict=True)
        for data, colour, each in zip(variances, COLOURS, ratios, strict=False):
            curve(axes, STEPS, each, "ve", colour, f"{data:g}")
        finish_variance(axes, title, STEPS)
    return found


def schedules() -> Any:
    """The levels of six schedules on the range of Stable Diffusion."""
    names = ("karras", "beta", "a1111:beta", "kl_optimal", "ays", "sgm_uniform")
    process = kd.get_process("sd")
    return draw_levels({name: kd.get_schedule(name)(12, process=process) for name in names})


def inpainting() -> Any:
    """A digit, its known half, and four completions of it."""
    digit = kd.sample("digits", n=1, label=3, seed=5)
    mask = torch.zeros(8, 8)
    mask[:, 4:] = 1
    completed = kd.sample("digits", n=4, init=digit, mask=mask)
    shown = torch.cat([digit, digit * (1 - mask), completed])[:, 0].clamp(-1, 1)
    found, places = blank(6)
    found.set_size_inches(9, 1.9)
    for axes, image, title in zip(places, shown, ["A three", "What is known"] + 4 * [""], strict=True):
        axes.imshow(image.numpy(), cmap="gray", vmin=-1, vmax=1)
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
    return found


PICTURES: dict[str, Callable[[], Any]] = {
    "schedules": schedules,
    "order": order,
    "variance": variance,
    "inpainting": inpainting,
}


def on_files(files: Files, config: Any) -> Files:
    """Add the pictures to the files of the site; mkdocs calls this once."""
    for name, draw in PICTURES.items():
        drawn = io.BytesIO()
        save(draw(), drawn)
        files.append(File.generated(config, f"pictures/{name}.svg", content=drawn.getvalue()))
    return files
