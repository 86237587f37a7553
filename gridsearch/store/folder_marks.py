"""Says whose the folder of a study is: several stores may have one home, and each a study of the same name.

The folder bears a mark since its study's first file: the study's `uid`, which copies of a store share, and the places
of the stores that hold it.  Stands below `home_cleaning`, which takes nothing away that another store may need.  What
another store holds is looked up in SQLite files alone: a mark is a file, which could name any server, and that server
would be given our password.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import secrets
import socket
import sqlite3
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gridsearch import files
from gridsearch.errors import FolderTaken, StoreUnreachable, unwritable
from gridsearch.store import ledger_tables
from gridsearch.store.home_paths import HomePaths, writing_to
from gridsearch.store.sqlite_dialect import connect
from gridsearch.store.url import masked, sqlite_path, sqlite_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_LOOK_SECONDS = 2.0
"""So long another store's lock is waited for; who cannot tell takes its study for there."""

_TAKE_SECONDS = 10.0
_SERVER = "postgresql://"
_HERE = ("localhost", "127.0.0.1", "::1")
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StorePlace:
    """Where a store is, as a mark names it.

    Attributes:
        at: a PostgreSQL URL, or a file's path: relative where it lies below home, and so moves with it.
        host: the machine for which that holds; "" where it holds for all that share home.
    """

    at: str
    host: str = ""

    @property
    def is_server(self) -> bool:
        """Whether it is a PostgreSQL database."""
        return self.at.startswith(_SERVER)


@dataclass(frozen=True, slots=True)
class FolderMark:
    """Whose a study's folder is.

    Attributes:
        uid: of the study.
        stores: which are known to hold it.
    """

    uid: str
    stores: tuple[StorePlace, ...]

    def to_json(self) -> bytes:
        """Return the content of the mark's file."""
        stores = [{"at": place.at, "host": place.host} for place in self.stores]
        return json.dumps({"uid": self.uid, "stores": stores}).encode()


@dataclass(frozen=True, slots=True)
class MarkedFolders(HomePaths):
    """The folders of studies, each of one study alone.

    Args:
        store: URL of the store whose studies' files these are; without one, folders are nobody's.
    """

    store: str = field(default="", repr=False, compare=False)

    def take(self, study: str, uid: str) -> None:
        """Mark the folder of a study as its own, before its first file is written.

        What an earlier study of that name has left, which no store holds any more, is set aside.  A folder without a
        mark, as versions of before made them, is taken as it is.  A home that cannot be written is left alone.

        Args:
            study: its name.
            uid: its id.

        Raises:
            FolderTaken: another store's study has files there.
            StoreError: the mark cannot be written.
        """
        if not self.store or self._is_taken(study, uid):
            return
        try:
            self.study_dir(study).mkdir(parents=True, exist_ok=True)
            with self._alone_with(study):
                self._take(study, uid)
        except OSError as error:
            if error.errno not in _READ_ONLY:
                raise unwritable(self._mark_path(study), error) from error
            self.require(study, uid)

    def begin(self, study: str) -> None:
        """Set aside what an earlier study of the same name has left, since one begins.

        Its trials bear the numbers of the new ones, whose logs and curves would else go on from theirs; and its report
        and its winner, which `predict` may be asked for, would be taken for those of the new one.

        Raises:
            FolderTaken: another store's study has files there; nothing is changed.
        """
        if not self.study_dir(study).is_dir() and self.objects is None:
            return
        self.require(study, "")
        with writing_to(self._mark_path(study)):
            self.study_dir(study).mkdir(parents=True, exist_ok=True)
            with self._alone_with(study):
                self.require(study, "")
                self._set_aside(study)

    def require(self, study: str, uid: str, *, fresh: bool = True) -> None:
        """Refuse a study whose folder is that of another store's study.

        Args:
            study: its name.
            uid: its id, "" of one that begins.
            fresh: ask a home in object storage too, and not only the folder that stands for it here.

        Raises:
            FolderTaken: it is.
        """
        mark = self._mark(study, fresh=fresh)
        if mark is not None and mark.uid != uid and (holders := self._holders(mark)):
            raise FolderTaken(
                f"{self._shown(study)} holds files of study {study!r} of another store, {self._named(holders[0])}",
                hint="name another study with --study, or another folder for files with --home",
            )

    def others(self, study: str) -> str | None:
        """Return the other store that needs the files in a study's folder; None if none is known to."""
        mark = self._mark(study)
        holders = () if mark is None else self._holders(mark)
        return self._named(holders[0]) if holders else None

    def held(self) -> list[str]:
        """Return the names of the studies whose files are here and that this store holds, by their marks."""
        folders = sorted(self.root.iterdir()) if self.root.is_dir() else ()
        marks = ((folder.name, _read(folder / files.MARK)) for folder in folders)
        return [name for name, mark in marks if mark is not None and self._own in mark.stores]

    def share(self, study: str, uid: str, store: str) -> None:
        """Note that another store holds a study too, to which it was copied; nothing where there are no files of it.

        Raises:
            StoreError: the mark cannot be written.
        """
        mark = self._mark(study)
        if mark is None and not self.study_dir(study).is_dir():
            return
        if mark is None or mark.uid == uid:
            known = (self._place(self.store),) if mark is None else mark.stores
            self._write_mark(study, FolderMark(uid, tuple(dict.fromkeys((*known, self._place(store))))))

    def leave(self, study: str, uid: str) -> None:
        """Note that this store no longer holds a study whose files another one needs."""
        mark, own = self._mark(study), self._own
        if mark is not None and mark.uid == uid and own in mark.stores:
            self._write_mark(study, FolderMark(uid, tuple(place for place in mark.stores if place != own)))

    def _is_kept(self, folder: Path) -> bool:
        """Return whether a folder that was set aside is one that another store needs."""
        mark = _read(folder / files.MARK)
        return mark is not None and bool(self._holders(mark))

    def _is_taken(self, study: str, uid: str) -> bool:
        mark = self._mark(study)
        return mark is not None and mark.uid == uid and self._own in mark.stores

    def _take(self, study: str, uid: str) -> None:
        mark, own = self._mark(study), self._place(self.store)
        self.require(study, uid)
        known: Sequence[StorePlace] = ()
        if mark is not None and mark.uid == uid:
            known = self._holders(mark)
        elif mark is not None:
            self._set_aside(study)
        self._write_mark(study, FolderMark(uid, (*known, own)))
        if self.objects is not None:  # of two at once, whose mark stands
            self.require(study, uid)

    def _set_aside(self, study: str) -> None:
        """Move what is in a study's folder, which nobody needs, out of the way, with its mark."""
        folder, path = self.study_dir(study), self._mark_path(study)
        mark = _read(path)
        kinds = (files.TRIALS, files.TENSORBOARD, files.BEST, f"{files.REPORT}*")
        there = [self._below(each) for kind in kinds for each in folder.glob(kind) if each.is_dir()]
        if there:
            place = self._below(folder / f"{files.EARLIER}{secrets.token_hex(4)}")
            with writing_to(place):
                place.mkdir()
                if mark is not None:
                    files.write_whole(place / files.MARK, mark.to_json())
                for each in there:
                    files.rename(each, place / each.name)
            if mark is not None and mark.stores and self._own not in mark.stores:
                _log.warning(
                    "%s held files of study %r of store %s, which is gone: they are in %s now",
                    *(folder, study, self._named(mark.stores[0]), place.name),
                )
            else:  # it was deleted by others, or the store is a new one, or an older copy
                _log.warning(
                    "%s held files of an earlier study %r, which this store does not hold: they are in %s now",
                    *(folder, study, place.name),
                )
        path.unlink(missing_ok=True)  # last: whatever is still here is known to be of another study

    # What is where

    @property
    def _own(self) -> StorePlace | None:
        return self._place(self.store) if self.store else None

    @contextmanager
    def _alone_with(self, study: str) -> Iterator[None]:
        """Let one process at a time look at a mark and change it."""
        folder = self.study_dir(study)
        lock = self._below(folder / files.MARK_LOCK)
        try:
            with files.only_one(lock, patience=_TAKE_SECONDS):
                yield
        except TimeoutError as error:
            raise StoreUnreachable(
                f"{lock} was locked by another process for more than {_TAKE_SECONDS:.0f} s",
                hint="end the process that holds it (fuser shows which), then run the same command again",
            ) from error

    def _mark_path(self, study: str) -> Path:
        return self._below(self.study_dir(study) / files.MARK)

    def _mark(self, study: str, *, fresh: bool = True) -> FolderMark | None:
        """Return whose a study's folder is, None if nobody knows."""
        path = self._mark_path(study)
        if fresh and self.objects is not None:
            known = self.objects.get(self._name(path), path)  # another machine may have changed it
            if not known and (left := _read(path)) is not None:  # or removed the study: no store needs this
                return FolderMark(left.uid, ())
        return _read(path) or self._presumed(study)

    def _presumed(self, study: str) -> FolderMark | None:
        """Return whose a folder without a mark is: that of the study which the home's own store has of its name."""
        own = self._own
        home = StorePlace(files.DATABASE)
        if own in (None, home) or not self.study_dir(study).is_dir():
            return None
        if any((self.study_dir(study) / name).exists() for name in (files.TRIALS, files.REPORT, files.BEST)):
            uids = _asked(self.database, "SELECT uid FROM {} WHERE name = ?", study)
            if uids:
                return FolderMark(uids[0], (home,))
        return None

    def _write_mark(self, study: str, mark: FolderMark) -> None:
        path = self._mark_path(study)
        try:
            files.write_whole(path, mark.to_json())
        except OSError as error:
            raise unwritable(self._mark_path(study), error) from error
        self._put_up(path)

    def _place(self, store: str) -> StorePlace:
        """Return how a mark names a store."""
        if store.startswith(_SERVER):
            return StorePlace(masked(store), _this_host() if _is_here(store) else "")
        path = Path(os.path.realpath(sqlite_path(store)))
        if path.is_relative_to(self.root):
            return StorePlace(str(path.relative_to(self.root)))
        return StorePlace(str(path), _this_host())

    def _shown(self, study: str) -> str:
        return str(self.study_dir(study)) if self.objects is None else f"{self.objects.address}/{study}"

    def _named(self, place: StorePlace) -> str:
        """Return how a message names a store, as `--store` takes it on its machine."""
        url = place.at if place.is_server else sqlite_url(self.root / place.at)
        return url if place.host in ("", _this_host()) else f"{url} on {place.host}"

    def _holders(self, mark: FolderMark) -> tuple[StorePlace, ...]:
        """Return the stores beside this one that hold the study of a mark, or may do."""
        places = dict.fromkeys((*mark.stores, StorePlace(files.DATABASE)))
        return tuple(
            place
            for place in places
            if not self._is_own(place) and self._may_hold(place, mark.uid, listed=place in mark.stores)
        )

    def _is_own(self, place: StorePlace) -> bool:
        """Return whether a place is this store's: another name of its file, as a link has, is the same place."""
        own = self._own
        if own is None or place == own:
            return place == own
        if own.is_server or place.is_server or place.host not in ("", _this_host()):
            return False
        return os.path.realpath(self.root / place.at) == os.path.realpath(self.root / own.at)

    def _may_hold(self, place: StorePlace, uid: str, *, listed: bool) -> bool:
        """Return whether a store holds a study, or nobody can tell; one that is not listed has to be known to."""
        if place.is_server or place.host not in ("", _this_host()):
            return True
        path = self.root / place.at
        try:
            path.stat()
        except FileNotFoundError:
            return listed and not path.parent.is_dir()  # a disk that is not there now
        except OSError:
            return listed
        found = _asked(path, "SELECT uid FROM {} WHERE uid = ?", uid)
        return listed if found is None else bool(found)


def _read(path: Path) -> FolderMark | None:
    content = files.read_json(path)
    uid, stores = content.get("uid"), content.get("stores")
    if not isinstance(uid, str) or not isinstance(stores, list):
        return None
    places = [(each.get("at"), each.get("host")) for each in stores if isinstance(each, dict)]
    return FolderMark(
        uid,
        tuple(StorePlace(at, host) for at, host in places if isinstance(at, str) and isinstance(host, str)),
    )


def _asked(path: Path, query: str, value: str) -> list[str] | None:
    """Return what a store's file says of its studies, which is not changed; None where it cannot be told."""
    if not path.is_file():
        return None
    try:
        with closing(connect(path, mode="ro", busy=_LOOK_SECONDS)) as connection:
            return [row[0] for row in connection.execute(query.format(ledger_tables.studies.name), (value,))]
    except sqlite3.Error:
        return None


def _this_host() -> str:
    return socket.gethostname()


def _is_here(url: str) -> bool:
    """Return whether a PostgreSQL URL names a server on this machine, as each machine may have one."""
    try:
        host = urlsplit(url).hostname
    except ValueError:
        return False
    return host is None or host in _HERE
