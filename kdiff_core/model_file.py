"""Model files: the weights of a network, what it is made of and how it is used, in one safetensors file.

The metadata's key "kdiff" is JSON: ``format``, 1; ``model``, the registered name and the config;
``denoiser``, the options of `kdiff_core.parameterisations.Parameterised`; ``about``, what a denoiser says of
itself; and ``training``, a free-form record. Nothing is unpickled. Needs safetensors.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import torch

from .errors import KdiffError, MissingExtraError, ParameterError
from .files import write_whole
from .lookup import get_model, get_process
from .names import did_you_mean, quoted
from .parameterisations import Parameterised

if TYPE_CHECKING:
    from types import ModuleType

    from torch import Tensor, nn

FORMAT = 1
KEY = "kdiff"
ABOUT = ("sample_shape", "value_range", "classes", "class_names")
_PARTS = ("format", "model", "denoiser", "about", "training")
_NO_JSON = ("network", "about", "dtype", "time_dtype")
_OPTIONS = tuple(n for n in inspect.signature(Parameterised).parameters if n not in _NO_JSON)


def write_model(
    file: str | Path,
    network: nn.Module,
    denoiser: Mapping[str, Any],
    about: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write a model file, whole or not at all.

    Args:
        file: Where.
        network: Has ``name``, that of a registered model, and ``config``, of which ``attrs.asdict`` gives the
            options that make another like it.
        denoiser: Options of `Parameterised`: ``prediction``, ``sigma_data`` and so on; ``process`` is a name,
            or ``{"name": name, "options": {...}}``.
        about: Any of ``sample_shape``, ``value_range``, ``classes``, ``class_names``.
        training: What is to be known of the training, JSON-able.

    Raises:
        ParameterError: The network has no name or config, an option is unknown, or one is not JSON-able.
        MissingExtraError: safetensors is not installed.
        OSError: It cannot be written.
    """
    safetensors = _safetensors()
    name: Any = getattr(network, "name", None)
    config: Any = getattr(network, "config", None)
    if not isinstance(name, str) or not attrs.has(type(config)):
        raise ParameterError(
            f"a {type(network).__name__} cannot be written: it needs name, that of a registered model, and "
            "config, an attrs class of its options"
        )
    _only("denoiser", denoiser, _OPTIONS)
    _only("about", about or {}, ABOUT)
    description = {
        "format": FORMAT,
        "model": {"name": name, "config": attrs.asdict(config)},
        "denoiser": dict(denoiser),
        "about": dict(about or {}),
        "training": dict(training or {}),
    }
    try:
        text = json.dumps(description, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"the description of the model is no JSON: {error}") from error
    weights = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    if wrapped := [key for key in weights if "_orig_mod." in key]:
        raise ParameterError(
            f"the weight {wrapped[0]!r} belongs to a wrapper of torch.compile; compile in place, with "
            "network.compile()"
        )
    write_whole(file, safetensors.save(weights, metadata={KEY: text}))


def describe_model(file: str | Path) -> dict[str, Any]:
    """Return the description in a model file, without reading the weights.

    Raises:
        ParameterError: There is no such file, or it is no model file of a format that is known here.
        MissingExtraError: safetensors is not installed.
    """
    _safetensors()
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), framework="pt") as opened:
            text = (opened.metadata() or {}).get(KEY)
    except FileNotFoundError as error:
        raise ParameterError(f"there is no file {str(file)!r}") from error
    except (SafetensorError, OSError) as error:
        raise ParameterError(f"{str(file)!r} is no safetensors file: {error}") from error
    if text is None:
        raise ParameterError(
            f"{str(file)!r} has weights only; its metadata has no {KEY!r}: write_model puts it"
        )
    try:
        found: Any = json.loads(text)
    except ValueError as error:
        raise ParameterError(f"{str(file)!r}: its description is no JSON: {error}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        seen = found.get("format") if isinstance(found, dict) else None
        raise ParameterError(f"{str(file)!r} has the format {seen!r}; this version reads {FORMAT}")
    _only(f"{str(file)!r}", found, _PARTS)
    parts = {part: found.get(part, {}) for part in _PARTS if part != "format"}
    for part, value in parts.items():
        if not isinstance(value, dict):
            raise ParameterError(f"{str(file)!r}: {part!r} must be a mapping, not {value!r:.60}")
    _only(f"{str(file)!r}, denoiser", parts["denoiser"], _OPTIONS)
    _only(f"{str(file)!r}, about", parts["about"], ABOUT)
    if not isinstance(parts["model"].get("name"), str) or not isinstance(parts["model"].get("config"), dict):
        raise ParameterError(f"{str(file)!r}: 'model' must have a name and a config")
    return {"format": FORMAT, **parts}


def read_model(
    file: str | Path, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> Parameterised:
    """Return the denoiser in a model file, its network in eval mode, with weights that need no gradient.

    Args:
        file: What `write_model` wrote.
        dtype: Dtype of the network's floating-point weights.
        device: Where it is to be.

    Returns:
        A denoiser, which has ``training``, the record, and what a manifest needs to find the file again.

    Raises:
        ParameterError: It cannot be read, or its weights are not those of its config.
        UnknownNameError: No plugin has its model.
        MissingExtraError: safetensors is not installed.
    """
    safetensors = _safetensors()
    description = describe_model(file)
    data = Path(file).read_bytes()
    about = {k: tuple(v) if isinstance(v, list) else v for k, v in description["about"].items()}
    about |= {
        "training": description["training"],
        "data_sha256": hashlib.sha256(data).hexdigest(),
        "replay_options": {"file": str(Path(file).absolute())},
    }
    try:
        network = get_model(description["model"]["name"], **description["model"]["config"])
        _fill(network, safetensors.load(data))
        network.to(device=device, dtype=dtype).eval().requires_grad_(False)
        options = dict(description["denoiser"])
        return Parameterised(
            network, **(options | {"process": _process(options.get("process"))}), about=about
        )
    except ParameterError as error:
        raise ParameterError(f"{str(file)!r}: {error}") from error
    except TypeError as error:
        if isinstance(error, KdiffError):
            raise
        raise ParameterError(f"{str(file)!r}: its description does not fit: {error}") from error


def _process(said: Any) -> Any:
    """Return the process that a description names."""
    if not isinstance(said, dict):
        return said
    _only("process", said, ("name", "options"))
    return get_process(said.get("name"), **said.get("options", {}))


def _fill(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put the weights into a network, all of them or none."""
    own = network.state_dict()
    faults = []
    for text, names in (
        ("it lacks", own.keys() - weights.keys()),
        ("unknown are", weights.keys() - own.keys()),
    ):
        if names:
            faults.append(
                f"{text} {quoted(sorted(names)[:3])}" + (f" of {len(names)}" if len(names) > 3 else "")
            )
    shapes = [k for k in own.keys() & weights.keys() if own[k].shape != weights[k].shape]
    for key in sorted(shapes)[:3]:
        faults.append(f"{key!r} is {tuple(weights[key].shape)} and must be {tuple(own[key].shape)}")
    if faults:
        raise ParameterError(f"the weights are not those of the config: {'; '.join(faults)}")
    network.load_state_dict(dict(weights))


def _only(where: str, given: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Refuse a key that nobody reads."""
    for key in given:
        if key not in known:
            raise ParameterError(
                f"{where}: unknown key {key!r}{did_you_mean(key, known) or '.'} There are {quoted(known)}."
            )


def _safetensors() -> ModuleType:
    try:
        import safetensors.torch
    except ImportError as error:
        raise MissingExtraError('model files need safetensors: pip install "kdiff-core[cli]"') from error
    return safetensors.torch
