"""Writers of segmentations: 3D Slicer's .seg.nrrd, DICOM SEG and RTSTRUCT."""

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, ImplicitVRLittleEndian, RTStructureSetStorage, generate_uid

FRAME_OF_REFERENCE = "1.2.3"
# What highdicom copies from the slices.
WANTED = (
    "AccessionNumber", "Manufacturer", "PatientBirthDate", "PatientName", "PatientSex", "ReferringPhysicianName",
    "StudyDate", "StudyID", "StudyTime",
)  # fmt: skip


def write_segments(path: Path, layers: np.ndarray, keys: str, grid: sitk.Image) -> Path:
    """A .seg.nrrd as 3D Slicer writes it: layers (x, y, z) first, named in the header."""
    count = len(layers)
    steps = np.array(grid.GetDirection()).reshape(3, 3) * grid.GetSpacing()
    vectors = " ".join("(" + ",".join(map(repr, step)) + ")" for step in steps.T.tolist())
    several = count > 1
    sizes = " ".join(map(str, ([count] if several else []) + [*grid.GetSize()]))
    head = (
        f"NRRD0004\n# Complete NRRD file format specification at:\ntype: unsigned char\ndimension: {3 + several}\n"
        f"space: left-posterior-superior\nsizes: {sizes}\nspace directions: {'none ' * several}{vectors}\n"
        f"kinds: {'list ' * several}domain domain domain\nencoding: gzip\n"
        f"space origin: ({','.join(map(repr, grid.GetOrigin()))})\n{keys.strip()}\n\n"
    )
    content = np.stack(layers, axis=-1).tobytes()
    path.write_bytes(head.encode() + gzip.compress(content))
    return path


def describe(*labels: str) -> list[SegmentDescription]:
    return [
        SegmentDescription(
            number,
            label,
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Nodule,
            algorithm_type="MANUAL",
        )
        for number, label in enumerate(labels, start=1)
    ]


def write_seg(folder: Path, pixels: np.ndarray, kind: str = "BINARY", labels=("left", "right"), **options) -> Path:
    """Write a SEG of arrays z, y, x (, segment) on the slices of a folder."""
    slices = sorted(map(pydicom.dcmread, folder.glob("*.dcm")), key=lambda one: one.ImagePositionPatient[2])
    for one in slices:
        one.SOPClassUID = CTImageStorage  # a real series has it empty
        for name in WANTED:
            setattr(one, name, one.get(name, ""))
    seg = Segmentation(
        slices,
        pixels,
        kind,
        describe(*labels),
        generate_uid(),
        2,
        generate_uid(),
        1,
        "maker",
        "model",
        "1",
        "2",
        **options,
    )
    path = folder.parent / "seg.dcm"
    seg.save_as(path)
    return path


def change_syntax(path: Path, syntax) -> None:
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = syntax
    data.save_as(path)


def contour(points: np.ndarray, kind: str = "CLOSED_PLANAR") -> Dataset:
    """A contour of points (N, 3)."""
    data = Dataset()
    data.ContourGeometricType, data.NumberOfContourPoints = kind, len(points)
    data.ContourData = [f"{c:.6f}"[:16] for c in np.ravel(points)]
    return data


def write_rtstruct(
    path: Path, rois: Sequence[tuple[str, list[Dataset]]], frame: str | None = FRAME_OF_REFERENCE
) -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = RTStructureSetStorage, ImplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Modality, data.SpecificCharacterSet = "RTSTRUCT", "ISO_IR 192"
    data.StructureSetROISequence, data.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(rois, start=1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName = number, name
        if frame:
            roi.ReferencedFrameOfReferenceUID = frame
        drawn.ReferencedROINumber, drawn.ContourSequence = number, contours
        data.StructureSetROISequence.append(roi)
        data.ROIContourSequence.append(drawn)
    data.save_as(path, enforce_file_format=True)
    return path
