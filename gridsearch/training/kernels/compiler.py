"""Compiles a C source for this machine with constants of the moment, once, and loads the result.

Stands between a kernel's source and what calls it.  Libraries are kept in the cache folder, under all that they depend
on: the source, its constants, the compiler and the processor; and under the hash of their own bytes, so that a damaged
one is never loaded.  A library is code: one that another user has made, or could have changed, is never loaded either.
Their folder is this user's alone, and in a cache that others share it bears this user's number.  Nothing that goes
wrong is an error (no compiler, no place to write, a compiler that fails): there is then no kernel, and a line in the
log says why.
"""

from __future__ import annotations

import ctypes
import errno
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
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gridsearch import files
from gridsearch.folders import cache_root, expanded, nearest_there

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_log = logging.getLogger(__name__)

_OFF = ("off", "no", "false", "0")
"""Values of `$GRIDSEARCH_KERNELS` that leave everything to torch."""

_ON = ("on", "yes", "true", "1")
"""Values that name no folder for compiled libraries, as any other does."""

_NAMES = ("cc", "gcc", "clang")
_FLAGS = ("-O3", "-std=gnu11", "-fno-math-errno", "-shared", "-fPIC")
_PROCESSOR_FACTS = ("flags", "Features", "CPU implementer", "CPU architecture", "CPU variant", "CPU part")
_PROCESSOR_MODEL = ("model name", "cpu family", "model", "CPU implementer", "CPU part", "CPU variant")
# Vectors as wide as this processor has them; not every compiler knows these flags for every processor.
_FOR_THIS_MACHINE = (("-march=native",), ("-mcpu=native",), ())
_HASH_DIGITS = 24  # of a hash in a name
_TIMEOUT = 120.0  # seconds for a compilation, which takes about one


_LISTENERS: list[Callable[[], None]] = []
"""Are called before something is compiled, once each."""


@dataclass(frozen=True, slots=True)
class Compiler:
    """A C compiler.

    Attributes:
        command: the words that call it.
        version: the first line that it prints of itself.
    """

    command: tuple[str, ...]
    version: str


@contextmanager
def compilation_told(tell: Callable[[], None]) -> Iterator[None]:
    """Have a function called when the block is about to wait for the compiler, the first time."""
    _LISTENERS.append(tell)
    try:
        yield
    finally:
        with suppress(ValueError):
            _LISTENERS.remove(tell)


def _wanted() -> str:
    return os.environ.get("GRIDSEARCH_KERNELS", "")


def _given_folder() -> str:
    """Return the folder that the user has named; "" for the usual one."""
    return "" if _wanted().lower() in _ON else _wanted()


def find_compiler() -> Compiler | None:
    """Return the compiler to use, `$CC` or what is there; None where there is none, or where it is not wanted."""
    if _wanted().lower() in _OFF or os.name != "posix":
        return None
    return _compiler(os.environ.get("CC", ""), os.environ.get("PATH", ""))


@functools.cache
def _compiler(wanted: str, path: str) -> Compiler | None:
    try:
        commands = [shlex.split(wanted)] if wanted.strip() else [[name] for name in _NAMES]
    except ValueError:  # an open quotation mark
        return None
    for command in commands:
        program = shutil.which(command[0], path=path)
        if program is None:
            continue
        with suppress(OSError, subprocess.SubprocessError):
            answer = _call([program, *command[1:], "--version"])
            if answer.returncode == 0 and answer.stdout:
                return Compiler((program, *command[1:]), answer.stdout.splitlines()[0].strip())
    return None


def describe() -> str:
    """Return in a few words what compiles kernels."""
    if _wanted().lower() in _OFF:
        return "off: torch computes everything"
    compiler = find_compiler()
    return (
        "no C compiler: torch computes everything" if compiler is None else f"compiled by {compiler.version}"
    )


def load(source: Path, constants: Mapping[str, object]) -> ctypes.CDLL | None:
    """Return a C source compiled with these constants for this machine; None where that cannot be.

    Args:
        source: the file; it may include headers that lie beside it.
        constants: what its text calls them, and their values.
    """
    compiler = find_compiler()
    if compiler is None:
        return None
    return _load(source, _defined(constants), compiler, str(kernel_folder()))


def damaged_kernels() -> list[Path]:
    """Return the kept files that are not whole, or that another user could have written: they are made again."""
    folder, found = kernel_folder(), []
    # neither one that is being made, nor one of an earlier form, which is never loaded
    for name in _names(folder, "[!.]*-*-*") if os.name == "posix" else ():
        handle = _open_checked(folder, name)
        if handle is None:
            found.append(folder / name)
        else:
            os.close(handle)
    return found


def kernel_folder() -> Path:
    """Return where libraries are kept: a folder that is this user's alone, in a cache that may be shared."""
    given = _given_folder()
    folder = expanded(given) if given else cache_root() / files.KERNELS
    shared = nearest_there(folder) == folder and not files.is_ours_alone(folder)
    if not given:
        shared |= nearest_there(folder.parent) == folder.parent and not files.is_ours_alone(folder.parent)
    return folder.with_name(f"{folder.name}-{os.getuid()}") if shared and os.name == "posix" else folder


@functools.cache
def _load(source: Path, defined: tuple[str, ...], compiler: Compiler, kept: str) -> ctypes.CDLL | None:
    name = _name(source, defined, compiler)
    for folder in (Path(kept), None):
        try:
            if folder is None:
                return _temporary(source, defined, compiler, name)
            library = _kept(folder, name)
            if library is None:
                make_private(folder)
                with files.only_one(folder / f"{files.PARTIAL}{name}.lock", patience=_TIMEOUT):
                    library = _kept(folder, name)  # workers that start together want the same kernels
                    if library is None:
                        _compile(source, defined, compiler, folder / name)
                        library = _kept(folder, name)
            if library is not None:
                return library
        except OSError as error:  # a folder that is full, read-only or from which nothing may be run
            _log.warning("kernel not kept in %s: %s", folder or "a temporary folder", error)
        except (_Refused, subprocess.SubprocessError) as error:
            _log.warning("torch computes in place of %s: %s", source.stem, error)
            return None
    return None


def version_of(source: Path, constants: Mapping[str, object]) -> str:
    """Return a name that differs wherever other code is compiled of a source; "" without a compiler."""
    compiler = find_compiler()
    return "" if compiler is None else _name(source, _defined(constants), compiler)


@functools.cache
def _name(source: Path, defined: tuple[str, ...], compiler: Compiler) -> str:
    """Return the name of a library without the hash of its bytes."""
    parts = (
        *(path.read_text(encoding="utf-8") for path in (source, *sorted(source.parent.glob("*.h")))),
        *defined,
        *_FLAGS,
        *compiler.command,
        compiler.version,
        _processor(),
    )
    return f"{source.stem}-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:_HASH_DIGITS]}"


def _defined(constants: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(f"-D{name}={value}" for name, value in constants.items())


def make_private(folder: Path) -> None:
    """Make a folder that nobody else may read or write.

    Raises:
        OSError: it cannot be made, or is another user's.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not files.is_ours_alone(folder):
        raise PermissionError(errno.EACCES, "not this user's alone")
    if not _given_folder():  # a folder that the user has named stays as it is
        folder.chmod(0o700)


def _names(folder: Path, stem: str) -> list[str]:
    return sorted(path.name for path in folder.glob(f"{stem}.so"))


def _kept(folder: Path, name: str) -> ctypes.CDLL | None:
    """Return the library that was kept under a name; a file that is damaged, or may be another user's, goes."""
    for each in _names(folder, f"{name}-*") if files.is_ours_alone(folder) else ():
        handle = _open_checked(folder, each)
        if handle is not None:
            # the file that was checked, whatever lies under its name by now; it stays open, for its number is its name
            checked = Path(f"/proc/self/fd/{handle}")
            with suppress(OSError):  # of another system: it is made again
                return ctypes.CDLL(str(checked if checked.exists() else folder / each))
            os.close(handle)
        _log.warning(
            "compiled kernel %s is damaged or not this user's alone: it is compiled again", folder / each
        )
        with suppress(OSError):
            (folder / each).unlink()
    return None


def _open_checked(folder: Path, name: str) -> int | None:
    """Open a kept file; None where it has not the bytes that its name says, or others could have written it.

    Whoever may write into a shared cache can put another folder in the place of ours between a check and a use.  Folder
    and file are therefore opened first, never through a link, and what is open is checked.
    """
    with suppress(OSError):
        inside = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=inside)
            alone = all(files.owned_alone(os.fstat(each)) for each in (inside, handle))
        finally:
            os.close(inside)
        with open(handle, "rb", closefd=False) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if alone and digest[:_HASH_DIGITS] == Path(name).stem.rpartition("-")[2]:
            return handle
        os.close(handle)
    return None


def _temporary(source: Path, defined: tuple[str, ...], compiler: Compiler, name: str) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory(prefix="gridsearch-") as folder:  # once it is loaded, its file may go
        return ctypes.CDLL(str(_compile(source, defined, compiler, Path(folder) / name)))


class _Refused(Exception):
    """The compiler fails; the message says how, in one line."""


def _compile(source: Path, defined: tuple[str, ...], compiler: Compiler, place: Path) -> Path:
    """Compile into a file that is there whole or not at all; return it.

    Args:
        source: the C source.
        defined: the options that define its constants.
        compiler: what compiles.
        place: the file without the hash of its bytes, which is added to its name.

    Raises:
        _Refused: the compiler fails.
        OSError: the folder cannot be written.
    """
    while _LISTENERS:
        _LISTENERS.pop()()
    said = ""
    for options in _FOR_THIS_MACHINE:
        with files.draft_of(place.with_suffix(".so")) as made:
            done = _call(
                [*compiler.command, *_FLAGS, *options, *defined, "-o", str(made), str(source), "-lm"]
            )
            if done.returncode == 0:
                path = place.with_name(f"{place.name}-{files.sha256_of(made)[:_HASH_DIGITS]}.so")
                files.put_in_place(made, path, mode=0o700)
                _clean_up(path.parent)
                return path
            said = said or " ".join(done.stderr.split())
    raise _Refused(f"{compiler.command[0]} says: {said[:200]}")


def _clean_up(folder: Path) -> None:
    """Remove the files of compilations that were killed."""
    for path in folder.glob(f"{files.PARTIAL}*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > 2 * _TIMEOUT:
                path.unlink()


def _call(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603  (the machine's compiler, or the one that the user names)
        words,
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        timeout=_TIMEOUT,
        check=False,
        env=os.environ | {"LC_ALL": "C"},
    )


@functools.cache
def processor_model() -> str:
    """Return which processor this is, of those that have the same instructions."""
    with suppress(OSError):
        facts: dict[str, str] = {}
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            facts.setdefault(name.strip(), " ".join(value.split()))
        if found := [facts[name] for name in _PROCESSOR_MODEL if name in facts]:
            return " ".join(found)
    return platform.processor() or platform.machine()


@functools.cache
def _processor() -> str:
    """Return a text that differs for processors with different instructions, or that a compiler treats differently.

    On ARM two kinds of core may have the same features: there the implementer, part and variant count too.
    """
    with suppress(OSError):
        facts: dict[str, set[str]] = {}
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in _PROCESSOR_FACTS:
                facts.setdefault(name.strip(), set()).add(value.strip())
        if facts:
            texts = (f"{name}: {' | '.join(sorted(values))}" for name, values in sorted(facts.items()))
            return " ".join((platform.machine(), *texts))
    return f"{platform.system()} {platform.machine()} {platform.processor()} {platform.node()}"
