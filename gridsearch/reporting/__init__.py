"""From a study's data to what people and scripts read: ranking, JSON, tables, figures, page, TensorBoard.

Importing this package imports none of pandas, matplotlib, seaborn, jinja2, rich, tensorboard: a name is found
when it is first asked for (PEP 562), and the functions import what they draw with.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gridsearch.reporting.figures.confusion import (
        confusion_figure,
        confusions_figure,
        confusions_files,
    )
    from gridsearch.reporting.figures.cost import cost_figure
    from gridsearch.reporting.figures.curves import curves_figure
    from gridsearch.reporting.figures.fast_png import quick_confusion_png, quick_samples_png
    from gridsearch.reporting.figures.heatmap import heatmap_figures, heatmap_png
    from gridsearch.reporting.figures.marginals import marginals_figure
    from gridsearch.reporting.figures.parallel import parallel_figure
    from gridsearch.reporting.figures.samples import mistakes_figure, sample_figure
    from gridsearch.reporting.output.comparison_page import print_comparison, write_comparison
    from gridsearch.reporting.output.document import export_json, report_json
    from gridsearch.reporting.output.frames import (
        effects_frame,
        ensembles_frame,
        epochs_frame,
        points_frame,
        ranking_csv,
        to_csv,
        trials_csv,
        trials_frame,
    )
    from gridsearch.reporting.output.model_card import model_card
    from gridsearch.reporting.output.notebook import ranking_html
    from gridsearch.reporting.output.report import ReportFiles, preload, write_report
    from gridsearch.reporting.output.tensorboard import TensorBoardRun
    from gridsearch.reporting.output.terminal import print_ranking
    from gridsearch.reporting.ranking.comparison import Comparison, Side
    from gridsearch.reporting.ranking.points import RankedPoint
    from gridsearch.reporting.ranking.ranking import Ranking, rank
    from gridsearch.reporting.ranking.selection import filter_data
    from gridsearch.reporting.stats.evaluation import classes, evaluate, in_words
    from gridsearch.reporting.stats.predictions import (
        Predictions,
        confident_mistakes,
        confusion_matrix,
        describe_pairs,
        most_confused,
        per_class_csv,
        require_agreement,
    )

_HOMES = {
    "Comparison": "ranking.comparison",
    "Predictions": "stats.predictions",
    "RankedPoint": "ranking.points",
    "Ranking": "ranking.ranking",
    "ReportFiles": "output.report",
    "Side": "ranking.comparison",
    "TensorBoardRun": "output.tensorboard",
    "classes": "stats.evaluation",
    "confident_mistakes": "stats.predictions",
    "confusion_figure": "figures.confusion",
    "confusion_matrix": "stats.predictions",
    "require_agreement": "stats.predictions",
    "confusions_figure": "figures.confusion",
    "confusions_files": "figures.confusion",
    "cost_figure": "figures.cost",
    "curves_figure": "figures.curves",
    "describe_pairs": "stats.predictions",
    "effects_frame": "output.frames",
    "ensembles_frame": "output.frames",
    "epochs_frame": "output.frames",
    "evaluate": "stats.evaluation",
    "export_json": "output.document",
    "filter_data": "ranking.selection",
    "heatmap_figures": "figures.heatmap",
    "heatmap_png": "figures.heatmap",
    "in_words": "stats.evaluation",
    "marginals_figure": "figures.marginals",
    "mistakes_figure": "figures.samples",
    "model_card": "output.model_card",
    "most_confused": "stats.predictions",
    "parallel_figure": "figures.parallel",
    "per_class_csv": "stats.predictions",
    "preload": "output.report",
    "points_frame": "output.frames",
    "print_comparison": "output.comparison_page",
    "print_ranking": "output.terminal",
    "quick_confusion_png": "figures.fast_png",
    "quick_samples_png": "figures.fast_png",
    "rank": "ranking.ranking",
    "ranking_csv": "output.frames",
    "ranking_html": "output.notebook",
    "report_json": "output.document",
    "sample_figure": "figures.samples",
    "to_csv": "output.frames",
    "trials_csv": "output.frames",
    "trials_frame": "output.frames",
    "write_comparison": "output.comparison_page",
    "write_report": "output.report",
}

__all__ = [
    "Comparison",
    "Predictions",
    "RankedPoint",
    "Ranking",
    "ReportFiles",
    "Side",
    "TensorBoardRun",
    "classes",
    "confident_mistakes",
    "confusion_figure",
    "confusion_matrix",
    "confusions_figure",
    "confusions_files",
    "cost_figure",
    "curves_figure",
    "describe_pairs",
    "effects_frame",
    "ensembles_frame",
    "epochs_frame",
    "evaluate",
    "export_json",
    "filter_data",
    "heatmap_figures",
    "heatmap_png",
    "in_words",
    "marginals_figure",
    "mistakes_figure",
    "model_card",
    "most_confused",
    "parallel_figure",
    "per_class_csv",
    "points_frame",
    "preload",
    "print_comparison",
    "print_ranking",
    "quick_confusion_png",
    "quick_samples_png",
    "rank",
    "ranking_csv",
    "ranking_html",
    "report_json",
    "require_agreement",
    "sample_figure",
    "to_csv",
    "trials_csv",
    "trials_frame",
    "write_comparison",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
