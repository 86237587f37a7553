"""What a store holds, read as the next run would read it: for benchmarks that break runs off."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from pathlib import Path

from gridsearch import files
from gridsearch.checkpoints import Damaged, checkpoints_in, facts_of
from gridsearch.store import spool


def ask(home: Path, query: str) -> list[tuple]:
    """Answer a query as the next reader would: what was half written is rolled back first."""
    with contextlib.closing(sqlite3.connect(f"file:{home}/gridsearch.db?mode=rw", uri=True)) as connection:
        return connection.execute(query).fetchall()


def as_rolled_back(home: Path, query: str) -> list[int]:
    """Return numbers from a copy of the store: to roll back what was half written is the next run's business."""
    with tempfile.TemporaryDirectory() as copy:
        for file in home.glob("gridsearch.db*"):
            shutil.copy(file, copy)
        with contextlib.closing(sqlite3.connect(Path(copy) / "gridsearch.db")) as connection:
            return [number for (number,) in connection.execute(query)]


def results(home: Path) -> dict[str, list[tuple]]:
    """All that a run has found, clocks aside: metrics to the last bit, every epoch, Optuna's values, file hashes."""
    return {
        "trials": ask(
            home, "select key, state, epochs, value, metrics, error from gridsearch_trials order by key"
        ),
        "epochs": ask(
            home,
            "select t.key, e.epoch, e.train_loss, e.train_accuracy, e.val_loss, e.val_accuracy, e.lr "
            "from gridsearch_epochs e join gridsearch_trials t on t.id = e.trial_id order by 1, 2",
        ),
        "optuna": ask(
            home,
            "select t.number, v.step, v.intermediate_value from trial_intermediate_values v "
            "join trials t on t.trial_id = v.trial_id order by 1, 2",
        ),
        "files": ask(
            home,
            "select t.key, a.name, a.sha256 from gridsearch_artifacts a "
            "join gridsearch_trials t on t.number = a.number where a.name like '%.safetensors' order by 1, 2",
        ),
    }


def results_that_wait(home: Path) -> list[tuple[int, int]]:
    """Return (ledger id, attempt) of the trials whose results a run could not write: the next takes these in."""
    records = [spool.read(path) for _, paths in spool.left_behind([home / files.SPOOL]) for path in paths]
    return [(event.trial, event.attempt) for record in records if record for event in record.ended]


def going_on_from(home: Path) -> dict[int, int]:
    """Return from which epoch each trial that has not ended must go on at least, by its number, as its checkpoints say.

    Lanes of one program stand where the last of them stood when it was killed: its checkpoints are written one after
    the other.
    """
    newest: dict[tuple[str, ...], dict[int, tuple[int, int]]] = {}
    if not (home / "digits" / "trials").exists():
        return {}
    not_ended = set(
        as_rolled_back(
            home,
            "select number from gridsearch_trials where state in ('waiting', 'running') "
            f"and (id, attempt) not in (values {', '.join(['(-1, -1)', *map(str, results_that_wait(home))])})",
        )
    )
    for folder in (home / "digits" / "trials").glob("*/*"):
        if int(folder.parent.name) not in not_ended:
            continue
        for file in checkpoints_in(folder):
            try:
                facts = facts_of(file.read())
            except Damaged:
                continue
            turn = 10**6 if "ended" in facts else facts["turn"]
            number, members = int(folder.parent.name), tuple(facts["members"])
            best = newest.setdefault(members, {})
            best[number] = max(best.get(number, (-1, -1)), (turn, file.epoch))
    found = dict.fromkeys(not_ended, 0)
    for members, lanes in newest.items():
        whole = len(lanes) == len(members)  # else one of them has no checkpoint yet, and all begin anew
        turn = min(turn for turn, _ in lanes.values()) if whole else 0
        found |= {number: min(epoch, turn) for number, (_, epoch) in lanes.items()}
    return found
