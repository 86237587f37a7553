"""What Optuna's dashboard and TensorBoard show of a trial: pictures of the best alone, and curves without a gap."""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

import gridsearch as gs
from gridsearch.errors import StoreError
from gridsearch.records import EpochEnded, ImageSettings
from gridsearch.reporting import TensorBoardRun
from gridsearch.service.run import progress, recorder
from gridsearch.service.run.publisher import TrialPublisher
from gridsearch.store import Home, open_store

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


@pytest.fixture
def refused(monkeypatch):
    """The number of an error by which every appended write fails halfway, as the system's: it names no file."""
    error, opened = [], Path.open

    def failing(path, mode="r", *args, **how):
        file = opened(path, mode, *args, **how)
        if mode == "ab" and error:
            write = file.write

            def half(content):
                write(content[: len(content) // 2])
                file.flush()
                raise OSError(error[0], os.strerror(error[0]))

            return _Failing(file, half)
        return file

    monkeypatch.setattr(Path, "open", failing)
    return error


class _Failing:
    def __init__(self, file, write):
        self._file, self.write = file, write

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()


def begun(home):
    """A publisher with a trial's run of one epoch, and what adds another."""
    publisher = TrialPublisher(home, "digits")
    publisher.start(
        SimpleNamespace(id=7, number=3, params={}, seed=0, settings=ImageSettings(dataset="digits"))
    )

    def epoch(number):
        row = {"train_loss": 1.0, "train_accuracy": 0.5, "val_loss": 1.0, "val_accuracy": 0.5}
        publisher.epoch(
            EpochEnded(trial=7, attempt=1, epoch=number, lr=0.1, seconds=1.0, images_per_second=1.0, **row)
        )

    epoch(1)
    return epoch


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EFBIG])
def test_curves_that_cannot_be_written_are_told_with_their_place(tmp_path, refused, number):
    epoch = begun(Home(tmp_path))
    refused.append(number)
    with pytest.raises(StoreError, match="tensorboard/3"):
        epoch(2)


def test_a_curve_that_was_cut_off_as_home_went_away_is_whole_when_it_is_back(tmp_path, refused, monkeypatch):
    home = Home(tmp_path / "home")
    home.root.mkdir()
    epoch = begun(home := home.bound())
    refused.append(errno.EIO)
    with monkeypatch.context() as away:
        looks = iter([False, True])
        away.setattr(Home, "is_away", property(lambda _: next(looks, True)))
        epoch(2)
        epoch(3)
    refused.clear()
    epoch(4)
    (file,) = home.tensorboard_dir("digits", 3).iterdir()
    from tensorboard.backend.event_processing import event_file_loader

    steps = [event.step for event in event_file_loader.EventFileLoader(str(file)).Load()]
    assert [step for step in dict.fromkeys(steps) if step] == [1, 2, 3, 4]
