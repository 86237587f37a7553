"""Commands about what comes after the search: ``best`` and ``predict``."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from gridsearch.advice import command, near
from gridsearch.cli import display
from gridsearch.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from gridsearch.service.best import BestOutcome
    from gridsearch.service.exported import Prediction, Refused


def best(arguments: argparse.Namespace) -> int:
    """Refit the winner, read the test set once, export the model."""
    from gridsearch.cli.commands.results import conditions
    from gridsearch.service import best as service
    from gridsearch.service.options import Places, RunOptions

    options = RunOptions(
        places=Places.find(arguments.home, arguments.store),
        device=arguments.device,
        executor=arguments.executor,
    )
    observer = display.observer(quiet=arguments.quiet, no_color=arguments.no_color)
    found = service.best(
        arguments.study,
        options,
        where=conditions(arguments.where or ()),
        again=arguments.again,
        observer=observer,
        dataset=arguments.dataset,
        models=arguments.model or [],
    )
    if found.signum is not None:
        observer.warn("interrupted; nothing was kept, and the test set was not read")
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
        out.print("the test set was read before; this is what was found then:", soft_wrap=True)
    out.print(f"winner: {display.params_text(found.test['params'])}", markup=False, soft_wrap=True)
    out.print(reporting.in_words(found.test), markup=False, soft_wrap=True, style="bold")
    if found.folder.is_dir():
        out.print(
            f"model: {found.folder} (its card: {found.folder / 'card.md'})", markup=False, soft_wrap=True
        )
        if found.fresh and (found.folder / "model.onnx").exists():
            example = command("predict", near(found.folder))
            out.print(f"try: {example} IMAGE...", markup=False, soft_wrap=True)


def predict(arguments: argparse.Namespace) -> int:
    """Print class and probability of images; one that cannot be used does not keep the others from it.

    Raises:
        DataError: some images cannot be used; the others are printed already.
    """
    from gridsearch.service.exported import ExportedModel, Refused, unusable

    _require_files(arguments.images)
    model = ExportedModel.load(arguments.model)
    found = model.predict(arguments.images)
    good = [each for each in found if not isinstance(each, Refused)]
    bad = [each for each in found if isinstance(each, Refused)]
    if arguments.json:
        print(json.dumps({"schema": 1, "predictions": [each.to_json() for each in good], **_problems(bad)}))
    else:
        _show_predictions(good, arguments)
    if bad:
        raise unusable(bad)
    return 0


def _problems(bad: Sequence[Refused]) -> dict[str, object]:
    """Return the part of the JSON about images that cannot be used; nothing if there is none."""
    return {"problems": [{"image": each.image, "problem": each.reason} for each in bad]} if bad else {}


def _require_files(images: Sequence[str]) -> None:
    """Refuse paths that are no files before anything is read.

    Raises:
        UsageError: one is not there, or is a folder or a device.
    """
    for image in images:
        path = Path(image)
        try:
            mode = path.stat().st_mode
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "no such file"
            raise UsageError(f"{image}: {reason[0].lower()}{reason[1:]}") from error
        if stat.S_ISDIR(mode):
            raise UsageError(
                f"{image} is a folder, not an image", hint=f"name its files: {image.rstrip('/')}/*"
            )
        if not stat.S_ISREG(mode):
            raise UsageError(f"{image} is not a regular file")


def _show_predictions(good: Sequence[Prediction], arguments: argparse.Namespace) -> None:
    from rich.table import Table
    from rich.text import Text

    from gridsearch.reporting.text import printable

    if not good:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("image", "class", "probability", "or else"):
        table.add_column(name, justify="right" if name == "probability" else "left", overflow="fold")
    for each in good:
        others = sorted((share, name) for name, share in each.probabilities.items() if name != each.label)
        second = f"{printable(others[-1][1])} {100 * others[-1][0]:.1f} %" if others else ""
        table.add_row(
            Text(printable(each.image)),
            Text(printable(each.label)),
            f"{100 * each.probability:.1f} %",
            Text(second),
        )
    display.console(no_color=arguments.no_color).print(table)


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {"best": best, "predict": predict}
