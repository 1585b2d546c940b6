"""What is found in a DICOM CT as DICOM objects: masks as a segmentation (SEG), numbers as a structured report (SR)."""
