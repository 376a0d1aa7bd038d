"""`Linear`: a symbolic linear combination of states.

While a sampler is traced its states are `Linear` objects: mappings from a register (a state that will
exist at run time) to a weight. Sums, differences and products with numbers stay linear; anything else
is refused with an error that says so, which sends the sampler to the eager engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from .errors import TraceError
from .numerics import Number


class Linear:
    """``sum(weight * register)``; weights are numbers of the host, in float64 for a plan.

    `terms` changes in one way only: when the tracer decides that the value exists as a register of its
    own, later expressions refer to that register (`replace_by`).
    """

    __slots__ = ("terms",)

    # NumPy and torch leave ``array * Linear`` to this class.
    __array_ufunc__ = None

    def __init__(self, terms: Mapping[int, Number]) -> None:
        self.terms: dict[int, Number] = dict(terms)

    def replace_by(self, register: int) -> None:
        """From now on this value is a register of its own."""
        self.terms = {register: 1.0}

    def _plus(self, other: Any, factor: float) -> Linear:
        if not isinstance(other, Linear):
            if isinstance(other, (int, float)) and other == 0:
                return self
            return _refuse("adding", other)
        terms = dict(self.terms)
        for register, weight in other.terms.items():
            scaled = weight if factor == 1.0 else factor * weight
            total = terms[register] + scaled if register in terms else scaled
            if isinstance(total, float) and total == 0.0:
                terms.pop(register, None)
            else:
                terms[register] = total
        return Linear(terms)

    def __add__(self, other: Any) -> Linear:
        """Add another combination."""
        return self._plus(other, 1.0)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Linear:
        """Subtract another combination."""
        return self._plus(other, -1.0)

    def __rsub__(self, other: Any) -> Linear:
        """Subtract from another combination."""
        return (-self)._plus(other, 1.0)

    def __neg__(self) -> Linear:
        """Negate every weight."""
        return Linear({r: -w for r, w in self.terms.items()})

    def __mul__(self, factor: Any) -> Linear:
        """Multiply by a number."""
        number = _number(factor)
        if number is None:
            return _refuse("multiplying by", factor)
        if isinstance(number, (int, float)) and number == 0:
            return Linear({})
        return Linear({r: w * number for r, w in self.terms.items()})

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> Linear:
        """Divide by a number; by ``inf`` gives nothing."""
        number = _number(divisor)
        if number is None:
            return _refuse("dividing by", divisor)
        if isinstance(number, (int, float)) and number in (float("inf"), float("-inf")):
            return Linear({})
        return Linear({r: w / number for r, w in self.terms.items()})

    def __getattr__(self, name: str) -> NoReturn:
        """Refuse tensor methods with an explanation."""
        if name.startswith("__"):
            raise AttributeError(name)
        _refuse(f"taking .{name} of", self)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> NoReturn:
        """Refuse torch's functions with an explanation."""
        _refuse(f"{getattr(func, '__name__', func)} of", cls({}))

    def _not_linear(self, *others: Any) -> NoReturn:
        _refuse("this operation on", self)

    __bool__ = __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _not_linear
    __abs__ = __pow__ = __matmul__ = __rmatmul__ = __rtruediv__ = __mod__ = _not_linear
    __getitem__ = __iter__ = __len__ = __float__ = _not_linear
    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Show the combination."""
        return " + ".join(f"{w:.6g} r{r}" for r, w in self.terms.items()) or "0"


def _number(value: Any) -> Any:
    """A scalar weight, or None for anything else; a NumPy scalar becomes a float."""
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, Linear):
        return None
    if hasattr(value, "ndim"):  # torch and NumPy scalars
        return None if value.ndim else value if hasattr(value, "requires_grad") else float(value)
    return value if hasattr(value, "context") else None  # mpmath


def _refuse(what: str, value: Any) -> NoReturn:
    kind = "state" if isinstance(value, Linear) else type(value).__name__
    raise TraceError(
        f"{what} a {kind} is not linear in the state: while a sampler is traced, states can only be added "
        "and multiplied by numbers; set `linear = False` on a sampler to run it on tensors"
    )
