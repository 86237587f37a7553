"""`report` with several studies or trials: what is there is compared, what is not is said in one line."""

import json

import pytest

pytestmark = [pytest.mark.end_to_end, pytest.mark.usefixtures("undrawn")]


@pytest.fixture
def two(exported, cli, monkeypatch):
    """A home with the study `digits` and a copy of half of it, `half`, trained anew."""
    monkeypatch.setenv("GRIDSEARCH_HOME", str(exported.home))
    words = [
        "--grid",
        "lr=.01,.02",
        "--dataset",
        "digits",
        "--model",
        "lenet",
        "--epochs",
        "2",
        "--executor",
        "inline",
        "--no-report",
        "-q",
    ]
    assert cli("run", "--study", "half", *words).code == 0
    return exported.home


def test_two_studies_are_compared_on_a_page_of_their_own(two, cli):
    result = cli("report", "--study", "digits", "--study", "half")
    assert result.code == 0, result.err
    page = two / "digits+half" / "index.html"
    assert str(page) in result.out and page.exists()
    assert "1 point that both studies have" in " ".join(result.out.split())
    found = cli("report", "--study", "digits", "--study", "half", "--json").json
    assert found["page"] == str(page)
    assert {s["study"] for s in found["studies"]} == {"digits", "half"}
    assert [p["params"]["lr"] for p in found["shared_points"]] == [0.01]
    stored = json.loads((two / "digits+half" / "comparison.json").read_text())
    assert stored == {k: v for k, v in found.items() if k != "page"}
    assert not (two / "half" / "report").exists()


def test_parts_are_reported_and_compared_beside_the_whole_never_over_it(two, cli):
    assert cli("report", "--study", "digits").code == 0
    assert cli("report", "--study", "digits", "--study", "half").code == 0
    whole = (two / "digits" / "report", two / "digits+half")
    before = [f.read_bytes() for folder in whole for f in sorted(folder.iterdir()) if f.suffix != ".html"]
    result = cli("report", "--study", "digits", "--where", "lr=.01")
    assert "Only trials with lr=0.01: " in result.out.splitlines()[0]
    assert str(two / "digits" / "report-lr=0.01" / "index.html") in result.out
    assert cli("report", "--study", "digits", "--where", "lr=.01", "--json").json["part"]["where"] == {
        "lr": 0.01
    }
    result = cli("report", "--study", "digits", "--study", "half", "--where", "lr=.01")
    assert "half: Only trials with lr=0.01: 1 of 2." in result.out
    assert (two / "digits+half+lr=0.01" / "index.html").exists()
    after = [f.read_bytes() for folder in whole for f in sorted(folder.iterdir()) if f.suffix != ".html"]
    assert after == before
    assert "Only trials with lr=0.01" in (whole[0] / "index.html").read_text()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--study", "half", "--where", "lr=.01", "lr=.02"], 2, "lr is given twice"),
        (["--study", "half", "--where", "lr=.01", "learning_rate=.02"], 2, "names of one setting"),
        (["--study", "nope"], 4, "no study named 'nope'"),
        (["--study", "digits"], 2, "given twice"),
        (["--study", "half", "--trial", "1"], 2, "--trial takes one --study"),
        (["--study", "half", "--where", "lr=5"], 2, "no trial of study"),
    ],
)
def test_what_cannot_be_compared_is_one_line(two, cli, words, code, told):
    result = cli("report", "--study", "digits", *words)
    assert result.code == code
    assert told in result.error
    assert not list(two.glob("*+*"))


def test_trials_are_drawn_side_by_side_and_a_later_report_leaves_the_figure(two, cli):
    result = cli("report", "--study", "digits", "--trial", "0", "--trial", "3")
    assert result.code == 0, result.err
    figures = [two / "digits" / "report" / f"trials-0-3-confusion.{kind}" for kind in ("png", "svg")]
    assert all(f"figure: {f}" in result.out for f in figures)
    assert " predicted as " in result.out
    page = two / "digits" / "report" / "trials-0-3.html"
    assert f"page: {page}" in result.out and page.exists()
    found = cli("report", "--study", "digits", "--trial", "0", "--trial", "3", "--json").json
    assert [t["number"] for t in found["trials"]] == [0, 3]
    assert found["page"] == str(page)
    shown = cli("trial", "3", "--study", "digits", "--json").json["trial"]
    assert found["trials"][1]["accuracy"] == pytest.approx(shown["val_accuracy"])
    assert cli("report", "--study", "digits").code == 0
    assert all(f.exists() for f in figures)


def test_a_trial_whose_predictions_are_altered_or_gone_is_said_and_the_others_are_drawn(two, cli):
    stored = two / "digits" / "trials"
    (stored / "1" / "predictions.safetensors").write_bytes(b"x")
    (stored / "2" / "predictions.safetensors").unlink()
    result = cli("report", "--study", "digits", *(w for n in "0123" for w in ("--trial", n)))
    assert result.code == 0
    assert (two / "digits" / "report" / "trials-0-3-confusion.png").exists()
    assert len([line for line in result.err.splitlines() if "predictions.safetensors" in line]) == 2
    alone = cli("report", "--study", "digits", "--trial", "2")
    assert alone.code == 4
    assert "predictions.safetensors" in alone.error
    assert cli("report", "--study", "digits", "--trial", "99").code == 4
