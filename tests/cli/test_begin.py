"""`kdiff sample` from an image, with a mask, a variation and a preview."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from kdiff_core.cli import main
from kdiff_core.manifest import read_manifest


@pytest.fixture
def kdiff(capsys, monkeypatch, tmp_path):
    """Run the command in a folder with a picture and a mask; returns exit status, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("photo", "mask"):
        values = np.zeros((8, 8), np.uint8)
        values[:, :4] = 255
        Image.fromarray(values).save(f"{name}.png")

    def run(*args):
        with pytest.raises(SystemExit) as left:
            main([str(arg) for arg in args])
        return (left.value.code or 0, *capsys.readouterr())

    return run


def test_begins_and_replays(kdiff):
    """The picture keeps what the mask says, its manifest replays it, and a preview is there."""
    options = ("-n", 2, "--steps", 3, "--init", "photo.png", "--mask", "mask.png", "--strength", 0.8)
    varied = ("--variation-seed", 4, "--variation-strength", 0.3)
    assert kdiff("sample", "digits", *options, *varied, "-o", "x.npz", "--preview", "p.png")[0] == 0
    with np.load("x.npz") as found:
        assert (found["samples"][..., 4:] == -1).all()
        assert (found["samples"][..., :4] != 1).any()
    manifest = read_manifest("x.npz")
    assert manifest["strength"] == 0.8
    assert manifest["variation"] == {"seed": 4, "strength": 0.3}
    assert manifest["init"]["file"].endswith("photo.png")
    with Image.open("p.png") as picture:
        assert picture.size == (260, 130)
    assert kdiff("replay", "x.npz")[0] == 0
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("mask.png")
    status, _, errors = kdiff("replay", "x.npz")
    assert status != 0
    assert "mask.png is not what it was" in errors


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--strength", 0.5), "--init"),
        (("--init", "photo.png"), "--strength"),
        (("--init", "wide.png", "--strength", 0.5), "--resize"),
        (("--variation-strength", 0.5), "variation_seed="),
        (("--preview", "p.gif"), ".png"),
        (("--preview", "a.png", "-o", "a.png"), "--output and --preview are both a.png"),
    ],
)
def test_refusals(kdiff, args, message):
    """What does not go together is refused with the option that would be right."""
    Image.fromarray(np.zeros((8, 20), np.uint8)).save("wide.png")
    status, _, errors = kdiff("sample", "digits", "--steps", 2, "-n", 1, *args)
    assert status != 0
    assert message in errors
    assert (
        kdiff("sample", "digits", "--steps", 2, "-n", 1, "--init", "wide.png", "--strength", 1, "--resize")[0]
        == 0
    )
