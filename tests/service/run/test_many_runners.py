"""Many runners that begin alike do not all want the same trials."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest

from gridsearch.records import ImageSettings, Pack, Trial, TrialState
from gridsearch.service.run import trial_source
from gridsearch.service.run.trial_source import TrialSource


class Store:
    """What waits, and how often somebody claims what another one has."""

    def __init__(self, count: int) -> None:
        settings = ImageSettings(dataset="d", model="m")
        self.waiting = {
            i: Trial(
                id=i,
                number=i,
                key=str(i),
                seed=i,
                settings=settings,
                params={},
                state=TrialState.WAITING,
                attempt=0,
            )
            for i in range(count)
        }
        self.vain = 0

    def claim(self, packs):
        got = []
        for pack, trials in packs.items():
            lanes = tuple(
                SimpleNamespace(trial=trial)
                for trial in trials
                if self.waiting.pop(trial.id, None) is not None
            )
            if lanes:
                got.append(Pack(pack, lanes))
        self.vain += not got
        return got


def source(store: Store) -> TrialSource:
    class Held:
        claim = staticmethod(store.claim)
        ahead = staticmethod(lambda **_: ())

        def __contains__(self, _: int) -> bool:
            return True

    run = SimpleNamespace(
        store=SimpleNamespace(away=False, reclaim=lambda _: ()),
        study_id=1,
        order="given",
        options=SimpleNamespace(settled=False, keep_going=True),
        progress=SimpleNamespace(workers=1),
        cost=SimpleNamespace(guess=lambda _: 1.0, share=lambda _, lanes: 1 / lanes),
        waiting=lambda: list(store.waiting.values()),
        count=lambda: None,
        stays=False,
    )
    sizing = SimpleNamespace(lanes=lambda *_: 8, news=lambda: ())
    return TrialSource(run, held=Held(), sizing=sizing, write=lambda: None)


@pytest.mark.parametrize("runners", [2, 30])
def test_runners_that_begin_with_the_same_list_soon_take_different_trials(monkeypatch, runners):
    now = [0.0]
    monkeypatch.setattr(trial_source.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(trial_source, "CHANCE", random.Random(0))
    store = Store(1200)
    sources = [source(store) for _ in range(runners)]
    taken: list[int] = []
    began = True
    while store.waiting or began:
        now[0] += 1.0  # a turn of all runners
        packs = [pack for one in sources if (pack := one.next()) is not None]
        taken += [lane.trial.id for pack in packs for lane in pack.lanes]
        began = bool(packs)
    assert sorted(taken) == list(range(1200))
    assert store.vain < 150 + 2 * runners  # claims that got something are 150 at least
