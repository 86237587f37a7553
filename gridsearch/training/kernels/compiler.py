"""Compiles a C source for this machine with constants of the moment, once, and loads what comes.

Stands between a kernel's source and what calls it.  Results are kept in the cache folder, by all that they depend on:
the source, its constants, the compiler and the processor.  Whatever goes wrong (no compiler, no place to write, a
compiler that fails) is no error: there is then no kernel, and a line in the log says why.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gridsearch.folders import cache_root, expanded

if TYPE_CHECKING:
    from collections.abc import Mapping

_log = logging.getLogger(__name__)

OFF = "off"
"""The value of `$GRIDSEARCH_KERNELS` that leaves everything to torch; any other is the folder of what was compiled."""

_NAMES = ("cc", "gcc", "clang")
_FLAGS = ("-O3", "-std=gnu11", "-fno-math-errno", "-shared", "-fPIC")
# Vectors as wide as this processor has them; not every compiler knows these words for every processor.
_FOR_THIS_MACHINE = (("-march=native",), ("-mcpu=native",), ())
_PATIENCE = 120.0  # seconds for a compilation, which takes about one


@dataclass(frozen=True, slots=True)
class Compiler:
    """A C compiler.

    Attributes:
        command: the words that call it.
        version: the first line that it prints of itself.
    """

    command: tuple[str, ...]
    version: str


def find_compiler() -> Compiler | None:
    """Return the compiler to use, `$CC` or what is there; None where there is none, or where it is not wanted."""
    if os.environ.get("GRIDSEARCH_KERNELS") == OFF or os.name != "posix":
        return None
    return _compiler(os.environ.get("CC", ""), os.environ.get("PATH", ""))


@functools.cache
def _compiler(wanted: str, path: str) -> Compiler | None:
    commands = [tuple(shlex.split(wanted))] if wanted else [(name,) for name in _NAMES]
    for command in commands:
        found = shutil.which(command[0], path=path)
        if found is None:
            continue
        with suppress(OSError, subprocess.SubprocessError):
            told = _call([found, *command[1:], "--version"])
            if told.returncode == 0 and told.stdout:
                return Compiler((found, *command[1:]), told.stdout.splitlines()[0].strip())
    return None


def describe() -> str:
    """Return in a few words what compiles kernels."""
    if os.environ.get("GRIDSEARCH_KERNELS") == OFF:
        return "off: torch computes everything"
    found = find_compiler()
    return "no C compiler: torch computes everything" if found is None else f"compiled by {found.version}"


def load(source: Path, constants: Mapping[str, object]) -> ctypes.CDLL | None:
    """Return a C source compiled with these constants for this machine; None where that cannot be.

    Args:
        source: the file; it may include headers that lie beside it.
        constants: what its text calls them, and their values.
    """
    found = find_compiler()
    if found is None:
        return None
    defined = tuple(f"-D{name}={value}" for name, value in constants.items())
    return _load(source, defined, found, str(_folder()))


def _folder() -> Path:
    given = os.environ.get("GRIDSEARCH_KERNELS")
    return expanded(given) if given else cache_root() / "kernels"


@functools.cache
def _load(source: Path, defined: tuple[str, ...], found: Compiler, kept: str) -> ctypes.CDLL | None:
    parts = (
        *(path.read_text(encoding="utf-8") for path in (source, *sorted(source.parent.glob("*.h")))),
        *defined,
        *_FLAGS,
        *found.command,
        found.version,
        _processor(),
    )
    name = f"{source.stem}-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:24]}.so"
    for folder in (Path(kept), None):
        try:
            if folder is None:
                return _temporary(source, defined, found, name)
            path = folder / name
            if path.exists():
                with suppress(OSError):  # a damaged file is made again
                    return ctypes.CDLL(str(path))
            folder.mkdir(parents=True, exist_ok=True)
            _compile(source, defined, found, path)
            return ctypes.CDLL(str(path))
        except OSError as error:  # a folder that is full, read-only or from which nothing may be run
            _log.warning("kernel not kept in %s: %s", folder or "a temporary folder", error)
        except (_Refused, subprocess.SubprocessError) as error:
            _log.warning("torch computes in place of %s: %s", source.stem, error)
            return None
    return None


def _temporary(source: Path, defined: tuple[str, ...], found: Compiler, name: str) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory(prefix="gridsearch-") as folder:  # once it is loaded, its file may go
        path = Path(folder) / name
        _compile(source, defined, found, path)
        return ctypes.CDLL(str(path))


class _Refused(Exception):
    """The compiler fails; the message says how, in one line."""


def _compile(source: Path, defined: tuple[str, ...], found: Compiler, path: Path) -> None:
    """Compile into a file that is there whole or not at all.

    Raises:
        _Refused: the compiler fails.
        OSError: the folder cannot be written.
    """
    said = ""
    for words in _FOR_THIS_MACHINE:
        handle, made = tempfile.mkstemp(prefix=".partial-", suffix=".so", dir=path.parent)
        os.close(handle)
        try:
            done = _call([*found.command, *_FLAGS, *words, *defined, "-o", made, str(source), "-lm"])
            if done.returncode == 0:
                Path(made).replace(path)
                _clean_up(path.parent)
                return
            said = said or " ".join(done.stderr.split())
        finally:
            Path(made).unlink(missing_ok=True)
    raise _Refused(f"{found.command[0]} says: {said[:200]}")


def _clean_up(folder: Path) -> None:
    """Remove what compilations have left that were killed."""
    for path in folder.glob(".partial-*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > 2 * _PATIENCE:
                path.unlink()


def _call(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603  (the machine's compiler, or the one that the user names)
        words,
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        timeout=_PATIENCE,
        check=False,
        env=os.environ | {"LC_ALL": "C"},
    )


@functools.cache
def _processor() -> str:
    """Return what tells processors apart that have different instructions."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                return f"{platform.machine()} {line}"
    return f"{platform.system()} {platform.machine()} {platform.processor()} {platform.node()}"
