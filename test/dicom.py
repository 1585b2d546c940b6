"""Writers of DICOM CT series for tests."""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid


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


def change_dicom(*files: Path, **attributes: object) -> None:
    """Rewrite DICOM files with other attributes, also with values that DICOM does not know; None takes one away."""
    for file in files:
        data = pydicom.dcmread(file)
        with disable_value_validation():
            for name, value in attributes.items():
                if value is None:
                    del data[name]
                else:
                    setattr(data, name, value)
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
        data.save_as(file)


def write_frames(image: sitk.Image, file: Path, frames: Sequence[int], *, intercepts: Sequence[int] = ()) -> None:
    """Write slices of an int16 CT as one Enhanced CT, each with its position; each with an intercept, or all -1024."""
    with TemporaryDirectory() as folder:
        write_dicom_series(image, Path(folder))
        slices = [pydicom.dcmread(Path(folder) / f"{k:03}.dcm") for k in frames]
    data = deepcopy(slices[0])
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    data.NumberOfFrames = len(slices)
    data.PixelData = b"".join(one.PixelData for one in slices)
    shared = Dataset()
    shared.PlaneOrientationSequence = [_moved(data, "ImageOrientationPatient")]
    shared.PixelMeasuresSequence = [_moved(data, "PixelSpacing", "SliceThickness")]
    rescaling = _moved(data, "RescaleSlope", "RescaleIntercept")
    if not intercepts:
        shared.PixelValueTransformationSequence = [rescaling]
    data.SharedFunctionalGroupsSequence = [shared]
    del data.ImagePositionPatient
    data.PerFrameFunctionalGroupsSequence = []
    for k, one in enumerate(slices):
        groups = Dataset()
        groups.PlanePositionSequence = [_moved(one, "ImagePositionPatient")]
        if intercepts:
            rescaling.RescaleIntercept = str(intercepts[k])
            groups.PixelValueTransformationSequence = [deepcopy(rescaling)]
        data.PerFrameFunctionalGroupsSequence.append(groups)
    data.save_as(file)


def _moved(source: Dataset, *names: str) -> Dataset:
    """Attributes taken out of a data set into one of their own."""
    taken = Dataset()
    for name in names:
        setattr(taken, name, source[name].value)
        del source[name]
    return taken
