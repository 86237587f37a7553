"""From a study to its report folder: the last stage, where ranking, tables, figures and page meet."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gridsearch import files, garbage
from gridsearch.errors import ArtifactError
from gridsearch.reporting.figures.gallery import pictures_of
from gridsearch.reporting.figures.pictures import PIXELS, STEMS
from gridsearch.reporting.output.answer_data import Asked, answer_data
from gridsearch.reporting.output.document import as_lines, report_json
from gridsearch.reporting.output.figure_data import figure_data
from gridsearch.reporting.output.page import Drawn, Live, load_templates, render_page
from gridsearch.reporting.output.plain_tables import ranking_csv, trials_csv
from gridsearch.reporting.output.report_parts import parts_beside, with_parts
from gridsearch.reporting.output.shown_metrics import shown_metrics
from gridsearch.reporting.ranking.ranking import Ranking, rank, winners_classes
from gridsearch.reporting.stats.predictions import Predictions, per_class_csv
from gridsearch.reporting.stats.predictions import kept as kept_predictions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy as np

    from gridsearch.plugins import ImageData
    from gridsearch.records import StudyData, TrialRecord
    from gridsearch.reporting.figures.pictures import Picture, Pictures
    from gridsearch.reporting.ranking.pareto import ParetoFront


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFiles:
    """What a report consists of.

    Attributes:
        page: index.html.
        files: all files, the page among them.
        ranking: the ranking that it shows.
        json: the content of `ranking.json`.
    """

    folder: Path
    page: Path
    files: tuple[Path, ...]
    ranking: Ranking
    json: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class LivePage:
    """A study's page as a server shows it, with what the next one can be made from.

    Attributes:
        winner: number of the winner's trial.
        images: the figures that show images, by stem.
        pixels: the training images that the winner's predictions point into.
    """

    html: str
    winner: int | None
    images: Mapping[str, Picture]
    pixels: np.ndarray | None


def preload() -> None:
    """Load what a report is drawn with; what is missing is left for the report itself to say."""
    from gridsearch.reporting.figures import matplotlib_setup

    with garbage.resting(), suppress(ImportError, ArtifactError):
        matplotlib_setup.load()
        load_templates()
        from matplotlib.backends import backend_agg, backend_svg  # noqa: F401

        from gridsearch.reporting.figures import notebook_figure  # noqa: F401  (brings matplotlib's axes)
        from gridsearch.reporting.ranking import inference  # noqa: F401  (brings scipy)


@garbage.resting()
def write_report(
    data: StudyData,
    *,
    folder: Path,
    predictions: Callable[[int], Predictions | None],
    images: Callable[[TrialRecord], ImageData] | None = None,
    write: Callable[[Path, bytes], object] | None = None,
    pareto: Callable[[Ranking], ParetoFront] | None = None,
) -> ReportFiles:
    """Write ranking, tables, figures and page of a study into a folder; a figure of an earlier report goes.

    Args:
        data: the study, or the part of it that is reported (see `filter_data`).
        folder: where to; made if it is not there, in one that is.
        predictions: the stored validation predictions of a trial by its number, None if there are none.
        images: gives what a trial was trained on, or raises a GridsearchError that says why not; default: no
            images are shown.
        write: writes a file so that a reader never finds half of it; default: temporary file and rename.
        pareto: compares the points of a ranking by several quantities; None where nobody asks.
    """
    write = write or files.write_whole
    predictions = kept_predictions(predictions)
    ranking = rank(data, predictions=predictions)
    if pareto is not None:
        ranking = replace(ranking, pareto=pareto(ranking))
    folder.mkdir(exist_ok=True)
    pictures = pictures_of(data, ranking, predictions=predictions, images=images)
    with pictures.drawn_meanwhile():
        content = report_json(data, ranking=ranking)
        contents: dict[str, bytes] = {
            files.RANKING: ranking_csv(data, ranking=ranking),
            files.RANKING_JSON: as_lines(content).encode(),
            files.ALL_TRIALS: trials_csv(data),
        }
        if pictures.winner is not None:
            contents[files.PER_CLASS] = per_class_csv(pictures.winner, winners_classes(data, ranking))
        drawn = _drawn(data, ranking, predictions, pictures)
    for stem, picture in pictures.by_stem.items():
        contents[f"{stem}.png"], contents[f"{stem}.svg"] = picture.png, picture.svg
    page = _page(data, ranking, drawn, pictures, folder)
    contents[files.PAGE] = page.encode("utf-8", "replace")  # last: the page never names files yet to come
    _remove_stale(folder, set(contents))
    for name, written in contents.items():
        write(folder / name, written)
    whole = _whole(folder)
    if not data.whole and whole.is_file():
        page = whole.read_text("utf-8")
        write(whole, with_parts(page, parts_beside(whole.parent)).encode())
    return ReportFiles(
        folder=folder,
        page=folder / files.PAGE,
        files=tuple(folder / name for name in contents),
        ranking=ranking,
        json=content,
    )


def _whole(folder: Path) -> Path:
    """Return the page of the whole study, given the folder of the report of a part."""
    return folder.parent / files.REPORT / files.PAGE


def _drawn(
    data: StudyData,
    ranking: Ranking,
    predictions: Callable[[int], Predictions | None],
    pictures: Pictures,
) -> Drawn:
    """Return what the page's script draws."""
    by = shown_metrics(data, predictions=predictions)
    return Drawn.of(
        [figure_data(data, ranking, winner=pictures.winner, by=by)],
        _answers(data, ranking, predictions, pictures),
    )


def _page(data: StudyData, ranking: Ranking, drawn: Drawn, pictures: Pictures, folder: Path) -> str:
    """Return the page as HTML, with links to the reports of parts, or of the whole study, beside its folder."""
    return render_page(
        data,
        ranking,
        pictures=pictures.by_stem,
        classes=pictures.classes,
        notes=pictures.notes,
        drawn=drawn,
        parts=parts_beside(folder) if data.whole else (),
        whole=f"../{files.REPORT}/{files.PAGE}" if not data.whole and _whole(folder).is_file() else "",
    )


def _answers(
    data: StudyData,
    ranking: Ranking,
    predictions: Callable[[int], Predictions | None],
    pictures: Pictures,
) -> dict[str, Any] | None:
    """Return what the page holds of the trials' answers; None of a function, which has none."""
    if not data.kind.classifies:
        return None
    return answer_data([Asked(data=data, ranking=ranking, predictions=predictions)], pixels=pictures.pixels)


def _remove_stale(folder: Path, names: set[str]) -> None:
    """Remove figures that an earlier report had and this one has not: an old winner's would mislead."""
    for stem in STEMS:
        for kind in ("png", "svg"):
            for old in folder.glob(f"{stem}*.{kind}"):
                if old.name not in names:
                    old.unlink(missing_ok=True)
    if files.PER_CLASS not in names:
        (folder / files.PER_CLASS).unlink(missing_ok=True)


def live_page(
    data: StudyData,
    *,
    predictions: Callable[[int], Predictions | None],
    images: Callable[[TrialRecord], ImageData] | None = None,
    kept: LivePage | None = None,
    live: Live,
) -> LivePage:
    """Return a study's page as it stands now, for a server that shows it while trials run.

    It has no still figures, which would take seconds each time: the page's script draws them.  Images are drawn when
    there is another winner.

    Args:
        data: the study.
        predictions: the stored validation predictions of a trial by its number.
        images: gives what a trial was trained on; see `write_report`.
        kept: the page as it was made before.
        live: what the page needs to know of its server.
    """
    predictions = kept_predictions(predictions)
    ranking = rank(data, predictions=predictions)
    winner = None if ranking.best_trial is None else ranking.best_trial.number
    same = kept is not None and kept.winner == winner
    pictures = pictures_of(data, ranking, predictions=predictions, images=None if same else images, live=True)
    pictures.draw()
    by_stem = dict(pictures.by_stem)
    if kept is not None and same:
        by_stem |= kept.images
        pictures.pixels = kept.pixels
    by = () if any(not t.state.ended for t in data.trials) else shown_metrics(data, predictions=predictions)
    shown = figure_data(data, ranking, winner=pictures.winner, by=by)
    answers = _answers(data, ranking, predictions, pictures)
    if shown is None:  # too large for a browser to draw
        by_stem = {stem: by_stem[stem] for stem in by_stem if stem in PIXELS}
        pictures.notes.append(f"Figures of so many points are in its report: {data.again.report()}")
    page = render_page(
        data,
        ranking,
        pictures=by_stem,
        classes=pictures.classes,
        notes=pictures.notes,
        drawn=Drawn.of([shown], answers, live=live),
    )
    images_kept = {stem: picture for stem, picture in by_stem.items() if stem in PIXELS}
    return LivePage(html=page, winner=winner, images=images_kept, pixels=pictures.pixels)
