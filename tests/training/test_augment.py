"""Laws of augmentation, and that its draws come from the trial's stream of the epoch alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gridsearch.training.augment import AUGMENTATIONS, EpochAugment, draw, erase, flip, shift
from gridsearch.training.randaugment import OPERATIONS, RandAugment, draw_operations, rand_augment
from gridsearch.zoo import torchvision

CPU = torch.device("cpu")


def pixels(batch=5, height=9, width=7, channels=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 256, (batch, height, width, channels), generator=generator).to(torch.uint8)


masks = st.lists(st.booleans(), min_size=5, max_size=5).map(torch.tensor)
moves = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=5, max_size=5).map(torch.tensor)


@given(mask=masks)
def test_a_flip_is_its_own_inverse_and_touches_the_chosen_images_alone(mask):
    before = pixels()
    once = flip(before, mask)
    assert torch.equal(flip(once, mask), before)
    for image, changed, chosen in zip(before, once, mask, strict=True):
        assert torch.equal(changed, image.flip(1) if chosen else image)


@given(move=moves)
def test_a_shift_moves_each_image_by_its_own_pixels_and_lets_black_in(move):
    before = pixels()
    after = shift(before, move)
    _, height, width, _ = before.shape
    for image, moved, (down, right) in zip(before, after, move.tolist(), strict=True):
        for row in range(height):
            for column in range(width):
                y, x = row - down, column - right
                inside = 0 <= y < height and 0 <= x < width
                expected = image[y, x].tolist() if inside else [0, 0]
                assert moved[row, column].tolist() == expected


@given(move=moves)
def test_shifting_back_restores_the_middle(move):
    before = pixels()
    back = shift(shift(before, move), -move)
    assert torch.equal(back[:, 3:-3, 3:-3], before[:, 3:-3, 3:-3])


def test_erasing_blackens_the_box_and_nothing_else():
    before = pixels(batch=2)
    after = erase(before, torch.tensor([[2, 5, 1, 4], [0, 0, 0, 0]]))
    expected = before.clone()
    expected[0, 2:5, 1:4] = 0
    assert torch.equal(after, expected)


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_a_batch_is_changed_as_if_the_whole_epoch_were_one_batch(kind):
    drawn = draw(kind, seed=1, epoch=1, count=20, image_size=(9, 7), device=CPU)
    if kind == "none":
        assert drawn is None
        return
    whole = pixels(batch=20)
    parts = [drawn.apply(whole[i : i + 6].clone(), i) for i in range(0, 20, 6)]
    assert torch.equal(torch.cat(parts), drawn.apply(whole.clone(), 0))
    assert not torch.equal(torch.cat(parts), whole)


def test_the_source_images_stay_as_they_are():
    whole = pixels(batch=20)
    kept = whole.clone()
    for kind in AUGMENTATIONS[1:]:
        draw(kind, seed=1, epoch=1, count=20, image_size=(9, 7), device=CPU).apply(whole, 0)
        assert torch.equal(whole, kept), kind


@pytest.mark.parametrize("kind", AUGMENTATIONS[1:])
def test_draws_follow_from_seed_and_epoch_alone(kind):
    def drawn(seed, epoch) -> list:
        found = draw(kind, seed=seed, epoch=epoch, count=50, image_size=(9, 7), device=CPU)
        return [None if t is None else t.tolist() for t in found._all()]

    torch.manual_seed(3)
    assert drawn(1, 2) == drawn(1, 2)
    assert drawn(1, 2) != drawn(1, 3)
    assert drawn(1, 2) != drawn(2, 2)


def test_draws_have_the_documented_ranges_and_rates():
    count, height, width = 4000, 32, 28
    both = draw("flip+shift", seed=0, epoch=1, count=count, image_size=(height, width), device=CPU)
    assert both.flips.double().mean().item() == pytest.approx(0.5, abs=0.04)
    assert [both.shifts[:, i].unique().tolist() for i in (0, 1)] == [list(range(-4, 5)), list(range(-3, 4))]
    boxes = draw("erase", seed=0, epoch=1, count=count, image_size=(height, width), device=CPU).boxes
    top, bottom, left, right = boxes.unbind(1)
    assert (top >= 0).all()
    assert (bottom <= height).all()
    assert (left >= 0).all()
    assert (right <= width).all()
    area = ((bottom - top) * (right - left)).double() / (height * width)
    assert (area > 0).double().mean().item() == pytest.approx(0.5, abs=0.04)
    assert area.max() < 0.37
    assert area[area > 0].mean().item() == pytest.approx((0.02 + 1 / 3) / 2, rel=0.06)


def test_tiny_images_are_shifted_by_one_pixel_at_least():
    drawn = draw("shift", seed=0, epoch=1, count=99, image_size=(3, 3), device=CPU)
    assert drawn.shifts.unique().tolist() == [-1, 0, 1]


def test_floating_pixels_are_changed_like_bytes():
    drawn = EpochAugment(
        flips=torch.tensor([True]), shifts=torch.tensor([[1, -2]]), boxes=torch.tensor([[0, 2, 0, 2]])
    )
    raw = pixels(batch=1)
    assert torch.equal(drawn.apply(raw.float(), 0), drawn.apply(raw, 0).float())


def words(name):
    return name.title().replace("_", "")


@pytest.mark.parametrize("channels", [1, 3])
def test_each_operation_of_randaugment_is_torchvision_s_to_the_byte(channels):
    """Either way; torchvision's factors are rounded to single precision, and may cut a number to the byte beside it."""
    torchvision.load()
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.autoaugment import RandAugment as Theirs
    from torchvision.transforms.autoaugment import _apply_op

    low = torch.rand(60, channels, 5, 6, generator=torch.Generator().manual_seed(1))
    images = (torch.nn.functional.interpolate(low, size=(17, 20), mode="bilinear") * 220 + 20).to(torch.uint8)
    space = Theirs()._augmentation_space(31, (17, 20))
    for magnitude in (0, 9, 30):
        drawn = draw_operations(
            60, RandAugment(1, magnitude), (17, 20), torch.Generator().manual_seed(magnitude)
        )
        ours = rand_augment(images.permute(0, 2, 3, 1), *drawn).permute(0, 3, 1, 2)
        assert set(drawn[0].flatten().tolist()) == set(range(14))
        for image, changed, (number,), (strength,) in zip(
            images, ours, *(d.tolist() for d in drawn), strict=True
        ):
            name = words(OPERATIONS[number])
            values, signed = space[name]
            wanted = float(values[magnitude]) if values.ndim else 0.0
            wanted = -wanted if signed and strength < 0 else wanted
            theirs = _apply_op(image, name, wanted, InterpolationMode.NEAREST, None)
            slack = name in ("Brightness", "Color", "Contrast", "Sharpness")
            assert (changed.int() - theirs.int()).abs().max() <= slack, (name, strength, wanted)


def test_randaugment_draws_each_operation_as_often_and_each_way_as_often():
    numbers, strengths = draw_operations(9000, RandAugment(2, 10), (8, 8), torch.Generator().manual_seed(0))
    counts = torch.bincount(numbers.flatten(), minlength=14)
    assert (counts - 18000 / 14).abs().max() < 5 * (18000 / 14) ** 0.5
    turned = strengths[numbers == OPERATIONS.index("rotate")]
    assert set(turned.tolist()) == {10.0, -10.0} and abs(turned.mean()) < 1
    assert (strengths[numbers == OPERATIONS.index("posterize")] == 7).all()


def test_lanes_that_want_more_operations_draw_the_same_first_ones():
    one, three = (
        draw_operations(50, RandAugment(n, 9), (8, 8), torch.Generator().manual_seed(4))[0] for n in (1, 3)
    )
    assert torch.equal(one, three[:, :1])


def test_images_kept_as_fractions_are_changed_as_bytes_are_but_for_the_cut():
    whole = pixels(batch=40, height=9, width=8, channels=3)
    numbers = (torch.arange(40) % 14).view(-1, 1)
    strengths = draw_operations(40, RandAugment(1, 12), (9, 8), torch.Generator().manual_seed(0))[1].abs()
    strengths = torch.where(numbers == OPERATIONS.index("posterize"), 6.0, strengths.clamp(max=0.9))
    bytes_ = rand_augment(whole, numbers, strengths)
    fractions = rand_augment(whole.float() / 255, numbers, strengths)
    assert (fractions * 255 - bytes_).abs().max() <= 1.5  # sharpness rounds its blur to bytes, and cuts
