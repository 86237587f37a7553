"""Which passes of a convolution are computed by minimal filtering: by formula where it is sure, else as measured."""

from __future__ import annotations

import pytest
import torch

from gridsearch.training.kernels import batch_inner, families, filtered_passes
from gridsearch.training.kernels.minimal_filtering import FORWARD, INPUT, PASSES, WEIGHTS
from gridsearch.training.kernels.op import vector_numbers
from gridsearch.training.kernels.stages import Conv
from tests.training.compilers import needs_compiler

pytestmark = needs_compiler

WIDE = Conv(64, 64, (3, 3), padding=(1, 1))
MAPS = (64, 16, 16)


@pytest.fixture
def asked(monkeypatch):
    """What was measured; nothing is found to be faster."""
    keys = []
    monkeypatch.setattr(filtered_passes, "kept_choice", lambda key, forms: keys.append((key, forms)))
    return keys


def chosen(conv=WIDE, shape=MAPS, dtype=torch.float32, *, images=64, input_grad=True, bf16=False):
    """Return the passes that are filtered."""
    return filtered_passes.filtered_passes(
        [conv], shape, dtype, images=images, input_grad=input_grad, bf16=bf16
    )


def test_all_passes_of_many_channels_and_pixels_are_filtered_without_a_measurement(asked):
    assert chosen() == set(PASSES)
    assert chosen(input_grad=False) == {FORWARD, WEIGHTS}
    assert not asked


@pytest.mark.parametrize(
    ("conv", "shape"),
    [
        (Conv(64, 64, (3, 3), (2, 2), (1, 1)), MAPS),
        (Conv(64, 64, (3, 3), padding=(2, 2), dilation=(2, 2)), MAPS),
        (Conv(64, 64, (3, 3), padding=(1, 1), groups=2), MAPS),
        (Conv(64, 64, (5, 5), padding=(1, 1)), MAPS),
        (Conv(64, 64, (3, 3), padding=(3, 3)), MAPS),
        (Conv(512, 512, (3, 3), padding=(1, 1)), (512, 1, 1)),
        (Conv(1, 6, (3, 3)), (1, 28, 28)),
    ],
)
def test_forms_that_gain_nothing_stay_tap_by_tap(asked, conv, shape):
    assert not chosen(conv, shape) and not asked


def test_bfloat16_halves_the_products_of_both_forms_about(asked):
    v = vector_numbers(torch.float32)
    for which in PASSES:
        narrow, whole = (filtered_passes.costs(which, WIDE, MAPS, 64, v, bf16=bf16) for bf16 in (True, False))
        assert all(0.5 < a / b < 0.75 for a, b in zip(narrow, whole, strict=True))
    one = Conv(1, 6, (3, 3)), (1, 9, 9), 64, v  # has no pairs of channels
    assert filtered_passes.costs(FORWARD, *one, bf16=True) == filtered_passes.costs(FORWARD, *one)
    if batch_inner.multiplies_bfloat16():
        assert not chosen(Conv(8, 8, (3, 3)), (8, 7, 7), bf16=True) and not asked
        assert chosen(bf16=True) == set(PASSES)
        assert all(key.partition("; ")[0].endswith(", bfloat16") for key, _ in asked)


def test_nothing_is_filtered_or_measured_where_nothing_is_compiled(asked, monkeypatch):
    monkeypatch.setattr(filtered_passes, "_SURE", dict.fromkeys(PASSES, 1e9))
    monkeypatch.setattr(batch_inner, "library_of", lambda _: None)
    assert not chosen() and not asked


def test_what_the_formula_is_not_sure_of_is_measured_pass_by_pass(asked, monkeypatch):
    monkeypatch.setattr(filtered_passes, "_SURE", dict.fromkeys(PASSES, 1e9))
    conv, shape = Conv(5, 6, (3, 3)), (5, 6, 8)
    assert not chosen(conv, shape, images=3)  # nothing was clearly faster
    assert [key.partition(" of ")[0] for key, _ in asked] == list(PASSES)
    assert asked[1][0].startswith(f"{INPUT} of 5 -> 6, 3x3 padded by 0x0, 6x8 px, 3 images, float32; ")
    for _, forms in asked:
        calls = forms()
        assert set(calls) == {filtered_passes.FILTERED, filtered_passes.BY_TAPS}
        for call in calls.values():
            call()
    monkeypatch.setattr(
        filtered_passes,
        "kept_choice",
        lambda key, _: filtered_passes.FILTERED if key.startswith(WEIGHTS) else filtered_passes.BY_TAPS,
    )
    assert chosen(conv, shape, images=3) == {WEIGHTS}


def test_the_formula_counts_blocks_of_images_patches_and_taps():
    v = vector_numbers(torch.float32)
    one = filtered_passes.costs(FORWARD, WIDE, MAPS, v, v)
    assert filtered_passes.costs(FORWARD, WIDE, MAPS, 1, v) == one
    two = filtered_passes.costs(FORWARD, WIDE, MAPS, v + 1, v)
    assert all(a < b < 2 * a for a, b in zip(one, two, strict=True))  # weights are packed once
    odd = filtered_passes.costs(FORWARD, WIDE, (64, 15, 15), v, v)
    assert odd[1] == one[1] and odd[0] < one[0]


def test_an_operation_is_built_with_the_chosen_passes(asked):
    def workspace(given, **how):
        return given([WIDE], MAPS, torch.float32, **how)[0].workspace_bytes(64)

    of_a_plan = workspace(families.cover, images=64, input_grad=False, bf16=False)
    assert of_a_plan == workspace(batch_inner.cover, filtered={FORWARD, WEIGHTS})
    assert of_a_plan != workspace(batch_inner.cover)
    assert not asked
