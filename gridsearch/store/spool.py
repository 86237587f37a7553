"""What a run could not write to its store waits here, on the disk, in order.

Stands between `RunStore`, which puts records in while the store is away and takes them out when it is back, and the
next run's, which takes in what a run that ended before that has left.  Each record is a file of its own, there whole
or not at all.  A record names the claims that it writes for, so that one which comes too late, or twice, changes
nothing.
"""

from __future__ import annotations

import base64
import dataclasses
import errno
import hashlib
import json
import os
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

from gridsearch import files
from gridsearch.records.wire import decode, encode
from gridsearch.store.runner_identity import RunnerIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from gridsearch.records import Advance, TrialFailed, TrialFinished, TrialResumed

_EVENTS = ("epochs", "resumed", "ended")
"""The fields of a record that hold events."""

_OWN: set[Path] = set()
"""Spools that runs of this process fill just now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolRecord:
    """One call of a store's that waits.

    Attributes:
        call: which of them.
        study: the study's id that its deletion and a new beginning change.
        epochs: epochs and steps.
        resumed: where trials go on from.
        ended: results and failures.
        shown: files for the dashboard by trial and name.
        claims: (trial, attempt), of those that are given back or offered again.
        retries: how often a trial is tried again.
        reason: why it is.
        name: the pack's of claims that may have been made, or the study's of a log.
        text: for the log of trial `number`.
        store: what tells the store that it is for from others, see `Database.identity`; others may use the same home.
    """

    call: Literal["record_epochs", "resume", "finish_many", "requeue", "release", "unclaim", "append_log"]
    study: str
    epochs: Sequence[Advance] = ()
    resumed: Sequence[TrialResumed] = ()
    ended: Sequence[TrialFinished | TrialFailed] = ()
    shown: Mapping[int, Mapping[str, bytes]] = field(default_factory=dict)
    claims: Sequence[tuple[int, int]] = ()
    retries: int = 0
    reason: str = ""
    name: str = ""
    number: int = 0
    text: str = ""
    store: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads back."""
        content = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        for name in _EVENTS:
            content[name] = [encode(event).decode() for event in content[name]]
        content["shown"] = {
            str(trial): {name: base64.b64encode(file).decode() for name, file in of_trial.items()}
            for trial, of_trial in self.shown.items()
        }
        return content

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Read what `to_json` returned."""
        for name in _EVENTS:
            content[name] = [decode(line.encode()) for line in content.get(name, ())]
        content["claims"] = [(trial, attempt) for trial, attempt in content["claims"]]
        content["shown"] = {
            int(trial): {name: base64.b64decode(file) for name, file in of_trial.items()}
            for trial, of_trial in content["shown"].items()
        }
        return cls(**content)


class Spool:
    """The records of one run.

    Args:
        roots: folders to keep them in, the one that is wanted first; the next is taken where nothing can be written.
        owner: whose they are.
        store: what tells their store from others.
        away: whether the first of the folders is not to be used: what it should lie in is not there.
    """

    def __init__(
        self,
        roots: Sequence[Path],
        owner: RunnerIdentity,
        *,
        store: str = "",
        away: Callable[[], bool] = lambda: False,
    ) -> None:
        self._owner = owner
        self._store = store
        self._away = away
        name = f"{_safe(owner.host)}-{owner.pid}-{secrets.token_hex(4)}"
        self._folders = [root / name for root in roots]
        self._next = 1
        _OWN.update(self._folders)

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return any(True for _ in self.paths())

    @property
    def place(self) -> Path:
        """Where its records lie, or would."""
        return next((folder for folder in self._folders if folder.is_dir()), self._folders[0])

    def append(self, record: SpoolRecord) -> None:
        """Keep a record until `drop`.

        Raises:
            OSError: it can be written nowhere.
        """
        of_store = dataclasses.replace(record, store=self._store)
        content = {"owner": dataclasses.asdict(self._owner), "record": of_store.to_json()}
        text = json.dumps(content).encode()
        refused = OSError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._folders[0]))
        for folder in self._folders[1:] if self._away() else self._folders:
            try:
                _make_private(folder)
                files.write_whole(folder / f"{self._next:09d}.json", text)
            except OSError as error:
                refused = error
            else:
                self._next += 1
                return
        raise refused

    def paths(self) -> Iterator[Path]:
        """Go through the records in the order in which they came."""
        return iter(sorted((path for folder in self._folders for path in _records(folder)), key=_order))

    def close(self) -> None:
        """Take the folders away if nothing waits; what waits is for the next run."""
        for folder in self._folders:
            _OWN.discard(folder)
            _remove_empty(folder)


def read(path: Path) -> SpoolRecord | None:
    """Return a record, None if the file is damaged."""
    try:
        return SpoolRecord.from_json(json.loads(path.read_bytes())["record"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def drop(path: Path) -> None:
    """Take a record away that has been written, with its folder if that was the last."""
    path.unlink(missing_ok=True)
    if path.parent not in _OWN:
        _remove_empty(path.parent)


def set_aside(path: Path) -> Path:
    """Give a record that cannot be read another name, so that nothing waits for it; return that."""
    damaged = path.with_suffix(".damaged")
    files.rename(path, damaged)
    return damaged


def left_behind(roots: Sequence[Path]) -> list[tuple[RunnerIdentity, list[Path]]]:
    """Return what runs have left that do not fill their spools any more as far as this process knows, in order.

    Args:
        roots: folders of spools.
    """
    found = []
    for folder in (folder for root in roots for folder in sorted(_folders_of(root))):
        paths = sorted(_records(folder), key=_order)
        if folder in _OWN or not paths:
            continue
        with suppress(OSError, ValueError, KeyError, TypeError):
            owner = RunnerIdentity(**json.loads(paths[0].read_bytes())["owner"])
            found.append((owner, paths))
    return found


def roots(home: Path, store: str) -> tuple[Path, ...]:
    """Return where spools lie: below home, or while that is away in a temporary folder of this user's, if there is one.

    Args:
        home: of the studies.
        store: the database as messages name it.
    """
    digest = hashlib.sha256(os.fsencode(store)).hexdigest()[:16]
    user = os.getuid() if hasattr(os, "getuid") else "user"
    temporary = files.temporary_root()
    below_home = home / files.SPOOL
    return (below_home,) if temporary is None else (below_home, temporary / f"gridsearch-{user}-{digest}")


def _folders_of(root: Path) -> list[Path]:
    try:
        return [each for each in root.iterdir() if each.is_dir() and files.is_ours_alone(each)]
    except OSError:
        return []


def _records(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.suffix == ".json" and path.stem.isdigit()]
    except OSError:
        return []


def _order(path: Path) -> int:
    return int(path.stem)


def _safe(host: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", host)[:64]


def _make_private(folder: Path) -> None:
    """Make a folder that nobody else may write; what its root lies in must be there.

    Raises:
        OSError: it cannot be, or somebody else's lies there.
    """
    for each in (folder.parent, folder):
        each.mkdir(mode=0o700, exist_ok=True)
        if not files.is_ours_alone(each):
            raise PermissionError(errno.EPERM, "it belongs to somebody else", str(each))


def _remove_empty(folder: Path) -> None:
    for each in (folder, folder.parent):
        with suppress(OSError):
            each.rmdir()
