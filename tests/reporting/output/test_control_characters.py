"""What reporting writes is safe to show with `cat`: no name of a user acts on the terminal, whatever it holds."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from gridsearch.errors import escaped
from gridsearch.records import TrialState
from gridsearch.reporting import (
    Side,
    export_json,
    per_class_csv,
    print_comparison,
    print_ranking,
    rank,
    ranking_csv,
    ranking_html,
    trials_csv,
)
from gridsearch.reporting.output.page import render_page
from gridsearch.reporting.output.plain_tables import epochs_table, to_csv
from gridsearch.reporting.ranking.comparison import compare

ACTS = "\x1b]0;title\x07\x1b[2J\x9b31mred\x7f\r\u202e\u2028"


@pytest.fixture
def data(study):
    """A study of which everything that users name acts on a terminal: axes, values, metrics, errors, images."""
    builder = study({f"model.{ACTS}": [ACTS, f"={ACTS}", 3], "lr": [0.1, 0.01]}, name=f"name {ACTS}")
    builder.lose(0, TrialState.FAILED, f"ValueError: {ACTS}")
    builder.score(1, 0.9, **{f"metric {ACTS}": 0.5})
    return builder.data(dataset=f"folder:{ACTS}", class_names=tuple(f"{i}{ACTS}" for i in range(10)))


def shown(renderable):
    out = io.StringIO()
    Console(file=out, width=120, no_color=True).print(renderable)
    return out.getvalue()


@pytest.mark.parametrize(
    "write",
    [
        trials_csv,
        ranking_csv,
        lambda data: to_csv(epochs_table(data)),
        export_json,
        lambda data: render_page(data, rank(data)),
        lambda data: ranking_html(data, rank(data)),
        lambda data: shown(print_ranking(data)),
        lambda data: shown(
            print_comparison(compare([Side(data=data, ranking=rank(data), predictions=lambda _: None)] * 2))
        ),
    ],
    ids=["trials.csv", "ranking.csv", "epochs", "json", "page", "notebook", "terminal", "comparison"],
)
def test_no_text_of_a_report_holds_a_character_that_acts(data, write):
    content = write(data)
    text = content if isinstance(content, str) else content.decode()
    assert "red" in text
    assert text == escaped(text)


def test_no_class_name_acts_in_the_table_of_classes(data, predictions):
    text = per_class_csv(predictions(10), data.class_names).decode()
    assert text.count("red") >= 10
    assert text == escaped(text)
