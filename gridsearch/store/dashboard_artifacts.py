"""Files that Optuna's dashboard shows with a trial or a study: a copy for it, and the rows by which it finds it."""

from __future__ import annotations

import mimetypes
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gridsearch.records import FileRef
from gridsearch.store import ledger_tables, optuna_studies, optuna_tables
from gridsearch.store.artifacts import file_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Connection

    from gridsearch.store.artifacts import Home


@dataclass(frozen=True, slots=True)
class DashboardFile:
    """A copy that lies ready.

    Attributes:
        number: the trial's, None for a file of the study.
        ref: its name, hash and size.
        meta: what Optuna keeps of it.
    """

    number: int | None
    ref: FileRef
    meta: Mapping[str, str | None]


def copy(
    home: Home, *, uid: str, number: int | None, name: str, content: bytes, mimetype: str | None = None
) -> DashboardFile:
    """Put a copy where the dashboard looks; that of an earlier file of the same name is replaced.

    Args:
        home: the files.
        uid: the study's.
        number: the trial's, None for a file of the study.
        name: as the dashboard shows it.
        content: the bytes.
        mimetype: default: what the name says.

    Raises:
        ArtifactError: that is no name of a file.
        StoreError: it cannot be written.
    """
    guessed, encoding = mimetypes.guess_type(file_name(name))
    artifact_id = str(uuid.uuid5(uuid.UUID(uid), f"{number}/{name}"))
    ref = home.write_atomic(home.artifact_dir / artifact_id, content)
    meta = {
        "artifact_id": artifact_id,
        "filename": name,
        "mimetype": mimetype or guessed or "application/octet-stream",
        "encoding": encoding,
    }
    return DashboardFile(number, FileRef(name=name, sha256=ref.sha256, size=ref.size), meta)


def register(
    connection: Connection,
    files: Iterable[tuple[DashboardFile, int | None]],
    *,
    study_id: int,
    optuna_id: int,
) -> None:
    """Let the dashboard find copies, on a connection of the caller's transaction.

    Args:
        connection: of a writing transaction.
        files: each with Optuna's id of its trial, None for a file of the study.
        study_id: the ledger's id of the study.
        optuna_id: Optuna's.
    """
    entries = []
    for file, trial_id in files:
        optuna_studies.set_artifact(connection, study_id=optuna_id, trial_id=trial_id, meta=file.meta)
        entries.append(
            {
                "study_id": study_id,
                "number": ledger_tables.OF_STUDY if file.number is None else file.number,
                "name": file.ref.name,
                "sha256": file.ref.sha256,
                "size": file.ref.size,
                "optuna_artifact": file.meta["artifact_id"],
            }
        )
    optuna_tables.upsert(connection, ledger_tables.artifacts, ("study_id", "number", "name"), entries)
