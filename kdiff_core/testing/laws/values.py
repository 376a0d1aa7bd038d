"""Laws of a sampler as a value: its parameters and what it says of itself."""

from __future__ import annotations

import inspect
import pickle
import re
from typing import Any

import attrs

from ..catalogue import LawBroken, law, require


@law("sampler")
def parameters_round_trip(sampler: Any) -> None:
    """A sampler is a value: equal to its copy, hashable, picklable, printable, and it cannot be changed.

    Plans are cached by the sampler, runs are replayed from what it prints, and two threads may share one. A
    sampler that changes, or that compares by identity, breaks all three.
    """
    require(
        attrs.has(type(sampler)),
        "it is no attrs class; decorate it with @attrs.frozen",
        type=type(sampler).__name__,
    )
    fields = [field for field in attrs.fields(type(sampler)) if field.init]
    again = type(sampler)(**{field.alias: getattr(sampler, field.name) for field in fields})
    require(again == sampler, "made anew from its own parameters it is not equal to itself", made=again)
    require(hash(again) == hash(sampler), "its copy has another hash")
    require(pickle.loads(pickle.dumps(sampler)) == sampler, "a pickle brings another value back")
    require(type(sampler).__name__ in repr(sampler), "its repr does not name its class", repr=repr(sampler))
    for name in (*(field.name for field in fields), "anything"):
        try:
            setattr(sampler, name, getattr(sampler, name, None))
        except AttributeError:
            continue
        raise LawBroken(f"its {name} can be set; decorate it with @attrs.frozen, not @attrs.define")


@law("sampler")
def describes_itself(sampler: Any) -> None:
    """A sampler's docstring states its order and cites its source.

    Whoever meets a name in a list has nothing else to go by: the paper (an arXiv id, or authors and a year)
    says what it is, and the order what to expect of more steps.
    """
    text = inspect.getdoc(type(sampler)) or ""
    require(
        re.search(r"\border\b", text, re.IGNORECASE) is not None, "its docstring does not state its order"
    )
    cited = re.search(r"arXiv:\d{4}\.\d{4,5}|\b(1[5-9]|20)\d\d\b", text)
    require(cited is not None, "its docstring cites no source: an arXiv id, or authors and a year")
    for name in ("order", "memory"):
        value = getattr(sampler, name)
        require(type(value) is int and value >= 0, f"its {name} is no whole number", **{name: value})
    require(
        isinstance(sampler.stochastic, bool),
        "its attribute stochastic is no bool",
        stochastic=sampler.stochastic,
    )
