"""Takes away what nobody needs any more under home: of unfinished attempts, and of studies that were deleted."""

from __future__ import annotations

import contextlib
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gridsearch import files
from gridsearch.store.home_paths import STUDY_NAME, HomePaths, file_name, writing_to

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

_OF_TRIALS = (files.TRIALS, files.TENSORBOARD)
_CUT_OFF = re.compile(rf"{re.escape(files.DELETED)}({STUDY_NAME.pattern})-[0-9a-f]{{8}}")
_LEFT_BY_WRITES = (f"{files.PARTIAL}*", ".*.tmp")  # the second by versions of before


@dataclass(frozen=True, slots=True)
class HomeCleaning(HomePaths):
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
        freed = self._remove(left) + self._remove(self.study_dir(study).glob(f"{files.EARLIER}*"))
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

    def set_earlier_aside(self, study: str) -> None:
        """Move what an earlier study of the same name has left out of the way of one that begins.

        Its trials bear the numbers of the new ones, whose logs and curves would else go on from theirs; and its report
        and its winner, which `predict` may be asked for, would be taken for those of the new one.
        """
        folder = self.study_dir(study)
        kinds = (*_OF_TRIALS, files.BEST, f"{files.REPORT}*")
        there = [self._below(each) for kind in kinds for each in folder.glob(kind) if each.is_dir()]
        if there:
            place = self._below(folder / f"{files.EARLIER}{secrets.token_hex(4)}")
            with writing_to(place):
                place.mkdir()
                for each in there:
                    files.rename(each, place / each.name)

    def leftovers(self, studies: Collection[str]) -> dict[str, int]:
        """Return the bytes of trials' files by study, of those that are not among these."""
        found: dict[str, int] = {}
        for folder in sorted(self.root.iterdir()) if self.root.is_dir() else ():
            if cut := _CUT_OFF.fullmatch(folder.name):
                found[cut[1]] = found.get(cut[1], 0) + files.size_of(folder)
            if STUDY_NAME.fullmatch(folder.name) and folder.name not in studies and not folder.is_symlink():
                sizes = [files.size_of(folder / name) for name in _OF_TRIALS if (folder / name).is_dir()]
                sizes += [files.size_of(each) for each in folder.glob(f"{files.EARLIER}*")]
                if sizes:
                    found[folder.name] = found.get(folder.name, 0) + sum(sizes)
        return found

    def remove_trials(self, study: str) -> int:
        """Remove the files of a study's trials, and not its reports and exports; return the number of bytes."""
        folder = self.study_dir(study)
        freed = self._remove([*(folder / name for name in _OF_TRIALS if (folder / name).is_dir())])
        freed += self._remove(list(folder.glob(f"{files.EARLIER}*"))) + self.end_removal(study)
        with contextlib.suppress(OSError):  # there is a report
            folder.rmdir()
        if self.objects is not None:
            self.objects.remove(f"{study}/{files.TRIALS}")
        return freed

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
        return [each for each in there if (cut := _CUT_OFF.fullmatch(each.name)) and cut[1] == study]

    def end_removal(self, study: str) -> int:
        """Remove what was set aside of studies of this name; return the number of bytes."""
        return self._remove(self.removals(study))

    def remove_study(self, study: str) -> int:
        """Remove the folder of a study; return the number of bytes that were in it."""
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
