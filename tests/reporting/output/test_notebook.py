"""What a notebook shows of a result: short, and text whatever names hold."""

import re

from gridsearch.api.result import StudyResult
from gridsearch.reporting import effects_frame, ensembles_frame, rank, ranking_html


def test_a_result_shows_its_headline_and_at_most_ten_points(study):
    data = study({"lr": [x / 100 for x in range(1, 16)]}, seeds=2).data()
    text = StudyResult(data, rank(data))._repr_html_()
    assert text.count("<tr>") == 11
    assert "is best" in text
    assert "and 5 more points" in text


def test_hostile_names_stay_text_in_a_notebook(study, hostile):
    data = study({"model.x": list(hostile[:9]), "lr": [0.1]}, name="<img src=x>").data(dataset="<script>")
    text = ranking_html(data, rank(data))
    tags = set(re.findall(r"<\s*/?\s*([a-zA-Z!]+)", text))
    assert tags == {"p", "strong", "table", "thead", "tbody", "tr", "th", "td"}


def test_effects_and_ensembles_are_frames_with_the_numbers_of_the_json(study, predictions):
    data = study({"lr": [0.1, 0.01], "batch": [10, 20]}, seeds=2).data()
    ranking = rank(data, predictions=lambda _: predictions(10))
    assert effects_frame(ranking).axis.iloc[0] == "lr"
    assert 0.9 < effects_frame(ranking).share.sum() <= 1.0001
    frame = ensembles_frame(ranking)
    assert list(frame.points) == [2, 3]
    assert list(frame.val_accuracy) == [e.accuracy for e in ranking.ensembles]
    assert list(ensembles_frame(rank(data)).columns) == list(frame.columns)
