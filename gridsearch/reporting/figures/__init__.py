"""Figures of a study: pure functions from data to a matplotlib Figure; no global state is touched."""
