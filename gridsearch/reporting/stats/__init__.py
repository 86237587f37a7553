"""From trials to what can be claimed of their points: means, intervals, ties, effects, comparisons."""
