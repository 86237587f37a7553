"""A new store, and short ways to say what is put into it."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from gridsearch.records import (
    EpochEnded,
    ImageSettings,
    TrialDraft,
    TrialFailed,
    TrialFinished,
    TrialState,
    trial_key,
)
from gridsearch.store import Store, StudyDraft, open_store
from gridsearch.store.opening import site_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from gridsearch.store.database import Database
    from tests.servers.postgresql import Postgresql


class Make:
    """Drafts and events with little typing."""

    def drafts(
        self, axes: Mapping[str, Sequence[Any]], *, seeds: Sequence[int] = (0,), **common: Any
    ) -> list[TrialDraft]:
        made = []
        for values in itertools.product(*axes.values()):
            point = dict(zip(axes, values, strict=True))
            settings = self.settings(**(common | point))
            made += [
                TrialDraft(key=trial_key(settings, s), seed=s, settings=settings, axes=tuple(axes))
                for s in seeds
            ]
        return made

    def settings(self, **values: Any) -> ImageSettings:
        options = {k: v for k, v in values.items() if k.startswith(("model.", "data."))}
        for name in options:
            del values[name]
        for group in ("model", "data"):
            found = {k.partition(".")[2]: v for k, v in options.items() if k.startswith(group + ".")}
            if found:
                values[f"{group}_options"] = {**values.get(f"{group}_options", {}), **found}
        return ImageSettings(**{"dataset": "digits", "data_fingerprint": "d" * 64, **values})

    def study(self, name: str = "digits", **values: Any) -> StudyDraft:
        return StudyDraft(
            **{
                "name": name,
                "dataset": "digits",
                "metric": "val_accuracy",
                "command": "gridsearch run",
                **values,
            }
        )

    def epoch(self, trial: Any, epoch: int, accuracy: float = 0.5, **values: Any) -> EpochEnded:
        row = {"train_loss": 1.0, "train_accuracy": 0.4, "val_loss": 1.5, "val_accuracy": accuracy}
        row |= {"lr": 0.1, "seconds": 2.0}
        return EpochEnded(
            trial=trial.id, attempt=trial.attempt, epoch=epoch, images_per_second=100.0, **{**row, **values}
        )

    def finished(self, trial: Any, accuracy: float = 0.5, **values: Any) -> TrialFinished:
        metrics = {"val_accuracy": accuracy, "val_loss": 1.5, "train_accuracy": 0.4, "train_loss": 1.0}
        given = {"state": TrialState.COMPLETE, "epochs": 3, "seconds": 6.0, "metrics": metrics}
        return TrialFinished(trial=trial.id, attempt=trial.attempt, **{**given, **values})

    def failed(self, trial: Any, message: str = "RuntimeError: no") -> TrialFailed:
        return TrialFailed(
            trial=trial.id, attempt=trial.attempt, reason="error", message=message, traceback="Traceback"
        )


@pytest.fixture
def make() -> Make:
    return Make()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def url(request: pytest.FixtureRequest, home: Path) -> str:
    """Where a store may be made: a file that is not there, or a database that holds an empty store."""
    if request.param == "sqlite":
        return f"sqlite:///{home}/gridsearch.db"
    return request.getfixturevalue("store_database")


@pytest.fixture(scope="session")
def new_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new store's file, to be copied: to make one takes longer than most tests."""
    folder = tmp_path_factory.mktemp("new")
    open_store(f"sqlite:///{folder}/gridsearch.db", home=folder, create=True).close()
    return folder / "gridsearch.db"


@pytest.fixture(scope="session")
def one_database(postgresql: Postgresql, one_store: str) -> Iterator[Database]:
    """The store in PostgreSQL for all tests, which know its statements then: to compile them takes most of the time."""
    database = site_of(postgresql.url(one_store)).database()
    yield database
    database.close()


@pytest.fixture
def store(request: pytest.FixtureRequest, url: str, home: Path, new_file: Path) -> Iterator[Store]:
    home.mkdir()
    if url.startswith("sqlite"):
        shutil.copy(new_file, home)
        opened = open_store(url, home=home, create=False)
    else:
        opened = Store(request.getfixturevalue("one_database"), url=url, home=home)
    with opened:
        yield opened


@pytest.fixture
def python() -> Callable[..., subprocess.Popen[str]]:
    """Start `python -c CODE ARGUMENTS` with the environment of the tests."""

    def start(code: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ.copy()
        )

    return start
