import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsearch.errors import SpecError
from gridsearch.records import ImageSettings
from gridsearch.records.axis import AxisKind
from gridsearch.spec import (
    ALIASES,
    AXES,
    FUSIBLE,
    SHAPING,
    Grid,
    axis_of,
    canonical,
    varying,
)
from gridsearch.spec.axis_values import InvalidValue, read_plain, typed

OPTION_TABLES = {"model_options", "data_options", "optimizer_options"}


def problem(name, value):
    with pytest.raises(InvalidValue) as caught:
        typed(axis_of(name), value)
    return str(caught.value)


def test_every_default_is_a_value_of_its_axis():
    for axis in AXES.values():
        if axis.default is not None and axis.default != "":
            assert typed(axis, axis.default) == axis.default


def test_fusible_and_shaping_axes_part_all_settings():
    assert not FUSIBLE & SHAPING
    fields = {field.name for field in dataclasses.fields(ImageSettings)} - OPTION_TABLES
    assert set(AXES) == fields | {"seed"} == {*FUSIBLE, *SHAPING}
    assert set(FUSIBLE) == {
        "lr",
        "select_metric",
        "weight_decay",
        "loss",
        "focal_gamma",
        "class_weight",
        "sampling",
        "patience",
        "clip_norm",
        "clip_value",
        "momentum",
        "nesterov",
        "schedule",
        "warmup",
        "norm",
        "dropout",
        "label_smoothing",
        "operations",
        "magnitude",
        "mixup",
        "cutmix",
        "ema",
        "epochs",
        "select",
        "seed",
        "fold",
        "partition",
    }


def test_an_alias_is_its_axis():
    assert {alias: axis_of(alias).name for alias in ALIASES} == dict(ALIASES)
    assert canonical("batch_size") == "batch"
    assert canonical("never heard of") == "never heard of"


def test_an_option_of_a_plug_in_is_a_free_axis():
    assert axis_of("model.width").kind is AxisKind.CATEGORICAL
    assert axis_of("data.size").free


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lrr", "unknown axis 'lrr'; did you mean 'lr'?"),
        ("optimiser", "unknown axis 'optimiser'; did you mean 'optimizer'?"),
        ("learning_rat", "unknown axis 'learning_rat'; did you mean 'learning_rate'?"),
        ("model.", "'model.' names no option: model.NAME, with a Python name"),
        ("data.a b", "'data.a b' names no option: data.NAME, with a Python name"),
        ("model.__class__.x", "'model.__class__.x' names no option: model.NAME, with a Python name"),
    ],
)
def test_an_unknown_axis_is_told_with_the_nearest_name(name, message):
    with pytest.raises(SpecError) as caught:
        axis_of(name)
    assert caught.value.problems == (message,)


@pytest.mark.parametrize("name", ["norm", "augment", "class_weight", "sampling"])
def test_none_of_python_is_the_word_where_there_is_such_a_word(name):
    assert typed(axis_of(name), None) == typed(axis_of(name), "none") == "none"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("lr", "abc", "lr must be a number, not 'abc'"),
        ("lr", "", "no value"),
        ("lr", "-1", "lr must be above 0, not -1"),
        ("lr", "0", "lr must be above 0, not 0"),
        ("lr", "nan", "lr must be finite, not nan"),
        ("lr", "-inf", "lr must be finite, not -inf"),
        ("lr", math.nan, "lr must be finite, not nan"),
        ("lr", math.inf, "lr must be finite, not inf"),
        ("lr", "1e400", "1e400 is out of the range of a number"),
        ("lr", "1e999999999999", "1e999999999999 is out of the range of a number"),
        ("lr", 10**400, "lr is out of the range of a number"),
        ("lr", "0x10", "lr must be a number, not '0x10'"),
        ("lr", "1_000", "lr must be a number, not '1_000'"),
        ("lr", "\u0661", "lr must be a number, not '\u0661'"),
        ("lr", True, "lr must be a number, not true"),
        ("lr", None, "lr must be a number, not none"),
        ("lr", "none", "lr must be a number, not 'none'"),
        ("lr", [0.1], "lr must be a number, not list"),
        ("lr", {"a": 1}, "lr must be a number, not dict"),
        ("batch", "2.5", "batch must be a whole number, not 2.5"),
        ("batch", 2.5, "batch must be a whole number, not 2.5"),
        ("batch", "0", "batch must be at least 1, not 0"),
        ("batch", "-5", "batch must be at least 1, not -5"),
        ("batch", str(2**63), "batch must be at most 9223372036854775807, not 9223372036854775808"),
        ("epochs", "0", "epochs must be at least 1, not 0"),
        ("epochs", "many", "epochs must be a whole number, not 'many'"),
        ("momentum", "1", "momentum must be below 1, not 1"),
        ("dropout", "1.5", "dropout must be below 1, not 1.5"),
        ("ema", "1", "ema must be below 1, not 1"),
        ("ema", "-.1", "ema must be at least 0, not -.1"),
        ("ema", "none", "ema must be a number, not 'none'"),
        ("loss", "focl", "unknown loss 'focl'; did you mean 'focal'?"),
        ("focal_gamma", "-1", "focal_gamma must be at least 0, not -1"),
        ("focal_gamma", 1e9, "focal_gamma must be at most 100, not 1000000000.0"),
        ("mixup", "1e9", "mixup must be at most 1e+06, not 1e9"),
        ("cutmix", "nan", "cutmix must be finite, not nan"),
        ("class_weight", "balance", "unknown class_weight 'balance'; did you mean 'balanced'?"),
        ("sampling", "weighted", "unknown sampling 'weighted'; known: balanced, none"),
        ("patience", "0", "patience must be at least 1, not 0"),
        ("patience", "1.5", "patience must be a whole number, not 1.5"),
        ("clip_norm", "0", "clip_norm must be above 0, not 0"),
        ("clip_value", "-1", "clip_value must be above 0, not -1"),
        ("clip_value", "small", "clip_value must be a number, not 'small'"),
        ("label_smoothing", "-.1", "label_smoothing must be at least 0, not -.1"),
        ("weight_decay", "-1e-9", "weight_decay must be at least 0, not -1e-9"),
        ("warmup", "inf", "warmup must be finite, not inf"),
        ("nesterov", "1", "nesterov must be true or false, not '1'"),
        ("nesterov", 1, "nesterov must be true or false, not 1"),
        ("nesterov", "none", "nesterov must be true or false, not 'none'"),
        ("optimizer", "adm", "unknown optimizer 'adm'; did you mean 'adam'?"),
        ("optimizer", 3, "optimizer must be one of sgd, adam, adamw, nadam, rmsprop, not 3"),
        ("norm", "normal", "unknown norm 'normal'; known: none, standard"),
        ("optimizer", None, "optimizer must be one of sgd, adam, adamw, nadam, rmsprop, not none"),
        ("schedule", "cosin", "unknown schedule 'cosin'; did you mean 'cosine'?"),
        ("augment", "flipshift", "unknown augment 'flipshift'; did you mean 'flip+shift'?"),
        ("dtype", "float16", "unknown dtype 'float16'; did you mean 'bfloat16'?"),
        ("model", 3, "model must be a name, not 3"),
        ("model.width", "nan", "a number must be finite, not nan"),
        ("model.width", math.inf, "a number must be finite, not inf"),
        ("model.width", (1, 2), "model.width must be a plain value, not tuple"),
        (
            "model.width",
            np.datetime64("2020-01-01", "ns"),
            "model.width must be a plain value, not datetime64",
        ),
        ("batch", np.timedelta64(8, "ns"), "batch must be a whole number, not timedelta64"),
    ],
)
def test_a_wrong_value_is_told_in_one_line(name, value, message):
    assert problem(name, value) == message


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("lr", "1", 1.0),
        ("lr", ".01", 0.01),
        ("lr", "1.", 1.0),
        ("lr", 1, 1.0),
        ("lr", np.float32(0.5), 0.5),
        ("batch", "1e1", 10),
        ("batch", "10.0", 10),
        ("batch", 10.0, 10),
        ("batch", np.int64(10), 10),
        ("momentum", "-0", 0.0),
        ("dropout", "none", None),
        ("dropout", None, None),
        ("nesterov", "True", True),
        ("nesterov", False, False),
        ("model", "my_net.py:Net", "my_net.py:Net"),
        ("norm", "none", "none"),
        ("model.width", "2", 2),
        ("model.width", "2.0", 2),
        ("model.width", 2.0, 2),
        ("model.width", "2.5", 2.5),
        ("model.width", "true", True),
        ("model.width", "none", None),
        ("model.width", "wide", "wide"),
        ("model.width", np.True_, True),
        ("model.width", np.longdouble(0.5), 0.5),
    ],
)
def test_a_value_comes_out_in_the_type_of_its_axis(name, value, expected):
    result = typed(axis_of(name), value)
    assert (result, type(result)) == (expected, type(expected))
    assert not (isinstance(result, float) and math.copysign(1, result) < 0)


@given(st.floats(min_value=1e-300, max_value=1e300))
def test_every_spelling_of_a_number_gives_the_same_value(number):
    axis = axis_of("lr")
    spellings = [repr(number), f"{number:.17e}", f"{number:.20g}", f"+{number!r}", number]
    assert {typed(axis, spelling) for spelling in spellings} == {number}


@given(st.integers(min_value=1, max_value=2**53))
def test_whole_numbers_have_one_value_however_they_are_written(number):
    for name in ("batch", "model.width"):
        results = [
            typed(axis_of(name), v)
            for v in (number, str(number), float(number), f"{number}.0", f"{number}e0")
        ]
        assert set(map(type, results)) == {int}
        assert set(results) == {number}


def test_settings_differ_in_what_differs():
    base = ImageSettings(dataset="fmnist", model_options={"width": 1, "act": True})

    def differing(**changes):
        return varying([base, dataclasses.replace(base, **changes)])

    assert differing() == ()
    assert differing(lr=0.5, model_options={"width": 2, "act": True}) == ("model.width", "lr")
    assert differing(model_options={"width": 1, "act": 1}) == ("model.act",)
    assert differing(model_options={"width": 1}) == ("model.act",)


def test_what_varies_among_many_is_what_differs_anywhere():
    base = ImageSettings(dataset="fmnist")
    assert varying([]) == ()
    assert varying([base, dataclasses.replace(base, epochs=2), dataclasses.replace(base, batch=1)]) == (
        "epochs",
        "batch",
    )


def test_the_shape_of_settings_ignores_fusible_axes_alone():
    base = ImageSettings(dataset="fmnist", model_options={"width": 1}, dropout=0.2)
    fused = dataclasses.replace(base, lr=0.5, epochs=3, norm="none", dropout=0.1, momentum=0.5)
    assert fused.shape() == base.shape()
    for change in (
        {"dropout": None},  # the model's own rates, which are lost in a pack of others
        {"batch": 1},
        {"drop_last": True},
        {"model_options": {"width": 2}},
        {"model_options": {"width": True}},
        {"split_seed": 1},
    ):
        assert dataclasses.replace(base, **change).shape() != base.shape()
    assert len({base.shape(), fused.shape()}) == 1


@pytest.mark.parametrize(
    ("word", "meant"), [("1e\u22123", "1e-3"), ("\u20132", "-2"), ("1\uff0c2", "1,2"), ("\uff11", "1")]
)
def test_signs_that_look_like_those_of_a_number_are_no_word_without_quotes(word, meant):
    with pytest.raises(InvalidValue, match=f"is no number; did you mean {meant}?"):
        read_plain(word)
    assert read_plain("a\u2013b") == "a\u2013b"
    assert Grid({"model.x": f'"{word}"'}) == Grid({"model.x": [word]})


@pytest.mark.parametrize(("name", "right"), [("LR", "lr"), ("Batch", "batch"), ("EMA", "ema")])
def test_a_name_in_other_letters_is_answered_with_the_right_one(name, right):
    with pytest.raises(SpecError, match=f"unknown axis '{name}'; did you mean '{right}'?"):
        Grid({name: [1]})
