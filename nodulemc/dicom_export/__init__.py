"""Results as DICOM objects: masks as a segmentation (SEG), numbers as a structured report (SR)."""
