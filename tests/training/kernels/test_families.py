"""Which of two compiled forms a pooled convolution gets, held against the times that both were measured to take."""

from __future__ import annotations

import json
import statistics

import pytest
import torch

from gridsearch.training.kernels import batch_inner
from gridsearch.training.kernels import families as chosen_families
from gridsearch.training.kernels.op import Layout, vector_numbers
from gridsearch.training.kernels.stages import Conv, MaxPool, Relu
from tests.benchmarks import families
from tests.benchmarks.measure import RESULTS
from tests.training.compilers import needs_compiler


def test_the_choice_between_two_forms_costs_little_where_both_were_measured():
    # Both were made on one machine, the other with vectors of half the width: the choice goes by this machine's.
    name = "families" if vector_numbers(torch.float32) == 16 else "families-avx2"
    rows = json.loads((RESULTS / f"{name}.json").read_text())["figures"]
    lost = []
    for shape in families.SHAPES:
        for images in families.IMAGES:
            row = rows[families.title(shape, images)]
            times = {
                form: row[f"{form}, forward"] + row[f"{form}, backward"]
                for form in ("pooled", "images innermost")
            }
            lost.append(times[families.chosen(shape, images)] / min(times.values()) - 1)
    assert statistics.fmean(lost) < 0.02
    assert max(lost) < 0.2


@needs_compiler
def test_a_pooled_convolution_gets_the_form_that_was_measured_to_be_faster(monkeypatch):
    stages = [Conv(6, 8, (3, 3)), MaxPool((2, 2), (2, 2)), Relu()]
    monkeypatch.setattr(chosen_families, "_SURE", 1e9)
    layouts = []
    for form in (chosen_families.POOLED, chosen_families.INNER):
        monkeypatch.setattr(chosen_families, "kept_choice", lambda *_, form=form: form)
        found = chosen_families.cover(
            stages, (6, 8, 8), torch.float32, images=32, input_grad=True, bf16=False
        )
        layouts.append(found and found[0].output)
    assert layouts == [Layout.CHANNELS_LAST, Layout.BATCH_INNER]


@needs_compiler
def test_what_a_pooled_convolution_rounds_to_bfloat16_depends_on_no_clock(monkeypatch):
    if not batch_inner.multiplies_bfloat16():
        pytest.skip("the processor does not multiply bfloat16")
    monkeypatch.setattr(chosen_families, "_SURE", 1e9)
    monkeypatch.setattr(chosen_families, "kept_choice", lambda *_: pytest.fail("it was measured"))
    layouts = []
    for channels, outputs in ((6, 8), (16, 32)):
        stages, shape = [Conv(channels, outputs, (3, 3)), MaxPool((2, 2), (2, 2)), Relu()], (channels, 14, 14)
        found = chosen_families.cover(stages, shape, torch.float32, images=10, input_grad=True, bf16=True)
        layouts.append(found and found[0].output)
    assert layouts == [Layout.BATCH_INNER, Layout.CHANNELS_LAST], "as the formula says"


def test_bfloat16_is_counted_as_faster_with_the_images_innermost_alone():
    stages = [Conv(6, 8, (3, 3)), MaxPool((2, 2), (2, 2)), Relu()]
    narrow, whole = (
        chosen_families.form_costs(stages, (6, 8, 8), torch.float32, 32, input_grad=True, bf16=bf16)
        for bf16 in (True, False)
    )
    assert narrow[0] == whole[0] and narrow[1] < whole[1]
