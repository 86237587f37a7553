"""Where a dataset's files can come from: each source offers folders of files, which the dataset verifies.

A source never decides whether the files are right, and never raises because it has none.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from gridsearch.zoo.datasets.download import Unavailable, download

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from gridsearch.zoo.datasets.cache import Beat
    from gridsearch.zoo.datasets.pins import PinnedFile

_ZIP_SLACK = 1 << 16
"""Bytes by which a gzipped file may be larger than its content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """Files from somewhere, or the reason why there are none.

    Attributes:
        origin: where from, for people.
        folder: holds the files, raw or gzipped; None if the source has none.
        reason: why there is no folder.
    """

    origin: str
    folder: Path | None
    reason: str = ""


class Source(Protocol):
    """A place where files come from."""

    def offers(self, files: Sequence[PinnedFile], *, into: Path, beat: Beat) -> Iterator[Offer]:
        """Yield folders that should hold the files, best first.

        Args:
            files: what is wanted.
            into: a private folder to work in.
            beat: to be called at least every few seconds.
        """
        ...


@dataclass(frozen=True, slots=True)
class Folder:
    """Files that lie in a folder, such as those of an installed package."""

    folder: Path
    origin: str

    def offers(self, files: Sequence[PinnedFile], *, into: Path, beat: Beat) -> Iterator[Offer]:  # noqa: ARG002
        """Offer the folder if it is there."""
        there = self.folder.is_dir()
        yield Offer(
            origin=self.origin, folder=self.folder if there else None, reason="" if there else "not there"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirrors:
    """Web addresses below which the packed files lie.

    Attributes:
        addresses: gives them, each ending in a slash; asked for only when they are needed.
        timeout: seconds without progress after which an address is given up.
    """

    addresses: Callable[[], Sequence[str]]
    timeout: float = 10.0

    def offers(self, files: Sequence[PinnedFile], *, into: Path, beat: Beat) -> Iterator[Offer]:
        """Download all files from one address after another; one failure and the next address is tried."""
        try:
            addresses = self.addresses()
        except ImportError as error:
            yield Offer(origin="torchvision's mirrors", folder=None, reason=str(error))
            return
        for nth, address in enumerate(addresses, 1):
            folder = into / f"mirror-{nth}"
            folder.mkdir()
            # an address that is wrong shows early
            smallest_first = sorted(files, key=lambda pinned: pinned.size)
            try:
                for pinned in smallest_first:
                    name = pinned.served
                    limit = pinned.size + _ZIP_SLACK
                    download(address + name, folder / name, limit=limit, timeout=self.timeout, beat=beat)
            except Unavailable as error:
                yield Offer(origin=address, folder=None, reason=f"{name}: {error}")
            else:
                yield Offer(origin=address, folder=folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class DebianPackage:
    """A package of Debian or Ubuntu that is downloaded and unpacked, not installed; needs no root.

    apt checks the signatures.  Where the system's package lists are empty or old, private ones are fetched:
    the system's state is left as it is.

    Attributes:
        package: its name.
        inside: the folder of the files inside it.
        options: more options for apt-get.
        timeout: seconds without progress after which apt is given up.
    """

    package: str
    inside: str
    options: tuple[str, ...] = ()
    timeout: float = 25.0

    def offers(self, files: Sequence[PinnedFile], *, into: Path, beat: Beat) -> Iterator[Offer]:  # noqa: ARG002
        """Download and unpack the package."""
        origin = f"Debian package {self.package}"
        apt, dpkg = shutil.which("apt-get"), shutil.which("dpkg-deb")
        if apt is None or dpkg is None:
            yield Offer(origin=origin, folder=None, reason="apt-get and dpkg-deb are not on this machine")
            return
        work = into / "package"
        work.mkdir()
        try:
            archive = self._archive(apt, work, beat)
            _run([dpkg, "-x", str(archive), str(work / "content")], work, timeout=self.timeout, beat=beat)
        except Unavailable as error:
            yield Offer(origin=origin, folder=None, reason=str(error))
        else:
            yield Offer(origin=origin, folder=work / "content" / self.inside)

    def _archive(self, apt: str, work: Path, beat: Beat) -> Path:
        wait = max(1, round(self.timeout / 2))
        settings = [f"Acquire::http::Timeout={wait}", f"Acquire::https::Timeout={wait}", "Acquire::Retries=0"]
        settings += ["Acquire::Languages=none"]
        if os.name == "posix" and os.geteuid() == 0:
            settings += ["APT::Sandbox::User=root"]  # apt's own user may not look into a private folder
        command = [apt, *(word for s in settings for word in ("-o", s)), *self.options]
        try:
            _run([*command, "download", self.package], work, timeout=self.timeout, beat=beat)
        except Unavailable:
            (work / "lists" / "partial").mkdir(parents=True)
            (work / "cache" / "archives" / "partial").mkdir(parents=True)
            command += ["-o", f"Dir::State::Lists={work / 'lists'}", "-o", f"Dir::Cache={work / 'cache'}"]
            _run([*command, "update"], work, timeout=self.timeout, beat=beat)
            _run([*command, "download", self.package], work, timeout=self.timeout, beat=beat)
        found = sorted(work.glob(f"{self.package}_*.deb"))
        if not found:
            raise Unavailable(f"apt-get downloaded no {self.package}")
        return found[0]


def _run(command: Sequence[str], work: Path, *, timeout: float, beat: Beat) -> None:
    """Run a program in a folder for as long as the folder grows.

    Raises:
        Unavailable: it failed (with its last line), or nothing grew for `timeout` seconds.
    """
    log = work / "log"
    environment = os.environ | {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    with log.open("wb") as out:
        child = subprocess.Popen(  # noqa: S603  (a list of words, the program found by its full path)
            command,
            cwd=work,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    name = Path(command[0]).name
    size, since = -1, time.monotonic()
    try:
        while child.poll() is None:
            beat()
            time.sleep(0.05)
            if (grown := _size(work)) != size:
                size, since = grown, time.monotonic()
            elif time.monotonic() - since > timeout:
                raise Unavailable(f"{name}: no progress within {timeout:g} s")
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    if child.returncode != 0:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        errors = (
            [line for line in lines if line.startswith("E:")] or lines or [f"exit status {child.returncode}"]
        )
        raise Unavailable(f"{name}: {errors[-1].strip()}")


def _size(folder: Path) -> int:
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(where, name)).st_size  # noqa: PTH118  (a walk without links)
            except FileNotFoundError:
                continue
    return total
