"""Writes a study to MLflow by its own client: the study as an experiment, each trial as a run below the study's run.

The one module that knows MLflow.  A run bears the trial's key and a digest: what is there already stays as it is, and a
trial that has changed since takes the place of its earlier run.
"""

from __future__ import annotations

import logging
import os
import posixpath
import re
import sqlite3
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gridsearch.errors import StoreError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from gridsearch.reporting.exports.exported_runs import ExportedRun

_KEY: Final = "gridsearch.key"
_DIGEST: Final = "gridsearch.digest"
_PARENT: Final = "mlflow.parentRunId"
_STUDY: Final = "study"
_LONGEST: Final = 5000
"""Letters of a param's or a tag's value that every version of MLflow takes."""
_BATCH: Final = 900
"""Metrics in one request, of which MLflow takes 1000 together with params and tags."""
_THEIRS: Final = ("mlflow", "sqlalchemy", "alembic", "requests")
"""Whose errors say that the tracking store cannot be used."""
_NO_NAME: Final = re.compile(r"[^\w.\-:/ ]")
_LONGEST_NAME: Final = 250
_SQLITE: Final = "sqlite:///"
_QUIET: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ALLOW_FILE_STORE": "true",  # a store of plain files is written where one is named
}


def export_to_mlflow(
    name: str,
    runs: Iterable[ExportedRun],
    *,
    uri: str,
    artifacts: str | None,
    summary: Mapping[str, Any],
    files: Iterable[Path] = (),
) -> tuple[int, int]:
    """Write a study's trials; return how many were new or other than before, and how many were there.

    Args:
        name: of the study, and so of the experiment.
        runs: its trials.
        uri: of the tracking store.
        artifacts: where a new experiment's files lie; None for where the store puts them.
        summary: of the study: numbers are metrics of its run, texts tags.
        files: artifacts of the study's run.

    Raises:
        UsageError: MLflow is not installed.
        StoreError: its store cannot be used.
    """
    _require_database(uri)
    with _by_itself() as mlflow:
        try:
            return _Experiment(mlflow, name, uri, artifacts).write(runs, summary, files)
        except Exception as error:
            if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in _THEIRS:
                raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise _unusable(uri, reason) from None


def _require_database(uri: str) -> None:
    """Refuse a file that is no SQLite database: MLflow would try again and again, for two minutes.

    Raises:
        StoreError: it is none.
    """
    path = Path(uri.removeprefix(_SQLITE))
    if not uri.startswith(_SQLITE) or not path.exists():
        return
    try:
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA schema_version")
    except sqlite3.Error as error:
        raise _unusable(uri, str(error)) from None


def _unusable(uri: str, reason: str) -> StoreError:
    return StoreError(f"MLflow at {uri}: {reason:.200}", hint="name another place with --output")


@contextmanager
def _by_itself() -> Iterator[Any]:
    """Give MLflow, which reports nothing to its makers and does not chatter."""
    before = {name: os.environ.get(name) for name in _QUIET}
    os.environ.update(_QUIET)
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [each.level for each in loggers]
    try:
        try:
            import mlflow
            import mlflow.tracking
        except ImportError as error:
            raise UsageError(
                f"--to mlflow needs MLflow: {error}", hint="pip install 'gridsearch[mlflow]'"
            ) from None
        for each in loggers:
            each.setLevel(logging.ERROR)
        yield mlflow
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _allowed(names: Iterable[str]) -> dict[str, str]:
    """Return a name for each metric that MLflow takes: "_" stands for what it does not, and no two become one."""
    found: dict[str, str] = {}
    for name in names:
        key = kept = _NO_NAME.sub("_", name)[:_LONGEST_NAME]
        if posixpath.normpath(key) != key or key.startswith(
            (".", "/")
        ):  # what is no path may not look like one
            key = kept = re.sub("[./]", "_", key)
        number = 1
        while key in found.values():
            number += 1
            key = f"{kept[: _LONGEST_NAME - 10]}_{number}"
        found[name] = key
    return found


class _Experiment:
    """A study's experiment: made if it is not there."""

    def __init__(self, mlflow: Any, name: str, uri: str, artifacts: str | None) -> None:
        self._mlflow, self._name = mlflow, name
        self._client = mlflow.tracking.MlflowClient(tracking_uri=uri)
        there = self._client.get_experiment_by_name(name)
        if there is None:
            self._id = self._client.create_experiment(name, artifact_location=artifacts)
        else:
            self._id = there.experiment_id
            if there.lifecycle_stage == "deleted":
                self._client.restore_experiment(self._id)

    def write(
        self, runs: Iterable[ExportedRun], summary: Mapping[str, Any], files: Iterable[Path]
    ) -> tuple[int, int]:
        """Write what is not there yet."""
        there = self._there()
        parent = there[_STUDY].info.run_id if _STUDY in there else self._begin(self._name, {_KEY: _STUDY})
        new = kept = 0
        for run in runs:
            old = there.get(run.key)
            if old is not None and old.data.tags.get(_DIGEST) == run.digest:
                kept += 1
                continue
            if old is not None:
                self._client.delete_run(old.info.run_id)
            self._write(run, parent)
            new += 1
        self._summarize(parent, summary, files, there.get(_STUDY))
        return new, kept

    def _there(self) -> dict[str, Any]:
        """Return the runs that we have written, by the key of their trial."""
        found: dict[str, Any] = {}
        token = None
        while True:
            page = self._client.search_runs([self._id], max_results=1000, page_token=token)
            found |= {run.data.tags[_KEY]: run for run in page if _KEY in run.data.tags}
            token = page.token
            if not token:
                return found

    def _begin(self, title: str, tags: Mapping[str, str]) -> str:
        run_id: str = self._client.create_run(self._id, run_name=title, tags=dict(tags)).info.run_id
        return run_id

    def _write(self, run: ExportedRun, parent: str) -> None:
        """Write a trial; the digest comes last, so that one that was broken off is written again."""
        entities = self._mlflow.entities
        run_id = self._begin(run.title, {_KEY: run.key, _PARENT: parent})
        params = [entities.Param(name, str(value)[:_LONGEST]) for name, value in run.params.items()]
        tags = [entities.RunTag(name, value[:_LONGEST]) for name, value in run.tags.items()]
        steps = [(step, name, value) for step, metrics in run.steps for name, value in metrics.items()]
        last = max((step for step, _ in run.steps), default=0)
        names = _allowed(dict.fromkeys((*(name for _, name, _ in steps), *run.final)))
        metrics = [entities.Metric(names[name], value, 0, step) for step, name, value in steps]
        # of one step the later one is what MLflow shows of a run: what ranks it, not what came last
        metrics += [
            entities.Metric(names[name], value, 1, last) for name, value in run.beyond_steps().items()
        ]
        for begin in range(0, len(params), 100):
            self._client.log_batch(run_id, params=params[begin : begin + 100])
        for begin in range(0, len(metrics), _BATCH):
            self._client.log_batch(run_id, metrics=metrics[begin : begin + _BATCH])
        self._client.log_batch(run_id, tags=tags)
        self._keep(run_id, run.files)
        self._client.set_terminated(run_id, "FAILED" if run.tags["state"] == "failed" else "FINISHED")
        self._client.set_tag(run_id, _DIGEST, run.digest)

    def _keep(self, run_id: str, files: Mapping[str, bytes]) -> None:
        if not files:
            return
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                (Path(folder) / name).write_bytes(content)
            self._client.log_artifacts(run_id, folder)

    def _summarize(self, run_id: str, summary: Mapping[str, Any], files: Iterable[Path], before: Any) -> None:
        """Write what the study shows; a number that is there already is not written again."""
        known = before.data.metrics if before is not None else {}
        for name, value in summary.items():
            if isinstance(value, int | float):
                if known.get(name) != float(value):
                    self._client.log_metric(run_id, name, float(value))
            else:
                self._client.set_tag(run_id, name, str(value)[:_LONGEST])
        for path in files:
            self._client.log_artifact(run_id, str(path))
        self._client.set_terminated(run_id)
