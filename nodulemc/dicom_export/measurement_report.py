"""Results as a DICOM structured report: a measurement report (TID 1500) with one group for each nodule.

A nodule with a mask is a volumetric region (TID 1411) that refers to its segment. A nodule without one has a group with
its probability and its point (TID 1501).
Source: DICOM PS3.16 (https://dicom.nema.org/medical/dicom/current/output/chtml/part16/chapter_A.html)
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from highdicom import sr
from highdicom.seg import Segmentation
from pydicom.sr.codedict import codes

from nodulemc.dicom_export.findings import NAME, VERSION, Algorithm, Finding, Segment
from nodulemc.dicom_export.source import Source

_SERIES_NUMBER = 9002  # chosen: behind the SEG's
_SIZES = (
    ("volume_mm3", codes.SCT.Volume, codes.UCUM.CubicMillimeter),
    ("long_axis_mm", codes.SCT.LongAxis, codes.UCUM.Millimeter),
    ("short_axis_mm", codes.SCT.ShortAxis, codes.UCUM.Millimeter),
)


def make_report(
    source: Source, findings: Sequence[Finding], algorithm: Algorithm, seg: Segmentation | None
) -> sr.Comprehensive3DSR:
    """Return an SR of at least one finding: complete, preliminary and unverified.

    Each call makes a new instance in a series of its own, in the CT's study.

    Args:
        source: The CT's instances.
        findings: Its nodules; those with a mask have measurements.
        algorithm: The algorithm that found them.
        seg: The SEG with their segments. None if there is none.
    """
    device = sr.DeviceObserverIdentifyingAttributes(
        algorithm.uid, name=NAME, manufacturer_name=NAME, model_name=NAME, serial_number=algorithm.sha256
    )
    content = sr.MeasurementReport(
        sr.ObservationContext(sr.ObserverContext(codes.DCM.Device, device)),
        codes.LN.CTUnspecifiedBodyRegion,
        [_group(finding, source, algorithm, seg) for finding in findings],
    )
    return sr.Comprehensive3DSR(
        [*source.images, *([seg] if seg else [])],
        content[0],
        series_number=_SERIES_NUMBER,
        **algorithm.new_instance(),
        is_complete=True,
        series_description=f"{NAME} nodule malignancy",
    )


def _group(
    finding: Finding, source: Source, algorithm: Algorithm, seg: Segmentation | None
) -> sr.MeasurementsAndQualitativeEvaluations | sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    """Return a nodule's measurement group, with its warnings as comments."""
    common: dict[str, Any] = {
        "tracking_identifier": sr.TrackingIdentifier(finding.tracking_uid, finding.name),
        "finding_category": codes.SCT.MorphologicallyAbnormalStructure,
        "finding_type": codes.SCT.Nodule,
        "finding_sites": [sr.FindingSite(codes.SCT.Lung)],
        "algorithm_id": sr.AlgorithmIdentification(
            NAME, VERSION, parameters=[f"{name}: {value}" for name, value in algorithm.parameters.items()]
        ),
    }
    group: sr.MeasurementsAndQualitativeEvaluations | sr.VolumetricROIMeasurementsAndQualitativeEvaluations
    if finding.segment and seg:
        group = sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=_referenced(finding.segment, source, seg),
            measurements=[*_measurements(finding)],
            **common,
        )
    else:
        group = _pointed_at(finding, source, common)
    comments = [
        sr.TextContentItem(codes.DCM.Comment, warning, sr.RelationshipTypeValues.CONTAINS)
        for warning in finding.prediction.warnings
    ]
    group[0].ContentSequence.extend(comments)
    return group


def _referenced(segment: Segment, source: Source, seg: Segmentation) -> sr.ReferencedSegment:
    slices, *_ = segment.mask.slices
    touched = slices.start + np.flatnonzero(segment.mask.voxels.any(axis=(1, 2)))
    images = [sr.SourceImageForSegmentation(*source.reference(k)) for k in touched.tolist()]
    return sr.ReferencedSegment(seg.SOPClassUID, seg.SOPInstanceUID, segment.number, source_images=images)


def _measurements(finding: Finding) -> Iterator[sr.Measurement]:
    yield _probability(finding)
    for name, concept, unit in _SIZES:
        yield sr.Measurement(concept, getattr(finding.prediction.measurements, name), unit)


def _probability(finding: Finding, **where: Any) -> sr.Measurement:
    """Return the probability of malignancy, in per cent, as in reports of mammography CAD (TID 4006)."""
    return sr.Measurement(
        codes.DCM.ProbabilityOfCancer, 100 * finding.prediction.probability, codes.UCUM.Percent, **where
    )


def _pointed_at(finding: Finding, source: Source, common: dict[str, Any]) -> sr.MeasurementsAndQualitativeEvaluations:
    """Return the group of a nodule without a mask: its probability, its point, and the slice nearest to the point."""
    point = finding.prediction.nodule.point
    place = sr.CoordinatesForMeasurement3D(
        sr.GraphicTypeValues3D.POINT, np.array([point]), source.images[0].FrameOfReferenceUID
    )
    return sr.MeasurementsAndQualitativeEvaluations(
        measurements=[_probability(finding, referenced_coordinates=[place])],
        source_images=[sr.SourceImageForMeasurementGroup(*source.reference(source.nearest(point)))],
        **common,
    )
