"""Reading a config: YAML or JSON, strict about keys and types, with the place of what is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml
from attrs import fields, has

from kdiff_core.errors import ParameterError
from kdiff_core.names import did_you_mean, quoted

from .config import Config, Named


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML in which 1e-3 is a number, as in JSON and Python, and a key may not be given twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        if twice := [key for number, key in enumerate(keys) if key in keys[:number]]:
            raise ParameterError(f"line {node.start_mark.line + 1}: the key {twice[0]!r} is given twice")
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+"), list("-+0123456789")
)


def read_config(file: str | Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read the config of a run from a file.

    Args:
        file: A .yaml, .yml or .json file.
        overrides: Values by their place, such as ``{"batch.size": 32}``, in place of the file's.

    Raises:
        ParameterError: It cannot be read; an unknown key, with its place and the nearest one; a value of
            another type or out of range.
    """
    path = Path(file)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ParameterError(f"the config {str(file)!r} cannot be read: {error}") from error
    return _parse(text, str(file), path.suffix.lower() == ".json", overrides)


def presets() -> dict[str, Any]:
    """Return the presets that ship, by name, as files of `importlib.resources`."""
    found = [f for f in (files("kdiff_train") / "presets").iterdir() if f.name.endswith(".yaml")]
    return {file.name.removesuffix(".yaml"): file for file in sorted(found, key=lambda file: file.name)}


def preset(name: str, overrides: Mapping[str, Any] | None = None) -> Config:
    """Return a config that ships, such as "digits".

    Args:
        name: Its name in `presets`.
        overrides: As in `read_config`.

    Raises:
        ParameterError: An unknown name, or an override that is.
    """
    known = presets()
    if name not in known:
        raise ParameterError(f"preset {name!r}: there are {quoted(known)}{did_you_mean(name, known)}")
    return _parse(known[name].read_text(encoding="utf-8"), f"preset {name}", False, overrides)


def make_config(values: Mapping[str, Any], where: str = "config") -> Config:
    """Make a config of plain values, as a file has them.

    Raises:
        ParameterError: As `read_config`.
    """
    found: Config = _structure(values, Config, where)
    return found


def parse_overrides(words: Iterable[str]) -> dict[str, Any]:
    """Read overrides written as ``batch.size=32``, the values as YAML has them.

    Raises:
        ParameterError: A word without "=", or a value that is no YAML.
    """
    found = {}
    for word in words:
        place, equals, text = word.partition("=")
        if not equals or not all(key.strip() for key in place.split(".")):
            raise ParameterError(
                f"--set {word!r}: write KEY=VALUE, such as --set batch.size=32 or --set optimizer.lr=1e-3"
            )
        try:
            found[place.strip()] = yaml.load(text, _Loader)
        except yaml.YAMLError as error:
            raise ParameterError(f"--set {word!r}: the value is no YAML: {error}") from error
    return found


def _parse(text: str, where: str, as_json: bool, overrides: Mapping[str, Any] | None) -> Config:
    try:
        values = json.loads(text) if as_json else yaml.load(text, _Loader)
    except (ValueError, yaml.YAMLError) as error:
        if isinstance(error, ParameterError):
            raise ParameterError(f"{where}: {error}") from error
        raise ParameterError(f"{where} is no {'JSON' if as_json else 'YAML'}: {error}") from error
    values = {} if values is None else values
    for place, value in (overrides or {}).items():
        _override(values, place.split("."), value)
    return make_config(values, where)


def _override(values: Any, place: list[str], value: Any) -> None:
    for key in place[:-1]:
        if isinstance(values.get(key), str):  # a bare name, which gets an option
            values[key] = {"name": values[key]}
        if not isinstance(values.setdefault(key, {}), dict):
            raise ParameterError(f"{'.'.join(place)}: {key!r} has no keys of its own")
        values = values[key]
    values[place[-1]] = value


def _structure(value: Any, wanted: Any, where: str) -> Any:
    """Return a value as an attribute's type wants it."""
    origin = get_origin(wanted)
    if origin in (Union, UnionType):
        return _union(value, get_args(wanted), where)
    if wanted is Named:
        return _named(value, where)
    if has(wanted):
        return _section(value, wanted, where)
    if origin is dict:
        _is(value, dict, "a mapping", where)
        kind = get_args(wanted)[1]
        return {str(key): _structure(each, kind, f"{where}.{key}") for key, each in value.items()}
    if origin is list:
        _is(value, list, "a list", where)
        kind = get_args(wanted)[0]
        return [_structure(each, kind, f"{where}[{number}]") for number, each in enumerate(value)]
    return value if wanted is Any else _scalar(value, wanted, where)


def _union(value: Any, kinds: tuple[Any, ...], where: str) -> Any:
    if value is None and NoneType in kinds:
        return None
    errors = []
    for kind in (kind for kind in kinds if kind is not NoneType):
        try:
            return _structure(value, kind, where)
        except ParameterError as error:
            errors.append(error)
    raise errors[0]


def _section(value: Any, kind: Any, where: str) -> Any:
    _is(value, dict, "a section of keys", where)
    hints = get_type_hints(kind)
    known = [attribute.name for attribute in fields(kind)]
    for key in value:
        if key not in known:
            raise ParameterError(
                f"{where}: unknown key {key!r}{did_you_mean(key, known) or '.'} There are {quoted(known)}."
            )
    found = {key: _structure(each, hints[key], f"{where}.{key}") for key, each in value.items()}
    try:
        return kind(**found)
    except ParameterError as error:
        raise ParameterError(f"{where}: {error}") from error


def _named(value: Any, where: str) -> Named:
    if isinstance(value, str):
        return Named(value)
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise ParameterError(
            f"{where}={value!r:.60}: give a name, or a mapping with the key 'name' and options"
        )
    if bad := [key for key in value if not isinstance(key, str)]:
        raise ParameterError(f"{where}: the key {bad[0]!r} must be text")
    return Named(value["name"], {key: each for key, each in value.items() if key != "name"})


_SCALARS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def _scalar(value: Any, kind: Any, where: str) -> Any:
    # Whole numbers may be written as 1e6; true is no number.
    if kind is int and type(value) is float and value.is_integer():
        return int(value)
    if kind is float and type(value) is int:
        return float(value)
    _is(value, kind, _SCALARS[kind], where)
    return value


def _is(value: Any, kind: type, words: str, where: str) -> None:
    if type(value) is not kind:
        raise ParameterError(f"{where}={value!r:.60} must be {words}")
