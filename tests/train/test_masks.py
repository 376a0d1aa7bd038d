"""Masks: their areas, their shapes, and that an image's own numbers decide."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdiff_core.errors import ParameterError, StateError
from kdiff_train.masks import MASKS, Box, Brush, FreeForm, Half, hide

seeds = st.integers(0, 10_000)
sizes = st.tuples(st.integers(1, 20), st.integers(1, 20))


def draw(seed, *shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", MASKS)
@given(seed=seeds, size=sizes)
@settings(max_examples=20)
def test_masks_are_masks(name, seed, size):
    """Each is 0 or 1, hides something, and is the same alone and in a batch, of any height and width."""
    kind = MASKS[name]()
    u = draw(seed, 5, kind.draws)
    masks = kind(u, *size)
    assert masks.shape == (5, 1, *size)
    assert masks.dtype == torch.float32
    assert bool(((masks == 0) | (masks == 1)).all())
    assert bool((masks.sum((1, 2, 3)) > 0).all())
    for i in range(5):
        assert torch.equal(kind(u[i : i + 1], *size)[0], masks[i])


@pytest.mark.parametrize("name", MASKS)
def test_masks_turn_with_their_image(name):
    """Their areas in high and in wide images are alike in the mean: height and width are not mixed up."""
    kind = MASKS[name]()
    u = draw(1, 1000, kind.draws)
    high, wide = (kind(u, *size).mean((1, 2, 3)) for size in ((24, 12), (12, 24)))
    assert abs(float(high.mean() - wide.mean())) < 0.02
    rows, columns = kind(u, 24, 12).mean((0, 1, 3)), kind(u, 24, 12).mean((0, 1, 2))
    assert float((rows - rows.flip(0)).abs().max()) < 0.06
    assert float((columns - columns.flip(0)).abs().max()) < 0.06


@given(seed=seeds, size=st.tuples(st.integers(8, 40), st.integers(8, 40)))
@settings(max_examples=30)
def test_boxes(seed, size):
    """A box is a full rectangle within the image whose area is as meant, to the rounding of its sides."""
    height, width = size
    u = draw(seed, 10, 4)
    for mask, own in zip(Box(0.1, 0.4)(u, height, width)[:, 0], u, strict=True):
        tall, wide = int(mask.any(1).sum()), int(mask.any(0).sum())
        assert float(mask.sum()) == tall * wide
        meant = (0.1 + 0.3 * float(own[0])) * height * width
        assert abs(tall * wide - meant) <= 0.5 * (tall + wide) + 0.25


def test_boxes_of_the_whole_image():
    """An area of 1 hides all."""
    assert float(Box(1.0, 1.0)(draw(0, 20, 4), 5, 7).min()) == 1


@given(size=sizes)
def test_halves(size):
    """The four sides come by quarters of the number; an odd number's middle is hidden."""
    height, width = size
    left, right, top, bottom = Half()(torch.tensor([[0.1], [0.3], [0.6], [0.9]]), height, width)[:, 0]
    assert torch.equal(left.flip(1), right)
    assert torch.equal(top.flip(0), bottom)
    assert float(left.sum()) == height * ((width + 1) // 2)
    assert float(top.sum()) == width * ((height + 1) // 2)
    assert bool((left[:, 0] == 1).all())
    assert bool((top[0] == 1).all())


def test_a_stroke_is_as_thick_as_said():
    """A single level piece covers its length times its thickness and two half discs."""
    brush = Brush(points=2, length=0.5, thickness=0.2)
    # Thickness 0.2 of 100 pixels, from the middle of the left quarter, 50 pixels to the right.
    u = torch.tensor([[1.0, 0.5, 0.25, 1.0, 0.0]], dtype=torch.float64)
    mask = brush(u, 100, 100)[0, 0]
    assert abs(float(mask.sum()) - (50 * 20 + 100 * torch.pi)) < 40
    assert bool(mask[50, 15:84].all())
    assert float(mask[:38].sum() + mask[62:].sum()) == 0


def test_free_forms_are_strokes_and_boxes():
    """More strokes hide more; without box and with one stroke it is that stroke."""
    one = FreeForm(strokes=1, box=0.0)
    u = draw(2, 50, one.draws)
    assert torch.equal(one(u, 20, 30), Brush()(u[:, 6:], 20, 30))
    many = FreeForm(strokes=5, box=1.0)
    assert float(many(draw(2, 50, many.draws), 20, 30).mean()) > float(one(u, 20, 30).mean()) + 0.1


def test_hide():
    """The condition is the mask, then the image with zeros where it is hidden."""
    x = draw(0, 3, 2, 4, 5).float()
    mask = Box()(draw(1, 3, 4), 4, 5)
    out = hide(x, mask)
    assert out.shape == (3, 3, 4, 5)
    assert torch.equal(out[:, :1], mask)
    assert torch.equal(out[:, 1:], torch.where(mask == 1, 0.0, x))


def test_masks_refuse():
    """Attributes out of range and numbers that do not fit are refused."""
    for make in (lambda: Box(0.0, 0.5), lambda: Box(0.6, 0.5), lambda: Brush(points=1), lambda: FreeForm(0)):
        with pytest.raises(ParameterError):
            make()
    with pytest.raises(StateError, match="needed is"):
        Box()(draw(0, 2, 3), 4, 4)
