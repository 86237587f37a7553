"""One report at a time in a folder: below `reports` and `comparisons`, which draw what is written there."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from gridsearch import files
from gridsearch.errors import StoreError
from gridsearch.zoo.datasets.cache import exclusive

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from gridsearch.store import Store


@contextmanager
def alone_in(
    store: Store, folder: Path, studies: Sequence[str], *, also: Path | None = None
) -> Iterator[bool]:
    """Let one process at a time write a report, and give whether another one was waited for.

    What a killed process has left in the folder goes.

    Args:
        store: the open store.
        folder: of the report; made, and taken away again if it stays empty.
        studies: what it is about; of a study that is deleted meanwhile nothing is written.
        also: another folder that is written to.

    Raises:
        StudyNotFound: a study is no longer there.
        FolderTaken: it is in the folder of a study that is another store's.
        StoreError: the folder cannot be written.
    """
    waited: list[str] = []
    if folder.is_relative_to(store.home.study_dir(studies[0])):
        store.take_folder(studies[0])
    with ExitStack() as stack:
        with store.home.writing(folder):
            hold = stack.enter_context(exclusive(folder, say=waited.append))
        if hold.alone and also is not None:
            files.remove_drafts(also)
        try:
            _require(store, studies)
            yield bool(waited)
        except (StoreError, OSError):
            _require(store, studies)  # what was deleted meanwhile had to fail
            raise


def _require(store: Store, studies: Sequence[str]) -> None:
    for study in studies:
        store.study_id(study)
