"""What Optuna's dashboard shows beside a study is a page to read, and says of no point what is not so."""

from __future__ import annotations

import re

from gridsearch.advice import Advice
from gridsearch.spec import build
from gridsearch.store import StudyDraft
from gridsearch.store.note_pages import study_page, trial_page

HOW = {
    "exclude": ["lr=.1 batch=16 optimizer=adam"],
    "when": ["momentum: optimizer=sgd"],
    "options": {"dataset": "digits", "model": "mlp", "epochs": 3, "seeds": 2},
    "settings": ["label_smoothing=.1"],
}


def page(words, commands=("gridsearch run",), **how):
    spec = build(words=words, **how)
    draft = StudyDraft(
        name="s", dataset="digits", metric="val_accuracy", command="gridsearch run", spec=spec.to_json()
    )
    return study_page(draft, commands)


def tables(text):
    """The rows of each table by the heading above it."""
    parts = re.split(r"^## (.*)$", text, flags=re.MULTILINE)
    rows = (re.findall(r"^\| (.*?) \| (.*?) \|$", part, flags=re.MULTILINE)[1:] for part in parts[2::2])
    return {head: dict(row) for head, row in zip(parts[1::2], rows, strict=True)}


def test_a_setting_that_the_grid_varies_is_not_called_the_same_for_all_points():
    text = page(["lr=.1,.01", "batch=16,32", "momentum=0,.9", "optimizer=sgd,adam"], **HOW)
    found = tables(text)
    grid, same = found["The grid"], found["The same for all points of the grid"]
    assert grid == {"lr": "0.1, 0.01", "batch": "16, 32", "momentum": "0, 0.9", "optimizer": "sgd, adam"}
    assert not set(grid) & set(same)
    assert (same["label\\_smoothing"], same["epochs"], same["model"]) == ("0.1", "3", "mlp")
    assert (same["weight\\_decay"], same["mixup"]) == ("0", "0"), "as they are typed"
    assert "- without `lr=0.1 batch=16 optimizer=adam`\n- `momentum` only where `optimizer=sgd`" in text


def test_pairs_are_axes_too_and_a_study_of_several_commands_says_so():
    assert not {"lr", "batch"} & set(
        tables(page(["lr,batch=.01/16,.1/32"]))["The same for all points of the grid"]
    )
    assert "earlier commands may have added other points" not in page(["lr=.1,.01"])
    assert "earlier commands may have added other points" in page(["lr=.1,.01"], ["gridsearch run"] * 2)


def test_text_of_others_stays_text():
    draft = StudyDraft(
        name="s",
        dataset="<b>|`x`",
        metric="m",
        command="c",
        spec={"grid": {"axes": ["a|b=<i>"]}, "note": "a\n| b"},
    )
    text = study_page(draft, ["gridsearch run"])
    assert "\\<b\\>\\|\\`x\\`" in text
    assert "| a\\|b | \\<i\\> |" in text
    assert "| note | a \\| b |" in text


def test_a_trials_page_says_where_its_curves_are(make):
    (draft,) = make.drafts({"lr": [0.1]})
    assert trial_page(Advice(study="s"), 3, draft).startswith(
        "Curves and log: `gridsearch trial 3 --study s`"
    )
