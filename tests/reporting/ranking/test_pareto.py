"""The Pareto front: what beats what, with intervals, whatever the order; asked for in words."""

from __future__ import annotations

import io
import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text
from rich.console import Console

from gridsearch.errors import ArtifactError, UsageError
from gridsearch.reporting.figures.front_figure import pareto_figure
from gridsearch.reporting.output.page import render_page
from gridsearch.reporting.output.pareto_table import pareto_frame
from gridsearch.reporting.output.pareto_table import rows as rows_of
from gridsearch.reporting.output.terminal import print_ranking
from gridsearch.reporting.ranking.fronts import pareto_front
from gridsearch.reporting.ranking.pareto import front_words, quantities_of
from gridsearch.reporting.ranking.points import point_key
from gridsearch.reporting.ranking.ranking import rank


def made(study, rows, *, words="accuracy,parameters,latency"):
    """Return the front of points with these accuracies, parameters and latencies (median of equal quartiles)."""
    built = study({"batch": [10 * (i + 1) for i in range(len(rows))]})
    for number, (accuracy, parameters, _) in enumerate(rows):
        built.score(number, accuracy, parameters=parameters)
    data = built.data()
    ranking = rank(data)
    latencies = {
        point_key(built.records[i].settings): (ms, 0.9 * ms, 1.1 * ms) for i, (_, _, ms) in enumerate(rows)
    }
    return pareto_front(
        data, ranking, quantities_of([words]), predictions=lambda _: None, latencies=latencies, measured={}
    )


def numbers(candidates):
    return {c.point.trials[0].number for c in candidates}


def test_a_point_is_on_the_front_unless_another_is_as_good_in_all_and_better_in_one(study):
    rows = [(0.9, 1000, 2.0), (0.9, 900, 2.0), (0.8, 100, 1.0), (0.7, 100, 3.0), (0.95, 5000, 9.0)]
    found = made(study, rows)
    assert numbers(found.front) == {1, 2, 4}
    assert [c.values[0] for c in found.front] == [0.95, 0.9, 0.8]


def test_less_is_better_of_a_loss_and_of_costs(study):
    built = study({"batch": [10, 20]})
    for number, (loss, parameters) in enumerate([(0.3, 10), (0.2, 20)]):
        built.score(number, 0.5, val_loss=loss, parameters=parameters)
    data = built.data()
    found = pareto_front(
        data,
        rank(data),
        quantities_of(["loss,parameters"]),
        predictions=lambda _: None,
        latencies={},
        measured={},
    )
    assert numbers(found.front) == {0, 1}
    assert found.front[0].values == (0.2, 20)


def test_a_beaten_point_stays_open_where_the_intervals_allow_that_nothing_beats_it(study):
    close, far = (
        made(study, [(0.9, 100, 1.0), (0.9, 100, 1.05)]),
        made(study, [(0.9, 100, 1.0), (0.9, 100, 9.0)]),
    )
    assert [(c.front, c.open) for c in close.candidates] == [(True, False), (False, True)]
    assert [(c.front, c.open) for c in far.candidates] == [(True, False), (False, False)]


@given(
    rows=st.lists(
        st.tuples(st.sampled_from([0.5, 0.6, 0.7]), st.sampled_from([1, 2, 3]), st.sampled_from([1.0, 2.0])),
        min_size=1,
        max_size=7,
    )
)
def test_whatever_the_points_each_one_off_the_front_is_beaten_by_one_on_it(study, rows):
    found = made(study, rows)
    keys = [(-c.values[0], c.values[1], c.values[2]) for c in found.candidates]

    def beats(one, other):
        return one != other and all(a <= b for a, b in zip(one, other, strict=True))

    for mine, candidate in zip(keys, found.candidates, strict=True):
        assert candidate.front == (not any(beats(other, mine) for other in keys))
        front = [k for k, c in zip(keys, found.candidates, strict=True) if c.front]
        assert candidate.front or any(beats(other, mine) for other in front)
        assert not (candidate.front and candidate.open)


def test_points_without_a_quantity_are_left_out_and_counted(study):
    built = study({"batch": [10, 20, 30]}).score(0, 0.9, parameters=5).score(1, 0.8, parameters=4)
    data = built.data()

    def front(words):
        return pareto_front(
            data, rank(data), quantities_of([words]), predictions=lambda _: None, latencies={}, measured={}
        )

    found = front("accuracy,parameters")
    assert (len(found.candidates), found.left_out) == (2, 1)
    assert "1 point without all of these" in front_words(found)
    with pytest.raises(ArtifactError, match="no point of study 'fmnist' has all of"):
        front("accuracy,latency")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["accuracy,latensy"], "unknown quantity 'latensy'; did you mean 'latency'?"),
        (["accuracy"], "takes two quantities or more"),
        (["loss,loss"], "val_loss is given twice"),
        (["accuracy,"], "unknown quantity ''"),
    ],
)
def test_an_unknown_quantity_is_an_error_that_names_the_nearest(words, message):
    with pytest.raises(UsageError, match=message.replace("?", r"\?")):
        quantities_of(words)


def test_a_recall_of_a_class_whose_name_has_commas_is_a_word_of_its_own():
    found = quantities_of(["recall:a,b", "parameters,seconds"])
    assert [q.name for q in found] == ["recall:a,b", "parameters", "seconds"]


def test_figure_frame_and_json_show_the_front(study):
    rows = [
        (a, p, ms)
        for (a, p), ms in zip(itertools.product([0.7, 0.8, 0.9], [100, 90_000]), range(1, 7), strict=True)
    ]
    found = made(study, rows)
    figure = pareto_figure(found, ["batch"])
    assert len([a for a in figure.axes if a.get_visible()]) == 2
    cells = rows_of(found, ["batch"])[0]
    assert cells == ["batch=50", "90.00 %", "100", "5 ms [4.5, 5.5]", "front"]
    frame = pareto_frame(found)
    assert list(frame.front).count(True) == len(found.front)
    assert (frame.dtypes["batch"], frame.dtypes["front"]) == ("int64", "bool")
    assert frame.dtypes["parameters_low"] == "float64", "an interval that there is not is NaN"
    assert frame.parameters_low.isna().all()
    assert list(frame.latency_low) == pytest.approx([0.9 * x for x in frame.latency])
    content = found.to_json()
    assert [q["direction"] for q in content["quantities"]] == ["maximize", "minimize", "minimize"]
    assert content["points"][0]["intervals"]["latency"] == list(found.candidates[0].ends[2])


def test_points_of_the_front_beyond_the_tables_are_counted(study):
    rows = [(0.5 + i / 100, 1000 + i, 1.0) for i in range(25)]
    built = study({"batch": [10 * (i + 1) for i in range(25)]}, epochs=1)
    for number, (accuracy, parameters, _) in enumerate(rows):
        built.score(number, accuracy, parameters=parameters)
    data, found = built.data(), made(study, rows, words="accuracy,parameters")
    ranking = replace(rank(data), pareto=found)
    assert len(found.front) == 25
    page = " ".join(render_page(data, ranking).split())
    assert "… and 5 more in ranking.json." in page.partition("Best trade-offs")[2]
    out = io.StringIO()
    print_ranking(data, console=Console(file=out, width=100), limit=10, ranking=ranking)
    before, front, behind = out.getvalue().partition("By validation accuracy")
    assert "… and 15 more" in before and front and behind.count("… and 5 more") == 1 == behind.count("… and")
    note = " ".join(text.get_text() for text in pareto_figure(found, ["batch"]).findobj(Text))
    assert "Numbered: the first 8 of 25 of which no other point is as good" in " ".join(note.split())


def test_long_times_are_not_written_as_powers_of_ten(study):
    built = study({"batch": [10, 20]})
    for number, seconds in enumerate([4321.0, 12345.0]):
        built.score(number, 0.8 + number / 10).change(number, seconds=seconds)
    data = built.data()
    front = pareto_front(
        data, rank(data), quantities_of(["accuracy,seconds"]), predictions=lambda _: None, latencies={}, measured={}
    )  # fmt: skip
    assert [row[2] for row in rows_of(front, ["batch"])] == ["3 h 25 min", "1 h 12 min"]
