"""Everything in one run, three times: all conditions; magnitudes kept; a flow in latents."""

from __future__ import annotations

import io
import json
import tarfile

import pytest
import torch

pytest.importorskip("accelerate")

import kdiff_core as kd
from kdiff_train.config_file import make_config, read_config
from kdiff_train.trainer import Trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*lr_scheduler.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

UNET = {
    "name": "unet-tiny",
    "cross_attention": [False, True],
    "dropout": 0.1,
    "conditions": {
        "label": {"kind": "class", "classes": 3},
        "vector": {"kind": "vector", "size": 2},
        "tokens": {"kind": "tokens", "size": 5},
        "concat": {"kind": "concat", "channels": 2},
        "augment": {"kind": "vector", "size": 12},
        "previous": {"kind": "concat", "channels": 1},
    },
}


def pictures(n=6, side=8):
    """Images of a light bar, whose place is the class."""
    x = -torch.ones(n, 1, side, side)
    for k in range(n):
        x[k, :, :, 2 * (k % 3) : 2 * (k % 3) + 3] = 1
    return x


def run(values, folder, dataset=None):
    """Train, and return the trainer, the reports and the run's end."""
    config = make_config(
        {
            "optimizer": {"lr": 2e-3},
            "rate": "constant",
            "batch": {"size": 12, "micro": 6},
            "log": {"every": 96},
            **values,
        }
    )
    reports = []
    trainer = Trainer(
        config, folder, dataset=dataset, callbacks=[lambda e: e.kind == "log" and reports.append(e.values)]
    )
    return trainer, reports, trainer.run()


def learns(reports, below):
    """Whether all reports are of finite numbers, and the last loss is below a share of the first."""
    losses = [each["loss"] for each in reports]
    assert torch.tensor(losses).isfinite().all()
    assert reports[-1]["skipped"] == 0
    assert losses[-1] < below * losses[0], losses


def test_all_conditions(tmp_path):
    """A UNet with every condition, in bf16, learns; each of them changes what its model file gives."""
    generator = torch.Generator().manual_seed(0)
    base = kd.get_dataset(
        "arrays",
        data=pictures(),
        labels=[0, 1, 2, 0, 1, 2],
        conditions={
            "vector": torch.eye(3)[:, :2].repeat(2, 1),
            "tokens": torch.randn(6, 4, 5, generator=generator),
            "token_mask": torch.arange(4) < torch.tensor([1, 2, 3, 4, 1, 2])[:, None],
        },
    )
    holes = kd.get_dataset("inpainting", data=base, variants=4, augmentation="standard")
    values = {
        "model": UNET,
        "drop": {"label": 0.2, "vector": 0.2, "tokens": 0.2, "concat": 0.2},
        "self_conditioning": 0.5,
        "precision": "bf16",
        "checkpointing": True,
        "channels_last": True,
        "images": 480,
    }
    _, reports, done = run(values, tmp_path, holes)
    learns(reports, 0.9)
    found = kd.sample(str(done.model), n=3, steps=3, label=[0, 1, -1], guidance=2.0)
    assert found.shape == (3, 1, 8, 8)
    assert found.isfinite().all()
    denoiser = kd.get_denoiser(str(done.model))
    x, sigma = torch.randn(1, 1, 8, 8, generator=generator), torch.tensor([1.0])
    cond = {k: torch.as_tensor(v)[None] for k, v in holes[3].items() if k != "x"}
    cond |= {"augment": torch.ones(1, 12), "previous": torch.ones(1, 1, 8, 8)}
    assert {*cond} == {*UNET["conditions"], "token_mask"}
    with torch.no_grad():
        whole = denoiser(x, sigma, **cond)
        for name in UNET["conditions"]:
            less = denoiser(x, sigma, **{k: v for k, v in cond.items() if k != name})
            assert not torch.equal(whole, less), name


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """A tar file as webdataset reads it."""
    image = pytest.importorskip("PIL.Image")
    root = tmp_path_factory.mktemp("shards")
    with tarfile.open(root / "bars-000.tar", "w") as tar:
        for k, x in enumerate(pictures()):
            out = io.BytesIO()
            image.fromarray(((x[0] + 1) * 127.5).byte().numpy()).save(out, "PNG")
            for kind, content in (("png", out.getvalue()), ("cls", str(k % 3).encode())):
                member = tarfile.TarInfo(f"bar{k}.{kind}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return {"shards": str(root / "bars-{000..000}.tar"), "label": "cls", "channels": 1}


def test_magnitudes_and_uncertainty(shards, tmp_path):
    """The network that keeps magnitudes and EDM2's loss learn from shards of a config file; so does u."""
    values = {
        "model": {
            "name": "magnitude",
            "in_channels": 1,
            "channels": [16, 16],
            "depths": [1, 1],
            "head_dim": 16,
            "logvar": True,
            "conditions": {
                "label": {"kind": "class", "classes": 3},
                "augment": {"kind": "vector", "size": 12},
            },
        },
        "data": {"dataset": {"name": "webdataset", **shards}},
        "augmentation": "standard",
        "loss": "edm2",
        "density": {"name": "lognormal", "mean": -0.4, "std": 1.0},
        "drop": {"label": 0.1},
        "optimizer": {"lr": 1e-2},
        "rate": {"name": "inverse_sqrt", "reference": 300},
        "ema": {"ema": {"name": "power", "std": 0.1}},
        "batch": {"size": 12, "micro": 6},
        "images": 768,
        "log": {"every": 96},
    }
    (tmp_path / "run.json").write_text(json.dumps(values))
    reports = []
    trainer = Trainer(
        read_config(tmp_path / "run.json"),
        tmp_path / "run",
        callbacks=[lambda e: e.kind == "log" and reports.append(e.values)],
    )
    before = trainer.network.logvar(torch.zeros(1)).item()
    done = trainer.run()
    learns(reports, 0.8)
    assert trainer.network.logvar(torch.zeros(1)).item() < before - 0.1
    found = kd.sample(str(done.model), n=3, steps=3, label=[0, 1, 2], guidance=1.5, sampler="heun")
    assert found.isfinite().all()


def test_a_flow_in_latents(shards, tmp_path):
    """A transformer learns a flow in the latents of a VAE of shards; its samples decode to images."""
    diffusers = pytest.importorskip("diffusers")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = diffusers.AutoencoderKL(
            in_channels=1, out_channels=1, block_out_channels=(8, 8), norm_num_groups=4, latent_channels=2,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        )  # fmt: skip
    vae.save_pretrained(tmp_path / "vae")
    values = {
        "model": {
            "name": "transformer",
            "in_channels": 2,
            "patch_size": 1,
            "channels": 32,
            "depth": 2,
            "head_dim": 16,
            "conditions": {"label": {"kind": "class", "classes": 3}},
        },
        "denoiser": {"prediction": "flow"},
        "data": {
            "dataset": {
                "name": "latents",
                "data": "webdataset",
                "options": shards,
                "encoder": str(tmp_path / "vae"),
                "folder": str(tmp_path / "latents"),
                "progress": False,
            }
        },
        "loss": "flow",
        "density": "logit_normal",
        "drop": {"label": 0.1},
        "images": 960,
    }
    trainer, reports, done = run(values, tmp_path / "run")
    learns(reports, 0.9)
    latents = kd.sample(str(done.model), n=2, steps=4, label=[0, 2], guidance=2.0)
    assert latents.shape == (2, 2, 4, 4)
    with torch.no_grad():
        assert trainer.dataset.decode(latents).shape == (2, 1, 8, 8)
