"""`evaluate`: draws samples from a model, and compares them with held-out data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from attrs import evolve, field, fields_dict, frozen
from torch import Tensor

from kdiff_core.errors import ParameterError
from kdiff_core.lookup import get_denoiser, get_features
from kdiff_core.names import did_you_mean, quoted
from kdiff_core.sample_job import SampleJob
from kdiff_core.setup import device_of

from ..data.loading import take
from . import distances
from .features import extract
from .levels import bits_per_dim, loss_by_level
from .report import Report, Score
from .sets import Sets, sets

USUAL_FEATURES = {"digits": "digits-classifier", "mnist": "mnist-classifier"}


@frozen(eq=False)
class Comparison:
    """What a metric is computed from.

    Attributes:
        samples: What the model drew, ``(n, ...)``.
        data: Real data, as many.
        features: The feature network.
        device: Where it is.
    """

    samples: Tensor
    data: Sets
    features: Any
    device: Any = "cpu"
    _found: dict[str, Tensor] = field(factory=dict, init=False, repr=False)

    def of(self, name: str) -> Tensor:
        """Return the features of "samples", "reals" or "others"; they are computed once."""
        if name not in self._found:
            x = self.samples if name == "samples" else getattr(self.data, name)["x"]
            self._found[name] = extract(self.features, x, self.device)
        return self._found[name]

    def score(self, name: str, distance: Callable[[Tensor, Tensor], float], better: str = "lower") -> Score:
        """Return the distance of the samples from the reals, and that of the others."""
        value, floor = (distance(self.of(each), self.of("reals")) for each in ("samples", "others"))
        return Score(name, value, floor, better)

    def nearest(self) -> Score:
        """Return the median distance to the nearest training image, in pixels; and that of held-out data."""
        assert self.data.train is not None  # as is checked beforehand
        train = take(self.data.train, range(len(self.data.train)))["x"].flatten(1).double()
        found = [each.flatten(1).double().cpu() for each in (self.samples, self.data.reals["x"])]
        value, floor = (float(distances.nearest(each, train).median()) for each in found)
        return Score("nearest", value, floor, "not below")


METRICS: Mapping[str, Callable[[Comparison], Score]] = {
    "fid": lambda c: c.score("fid", distances.frechet),
    "kid": lambda c: c.score("kid", distances.kernel_distance),
    "precision": lambda c: c.score("precision", distances.precision, "higher"),
    "recall": lambda c: c.score("recall", distances.recall, "higher"),
    "sliced_wasserstein": lambda c: c.score("sliced_wasserstein", distances.sliced_wasserstein),
    "nearest": Comparison.nearest,
}
OF_THE_MODEL = ("loss", "log_likelihood")  # for which no samples are drawn


def evaluate(
    denoiser: Any,
    dataset: Any,
    *,
    n: int | None = None,
    sampler: Any = "dpmpp_2m",
    features: Any = None,
    metrics: Iterable[str] | None = None,
    train: Any = None,
    samples: Tensor | None = None,
    conditional: bool | None = None,
    batch: int = 256,
    data_options: Mapping[str, Any] | None = None,
    device: Any = None,
    progress: bool = False,
    **sampling: Any,
) -> Report:
    """Compare what a model draws with held-out data.

    As many samples as real ones are compared, and the floor of each score is that of other real data against
    the same: of training data, or of another half of the held-out data where that is not known.

    Args:
        denoiser: The model or its name; it says its ``sample_shape``. None: there are only `samples`.
        dataset: Held-out data; or the name of a data set, of which the split "test" is held out and "train"
            is `train`.
        n: Number of samples. Default: as many as there are held out (half of them without `train`), at most
            10,000.
        sampler: The sampler, as in `kdiff_core.sample`.
        features: The feature network or its name. Default: that of the data set, if it has one, else
            "pixels".
        metrics: Names in `METRICS`, "loss" (errors by noise level) and "log_likelihood" (bits per
            dimension). Default: all that can be had, but for the last, which takes long.
        train: What the model was trained on, for the floors, and for "nearest".
        samples: Samples that were drawn already, ``(n, ...)``, in place of a run.
        conditional: Whether each sample is drawn of the class of a held-out one. Default: if both
            have classes, and the model those of the data.
        batch: Samples that are drawn at once. They are the same whatever it is, to rounding.
        data_options: Options of the data set's name.
        device: Where to run. Default: where the model is.
        progress: Whether to show progress bars.
        **sampling: Further attributes of a `kdiff_core.sample_job.SampleJob`: `schedule`, `steps`, `seed`,
            `guidance`, ...

    Raises:
        ParameterError: A name is unknown, there are not enough data, or a metric needs what is not given.
    """
    model: Any = None if denoiser is None else get_denoiser(denoiser)
    if samples is not None:
        n = len(samples) if n is None else n
        samples = samples[:n]
    data = sets(dataset, train, n, data_options or {})
    names = _names(metrics, model, data.train is not None)
    usual = USUAL_FEATURES.get(dataset, "pixels") if isinstance(dataset, str) else "pixels"
    network = get_features(usual if features is None else features)
    where = "cpu" if model is None else device_of(model, device)
    if isinstance(denoiser, str):
        model = model.to(where) if callable(getattr(model, "to", None)) else model
    if callable(getattr(network, "to", None)):
        network = network.to(where)
    report = Report(data.name, len(data.reals["x"]), *_named(network, features or usual))
    if samples is None and any(name in METRICS for name in names):
        job = _job(model, data, sampler, conditional, device, sampling)
        samples, report = _draw(job, batch, progress, report)
    elif sampling:
        raise ParameterError(f"{quoted(sampling)}: nothing is drawn here that it could be for")
    if samples is not None:
        _check(samples, data)
        compared = Comparison(samples, data, network, where)
        report = evolve(report, scores=tuple(METRICS[name](compared) for name in names if name in METRICS))
    if "log_likelihood" in names:
        bits = bits_per_dim(model, data.reals, where, batch)
        report = evolve(report, scores=(*report.scores, Score("bits_per_dim", bits, None, "lower")))
    if "loss" in names:
        train_data = None if data.train is None else data.others
        report = evolve(report, loss=loss_by_level(model, data.reals, train_data, where, batch))
    return report


def _names(metrics: Iterable[str] | None, model: Any, has_train: bool) -> list[str]:
    """Return the names of the metrics, checked."""
    # Of a model whose states are decoded to data, the data are no states.
    of_data = model is not None and not callable(getattr(model, "decode", None))
    if metrics is None:
        usual = [name for name in METRICS if has_train or name != "nearest"]
        return [*usual, "loss"] if of_data else usual
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    known = [*METRICS, *OF_THE_MODEL]
    for name in names:
        if name not in known:
            raise ParameterError(f"metric {name!r}: there are {quoted(known)}{did_you_mean(name, known)}")
        if name == "nearest" and not has_train:
            raise ParameterError("metric 'nearest' compares with what was trained on; give train=")
        if name in OF_THE_MODEL and not of_data:
            what = "none is given" if model is None else "this one decodes its states to them"
            raise ParameterError(f"metric {name!r} is of a model of the data themselves; {what}")
    return names


def _named(network: Any, features: Any) -> tuple[str, str | None]:
    return features if isinstance(features, str) else repr(features), getattr(network, "sha256", None)


def _job(
    model: Any, data: Sets, sampler: Any, conditional: bool | None, device: Any, sampling: dict[str, Any]
) -> SampleJob:
    """Return the run that draws the samples."""
    if model is None:
        raise ParameterError("evaluate: give a model, or samples=")
    for name in sampling:
        if name not in fields_dict(SampleJob) or name in ("model", "n", "index"):
            raise ParameterError(
                f"evaluate has no option {name!r}{did_you_mean(name, fields_dict(SampleJob))}"
            )
    label = data.reals.get("label")
    if conditional is None:
        classes = getattr(model, "classes", None)
        conditional = label is not None and classes is not None and classes > int(label.max())
    if conditional and label is None:
        raise ParameterError("evaluate: conditional=True, and the data have no classes")
    own = {"label": label.tolist()} if conditional and label is not None else {}
    return SampleJob(model, len(data.reals["x"]), sampler, device=device, **{**own, **sampling})


def _draw(job: SampleJob, batch: int, progress: bool, report: Report) -> tuple[Tensor, Report]:
    """Return the samples of a job, drawn in batches, and the report with how that was done."""
    from tqdm import tqdm

    parts, evaluations, steps = [], 0, 0
    with tqdm(total=job.n, desc="samples", disable=not progress) as bar:
        for first in range(0, job.n, batch):
            numbers = range(first, min(first + batch, job.n))
            label = job.label[first : first + batch] if isinstance(job.label, tuple) else job.label
            setup = evolve(job, n=len(numbers), index=tuple(numbers), label=label).setup()
            result = setup.run()
            parts.append(setup.decoded(result.x).float().cpu())
            evaluations, steps = result.evaluations, setup.grid.steps
            bar.update(len(numbers))
    schedule = setup.schedule_name if isinstance(setup.schedule_name, str) else repr(setup.schedule_name)
    return torch.cat(parts), evolve(
        report,
        sampler=setup.sampler_name if isinstance(setup.sampler_name, str) else repr(setup.sampler_name),
        schedule=schedule,
        steps=steps,
        evaluations=evaluations,
        seed=job.seed,
        guidance=job.guidance,
        conditional=isinstance(job.label, tuple),
    )


def _check(samples: Tensor, data: Sets) -> None:
    if samples.shape != data.reals["x"].shape:
        raise ParameterError(
            f"samples have the shape {tuple(samples.shape)}, the data {tuple(data.reals['x'].shape)}"
        )
    bad = (~samples.flatten(1).isfinite()).any(1).nonzero()
    if len(bad):
        raise ParameterError(f"sample {int(bad[0])} has a value that is not finite")
