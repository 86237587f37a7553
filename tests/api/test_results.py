"""What a result is at a prompt, in a notebook and as a frame: short, shown once, and with the types of what is in it."""

from __future__ import annotations

import math
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest

import gridsearch as gs
from gridsearch import reporting
from gridsearch.errors import GridsearchWarning
from gridsearch.reporting.stats.predictions import Predictions
from gridsearch.reporting.words.text import show_params
from gridsearch.service.winner.exported import Prediction
from gridsearch.spec import Grid, StudySpec


def _made():
    def f(params, seed):  # made here, since pytest rewrites the module's own functions
        if params.get("a") == 3:
            raise ValueError("no")
        return {"value": float(seed), "rare": 1.0} if params.get("a") == 1 else {"value": float(seed)}

    return f


FUNCTION = _made()


def run(home, grid, **more):
    how = {"home": home, "executor": "inline", "report": False, "quiet": True, "keep_going": True}
    return gs.run(grid, **{"objective": FUNCTION, **how, **more})


MIXED = [
    "1e5",
    1e5,
    "007",
    7,
    "none",
    None,
    '"b"',
    "true",
    True,
    "",
    " a ",
    "1..5:1",
    2**70,
    2**70 + 1,
    "a,b",
    1e30,
    0.1,
]


def test_values_come_as_they_were_given_are_different_points_and_are_told_apart_everywhere(home):
    result = run(home, {"code": MIXED})
    assert [(type(v), v) for v in result.trials.code] == [
        (type(v), v) for v in [*MIXED[:1], 100000, *MIXED[2:]]
    ], "1e5 is whole"
    again = run(home, {"code": MIXED})
    assert (again.new, again.reused) == (0, len(MIXED))
    shown = {show_params(point.params) for point in result.ranking.points}
    assert len(shown) == len(MIXED)
    assert {'code="1e5"', "code=100000", 'code="none"', "code=none", 'code="1..5:1"', "code=a,b"} <= shown
    column = reporting.trials_csv(result.data).decode().splitlines()
    assert len({line.split(",", 1)[1].rsplit(",", 12)[0] for line in column[1:]}) == len(MIXED)


def test_a_grid_of_text_and_its_recipe_survive_json_and_the_command_line_s_words():
    spec = StudySpec(
        objective="f.py:g",
        grid=Grid.of_params({"code": MIXED}),
        recipe={"fixed": "1e5", "flag": "true", "n": 2**70},
    )
    again = StudySpec.from_json(spec.to_json())
    assert again == spec
    assert again.recipe.flat() == {"fixed": "1e5", "flag": "true", "n": 2**70}


def test_whole_numbers_stay_whole_beside_none_and_columns_without_a_value_are_numbers(home):
    result = run(home, {"a": [1, 2, None], "b": [True, None], "c": [0.5, 1]}, seeds=1)
    trials = result.trials
    assert [str(trials[c].dtype) for c in ("a", "b", "c")] == ["Int64", "boolean", "float64"]
    assert trials.a.tolist()[:1] == [1]
    assert trials.a.isna().sum() == 4
    assert str(trials.val_accuracy.dtype) == "float64"
    assert trials.val_accuracy.isna().all()
    assert str(trials.rare.dtype) == "float64"
    assert str(result.points.ci_low.dtype) == "float64"
    lines = reporting.trials_csv(result.data).decode().splitlines()
    assert [line.split(",")[1:3] for line in lines[1:3]] == [["1", "true"], ["1", "true"]]
    assert [line.split(",")[1] for line in lines[1:]] == ["1"] * 4 + ["2"] * 4 + [""] * 4
    assert math.isclose(trials.groupby("a", dropna=False).value.mean().sum(), 0)


def test_a_result_is_one_short_line_at_a_prompt_and_a_ranking_in_a_notebook(home):
    with pytest.warns(GridsearchWarning, match="1 trial of study 'f' failed; trial 2: ValueError: no"):
        result = run(home, {"a": [1, 2, 3], "text": ["x" * 500]})
    run(home, {"a": [1, 2], "text": ["x" * 500]}, study="f2")
    assert repr(result).startswith("<StudyResult 'f': 3 trials of 3 points, 1 failed; best a=1 ")
    loaded = gs.load("f", home=home)
    assert (repr(loaded), loaded.failed, loaded.open) == (repr(result), 1, 0)
    assert len(repr(result)) < 500
    assert str(result) == repr(result)
    assert "<table>" in result._repr_html_()
    assert repr(pickle.loads(pickle.dumps(result))) == repr(result)
    assert "\n" not in repr(result)
    parts = (result.data, result.ranking, result.ranking.best, result.data.trials[0])
    for part in (*parts, gs.compare("f", "f2", home=home).comparison):
        assert len(repr(part)) < 400
        assert repr(part).startswith(f"<{type(part).__name__} ")
        assert "settings" not in repr(part), "of which there are forty"
    assert repr(result.data) == "<StudyData 'f': 3 trials, 'value'>"


def test_what_holds_images_or_what_is_said_of_them_is_one_line_at_a_prompt():
    labels = np.arange(2000) % 1000
    logits = np.eye(1000)[labels] * (np.arange(2000) < 1500)[:, None]
    assert repr(Predictions(logits, labels)) == "<Predictions: 2,000 images, 1,000 classes, 75.00 % right>"
    assert repr(Predictions(logits[:0], labels[:0])) == "<Predictions: 0 images, 1,000 classes>"
    found = Prediction(
        image="a\x1b[31m.png", label="cat", probability=0.9371, probabilities=dict.fromkeys("abcdef", 0.1)
    )
    assert repr(found) == r"<Prediction of a\x1b[31m.png: cat, 93.71 %>"
    images = np.zeros((20, 3, 32, 32), dtype=np.uint8)
    data = gs.ImageData(
        train_images=images,
        train_labels=labels[:20],
        test_images=None,
        test_labels=None,
        class_names=("a", "b"),
    )
    assert repr(data) == "<ImageData: train images (20, 3, 32, 32), test images None, 2 classes>"


def test_a_run_whose_trials_all_fail_warns_though_it_is_quiet_and_filters_reach_it(home):
    with pytest.warns(GridsearchWarning, match="all 2 trials of study 'f' failed") as caught:
        run(home, {"a": [3], "b": [1, 2]})
    assert caught[0].filename == __file__, "the line that called"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GridsearchWarning)
        assert run(home, {"a": [3], "b": [1, 2]}).failed == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error", GridsearchWarning)
        with pytest.raises(GridsearchWarning, match="all 2"):
            run(home, {"a": [3], "b": [3, 4]})
    assert len(gs.load("f", home=home).trials) == 4, (
        "what was turned into an error came after all was written"
    )


def test_a_figure_shows_itself_as_one_picture_and_is_none_of_pyplot_s(home):
    import matplotlib.pyplot as plt
    from matplotlib.figure import Figure

    figure = run(home, {"a": [1, 2], "b": [1, 2]}).heatmap()
    assert isinstance(figure, Figure)
    assert type(figure).__name__ == "Figure"
    dpi = figure.get_dpi()
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert figure.get_dpi() == dpi
    assert plt.get_fignums() == []


def test_frames_of_a_study_without_trials_have_numeric_columns_all_the_same(home):
    result = run(home, {"a": [1]})
    nothing = reporting.trials_frame(
        type(result.data)(**{**{n: getattr(result.data, n) for n in result.data.__slots__}, "trials": ()})
    )
    assert isinstance(nothing, pd.DataFrame)
    assert str(nothing.value.dtype) == "float64"
