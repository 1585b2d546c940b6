"""Nodules' masks as a DICOM segmentation on the CT's own slices, with one binary segment for each nodule.

Codes as in the published SEGs of LIDC-IDRI (Fedorov et al., Med Phys 2020;47:5953–5965).
Source: DICOM PS3.3 A.51 (https://dicom.nema.org/medical/dicom/current/output/chtml/part03/sect_A.51.html)
"""

from collections.abc import Mapping, Sequence

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from nodulemc.arrays import Array
from nodulemc.dicom_export.findings import NAME, VERSION, Algorithm, Finding
from nodulemc.dicom_export.source import Source
from nodulemc.measure.mask import NoduleMask

_SERIES_NUMBER = 9001  # chosen: behind the scanner's own
_LONGEST_LABEL = 64  # the length of a DICOM long string, in which a backslash separates values


def make_segmentation(source: Source, findings: Sequence[Finding], algorithm: Algorithm) -> Segmentation:
    """Return a SEG of the findings with a mask; there must be at least one.

    Each call makes a new instance in a series of its own, in the CT's study.

    Args:
        source: The CT's instances.
        findings: Its nodules.
        algorithm: The algorithm that found them.
    """
    segments = [(finding, finding.segment) for finding in findings if finding.segment]
    masks = [segment.mask for _, segment in segments]
    images, planes = _planes(source, masks)
    shape = len(planes), images[0].Rows, images[0].Columns
    seg = Segmentation(
        images,
        _pixels(masks, planes, shape),
        "BINARY",
        [_description(finding, segment.number, algorithm) for finding, segment in segments],
        series_number=_SERIES_NUMBER,
        **algorithm.new_instance(),
        content_label="NODULES",
        content_description="Lung nodules",
        series_description=f"{NAME} lung nodules",
    )
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.SpacingBetweenSlices = f"{source.spacing_mm:.10g}"
    return seg


def _planes(source: Source, masks: Sequence[NoduleMask]) -> tuple[list[Dataset], dict[int, int]]:
    """Return the images with the SEG's planes, and the plane of each of the CT's slices.

    Planes are the slices that masks touch. For a multi-frame image they are all frames, as highdicom takes no part of
    it.
    """
    if source.is_multi_frame:
        return source.images, {k: one.index for k, one in enumerate(source.slices)}
    touched = sorted({k for mask in masks for k in range(mask.slices[0].start, mask.slices[0].stop)})
    return [source.images[k] for k in touched], {k: plane for plane, k in enumerate(touched)}


def _pixels(masks: Sequence[NoduleMask], planes: Mapping[int, int], shape: tuple[int, int, int]) -> Array:
    """Return a label map (planes, rows, columns). If masks overlap, return the planes of each segment (…, segment)."""
    labels = np.zeros(shape, np.uint8 if len(masks) < 256 else np.uint16)
    for number, mask in enumerate(masks, start=1):
        place = _place(mask, planes)
        if labels[place][mask.voxels].any():
            return _stacked(masks, planes, shape)
        labels[place] = np.where(mask.voxels, number, labels[place])
    return labels


def _stacked(masks: Sequence[NoduleMask], planes: Mapping[int, int], shape: tuple[int, int, int]) -> Array:
    # Each segment's planes lie together, so that planes that are never written take no memory.
    stack = np.zeros((len(masks), *shape), np.uint8)
    for part, mask in zip(stack, masks, strict=True):
        part[_place(mask, planes)] = mask.voxels
    return np.moveaxis(stack, 0, -1)


def _place(mask: NoduleMask, planes: Mapping[int, int]) -> tuple[list[int], slice, slice]:
    slices, rows, columns = mask.slices
    return [planes[k] for k in range(slices.start, slices.stop)], rows, columns


def _description(finding: Finding, number: int, algorithm: Algorithm) -> SegmentDescription:
    return SegmentDescription(
        number,
        finding.name.replace("\\", "/")[:_LONGEST_LABEL],
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Nodule,
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            NAME, codes.DCM.ArtificialIntelligence, VERSION, source=NAME, parameters=algorithm.parameters
        ),
        tracking_uid=finding.tracking_uid,
        tracking_id=finding.name,
        anatomic_regions=[codes.SCT.Lung],
    )
