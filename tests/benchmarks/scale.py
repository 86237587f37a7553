"""How far one machine carries a study: bookkeeping a trial, 10,000 and 100,000 trials, a thousand workers.

``python -m tests.benchmarks.scale [--only bookkeeping small stages large workers short claims engines]``

Each section can be measured alone; it takes its place in results/scale.json, and the others stay.  Then the figure and
the table of docs/scale.md are made anew.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from wsgiref.util import setup_testing_defaults

from gridsearch.records import FunctionSettings, TrialDraft, TrialFinished, TrialState, trial_key
from gridsearch.store import RunnerIdentity, StudyDraft, open_store
from tests.benchmarks import scale_figure, scale_table
from tests.benchmarks.measure import RESULTS, Spread, hardware
from tests.benchmarks.simulated import EPOCHS, simulate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIZES = (400, 2500, 10_000)
"""Trials of the runs whose bookkeeping is measured."""

_FEW = 10
"""Trials of the run that says what a run costs besides."""

_PACK = 64
"""Trials that are claimed, and that end, in one transaction of the stages."""

_SHOWN = 10_000
"""Of more trials nobody is advised to open the dashboard, and it is not measured."""

WORKERS, LANES, SECONDS = 1000, 8, 10.0


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended: wall and processor seconds, its own and its children's, and most megabytes of one."""

    wall: float
    processor: float
    megabytes: float


def command(*words: str, home: str) -> Done:
    """Run the program in a home of its own.

    Raises:
        RuntimeError: it failed.
    """
    env = {**os.environ, "GRIDSEARCH_HOME": home}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # compiled once, as on a user's machine
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "gridsearch", *words],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"gridsearch {' '.join(words)}: exit code {process.returncode}")
    return Done(time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6)


@contextmanager
def _function() -> Iterator[tuple[str, ...]]:
    """Give the words of a study of a function that does nothing."""
    with tempfile.TemporaryDirectory(prefix="scale") as folder:
        file = Path(folder) / "empty.py"
        file.write_text("def fit(params, seed):\n    return {'loss': params['x']}\n")
        yield ("--objective", f"{file}:fit", "--metric", "loss", "--direction", "minimize", "--study", "s")


def _runs(words: tuple[str, ...], n: int) -> list[Done]:
    found = []
    for _ in range(n):
        with tempfile.TemporaryDirectory(prefix="scale") as home:
            found.append(command("run", *words, home=home))
    return found


def bookkeeping() -> dict[str, Any]:
    """Processor time of a trial that does nothing, over the size of the study."""
    figures: dict[str, Any] = {}
    with _function() as words:

        def runs(trials: int, n: int) -> list[Done]:
            return _runs((*words, "--grid", f"x=1..{trials}:1", "--no-report"), n)

        besides = Spread.of([run.processor for run in runs(_FEW, 3)], "s").median
        for trials in SIZES:
            found = runs(trials, 3 if trials < 10_000 else 1)
            each = [1000 * (run.processor - besides) / (trials - _FEW) for run in found]
            figures[f"{trials} trials: processor time a trial"] = Spread.of(each, "ms")
            figures[f"{trials} trials: wall"] = Spread.of([run.wall for run in found], "s")
            figures[f"{trials} trials: memory of the largest process"] = Spread.of(
                [run.megabytes for run in found], "MB"
            )
    return figures


def small() -> dict[str, Any]:
    """Whole runs of small studies, their start and their reports included."""
    figures: dict[str, Any] = {}
    with _function() as words:
        found = _runs((*words, "--grid", "x=1..1000:1"), 3)
        figures["1,000 trials of an empty function"] = Spread.of([run.wall for run in found], "s")
        found = _runs((*words, "--grid", "x=1..1000:1", "--no-report"), 3)
        figures["1,000 trials of an empty function, no report"] = Spread.of([run.wall for run in found], "s")
    digits = ("--dataset", "digits", "--model", "mlp", "--epochs", "1")
    for trials in (4, 200):
        found = _runs((*digits, "--grid", f"lr=1e-4..1e-1:{trials}log"), 3)
        figures[f"{trials} trials of digits, 1 epoch"] = Spread.of([run.wall for run in found], "s")
    found = _runs((*digits, "--grid", "lr=1e-4..1e-1:4log", "--no-report"), 3)
    figures["4 trials of digits, 1 epoch, no report"] = Spread.of([run.wall for run in found], "s")
    return figures


def _timed(figures: dict[str, Any], name: str, work: Callable[[], Any]) -> Any:
    began = time.perf_counter()
    result = work()
    figures[name] = Spread.of([time.perf_counter() - began], "s")
    return result


def stages(trials: int) -> dict[str, Any]:
    """What is done once for a study, each for itself: planned, added, claimed, ended, read, reported, shown."""
    figures: dict[str, Any] = {}
    with _function() as words, tempfile.TemporaryDirectory(prefix="scale") as home:
        grid = (*words, "--grid", f"x=1..{trials}:1")
        _of_command(figures, "plan", command("plan", *grid, home=home))
        place = Path(home)
        drafts = _timed(figures, "expand", lambda: _drafts(trials))
        study = StudyDraft(name="s", dataset="empty.py:fit", metric="loss", direction="minimize", axes=("x",))
        with open_store(f"sqlite:///{place / 'gridsearch.db'}", home=place, create=True) as store:
            added = _timed(figures, "add", lambda: store.add(study, drafts))
            owner = RunnerIdentity.current()
            packs = [added.ids[start : start + _PACK] for start in range(0, trials, _PACK)]

            def claim() -> None:
                for ids in packs:
                    store.claim_packs({f"p{i}": [i] for i in ids}, owner=owner, lease=3600)

            def finish() -> None:
                for ids in packs:
                    store.finish_many([_finished(i) for i in ids])

            _timed(figures, "claim", claim)
            _timed(figures, "finish", finish)
        figures["store"] = Spread.of([(place / "gridsearch.db").stat().st_size / 1e6], "MB")
        _of_command(figures, "status", command("status", "--study", "s", home=home))
        _of_command(figures, "report", command("report", "--study", "s", home=home))
        page = place / "s" / "report" / "index.html"
        figures["page"] = Spread.of([page.stat().st_size / 1e6], "MB")
        if trials <= _SHOWN:
            _dashboard(figures, place)
    return figures


def _of_command(figures: dict[str, Any], name: str, done: Done) -> None:
    figures[name] = Spread.of([done.wall], "s")
    figures[f"{name}: memory"] = Spread.of([done.megabytes], "MB")


def _drafts(trials: int) -> list[TrialDraft]:
    made = []
    for x in range(1, trials + 1):
        settings = FunctionSettings(objective="empty.py:fit", objective_source="0" * 64, params={"x": x})
        made.append(TrialDraft(key=trial_key(settings, 0), seed=0, settings=settings, axes=("x",)))
    return made


def _finished(trial: int) -> TrialFinished:
    return TrialFinished(
        trial=trial,
        attempt=1,
        state=TrialState.COMPLETE,
        epochs=0,
        seconds=0.001,
        metrics={"loss": (trial * 2654435761 % 2**32) / 2**32},  # in no order
    )


def _dashboard(figures: dict[str, Any], home: Path) -> None:
    """Ask the dashboard for a study, as a browser does when it opens it and then every few seconds."""
    from gridsearch.store.dashboard import application

    with open_store(f"sqlite:///{home / 'gridsearch.db'}", home=home, create=False) as store:
        app = application(store)

    def ask(where: str) -> int:
        environ: dict[str, Any] = {"PATH_INFO": where, "QUERY_STRING": "after=0"}
        setup_testing_defaults(environ)
        status: list[str] = []
        body = b"".join(app(environ, lambda answer, *_: status.append(answer)))
        assert status[0].startswith("200"), status
        return len(body)

    size = _timed(figures, "dashboard: opened", lambda: ask("/api/studies/1"))
    _timed(figures, "dashboard: asked again", lambda: ask("/api/studies/1"))
    figures["dashboard: what it sends"] = Spread.of([size / 1e6], "MB")


def workers(*, seconds: float, packs: int) -> dict[str, Any]:
    """How busy one coordinator keeps a thousand workers."""
    found = simulate(workers=WORKERS, lanes=LANES, seconds=seconds, packs=packs)
    return {
        "workers": WORKERS,
        "lanes of a pack": LANES,
        "epochs of a trial": EPOCHS,
        "a lane's seconds": seconds,
        "trials": found.trials,
        "busy": Spread.of([100 * found.busy], "%"),
        "busy, first and last packs included": Spread.of([100 * found.whole], "%"),
        "until every worker has a pack": Spread.of([found.first], "s"),
        "trials a second": Spread.of([found.rate], "/s"),
        "coordinator's work a trial": Spread.of([1000 * found.work], "ms"),
    }


def _of_module(name: str) -> Callable[[], dict[str, Any]]:
    """Return the section that a module of its own measures; it needs servers, and writes a result of its own too."""

    def measure() -> dict[str, Any]:
        importlib.import_module(f"tests.benchmarks.{name}").main([])
        content = json.loads((RESULTS / f"{name.replace('_', '-')}.json").read_text())
        return dict(content["figures"])

    return measure


SECTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "bookkeeping": bookkeeping,
    "small": small,
    "stages": lambda: stages(10_000),
    "large": lambda: stages(100_000),
    "workers": lambda: workers(seconds=SECONDS, packs=4),
    "short": lambda: workers(seconds=SECONDS / LANES, packs=3),
    "claims": _of_module("scale_claims"),
    "engines": _of_module("scale_engines"),
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scale")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="SECTION")
    words = parser.parse_args(arguments)
    path = RESULTS / "scale.json"
    content = json.loads(path.read_text()) if path.exists() else {"benchmark": "scale", "sections": {}}
    for name in words.only:
        print(name, file=sys.stderr)
        began = time.perf_counter()
        try:
            figures = SECTIONS[name]()
        except ModuleNotFoundError as error:
            print(f"  left out: {error}", file=sys.stderr)
            continue
        for what, value in figures.items():
            print(f"  {what:<44} {value}", file=sys.stderr)
        content["sections"][name] = {
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "hardware": hardware(),
            "took": round(time.perf_counter() - began, 1),
            "figures": figures,
        }
        path.write_text(json.dumps(content, indent=1, default=asdict) + "\n")
    scale_figure.main()
    scale_table.main()


if __name__ == "__main__":
    main()
