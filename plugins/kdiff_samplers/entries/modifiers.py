"""Modifiers: samplers that wrap another one.

Where options choose several, the first of this table lies innermost: what belongs to multistep solvers, then
what belongs to one-step solvers and noise, then the end, guidance, and around all of them what answers for
the model and what changes the grid.
"""

from __future__ import annotations

from .table import entry

MODIFIERS = (
    entry(
        "start_solver", "start:StartSolver", "Hairer, Norsett and Wanner 1993, section III.1",
        "the first steps of a multistep solver by a one-step solver",
    ),
    entry(
        "lower_order_final", "ends:LowerOrderFinal", "arXiv:2211.01095",
        "the order of a multistep solver falls to 1 at the end",
    ),
    entry("churn", "churn:Churn", "arXiv:2206.00364", "adds noise before each step"),
    entry("ancestral", "ancestral:Ancestral", "arXiv:2010.02502", "overshoots, then adds fresh noise"),
    entry("restart", "restart:Restart", "arXiv:2306.14878", "goes up with noise, and down again"),
    entry("repaint", "repaint:Repaint", "arXiv:2201.09865", "jumps up some levels again and again"),
    entry(
        "per_step", "per_step:PerStep", "arXiv:2206.00364",
        "another amount of noise in each step, or noise between two levels",
    ),
    entry("euler_at_end", "ends:EulerAtEnd", "", "the last steps are Euler's"),
    entry(
        "extrapolated_end", "ends:ExtrapolatedEnd", "Richardson 1911",
        "ends in the outputs extrapolated to 0, in place of the last one",
    ),
    entry("cfg_pp", "cfg_pp:CFGpp", "arXiv:2406.08070", "guided data, unconditional noise"),
    entry(
        "analytic_start", "start:AnalyticStart", "arXiv:2210.05475",
        "the first evaluation without the model",
    ),
    entry("detail", "detail:Detail", "", "tells the model of less noise than there is"),
    entry(
        "discard_penultimate", "ends:DiscardPenultimate", "", "leaves the last level but one out",
    ),
)  # fmt: skip
