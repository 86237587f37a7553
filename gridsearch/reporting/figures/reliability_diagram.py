"""The winner's reliability diagram: how often it is right, by how sure it was; from bins to a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridsearch.reporting.figures.mpl_style import ACCENT, PALETTE, drawn, new_figure, ruled, settled
from gridsearch.reporting.figures.units import Unit
from gridsearch.reporting.stats.prediction_scores import BINS
from gridsearch.reporting.stats.reliability import ReliabilityBin, calibration_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure


@drawn
def reliability_figure(bins: Sequence[ReliabilityBin], *, title: str) -> Figure | None:
    """Return the accuracy of each bin against its mean probability, and below it how many images it holds.

    Args:
        bins: of `reliability`; None is returned for none.
        title: the figure's.
    """
    if not bins:
        return None
    figure = new_figure(6.0, 5.2, title, reliability_words(bins))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color="#8b909c", linestyle="--", linewidth=1.2)
    xs, ys = [b.confidence for b in bins], [b.accuracy for b in bins]
    above.vlines(xs, [b.ci_low for b in bins], [b.ci_high for b in bins], color=PALETTE[0], linewidth=1.2)
    above.plot(xs, ys, color=PALETTE[0], marker="o", markersize=5, linewidth=1.4)
    above.vlines(xs, xs, ys, color=ACCENT, linewidth=1.0, linestyle=":")
    above.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy (95 % interval)")
    below.bar(
        [(b.low + b.high) / 2 for b in bins], [b.images for b in bins], width=0.9 / BINS, color=PALETTE[0]
    )
    below.set(xlabel="confidence: probability of the predicted class", ylabel="images")
    for axes in (above, below):
        ruled(axes, along="both")
    Unit("val_accuracy").dress(above.xaxis)
    Unit("val_accuracy").dress(above.yaxis)
    return settled(figure)


def reliability_words(bins: Sequence[ReliabilityBin]) -> str:
    """Say how far probability and accuracy are apart, and on which side."""
    images = sum(b.images for b in bins)
    surer = sum(b.images * (b.confidence - b.accuracy) for b in bins) / images
    side = "overconfident" if surer > 0 else "underconfident"
    return (
        f"Confidence and accuracy differ by {100 * calibration_error(bins):.1f} percentage points on average "
        f"(expected calibration error, {BINS} bins); overall the network is {100 * abs(surer):.1f} points {side}."
    )
