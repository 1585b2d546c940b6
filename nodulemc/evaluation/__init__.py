"""Judging a set of predictions: metrics with their uncertainty, comparison, calibration, and the report."""
