"""What claims cost when many runners share one PostgreSQL: 50 runners, 5,000 points, each once.

`python -m tests.benchmarks.scale_claims` starts a server of its own, which writes to the disk as one in use does, and
forks the runners.  A runner reads what waits, begins at a place of its own, claims packs of eight, and looks again where
another was first; nothing is trained.  Measured twice: each runner as fast as it can, which says how many claims the
machine can do (server and runners share its cores), and each with pauses as of packs that train, which says how long a
claim takes then.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from gridsearch.records import ImageSettings, TrialDraft, TrialState, trial_key
from gridsearch.store import RunnerIdentity, Store, StudyDraft, ledger_tables, open_store
from tests.servers.postgresql import Postgresql

if TYPE_CHECKING:
    from collections.abc import Callable

PACK = 8
PAUSE = 0.5
"""Mean seconds between two claims of a runner: 50 of them claim a hundred times a second."""

DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "autovacuum": "on"}


def measure(*, runners: int = 50, points: int = 5000) -> dict[str, Any]:
    """Let runners claim all points of a study, twice.

    Returns:
        For both ways claims and points a second, how many claims found nothing, and in milliseconds the median of
        the first claim of each runner, and median and 99th percentile of all others; and what it costs to add the points.
    """
    server = Postgresql.make()
    try:
        server.start(**DURABLE)
        server.execute("CREATE DATABASE claims")
        url = server.url("claims")
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            found: dict[str, Any] = {"runners": runners, "points": points, "pack": PACK}
            for name, pause in (("as_fast_as_they_can", 0.0), ("with_pauses", PAUSE)):
                found[name] = _race(url, home, study=name, runners=runners, points=points, pause=pause)
        return found
    finally:
        server.remove()


def _race(url: str, home: Path, *, study: str, runners: int, points: int, pause: float) -> dict[str, Any]:
    settings = [ImageSettings(dataset="digits", batch=n) for n in range(1, points + 1)]
    drafts = [TrialDraft(key=trial_key(s, 0), seed=0, settings=s, axes=("batch",)) for s in settings]
    with open_store(url, home=home, create=True) as store:
        began = time.perf_counter()
        added = store.add(StudyDraft(name=study, dataset="digits", metric="val_accuracy"), drafts)
        adding = time.perf_counter() - began

    def claim_all(runner: int) -> dict[str, Any]:
        with open_store(url, home=home, create=False) as store:
            ids = _waiting(store, added.study_id, runner / runners)
            mine, seconds, vain = [], [], 0
            drawn = random.Random(runner)
            began = time.time()
            while ids:
                start = time.perf_counter()
                taken = store.claim(ids[:PACK], owner=RunnerIdentity.current(), pack="p", lease=600)
                seconds.append(time.perf_counter() - start)
                mine += [trial.id for trial in taken]
                vain += not taken
                ids = ids[PACK:]
                if not taken:
                    ids = _waiting(store, added.study_id, runner / runners)
                elif pause:
                    time.sleep(drawn.expovariate(1 / pause))
            return {"mine": mine, "seconds": seconds, "vain": vain, "began": began, "ended": time.time()}

    answers = _in_processes(claim_all, runners)
    claimed = collections.Counter(trial for each in answers for trial in each["mine"])
    with open_store(url, home=home, create=False) as store:
        attempts = collections.Counter(trial.attempt for trial in store.ledger(study))
    assert attempts == {1: points}, attempts
    assert set(claimed) == set(added.ids)
    assert set(claimed.values()) == {1}
    first = [each["seconds"][0] for each in answers]  # connects, and compiles its statements, all at once
    seconds = sorted(s for each in answers for s in each["seconds"][1:])
    took = max(each["ended"] for each in answers) - min(each["began"] for each in answers)
    return {
        "seconds_to_add": round(adding, 3),
        "seconds": round(took, 3),
        "claims": len(first) + len(seconds),
        "claims_that_found_nothing": sum(each["vain"] for each in answers),
        "claims_per_second": round((len(first) + len(seconds)) / took, 1),
        "points_per_second": round(points / took, 1),
        "first_median_ms": round(1000 * statistics.median(first), 3),
        "median_ms": round(1000 * statistics.median(seconds), 3),
        "p99_ms": round(1000 * seconds[int(0.99 * len(seconds))], 3),
    }


def _waiting(store: Store, study_id: int, first: float) -> list[int]:
    """Return what waits, beginning after such a share of it."""
    t = ledger_tables.trials
    query = select(t.c.id).where(t.c.study_id == study_id, t.c.state == TrialState.WAITING).order_by(t.c.id)
    with store._database.read() as connection:
        ids = list(connection.scalars(query))
    at = int(len(ids) * first)
    return ids[at:] + ids[:at]


def _in_processes(work: Callable[[int], dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Call a function in so many processes that begin together; return what they return."""
    gate, opened = os.pipe()
    readers = []
    for number in range(count):
        reader, writer = os.pipe()
        if os.fork() == 0:
            code = 1
            try:
                os.close(opened)
                os.read(gate, 1)
                with os.fdopen(writer, "w") as out:
                    json.dump(work(number), out)
                code = 0
            finally:
                os._exit(code)
        os.close(writer)
        readers.append(reader)
    os.close(gate)
    os.close(opened)
    answers = []
    for reader in readers:
        with os.fdopen(reader) as file:
            answers.append(json.load(file))
    for _ in range(count):
        os.wait()
    return answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runners", type=int, default=50)
    parser.add_argument("--points", type=int, default=5000)
    words = parser.parse_args()
    json.dump(measure(runners=words.runners, points=words.points), sys.stdout, indent=1)


if __name__ == "__main__":
    main()
