"""While home itself is away, a run's results wait elsewhere, and nothing is made at its place."""

from __future__ import annotations

import pytest

from gridsearch.errors import StoreUnreachable
from tests.store.away.ways_away import moved


def test_while_home_itself_is_away_its_results_wait_in_a_temporary_folder_and_home_is_not_made_anew(
    store, run, make, home, tmp_path
):
    with moved(home):
        assert run.store.finish_many([make.finished(run.trials[0], 0.7)]) == [True]
        run.store.tend()
        assert run.store.away
        assert not home.exists()
        assert list(tmp_path.glob("gridsearch-*/*/*.json"))
    run.store.tend()
    assert store.study_data("digits").trials[0].value == 0.7
    run.store.close()
    assert not list(tmp_path.glob("gridsearch-*"))


def test_while_home_is_unmounted_nothing_is_written_below_its_place(store, run, make, home, tmp_path):
    """A mount point stays when what was mounted there goes."""
    elsewhere = tmp_path / "unmounted"
    home.rename(elsewhere)
    home.mkdir()
    run.store.append_log(0, "printed meanwhile\n")
    run.store.finish_many([make.finished(run.trials[0], 0.7)])
    run.store.tend()
    assert run.store.away
    assert list(home.iterdir()) == []
    home.rmdir()
    elsewhere.rename(home)
    run.store.tend()
    assert not run.store.away
    assert store.study_data("digits").trials[0].value == 0.7
    assert store.home.log("digits", 0).read_text() == "printed meanwhile\n"


def test_nothing_that_is_asked_of_home_while_it_is_away_makes_a_folder(run, home):
    run.store.home.make_scratch("digits", 0, 1)
    with moved(home):
        for write in (
            lambda: run.store.home.make_scratch("digits", 1, 1),
            lambda: run.store.home.append_log("digits", 0, "text"),
            lambda: run.store.home.tensorboard_dir("digits", 0),
        ):
            with pytest.raises(StoreUnreachable, match="is not there"):
                write()
        run.store.home.leave_scratch("digits", 0, 1)
        run.store.home.drop_scratch("digits", 0)
        assert not home.exists()
