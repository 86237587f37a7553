"""Files under home: how each is written, and how it is checked when it is read.

Stands on `gridsearch.files`, which writes a file whole or not at all, and on `home_paths`, which says where each lies.
A file is read back only when its SHA-256 agrees.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gridsearch import files
from gridsearch.checkpoints import checkpoints_in
from gridsearch.errors import ArtifactError, StoreUnreachable
from gridsearch.records import FileRef
from gridsearch.store import trial_logs
from gridsearch.store.home_cleaning import HomeCleaning
from gridsearch.store.home_paths import file_name, writing_to

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from io import BufferedReader

__all__ = ["Home", "file_name", "reference"]


@dataclass(frozen=True, slots=True)
class Home(HomeCleaning):
    """The folder where a store's files live; made when the first of them is written."""

    def make_scratch(self, study: str, number: int, attempt: int) -> Path:
        """Make the scratch folder of an attempt and return it; it is empty but for an earlier attempt's checkpoints.

        That attempt's folder becomes this one's by a rename: whoever still writes there, since it was paused and does
        not know yet that it has lost its claim, finds no such folder.
        """
        folder = self.scratch(study, number, attempt)
        _take_over(self._attempts(study, number), folder)
        return folder

    def _attempts(self, study: str, number: int) -> list[Path]:
        """Return the scratch folders of a trial, of the latest attempt first."""
        return list(_attempts_in(self.trial_dir(study, number)).values())

    def make_lane_scratch(self, place: Path) -> tuple[Path, int]:
        """Make the scratch folder of the next attempt at a lane that is no trial; see `make_scratch`.

        Args:
            place: of all attempts at it, below home; made if it is not there.

        Returns:
            The folder, and the number of the attempt: 1 where there are no checkpoints to go on from.
        """
        earlier = _attempts_in(self._below(place))
        last = next((number for number, each in earlier.items() if checkpoints_in(each)), 0)
        folder = place / f"{files.SCRATCH}{last + 1}"
        _take_over(list(earlier.values()), folder)
        return folder, last + 1

    def checkpoint_epoch(self, study: str, number: int) -> int:
        """Return the epoch that a trial goes on from, by its newest checkpoint; 0 where it has none."""
        there = (checkpoints_in(folder) for folder in self._attempts(study, number))
        return next((found[0].epoch for found in there if found), 0)

    def write_atomic(self, path: Path, content: bytes) -> FileRef:
        """Write a file below home; whoever reads it sees the old content or the new, never a part.

        Args:
            path: where; the folder is made.
            content: all of it.

        Raises:
            ArtifactError: the path leads out of home.
            StoreError: it cannot be written (read-only, full).
        """
        path = self._below(path)
        with writing_to(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        return self._write(path, content)

    def write_beside(self, path: Path, content: bytes) -> FileRef:
        """Write a file as `write_atomic` does, into a folder that is there: one that was deleted is not made anew."""
        return self._write(self._below(path), content)

    def _write(self, path: Path, content: bytes) -> FileRef:
        with writing_to(path):
            files.write_whole(path, content)
        self._put_up(path)
        return FileRef(name=path.name, sha256=hashlib.sha256(content).hexdigest(), size=len(content))

    def publish_best(self, study: str, name: str) -> bool:
        """Put a complete export in `best_work` in the place of `best_dir`; return whether it was still there.

        It may be called again after a kill between any two of its steps.

        Args:
            study: its name.
            name: of the export's folder in `best_work`.
        """
        ready, place = self._below(self.best_work(study) / file_name(name)), self.best_dir(study)
        if not ready.is_dir():
            return False
        with writing_to(place):
            if place.exists():
                old = ready.with_name(f"{ready.name}.old")
                files.rename(place, old)
                files.rename(ready, place)
                shutil.rmtree(old) if old.is_dir() else old.unlink()
            else:
                files.rename(ready, place)
        for file in place.iterdir() if self.objects is not None else ():
            self._put_up(file)
        return True

    @contextlib.contextmanager
    def writing(self, path: Path) -> Iterator[None]:
        """Turn what the system says of a file below home that cannot be written into a StoreError."""
        with writing_to(self._below(path)):
            yield

    def append_log(self, study: str, number: int, text: str) -> None:
        """Append text to a trial's log, which is bounded; see `trial_logs`."""
        path = self.log(study, number)
        with writing_to(path):
            trial_logs.append(path, text)

    def leave_log(self, study: str, number: int) -> None:
        """Move the log aside that another trial of this number has left, before this one's first attempt.

        Where the store was restored from a copy, there are files of trials that it does not know.
        """
        with contextlib.suppress(OSError, StoreUnreachable):  # then this one's lines follow
            if (path := self.log(study, number)).exists():
                files.rename(path, path.with_name(f"{files.EARLIER}{secrets.token_hex(6)}"))

    def put_up_log(self, study: str, number: int) -> None:
        """Put the log of a trial that ends where all can read it, if the home is in object storage."""
        if self.objects is not None and (path := self.log(study, number)).exists():
            self._put_up(path)

    def verify(self, announced: Sequence[tuple[Path, FileRef, Path | None]]) -> None:
        """Check workers' files against what was announced and bring them to the disk, and to object storage.

        Args:
            announced: of each file where the worker left it, what it announced, and the file's place, where it may lie
                already; None where it has no other place.

        Raises:
            ArtifactError: a file is missing or altered.
        """
        found = [self._checked(source, ref, place) for source, ref, place in announced]
        with writing_to(_folder_of(found)):
            files.sync_all(found)
        for path, (_, ref, place) in zip(found, announced, strict=True):
            if self.objects is not None and place is not None:
                self.objects.put(path, self._name(place, ref.sha256))

    def _checked(self, source: Path, ref: FileRef, place: Path | None) -> Path:
        """Return where a file lies that is the announced one."""
        path = self._below(source)
        if place is not None and not path.exists() and place.exists():
            path = place
        found = reference(path)
        if (found.sha256, found.size) != (ref.sha256, ref.size):
            raise ArtifactError(
                f"{path} is not the file that the worker announced ({found.size} bytes of {ref.size})",
                hint="run the same command again: the trial is trained again",
            )
        return path

    def move_verified(self, pairs: Sequence[tuple[Path, Path]]) -> None:
        """Rename verified files into their places; one that has been moved already is left alone."""
        places = [target for _, target in pairs]
        with writing_to(_folder_of(places)):
            for folder in dict.fromkeys(target.parent for target in places):
                folder.mkdir(parents=True, exist_ok=True)
            left = [pair for pair in pairs if pair[0].exists() or not pair[1].exists()]
            files.rename_all(left)
            files.sync_all({place.parent for place in places} - {target.parent for _, target in left})

    def leave_scratch(self, study: str, number: int, attempt: int) -> None:
        """Keep of an attempt that has ended what the next one goes on from; without checkpoints nothing is left."""
        if self.is_away:
            return
        folder = self.scratch(study, number, attempt)
        if checkpoints_in(folder):
            files.remove_drafts(folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)

    def drop_scratch(self, study: str, number: int) -> None:
        """Remove what all attempts at a trial have left, which has ended."""
        if self.is_away:
            return
        for folder in self._attempts(study, number):
            shutil.rmtree(folder, ignore_errors=True)

    def read_verified(self, path: Path, sha256: str) -> bytes:
        """Return the bytes of a file below home.

        Raises:
            ArtifactError: it is missing, or its bytes are not those that were recorded.
        """
        path = self._below(path)
        if self.objects is not None and not path.exists():
            self.objects.get(self._name(path, sha256), path)
        try:
            with _open(path) as file:
                content = file.read()
        except OSError as error:
            raise _unreadable(path, error) from error
        if hashlib.sha256(content).hexdigest() != sha256:
            raise ArtifactError(
                f"{path} has changed since it was written", hint="restore a copy, or train the trial again"
            )
        return content


def _folder_of(paths: Sequence[Path]) -> Path:
    """Return the folder that holds all of these files, however deep; of one file the file itself."""
    return Path(os.path.commonpath(paths)) if paths else Path()


def reference(path: Path) -> FileRef:
    """Return name, SHA-256 and size of a file.

    Raises:
        ArtifactError: it cannot be read.
    """
    try:
        with _open(path) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return FileRef(name=path.name, sha256=digest, size=file.tell())
    except OSError as error:
        raise _unreadable(path, error) from error


def _open(path: Path) -> BufferedReader:
    return open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb")  # noqa: PTH123 -- a descriptor


def _unreadable(path: Path, error: OSError) -> ArtifactError:
    return ArtifactError(
        f"{path} cannot be read: {error.strerror}", hint="restore a copy, or train the trial again"
    )


def _attempts_in(place: Path) -> dict[int, Path]:
    """Return the scratch folders of all attempts by their numbers, of the latest first."""
    found = {}
    for folder in place.glob(f"{files.SCRATCH}*"):
        attempt = folder.name.removeprefix(files.SCRATCH)
        if attempt.isascii() and attempt.isdigit() and not folder.is_symlink():
            found[int(attempt)] = folder
    return {attempt: found[attempt] for attempt in sorted(found, reverse=True)}


def _take_over(earlier: Sequence[Path], folder: Path) -> None:
    """Make an attempt's folder of the latest earlier one with checkpoints, else anew; the others go."""
    before = next((each for each in earlier if each != folder and checkpoints_in(each)), None)
    with writing_to(folder):
        if folder.exists():
            shutil.rmtree(folder)
        if before is None:
            folder.mkdir(parents=True)
        else:
            files.rename(before, folder)
            files.remove_drafts(folder)
    for each in earlier:
        if each != folder:
            shutil.rmtree(each, ignore_errors=True)
