"""A home in object storage (`--home s3://bucket/runs` and the like, through fsspec), behind a folder of the cache.

Stands below `home_paths`: everything is written to that folder, as in any home.  What others need of it goes up before
the store says that it is there: files of trials under names that hold their SHA-256, so that whoever has lost a claim
cannot change what its successor left; logs, reports and exports under their own.  What the folder lacks is fetched when
it is read.  Checkpoints and TensorBoard's runs stay on their machine.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from gridsearch import files
from gridsearch.errors import StoreError, StoreUnreachable, UsageError
from gridsearch.store.url import require_no_password

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://.")
_DIGITS = 16


def is_address(home: str | Path) -> bool:
    """Return whether a home is one in object storage: it begins as `s3://` does."""
    return isinstance(home, str) and _ADDRESS.match(home) is not None


def mirror(address: str, cache: Path) -> Path:
    """Return the folder that stands for a home in object storage; it is made, and bears the address.

    Args:
        address: of the home.
        cache: the folder that all homes share.

    Raises:
        UsageError: there is no such kind of storage, its package is not installed, or a password is in it.
        StoreError: the folder cannot be made.
    """
    require_no_password(address, option="--home")
    address = address.rstrip("/")
    storage_at(address)
    folder = cache / files.HOMES / hashlib.sha256(address.encode()).hexdigest()[:_DIGITS]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / files.OBJECTS).exists():
            files.write_whole(folder / files.OBJECTS, address.encode())
    except OSError as error:
        raise StoreError(
            f"{folder}, which stands for {address}, cannot be made: {error.strerror}",
            hint="$GRIDSEARCH_CACHE names another folder",
        ) from error
    return folder


@lru_cache
def storage_at(address: str) -> ObjectStorage:
    """Return the storage at an address; nothing is asked of it yet.

    Raises:
        UsageError: there is no such kind, or its package is not installed.
    """
    try:
        from fsspec.core import url_to_fs

        system, root = url_to_fs(address)
    except ImportError as error:
        raise UsageError(
            f"--home {address}: {' '.join(str(error).split())}",
            hint="install the package that fsspec needs for it: s3fs, gcsfs, adlfs, ...",
        ) from error
    except ValueError as error:
        raise UsageError(
            f"--home {address}: {' '.join(str(error).split())}", hint="write a folder, or s3://BUCKET/PATH"
        ) from error
    return ObjectStorage(address, system, root)


class ObjectStorage:
    """Objects below one address.

    Args:
        address: as messages name it.
        system: of fsspec.
        root: what the names of objects begin with there.
    """

    def __init__(self, address: str, system: Any, root: str) -> None:
        self.address = address
        self._system = system
        self._root = root.rstrip("/")

    def put(self, path: Path, name: str) -> None:
        """Put a file up under a name; what was there is replaced.

        Raises:
            StoreError: it may not be written.
            StoreUnreachable: the storage does not answer.
        """
        with self._asking():
            place = f"{self._root}/{name}"
            self._system.makedirs(place.rpartition("/")[0], exist_ok=True)
            self._system.put_file(str(path), place)

    def get(self, name: str, path: Path) -> bool:
        """Fetch an object into a file; return whether there is one.

        Raises:
            StoreUnreachable: the storage does not answer.
        """
        with self._asking():
            try:
                content = self._system.cat_file(f"{self._root}/{name}")
            except FileNotFoundError:
                return False
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(path, content)
        return True

    def remove(self, pattern: str) -> None:
        """Remove the objects whose names match a pattern, and what lies below them.

        Raises:
            StoreUnreachable: the storage does not answer.
        """
        with self._asking():
            self._system.invalidate_cache()
            for place in self._system.glob(f"{self._root}/{pattern}"):
                self._system.rm(place, recursive=True)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except PermissionError as error:
            raise StoreError(
                f"{self.address} refuses us: {' '.join(str(error).split())}", hint="look at your rights there"
            ) from error
        except Exception as error:
            raise StoreUnreachable(
                f"{self.address} does not answer: {type(error).__name__}: {' '.join(str(error).split())}",
                hint="look at the network and your credentials; then run the same command again",
            ) from error
