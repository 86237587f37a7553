"""TensorBoard's runs say what they are: `study/3 lr=0.1 batch=16`; their files stay where they are."""

from __future__ import annotations

import pytest
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer

from gridsearch.records import TrialState
from gridsearch.reporting.output.tensorboard import TensorBoardRun
from gridsearch.service.prepare.options import Places
from gridsearch.service.queries.named_runs import NamedRuns
from gridsearch.store import Home

FIT = "def f(params, seed):\n    return {'value': params['x']}\n"


@pytest.fixture
def made(cli, tmp_path):
    """Make studies of a function, whose trials write their runs."""
    (tmp_path / "fit.py").write_text(FIT)

    def make(study: str, *grid: str, seeds: int = 1) -> Places:
        words = ("--objective", "fit.py:f", "--executor", "inline", "--no-report", "--seeds", str(seeds))
        assert cli("run", *words, "--study", study, "--grid", *grid).code == 0
        return Places.find()

    return make


def seen(folder) -> set[str]:
    """Return the runs that TensorBoard finds."""
    return set(EventMultiplexer().AddRunsFromDirectory(str(folder)).Runs())


def test_runs_are_named_by_study_number_and_params_and_those_that_begin_later_too(made, tmp_path, home):
    places = made("old", "x=1")
    made("new", "x=1,2", "way=a/b,../c")
    (tmp_path / "view").mkdir()
    view = NamedRuns(tmp_path / "view", places)
    assert (view.study, view.others) == ("new", 1)
    first = {"new/0 x=1 way=a_b", "new/1 x=1 way=.._c", "new/2 x=2 way=a_b", "new/3 x=2 way=.._c"}
    assert seen(view.folder) == first
    made("new", "x=3", "way=d")
    run = TensorBoardRun(Home(home).tensorboard_dir("new", 77))  # of no trial that the ledger knows
    run.start({})
    run.finish({"value": 1.0}, state=TrialState.COMPLETE)
    view.refresh()
    assert seen(view.folder) == first | {"new/4 x=3 way=d", "new/77"}
    assert (home / "new" / "tensorboard" / "1").is_dir(), "the files of a trial stay under its number"


def test_all_studies_are_shown_on_request_and_seeds_where_there_are_several(made, tmp_path):
    made("one", "x=1")
    places = made("two", "x=1", seeds=2)
    (tmp_path / "view").mkdir()
    view = NamedRuns(tmp_path / "view", places, every=True)
    assert seen(view.folder) == {"one/0 x=1", "two/0 x=1 seed=0", "two/1 x=1 seed=1"}


def test_a_long_name_is_cut_to_what_a_file_may_bear(made, tmp_path):
    places = made("long", "word=" + 300 * "\N{GREEK SMALL LETTER ALPHA}", "x=1")
    (tmp_path / "view").mkdir()
    (name,) = seen(NamedRuns(tmp_path / "view", places, study="long").folder)
    assert name.startswith("long/0 word=\N{GREEK SMALL LETTER ALPHA}")
    assert len(name.encode()) <= 210
