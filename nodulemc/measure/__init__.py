"""What a nodule measures: its mask on the scan's own grid, sizes, and clinical risk models."""
