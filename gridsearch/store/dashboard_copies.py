"""The files that Optuna's dashboard shows, read from a home, which may be in object storage; used by `dashboard`."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from optuna.artifacts import FileSystemArtifactStore

from gridsearch.store.home_paths import file_name

if TYPE_CHECKING:
    from gridsearch.store.artifacts import Home


class DashboardCopies(FileSystemArtifactStore):
    """The copies of a home's files by their artifact ids.

    Args:
        home: where they lie.
    """

    def __init__(self, home: Home) -> None:
        super().__init__(home.artifact_dir)
        self._home = home

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Open a copy, fetched if it is not here."""
        self._home.fetch(self._home.artifact_dir / file_name(artifact_id))
        return super().open_reader(artifact_id)
