"""DICOM segmentations: binary, fractional and label maps; each segment is a nodule.

Frames lie where their own plane positions say, in any order, and need not be on the CT's grid. A fraction that a pixel
is occupied is its weight; a probability counts if it is at least half of the largest.
Source: DICOM PS3.3 C.8.20 (https://dicom.nema.org/medical/dicom/current/output/chtml/part03/sect_C.8.20.html)
"""

import logging
from collections.abc import Collection, Iterator
from itertools import repeat
from typing import BinaryIO

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from nodulemc.arrays import Array
from nodulemc.ct.dicom_file import DicomFile, damaged
from nodulemc.ct.dicom_pixels import decode
from nodulemc.ct.dicom_stack import Slice, axes, slices_of
from nodulemc.errors import PointsError
from nodulemc.limits import MAX_SEG_BYTES, MAX_SEG_FRAMES
from nodulemc.points.nodules import check_count, shortened
from nodulemc.points.regions import Region, check_litres

logger = logging.getLogger(__name__)
_BITS = {"BINARY": (1, 8), "FRACTIONAL": (8,), "LABELMAP": (8, 16)}
_KNOWN = "BINARY without compression, FRACTIONAL or LABELMAP"
_BACKGROUND = 0  # label maps may list it
_IDENTIFICATION = "SegmentIdentificationSequence"
_NATIVE = {ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian}


def read_seg(file: DicomFile, data: Dataset) -> tuple[list[Region], Collection[str]]:
    """Return a SEG's segments that are not empty, in its order, and its frame of reference, empty if not stated.

    Args:
        file: The file.
        data: Its data set up to the pixel data.

    Raises:
        PointsError: It is too large, or of a kind that cannot be read.
        ImageError: It is damaged, or its frames have no positions.
        Exception: It is damaged; pydicom has no exception class of its own.
    """
    _check(file, str(data.SegmentationType))
    names = {int(item.SegmentNumber): str(item.get("SegmentLabel") or "").strip() for item in data.SegmentSequence}
    names.pop(_BACKGROUND, None)
    check_count(names, file.path)
    sums: dict[int, Array] = {number: np.zeros(4) for number in names}
    for one, cells, stated in zip(slices_of(file), _frames(file), _numbers(data, file), strict=True):
        for number, weights in _weighted(cells, stated, data):
            sums[number] += _plane(one) @ _moments(weights)
    return list(_regions(names, sums, file)), {file.texts.get("FrameOfReferenceUID", "")}


def _check(file: DicomFile, kind: str) -> None:
    pixels = file.pixel_data
    if pixels.keyword != "PixelData" or not file.pixel_bytes:
        raise damaged(file.path)
    bits, is_compressed = file.numbers["BitsAllocated"], pixels.length is None
    if bits not in _BITS.get(kind, ()) or (bits == 1 and is_compressed):
        compressed = ", compressed" if is_compressed else ""
        raise PointsError(
            f"a SEG of type {shortened(kind)} with {bits} bits a pixel{compressed}", file.path, f"export it as {_KNOWN}"
        )
    if pixels.length is not None and (file.syntax not in _NATIVE or pixels.length < file.pixel_bytes):
        raise damaged(file.path)
    if file.number_of_frames > MAX_SEG_FRAMES or file.pixel_bytes > MAX_SEG_BYTES:
        raise PointsError(
            f"{file.number_of_frames} frames with {file.pixel_bytes} bytes of pixels",
            file.path,
            f"leave out empty frames; at most {MAX_SEG_FRAMES} and {MAX_SEG_BYTES >> 30} GiB are taken",
        )


def _numbers(data: Dataset, file: DicomFile) -> Iterator[int]:
    """Return each frame's segment, or the background if it states none, as in a label map, whose pixels state it."""
    shared = next(iter(data.get("SharedFunctionalGroupsSequence") or ()), Dataset())
    for item in data.get("PerFrameFunctionalGroupsSequence") or repeat(Dataset(), file.number_of_frames):
        stated = item.get(_IDENTIFICATION) or shared.get(_IDENTIFICATION)
        yield int(stated[0].ReferencedSegmentNumber) if stated else _BACKGROUND


def _frames(file: DicomFile) -> Iterator[Array]:
    """Yield the stored values of each frame (y, x)."""
    shape = file.numbers["Rows"], file.numbers["Columns"]
    pixels = file.pixel_data
    with file.opened() as stream:
        if pixels.length is None:
            stream.seek(pixels.offset)
            yield from (
                decode(file, frame) for frame in generate_frames(stream, number_of_frames=file.number_of_frames)
            )
        else:
            yield from (_native(file, stream, k).reshape(shape) for k in range(file.number_of_frames))


def _native(file: DicomFile, stream: BinaryIO, index: int) -> Array:
    """Return the values of an uncompressed frame; single bits may begin anywhere in a byte."""
    count, bits = file.numbers["Rows"] * file.numbers["Columns"], file.numbers["BitsAllocated"]
    first, end = index * count * bits, (index + 1) * count * bits
    stream.seek(file.pixel_data.offset + first // 8)
    content = stream.read(-(-end // 8) - first // 8)
    if bits > 1:
        return np.frombuffer(content, f"<u{bits // 8}")
    return np.unpackbits(np.frombuffer(content, np.uint8), bitorder="little")[first % 8 :][:count]


def _weighted(cells: Array, number: int, data: Dataset) -> Iterator[tuple[int, Array]]:
    """Return the segments of a frame's pixels (y, x), and the share of each pixel that they occupy."""
    if data.SegmentationType == "LABELMAP":
        yield from ((int(label), cells == label) for label in np.unique(cells[cells > 0]))
    elif data.SegmentationType == "BINARY":
        yield number, cells > 0
    elif data.SegmentationFractionalType == "OCCUPANCY":
        yield number, cells
    else:
        yield number, (cells > 0) & (2.0 * cells >= int(data.MaximumFractionalValue))


def _plane(one: Slice) -> Array:
    """Return the matrix (4, 3) from sums of 1, column and row over pixels to sums of mm³ and of x, y, z times mm³."""
    row_mm, column_mm = one.numbers("PixelSpacing", 2)
    along_row, along_column, _ = axes(one)
    plane = np.zeros((4, 3))
    plane[0, 0] = 1
    plane[1:] = np.column_stack([one.numbers("ImagePositionPatient", 3), along_row * column_mm, along_column * row_mm])
    if not (np.isfinite(plane).all() and min(row_mm, column_mm) > 0):
        raise PointsError("the frame has no place in space", one.where, "export the SEG with its geometry")
    thickness = one.numbers("SliceThickness", 1)[0]
    in_mm3: Array = plane * row_mm * column_mm * (thickness if thickness > 0 else 1)
    return in_mm3


def _moments(weights: Array) -> Array:
    """Return the sums over pixels (y, x) of their weights, and of the weights times column and row: (3,)."""
    by_row, by_column = weights.sum(axis=1, dtype=float), weights.sum(axis=0, dtype=float)
    return np.array([by_row.sum(), by_column @ np.arange(len(by_column)), by_row @ np.arange(len(by_row))])


def _regions(names: dict[int, str], sums: dict[int, Array], file: DicomFile) -> Iterator[Region]:
    check_litres(sum(mm3 for mm3, *_ in sums.values()) / 1000, "the segments fill", file.path)
    for number, name in names.items():
        mm3, *first_moments = sums[number]
        if mm3:
            yield Region(name or str(number), np.array(first_moments) / mm3)
        else:
            logger.warning("%s: segment %s is empty and is left out", file.path, shortened(name or number))
