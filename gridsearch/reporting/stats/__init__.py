"""The statistics of reporting, of numbers alone: moments, intervals, p-values, variances, predictions, ensembles."""
