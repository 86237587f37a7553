"""Files under home: where each lies, how it is written, and how it is checked when it is read.

Stands on `gridsearch.files`, which has the names and writes a file whole or not at all.  A file is read back only when
its SHA-256 agrees, and lies below home: no name leads out of it, no link is followed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gridsearch import files
from gridsearch.checkpoints import checkpoints_in
from gridsearch.errors import ArtifactError, StoreUnreachable, UsageError, unwritable
from gridsearch.folders import expanded
from gridsearch.records import FileRef
from gridsearch.store import trial_logs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from io import BufferedReader

_LONGEST_FOLDER = 200
_STUDY_NAME = re.compile(r"(?![.-])[A-Za-z0-9._-]{1,64}")
_FILE_NAME = re.compile(r"(?![.-])[A-Za-z0-9._-]{1,128}")
_OF_TRIALS = (files.TRIALS, files.TENSORBOARD)
_LEFT_BY_WRITES = (f"{files.PARTIAL}*", ".*.tmp")  # the second by versions of before


@dataclass(frozen=True, slots=True)
class Home:
    """The folder where a store's files live; made when the first of them is written.

    Args:
        root: the folder; a link to it is the user's choice and is resolved, links below it are refused.
        known: the folder that was there when this was made, see `bound`; None for any.
    """

    root: Path
    known: tuple[int, int] | None = field(default=None, repr=False, compare=False)
    _given: Path = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        given = expanded(self.root)
        object.__setattr__(self, "_given", given)
        object.__setattr__(self, "root", Path(os.path.realpath(given)))

    def bound(self) -> Home:
        """Return the same place, which counts as away once another folder, or none, lies there.

        What would be written meanwhile would make a folder where the true one cannot come back to.
        """
        return replace(self, known=self._identity())

    @property
    def is_away(self) -> bool:
        """Whether the folder was moved or unmounted since `bound`."""
        return self.known is not None and self._identity() != self.known

    def _identity(self) -> tuple[int, int] | None:
        try:
            facts = self.root.stat()
        except OSError:
            return None
        return facts.st_dev, facts.st_ino

    # Where things are.

    @property
    def database(self) -> Path:
        """The store's file, unless `--store` names another."""
        return self.root / files.DATABASE

    @property
    def artifact_dir(self) -> Path:
        """Copies for Optuna's dashboard, named by artifact id (`optuna-dashboard --artifact-dir`)."""
        return self.root / files.DASHBOARD_COPIES

    def study_dir(self, study: str) -> Path:
        """The folder of a study.

        Raises:
            UsageError: that is no name of a study.
        """
        if not _STUDY_NAME.fullmatch(study) or study.startswith(files.DATABASE):
            raise UsageError(
                f"study name {study!r} is not allowed",
                hint="at most 64 letters, digits and ._-, not . or - first, and not the store's own name",
            )
        return self._below(self.root / study)

    def trial_dir(self, study: str, number: int) -> Path:
        """The folder of a trial."""
        return self._below(self.study_dir(study) / files.TRIALS / str(_number(number)))

    def scratch(self, study: str, number: int, attempt: int) -> Path:
        """The folder where a worker leaves the files of one attempt; a successor has another."""
        return self.trial_dir(study, number) / f"{files.SCRATCH}{_number(attempt)}"

    def trial_file(self, study: str, number: int, name: str) -> Path:
        """A file of a trial.

        Raises:
            ArtifactError: that is no name of a file.
        """
        return self._below(self.trial_dir(study, number) / file_name(name))

    def log(self, study: str, number: int) -> Path:
        """The trial's log."""
        return self.trial_file(study, number, files.LOG)

    def report_dir(self, study: str, part: str = "") -> Path:
        """The folder of the study's report, or beside it that of a part of the study."""
        return self._below(self.study_dir(study) / (f"{files.REPORT}-{part}" if part else files.REPORT))

    def comparison_dir(self, studies: Sequence[str], part: str = "") -> Path:
        """The folder of a comparison of studies or of parts of them; its "+" keeps it apart from any study's own."""
        names = [self.study_dir(study).name for study in studies]
        name = "+".join([*names, part] if part else names)
        if len(name) > _LONGEST_FOLDER:
            digest = hashlib.sha256(name.encode()).hexdigest()[:12]
            name = f"{name[: _LONGEST_FOLDER - len(digest) - 1]}+{digest}"
        return self._below(self.root / name)

    def tensorboard_dir(self, study: str, number: int | None = None) -> Path:
        """The folder of TensorBoard's runs, or of one trial's run."""
        folder = self.study_dir(study) / files.TENSORBOARD
        return self._below(folder if number is None else folder / str(_number(number)))

    def best_dir(self, study: str) -> Path:
        """The folder of the exported winner."""
        return self._below(self.study_dir(study) / files.BEST)

    def best_work(self, study: str) -> Path:
        """The folder where the winner is trained again and its export is put together."""
        return self._below(self.study_dir(study) / files.BEST_WORK)

    # Writing.

    def make_scratch(self, study: str, number: int, attempt: int) -> Path:
        """Make the scratch folder of an attempt and return it; it is empty but for an earlier attempt's checkpoints.

        That attempt's folder becomes this one's by a rename: whoever still writes there, since it was paused and does
        not know yet that it has lost its claim, finds no such folder.
        """
        folder = self.scratch(study, number, attempt)
        earlier = self._attempts(study, number)
        before = next((each for each in earlier if each != folder and checkpoints_in(each)), None)
        with _writing(folder):
            if folder.exists():
                shutil.rmtree(folder)
            if before is None:
                folder.mkdir(parents=True)
            else:
                files.rename(before, folder)
                _remove_drafts(folder)
        for each in earlier:
            if each != folder:
                shutil.rmtree(each, ignore_errors=True)
        return folder

    def _attempts(self, study: str, number: int) -> list[Path]:
        """Return the scratch folders of a trial, of the latest attempt first."""
        found = {}
        for folder in self.trial_dir(study, number).glob(f"{files.SCRATCH}*"):
            attempt = folder.name.removeprefix(files.SCRATCH)
            if attempt.isascii() and attempt.isdigit() and not folder.is_symlink():
                found[int(attempt)] = folder
        return [found[attempt] for attempt in sorted(found, reverse=True)]

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
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_whole(path, content)
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
        with _writing(place):
            if place.exists():
                old = ready.with_name(f"{ready.name}.old")
                files.rename(place, old)
                files.rename(ready, place)
                shutil.rmtree(old) if old.is_dir() else old.unlink()
            else:
                files.rename(ready, place)
        return True

    @contextlib.contextmanager
    def writing(self, path: Path) -> Iterator[None]:
        """Turn what the system says of a file below home that cannot be written into a StoreError."""
        with _writing(self._below(path)):
            yield

    def append_log(self, study: str, number: int, text: str) -> None:
        """Append text to a trial's log, which is bounded; see `trial_logs`."""
        path = self.log(study, number)
        with _writing(path):
            trial_logs.append(path, text)

    def adopt(self, source: Path, ref: FileRef, *, study: str, number: int) -> Path:
        """Move a worker's file to its place in the trial's folder, if its bytes are those announced.

        It may be called again after a kill: a file that is in its place already is left there.

        Raises:
            ArtifactError: the file is missing or altered.
        """
        target = self.trial_file(study, number, ref.name)
        self.verify(source, ref, moved_to=target)
        self.move_verified(source, target)
        return target

    def verify(self, source: Path, ref: FileRef, *, moved_to: Path | None = None) -> None:
        """Check a worker's file against what was announced and bring it to the disk.

        Raises:
            ArtifactError: the file is missing or altered.
        """
        path = self._below(source)
        if moved_to is not None and not path.exists() and moved_to.exists():
            path = moved_to
        found = reference(path)
        if (found.sha256, found.size) != (ref.sha256, ref.size):
            raise ArtifactError(
                f"{path} is not the file that the worker announced ({found.size} bytes of {ref.size})",
                hint="run the same command again: the trial is trained anew",
            )
        with _writing(path):
            files.sync(path)

    def move_verified(self, source: Path, target: Path) -> None:
        """Rename a verified file into its place; one that has been moved already is left alone."""
        with _writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.exists() or not target.exists():
                files.rename(source, target)
            else:
                files.sync(target.parent)

    def leave_scratch(self, study: str, number: int, attempt: int) -> None:
        """Keep of an attempt that has ended what the next one goes on from; without checkpoints nothing is left."""
        if self.is_away:
            return
        folder = self.scratch(study, number, attempt)
        if checkpoints_in(folder):
            _remove_drafts(folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)

    def drop_scratch(self, study: str, number: int) -> None:
        """Remove what all attempts at a trial have left, which has ended."""
        if self.is_away:
            return
        for folder in self._attempts(study, number):
            shutil.rmtree(folder, ignore_errors=True)

    def remove_trial_file(self, study: str, number: int, name: str) -> None:
        """Remove a file of a trial, if it is there."""
        self.trial_file(study, number, name).unlink(missing_ok=True)

    def clean(self, study: str, *, keep: Collection[int]) -> int:
        """Remove what unfinished attempts and unfinished writes have left; return the number of bytes.

        Args:
            study: its name.
            keep: numbers of the trials that run now, which are left alone.
        """
        freed = self._remove(list(self.study_dir(study).glob(f"{files.EARLIER}*")))
        trials = self.study_dir(study) / files.TRIALS
        for folder in sorted(trials.iterdir()) if trials.is_dir() else ():
            if folder.is_symlink() or not folder.is_dir() or folder.name in {str(number) for number in keep}:
                continue
            kinds = (f"{files.SCRATCH}*", *_LEFT_BY_WRITES)
            freed += self._remove([each for kind in kinds for each in folder.glob(kind)])
        return freed

    def _remove(self, left: Iterable[Path]) -> int:
        freed = 0
        for each in left:
            freed += _size(each) if each.is_dir() else each.lstat().st_size
            with _writing(each):
                shutil.rmtree(each) if each.is_dir() and not each.is_symlink() else each.unlink()
        return freed

    def set_earlier_aside(self, study: str) -> None:
        """Move what an earlier study of the same name has left out of the way of one that begins.

        Its trials bear the numbers of the new ones, whose logs and curves would else go on from theirs.
        """
        there = [self._below(self.study_dir(study) / name) for name in _OF_TRIALS]
        there = [folder for folder in there if folder.is_dir()]
        if there:
            place = self._below(self.study_dir(study) / f"{files.EARLIER}{secrets.token_hex(4)}")
            with _writing(place):
                place.mkdir()
                for folder in there:
                    files.rename(folder, place / folder.name)

    def leftovers(self, studies: Collection[str]) -> dict[str, int]:
        """Return the bytes of trials' files by study, of those that are not among these."""
        found = {}
        for folder in sorted(self.root.iterdir()) if self.root.is_dir() else ():
            if _STUDY_NAME.fullmatch(folder.name) and folder.name not in studies and not folder.is_symlink():
                sizes = [_size(folder / name) for name in _OF_TRIALS if (folder / name).is_dir()]
                sizes += [_size(each) for each in folder.glob(f"{files.EARLIER}*")]
                if sizes:
                    found[folder.name] = sum(sizes)
        return found

    def remove_trials(self, study: str) -> int:
        """Remove the files of a study's trials, and not its reports and exports; return the number of bytes."""
        folder = self.study_dir(study)
        freed = self._remove([*(folder / name for name in _OF_TRIALS if (folder / name).is_dir())])
        freed += self._remove(list(folder.glob(f"{files.EARLIER}*")))
        with contextlib.suppress(OSError):  # there is a report
            folder.rmdir()
        return freed

    def remove_study(self, study: str) -> int:
        """Remove the folder of a study; return the number of bytes that were in it."""
        folder = self.study_dir(study)
        size = _size(folder)
        with _writing(folder):
            if folder.exists():
                shutil.rmtree(folder)
        return size

    def remove_copies(self, artifact_ids: Iterable[str]) -> None:
        """Remove the dashboard's copies of these artifacts."""
        for each in artifact_ids:
            self._below(self.artifact_dir / file_name(each)).unlink(missing_ok=True)

    # Reading.

    def read_verified(self, path: Path, sha256: str) -> bytes:
        """Return the bytes of a file below home.

        Raises:
            ArtifactError: it is missing, or its bytes are not those that were recorded.
        """
        path = self._below(path)
        try:
            with _open(path) as file:
                content = file.read()
        except OSError as error:
            raise _unreadable(path, error) from error
        if hashlib.sha256(content).hexdigest() != sha256:
            raise ArtifactError(
                f"{path} has changed since it was written", hint="bring back a copy, or train the trial anew"
            )
        return content

    def size(self, study: str) -> int:
        """Return the number of bytes in the folder of a study."""
        return _size(self.study_dir(study))

    def _below(self, path: Path) -> Path:
        """Return the path if it lies below home with no link on its way."""
        if self.is_away:
            raise StoreUnreachable(f"home {self.root} is not there", hint="bring it back")
        if path.is_relative_to(self._given):
            path = path.relative_to(self._given)
        absolute = Path(os.path.normpath(self.root / path))
        if not absolute.is_relative_to(self.root) or absolute == self.root:
            raise ArtifactError(f"{path} does not lie below {self.root}")
        place = self.root
        for part in absolute.relative_to(self.root).parts:
            place /= part
            if place.is_symlink():
                raise ArtifactError(
                    f"{place} is a link",
                    hint="put the folder itself there; links below home are not followed",
                )
        return absolute


def file_name(name: str) -> str:
    """Return the name if it is that of a file and of nothing else.

    Raises:
        ArtifactError: it is not.
    """
    if not _FILE_NAME.fullmatch(name):
        raise ArtifactError(f"{name!r} is not a file name")
    return name


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
        f"{path} cannot be read: {error.strerror}", hint="bring back a copy, or train the trial anew"
    )


def _number(number: int) -> int:
    if number < 0:
        raise ValueError(f"trial numbers and attempts are not negative: {number}")
    return number


def _remove_drafts(folder: Path) -> None:
    for draft in folder.glob(f"{files.PARTIAL}*"):
        draft.unlink(missing_ok=True)


def _size(folder: Path) -> int:
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(where) / name).lstat().st_size
    return total


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from error
