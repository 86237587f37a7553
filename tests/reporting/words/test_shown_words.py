"""A value that is shown in a table is told apart from any other, and means that one where it is typed again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsearch.records import TrialState
from gridsearch.reporting.findings.study_findings import find
from gridsearch.reporting.ranking.ranking import rank
from gridsearch.reporting.words.text import show_param, show_params
from gridsearch.reporting.words.typed import matching

BLANK = ["a b", "a\nb", " a b", "a b ", "a  b", "a\tb", "a\u00a0b", "a\u200bb", "ab", "a\u00adb"]


def test_words_that_differ_in_what_nobody_sees_are_shown_apart_and_found_again():
    shown = [show_param({"p": value}, "p") for value in BLANK]
    assert shown[0] == "a b" and len(set(shown)) == len(BLANK)
    assert [matching(word, BLANK) for word in shown] == [[value] for value in BLANK]


@given(st.text(alphabet="a =\n\t\u00a0\u200b\"'\\\x1b\u202e", max_size=6))
def test_a_word_is_shown_on_one_line_and_means_itself(value):
    shown = show_params({"p": value}).removeprefix("p=")
    assert "\n" not in shown and "\x1b" not in shown
    if any(c in value for c in "\n\t\u00a0\u200b") or value != " ".join(value.split(" ")).strip():
        assert matching(shown, [value, "a"]) == [value]


def test_a_word_that_would_read_as_two_settings_is_in_quotes():
    assert show_params({"p": "a q=1", "q": 1}) == 'p="a q=1" q=1'
    assert show_params({"p": "a q", "q": 1}) == "p=a q q=1"


@pytest.mark.parametrize(
    ("value", "words"), [("bad  one", 'model.mode="bad \\u0020one"'), ("x", "model.mode=x")]
)
def test_a_finding_names_a_value_as_the_tables_do(study, value, words):
    builder = study({"model.mode": ["ok", value], "batch": [10, 20, 30, 40, 50]}, seeds=2)
    for record in list(builder.records):
        if record.params["model.mode"] == value:
            builder.lose(record.number, TrialState.FAILED, "ValueError: no")
    data = builder.data()
    (failing,) = [f for f in find(data, rank(data)) if f.code == "GS105"]
    assert f" with {words} failed in the same way" in failing.sentence
