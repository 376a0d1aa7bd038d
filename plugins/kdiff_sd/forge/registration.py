"""Registering kdiff's samplers and schedules with Forge and A1111, beside the host's own."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterable, Sequence
from typing import Any

from attrs import frozen

from kdiff_core.errors import AmbiguousNameError
from kdiff_core.lookup import default_registry
from kdiff_core.protocols import PathName

from . import samplers, schedules


@frozen
class Constructor:
    """What the host builds a sampler with: ``constructor(model)``.

    Attributes:
        name: The sampler's name.
        path: Path of the models it is for.
    """

    name: str
    path: PathName = "ve"

    def __call__(self, model: Any) -> Any:
        """Return the host's ``KDiffusionSampler`` for a model, with the noise of each image's seed."""
        base = importlib.import_module("modules.sd_samplers_kdiffusion").KDiffusionSampler
        return _with_seeds(base)(samplers.host_function(self.name, self.path), model)


@functools.cache
def _with_seeds(base: type) -> type:
    """Return a host's class of samplers, whose runs know the seeds of the images that they are for."""

    class KDiffSampler(base):  # type: ignore[misc]
        def sample(self, p: Any, *args: Any, **kwargs: Any) -> Any:
            with samplers.seeded(_seeds_of(p)):
                return super().sample(p, *args, **kwargs)

        def sample_img2img(self, p: Any, *args: Any, **kwargs: Any) -> Any:
            with samplers.seeded(_seeds_of(p)):
                return super().sample_img2img(p, *args, **kwargs)

    return KDiffSampler


def _seeds_of(p: Any) -> Sequence[int]:
    """Return the seeds of the batch, a part of those of all images where the job has several batches."""
    found: Sequence[int] = getattr(p, "seeds", None) or p.all_seeds
    return found


def register(
    prefix: str = "kdiff/",
    *,
    names: Iterable[str] | None = None,
    paths: Iterable[PathName] = ("ve", "flow"),
    scheduler: str = "karras",
) -> list[str]:
    """Add samplers and schedules to the host's lists; what is there is left as it is.

    A sampler is called ``"kdiff/euler"``; ``"kdiff/flow/dpmpp_2m"`` where it has another form for rectified
    flows. A schedule is called ``"kdiff/karras"``. What was registered before, as when the host reloads its
    scripts, is not added again.

    Args:
        prefix: What all names begin with.
        names: Samplers. Default: all that the host can run.
        paths: For models of which paths.
        scheduler: Schedule that the host takes for VE models where the user chose none.

    Returns:
        The names of the samplers added.

    Raises:
        AmbiguousNameError: Another extension has one of the names; then nothing is added.
        UnknownNameError: There is no such sampler or schedule.
    """
    scheduler = default_registry().entry("schedule", scheduler).name
    chosen = None if names is None else {default_registry().entry("sampler", name).name for name in names}
    host = importlib.import_module("modules.sd_samplers")
    wanted = [_data(prefix, name, path, scheduler) for name, path in samplers.offered(tuple(paths), chosen)]
    present = {data.constructor for data in host.all_samplers if isinstance(data.constructor, Constructor)}
    new = [data for data in wanted if data.constructor not in present]
    taken = {n for data in host.all_samplers for n in (data.name, *data.aliases)}
    _refuse({data.name for data in new} & taken, "sampler")
    new_schedules = _new_schedules(prefix)
    _add_schedules(new_schedules)
    _add_samplers(host, new)
    return [data.name for data in new]


def _data(prefix: str, name: str, path: PathName, scheduler: str) -> Any:
    """Return the host's record of a sampler."""
    common = importlib.import_module("modules.sd_samplers_common")
    label = f"{prefix}{'' if path == 've' else 'flow/'}{name}"
    options = samplers.options_of(name, path)
    if path == "ve":
        options["scheduler"] = f"{prefix}{scheduler}"
    return common.SamplerData(label, Constructor(name, path), [], options)


def _add_samplers(host: Any, new: list[Any]) -> None:
    """Append records to the host's samplers: by its own function where it has one, else as A1111 needs it."""
    extra = importlib.import_module("modules.sd_samplers_kdiffusion").sampler_extra_params
    for data in new:
        function = samplers.host_function(data.constructor.name, data.constructor.path)
        if found := samplers.extra_parameters(function):
            extra[function] = found
    if hasattr(host, "add_sampler"):
        for data in new:
            host.add_sampler(data)
    else:
        host.all_samplers.extend(new)
        host.all_samplers_map = {data.name: data for data in host.all_samplers}
        host.set_samplers()
    # The host remembers what it found for a label before these were there.
    getattr(getattr(host, "get_sampler_and_scheduler", None), "cache_clear", lambda: None)()


def _new_schedules(prefix: str) -> list[Any]:
    """Return the records of the schedules that the host does not have yet.

    Raises:
        AmbiguousNameError: Another extension has one of the names.
    """
    host = importlib.import_module("modules.sd_schedulers")
    found = []
    for name, needs_model in schedules.offered():
        label, function = f"{prefix}{name}", schedules.host_schedule(name)
        there = host.schedulers_map.get(label)
        if there is None:
            rho = schedules.rho_of(name)
            found.append(host.Scheduler(label, label, function, rho, need_inner_model=needs_model))
        elif there.function is not function:
            _refuse({label}, "schedule")
    return found


def _add_schedules(new: list[Any]) -> None:
    """Append records to the host's list and to its map, which is by name and by label; here both are one."""
    host = importlib.import_module("modules.sd_schedulers")
    for each in new:
        host.schedulers.append(each)
        host.schedulers_map[each.name] = each


def _refuse(names: set[str], kind: str) -> None:
    """Refuse names that another extension has: the host would drop one of the two without a word."""
    if names:
        raise AmbiguousNameError(
            f"the {kind}s {sorted(names)} are registered already, and not by kdiff; rename the other "
            "extension's, or call register(prefix=...) with another prefix"
        )
