"""Nodules' labels as tables write them."""

# 1 is malignant, 0 benign; pandas writes whole numbers as decimals where a column has gaps.
LABELS = {"0": 0, "0.0": 0, "1": 1, "1.0": 1}
