"""One update of the weights: micro-batches, gradients, clipping, and what to do about what is not finite."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from . import keys
from .batches import Batch, Batches
from .config import Config
from .gradients import NoiseScale, squared_norm
from .meter import Meter
from .micro import largest
from .objective import Objective
from .rate import Rate


class Outcome(NamedTuple):
    """What became of an update.

    Attributes:
        loss: Mean over the batch.
        norm: Norm of the gradients, before they were cut.
        lr: Learning rate.
        message: Why the update was skipped; empty where it was not.
    """

    loss: float
    norm: float
    lr: float
    message: str


class Updater:
    """Updates the weights of a network, batch by batch.

    Args:
        config: The run.
        accelerator: Device, processes and precision.
        objective: The network and its loss.
        optimizer: What updates the weights.
        batches: Makes the batches.
        rate: The learning rate by images seen.
        meter: What is measured.
    """

    def __init__(
        self,
        config: Config,
        accelerator: Accelerator,
        objective: Objective,
        optimizer: Any,
        batches: Batches,
        rate: Rate,
        meter: Meter,
    ) -> None:
        self.config, self.accelerator, self.batches, self.rate = config, accelerator, batches, rate
        self.network: nn.Module = objective.network
        self.parameters = [p for p in self.network.parameters() if p.requires_grad]
        self.objective, self.optimizer = accelerator.prepare(objective, optimizer)
        for group in self.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.meter, self.noise_scale = meter, NoiseScale()
        size, processes = config.batch.size, accelerator.num_processes
        self.start = size * accelerator.process_index // processes
        self.share = size * (accelerator.process_index + 1) // processes - self.start
        self.micro = (
            min(config.batch.micro, self.share) if isinstance(config.batch.micro, int) else self.share
        )

    def __call__(self, images: int, samples: Mapping[str, Tensor]) -> Outcome:
        """Update the weights.

        Args:
            images: Images seen before.
            samples: This process's share of the samples of the batch.
        """
        lr = self._set_rate(images + self.config.batch.size)
        losses: list[tuple[Batch, Tensor]] = []
        small: Tensor | None = None
        parts = list(self._micro_batches(images + self.start, samples))
        for number, batch in enumerate(parts):
            last = number == len(parts) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.objective):
                values = self.backward(batch)
            losses.append((batch._replace(x0=batch.x0[:0], noise=batch.noise[:0], cond={}), values))
            if number == 0 and not last and self.config.log.gradient_noise:
                small = squared_norm(self.parameters)
        norm = self._clip()
        total = torch.stack([values.sum() for _, values in losses]).sum()
        found = torch.stack([total.float(), norm.to(total.device, torch.float32)])
        if self.accelerator.num_processes > 1:
            found[0] = self.accelerator.reduce(found[:1].clone(), "sum")[0]
        total_loss, size = found.tolist()  # the only wait for the device
        message = self._step(total_loss, size, losses)
        if not message:
            self._measure(small, size, parts[0].x0.shape[0], losses)
        return Outcome(total_loss / self.config.batch.size, size, lr, message)

    def backward(self, batch: Batch) -> Tensor:
        """Add a micro-batch's part to the gradients, and return the losses of its samples.

        What draws from torch's generator, such as dropout, draws what the number of its first image says.
        """
        with keys.seeded(self.config.seed, "network", batch.first, batch.x0.device):
            with self.accelerator.autocast():
                values: Tensor = self.objective(batch)
            # Gradients are averaged over processes.
            part = values.sum() * (self.accelerator.num_processes / self.config.batch.size)
            self.accelerator.backward(part)
        return values.detach()

    def attempt(self, count: int) -> None:
        """Do with `count` images what an update does, but for the step, to see whether memory suffices."""
        held = [torch.empty_like(p) for p in self.parameters for _ in range(2)]  # as Adam's averages will be
        try:
            self.backward(self.batches.at(0, count, self.accelerator.device))
        finally:
            self.optimizer.zero_grad(set_to_none=True)
            del held

    def largest_micro(self) -> int:
        """Return the largest micro-batch that fits into memory on every process.

        Raises:
            ParameterError: Not even one image fits.
        """
        found = largest(self.attempt, self.share)
        if self.accelerator.num_processes == 1:
            return found
        there = torch.tensor([found], device=self.accelerator.device)
        return int(self.accelerator.gather(there).min())

    def _micro_batches(self, first: int, samples: Mapping[str, Tensor]) -> Iterator[Batch]:
        for start in range(0, self.share, self.micro):
            part = {name: value[start : start + self.micro] for name, value in samples.items()}
            batch = self.batches.make(first + start, part, self.accelerator.device)
            if self.config.channels_last and batch.x0.ndim == 4:
                batch = batch._replace(x0=batch.x0.contiguous(memory_format=torch.channels_last))
            yield batch

    def _set_rate(self, images: int) -> float:
        factor = self.rate(images)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        return self.config.optimizer.lr * factor

    def _clip(self) -> Tensor:
        limit = self.config.optimizer.clip
        self.accelerator.unscale_gradients()
        grads = [p.grad for p in self.parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads)
        if limit is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, limit, norm)
        return norm

    def _step(self, loss: float, norm: float, losses: list[tuple[Batch, Tensor]]) -> str:
        """Update the weights if loss and gradients are finite; else return what was not."""
        finite = math.isfinite(loss) and math.isfinite(norm)
        scaler = self.accelerator.scaler
        if finite:
            self.optimizer.step()
        elif scaler is not None:
            scaler.update(scaler.get_scale() * scaler.get_backoff_factor())
        self.optimizer.zero_grad(set_to_none=True)
        return "" if finite else self._diagnosis(loss, norm, losses)

    def _diagnosis(self, loss: float, norm: float, losses: list[tuple[Batch, Tensor]]) -> str:
        lines = [f"the loss is {loss / self.config.batch.size:.4g}, the norm of the gradients {norm:.4g}"]
        for batch, values in losses:
            for k in (~values.isfinite()).nonzero()[:3, 0].tolist():
                lines.append(
                    f"image {batch.first + k} of the run (sample {int(batch.sample[k])} of the data) has the "
                    f"loss {float(values[k]):.4g} at sigma = {float(batch.sigma[k]):.4g}"
                )
        if len(lines) == 1:
            worst = max(((b, v, int(v.argmax())) for b, v in losses), key=lambda each: float(each[1].max()))
            batch, values, k = worst
            lines.append(
                f"the loss of each image is finite, the largest {float(values[k]):.4g} at "
                f"sigma = {float(batch.sigma[k]):.4g} (sample {int(batch.sample[k])} of the data)"
            )
        return "; ".join(lines[:4])

    def _measure(
        self, small: Tensor | None, norm: float, first: int, losses: list[tuple[Batch, Tensor]]
    ) -> None:
        for batch, values in losses:
            self.meter.add(values, batch.u)
        self.meter.update(norm, self.config.batch.size)
        if small is None:
            return
        scaler, processes = self.accelerator.scaler, self.accelerator.num_processes
        # As gradients of the mean over the micro-batch, not scaled for half precision.
        factor = self.config.batch.size / first / processes / (scaler.get_scale() if scaler else 1.0)
        square = small * factor**2
        if processes > 1:
            square = self.accelerator.reduce(square, "mean")
        self.noise_scale.update(float(square), norm**2, first, self.config.batch.size)
