"""Measuring nodules: masks on the scan's own grid, sizes, growth and clinical risk models."""
