from .exports.exported_runs import exported_runs as exported_runs
from .exports.mlflow_export import export_to_mlflow as export_to_mlflow
from .exports.paper_tables import latex_table as latex_table, markdown_table as markdown_table
from .exports.wandb_export import export_to_wandb as export_to_wandb
from .figures.confusion import (
    confusion_figure as confusion_figure,
    confusions_figure as confusions_figure,
)
from .figures.cost import cost_figure as cost_figure
from .figures.curves import curves_figure as curves_figure
from .figures.fast_png import (
    quick_confusion_png as quick_confusion_png,
    quick_samples_png as quick_samples_png,
)
from .figures.heatmap import heatmap_figures as heatmap_figures
from .figures.marginals import marginals_figure as marginals_figure
from .figures.parallel import parallel_figure as parallel_figure
from .figures.front_figure import pareto_figure as pareto_figure
from .figures.samples import mistakes_figure as mistakes_figure, sample_figure as sample_figure
from .output.comparison_page import print_comparison as print_comparison, write_comparison as write_comparison
from .output.document import export_json as export_json, report_json as report_json
from .output.frames import (
    effects_frame as effects_frame,
    ensembles_frame as ensembles_frame,
    epochs_frame as epochs_frame,
    findings_frame as findings_frame,
    points_frame as points_frame,
    trials_frame as trials_frame,
)
from .output.model_card import model_card as model_card
from .output.notebook import ranking_html as ranking_html
from .output.page import Live as Live, live_overview as live_overview, live_strip as live_strip
from .output.pareto_table import pareto_frame as pareto_frame
from .output.plain_tables import ranking_csv as ranking_csv, trials_csv as trials_csv
from .output.report import (
    LivePage as LivePage,
    ReportFiles as ReportFiles,
    live_page as live_page,
    preload as preload,
    write_report as write_report,
)
from .output.tensorboard import TensorBoardRun as TensorBoardRun
from .output.terminal import print_ranking as print_ranking
from .output.trials_page import ShownTrial as ShownTrial, trials_page as trials_page
from .ranking.by_metric import ByMetric as ByMetric, every_metric as every_metric, ranked_by as ranked_by
from .ranking.comparison import Comparison as Comparison
from .ranking.fronts import pareto_front as pareto_front
from .ranking.pareto import LATENCY as LATENCY, ParetoFront as ParetoFront, quantities_of as quantities_of
from .ranking.points import RankedPoint as RankedPoint
from .ranking.out_of_fold import predictions_of as predictions_of
from .ranking.ranking import Ranking as Ranking, rank as rank
from .ranking.selection import filter_data as filter_data, folder_of as folder_of
from .ranking.winner_differences import Side as Side
from .stats.evaluation import (
    chosen_by as chosen_by,
    classes as classes,
    evaluate as evaluate,
    in_words as in_words,
)
from .stats.predictions import (
    Predictions as Predictions,
    confident_mistakes as confident_mistakes,
    confusion_matrix as confusion_matrix,
    describe_pairs as describe_pairs,
    most_confused as most_confused,
    per_class_csv as per_class_csv,
    require_agreement as require_agreement,
)
from .words.text import each_once as each_once
