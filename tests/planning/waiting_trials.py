"""Trials that wait, as a queue gets them."""

from __future__ import annotations

from gridsearch.records import ImageSettings, Trial, TrialState


def trial(number: int, **settings) -> Trial:
    return Trial(
        id=number,
        number=number,
        key=str(number),
        seed=0,
        settings=ImageSettings(dataset="digits", **settings),
        params={},
        state=TrialState.WAITING,
    )
