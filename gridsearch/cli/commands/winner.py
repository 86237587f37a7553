"""Commands about what comes after the search: ``best`` and ``predict``."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import stat
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from gridsearch import display
from gridsearch.advice import command, near
from gridsearch.errors import UsageError, escaped
from gridsearch.files import GRAPH

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    from gridsearch.service.winner.best import BestOutcome
    from gridsearch.service.winner.exported import Prediction, Refused

_DEEPEST = 4
"""Folders in folders that are looked through for files to name."""

_LINE_SECONDS = 30.0
"""Off a terminal, `predict` says how far it is this often."""


def best(arguments: argparse.Namespace) -> int:
    """Refit the winner, read the test set once, export the model."""
    from gridsearch.cli.argument_types import conditions
    from gridsearch.service.prepare.options import Places, RunOptions
    from gridsearch.service.winner import best as service

    options = RunOptions(
        places=Places.find(arguments.home, arguments.store),
        device=arguments.device,
        executor=arguments.executor,
        slurm=tuple(arguments.slurm),
    )
    observer = display.observer(quiet=arguments.quiet, no_color=arguments.no_color)
    found = service.best(
        arguments.study,
        options,
        where=conditions(arguments.where or ()),
        again=arguments.again,
        observer=observer,
        dataset=arguments.dataset,
        models=[*(arguments.model or ()), *(arguments.code or ())],
    )
    if found.signum is not None:
        kept = "nothing was kept"
        if found.kept:
            kept = f"the same command continues from epoch {found.kept} of {found.epochs}"
        observer.warn(f"interrupted; {kept}, and the test set was not read")
        return 128 + found.signum
    if arguments.json:
        print(json.dumps(found.to_json(), allow_nan=False))
    else:
        _show_best(found, arguments)
    return 0


def _show_best(found: BestOutcome, arguments: argparse.Namespace) -> None:
    from gridsearch import reporting

    assert found.test is not None
    out = display.console(no_color=arguments.no_color)
    if not found.fresh:
        out.print("the test set was used before; the result then:")
    whose = "tested then, no longer the winner" if found.changed else "winner"
    out.print(f"{whose}: {display.params_text(found.test['params'])}")
    out.print(reporting.in_words(found.test), style="bold")
    if found.folder.is_dir():
        out.print(f"model: {found.folder} (its card: {found.folder / 'card.md'})", soft_wrap=True)
        if found.fresh and (found.folder / GRAPH).exists():
            example = command("predict", near(found.folder))
            out.print(f"try: {example} IMAGE...", soft_wrap=True)


def predict(arguments: argparse.Namespace) -> int:
    """Print class and probability of images; one that cannot be used does not keep the others from it.

    Raises:
        DataError: some images cannot be used; the others are printed already.
    """
    from gridsearch.service.winner.exported import ExportedModel, Refused, unusable

    _require_files(arguments.images)
    model = ExportedModel.load(arguments.model)
    show = None if arguments.json else _Table(arguments.images, model.classes, arguments)
    good, bad = [], []
    with _progress(len(arguments.images), arguments) as step:
        for each in model.predictions(arguments.images):
            step()
            if isinstance(each, Refused):
                bad.append(each)
            elif show is not None:
                show.row(each)
            else:
                good.append(each)
    if arguments.json:
        print(json.dumps({"schema": 1, "predictions": [each.to_json() for each in good], **_problems(bad)}))
    if bad:
        raise unusable(bad)
    return 0


@contextlib.contextmanager
def _progress(count: int, arguments: argparse.Namespace) -> Iterator[Callable[[], None]]:
    """Show how far it is: a bar on a terminal, else a line now and then.

    On a terminal that shows the predictions as they come, those are enough.
    """
    err = display.console(stderr=True, no_color=arguments.no_color)
    if arguments.quiet or (sys.stdout.isatty() and not arguments.json):
        yield lambda: None
    elif err.is_terminal:
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(**display.BAR_STYLES), TaskProgressColumn())
        with Progress(*columns, TimeRemainingColumn(), console=err, transient=True) as bar:
            task = bar.add_task("images", total=count)
            yield lambda: bar.advance(task)
    else:
        yield _Counter(display.Lines(no_color=arguments.no_color), count).step


class _Counter:
    """Says how many images were looked at, now and then."""

    def __init__(self, lines: display.Lines, count: int) -> None:
        self._lines = lines
        self._count = count
        self._done = 0
        self._spoken = time.monotonic()

    def step(self) -> None:
        """Count one."""
        self._done += 1
        if time.monotonic() - self._spoken > _LINE_SECONDS:
            self._spoken = time.monotonic()
            self._lines.say(f"{self._done:,} of {self._count:,} images")


def _problems(bad: Sequence[Refused]) -> dict[str, object]:
    """Return the JSON entries for images that cannot be used; empty if all can."""
    return {"problems": [{"image": each.image, "problem": each.reason} for each in bad]} if bad else {}


def _require_files(images: Sequence[str]) -> None:
    """Refuse paths that are no files before anything is read.

    Raises:
        UsageError: one is not there, or is a folder or a device.
    """
    for image in images:
        if not image:
            raise UsageError("an image's name is empty", hint="is a variable of the shell not set?")
        path = Path(image)
        try:
            mode = path.stat().st_mode
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "no such file"
            raise UsageError(f"{image}: {reason[0].lower()}{reason[1:]}") from error
        if stat.S_ISDIR(mode):
            raise UsageError(f"{image} is a folder, not an image", hint=_files_of(image))
        if not stat.S_ISREG(mode):
            raise UsageError(f"{image} is not a regular file")


def _files_of(folder: str) -> str:
    """Return how the files of a folder are named in a shell, at the depth where there are some."""
    for depth in range(1, _DEEPEST + 1):
        pattern = "/".join("*" * depth)
        with contextlib.suppress(OSError):
            if any(path.is_file() and not path.name.startswith(".") for path in Path(folder).glob(pattern)):
                return f"name its files: {shlex.quote(folder.rstrip('/') or '/')}/{pattern}"
    return "name files; it holds none"


class _Table:
    """A table that is written row by row, each on one line: columns are as wide as what is known beforehand needs.

    Args:
        images: the paths that were given.
        classes: the names.
        arguments: as on the command line.
    """

    def __init__(self, images: Sequence[str], classes: Sequence[str], arguments: argparse.Namespace) -> None:
        self._out = display.console(no_color=arguments.no_color)
        self._class = max(map(_width, ("class", *classes)))
        self._image = max(map(_width, ("image", *images)))
        if self._out.is_terminal:  # a long path takes its own line further rather than all others
            taken = 2 * self._class + len("  probability    100.0 %") + 2
            self._image = max(len("image"), min(self._image, self._out.width - taken))
        self._begun = False

    def row(self, found: Prediction) -> None:
        """Write what an image shows."""
        if not self._begun:
            self._begun = True
            self._write("image", "class", "probability", "second", style="bold")
        others = sorted((share, name) for name, share in found.probabilities.items() if name != found.label)
        second = f"{_cell(others[-1][1])} {100 * others[-1][0]:.1f} %" if others else ""
        self._write(found.image, found.label, f"{100 * found.probability:.1f} %", second)

    def _write(self, image: str, name: str, share: str, second: str, style: str = "") -> None:
        if not self._out.is_terminal:
            from rich.segment import Segment, Segments

            row = "\t".join((_cell(image), _cell(name), share, second)).rstrip()
            self._out.print(Segments([Segment(row), Segment.line()]), end="")  # a Text would expand tabs
            return
        line = f"{_padded(image, self._image)}  {_padded(name, self._class)}  {share:>11}  {second}"
        self._out.print(line.rstrip(), highlight=False, soft_wrap=True, style=style)


def _cell(text: str) -> str:
    """Return a name as it stands in a table's cell: a tab or a line's end in it would end the cell."""
    return re.sub(r"[\t\r\n]", lambda found: found[0].encode("unicode_escape").decode(), escaped(text))


def _width(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(_cell(text))


def _padded(text: str, width: int) -> str:
    return _cell(text) + " " * (width - _width(text))


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {"best": best, "predict": predict}
