"""From a study's data to what people and scripts read: ranking, JSON, tables, figures, page, TensorBoard.

Importing this package imports none of pandas, matplotlib, seaborn, jinja2, rich, tensorboard: a name is found
when it is first asked for (PEP 562), and the functions import what they draw with.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gridsearch.reporting.card import model_card
    from gridsearch.reporting.cell import ranking_html
    from gridsearch.reporting.comparison import Comparison, Side
    from gridsearch.reporting.comparison_page import print_comparison, write_comparison
    from gridsearch.reporting.document import export_json, report_json
    from gridsearch.reporting.evaluation import classes, evaluate, in_words
    from gridsearch.reporting.figures.confusion import (
        confusion_figure,
        confusion_png,
        confusions_figure,
        confusions_files,
    )
    from gridsearch.reporting.figures.cost import cost_figure
    from gridsearch.reporting.figures.curves import curves_figure
    from gridsearch.reporting.figures.heatmap import heatmap_figures, heatmap_png
    from gridsearch.reporting.figures.images import mistakes_figure, sample_figure
    from gridsearch.reporting.figures.marginals import marginals_figure
    from gridsearch.reporting.figures.parallel import parallel_figure
    from gridsearch.reporting.figures.quick import quick_confusion_png, quick_samples_png
    from gridsearch.reporting.frames import (
        effects_frame,
        ensembles_frame,
        epochs_frame,
        points_frame,
        ranking_csv,
        to_csv,
        trials_csv,
        trials_frame,
    )
    from gridsearch.reporting.predictions import (
        Predictions,
        confident_mistakes,
        confusion_matrix,
        describe_pairs,
        most_confused,
        per_class_csv,
        require_agreement,
    )
    from gridsearch.reporting.ranking import RankedPoint, Ranking, rank
    from gridsearch.reporting.report import ReportFiles, preload, write_report
    from gridsearch.reporting.selection import filter_data
    from gridsearch.reporting.tensorboard import TensorBoardRun
    from gridsearch.reporting.terminal import print_ranking

_HOMES = {
    "Comparison": "comparison",
    "Predictions": "predictions",
    "RankedPoint": "ranking",
    "Ranking": "ranking",
    "ReportFiles": "report",
    "Side": "comparison",
    "TensorBoardRun": "tensorboard",
    "classes": "evaluation",
    "confident_mistakes": "predictions",
    "confusion_figure": "figures.confusion",
    "confusion_matrix": "predictions",
    "require_agreement": "predictions",
    "confusion_png": "figures.confusion",
    "confusions_figure": "figures.confusion",
    "confusions_files": "figures.confusion",
    "cost_figure": "figures.cost",
    "curves_figure": "figures.curves",
    "describe_pairs": "predictions",
    "effects_frame": "frames",
    "ensembles_frame": "frames",
    "epochs_frame": "frames",
    "evaluate": "evaluation",
    "export_json": "document",
    "filter_data": "selection",
    "heatmap_figures": "figures.heatmap",
    "heatmap_png": "figures.heatmap",
    "in_words": "evaluation",
    "marginals_figure": "figures.marginals",
    "mistakes_figure": "figures.images",
    "model_card": "card",
    "most_confused": "predictions",
    "parallel_figure": "figures.parallel",
    "per_class_csv": "predictions",
    "preload": "report",
    "points_frame": "frames",
    "print_comparison": "comparison_page",
    "print_ranking": "terminal",
    "quick_confusion_png": "figures.quick",
    "quick_samples_png": "figures.quick",
    "rank": "ranking",
    "ranking_csv": "frames",
    "ranking_html": "cell",
    "report_json": "document",
    "sample_figure": "figures.images",
    "to_csv": "frames",
    "trials_csv": "frames",
    "trials_frame": "frames",
    "write_comparison": "comparison_page",
    "write_report": "report",
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
    "confusion_png",
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
