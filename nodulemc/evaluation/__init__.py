"""How good a set of predictions is: metrics with their uncertainty, comparison, calibration, and the report."""
