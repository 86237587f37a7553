"""Workers around one PostgreSQL, one of which is killed, train what one runner on this machine trains."""

from __future__ import annotations

import pytest

from tests.benchmarks.scale_engines import HOW, Program, grid, shared_store

pytestmark = pytest.mark.postgresql

WORDS = grid(20, epochs=8)


def test_three_workers_of_which_one_is_killed_train_each_trial_once_to_the_results_of_one_runner(
    cli, postgresql, new_database, tmp_path
):
    folder = tmp_path / "workers"
    folder.mkdir()
    found = shared_store(postgresql.url(new_database), runners=3, how=("--executor", "inline"))(folder, WORDS)
    assert found.killed == "one of 3 workers"
    assert (found.trials, len(found.accuracies), found.twice) == (20, 20, 0)
    assert found.again >= 1, "it held trials"
    done = cli("run", *WORDS, *HOW, "--executor", "inline", "--no-report", "-q")
    assert done.code == 0, done.err
    alone, *_ = Program(tmp_path).results()
    assert found.accuracies == alone
