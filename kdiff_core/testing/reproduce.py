"""The Python that reproduces a failure: one call of the check, with the simplest example that fails."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .catalogue import Check
from .subjects import Subject
from .written import source_of


def snippet(check: Check, subject: Subject, example: Mapping[str, Any]) -> str:
    """A script that fails as the check did.

    Args:
        check: The check.
        subject: What it failed on.
        example: The arguments.
    """
    imports = {f"from {check.function.__module__} import {check.name}", *subject.imports}
    arguments = [subject.expression]
    for name, value in example.items():
        more, expression = source_of(value)
        imports |= set(more)
        arguments.append(f"{name}={expression}")
    whole = f"{check.name}({', '.join(arguments)})"
    if len(whole) > 100:
        whole = "\n".join([f"{check.name}(", *(f"    {argument}," for argument in arguments), ")"])
    # The comment about local names first, then whole modules.
    return "\n".join([*sorted(imports, key=lambda line: ("#if".index(line[0]), line)), "", whole])
