"""Numbers that stand together are written with the digits in which they differ, at any size."""

from __future__ import annotations

import math
import re
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridsearch.reporting.figures.units import Unit
from gridsearch.reporting.output.headline import headline, show_interval, show_mean
from gridsearch.reporting.ranking.ranking import rank
from gridsearch.reporting.words.digits import Digits, tick_labels
from gridsearch.reporting.words.text import show_metric, written

SCALES = [1e-300, 1e-14, 1e-5, 1.0, 1e5, 1e14, 1e160]


def shown(values, metric="rmse", **how):
    digits = Digits.of(values, metric, **how)
    return [digits.show(v) for v in values]


@pytest.mark.parametrize(
    ("values", "spreads", "expected"),
    [
        ([12345.51, 12346.01, 12346.51], [0.01], ["12345.510", "12346.010", "12346.510"]),
        ([12345.51, 12346.01, 12346.51], [], ["12345.51", "12346.01", "12346.51"]),
        ([1, 2, 3], [], ["1", "2", "3"]),
        ([0.31254, 0.31872, 0.9], [0.0021], ["0.3125", "0.3187", "0.9000"]),
        ([0.001, 0.002, 1e181], [], ["0.001", "0.002", "1e+181"]),
        ([12345.0000001, 12345.0000002], [], ["12345.0000001", "12345.0000002"]),
        ([0.0, 0.0], [], ["0", "0"]),
    ],
)
def test_values_of_a_column_have_the_digits_in_which_they_differ(values, spreads, expected):
    assert shown(values, spreads=spreads) == expected


def test_percentages_have_two_decimals_and_more_only_where_these_do_not_tell_the_first_two_apart():
    assert shown([0.9371, 0.9365, 0.1], "val_accuracy") == ["93.71 %", "93.65 %", "10.00 %"]
    assert shown([0.99992, 0.99991, 0.9], "val_accuracy") == ["99.992 %", "99.991 %", "90.000 %"]


def test_what_a_function_gives_in_percent_is_no_fraction():
    assert shown([93.71, 93.65, 0.5], "val_accuracy") == ["93.71", "93.65", "0.50"]
    assert Digits.of([93.71, 93.65], "f1").difference(0.06) == "0.06"
    found = [Digits("rmse").difference(x) for x in (30.7, 999.7, 1065.0, 12345678.0, 1.5e12, 1.5e-7, 0.0)]
    assert found == ["30.7", "1000", "1065", "12345678", "1.5e+12", "1.5e-07", "0"]
    assert Digits("val_accuracy", 9).difference(0.12806324) == "12.8 percentage points"
    assert tick_labels([92.0, 93.0, 94.0], "val_accuracy") == ["92", "93", "94"]
    assert tick_labels([0.9, 1.0, 1.1], "val_accuracy") == ["90 %", "100 %", "110 %"]
    assert tick_labels([0.999999905, 0.999999906], "y") == ["0.999999905", "0.999999906"]
    assert tick_labels([0.01000000001, 0.01000000002], "y") == ["0.01000000001", "0.01000000002"]
    assert tick_labels([0.999999905, 0.99999991], "val_accuracy") == ["99.9999905 %", "99.9999910 %"]
    assert (show_metric(93.71, "f1"), show_metric(0.9371, "f1")) == ("93.71", "93.71 %")


def test_a_number_by_itself_is_written_out_where_that_is_readable():
    assert [show_metric(v, "rmse") for v in (0.12345, 1e-7)] == ["0.1235", "1e-07"]
    large = (12345.51, 12346.01, 1234.5, -1000000.0, 123456789.4, 1e12)
    assert [show_metric(v, "rmse") for v in large] == [
        *("12345.51", "12346.01", "1234.5", "-1000000", "123456789", "1e+12"),
    ]


def test_an_interval_always_shows_its_width():
    digits = Digits.of([0.5, 0.25], "rmse")
    low, high = digits.finer(2e-7).interval(0.4999999, 0.5000001)[1:-1].split(", ")
    assert float(low) < 0.5 < float(high)
    coarse = Digits.of([1.161, 533006.0, 3e9], "val_loss").finer(1.244 - 1.084)
    assert (coarse.show(1.161), coarse.interval(1.084, 1.244)) == ("1.16", "[1.08, 1.24]")


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(-9999, 9999), min_size=2, max_size=12, unique=True),
    st.sampled_from(SCALES),
    st.sampled_from([0, 12345, 1e7]),
)
def test_no_two_values_of_four_digits_look_alike_at_any_size_and_offset(numbers, scale, offset):
    values = [scale * (offset + n) for n in numbers]
    words = shown(values)
    assert len(set(words)) == len(words)
    for word, value in zip(words, values, strict=True):
        assert abs(float(word) - value) <= 0.06 * (max(values) - min(values))


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(SCALES),
    st.sampled_from([0.0, 12345.0, -7.0]),
    st.sampled_from([0.1, 0.2, 0.25, 0.5, 2.0]),
    st.integers(-3, 3),
    st.sampled_from(["rmse", "val_accuracy"]),
)
def test_no_two_ticks_look_alike_and_each_says_where_it_stands(scale, offset, step, first, metric):
    ticks = [scale * (offset + step * (first + i)) for i in range(6)]
    words = tick_labels(ticks, metric)
    assert len(set(words)) == len(words)
    for word, tick in zip(words, ticks, strict=True):
        factor = 100 if word.endswith("%") else 1
        assert abs(float(word.removesuffix(" %")) / factor - tick) <= 0.06 * scale * step


@pytest.mark.parametrize("scale", SCALES)
def test_the_words_of_a_ranking_are_the_same_in_any_unit_but_for_the_exponent(study, scale):
    table = [[0.31, 0.33, 0.32], [0.35, 0.36, 0.34], [0.9, 0.8, 0.7]]
    builder = study({"batch": [1, 2, 3]}, seeds=3)
    for number, value in enumerate(v for row in table for v in row):
        builder.score(number, 0.5, val_loss=scale * value)
    data = builder.data(metric="val_loss", direction="minimize")
    ranking = rank(data)
    first = ranking.points[0]
    mean = show_mean(first, ranking.digits_of(), spread=False)
    low, high = re.findall(r"[-\d.e+]+", show_interval(first, ranking.digits_of()))
    assert float(mean) == pytest.approx(0.32 * scale, rel=1e-3)
    assert float(low) < float(mean) < float(high)
    ahead = re.match(r"It is (\S+) ahead", headline(data, ranking).margin)
    assert ahead is not None
    assert float(ahead[1]) == pytest.approx(0.03 * scale)


def test_a_tick_beyond_the_largest_number_leaves_the_others_their_labels():
    words = tick_labels([1e308, 1.5e308, math.inf], "loss")
    assert words[:2] == ["1.0e+308", "1.5e+308"]


def test_a_figure_of_values_near_the_largest_number_is_drawn_without_a_warning():
    unit = Unit.of([-1e308, 1.7e308], "loss")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isinf(unit.value(np.float64(2.5)))
        assert unit.value(np.float64(unit.draw(1.7e308))) == pytest.approx(1.7e308)


def test_no_spread_beside_a_tiny_number_is_no_row_of_zeros():
    assert Digits.of([3e-320, 2e-320], "y").spread(0.0) == "0"
    assert Digits.of([3e-12, 2e-12], "y").spread(0.0) == "0"
    assert Digits.of([0.03, 0.02], "y").spread(0.0) == "0.00"


def test_a_rounded_number_by_itself_keeps_its_zeros_and_an_exact_one_has_none():
    values = [1.99997, 2.0, 35 * 0.01, 1.65996, 1234.04, 1e-5, 1.00003e-5, 0.5]
    assert [written(v) for v in values] == [
        "2.000",
        "2",
        "0.35",
        "1.660",
        "1234",
        "1e-05",
        "1.000e-05",
        "0.5",
    ]
