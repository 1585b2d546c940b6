"""One fuzz target per parser of foreign bytes. A target may refuse with NoduleMCError; any other exception, a crash of
the process, or a probability that is none, is a fault.
"""

import hashlib
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nodulemc.cohort.clinical import read_clinical_table
from nodulemc.cohort.manifest import read_cohort_manifest
from nodulemc.cohort.scan import Scan
from nodulemc.ct.scan_ids import ScanIds
from nodulemc.ct.volume import Volume, read_volume
from nodulemc.data.lidc_nodules import nodules_of
from nodulemc.data.lidc_xml import read_reading
from nodulemc.dicom_export.files import prepare_dicom, write_dicom
from nodulemc.ensemble.manifest import EnsembleManifest, Member, read_manifest
from nodulemc.ensemble.trained_cases import read_trained_cases
from nodulemc.ensemble.weights import read_weights
from nodulemc.errors import NoduleMCError
from nodulemc.geometry import Grid
from nodulemc.grand_challenge.case import read_case
from nodulemc.measure.clinical import read_clinical
from nodulemc.measure.dates import scan_date
from nodulemc.measure.mask import NoduleMask
from nodulemc.measure.risk import assess
from nodulemc.measure.sizes import measure
from nodulemc.models.architecture import Architecture
from nodulemc.points.nodules import Nodule
from nodulemc.points.reading import from_grand_challenge, read_points
from nodulemc.prediction import NodulePrediction, prepare_inputs
from nodulemc.report.explain_check import read_checks
from nodulemc.util.json_files import read_json

_PLACE = Path(tempfile.mkdtemp(prefix="nodulemc-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))  # noqa: S108
_VOLUME = Volume(sitk.Image([8, 8, 8], sitk.sitkInt16), Path("1.2.3.mha"))
_NODULES = (Nodule("n1", (0.0, 0.0, 0.0)), Nodule(None, (1.0, 0.0, 0.0)))
_LIDC_CT = Grid((64, 64, 16), (0.7, 0.7, 2.0), (0.0, 0.0, -20.0))
_LARGEST_CT = 1 << 20  # voxels; a fuzzer that inflates gigabytes finds nothing


def _folder() -> Path:
    """This process's own: several are forked from one that has imported this."""
    return _PLACE / str(os.getpid())


def _written(name: str, data: bytes) -> Path:
    path = _folder() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _check_nodules(nodules) -> None:
    for nodule in nodules:
        assert nodule.name is None or isinstance(nodule.name, str)
        assert len(nodule.point) == 3
        assert all(math.isfinite(c) for c in nodule.point)
        f"{nodule.name}".encode()


def grand_challenge_points(data: bytes) -> None:
    """Grand-Challenge's nodule-locations.json."""
    path = _written("p.json", data)
    _check_nodules(from_grand_challenge(read_json(path), path))


def slicer_points(data: bytes) -> None:
    """3D Slicer's markups."""
    _check_nodules(read_points(_written("p.mrk.json", data), _VOLUME))


def json_points(data: bytes) -> None:
    """A .json of Grand-Challenge or of 3D Slicer."""
    _check_nodules(read_points(_written("p.json", data), _VOLUME))


def fcsv_points(data: bytes) -> None:
    """3D Slicer's older point lists."""
    _check_nodules(read_points(_written("p.fcsv", data), _VOLUME))


def csv_points(data: bytes) -> None:
    """A table of points, as LUNA25's, LUNA16's or a spreadsheet's."""
    _check_nodules(read_points(_written("p.csv", data), _VOLUME))


def _segmentation(name: str) -> Callable[[bytes], None]:
    return lambda data: _check_nodules(read_points(_written(name, data), _VOLUME))


def csv_manifest(data: bytes) -> None:
    """A cohort's manifest."""
    for scan in read_cohort_manifest(_written("m.csv", data)):
        f"{scan.fault}".encode()
        if not scan.fault and not isinstance(scan.points, Path):
            _check_nodules(scan.points)


def inputs_json(data: bytes) -> None:
    """Grand-Challenge's inputs.json."""
    _written("case/nodule-locations.json", b'{"points": []}')
    _written("case/images/chest-ct/ct.mha", b"ElementDataFile = LOCAL\n")
    _written("case/inputs.json", data)
    ct = read_case(_folder() / "case").ct.resolve()
    assert ct.is_relative_to((_folder() / "case").resolve())


def clinical_json(data: bytes) -> None:
    """Clinical information for the risk models."""
    for known in read_clinical(_written("clinical.json", data), _NODULES):
        _check_risk(known)


def clinical_table(data: bytes) -> None:
    """A cohort's clinical table."""
    scan = Scan("ct/1.2.mha", Path("/ct/1.2.mha"), _NODULES, patient="P1")
    found = read_clinical_table(_written("clinical.csv", data)).of(scan)
    for own in ({}, *found.nodules.values()):
        _check_risk(found.patient | own)


def _check_risk(known: dict[str, Any]) -> None:
    size = {"long_axis_mm": 9.0, "short_axis_mm": 7.0, "solid_long_axis_mm": 5.0, "solid_short_axis_mm": 4.0}
    for found in assess(known | size).values():
        assert found.get("missing") or found.get("category") or 0 < found["probability"] < 1


def manifest(data: bytes) -> None:
    """An ensemble's ensemble.json."""
    found = read_manifest(_written("ensemble/ensemble.json", data).parent)
    assert all(math.isfinite(member.weight) for member in found.members)


def trained_cases(data: bytes) -> None:
    """An ensemble's trained_cases.csv, its checksum right."""
    folder = _written("cases/trained_cases.csv", data).parent
    member = Member("seed.safetensors", "", Architecture("inception_i3d"))
    manifest = EnsembleManifest((member,), None, trained_cases=hashlib.sha256(data).hexdigest(), folder=folder)
    read_trained_cases(manifest).seen(ScanIds(frozenset({"1.2"}), "p"))


def explanation(data: bytes) -> None:
    """An ensemble's explanation.json."""
    folder = _written("explained/explanation.json", data).parent
    member = Member("seed.safetensors", "", Architecture("inception_i3d"))
    for check in (read_checks(EnsembleManifest((member,), None, folder=folder)) or {}).values():
        assert math.isfinite(check.correlation)


def weights(data: bytes) -> None:
    """A seed's safetensors file, its checksum right."""
    path = _written("ensemble/seed.safetensors", data)
    read_weights(path.parent, Member(path.name, hashlib.sha256(data).hexdigest(), Architecture("inception_i3d")))


def lidc_reading(data: bytes) -> None:
    """The readers' XML of LIDC-IDRI, and its nodules on a CT."""
    reading = read_reading(_written("158.xml", data))
    if reading is None:
        return
    f"{reading.series}".encode()
    for nodule in nodules_of(reading.markings, _LIDC_CT):
        assert nodule.label in (0, 1, None)
        assert math.isfinite(nodule.diameter_mm)
        assert math.isfinite(nodule.volume_mm3)
        assert nodule.mask.size == 0 or np.isfinite(nodule.centre).all()


def _ct(name: str) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        volume = read_volume(_written(name, data))
        image = volume.image
        if math.prod(image.GetSize()) > _LARGEST_CT:
            return
        centre = image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
        nodules = from_grand_challenge({"points": [{"point": list(centre)}]}, "")
        patches, _ = prepare_inputs(volume, nodules)
        assert 0 <= patches.min() <= patches.max() <= 1

    return read


def dicom(data: bytes) -> None:
    """A DICOM folder of two slices, the second one foreign."""
    _written("series/1.dcm", (Path(__file__).parent / "corpus" / "dicom" / "slice_1.dcm").read_bytes())
    _written("series/2.dcm", data)
    scan_date(read_volume(_folder() / "series"))


def dicom_frames(data: bytes) -> None:
    """A DICOM folder of one file with several frames."""
    _written("frames/1.dcm", data)
    scan_date(read_volume(_folder() / "frames"))


def dicom_export(data: bytes) -> None:
    """A DICOM folder of one file with two frames, and the SEG and SR of two nodules there, of which one has a mask."""
    _written("export/1.dcm", data)
    volume = read_volume(_folder() / "export")
    nodules = [Nodule(name, tuple(volume.image.GetOrigin())) for name in ("a", "b")]
    prepare_dicom(_folder() / "objects", volume, nodules, [])
    masks = [NoduleMask((0, 0, 0), np.full((1, 1, 1), p, np.float32), 0.0, ()) for p in (1, 0)]
    predictions = [
        NodulePrediction(nodule, 0.5, (0.5,), ("said",), (), measure(volume, mask))
        for nodule, mask in zip(nodules, masks, strict=True)
    ]
    (_folder() / "objects").mkdir(exist_ok=True)
    manifest = EnsembleManifest((), "nothing", folder=_folder(), sha256="0" * 64)
    files = write_dicom(_folder() / "objects", volume, predictions, masks, manifest, calibrated=False)
    assert len(files) == 2


TARGETS: dict[str, Callable[[bytes], None]] = {
    "grand_challenge_points": grand_challenge_points,
    "slicer_points": slicer_points,
    "json_points": json_points,
    "fcsv_points": fcsv_points,
    "csv_points": csv_points,
    "label_nifti": _segmentation("p.nii"),
    "label_nrrd": _segmentation("p.seg.nrrd"),
    "dicom_seg": _segmentation("seg.dcm"),
    "rtstruct": _segmentation("rtstruct.dcm"),
    "csv_manifest": csv_manifest,
    "inputs_json": inputs_json,
    "clinical_json": clinical_json,
    "clinical_table": clinical_table,
    "manifest": manifest,
    "trained_cases": trained_cases,
    "explanation": explanation,
    "weights": weights,
    "meta_image": _ct("ct.mha"),
    "nifti": _ct("ct.nii"),
    "nifti_gz": _ct("ct.nii.gz"),
    "nrrd": _ct("ct.nrrd"),
    "tiff": _ct("ct.tif"),
    "dicom": dicom,
    "dicom_frames": dicom_frames,
    "dicom_export": dicom_export,
    "lidc_reading": lidc_reading,
}


def run(name: str, data: bytes) -> bool:
    """Feed one input to a target; returns whether it was accepted."""
    try:
        TARGETS[name](data)
    except NoduleMCError as error:
        line = str(error)
        assert "\n" not in line, line
        line.encode()
        return False
    return True
