"""What Optuna's dashboard and TensorBoard show of a trial: pictures of the best alone."""

from __future__ import annotations

import gridsearch as gs
from gridsearch.service.run import progress
from gridsearch.store import open_store

PICTURES = {"confusion.png", "per_class.csv"}


def test_pictures_are_drawn_of_the_trials_that_are_among_the_best_when_they_end(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "PICTURED", 1)
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
    assert values[2] < values[0] < values[1]
    assert drawn == [True, True, False]
