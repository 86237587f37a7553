"""A refit that is ended goes on from its checkpoints, in the next `best`, and exports the same bytes."""

from __future__ import annotations

import shutil
import signal

import pytest

from gridsearch.errors import StoreError, StoreUnreachable, StudyDeleted, StudyNotFound, TrainingFailed
from gridsearch.executors.inline import InlineExecutor
from gridsearch.records import EpochEnded, Pack, PackEnded, WorkerDied
from gridsearch.service.prepare.options import Places, RunOptions
from gridsearch.service.queries import studies
from gridsearch.service.queries.studies import existing
from gridsearch.service.run import patience
from gridsearch.service.run.progress import Silent
from gridsearch.service.winner.best import best
from gridsearch.service.winner.refit import Refit
from gridsearch.store import Home, Store
from gridsearch.zoo.datasets.cache import exclusive

pytestmark = pytest.mark.usefixtures("no_graph")

EPOCHS = 6


class Watcher(Silent):
    """Keeps what is said, and acts once the first seed has come so far in its first attempt."""

    def __init__(self, epoch=0, act=lambda: None):
        self.said = []
        self.epochs = []
        self._epoch, self._act = epoch, act

    def say(self, message):
        self.said.append(message)

    warn = say

    def updated(self, progress):
        reached = [running.epoch for running in progress.running.values()]
        self.epochs += reached[:1]
        if self._epoch and max(reached, default=0) >= self._epoch:
            self._epoch = 0
            self._act()


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    import gridsearch as gs

    home = tmp_path_factory.mktemp("continued")
    how = {"home": home / "home", "executor": "inline", "quiet": True, "report": False}
    grid = {"lr": [0.01], "model.hidden": [8]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRIDSEARCH_CACHE", str(home / "cache"))
        gs.run(grid=grid, dataset="digits", model="mlp", subset=300, epochs=EPOCHS, seeds=2, **how)
    return home / "home"


@pytest.fixture
def refit(searched, home, tmp_path, monkeypatch):
    """Call `best` of a copy of the study."""
    monkeypatch.setenv("GRIDSEARCH_CACHE", str(searched.parent / "cache"))
    shutil.copytree(searched, home)

    def call(watcher=None, *, home=home, **how):
        options = RunOptions(places=Places.find(home), executor="inline", checkpoint=0.0, **how)
        return best("digits", options, observer=watcher)

    return call


@pytest.fixture
def unbroken(refit, searched, tmp_path):
    place = tmp_path / "unbroken"
    shutil.copytree(searched, place)
    return contents(refit(home=place))


def contents(found):
    """What an export holds that does not tell when it was made."""
    test = {name: value for name, value in found.test.items() if name not in ("when", "export")}
    return (found.folder / "model.safetensors").read_bytes(), test


def twice():
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)


def test_after_a_kill_it_goes_on_where_it_stood_and_exports_the_same_bytes(refit, unbroken, home):
    with pytest.raises(KeyboardInterrupt):
        refit(Watcher(3, twice))
    watcher = Watcher()
    found = refit(watcher)
    assert contents(found) == unbroken
    assert f"the winner's training with 2 seeds continues from epoch 3 of {EPOCHS}" in watcher.said
    assert min(watcher.epochs[1:]) >= 3
    assert not list((home / "digits" / ".best").iterdir())


def test_the_first_signal_lets_it_save_its_epoch_and_says_from_where_it_goes_on(refit, unbroken):
    watcher = Watcher(2, lambda: signal.raise_signal(signal.SIGTERM))
    left = refit(watcher)
    assert (left.signum, left.test, left.kept, left.epochs) == (signal.SIGTERM, None, 2, EPOCHS)
    assert any("has 8s to finish its epoch and be saved" in line for line in watcher.said)
    assert contents(refit()) == unbroken


def test_what_a_refit_of_something_else_left_is_not_gone_on_from_and_goes(refit, home):
    with pytest.raises(KeyboardInterrupt):
        refit(Watcher(2, twice))
    (left,) = (home / "digits" / ".best").glob(".refit-*")
    left.rename(left.with_name(".refit-0123456789abcdef"))
    watcher = Watcher()
    refit(watcher)
    assert not any("continues" in line for line in watcher.said)
    assert not list((home / "digits" / ".best").iterdir())


def test_one_that_shares_the_folder_with_another_leaves_its_checkpoints_alone(refit, home, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        refit(Watcher(2, twice))
    work = home / "digits" / ".best"
    before = sorted(work.rglob("checkpoint-*"))
    monkeypatch.setattr(
        "gridsearch.service.winner.best.exclusive",
        lambda folder, say: exclusive(folder, patience=0.0, say=say),
    )
    with exclusive(work):  # by one that shows no sign of life
        watcher = Watcher()
        assert refit(watcher).fresh
    assert not any("continues" in line for line in watcher.said)
    assert sorted(work.rglob("checkpoint-*")) == before


def died_once(monkeypatch, times):
    """Let the worker die so often, each time after two more epochs."""
    take, left = Refit._take, [times]

    def dying(self, event):
        if left[0] and isinstance(event, EpochEnded) and event.epoch == 2 * (times - left[0] + 1):
            self._executor._leaving = True
        if left[0] and isinstance(event, PackEnded):
            left[0] -= 1
            self._executor._leaving = False
            event = WorkerDied(worker="w0", pack="best", message="killed by signal 9")
        take(self, event)

    monkeypatch.setattr(Refit, "_take", dying)


def test_when_its_worker_dies_it_goes_on_in_another_one(refit, unbroken, monkeypatch):
    died_once(monkeypatch, 2)
    watcher = Watcher()
    assert contents(refit(watcher)) == unbroken
    assert "worker w0 died (killed by signal 9); the winner is trained again (attempt 3 of 3)" in watcher.said
    assert f"the winner's training with 2 seeds continues from epoch 4 of {EPOCHS}" in watcher.said


def test_when_its_worker_dies_too_often_the_next_call_goes_on(refit, unbroken, monkeypatch):
    died_once(monkeypatch, 2)
    with pytest.raises(TrainingFailed, match="the worker died 2 times while the winner was trained again"):
        refit(retries=1)
    watcher = Watcher()
    assert contents(refit(watcher)) == unbroken
    assert f"the winner's training with 2 seeds continues from epoch 4 of {EPOCHS}" in watcher.said


def killed_for_memory(monkeypatch, at_epoch, *, most):
    """Let packs of more lanes end at an epoch, as the kernel ends a worker where memory is short; return the packs."""
    take, submit, packs = Refit._take, InlineExecutor.submit, []

    def submitting(self, task):
        if isinstance(task, Pack):
            packs.append([lane.trial.seed for lane in task.lanes])
        submit(self, task)

    def dying(self, event):
        if len(packs[-1]) > most and isinstance(event, EpochEnded) and event.epoch == at_epoch:
            self._executor._leaving = True
        if self._executor._leaving and isinstance(event, PackEnded) and not self.interruption:
            self._executor._leaving = False
            event = WorkerDied(worker="w0", pack="best", message="killed by signal 9", memory=True)
        take(self, event)

    monkeypatch.setattr(InlineExecutor, "submit", submitting)
    monkeypatch.setattr(Refit, "_take", dying)
    return packs


def test_a_worker_that_memory_ends_is_followed_by_packs_of_half_as_many_seeds_that_go_on(
    refit, unbroken, home, monkeypatch
):
    packs = killed_for_memory(monkeypatch, 2, most=1)
    watcher = Watcher()
    found = refit(watcher, retries=0)
    assert packs == [[0, 1], [0], [1]]
    assert contents(found) == unbroken
    assert "the winner is trained again with 1 seed at a time" in watcher.said
    assert watcher.said.count(f"the winner's training with 1 seed continues from epoch 2 of {EPOCHS}") == 2
    assert not (home / "digits" / ".best").exists()


def test_one_interrupted_after_a_pack_of_half_the_seeds_continues_and_keeps_what_was_trained(
    refit, unbroken, home, monkeypatch
):
    with monkeypatch.context() as patch:
        packs = killed_for_memory(patch, 1, most=1)
        watcher = Watcher()
        updated = watcher.updated

        def interrupt(progress):
            updated(progress)
            if 1 in progress.running and len(packs) == 3 and progress.running[1].epoch >= 3:
                signal.raise_signal(signal.SIGTERM)
                watcher.updated = updated

        watcher.updated = interrupt
        left = refit(watcher)
    assert (left.signum, left.test, left.kept) == (signal.SIGTERM, None, 3)
    saved = {path.parents[1].name for path in (home / "digits" / ".best").rglob("checkpoint-*")}
    assert saved == {"0", "1"}
    assert contents(refit()) == unbroken


def test_a_store_that_is_lost_right_after_the_record_of_the_test_has_one_reading(refit, monkeypatch):
    record, lost = Store.record_test, [True]

    def losing(self, *args, **kwargs):
        done = record(self, *args, **kwargs)
        if lost and lost.pop():
            raise StoreUnreachable("store db does not answer: gone")
        return done

    monkeypatch.setattr(Store, "record_test", losing)
    monkeypatch.setattr(patience, "_AGAIN_SECONDS", 0.0)
    watcher = Watcher()
    found = refit(watcher)
    assert found.fresh
    assert found.test["reading"] == 1
    assert "store db does not answer: gone; waiting for up to 600 s" in watcher.said


def test_clean_removes_what_an_unfinished_refit_left_but_not_while_one_goes_on(refit, home):
    with pytest.raises(KeyboardInterrupt):
        refit(Watcher(2, twice))
    work = home / "digits" / ".best"
    with exclusive(work):
        assert Home(home).clean("digits", keep=()) == 0
    assert list(work.glob(".refit-*"))
    assert Home(home).clean("digits", keep=()) > 1000
    assert not work.exists()


def test_a_study_is_not_deleted_while_its_winner_is_trained_again(refit, home):
    places = Places.find(home)
    with (
        exclusive(home / "digits" / ".best"),
        pytest.raises(StoreError, match="`gridsearch best` trains its winner"),
    ):
        studies.delete(places, "digits")
    studies.delete(places, "digits")
    assert not (home / "digits").exists()


def test_a_study_that_another_program_deletes_during_its_refit_is_what_is_told(refit, home):
    def delete():
        with existing(Places.find(home)) as store:
            store.delete_study("digits")

    with pytest.raises(StudyNotFound, match="no study named 'digits'"):
        refit(Watcher(2, delete))


def test_the_test_of_a_winner_is_not_recorded_with_a_study_that_was_made_anew_of_its_name(refit, home):
    def make_anew():
        import gridsearch as gs

        with existing(Places.find(home)) as store:
            assert store.delete_optuna_study(1)  # as the dashboard does: files stay
        how = {"home": home, "executor": "inline", "quiet": True, "report": False, "study": "digits"}
        gs.run(grid={"lr": [0.1]}, dataset="digits", model="mlp", subset=300, epochs=1, **how)

    with pytest.raises(StudyDeleted, match="'digits' was deleted meanwhile, and another one was made"):
        refit(Watcher(2, make_anew))
    with existing(Places.find(home)) as store:
        assert store.study_data("digits").test is None
    assert not (home / "digits" / "best").exists()
    assert refit().test["params"] == {"lr": 0.1}
