"""From a spec to trials that can be stored: everything is found and checked before anything is written.

Which kind of study it is is asked here; `images` and `functions` prepare one kind each.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from gridsearch.errors import UsageError
from gridsearch.records.image_metrics import METRICS, known_metric
from gridsearch.records.study_kinds import FUNCTION, IMAGES, KINDS
from gridsearch.reporting.words.text import show_params
from gridsearch.service.prepare.functions import prepare_function, stored_function
from gridsearch.service.prepare.images import prepare_images, stored_images
from gridsearch.service.prepare.prepared import Given, Joining
from gridsearch.service.queries.studies import existing
from gridsearch.store import store_exists

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gridsearch.records import Settings, StudyData
    from gridsearch.service.prepare.named_code import NamedCode
    from gridsearch.service.prepare.options import Places
    from gridsearch.service.prepare.prepared import Prepared
    from gridsearch.service.prepare.replicates import MoreSeeds
    from gridsearch.spec import StudySpec
    from gridsearch.store import Store


class _Preparation(NamedTuple):
    """How a kind of study is prepared: from a spec, and from what the store holds."""

    of_spec: Callable[..., Prepared]
    of_stored: Callable[..., Prepared]


_SHOWN = ("model", "lr", "batch", "epochs", "optimizer")
"""Of a single point, what a line has space for."""

_PREPARATIONS: Mapping[str, _Preparation] = MappingProxyType(
    {
        IMAGES.name: _Preparation(prepare_images, stored_images),
        FUNCTION.name: _Preparation(prepare_function, stored_function),
    }
)


def prepare(
    spec: StudySpec, places: Places, given: Given | None = None, *, fetch: bool, say: Callable[[str], None]
) -> Prepared:
    """Expand a spec into drafts, with its data at hand.

    Args:
        spec: what to search.
        places: where the data lies.
        given: plug-ins that are objects.
        fetch: bring the data if it is not there; else its fingerprint alone must do.
        say: takes a message.

    Raises:
        UsageError: what the spec names cannot be found, or does not fit the data.
        DataError: the data is missing or damaged.
    """

    def earlier() -> list[Settings]:
        if not store_exists(places.store):
            return []
        with existing(places) as store:
            return [trial.settings for trial in store.ledger(spec.name)]

    preparation = _PREPARATIONS[spec.kind.name]
    prepared = preparation.of_spec(spec, places, given or Given(), earlier, fetch=fetch, say=say)
    if not spec.grid.axes:
        say(_single_point(prepared))
    return prepared


def _single_point(prepared: Prepared) -> str:
    """Say what is trained where no grid was given, which may be a table that was forgotten."""
    settings = prepared.drafts[0].settings
    flat = settings.flat()
    keys = [key for key in _SHOWN if key in flat] if prepared.kind.classifies else []
    what = show_params({key: flat[key] for key in keys})
    point = f"a single point, {what}" if keys else "a single point"
    return f"no grid is given: {point}; --grid, or [grid] in a study file, gives axes"


def prepare_stored(
    study: str,
    places: Places,
    given: Given | None = None,
    *,
    more: MoreSeeds | None = None,
    changed: Mapping[str, Any] | None = None,
    say: Callable[[str], None],
) -> Prepared:
    """Take trials of a stored study: all without a result, whatever grids they came from, or more replicates.

    A user's own file is never run because a store names it: it has to be named again, and must be the same.

    Args:
        study: the study's name.
        places: where the store and the data lie.
        given: what is named again.
        more: more seeds for the best points, instead of all that is missing.
        changed: options of the study that decide nothing about its trials (`order`, `ignore`), by name.
        say: takes a message.

    Raises:
        StudyNotFound: there is none.
        StoreError: more seeds are asked for, and no point has a result.
        UsageError: a user's own file is needed and was not named, or is another one by now.
        DataError: the data is missing, or other than it was.
    """
    with existing(places) as store:
        data = store.study_data(study)
        spec = {**store.spec(study), **(changed or {})}
    given = given or Given()
    _refuse_misplaced(data, given)
    return _PREPARATIONS[data.kind.name].of_stored(data, spec, places, given, more=more, say=say)


def prepare_open(
    study: str, places: Places, named: NamedCode, *, say: Callable[[str], None]
) -> Prepared | None:
    """Take the trials of a stored study that wait or run, for a worker that may have the code of many studies.

    Args:
        study: the study's name.
        places: where the store and the data lie.
        named: the user's own code that may run here.
        say: takes a message.

    Returns:
        None where all trials have ended.

    Raises:
        GridsearchError: as `prepare_stored`.
    """
    with existing(places) as store:
        data = store.study_data(study)
        spec = store.spec(study)
    data = replace(data, trials=tuple(trial for trial in data.trials if not trial.state.ended))
    if not data.trials:
        return None
    given = named.given(data)
    return _PREPARATIONS[data.kind.name].of_stored(data, spec, places, given, more=None, say=say)


def joined_data(store: Store, prepared: Prepared, places: Places) -> Joining:
    """Say how the data of a grid stands to that of the study that it joins.

    Raises:
        UsageError: the study is of another place of the same name, which holds other images.
    """
    ledger = store.ledger(prepared.name)
    return prepared.joining(ledger, store.spec(prepared.name), home=places.home) if ledger else Joining()


def require_prunable(metric: str | None, prune: str) -> None:
    """Refuse to end trials early by a metric that their epochs do not have.

    Args:
        metric: the name of a metric of images; None for any other.
        prune: the pruner, or "none".

    Raises:
        UsageError: it is computed from the predictions of a trial that has ended.
    """
    known = None if metric is None else known_metric(metric)
    if prune != "none" and known is not None and not known.each_epoch:
        words = ", ".join(each.word for each in METRICS if each.each_epoch)
        raise UsageError(
            f"--prune {prune}: {known.word} is computed when a trial has ended, not after each epoch as {words} are",
            hint="leave --prune out, or rank by one of these and look with `report --by` afterwards",
        )


def _refuse_misplaced(data: StudyData, given: Given) -> None:
    """Refuse plug-ins that make no sense for a study of this kind.

    Raises:
        UsageError: one was given.
    """
    named: dict[str, Any] = {"dataset": given.dataset, "model": given.models, "objective": given.objective}
    others = (name for kind in KINDS if kind is not data.kind for name in kind.options)
    for option in (name for name in others if name not in data.kind.options):
        if named.get(option):
            raise UsageError(f"--{option}: study {data.name!r} {data.kind.does}")
