"""Adds the trials of axes to a study, trains them, and reads them back through Optuna."""

from __future__ import annotations

import optuna

from gridsearch.store import RunnerIdentity
from tests.store.readers import reader


def trials(store, name="digits"):
    return optuna.load_study(study_name=name, storage=reader(store)).trials


def add(store, make, axes, study=None, prune=False, **options):
    drafts = make.drafts(axes, **options)
    return store.add(make.study(axes=tuple(axes), **(study or {})), drafts, prune=prune)


def run(store, ids, finish):
    taken = store.claim(ids, owner=RunnerIdentity.current(), pack="p", lease=60)
    for trial in taken:
        finish(trial)
    return taken
