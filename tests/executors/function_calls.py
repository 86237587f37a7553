"""Lanes and workers of a function that tests grid."""

from __future__ import annotations

from gridsearch.records import (
    FunctionSettings,
    Lane,
    Trial,
    TrialState,
    WorkerSetup,
)


def lane(number, plugin, params=None, seed=0):
    settings = FunctionSettings(objective=plugin.name, objective_source=plugin.source, params=params or {})
    trial = Trial(
        id=number,
        number=number,
        key=str(number),
        seed=seed,
        settings=settings,
        params=params or {},
        state=TrialState.RUNNING,
    )
    return Lane(trial, "")


def setup(plugin):
    return WorkerSetup(
        name="w0",
        device="cpu",
        threads=1,
        kind="function",
        objective=plugin.locator or plugin.name,
        metric="y",
    )
