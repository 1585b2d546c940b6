"""A writer of DICOM CT series for tests."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


def write_dicom_series(image: sitk.Image, folder: Path, *, shear_mm: float = 0.0) -> str:
    """Write an int16 CT as ``000.dcm``, ``001.dcm``, …; returns its SeriesInstanceUID.

    ``shear_mm`` shifts each slice against the one before along y, as a tilted gantry does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    series, study = generate_uid(), generate_uid()
    direction = np.array(image.GetDirection()).reshape(3, 3)
    voxels = sitk.GetArrayViewFromImage(image)
    for k in range(image.GetSize()[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data = FileDataset(str(folder), {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        data.SeriesInstanceUID, data.StudyInstanceUID = series, study
        data.Modality, data.PatientID, data.InstanceNumber = "CT", "phantom", k + 1
        position = np.array(image.TransformIndexToPhysicalPoint((0, 0, k))) + (0, k * shear_mm, 0)
        data.ImagePositionPatient = [f"{c:.10g}" for c in position]
        data.ImageOrientationPatient = [f"{c:.10g}" for c in [*direction[:, 0], *direction[:, 1]]]
        data.PixelSpacing = [f"{image.GetSpacing()[1]:.10g}", f"{image.GetSpacing()[0]:.10g}"]
        data.SliceThickness = f"{image.GetSpacing()[2]:.10g}"
        data.Rows, data.Columns = voxels.shape[1:]
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
        data.RescaleSlope, data.RescaleIntercept = "1", "-1024"
        data.PixelData = (voxels[k] + 1024).astype("<i2").tobytes()
        data.save_as(folder / f"{k:03}.dcm", enforce_file_format=True)
    return series
