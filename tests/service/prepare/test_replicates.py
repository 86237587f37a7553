"""Which trials `--more-seeds` asks for: the next seeds of the best points, shared between them."""

from __future__ import annotations

import pytest

from gridsearch.errors import StoreError, UsageError
from gridsearch.records import ImageSettings, StudyData, TrialRecord, TrialState, trial_key
from gridsearch.service.prepare.replicates import MoreSeeds, more_replicates

S = TrialState


def study_of(*trials: tuple[float, int, TrialState, float | None]) -> StudyData:
    """Return a study of trials given as lr, seed, state and value."""
    records = []
    for number, (lr, seed, state, value) in enumerate(trials):
        settings = ImageSettings(dataset="digits", lr=lr)
        records.append(
            TrialRecord(
                number=number, key=trial_key(settings, seed), seed=seed, state=state, params={"lr": lr},
                settings=settings, value=value, metrics={} if value is None else {"val_accuracy": value},
                epochs=1, seconds=1.0, attempts=1, error=None,
            )
        )  # fmt: skip
    return StudyData(
        name="s", dataset="digits", metric="val_accuracy", direction="maximize", axes=("lr",),
        trials=tuple(records), class_names=("a", "b"), commands=(), environment={}, epochs={},
    )  # fmt: skip


def asked(data, *more):
    return [(d.settings.lr, d.seed) for d in more_replicates(data, MoreSeeds(*more))]


def test_points_of_the_same_seeds_get_the_same_new_ones():
    data = study_of(
        (0.1, 0, S.COMPLETE, 0.8), (0.2, 0, S.COMPLETE, 0.9), (0.3, 0, S.COMPLETE, 0.7), (0.2, 1, S.COMPLETE, 0.9),
        (0.1, 1, S.COMPLETE, 0.8),
    )  # fmt: skip
    assert asked(data, 2, 2) == [(0.2, 2), (0.2, 3), (0.1, 2), (0.1, 3)]


def test_each_point_gets_so_many_beyond_those_that_it_has():
    data = study_of((0.1, 0, S.COMPLETE, 0.9), (0.1, 5, S.COMPLETE, 0.9), (0.2, 0, S.COMPLETE, 0.8))
    assert asked(data, 2, 9) == [(0.1, 1), (0.1, 2), (0.2, 1), (0.2, 2)]


def test_replicates_that_failed_or_wait_are_offered_beside_the_new_ones():
    data = study_of((0.1, 0, S.COMPLETE, 0.9), (0.1, 1, S.FAILED, None), (0.1, 2, S.WAITING, None))
    assert asked(data, 1, 1) == [(0.1, 1), (0.1, 2), (0.1, 3)]


def test_a_point_that_diverged_or_has_no_result_is_not_among_the_best():
    data = study_of((0.1, 0, S.DIVERGED, None), (0.2, 0, S.FAILED, None), (0.3, 0, S.COMPLETE, 0.2))
    assert asked(data, 1, 3) == [(0.3, 1)]


def test_where_every_point_diverged_with_some_seed_the_best_of_these_count():
    data = study_of((0.1, 0, S.COMPLETE, 0.9), (0.1, 1, S.DIVERGED, None))
    assert asked(data, 1, 2) == [(0.1, 2)]


def test_a_new_trial_has_the_key_that_a_grid_would_give_it():
    data = study_of((0.1, 0, S.COMPLETE, 0.9))
    (draft,) = more_replicates(data, MoreSeeds(1, 1))
    assert draft.key == trial_key(ImageSettings(dataset="digits", lr=0.1), 1)
    assert (draft.axes, draft.inactive) == (("lr",), ())


def test_without_a_result_no_point_is_best():
    with pytest.raises(StoreError, match="no point is best yet"):
        more_replicates(study_of((0.1, 0, S.WAITING, None)), MoreSeeds(1))


@pytest.mark.parametrize("more", [(0, 1), (1, 0), (True, 1), (1.5, 1)])
def test_anything_but_a_whole_number_of_at_least_one_is_refused(more):
    with pytest.raises(UsageError, match="whole number of at least 1"):
        MoreSeeds(*more)
