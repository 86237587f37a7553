"""The word that is shown for a value is short, is shown for no other value of its axis, and selects the value again."""

from __future__ import annotations

import pickle
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsearch.errors import SpecError
from gridsearch.spec import Grid
from gridsearch.spec.words import Worded, exact, short_words, spelled, word, words_of

numbers = st.floats(allow_nan=False, allow_infinity=False)
near = st.builds(
    lambda v, n: v * (1 + n * 1e-13), st.sampled_from([0.1, 0.3, 1e-5, 12345.678, 7e22]), st.integers(-9, 9)
)


def float32(value):
    return struct.unpack("f", struct.pack("f", value))[0]


def shown(values):
    words = short_words(values)
    return {v: words.get(v, exact(v)) for v in values}


@given(st.lists(numbers | near | near.map(float32), unique=True, max_size=30))
def test_no_two_values_share_a_word_and_every_word_selects_its_value(values):
    texts = shown(values)
    assert len(set(texts.values())) == len(texts)
    back = spelled(values)
    for value, text in texts.items():
        assert back.get(float(text), float(text)) == value


@given(numbers)
def test_the_exact_text_is_read_back_as_the_very_float(value):
    assert float(exact(value)) == value


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            Grid(lr="1e-4..1e-1:10log").values["lr"],
            "0.0001 0.0002154 0.0004642 0.001 0.002154 0.004642 0.01 0.02154 0.04642 0.1",
        ),
        (Grid(lr="1..1.001:4log").values["lr"], "1 1.0003 1.0007 1.001"),
        ([0.1, float32(0.1)], "0.1 0.100000001"),
        ([float32(0.1)], "0.1"),
        ([0.3, 0.1 + 0.2], "0.3 0.30000000000000004"),
        ([0.123456789, 1234567.5], "0.123456789 1234567.5"),  # as they were typed
        ([12345.678901234], "12346"),
        ([1.23456789012e-7], "1.235e-07"),
    ],
)
def test_four_digits_are_shown_where_they_tell_values_apart(values, expected):
    assert " ".join(shown(values).values()) == expected


def test_params_bring_their_words_along_through_a_pickle():
    points = [{"lr": v, "on": True, "n": 1} for v in Grid(lr="1e-4..1e-1:10log").values["lr"]]
    params = pickle.loads(pickle.dumps(Worded(points[5], words_of(points))))
    assert params == points[5]
    assert (word(params, "lr"), word(params, "on"), word(points[5], "lr")) == ("0.004642", None, None)


def test_rules_take_the_words_that_are_shown():
    grid = Grid(lr="1e-4..1e-1:10log", batch=[1, 2], exclude="lr=0.004642", when="batch: lr=.0004642,.1")
    left = {(p.values["lr"], p.values.get("batch")) for p in grid.points()}
    assert 0.00464158883361 not in {lr for lr, _ in left}
    assert {lr for lr, batch in left if batch} == {0.000464158883361, 0.1}
    assert Grid.from_json(grid.to_json()) == grid
    with pytest.raises(SpecError, match="not a value of lr"):
        Grid(lr="1e-4..1e-1:10log", exclude="lr=0.00464")


def test_the_least_numbers_are_written_as_they_are_typed():
    assert [exact(v) for v in (1e-320, 5e-324, 0.001, 1e-05, 100000.0)] == [
        "1e-320", "5e-324", "0.001", "1e-05", "100000",
    ]  # fmt: skip
