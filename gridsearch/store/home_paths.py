"""Where each file under home lies; nothing is below a link, and nothing is below a home that is away.

`gridsearch.files` has the names.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from gridsearch import files
from gridsearch.errors import ArtifactError, StoreUnreachable, UsageError, unwritable
from gridsearch.folders import expanded
from gridsearch.store.object_storage import storage_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gridsearch.store.object_storage import ObjectStorage

_LONGEST_FOLDER = 200
_NAMED_DIGITS = 16
STUDY_NAME = re.compile(r"(?![.-])[A-Za-z0-9._-]{1,64}")
_FILE_NAME = re.compile(r"(?![.-])[A-Za-z0-9._-]{1,128}")


@dataclass(frozen=True, slots=True)
class HomePaths:
    """The folder where a store's files live; made when the first of them is written.

    Args:
        root: the folder; a link to it is the user's choice and is resolved, links below it are refused.
        known: the folder that was there when this was made, see `bound`; None for any.

    Attributes:
        objects: where its files go, if the folder stands for a home in object storage.
    """

    root: Path
    known: tuple[int, int] | None = field(default=None, repr=False, compare=False)
    objects: ObjectStorage | None = field(init=False, repr=False, compare=False)
    _given: Path = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        given = expanded(self.root)
        object.__setattr__(self, "_given", given)
        object.__setattr__(self, "root", Path(os.path.realpath(given)))
        address = files.object_address(given)
        object.__setattr__(self, "objects", None if address is None else storage_at(address))

    def bound(self) -> Self:
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
        return self._below(_study(study))

    def trial_dir(self, study: str, number: int) -> Path:
        """The folder of a trial."""
        return self._below(_trial(study, number))

    def scratch(self, study: str, number: int, attempt: int) -> Path:
        """The folder where a worker leaves the files of one attempt; a successor has another."""
        return self._below(_trial(study, number)) / f"{files.SCRATCH}{_number(attempt)}"

    def trial_file(self, study: str, number: int, name: str) -> Path:
        """A file of a trial.

        Raises:
            ArtifactError: that is no name of a file.
        """
        return self._below(f"{_trial(study, number)}/{file_name(name)}")

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
        folder = f"{_study(study)}/{files.TENSORBOARD}"
        return self._below(folder if number is None else f"{folder}/{_number(number)}")

    def best_dir(self, study: str) -> Path:
        """The folder of the exported winner."""
        return self._below(self.study_dir(study) / files.BEST)

    def best_work(self, study: str) -> Path:
        """The folder where the winner is trained again and its export is put together."""
        return self._below(self.study_dir(study) / files.BEST_WORK)

    def refit_dir(self, study: str, digest: str) -> Path:
        """The folder where the lanes of a refit leave their files until it has been tested."""
        return self._below(self.best_work(study) / f"{files.REFIT}{digest}")

    def fetch(self, path: Path) -> None:
        """Fetch a file that is not here from object storage, if the home is there.

        Raises:
            StoreUnreachable: it does not answer.
        """
        if self.objects is not None and not path.exists():
            self.objects.get(self._name(path), path)

    def _put_up(self, path: Path) -> None:
        if self.objects is not None:
            self.objects.put(path, self._name(path))

    def _name(self, path: Path, sha256: str | None = None) -> str:
        """Return the name of a file's object, one of its content where it has a SHA-256."""
        name = path.relative_to(self.root).as_posix()
        return name if sha256 is None else f"{name}.{sha256[:_NAMED_DIGITS]}"

    def _below(self, path: str | Path) -> Path:
        """Return the path if it lies below home with no link on its way; done for each file of each trial."""
        if self.is_away:
            raise StoreUnreachable(f"home {self.root} is not there", hint="bring it back")
        if isinstance(path, Path) and path.is_relative_to(self._given):
            path = path.relative_to(self._given)
        root = os.fspath(self.root).rstrip(os.sep) + os.sep
        absolute = os.path.normpath(os.path.join(root, path))  # noqa: PTH118 - on texts it takes a tenth
        if not absolute.startswith(root):
            raise ArtifactError(f"{path} does not lie below {self.root}")
        place = root
        for part in absolute.removeprefix(root).split(os.sep):  # noqa: PTH206
            place += part
            if os.path.islink(place):  # noqa: PTH114
                raise ArtifactError(
                    f"{place} is a link",
                    hint="put the folder itself there; links below home are not followed",
                )
            place += os.sep
        return Path(absolute)


def _study(study: str) -> str:
    if not STUDY_NAME.fullmatch(study) or study.startswith(files.DATABASE):
        raise UsageError(
            f"study name {study!r} is not allowed",
            hint="at most 64 letters, digits and ._-, not . or - first, and not the store's own name",
        )
    return study


def _trial(study: str, number: int) -> str:
    return f"{_study(study)}/{files.TRIALS}/{_number(number)}"


def file_name(name: str) -> str:
    """Return the name if it is that of a file and of nothing else.

    Raises:
        ArtifactError: it is not.
    """
    if not _FILE_NAME.fullmatch(name):
        raise ArtifactError(f"{name!r} is not a file name")
    return name


def _number(number: int) -> int:
    if number < 0:
        raise ValueError(f"trial numbers and attempts are not negative: {number}")
    return number


@contextlib.contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn what the system says of a file that cannot be written into a StoreError."""
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from error
