"""What Optuna's dashboard and TensorBoard show of a trial: pictures of the best alone."""

from __future__ import annotations

import math

import gridsearch as gs
from gridsearch.reporting import TensorBoardRun
from gridsearch.service.run import progress, recorder
from gridsearch.store import open_store

PICTURES = {"confusion.png", "per_class.csv"}


def test_where_results_come_fast_pictures_are_drawn_of_the_best_alone_when_the_run_ends(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(progress, "PICTURED", 1)
    monkeypatch.setattr(recorder, "_QUIET_SECONDS", math.inf)
    gs.run(
        grid={"lr": [1e-4, 0.01, 1e-9]},
        dataset="digits",
        model="mlp",
        epochs=1,
        lanes=1,
        workers=1,
        home=tmp_path,
        executor="inline",
        report=False,
        quiet=True,
    )
    with open_store(f"sqlite:///{tmp_path / 'gridsearch.db'}", home=tmp_path, create=False) as store:
        values = [trial.value for trial in store.study_data("digits").trials]
        drawn = [set(store.artifacts("digits", number)) >= PICTURES for number in range(3)]
        board = TensorBoardRun(store.home.tensorboard_dir("digits", 1)).folder
    assert values[2] < values[0] < values[1]
    assert drawn == [False, True, False]
    assert b"\x89PNG" in b"".join(path.read_bytes() for path in board.iterdir())
