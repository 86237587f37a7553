"""Writes a study as offline runs of Weights & Biases by its own client; `wandb sync` is the user's to call.

The one module that knows W&B.  Nothing goes over the network.  A run's id is made of the trial's key, and its folder
keeps a digest: a trial that is there already stays as it is, one that has changed since is written anew.
"""

from __future__ import annotations

import io
import logging
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gridsearch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gridsearch.reporting.exports.exported_runs import ExportedRun

_DIGEST: Final = "gridsearch-digest"
_OFFLINE: Final = {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}
_ID_LETTERS: Final = 32


def export_to_wandb(name: str, runs: Iterable[ExportedRun], *, folder: Path) -> tuple[int, int]:
    """Write a study's trials; return how many were new or other than before, and how many were there.

    Args:
        name: of the study, and so of the project.
        runs: its trials.
        folder: where to; W&B makes a folder `wandb` in it.

    Raises:
        UsageError: W&B is not installed.
    """
    with _offline() as wandb:
        folder.mkdir(parents=True, exist_ok=True)
        new = kept = 0
        for run in runs:
            run_id = run.key[:_ID_LETTERS]
            there = sorted((folder / "wandb").glob(f"offline-run-*-{run_id}"))
            if any(_digest(place) == run.digest for place in there):
                kept += 1
                continue
            for place in there:
                shutil.rmtree(place)
            _write(wandb, name, run, run_id, folder)
            new += 1
        return new, kept


@contextmanager
def _offline() -> Iterator[Any]:
    """Give W&B, which talks to nobody, nor prints tracebacks where it cannot write its own log."""
    before = {name: os.environ.get(name) for name in _OFFLINE}
    os.environ.update(_OFFLINE)
    printing, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        try:
            import wandb
        except ImportError as error:
            raise UsageError(
                f"--to wandb-offline needs W&B: {error}", hint="pip install 'gridsearch[wandb]'"
            ) from None
        try:
            yield wandb
        finally:
            wandb.teardown()
    finally:
        logging.raiseExceptions = printing
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _digest(place: Path) -> str | None:
    try:
        return (place / _DIGEST).read_text()
    except OSError:
        return None


def _write(wandb: Any, project: str, run: ExportedRun, run_id: str, folder: Path) -> None:
    """Write a trial; the digest comes last, so that one that was broken off is written again."""
    from PIL import Image

    settings = wandb.Settings(
        mode="offline",
        console="off",
        silent=True,
        disable_git=True,
        save_code=False,
        x_disable_stats=True,
        x_disable_meta=True,
    )
    written = wandb.init(
        project=project,
        dir=str(folder),
        id=run_id,
        name=run.title,
        group=project,
        tags=[run.tags["state"]],
        config={**run.params, **{f"gridsearch.{name}": value for name, value in run.tags.items()}},
        settings=settings,
        reinit="create_new",
    )
    for step, metrics in run.steps:
        written.log(dict(metrics), step=step)
    last = max((step for step, _ in run.steps), default=0)
    pictures = {Path(n).stem: content for n, content in run.files.items() if n.endswith(".png")}
    for name, content in pictures.items():
        written.log({name: wandb.Image(Image.open(io.BytesIO(content)))}, step=last)
    written.summary.update(dict(run.final))
    place = Path(written.dir).parent
    written.finish(exit_code=int(run.tags["state"] == "failed"))
    (place / _DIGEST).write_text(run.digest)
