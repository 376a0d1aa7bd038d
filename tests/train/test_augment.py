"""Augmentation: what is changed, what stays to the bit, and what the network is told of it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import kdiff_core as kd
from kdiff_core.errors import ParameterError, StateError
from kdiff_train.augment import seen
from kdiff_train.warp import warp

NAMES = ("flip", "geometric", "colour", "standard")
F64 = torch.float64
seeds = st.integers(0, 10_000)
sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))


def draw(seed, *shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def batch(seed, n, channels, size, dtype=torch.float32):
    return draw(seed, n, channels, *size).to(dtype) * 2 - 1


def maps(n, rows, move=(0.0, 0.0)):
    """The same map for all images."""
    one = torch.cat([torch.tensor(rows, dtype=F64), torch.tensor(move, dtype=F64)[:, None]], 1)
    return one.expand(n, 2, 3)


# -- laws of all


@pytest.mark.parametrize("name", NAMES)
@given(seed=seeds, size=sizes, channels=st.sampled_from([1, 2, 3]))
@settings(max_examples=15)
def test_told_if_and_only_if_changed(name, seed, size, channels):
    """An image whose vector is zero keeps all its bits; any other was changed."""
    change = kd.get_augmentation(name)
    x, u = batch(seed, 24, channels, size), draw(seed + 1, 24, change.draws)
    out, vector = change(x, u)
    assert out.shape == x.shape
    assert out.dtype == x.dtype
    assert vector.shape == (24, change.size)
    untold = (vector == 0).all(1)
    assert torch.equal(out[untold], x[untold])
    if min(size) > 2:
        same = (out == x).flatten(1).all(1)
        assert torch.equal(same, untold)


@pytest.mark.parametrize("name", NAMES)
@given(seed=seeds, size=sizes)
@settings(max_examples=15)
def test_an_image_is_changed_alone(name, seed, size):
    """What happens to an image is the same bits alone, in a batch, and in a batch of others."""
    change = kd.get_augmentation(name, p=0.5)
    x, u = batch(seed, 6, 3, size), draw(seed + 1, 6, change.draws)
    out, vector = change(x, u)
    for i in range(6):
        alone, told = change(x[i : i + 1], u[i : i + 1])
        assert torch.equal(alone[0], out[i])
        assert torch.equal(told[0], vector[i])
    others, other_u = batch(seed + 2, 6, 3, size), draw(seed + 3, 6, change.draws)
    others[2], other_u[2] = x[2], u[2]
    assert torch.equal(change(others, other_u)[0][2], out[2])


@pytest.mark.parametrize("name", NAMES)
def test_chances(name):
    """Each change happens as often as its chance says, and each normal number has variance one."""
    change = kd.get_augmentation(name, p=0.3)
    u = draw(0, 20_000, change.draws)
    vector = change(torch.zeros(1, 3, 2, 2).expand(20_000, 3, 2, 2), u)[1].double()
    happened = (vector != 0).double().mean(0)
    expected = {
        "flip": [0.3],
        "geometric": [0.5, 0.06] + [0.3] * 7,
        "colour": [0.3] * 3,
        "standard": [0.5, 0.15] + [0.3] * 10,
    }[name]
    torch.testing.assert_close(happened, torch.tensor(expected, dtype=F64), atol=0.015, rtol=0)
    squares = vector.square().sum(0) / (vector != 0).sum(0)
    if name == "colour":
        torch.testing.assert_close(squares, torch.ones(3, dtype=F64), atol=0.06, rtol=0)
    if name == "geometric":
        normal = torch.stack([squares[2], squares[5] + squares[6], squares[7], squares[8]])
        torch.testing.assert_close(normal, torch.ones(4, dtype=F64), atol=0.06, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_numbers_at_the_ends(name):
    """Uniform numbers of 0 and of nearly 1 give finite images."""
    change = kd.get_augmentation(name, p=1.0)
    for u in (0.0, 1 - 2.0**-53):
        out, vector = change(batch(0, 2, 3, (4, 5)), torch.full((2, change.draws), u, dtype=F64))
        assert bool(out.isfinite().all())
        assert bool(vector.isfinite().all())


@pytest.mark.parametrize("name", NAMES)
def test_wrong_batches_are_refused(name):
    """Numbers that do not fit the images, and images that are none, are refused."""
    change = kd.get_augmentation(name)
    for x, shape in (
        (torch.zeros(2, 1, 4, 4), (2, change.draws + 1)),
        (torch.zeros(2, 1, 4, 4), (1, change.draws)),
        (torch.zeros(2, 4, 4), (2, change.draws)),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), (2, change.draws)),
    ):
        with pytest.raises(StateError, match="shape"):
            change(x, torch.zeros(shape))
    with pytest.raises(ParameterError, match="from 0 to 1"):
        kd.get_augmentation(name, p=1.5)


# -- flips


@given(seed=seeds, size=sizes, vertical=st.booleans())
@settings(max_examples=15)
def test_mirrored_twice_is_as_before(seed, size, vertical):
    """Mirroring is exact, and done twice it gives the image back; half of the images are mirrored."""
    change = kd.get_augmentation("flip", vertical=vertical)
    x, u = batch(seed, 8, 3, size), draw(seed + 1, 8, change.draws)
    once, told = change(x, u)
    assert torch.equal(change(once, u)[0], x)
    axes = (3, 2)[: change.size]
    for i in range(8):
        expected = x[i].flip([axis - 1 for axis, done in zip(axes, told[i], strict=True) if done])
        assert torch.equal(once[i], expected)
    assert torch.equal(told, (u < 0.5).float())


# -- geometry


@given(seed=seeds, size=sizes, right=st.integers(-3, 3), down=st.integers(-3, 3))
@settings(max_examples=30)
def test_moves_by_whole_pixels_are_exact(seed, size, right, down):
    """A move by whole pixels takes each pixel to its place, to rounding, square or not."""
    x, (height, width) = batch(seed, 2, 3, size, F64), size
    moved = warp(x, maps(2, [[1.0, 0.0], [0.0, 1.0]], (-right, -down)))
    rows, columns = torch.arange(height) - down, torch.arange(width) - right
    fits = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
    expected = x[:, :, rows.clamp(0, height - 1)][..., columns.clamp(0, width - 1)]
    assert float(((moved - expected) * fits).abs().max()) < 1e-12


@given(seed=seeds, side=st.integers(1, 9), turns=st.integers(0, 3))
@settings(max_examples=30)
def test_quarter_turns_are_exact(seed, side, turns):
    """A turn by multiples of 90 degrees is ``torch.rot90``, from right to down."""
    x = batch(seed, 2, 3, (side, side), F64)
    zero = torch.zeros(2, dtype=F64)
    matrix = seen(zero, zero + turns * math.pi / 2, zero, zero, torch.zeros(2, 2, dtype=F64))
    torch.testing.assert_close(warp(x, matrix), torch.rot90(x, -turns, (2, 3)), atol=1e-12, rtol=0)


@given(seed=seeds, size=sizes)
@settings(max_examples=30)
def test_half_turns_of_any_image_are_exact(seed, size):
    """A turn by 180 degrees of an image that is not square mirrors both axes."""
    x, zero = batch(seed, 1, 2, size, F64), torch.zeros(1, dtype=F64)
    matrix = seen(zero, zero + math.pi, zero, zero, torch.zeros(2, 1, dtype=F64))
    torch.testing.assert_close(warp(x, matrix), x.flip(2, 3), atol=1e-12, rtol=0)


@given(seed=seeds, turn=st.floats(-3, 3), scale=st.floats(-0.7, 0.7), stretch=st.floats(-0.7, 0.7))
@settings(max_examples=30)
def test_maps_undo_what_was_done(seed, turn, scale, stretch):
    """The map leads from a moved place back: it inverts stretch, scale, turn and move, one after another."""
    direction, move = 0.7 + seed, torch.tensor([1.5, -2.0], dtype=F64)

    def rotation(angle):
        return torch.tensor(
            [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=F64
        )

    long = torch.diag(torch.tensor([2.0**stretch, 2.0**-stretch], dtype=F64))
    stretched = rotation(direction) @ long @ rotation(direction).T
    place = torch.tensor([3.0, -1.0], dtype=F64)
    done = rotation(turn) @ (2.0**scale * stretched @ place) + move
    one = [torch.tensor([v], dtype=F64) for v in (scale, turn, stretch, direction)]
    found = seen(*one, move[:, None])[0]
    torch.testing.assert_close(found[:, :2] @ done + found[:, 2], place, atol=1e-10, rtol=0)


def test_an_even_image_stays_even():
    """Whatever is done to it, an image of one value keeps it."""
    change = kd.get_augmentation("geometric", p=1.0)
    x = torch.full((50, 1, 7, 12), 0.3, dtype=F64)
    torch.testing.assert_close(change(x, draw(0, 50, 12))[0], x, atol=1e-12, rtol=0)


@pytest.mark.parametrize("size", [(40, 60), (60, 40)])
def test_a_spot_lands_where_it_should(size):
    """A spot is where the changes take it, in images that are not square, told by the vector alone."""
    height, width = size
    change = kd.get_augmentation("geometric", p=1.0, translate=0.05)
    rows = torch.arange(height, dtype=F64)[:, None] - (height - 1) / 2
    columns = torch.arange(width, dtype=F64) - (width - 1) / 2
    start = torch.tensor([4.0, 3.0], dtype=F64)
    spot = torch.exp(-((columns - start[0]) ** 2 + (rows - start[1]) ** 2) / 8)
    n = 40
    out, told = change(spot.expand(n, 1, height, width), draw(3, n, 12) * 0.6 + 0.2)
    for image, v in zip(out[:, 0], told, strict=True):
        x, y = start * torch.tensor([1 - 2 * v[0], 1 - 2 * v[1]])
        size_n, direction = torch.hypot(v[5], v[6]), torch.atan2(v[6], v[5]) / 2
        axis = torch.stack([direction.cos(), direction.sin()])
        place = torch.stack([x, y])
        along = (place @ axis) * axis
        place = 2 ** (0.2 * size_n) * along + 2 ** (-0.2 * size_n) * (place - along)
        place = place * 2 ** (0.2 * v[2])
        cos, sin = 1 + v[3], v[4]
        place = torch.stack([cos * place[0] - sin * place[1], sin * place[0] + cos * place[1]])
        place = place + 0.05 * torch.stack([v[7] * width, v[8] * height])
        near = image * ((columns - place[0]).square() + (rows - place[1]).square() < 80)
        found = torch.stack([(near * columns).sum(), (near * rows).sum()]) / near.sum()
        torch.testing.assert_close(found, place, atol=0.06, rtol=0)
        assert float(near.max()) > 0.8


def test_shrinking_does_not_alias():
    """Halved, the finest stripes become nearly grey, and coarse ones keep their height."""
    columns = torch.arange(64, dtype=F64) - 31.5
    matrix = maps(1, [[2.0, 0.0], [0.0, 2.0]])

    def height(period):
        stripes = torch.cos(2 * math.pi * columns / period).expand(1, 1, 64, 64)
        # The middle, which shows the image itself, not its mirrored edges.
        return float(warp(stripes, matrix)[..., 20:44, 20:44].abs().max())

    # Read at every second place, stripes of 2.5 pixels would come out at full height.
    assert height(2.5) < 0.35
    assert height(16) > 0.9


def test_options_switch_changes_off():
    """A change of size 0 never happens, and the others stay what they were."""
    u = draw(5, 200, 12)
    x = batch(0, 200, 1, (5, 5))
    full = kd.get_augmentation("geometric", p=0.5)(x, u)[1]
    without = kd.get_augmentation("geometric", p=0.5, rotate=0.0, flip=0.0)(x, u)[1]
    assert float(without[:, [0, 3, 4]].abs().max()) == 0
    assert torch.equal(without[:, [1, 2, 5, 6, 7, 8]], full[:, [1, 2, 5, 6, 7, 8]])


# -- colour and chains


@given(seed=seeds, channels=st.sampled_from([1, 2, 3]))
@settings(max_examples=15)
def test_colour_is_what_is_told(seed, channels):
    """From the vector alone the change can be done again: contrast, then brightness, then saturation."""
    change = kd.get_augmentation("colour", p=0.6)
    x = batch(seed, 16, channels, (3, 4), F64)
    out, told = change(x, draw(seed + 1, 16, 6))
    bright, contrast, saturation = told[..., None, None, None].unbind(1)
    expected = x * 2 ** (0.5 * contrast) + 0.2 * bright
    grey = expected.mean(1, keepdim=True)
    expected = grey + 2**saturation * (expected - grey)
    torch.testing.assert_close(out, expected, atol=1e-12, rtol=0)
    assert channels == 3 or float(saturation.abs().max()) == 0


def test_chains_do_one_after_another():
    """A chain is its parts in order on their own numbers; "standard" is geometry and then colour."""
    parts = kd.get_augmentation("geometric", p=0.4, vertical_flip=0.2), kd.get_augmentation("colour", p=0.4)
    x, u = batch(0, 30, 3, (6, 5)), draw(1, 30, 18)
    first, told = parts[0](x, u[:, :12])
    second, more = parts[1](first, u[:, 12:])
    for chain in (kd.get_augmentation("chain", parts=parts), kd.get_augmentation("standard", p=0.4)):
        out, vector = chain(x, u)
        assert torch.equal(out, second)
        assert torch.equal(vector, torch.cat([told, more], 1))
    named = kd.get_augmentation("chain", parts=["flip", "colour"])
    assert (named.size, named.draws) == (4, 7)
    with pytest.raises(ParameterError, match="give a list"):
        kd.get_augmentation("chain", parts="flip")


def test_half_precision():
    """Images in bfloat16 stay so, and those that are not changed keep their bits."""
    change = kd.get_augmentation("standard")
    x = batch(0, 32, 3, (8, 8), torch.bfloat16)
    out, told = change(x, draw(1, 32, change.draws))
    assert out.dtype == told.dtype == torch.bfloat16
    untold = (told == 0).all(1)
    assert torch.equal(out[untold], x[untold])
