"""Notes of studies and trials as Optuna's dashboard keeps them: in pieces, among the study's attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, delete, select

from gridsearch.store import optuna_studies, optuna_tables

if TYPE_CHECKING:
    from collections.abc import Mapping

_VERSION: Final = "dashboard:{of}note_ver"
_TEXT: Final = "dashboard:{of}note_str:"
_PIECE: Final = 2045
"""The dashboard cuts its notes at this length, so that other databases can hold them."""


def set_study_note(connection: Connection, study_id: int, *, text: str, ours: int) -> int:
    """Write a study's note, unless somebody edited it since.

    Args:
        connection: of a writing transaction.
        study_id: Optuna's id.
        text: Markdown.
        ours: the version that we wrote last, 0 before the first.

    Returns:
        The version that we wrote last.
    """
    a = optuna_tables.study_system_attributes
    there = connection.scalar(
        select(a.c.value_json).where(a.c.study_id == study_id, a.c.key == _VERSION.format(of=""))
    )
    if int(there or 0) != ours:
        return ours
    connection.execute(
        delete(a).where(a.c.study_id == study_id, a.c.key.startswith(_TEXT.format(of=""), autoescape=True))
    )
    values: dict[str, Any] = {_TEXT.format(of="") + str(i): piece for i, piece in enumerate(_pieces(text))}
    optuna_studies.set_study_system_attributes(
        connection, study_id, values | {_VERSION.format(of=""): ours + 1}
    )
    return ours + 1


def set_trial_notes(connection: Connection, study_id: int, notes: Mapping[int, str]) -> None:
    """Write notes (Markdown) of new trials by Optuna's ids; the dashboard keeps them with the study."""
    values: dict[str, Any] = {}
    for trial_id, text in notes.items():
        values[_VERSION.format(of=f"{trial_id}:")] = 1
        values |= {_TEXT.format(of=f"{trial_id}:") + str(i): piece for i, piece in enumerate(_pieces(text))}
    optuna_studies.set_study_system_attributes(connection, study_id, values)


def _pieces(text: str) -> list[str]:
    return [text[i : i + _PIECE] for i in range(0, len(text), _PIECE)]
