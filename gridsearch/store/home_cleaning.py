"""Takes away what nobody needs any more under home: of unfinished attempts, and of studies that were deleted.

Nothing goes that another store may need; see `folder_marks`.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gridsearch import files
from gridsearch.store.folder_marks import MarkedFolders
from gridsearch.store.home_paths import STUDY_NAME, file_name, writing_to

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

_OF_TRIALS = (files.TRIALS, files.TENSORBOARD)
_CUT_OFF = re.compile(rf"{re.escape(files.DELETED)}({STUDY_NAME.pattern})-[0-9a-f]{{8}}")
_LEFT_BY_WRITES = (f"{files.PARTIAL}*", f"{files.EARLIER}*", ".*.tmp")  # the last by versions of before


@dataclass(frozen=True, slots=True)
class HomeCleaning(MarkedFolders):
    """What can be taken away below home."""

    def remove_trial_file(self, study: str, number: int, name: str) -> None:
        """Remove a file of a trial, if it is there."""
        path = self.trial_file(study, number, name)
        path.unlink(missing_ok=True)
        if self.objects is not None:
            self.objects.remove(f"{self._name(path)}.*")

    def clean(self, study: str, *, keep: Collection[int]) -> int:
        """Remove what unfinished attempts and unfinished writes have left; return the number of bytes.

        Args:
            study: its name.
            keep: numbers of the trials that run now, which are left alone.
        """
        return self.remove_unfinished(study, self.unfinished(study, keep=keep))

    def unfinished(self, study: str, *, keep: Collection[int]) -> list[Path]:
        """Return what unfinished attempts and writes have left of trials, for `remove_unfinished`.

        An attempt's folder gets another name: whoever claims its trial from now on begins anew, whenever it is removed.

        Args:
            study: its name.
            keep: numbers of the trials that run now; no other one begins before this returns.
        """
        trials = self.study_dir(study) / files.TRIALS
        left, aside = [], []
        for folder in sorted(trials.iterdir()) if trials.is_dir() else ():
            if folder.is_symlink() or not folder.is_dir() or folder.name in {str(number) for number in keep}:
                continue
            left += [each for kind in _LEFT_BY_WRITES for each in folder.glob(kind)]
            attempts = folder.glob(f"{files.SCRATCH}*")
            aside += [(each, folder / f"{files.PARTIAL}{secrets.token_hex(6)}") for each in attempts]
        with writing_to(trials):
            files.rename_all(aside)
        return left + [place for _, place in aside]

    def remove_unfinished(self, study: str, left: Iterable[Path]) -> int:
        """Remove what `unfinished` has returned, and what was left elsewhere of a study; return the number of bytes."""
        freed = self._remove(left) + self._remove(self._earlier(self.study_dir(study)))
        freed += self.end_removal(study)
        with files.if_free(self.report_dir(study) / files.LOCK) as free:
            if free:
                folders = self.study_dir(study).glob(f"{files.REPORT}*")
                freed += sum(files.remove_drafts(each) for each in folders if not each.is_symlink())
        return freed + self.clean_best(study)

    def clean_best(self, study: str) -> int:
        """Remove what an unfinished refit of the winner has left, unless one goes on; return the number of bytes."""
        work = self.best_work(study)
        with files.if_free(work / files.LOCK) as free:
            if not free:
                return 0
            kinds = (files.REFIT, files.PARTIAL)
            freed = self._remove([each for kind in kinds for each in work.glob(f"{kind}*")])
        with contextlib.suppress(OSError):  # a complete export waits there
            work.rmdir()
        return freed

    def leftovers(self, studies: Collection[str]) -> dict[str, int]:
        """Return the bytes of trials' files by study, of those that are not among these nor another store's."""
        found: dict[str, int] = {}
        for folder in sorted(self.root.iterdir()) if self.root.is_dir() else ():
            if (cut := _CUT_OFF.fullmatch(folder.name)) and not self._is_kept(folder):
                found[cut[1]] = found.get(cut[1], 0) + files.size_of(folder)
            if folder.is_symlink() or not folder.is_dir() or folder.name.startswith(files.DATABASE):
                continue
            if STUDY_NAME.fullmatch(folder.name) and folder.name not in studies:
                there = [] if self.others(folder.name) else [folder / name for name in _OF_TRIALS]
                sizes = [files.size_of(each) for each in (*there, *self._earlier(folder)) if each.is_dir()]
                if sizes:
                    found[folder.name] = found.get(folder.name, 0) + sum(sizes)
        return found

    def remove_trials(self, study: str) -> int:
        """Remove the files of a deleted study's trials, and not its reports and exports; return the number of bytes."""
        folder = self.study_dir(study)
        freed = self._remove(self._earlier(folder)) + self.end_removal(study)
        if not self.others(study):
            there = [folder / name for name in (*_OF_TRIALS, files.MARK)]
            freed += self._remove([each for each in there if each.exists()])
            if self.objects is not None:
                self.objects.remove(f"{study}/{files.TRIALS}")
                self.objects.remove(f"{study}/{files.MARK}")
        with contextlib.suppress(OSError):  # there is a report
            folder.rmdir()
        return freed

    def _earlier(self, folder: Path) -> list[Path]:
        """Return what earlier studies of its name have left in a study's folder, and no store holds any more."""
        return [each for each in folder.glob(f"{files.EARLIER}*") if not self._is_kept(each)]

    @contextlib.contextmanager
    def set_aside(self, study: str) -> Iterator[None]:
        """Give the folder of a study the name from which `end_removal` removes it; if the block raises, its own again.

        A removal that is cut off is known by that name, whatever is left.
        """
        folder = self.study_dir(study)
        aside = self._below(f"{files.DELETED}{study}-{secrets.token_hex(4)}")
        there = folder.is_dir()
        if there:
            with writing_to(folder):
                files.rename(folder, aside)
        try:
            yield
        except BaseException:
            if there and aside.exists():  # not so where its files had to make room
                files.rename(aside, folder)
            raise

    def removals(self, study: str) -> list[Path]:
        """Return the folders of studies of this name that `set_aside` has renamed."""
        there = sorted(self.root.iterdir()) if self.root.is_dir() else ()
        named = (each for each in there if (cut := _CUT_OFF.fullmatch(each.name)) and cut[1] == study)
        return [each for each in named if not self._is_kept(each)]

    def end_removal(self, study: str) -> int:
        """Remove what was set aside of studies of this name; return the number of bytes."""
        return self._remove(self.removals(study))

    def remove_study(self, study: str) -> int:
        """Remove the folder of a deleted study, unless it is another store's; return the number of bytes in it."""
        if self.others(study):
            return self.end_removal(study)
        with self.set_aside(study):
            pass
        freed = self.end_removal(study)
        if self.objects is not None:
            self.objects.remove(study)
        return freed

    def remove_copies(self, artifact_ids: Iterable[str]) -> None:
        """Remove the dashboard's copies of these artifacts."""
        for each in artifact_ids:
            copy = self._below(self.artifact_dir / file_name(each))
            copy.unlink(missing_ok=True)
            if self.objects is not None:
                self.objects.remove(self._name(copy))

    def size(self, study: str) -> int:
        """Return the number of bytes in the folder of a study."""
        return files.size_of(self.study_dir(study))

    def _remove(self, left: Iterable[Path]) -> int:
        freed = 0
        for each in left:
            with writing_to(each):
                freed += files.remove(each)
        return freed
