"""A run as its coordinator uses the store: away and back are `RunStore`'s own business."""

from __future__ import annotations

from gridsearch.store import RunnerIdentity, RunOf, RunStore


class Run:
    """A run on a study of three trials, all of them claimed, and what it said."""

    def __init__(self, store, make, *, owner=None, patience=600.0, points=3):
        self.owner = owner or RunnerIdentity.current()
        self.said, self.warned = [], []
        added = store.add(
            make.study(axes=("lr",)), make.drafts({"lr": [0.1 * n for n in range(1, points + 1)]})
        )
        self.store = RunStore(
            store,
            RunOf(
                study="digits",
                study_id=added.study_id,
                owner=self.owner,
                lease=60.0,
                patience=patience,
                warn=self.warned.append,
                say=self.said.append,
            ),
        )
        self.store.tend()
        self.ids = added.ids
        self.study_id = added.study_id
        self.trials = self.store.claim(added.ids, owner=self.owner, pack="p", lease=60.0)
