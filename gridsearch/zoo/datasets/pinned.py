"""Datasets whose files are known byte for byte: fetched from the first source that has them, and verified.

Below the datasets that read such files (`files`, `cifar`); above the sources and the checks of single files.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gridsearch import files
from gridsearch.errors import DataError, UsageError
from gridsearch.zoo.datasets import pins
from gridsearch.zoo.datasets.cache import Beat, Say, exclusive, silent
from gridsearch.zoo.datasets.download_sources import Folder, Source

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gridsearch.plugins import ImageData
    from gridsearch.zoo.datasets.pins import PinnedFile


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedDataset(ABC):
    """Images and labels in pinned files; callable as a dataset, and fetchable.

    Attributes:
        name: names the folder below the data root too.
        files: all that must be there.
        class_names: by label.
        image_shape: (C, H, W).
        sources: where the files come from, in the order in which they are asked.
        licence: of the data.
        home: the data's own page.
    """

    name: str
    files: tuple[PinnedFile, ...]
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    sources: tuple[Source, ...] = ()
    licence: str = "unknown"
    home: str = ""

    @property
    def size(self) -> int:
        """Bytes of the files."""
        return sum(pinned.size for pinned in self.files)

    def __call__(self, root: Path) -> ImageData:
        """Read the images: uint8 [N, C, H, W].

        Raises:
            DataError: a file is missing, or is not the pinned one.
        """
        for pinned in self.files:
            problem = pins.problem_of(self._path(root, pinned), pinned)
            if problem:
                raise self._refusal(problem)
        try:
            data = self._read([self._path(root, pinned) for pinned in self.files])
        except ValueError as error:
            raise self._refusal(str(error)) from error
        return data

    @abstractmethod
    def _read(self, paths: Sequence[Path]) -> ImageData:
        """Read the files, in the order of `files`.

        Raises:
            ValueError: what is in them is not what it should be, in one line with the path.
        """

    def fetch(self, root: Path, source: Path | None = None, *, say: Say = silent) -> str:
        """Bring the files to the data root, verified; files that are there and whole are left alone.

        Args:
            root: the data root.
            source: a folder that holds the files, raw or gzipped, also nested; None asks the sources.
            say: gets each step, line by line.

        Returns:
            Where the files came from.

        Raises:
            UsageError: `source` is not a folder.
            DataError: no source has the files, or they cannot be written.
        """
        if source is not None and not source.is_dir():
            raise UsageError(f"--from {source}: no such folder")
        if not self.verify(root):
            return f"{self._folder(root)}, verified"
        sources = (Folder(source, str(source)),) if source is not None else self.sources
        try:
            with exclusive(self._folder(root), say=say) as beat:
                wanted = [p for p in self.files if pins.problem_of(self._path(root, p), p)]
                if not wanted:
                    return f"{self._folder(root)}, verified"
                return self._bring(wanted, root, sources, beat, say)
        except OSError as error:
            raise DataError(
                f"{error.filename or self._folder(root)} cannot be written: {error.strerror or error}",
                hint=f"{self.name} needs {_megabytes(3 * self.size)}; GRIDSEARCH_CACHE names another place",
            ) from error

    def _bring(
        self,
        wanted: list[PinnedFile],
        root: Path,
        sources: tuple[Source, ...],
        beat: Beat,
        say: Say,
    ) -> str:
        refusals = []
        for source in sources:
            with files.private_folder(self._folder(root)) as place:
                for offer in source.offers(wanted, into=place, beat=beat):
                    problems: tuple[str, ...] = (offer.reason,)
                    if offer.folder is not None:
                        problems = pins.collect(offer.folder, wanted, place)
                    if not problems:
                        files.put_all_in_place([(place / p.name, self._path(root, p)) for p in wanted])
                        return offer.origin
                    refusals.append(f"{offer.origin}: {problems[0]}".replace(f"{place}/", ""))
                    say(f"{self.name}: not from {refusals[-1]}")
        raise DataError(
            f"{self.name} cannot be fetched: {'; '.join(refusals) or 'no source'}", hint=self._by_hand()
        )

    def verify(self, root: Path) -> tuple[str, ...]:
        """Return what is wrong with the files below the data root, one line each; nothing if all is well."""
        problems = (pins.problem_of(self._path(root, pinned), pinned) for pinned in self.files)
        return tuple(problem for problem in problems if problem)

    def available(self, root: Path) -> bool:
        """Whether all files are there; whether they are whole is seen when they are loaded."""
        return all(self._path(root, pinned).exists() for pinned in self.files)

    def fingerprint(self, root: Path) -> str:  # noqa: ARG002  (part of the protocol)
        """Return the SHA-256 over the pinned sums: what `__call__` gives is nothing else."""
        text = "\n".join(f"{pinned.sha256} {pinned.size}" for pinned in self.files)
        return hashlib.sha256(text.encode()).hexdigest()

    def _folder(self, root: Path) -> Path:
        return root / self.name

    def _path(self, root: Path, pinned: PinnedFile) -> Path:
        return self._folder(root) / pinned.name

    def _refusal(self, problem: str) -> DataError:
        command = f"gridsearch data fetch {self.name}"
        what = "is not fetched" if problem.endswith("is missing") else "is damaged"
        return DataError(
            f"dataset {self.name} {what}: {problem}",
            hint=f"{command}, or by hand: {command} --from DIR",
        )

    def _by_hand(self) -> str:
        names = ", ".join(pinned.served for pinned in self.files)
        then = f"gridsearch data fetch {self.name} --from DIR"
        return f"by hand: put {names} (from {self.home}) into a folder DIR, then {then}"


def _megabytes(size: int) -> str:
    return f"{max(1, round(size / 1e6))} MB"
