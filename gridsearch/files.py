"""Files below all layers: the names of all that gridsearch keeps, and how a file is written, locked and hashed.

Under home lie the store and a folder for each study; under the cache (see `folders.cache_root`) lies what all homes
share.  A file appears whole under its name or not at all: a draft beside its place, fsync, rename, fsync of the folder.
No other module renames a file or makes one with a temporary name.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from filelock import FileLock, Timeout

from gridsearch import faults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

# Under home.
DATABASE: Final = "gridsearch.db"
DASHBOARD_COPIES: Final = ".artifacts"
SPOOL: Final = ".spool"
OBJECTS: Final = ".objects"
"""In a folder that stands for a home in object storage: its address."""
SLURM: Final = ".slurm"
"""Holds a folder for each run whose workers Slurm starts, while it lasts."""

MLFLOW: Final = "mlflow.db"
MLFLOW_ARTIFACTS: Final = "mlflow-artifacts"

DELETED: Final = ".deleted-"
"""Before the name of a study that is deleted, and a token: its folder while it is removed."""

# In the folder of a study.
TRIALS: Final = "trials"
REPORT: Final = "report"
TENSORBOARD: Final = "tensorboard"
BEST: Final = "best"
BEST_WORK: Final = ".best"
REFIT: Final = ".refit-"
"""Before a digest of what is trained again: there its lanes leave their files, until it has been tested."""
EARLIER: Final = ".earlier-"
"""Before a token: what a study of the same name that was deleted has left."""
MARK: Final = ".study"
"""Whose the folder is, and what was set aside; see `store.folder_marks`."""
MARK_LOCK: Final = ".study.lock"

# In the folder of a trial.
LOG: Final = "log"
PREDICTIONS: Final = "predictions.safetensors"
WEIGHTS: Final = "weights.safetensors"
BESIDE: Final = "beside.safetensors"
"""What the winner's network has beside its weights, for its export."""
SCRATCH: Final = ".attempt-"
"""Before the number of the attempt whose worker leaves its files there."""

# In a report and in a comparison.
PAGE: Final = "index.html"
RANKING: Final = "ranking.csv"
RANKING_JSON: Final = "ranking.json"
ALL_TRIALS: Final = "trials.csv"
PER_CLASS: Final = "per_class.csv"
COMPARISON: Final = "comparison.json"

# In the export of a winner.
MODEL: Final = "model.json"
MODEL_WEIGHTS: Final = "model.safetensors"
GRAPH: Final = "model.onnx"
CARD: Final = "card.md"
TEST_OUTPUTS: Final = "test.safetensors"

# In the cache.
DATA: Final = "data"
HOMES: Final = "homes"
"""Folders that stand for homes in object storage."""
KERNELS: Final = "kernels"
CHOICES: Final = "choices.json"
"""Among the kernels: which form of an operation this machine gets."""
SHARED: Final = "shared"
PROBES: Final = "probes.json"
OVERHEADS: Final = "overheads.json"
LATENCIES: Final = "latencies.json"

LOCK: Final = ".lock"
"""In a folder where one process works at a time."""

PARTIAL: Final = ".partial-"
"""How the names of drafts and of private folders begin: what a killed process has left bears one."""

_SOON = 0.01  # seconds between two looks at a lock
_PATIENCE = 10.0  # seconds; those who hold such a lock only read and write a small file
_OTHERS_MAY_WRITE = 0o022
_SYNCED_TOGETHER = 16  # files at most


def object_address(home: Path) -> str | None:
    """Return the address of the home in object storage that a folder stands for, None for a folder of its own."""
    try:
        return (home / OBJECTS).read_text(encoding="utf-8")
    except OSError:
        return None


def temporary_root() -> Path | None:
    """Return the folder for temporary files; None where no such folder can be written, as in a read-only container."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        return None


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside its place, flush it to the disk and rename it: readers find the old one or the new one.

    Args:
        path: where; its folder exists.
        content: all of it.

    Raises:
        OSError: it cannot be written; what was there is as it was.
    """
    with draft_of(path) as draft:
        faults.at("write")
        draft.write_bytes(content)
        put_in_place(draft, path)


@contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """Give an empty file beside a file's place, and take it away afterwards if it is still there."""
    draft = path.with_name(f"{PARTIAL}{secrets.token_hex(6)}{path.suffix}")
    draft.open("xb").close()
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def private_folder(inside: Path) -> Iterator[Path]:
    """Give a folder of this user's alone inside another, and take it away afterwards with what is in it."""
    folder = inside / f"{PARTIAL}{secrets.token_hex(6)}"
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_drafts(folder: Path) -> int:
    """Remove what killed processes have left unfinished in a folder where nobody else works; return its bytes."""
    freed = 0
    for left in folder.glob(f"{PARTIAL}*"):
        with suppress(OSError):
            freed += remove(left)
    return freed


def put_in_place(draft: Path, path: Path, *, mode: int | None = None) -> None:
    """Move a finished draft to its place, once its bytes are on the disk.

    Args:
        draft: a file on the same file system.
        path: its place; what was there is replaced.
        mode: who may read, write and run it; None leaves that as it is.

    Raises:
        OSError: it cannot be; what was there is as it was.
    """
    sync(draft)
    if mode is not None:
        draft.chmod(mode)
    rename(draft, path)


def put_all_in_place(finished: Sequence[tuple[Path, Path]]) -> None:
    """Move several drafts to their places, once the bytes of all of them are on the disk.

    Raises:
        OSError: one cannot be; some of the others may be in their places.
    """
    sync_all(draft for draft, _ in finished)
    rename_all(finished)


def rename(source: Path, target: Path) -> None:
    """Rename a file or folder, and bring that to the disk; a file that was there is replaced.

    Raises:
        OSError: it cannot be; both are as they were.
    """
    rename_all([(source, target)])


def rename_all(pairs: Sequence[tuple[Path, Path]]) -> None:
    """Rename several files or folders, see `rename`, and then bring all of that to the disk.

    Args:
        pairs: each with its new name.

    Raises:
        OSError: one cannot be; those before it have their new names.
    """
    for source, target in pairs:
        faults.at("rename")
        source.replace(target)
        faults.at("renamed")
    sync_all(target.parent for _, target in pairs)


def sync(path: Path) -> None:
    """Bring a file's bytes, or a folder's entries, to the disk."""
    sync_all([path])


def sync_all(paths: Iterable[Path]) -> None:
    """Bring the bytes of files, or the entries of folders, to the disk, each once.

    The disk is asked for several at a time: it writes them together, in about the time of one.

    Raises:
        OSError: one cannot be brought there.
    """
    each = list(dict.fromkeys(paths))
    for _ in each:
        faults.at("sync")
    if len(each) < 2:
        for path in each:
            _sync(path)
        return
    with ThreadPoolExecutor(_SYNCED_TOGETHER) as threads:
        for _ in threads.map(_sync, each):
            pass  # raises what one has raised


def _sync(path: Path) -> None:
    with suppress(PermissionError):  # a folder that may be written and not read
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file that several processes read, change and write.

    Raises:
        OSError: the lock's file cannot be made, or another process holds it for too long.
    """
    with FileLock(path.with_name(f".{path.name}.lock"), timeout=_PATIENCE):
        yield


@contextmanager
def only_one(lock: Path, *, patience: float) -> Iterator[None]:
    """Let one process at a time do something, by the lock of a file that is gone afterwards.

    Args:
        lock: the file.
        patience: seconds that others may take.

    Raises:
        OSError: the file cannot be made, or others take longer.
    """
    with FileLock(lock, timeout=patience, poll_interval=_SOON):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)  # who waits for it finds it unlinked, and makes another one


@contextmanager
def if_free(lock: Path) -> Iterator[bool]:
    """Hold a lock for the block unless another process does, and give whether; its file is gone afterwards.

    Args:
        lock: the file; where there is none, nobody holds it and none is made.

    Raises:
        PermissionError: this user may not look, or may not open the file.
    """
    held = FileLock(lock, timeout=0)
    try:
        if lock.exists():
            held.acquire()
    except PermissionError:
        raise
    except (Timeout, OSError):
        yield False
        return
    try:
        yield True
    finally:
        if held.is_locked:
            lock.unlink(missing_ok=True)
            held.release()


def remove(path: Path) -> int:
    """Remove a file, a link or a folder, and return its bytes; another process may remove it too.

    Raises:
        OSError: it cannot be removed.
    """
    freed = 0
    while os.path.lexists(path):
        with suppress(FileNotFoundError):  # a part of it that the other was faster to remove
            if path.is_dir() and not path.is_symlink():
                freed = freed or size_of(path)
                shutil.rmtree(path)
            else:
                freed = path.lstat().st_size
                path.unlink()
    return freed


def size_of(folder: Path) -> int:
    """Return the number of bytes in a folder."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += (Path(where) / name).lstat().st_size
    return total


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one where there is none, or none that can be read."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def update_json(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change the object in a JSON file that several processes change; no change is lost.

    Args:
        path: the file; it is made, and its folder, where there is none.
        change: takes what is there now, see `read_json`, and returns what shall be there.

    Raises:
        OSError: it cannot be written; what was there is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path):
        write_whole(path, json.dumps(change(read_json(path))).encode())


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_ours_alone(path: Path) -> bool:
    """Return whether a file or folder is this user's, and nobody else may write to it.

    Code from anywhere else must not be run: another user may have put it there.
    """
    if os.name != "posix":
        return True
    try:
        return owned_alone(path.lstat())
    except OSError:
        return False


def owned_alone(facts: os.stat_result) -> bool:
    """Return whether what these facts are of is this user's, and nobody else may write to it."""
    return owned(facts) and not facts.st_mode & _OTHERS_MAY_WRITE


def owned(facts: os.stat_result) -> bool:
    """Return whether what these facts are of is this user's; in a shared cache it may be anybody's."""
    return os.name != "posix" or facts.st_uid == os.getuid()
