"""Keeps what is known of the images of a study's trials: classes and counts belong to data, not to a study."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, inspect, select
from sqlalchemy.exc import OperationalError

from gridsearch.records import DataFacts, ImageSettings
from gridsearch.store import ledger_tables, optuna_tables
from gridsearch.store.params import settings_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_d, _t = ledger_tables.data, ledger_tables.trials


def read(connection: Connection, study: Row[Any]) -> dict[str, DataFacts]:
    """Return what is known of a study's images by fingerprint.

    Args:
        connection: for reading.
        study: the ledger's row.
    """
    return _stored(connection, study) or _of_before(connection, study)


def keep(connection: Connection, study: Row[Any], facts: Mapping[str, DataFacts]) -> None:
    """Note what is known of images; the newest word counts (a folder moves, a class gets another name).

    Args:
        connection: of a writing transaction.
        study: the ledger's row, as it was before this run.
        facts: by fingerprint.
    """
    if not facts:
        return
    now = time.time()
    facts = {fingerprint: replace(each, seen=now) for fingerprint, each in facts.items()}
    if not _stored(connection, study):
        facts = {**_of_before(connection, study), **facts}
    rows = [
        {"study_id": study.id, "fingerprint": fingerprint, "facts": each.to_json()}
        for fingerprint, each in facts.items()
    ]
    optuna_tables.upsert(connection, _d, ("study_id", "fingerprint"), rows)


def _stored(connection: Connection, study: Row[Any]) -> dict[str, DataFacts]:
    query = select(_d.c.fingerprint, _d.c.facts).where(_d.c.study_id == study.id)
    try:
        rows = connection.execute(query).all()
    except OperationalError:
        if inspect(connection).has_table(_d.name):
            raise
        return {}  # a store of before that is opened for reading alone
    return {row.fingerprint: DataFacts.from_json(row.facts) for row in rows}


def _of_before(connection: Connection, study: Row[Any]) -> dict[str, DataFacts]:
    """Return what a study of an older version says of its images, whose classes were those of its newest run.

    Without names where its trials were trained on several under the same options: nobody knows then whose they
    are, and a number is better than another's name.
    """
    names = tuple(json.loads(study.class_names))
    by_options: dict[str, set[str]] = {}
    if names:
        for text in connection.scalars(select(_t.c.settings).where(_t.c.study_id == study.id).distinct()):
            settings = ImageSettings.of(settings_of(text))
            options = json.dumps(dict(settings.data_options), sort_keys=True)
            by_options.setdefault(options, set()).add(settings.data_fingerprint)
    known = names if all(len(prints) == 1 for prints in by_options.values()) else ()
    return {each: DataFacts(class_names=known) for prints in by_options.values() for each in prints}
