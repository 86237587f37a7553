"""A pack that ends without a result of each trial is a bug somewhere: its trials are tried again, and not for ever."""

from __future__ import annotations

import pytest

from gridsearch.executors.pack_trainer import PackTrainer
from gridsearch.records import PackEnded, PackStarted

WORDS = (
    *("run", "--dataset", "digits", "--model", "mlp", "--grid", "lr=.1,.01", "--epochs", "1"),
    *("--executor", "inline", "--no-report", "--json"),
)


@pytest.mark.parametrize("how", [(), ("--lanes", "2", "--workers", "1")], ids=["as it goes", "settled"])
def test_a_trial_is_tried_as_often_as_retries_say_and_then_fails(cli, monkeypatch, how):
    packs = []

    def forgetful(self, pack, **_):
        packs.append(pack.trial_ids)
        self.emit(PackStarted(worker=self.setup.name, pack=pack.id, trials=pack.trial_ids))
        self.emit(PackEnded(worker=self.setup.name, pack=pack.id))

    monkeypatch.setattr(PackTrainer, "train", forgetful)
    done = cli(*WORDS, "--retries", "2", *how)
    assert done.code == 3
    assert done.json["counts"]["failed"] == 2
    assert [sum(trial in pack for pack in packs) for trial in (1, 2)] == [3, 3]
    assert "its pack ended without it 3 times" in done.err
