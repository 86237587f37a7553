"""Every command that the program advises is built here, so that it runs as it stands and means this study here.

Below everything that gives advice: reports, errors' hints, status, doctor.  A command names the home and the store
where they are not the default ones, and code of the user's own, which runs only when it is named; all is quoted for
the shell.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gridsearch import locators
from gridsearch.errors import escaped
from gridsearch.files import DATABASE, object_address
from gridsearch.folders import expanded

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

HOME = "runs"
LOCATORS = "locators"
"""Where a study's spec keeps what its own code is named by: kind, display name, locator ("" where it has no file)."""

_TORCHS = "torch.optim:"
"""Before the names of torch's optimizers, which are no code of the user's."""

_GRID = ("--grid", "lr=.01,.001", "batch=10,20,50")


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """The commands about one study, or about none yet.

    Attributes:
        study: its name; "" where there is none yet.
        where: the options that name its home and store.
        named: the options that name what it needs of the user's own code.
        lost: what it needs and no command can name: classes and functions that lived in a Python session.
    """

    study: str = ""
    where: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()

    def first_run(self) -> str:
        """Return a command that makes a first study."""
        return self._command("run", *_GRID)

    def search(self, *arguments: str) -> str:
        """Return the command that runs a grid, whose arguments say all about it but where its study lies."""
        return self._command("run", *arguments)

    def go_on(self, *options: str) -> str:
        """Return the command that trains what a study lacks."""
        return self._command("run", *self._study, *options, *self.named)

    def goes_on(self, *options: str) -> str:
        """Return how a study is finished, in words: the command that "goes on", or what comes nearest to one."""
        if self.lost:
            return f"the same call from Python continues ({', '.join(self.lost)} lived in its session)"
        return f"`{self.go_on(*options)}` continues"

    def name_again(self) -> str:
        """Return how the user's own code is named again, in words."""
        if self.lost:
            return f"{', '.join(self.lost)} lived in a Python session: give the grid again from there"
        return f"add {quoted(*self.named)}"

    def worker(self) -> str:
        """Return the command that trains what waits in a store, of this study and any other."""
        return self._command("worker", *self.named)

    def more_seeds(self, seeds: int, top: int) -> str:
        """Return the command that gives the best points more seeds."""
        return self.go_on("--more-seeds", str(seeds), "--top", str(top))

    def best(self) -> str:
        """Return the command that trains the winner again and tests it."""
        return self._command("best", *self._study, *self.named)

    def report(self, *options: str) -> str:
        """Return the command that ranks and draws."""
        return self._command("report", *self._study, *options)

    def trial(self, number: int) -> str:
        """Return the command that shows one trial."""
        return self._command("trial", str(number), *self._study)

    def watch(self) -> str:
        """Return the command that shows how far a study is."""
        return self._command("status", *self._study, "--watch")

    def studies(self) -> str:
        """Return the command that lists the studies."""
        return self._command("study", "list")

    def stop(self) -> str:
        """Return the command that ends the runs of a study."""
        return self._command("stop", *self._study)

    def clean(self) -> str:
        """Return the command that takes away what is left of a study."""
        return self._command("study", "clean", self.study)

    @property
    def _study(self) -> tuple[str, ...]:
        return ("--study", self.study) if self.study else ()

    def _command(self, *words: str) -> str:
        return command(*words, *self.where)


def command(*words: str) -> str:
    """Return a command line of this program, quoted for the shell."""
    return quoted("gridsearch", *words)


def quoted(*words: str) -> str:
    r"""Return words as a shell takes them, also where a terminal would not show them as they are.

    Bytes that are no text and control characters are written as bash, zsh and ksh read them, ``$'a\377'``.
    """
    return " ".join(shlex.quote(word) if escaped(word) == word else _ansi_quoted(word) for word in words)


def _ansi_quoted(word: str) -> str:
    """Quote byte by byte where a character would act or is none, https://www.gnu.org/software/bash/manual/."""
    shown = []
    for character in word:
        if character in "\\'":
            shown.append(f"\\{character}")
        elif escaped(character) == character and character not in "\r\n\t":
            shown.append(character)
        else:
            # Octal: a hexadecimal escape may go on with the digits that follow.
            shown += [f"\\{byte:03o}" for byte in _bytes(character)]
    return f"$'{''.join(shown)}'"


def _bytes(character: str) -> bytes:
    return character.encode("utf-8", "surrogateescape" if "\udc80" <= character <= "\udcff" else "replace")


def default_home() -> str:
    """Return the home where none is given."""
    return os.environ.get("GRIDSEARCH_HOME") or HOME


def place(home: Path, store: str, *, kept: bool = False) -> tuple[str, ...]:
    """Return the options with which commands typed here reach a home and a store.

    Args:
        home: the folder, absolute.
        store: the database's URL.
        kept: whether they are kept where they may be read from another working directory.
    """
    given: list[str] = []
    there = home
    if (address := object_address(home)) is not None:
        given += ["--home", address] if address != default_home().rstrip("/") else []
    elif _real(home) != _real(expanded(default_home())):
        given += ["--home", str(home) if kept else near(home)]
    else:
        there = expanded(default_home())
    usual = os.environ.get("GRIDSEARCH_STORE") or f"sqlite:///{there / DATABASE}"
    if _file(store) != _file(usual):
        given += ["--store", store]
    return tuple(given)


def near(path: Path) -> str:
    """Return a path as short as it can be typed here: relative where it lies below the current folder."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def named_again(
    spec: Mapping[str, Any], needed: Iterable[tuple[str, str]]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the options that name the user's own code which trials need, and what of it cannot be named.

    Args:
        spec: the study's, as it was last asked for, with its `LOCATORS`.
        needed: kind ("model", "dataset", "objective", "optimizer", "augment") and display name of all that the trials
            use.
    """
    named: list[str] = []
    lost: list[str] = []
    for kind, name in dict.fromkeys(use for use in needed if is_own(*use)):
        locator = spec.get(LOCATORS, {}).get(kind, {}).get(name)
        if locator is None:  # a store of before: the newest words, or the name itself
            typed = str(spec.get(kind, ""))
            locator = typed if typed.rpartition("/")[2] == name else name
        if locator:
            where, _, attribute = locator.rpartition(":")
            shown = f"{near(Path(where))}:{attribute}" if where.endswith(".py") else locator
            named += ["--code" if kind in ("optimizer", "augment") else f"--{kind}", shown]
        else:
            lost.append(name)
    return tuple(named), tuple(lost)


def is_own(kind: str, name: str) -> bool:
    """Whether a name stands for code of the user's own ("my_net.py:Net"), which runs only when it is named."""
    if kind == "optimizer" and name.startswith(_TORCHS):
        return False
    known = {"dataset": locators.placed, "model": locators.from_library}.get(kind)
    return ":" in name and (known is None or known(name) is None)


def _real(path: Path) -> str:
    return os.path.realpath(path)


def _file(url: str) -> str:
    name = url.removeprefix("sqlite:///")
    return url if name == url else _real(expanded(name))
