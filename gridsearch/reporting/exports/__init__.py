"""A study as other programs have it: runs of MLflow and Weights & Biases, tables for a paper."""
