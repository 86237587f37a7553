"""A home whose store is gone: a file system that is not mounted, a file removed by hand, a copy that was not whole."""

from __future__ import annotations

import shutil

import pytest

from gridsearch import files
from gridsearch.service.prepare.options import Places
from gridsearch.service.queries import doctor

RUN = ("run", "--objective", "fit.py:fit", "--no-report", "--executor", "inline", "--grid", "x=1,2")


@pytest.fixture
def lost(cli, home, tmp_path):
    """Where the store of a finished study is now."""
    (tmp_path / "fit.py").write_text("def fit(params, seed):\n    return {'value': params['x']}\n")
    assert cli(*RUN).code == 0
    return shutil.move(home / files.DATABASE, tmp_path / "away.db")


@pytest.mark.parametrize(
    "words",
    [("status",), ("study", "list"), ("report", "--study", "fit"), ("trial", "0"), ("status", "--json")],
)
def test_a_store_that_is_gone_does_not_pass_for_one_that_never_was(cli, lost, home, words):
    found = cli(*words)
    assert found.code == 4
    assert found.error.endswith(f"is gone: {home} still has files of its studies fit")
    assert "restore a copy" in found.err
    (said,) = doctor._store(Places.find(home))
    assert (said.verdict, said.detail) == ("bad", found.error)
    shutil.move(lost, home / files.DATABASE)
    assert cli("status", "--json").json["studies"][0]["counts"]["complete"] == 2


def test_a_run_without_the_store_begins_anew_and_says_where_the_files_are(cli, lost, home, caplog):
    found = cli(*RUN)
    assert found.code == 0
    (aside,) = (home / "fit").glob(f"{files.EARLIER}*")
    assert "held files of an earlier study 'fit', which this store does not hold" in caplog.text
    assert f"they are in {aside.name} now" in caplog.text
    assert cli("status", "--json").json["studies"][0]["counts"]["complete"] == 2


def test_a_trial_does_not_go_on_in_the_log_of_one_that_a_restored_store_does_not_know(
    cli, lost, home, tmp_path
):
    """A copy of the store that is older than the home: its next trials bear the numbers of those made since."""
    shutil.copy(lost, home / files.DATABASE)
    (tmp_path / "fit.py").write_text(
        "def fit(params, seed):\n    print('x is', params['x'])\n    return {'value': params['x']}\n"
    )
    more = (*RUN[:-1], "x=3,4")
    assert cli(*more).code == 0
    shutil.copy(lost, home / files.DATABASE)
    assert cli(*more[:-1], "x=7").code == 0
    assert (home / "fit" / "trials" / "2" / "log").read_text() == "x is 7\n"
    (earlier,) = (home / "fit" / "trials" / "2").glob(f"{files.EARLIER}*")
    assert earlier.read_text() == "x is 3\n"
    assert cli("study", "clean", "fit").code == 0
    assert not earlier.exists()
