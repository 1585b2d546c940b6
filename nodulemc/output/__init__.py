"""Results as files: detailed JSON and CSV, masks, and markups for 3D Slicer."""
