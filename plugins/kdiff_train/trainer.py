"""The trainer: one loop over the images of a run, whose state can be written and taken up at any update."""

from __future__ import annotations

import copy
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import nn

from kdiff_core.errors import NonFiniteError, ParameterError
from kdiff_core.model_file import write_model
from kdiff_core.names import quoted
from kdiff_core.parameterisations import Parameterised

from . import build, resume
from .batches import Batches, alpha_of
from .config import Config, plain
from .ema import Average, make_profile, put
from .events import Callback, Event, JsonLog, scalars
from .meter import Meter
from .objective import Objective
from .optimizers import make_optimizer
from .rate import make_rate
from .signals import on_signal
from .update import Outcome, Updater


class Summary(NamedTuple):
    """How a run ended.

    Attributes:
        images: Images seen.
        updates: Updates of the weights.
        skipped: Updates that were left out for what was not finite.
        loss: Mean loss since the last report, or None.
        finished: Whether it came to its end; a run that was asked to stop did not.
        model: The model file, or None.
    """

    images: int
    updates: int
    skipped: int
    loss: float | None
    finished: bool
    model: Path | None


class Trainer:
    """A training run. The same config and folder go on where the run was left.

    Args:
        config: The run.
        folder: Where checkpoints, the log and the model are written; None: nowhere.
        callbacks: Each is called with every `kdiff_train.events.Event`.
        resume: Whether to go on from the newest checkpoint in the folder.
        network: In place of the config's model.
        dataset: In place of the config's data set.
        accelerator: In place of one of the config's precision.

    Attributes:
        images: Images seen.
        updates: Updates of the weights.
        skipped: Updates left out.

    Raises:
        ParameterError: The parts do not fit together, or the folder has a checkpoint of another run.
    """

    def __init__(
        self,
        config: Config,
        folder: str | Path | None = None,
        *,
        callbacks: Sequence[Callback] = (),
        resume: bool = True,
        network: nn.Module | None = None,
        dataset: Any = None,
        accelerator: Accelerator | None = None,
    ) -> None:
        self.config, self.folder = config, None if folder is None else Path(folder)
        self.accelerator = build.make_accelerator(config, self.folder) if accelerator is None else accelerator
        if config.batch.size < self.accelerator.num_processes:
            raise ParameterError(
                f"batch.size={config.batch.size} is below the {self.accelerator.num_processes} processes"
            )
        self.dataset = build.make_dataset(config) if dataset is None else dataset
        self.network = build.make_network(config) if network is None else network
        self.about = build.about(self.dataset, self.network)
        self.denoiser_options = build.denoiser_options(config, self.dataset)
        self.images = self.updates = self.skipped = self._skipped_now = 0
        self._stop = False
        self._resume = resume
        self._shadow: Parameterised | None = None
        self.callbacks = list(callbacks)
        self._assemble()

    def _assemble(self) -> None:
        """Put the parts together."""
        config, device = self.config, self.accelerator.device
        self.network.to(device)
        if config.channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        denoiser = build.make_denoiser(self.network, self.denoiser_options, self.about)
        self.density = build.make_density(config, denoiser)
        self.batches = Batches(
            config,
            self.dataset,
            self.density,
            build.make_augmentation(config),
            build.conditions_of(self.network),
            alpha_of(denoiser.path),
        )
        rate = make_rate(config.rate.name, config.images, **config.rate.options)
        profiles = {n: make_profile(e.name, **e.options) for n, e in config.ema.items()}
        self.averages = {name: Average(self.network, profile) for name, profile in profiles.items()}
        chosen = config.optimizer
        optimizer = make_optimizer(
            chosen.name, self.network, lr=chosen.lr, weight_decay=chosen.weight_decay, **chosen.options
        )
        if config.compile:
            self.network.compile()
        self.meter = Meter(self.density, config.log.levels, device)
        objective = Objective(denoiser, build.make_loss(config))
        self.network.train()
        self.updater = Updater(config, self.accelerator, objective, optimizer, self.batches, rate, self.meter)

    # -- running

    def run(self) -> Summary:
        """Train to the end of the run, or until `stop`, or SIGTERM.

        Raises:
            NonFiniteError: Losses or gradients were not finite `patience` times in a row.
            ParameterError: Not even one image fits into memory, with ``micro: auto``.
        """
        self._begin()
        if self.config.batch.micro == "auto":
            self.updater.micro = self.updater.largest_micro()
        samples = self.batches.samples(self.images, self.updater.start, self.updater.share)
        try:
            with on_signal(signal.SIGTERM, self.stop):
                while self.images < self.config.images and not self._asked_to_stop():
                    self._update(samples)
        finally:
            del samples  # ends its workers
        return self._end()

    def stop(self) -> None:
        """Ask the run to end after the update it is at; a checkpoint is written."""
        self._stop = True

    def _asked_to_stop(self) -> bool:
        """Whether any process was asked to: all of them stop at the same update."""
        if self.accelerator.num_processes == 1:
            return self._stop
        asked = torch.tensor([float(self._stop)], device=self.accelerator.device)
        return bool(self.accelerator.reduce(asked, "sum") > 0)

    def _begin(self) -> None:
        main = self.accelerator.is_main_process
        if self.folder is not None and main:
            self.folder.mkdir(parents=True, exist_ok=True)
        found = resume.load(self) if self._resume and self.folder is not None else None
        if self.folder is not None and main:
            log = JsonLog(self.folder / "log.jsonl")
            log.cut(self.images)
            self.callbacks.insert(0, log)
        if self.config.log.trackers and main:
            self.accelerator.init_trackers(self.config.log.project)
        self.meter.began = time.perf_counter()
        self._tell("start" if found is None else "resume", found or {"config": plain(self.config)})

    def _update(self, samples: Iterator[Any]) -> None:
        before = self.images
        outcome = self.updater(before, next(samples))
        self.images += self.config.batch.size
        if outcome.message:
            self._skip(outcome)
        else:
            self.updates += 1
            self._skipped_now = 0
        for average in self.averages.values():
            average.update(self.network, before, self.images)
        values = {"loss": outcome.loss, "lr": outcome.lr, "gradient_norm": outcome.norm}
        self._tell("update", values)
        self._now_and_then(before, outcome)

    def _now_and_then(self, before: int, outcome: Outcome) -> None:
        """Report, draw, write, where it is time to."""
        config = self.config

        def due(every: int | None) -> bool:
            return every is not None and self.images // every > before // every

        if due(config.log.every):
            self._report(outcome)
        if due(config.samples.every) and self.images < config.images:
            self._tell("samples", {})
        if due(config.checkpoint.snapshots):
            resume.snapshot(self)
        if due(config.checkpoint.every) and self.images < config.images:
            self.save()

    def _skip(self, outcome: Outcome) -> None:
        self.skipped += 1
        self._skipped_now += 1
        self._tell("skip", {"message": outcome.message, "in_a_row": self._skipped_now})
        if self._skipped_now >= self.config.patience:
            raise NonFiniteError(
                f"training stopped at image {self.images}: {self._skipped_now} updates in a row were not "
                f"finite. In the last one {outcome.message}. Try a lower learning rate or a longer warm-up; "
                f"precision is {self.config.precision!r}, and 'bf16' or 'no' overflow less than 'fp16'; look "
                "at the samples that are named"
            )

    def _report(self, outcome: Outcome) -> None:
        sums = self.meter.sums
        gathered = sums if self.accelerator.num_processes == 1 else self.accelerator.reduce(sums, "sum")
        values = self.meter.report(gathered)
        values |= {"lr": outcome.lr, "updates": self.updates, "skipped": self.skipped}
        values["gradient_noise_scale"] = self.updater.noise_scale.value
        self._loss = values["loss"]
        if self.config.log.trackers:
            self.accelerator.log(scalars(values), step=self.images)
        self._tell("log", values)

    def _end(self) -> Summary:
        finished = self.images >= self.config.images
        model = None
        if self.folder is not None:
            self.save()
            if finished:
                model = self.folder / "model.safetensors"
                self.write_model(model)
        if finished:
            self._tell("samples", {})
        self._tell("end", {"model": model, "finished": finished})
        if self.config.log.trackers:
            self.accelerator.end_training()
        return Summary(self.images, self.updates, self.skipped, self._loss, finished, model)

    _loss: float | None = None

    def _tell(self, kind: str, values: Any) -> None:
        """Tell those who watch, in the main process; the others wait where that may take long."""
        if self.accelerator.is_main_process:
            event = Event(kind, self.images, values, self)
            for callback in self.callbacks:
                callback(event)
        if kind == "samples":
            self.accelerator.wait_for_everyone()

    # -- what it makes

    def save(self) -> None:
        """Write a checkpoint now; see `kdiff_train.checkpoint`."""
        path = resume.save(self)
        self._tell("checkpoint", {"path": path})

    def denoiser(self, ema: str | None = None) -> Parameterised:
        """Return the denoiser of an average's weights, in eval mode: another network than is trained.

        Args:
            ema: Name of the average. Default: the first; the newest weights where there is none.

        Raises:
            ParameterError: There is no such average.
        """
        if self._shadow is None:
            network = copy.deepcopy(self.network).eval().requires_grad_(False)
            self._shadow = build.make_denoiser(network, self.denoiser_options, self.about)
        put(self._shadow.network, self._weights(ema))  # type: ignore[arg-type]
        return self._shadow

    def _weights(self, ema: str | None) -> Any:
        if ema is None and not self.averages:
            return self.network.state_dict()
        name = next(iter(self.averages)) if ema is None else ema
        if name not in self.averages:
            raise ParameterError(f"there is no average {name!r}; there are {quoted(self.averages) or 'none'}")
        return self.averages[name].tensors

    def write_model(self, file: str | Path, ema: str | None = None) -> None:
        """Write the model file of an average's weights; see `kdiff_core.model_file`.

        Args:
            file: Where.
            ema: As in `denoiser`.
        """
        if not self.accelerator.is_main_process:
            return
        network: Any = self.denoiser(ema).network
        record = {
            "images": self.images,
            "updates": self.updates,
            "skipped": self.skipped,
            "loss": self._loss,
            "ema": ema or next(iter(self.averages), None),
            "config": plain(self.config),
        }
        write_model(file, network, self.denoiser_options, self.about, record)
