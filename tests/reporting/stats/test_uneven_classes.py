"""Where classes are uneven, that is said, and what holds of it stands beside accuracy."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gridsearch.records import DataFacts
from gridsearch.reporting.output.document import report_json
from gridsearch.reporting.output.frames import points_frame
from gridsearch.reporting.output.headline import headline
from gridsearch.reporting.output.page import render_page
from gridsearch.reporting.output.page_tables import point_columns, point_row
from gridsearch.reporting.ranking.ranking import rank


def test_where_classes_are_uneven_their_balanced_metrics_stand_beside_accuracy(study):
    builder = study({"batch": [1, 2]})
    builder.score(0, 0.95, balanced_accuracy=0.60, macro_f1=0.55)
    data = builder.score(1, 0.94, balanced_accuracy=0.80, macro_f1=0.78).data()
    ranking = rank(data)
    assert ranking.class_metrics == ("balanced_accuracy", "macro_f1")
    words = " ".join(headline(data, ranking).cautions)
    assert "classes are uneven" not in words  # nobody has counted them
    assert "By balanced accuracy batch=2 would be first, with 80.00 %" in words
    titles = [c.title for c in point_columns(ranking, data.axes)]
    assert {"balanced accuracy", "macro F1"} <= set(titles)
    assert (
        point_row(ranking.points[0], ranking, data.axes, frozenset()).cells[titles.index("balanced accuracy")]
        == "60.00 %"
    )
    frame = points_frame(data)
    assert list(frame["balanced_accuracy"]) == [0.60, 0.80]
    assert list(frame["macro_f1"]) == [0.55, 0.78]
    assert report_json(data)["trials"][0]["metrics"]["macro_f1"] == 0.55


def test_where_classes_are_even_the_tables_are_not_filled_with_the_same_again(study):
    data = study({"batch": [1]}).score(0, 0.95, balanced_accuracy=0.9501, macro_f1=0.95).data()
    ranking = rank(data)
    assert ranking.class_metrics == ()
    assert "balanced accuracy" not in [c.title for c in point_columns(ranking, data.axes)]
    assert "uneven" not in " ".join(headline(data, ranking).cautions)
    assert list(points_frame(data)["balanced_accuracy"]) == [0.9501]


def counted(data, *train, names=("cat", "dog", "owl"), doubts=()):
    """Give a study's images these numbers for each class."""
    facts = DataFacts(class_names=names[: len(train)], train=train, doubts=doubts)
    return replace(data, facts={data.trials[0].settings.data_fingerprint: facts})


def test_uneven_classes_of_other_images_are_not_said_to_be_the_winners(study):
    data = study({"batch": [1, 2]}).score(0, 0.9).score(1, 0.8).data()
    other = replace(data.trials[0], settings=replace(data.trials[0].settings, data_fingerprint="other"))
    counts = {"other": (2, 9), data.trials[1].settings.data_fingerprint: (9, 9)}
    facts = {name: DataFacts(class_names=("a", "b"), train=train) for name, train in counts.items()}
    data = replace(data, trials=(other, data.trials[1]), facts=facts)
    words = " ".join(headline(data, rank(data)).cautions)
    assert "The classes of some of the images are uneven (2 of a and 9 of b)" in words


def test_classes_are_called_uneven_by_their_numbers_and_not_by_their_metrics(study):
    data = study({"batch": [1]}).score(0, 0.95, balanced_accuracy=0.60, macro_f1=0.55).data()
    even, uneven = counted(data, 40, 40, 41), counted(data, 40, 400, 90)
    assert rank(even).class_metrics == ()
    assert "uneven" not in " ".join(headline(even, rank(even)).cautions)
    assert rank(uneven).class_metrics == ("balanced_accuracy", "macro_f1")
    assert "The classes are uneven (40 of cat and 400 of dog): balanced accuracy and macro F1" in " ".join(
        headline(uneven, rank(uneven)).cautions
    )


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=6))
def test_the_most_images_of_a_class_are_what_a_constant_answer_gets_right(train):
    facts = DataFacts(class_names=tuple("abcdef"[: len(train)]), train=tuple(train))
    name, share = facts.constant
    assert train["abcdef".index(name)] == max(train)
    assert share == max(train) / sum(train) >= 1 / len(train)
    assert facts.uneven == (max(train) / min(train) >= 1.25)
    assert DataFacts.from_json(facts.to_json()) == facts


def test_what_puts_the_winners_images_in_doubt_is_a_caution_and_the_constant_answer_a_figure(study):
    data = study({"batch": [1]}).score(0, 0.95).data()
    data = counted(data, 30, 90, doubts=("3 of 9 test images are training images too: no good",))
    ranking = rank(data)
    assert "3 of 9 test images are training images too: no good." in headline(data, ranking).cautions
    page = render_page(data, ranking)
    assert "<dt>majority-class baseline</dt><dd>75.00 % (dog)</dd>" in page
    assert "3 of 9 test images are training images too" in page
