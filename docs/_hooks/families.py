"""The pages of the sampler families: who is in, their parameters, and the error against model calls.

``<!-- members: adams -->`` becomes a table of the family's samplers, ``<!-- parameters: adams -->`` a table
for each class behind them, and ``pictures/family_adams.svg`` is drawn. What stands beside them in
``docs/families/`` is written by hand.
"""

from __future__ import annotations

import inspect
import io
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import attrs
import torch
from attrs import frozen
from tables import _codes, _entries, _evaluations, _linked, _order, _table

import kdiff_core as kd
from kdiff_core.errors import KdiffError
from kdiff_core.testing import Gaussian, Mixture
from kdiff_core.testing.drawing import COLOURS, blank, count_steps, curve, finish, finish_variance, save
from kdiff_core.testing.measure import output_moments
from kdiff_core.testing.problems import random_state

PACKAGE = "kdiff_samplers."
# Numbers of steps that are run, and those of model calls that are shown.
RUNS, MOST, TICKS = (2, 3, 4, 5, 6, 8, 10, 14, 20, 28, 40), (4, 45), (5, 8, 10, 15, 20, 35)
STEPS = (5, 10, 20, 50, 100)


@frozen
class Family:
    """A family of samplers.

    Attributes:
        title: For the picture.
        members: Where its samplers come from: a module of the package, ``module:Class`` or a sampler's name;
            the most special one counts.
        curves: What the picture shows.
        noise: Whether the picture shows the output's variance rather than the error.
    """

    title: str
    members: tuple[str, ...]
    curves: tuple[str, ...]
    noise: bool = False


FAMILIES = {
    "euler": Family(
        "Euler", ("euler", "ddim", "ancestral", "gradient_estimation"),
        ("euler", "gradient_estimation", "dpmpp_2m"),
    ),
    "second_order": Family(
        "Second order in one step", ("heun", "dpm2", "heunpp2"), ("euler", "heun", "dpm2", "heunpp2"),
    ),
    "dpm_singlestep": Family(
        "DPM-Solver, single-step", ("dpm_solver:DPMSolverS", "dpmpp_2s", "dpmpp_3s", "dpm_fast"),
        ("dpmpp_2s", "dpmpp_3s", "dpm_solver_3s", "dpm_fast"),
    ),
    "dpm_multistep": Family(
        "DPM-Solver, multistep", ("dpm_solver", "dpmpp_2m", "dpmpp_3m", "dpm_solver_v3"),
        ("dpmpp_2m", "dpmpp_3m", "dpm_solver_2m", "dpm_solver_3m"),
    ),
    "adams": Family(
        "Adams-Bashforth", ("adams_bashforth", "lms", "ipndm", "deis"), ("zeab", "lms", "ipndm", "deis"),
    ),
    "correctors": Family(
        "With a corrector", ("uni_pc", "sa_solver", "spc"), ("uni_pc", "uni_pc_bh2", "dpmpp_2m"),
    ),
    "exponential": Family(
        "Exponential Runge-Kutta", ("exponential_rk", "res_multistep", "exp_heun_2_x0"),
        ("res_multistep", "res_2s", "res_3s", "etdrk4"),
    ),
    "runge_kutta": Family(
        "Runge-Kutta", ("runge_kutta", "riemannian"), ("heun", "kutta3", "rk4", "dpmpp_2m"),
    ),
    "adaptive": Family("Adaptive steps", ("adaptive", "dpm_adaptive"), ()),
    "sde": Family(
        "Solvers of the reverse SDE",
        ("dpmpp_sde", "dpmpp_sde_multistep", "seeds", "er_sde", "ito", "langevin", "dpm_solver:SDEDPMSolver"),
        ("dpmpp_2m_sde", "dpmpp_sde", "er_sde", "seeds_3"), noise=True,
    ),
    "distilled": Family("Distilled models", ("lcm", "tcd"), ()),
    "cfg_pp": Family("CFG++", ("cfg_pp",), ()),
    "modifiers": Family("Modifiers", ("restart", "repaint", "churn"), ()),
}  # fmt: skip


def family_of(entry: Any) -> str:
    """The family of a sampler.

    Raises:
        KeyError: No family takes its module.
    """
    module = entry.factory.removeprefix(PACKAGE)
    for place in (entry.name, module, module.partition(":")[0]):
        for slug, family in FAMILIES.items():
            if place in family.members:
                return slug
    raise KeyError(
        f"{entry.name!r}: no family takes {module!r}; add its module or its name to one in "
        "docs/_hooks/families.py"
    )


@cache
def _members() -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {slug: [] for slug in FAMILIES}
    for entry in _entries("samplers"):
        found[family_of(entry)].append(entry)
    return found


def members(slug: str) -> str:
    """The samplers of a family."""
    rows = []
    for entry in _members()[slug]:
        sampler = kd.get_sampler(entry.name)
        facts = [_order(entry, sampler), _evaluations(sampler), str(sampler.memory)]
        noise = "yes" if sampler.stochastic else ""
        rows.append([f"`{entry.name}`", entry.summary, *facts, noise, _linked(entry.reference)])
    return _table(["Name", "What", "Order", "Evaluations", "Memory", "Noise", "Reference"], rows)


def _told(kind: type) -> dict[str, str]:
    """What a class, and those it comes from, say of their parameters."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        text = inspect.cleandoc(vars(base).get("__doc__") or "")
        part = re.search(r"^(?:Attributes|Args):\n((?:    .*\n?|\n)+)", text, re.MULTILINE)
        for name, what in re.findall(r"^    (\w+): ((?:.|\n {8,})*)", part[1] if part else "", re.MULTILINE):
            found[name] = " ".join(what.split())
    return found


def _value(field: Any) -> str:
    default = field.default.factory() if isinstance(field.default, attrs.Factory) else field.default
    return f"`{default:.6g}`" if isinstance(default, float) else f"`{default!r}`"


def parameters(slug: str) -> str:
    """The parameters of a family's classes: name, default, meaning; and what each name sets."""
    kinds: dict[type, list[Any]] = {}
    for entry in _members()[slug]:
        kinds.setdefault(type(kd.get_sampler(entry.name)), []).append(entry)
    parts = []
    for kind, entries in kinds.items():
        told, fields = _told(kind), [f for f in attrs.fields(kind) if f.init]
        if not fields:
            continue
        rows = [[f"`{f.alias}`", _value(f), told.get(f.name, "")] for f in fields]
        parts += [
            f"**{_codes(entry.name for entry in entries)}**",
            _table(["Parameter", "Default", "Meaning"], rows),
        ]
        own = [(e.name, e.defaults) for e in entries if e.defaults]
        lines = [f"- `{n}`: {', '.join(f'`{k}={v!r}`' for k, v in sets.items())}" for n, sets in own]
        parts += ["What the names set:\n\n" + "\n".join(lines)] if lines else []
    return "\n\n".join(parts) or "None."


# -- pictures


def grid(steps: int, last: float = 0.002, first: float = 80.0) -> Any:
    """Karras' levels and 0; by default so low that the jump to 0 does not hide the rest."""
    return kd.get_schedule("karras")(steps, sigma_min=last, sigma_max=first)


@cache
def _problem() -> tuple[Any, Any, Any]:
    """A mixture, states and where the probability flow takes them."""
    mixture = Mixture()
    x = random_state(7, batch=6, shape=(2,), scale=80.0)
    near = mixture.exact(x, 80.0, 1e-3)
    level = torch.full((6,), 1e-3, dtype=torch.float64)
    return mixture, x, 0.5 * (near + mixture(near, level))  # exact to the fourth power of the level


def _errors(axes: Any, names: Sequence[str]) -> None:
    mixture, x, exact = _problem()
    for name, colour in zip(names, COLOURS, strict=False):
        sampler, calls, errors = kd.get_sampler(name), [], []
        for steps in RUNS:
            count = sampler.plan(grid(steps)).evaluations
            if MOST[0] <= count <= MOST[1]:
                end = sampler(mixture, x, grid(steps))
                calls.append(count)
                errors.append(float((end - exact).square().mean(-1).sqrt().median()))
        curve(axes, calls, errors, "ve", colour, name)
    finish(axes, "Error of a run on a mixture", "model calls", "sampler")
    count_steps(axes, TICKS)


def _variances(axes: Any, names: Sequence[str]) -> None:
    for name, colour in zip(names, COLOURS, strict=False):
        sampler, problem = kd.get_sampler(name), Gaussian("ve", 0.0, (0.25,))
        found = [output_moments(sampler.plan(grid(n, 0.03, 14.6)), problem) for n in STEPS]
        ratios = [float(moments.covariance[0, 0]) / 0.25 for moments in found]
        curve(axes, STEPS, ratios, "ve", colour, name)
    finish_variance(axes, "Variance over the exact one", STEPS, "sampler")


def picture(family: Family) -> Any:
    """The picture of a family; of names that are not there nothing is shown."""
    found, (axes,) = blank(1)
    known = [name for name in family.curves if _there(name)]
    (_variances if family.noise else _errors)(axes, known)
    return found


def _there(name: str) -> bool:
    try:
        return bool(kd.get_sampler(name))
    except KdiffError:
        return False


def on_files(files: Any, config: Any) -> Any:
    """Add the pictures to the files of the site; mkdocs calls this once."""
    from mkdocs.structure.files import File  # the tests read this file where mkdocs is not installed

    for slug, family in FAMILIES.items():
        if family.curves:
            drawn = io.BytesIO()
            save(picture(family), drawn)
            files.append(File.generated(config, f"pictures/family_{slug}.svg", content=drawn.getvalue()))
    return files


MADE: dict[str, Callable[[str], str]] = {"members": members, "parameters": parameters}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the tables in; mkdocs calls this for every page."""
    return re.sub(r"<!-- (members|parameters): (\w+) -->", lambda found: MADE[found[1]](found[2]), markdown)
