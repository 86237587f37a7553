"""Hands a study over to other programs: trackers by their own clients, tables as text."""

from __future__ import annotations

import os
import re
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gridsearch import files, reporting
from gridsearch.errors import UsageError, nearest, unwritable
from gridsearch.reporting.words.text import show_params
from gridsearch.service.queries.reports import chosen, reader

if TYPE_CHECKING:
    from collections.abc import Callable

    from gridsearch.records import StudyData
    from gridsearch.reporting import Ranking
    from gridsearch.store import Store

TRACKERS: Final = ("mlflow", "wandb-offline")
TABLES: Final = ("csv", "json", "latex", "markdown")
TARGETS: Final = (*TRACKERS, *TABLES)
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]+:", re.IGNORECASE)

_DRAFT_SECONDS: Final = 3600.0
"""A table is written in less: an older draft is of a process that was killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What became of an export.

    Attributes:
        study: the study's name.
        to: the target.
        where: a folder, a file or an address; "" for `text`.
        text: a table, where it was not written to a file.
        new: runs that were written.
        kept: runs that were there already.
        left: trials that have not ended and are not exported.
        notes: what to say of it.
    """

    study: str
    to: str
    where: str = ""
    text: str = ""
    new: int = 0
    kept: int = 0
    left: int = 0
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able mapping."""
        counts = {"new": self.new, "kept": self.kept, "left": self.left}
        return {"schema": 1, "study": self.study, "to": self.to, "where": self.where or None, **counts}


def require_target(to: str) -> str:
    """Return a target that there is.

    Raises:
        UsageError: there is none of that name.
    """
    if to not in TARGETS:
        raise UsageError(f"--to {to}: unknown target{nearest(to, TARGETS)}")
    return to


def export(
    store: Store, study: str, *, to: str, by: str | None = None, output: str | None = None
) -> Exported:
    """Hand a study over.

    Args:
        store: the open store.
        study: the study's name.
        to: one of `TARGETS`.
        by: the metric that ranks; None for the study's own.
        output: of MLflow its tracking URI, of W&B a folder, of a table a file; default: in the home, tables as text.

    Raises:
        StudyNotFound: there is none.
        UsageError: an unknown target or metric, or the target's package is not installed.
        StoreError: what is there cannot be written to.
    """
    require_target(to)
    data, notes = store.study_data(study), tuple[str, ...]()
    if by is not None:
        data, notes = chosen(store, data, by=by)
    if to in TABLES:
        text = _text(to, data, lambda: reporting.rank(data, predictions=reader(store, data)))
        if output is None:
            return Exported(study=data.name, to=to, text=text, notes=notes)
        try:
            _write(Path(output), text.encode("utf-8", "replace"))
        except OSError as error:
            raise unwritable(output, error, hint="name a file that you may write with --output") from None
        return Exported(study=data.name, to=to, where=output, notes=notes)
    left = sum(not trial.state.ended for trial in data.trials)
    write = _to_mlflow if to == "mlflow" else _to_wandb
    where, new, kept = write(store, data, output)
    return Exported(study=data.name, to=to, where=where, new=new, kept=kept, left=left, notes=notes)


def _text(to: str, data: StudyData, ranked: Callable[[], Ranking]) -> str:
    if to == "csv":
        return reporting.trials_csv(data).decode()
    if to == "json":
        return reporting.export_json(data, ranking=ranked())
    return (reporting.latex_table if to == "latex" else reporting.markdown_table)(data, ranked())


def _write(path: Path, content: bytes) -> None:
    """Write a table: whole or not at all, unless it goes through a link, into a pipe or to a terminal."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        path.write_bytes(content)
        return
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else None
    _remove_old_drafts(path)
    with files.draft_of(path) as draft:
        draft.write_bytes(content)
        files.put_in_place(draft, path, mode=mode)


def _remove_old_drafts(path: Path) -> None:
    """Remove what exports that were killed have left beside a file; a folder of the user's has no lock."""
    for left in path.parent.glob(f"{files.PARTIAL}*"):
        with suppress(OSError):
            if left.suffix == path.suffix and time.time() - left.lstat().st_mtime > _DRAFT_SECONDS:
                left.unlink()


def _to_mlflow(store: Store, data: StudyData, output: str | None) -> tuple[str, int, int]:
    root = store.home.root
    given = output or os.environ.get("MLFLOW_TRACKING_URI")
    uri, folder = _tracking_uri(given, root) if given else (f"sqlite:///{root / files.MLFLOW}", root)
    ranking = reporting.rank(data, predictions=reader(store, data))
    best = ranking.best
    summary: dict[str, Any] = {"dataset": data.dataset, "ranked_by": data.metric, "direction": data.direction}
    if best is not None and best.mean is not None:
        summary |= {"best": show_params(best.params), f"best_{data.metric}": best.mean}
        summary |= (
            {"best_ci_low": best.ci_low, "best_ci_high": best.ci_high} if best.ci_low is not None else {}
        )
    report = store.home.report_dir(data.name, "")
    shown = (files.PAGE, files.RANKING, files.RANKING_JSON, files.ALL_TRIALS)
    new, kept = reporting.export_to_mlflow(
        data.name,
        reporting.exported_runs(data, reader(store, data)),
        uri=uri,
        artifacts=(folder / files.MLFLOW_ARTIFACTS / data.name).as_uri() if _local(uri) else None,
        summary=summary,
        files=[path for name in shown if (path := report / name).is_file()],
    )
    return uri, new, kept


def _tracking_uri(given: str, root: Path) -> tuple[str, Path]:
    """Return the tracking URI that is meant, and the folder for the files of runs: a path may be one that gets both.

    MLflow has given up its store of plain files, `./mlruns`, and refuses to write it.  One that is there is written as
    before, and so is what a `file:` URI names.
    """
    path = Path(given).expanduser().absolute()
    if _SCHEME.match(given) or given.startswith("databricks"):
        return given, root
    if any(path.glob("*/meta.yaml")):
        return path.as_uri(), root
    if path.is_file() or path.suffix in (".db", ".sqlite"):
        return f"sqlite:///{path}", root
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(given, error, hint="name another place with --output") from None
    return f"sqlite:///{path / files.MLFLOW}", path


def _local(uri: str) -> bool:
    return uri.startswith("sqlite:")


def _to_wandb(store: Store, data: StudyData, output: str | None) -> tuple[str, int, int]:
    folder = Path(output) if output is not None else store.home.root / data.name
    new, kept = reporting.export_to_wandb(
        data.name, reporting.exported_runs(data, reader(store, data)), folder=folder.absolute()
    )
    return str(folder / "wandb"), new, kept
