"""Images on the device are the dataset's images, normalized as the interface says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from gridsearch.plugins import ImageData
from gridsearch.training.pixel_tensors import resident_pixels
from gridsearch.training.resident_data import ResidentCache, ResidentData

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def images(channels=3, *, floating=False, test=True):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (24, channels, 6, 5), dtype=np.uint8)
    labels = np.arange(24) % 3
    if floating:
        pixels = (pixels / 255).astype(np.float32)
    return ImageData(
        train_images=pixels,
        train_labels=labels,
        test_images=pixels[:3] if test else None,
        test_labels=labels[:3] if test else None,
        class_names=("a", "b", "c"),
    )


def resident(data, **changes) -> ResidentData:
    return ResidentData.build(data, **{"val": 0.25, "split_seed": 0} | changes)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("floating", [False, True])
def test_batches_are_the_images_scaled_to_one(channels, floating, layout):
    data = images(channels, floating=floating)
    found = resident(data)
    chosen = torch.tensor([5, 0, 5])
    batch = found.batches(norm="none", dtype=torch.float32, memory_format=layout)(chosen)
    expected = torch.from_numpy(data.train_images[[5, 0, 5]])
    expected = expected if floating else expected.float() / 255  # what torchvision's ToTensor does
    assert torch.equal(batch, expected)
    assert batch.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("floating", [False, True])
def test_standard_takes_mean_and_deviation_of_the_images_to_train_on(channels, floating):
    found = resident(images(channels, floating=floating))
    batch = found.batches(norm="standard", dtype=torch.float64, memory_format=torch.contiguous_format)
    of_train = batch(found.train)
    assert of_train.mean((0, 2, 3)).tolist() == pytest.approx([0.0] * channels, abs=1e-6)
    assert of_train.std((0, 2, 3), correction=0).tolist() == pytest.approx([1.0] * channels, rel=1e-6)
    assert batch(found.val).mean().abs().item() > 1e-3


def test_statistics_are_those_of_numpy():
    data = images()
    found = resident(data)
    pixels = data.train_images[found.split.train] / 255
    assert found.mean == pytest.approx(pixels.mean((0, 2, 3)), rel=1e-12)
    assert found.std == pytest.approx(pixels.std((0, 2, 3)), rel=1e-12)


@pytest.mark.parametrize("value", [0, 77, 255])
@pytest.mark.parametrize("floating", [False, True])
def test_a_channel_without_variation_becomes_zero_not_nan(value, floating):
    data = images(floating=floating)
    data.train_images[:, 1] = value / 255 if floating else value
    found = resident(data)
    batch = found.batches(norm="standard", dtype=torch.float32, memory_format=torch.channels_last)
    assert batch(found.train)[:, 1].abs().max().item() < 1e-6
    assert batch(found.train).isfinite().all()


def test_making_a_batch_leaves_the_resident_images_alone():
    for floating in (False, True):
        found = resident(images(1, floating=floating))
        kept = found.pixels.clone()
        for norm in ("none", "standard"):
            found.batches(norm=norm, dtype=torch.float32, memory_format=torch.channels_last)(
                found.train
            ).zero_()
        assert torch.equal(found.pixels, kept)


@pytest.mark.parametrize("floating", [False, True])
def test_finishing_a_batch_leaves_the_raw_pixels_alone(floating):
    found = resident(images(1, floating=floating))
    make = found.batches(norm="standard", dtype=torch.float32, memory_format=torch.channels_last)
    raw = make.raw(found.train)
    kept = raw.clone()
    make.finish(raw)
    assert torch.equal(raw, kept)


def test_bytes_stay_bytes_on_the_device():
    found = resident(images())
    assert found.pixels.dtype == torch.uint8
    assert found.pixels.shape == (24, 6, 5, 3)
    assert (found.channels, found.image_size, found.num_classes) == (3, (6, 5), 3)
    assert found.labels.tolist() == (np.arange(24) % 3).tolist()


def test_a_sixth_is_held_out_as_test_where_the_dataset_has_none():
    assert len(resident(images(test=False)).split.test_from_train) == 4
    assert len(resident(images(test=True)).split.test_from_train) == 0


def test_read_only_arrays_are_taken():
    data = images(1)
    data.train_images.setflags(write=False)
    data.train_labels.setflags(write=False)
    assert len(resident(data).train) == 18


@pytest.mark.parametrize("floating", [False, True])
def test_resizing_is_bilinear_and_keeps_the_type(floating):
    data = images(floating=floating)
    found = resident_pixels(data.train_images, size=(16, 16))
    expected = F.interpolate(torch.from_numpy(data.train_images).float(), (16, 16), mode="bilinear")
    if not floating:
        expected = expected.round()
    assert found.dtype == (torch.float32 if floating else torch.uint8)
    assert torch.equal(found.permute(0, 3, 1, 2).float(), expected)


def test_only_a_side_that_is_too_small_is_resized():
    assert resident(images(), smallest_input=(4, 16)).image_size == (6, 16)
    assert resident(images(), smallest_input=(6, 5)).image_size == (6, 5)


def test_a_cache_keeps_the_images_once_for_all_splits(make_settings):
    cache = ResidentCache(images(), device="cpu")
    one, other = cache(make_settings(val=0.25)), cache(make_settings(val=0.5))
    assert one is cache(make_settings(val=0.25, lr=0.5))
    assert one is not other
    assert one.pixels.data_ptr() == other.pixels.data_ptr()


def test_a_cache_forgets_the_split_that_was_not_used_for_longest(make_settings):
    cache = ResidentCache(images(), device="cpu", keep=2)
    first = cache(make_settings(split_seed=1))
    second = cache(make_settings(split_seed=2))
    assert cache(make_settings(split_seed=1)) is first
    cache(make_settings(split_seed=3))
    assert cache(make_settings(split_seed=1)) is first
    assert cache(make_settings(split_seed=2)) is not second
