"""A small classifier of real data, whose features tell sets of images apart: trained once, then kept."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from kdiff_core.errors import ParameterError
from kdiff_core.files import write_whole
from kdiff_core.lookup import get_dataset
from kdiff_core.training import Dataset

from ..cache import cache_folder
from ..data.loading import take
from ..keys import order

WIDTH = 64  # numbers in a vector of features
BATCH, RATE = 32, 4e-3
RECIPE = f"3 convolutions of 16, 32, 32; {WIDTH} features; Adam {RATE}, batch {BATCH}; 1"


class Network(nn.Module):
    """Three convolutions and two layers; the features are what the last one gets.

    Args:
        channels: Of the images.
        classes: Number of classes.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(32, 32, 3, stride=2, padding=1),
            nn.GELU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(512, WIDTH),
            nn.GELU(),
        )
        self.last = nn.Linear(WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, ``(B, classes)``."""
        logits: Tensor = self.last(self.body(x))
        return logits


@frozen(eq=False)
class ClassifierFeatures:
    """The penultimate features of a classifier of real data, ``(B, 64)``.

    Attributes:
        name: Of the data.
        network: The classifier, in eval mode.
        sha256: Hash of its weights. Training gives other bits on another machine or torch: compare scores
            only where it is the same.
    """

    name: str
    network: Network
    sha256: str

    def __call__(self, x: Tensor) -> Tensor:
        """Return the features of images."""
        found: Tensor = self.network.body(x)
        return found

    def accuracy(self, x: Tensor, label: Tensor) -> float:
        """Return the share of images whose class is found."""
        with torch.no_grad():
            return float((self.network(x).argmax(1) == label).double().mean())

    def to(self, device: Any) -> ClassifierFeatures:
        """Return it on a device; it is moved."""
        return ClassifierFeatures(self.name, self.network.to(device), self.sha256)


def classifier(
    data: Any, options: dict[str, Any] | None = None, images: int = 30_000, seed: int = 0
) -> ClassifierFeatures:
    """Return the features of a classifier of a data set, trained now unless the user's cache has it.

    Training takes seconds for small images, on one thread, and draws no number from the global state.

    Args:
        data: A data set with classes, or its name, which `options` go with. Give what is trained on, not
            what is held out.
        options: Options of the data set.
        images: Images that it is trained on, counting each as often as it comes.
        seed: Of the weights and of the order.

    Raises:
        ParameterError: The data set has no classes, or no images.
    """
    from safetensors.torch import load, save

    dataset: Dataset = get_dataset(data, **(options or {}))
    classes, shape = getattr(dataset, "classes", None), tuple(dataset[0]["x"].shape)
    if classes is None or len(shape) != 3:
        raise ParameterError(f"classifier: {dataset!r:.60} has no images with classes")
    own = getattr(dataset, "fingerprint", repr(dataset))
    text = f"{RECIPE}|{images}|{seed}|{torch.__version__}|{own}"
    place = cache_folder("features")
    file = place / f"{hashlib.sha256(text.encode()).hexdigest()}.safetensors"
    network = _new(shape[0], classes, seed)
    if file.is_file():
        network.load_state_dict(load(file.read_bytes()))
    else:
        _train(network, take(dataset, range(len(dataset))), images, seed)
        place.mkdir(parents=True, exist_ok=True)
        write_whole(file, save(network.state_dict()))
    name = data if isinstance(data, str) else getattr(dataset, "name", type(dataset).__name__)
    return ClassifierFeatures(f"{name}-classifier", network.eval(), _hash(network))


def _new(channels: int, classes: int, seed: int) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network(channels, classes)


def _train(network: Network, data: dict[str, Tensor], images: int, seed: int) -> None:
    """Train; the rate falls to 0 in a straight line."""
    optimiser = torch.optim.Adam(network.parameters(), lr=RATE)
    for first in range(0, images, BATCH):
        for group in optimiser.param_groups:
            group["lr"] = RATE * (1 - first / images)
        chosen = order(seed, len(data["x"]), first, BATCH, "classifier")
        loss = nn.functional.cross_entropy(network(data["x"][chosen]), data["label"][chosen])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()


def _hash(network: Network) -> str:
    found = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        found.update(name.encode() + value.numpy().tobytes())
    return found.hexdigest()
