"""What a run of the kit may spend, and where it runs."""

from __future__ import annotations

import os
from typing import Any

from attrs import Attribute, field, frozen

from ..errors import ParameterError
from ..parameters import whole

PREFIX = "KDIFF_CHECK_"


def _choice(*choices: str) -> Any:
    def validate(instance: object, attribute: Attribute[Any], value: Any) -> None:
        if value not in choices:
            raise ParameterError(f"{attribute.name}={value!r}: choose one of {', '.join(choices)}")

    return validate


def _paths(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if not value or not set(value) <= {"ve", "flow"}:
        raise ParameterError(f"paths={value!r}: give 've', 'flow' or both, as a tuple")


@frozen
class Settings:
    """Budget and place of a run of the kit.

    Attributes:
        examples: Random examples of a check of ordinary cost; dear ones take a share of it.
        seed: Seed of the examples: one seed, one set of examples.
        device: ``"cpu"`` or ``"cuda"``; a missing GPU is an error here (`kdiff check` and pytest say so
            and go on with the CPU).
        dtype: Of the states, ``"float64"`` or ``"float32"``; tolerances follow.
        slow: Whether to run the checks that compile or start processes.
        paths: Noise paths to try.
    """

    examples: int = field(default=20, validator=whole(1))
    seed: int = 0
    device: str = field(default="cpu", validator=_choice("cpu", "cuda"))
    dtype: str = field(default="float64", validator=_choice("float64", "float32"))
    slow: bool = False
    paths: tuple[str, ...] = field(default=("ve", "flow"), converter=tuple, validator=_paths)

    @classmethod
    def from_environment(cls) -> Settings:
        """Settings of the variables ``KDIFF_CHECK_EXAMPLES``, ``_SEED``, ``_DEVICE``, ``_DTYPE``, ``_SLOW``.

        Raises:
            ParameterError: A value that is none; the message has the variable.
        """
        values = {name: _read(name) for name in ("examples", "seed", "device", "dtype", "slow")}
        return cls(**{name: value for name, value in values.items() if value is not None})


def _read(name: str) -> Any:
    variable = f"{PREFIX}{name.upper()}"
    text = os.environ.get(variable)
    if not text:
        return None
    if name in ("device", "dtype"):
        return text
    try:
        return int(text) != 0 if name == "slow" else int(text)
    except ValueError:
        raise ParameterError(f"{variable}={text!r}: give a whole number") from None
