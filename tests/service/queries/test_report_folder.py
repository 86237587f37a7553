"""Reports in one folder at the same time, killed ones, and one whose study is deleted while it is drawn."""

from __future__ import annotations

import shutil
from contextlib import contextmanager

import pytest

from gridsearch import files
from gridsearch.service.queries import report_folder
from gridsearch.store import Home
from gridsearch.zoo.datasets.cache import exclusive

pytestmark = pytest.mark.usefixtures("undrawn")

RUN = (
    "run",
    "--objective",
    "fit.py:fit",
    "--metric",
    "loss",
    "--direction",
    "minimize",
    "--executor",
    "inline",
)


@pytest.fixture
def made(cli, home, tmp_path):
    """The folder of a study's report, with what a killed one has left in it and in that of a part."""
    (tmp_path / "fit.py").write_text("def fit(params, seed):\n    return {'loss': params['x']}\n")
    assert cli(*RUN, "--grid", "x=1,2").code == 0
    assert cli("report", "--where", "x=1").code == 0
    for folder in (home / "fit" / "report", home / "fit" / "report-x=1"):
        (folder / f"{files.PARTIAL}0a1b2c3d4e5f.png").write_bytes(b"half of it")
    return home / "fit" / "report"


def drafts(home):
    return sorted(path.parent.name for path in home.rglob(f"{files.PARTIAL}*"))


def test_the_next_report_removes_what_a_killed_one_has_left(cli, made, home):
    assert cli("report").code == 0
    assert drafts(home) == ["report-x=1"]
    assert cli("report", "--where", "x=1").code == 0
    assert drafts(home) == []
    assert not (made / files.LOCK).exists()


def test_clean_removes_what_killed_reports_have_left_but_not_while_one_is_written(cli, made, home):
    with exclusive(made):
        (made / f"{files.PARTIAL}5f4e3d2c1b0a.png").write_bytes(b"being written")
        assert cli("study", "clean", "fit", "--json").json["freed_bytes"] == 0
    assert drafts(home) == ["report", "report-x=1"]
    cleaned = cli("study", "clean", "fit", "--json").json
    assert cleaned["freed_bytes"] == len(b"being written") + len(b"half of it")
    assert drafts(home) == []


def test_a_study_that_is_deleted_while_its_report_is_drawn_leaves_no_folder(cli, made, home, monkeypatch):
    write = Home.write_beside

    def deleted_meanwhile(self, path, content):
        with monkeypatch.context() as patch:
            patch.setattr(Home, "write_beside", write)
            cli("study", "delete", "fit", "--yes")
        return write(self, path, content)

    monkeypatch.setattr(Home, "write_beside", deleted_meanwhile)
    report = cli("report")
    assert report.code == 4
    assert report.error == "no study named 'fit'; studies here: none yet"
    assert not (home / "fit").exists()
    assert not list(home.glob(f"{files.DELETED}*"))


def test_a_report_that_waited_for_another_shows_what_has_come_meanwhile(cli, made, monkeypatch):
    @contextmanager
    def held_by_another(folder, *, say):
        assert cli(*RUN, "--grid", "x=1,2,3", "--no-report").code == 0
        say("another process works there")
        with exclusive(folder) as hold:
            yield hold

    monkeypatch.setattr(report_folder, "exclusive", held_by_another)
    assert cli("report", "--json").json["counts"]["complete"] == 3


def test_a_report_is_whole_where_the_dashboard_cannot_be_given_its_heatmaps(cli, made, home):
    """A colleague's store that may only be read, or something in the way of the copies: the numbers are there."""
    shutil.rmtree(home / files.DASHBOARD_COPIES)
    (home / files.DASHBOARD_COPIES).write_text("in the way")
    found = cli("report")
    assert found.code == 0
    assert "is best" in found.out
    assert "does not show the heatmaps of this report" in found.err
