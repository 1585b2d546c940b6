"""A DICOM slice's values in HU, as pydicom's ``apply_rescale`` gives them, with padding as air.

pydicom reads uncompressed pixels. The GDCM in SimpleITK decodes the rest. It gets only the compressed frame and the
pixels' format, so that nothing else in a file can make it change a value.
"""

import tempfile
from typing import Any, BinaryIO

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, get_frame, parse_basic_offsets, parse_fragments
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_rescale
from pydicom.uid import SecondaryCaptureImageStorage, generate_uid

from nodulemc.arrays import Array
from nodulemc.ct.dicom_file import DicomFile, damaged
from nodulemc.ct.dicom_stack import Slice
from nodulemc.errors import ImageError, out_of_memory

AIR_HU = -1000
_LARGEST_HU = 3071  # of 12 bits from -1024 on
_BITS = {"PixelData": (8, 16, 32), "FloatPixelData": (32,), "DoubleFloatPixelData": (64,)}
_DELIMITER = b"\xfe\xff\xdd\xe0"


def check_format(file: DicomFile) -> None:
    """Refuse pixels that are not one grey value each, or have no stated format.

    Raises:
        ImageError: They are so.
    """
    numbers, pixels = file.numbers, file.pixel_data
    samples, colours = numbers.get("SamplesPerPixel", 1), file.texts.get("PhotometricInterpretation", "MONOCHROME2")
    if samples != 1 or not colours.startswith("MONOCHROME"):
        raise ImageError(
            f"{samples} samples per pixel, {colours[:32]}", file.path, "a CT has one real number per voxel"
        )
    bits = numbers.get("BitsAllocated", 0)
    stored = numbers.get("BitsStored", bits)
    if bits not in _BITS[pixels.keyword] or not 0 < stored <= bits or file.frame_bytes == 0:
        raise damaged(file.path)
    if numbers.get("HighBit", stored - 1) != stored - 1:
        raise ImageError(
            f"the highest of {stored} bits is bit {numbers['HighBit']}", file.path, "export the series again"
        )
    promised = file.frame_bytes * file.number_of_frames
    if pixels.length is not None and pixels.length < promised:
        raise ImageError(f"no pixel data of {promised} bytes", file.path, "the slice is damaged; export it again")


def hounsfield(one: Slice) -> tuple[Array, float | None]:
    """Return a slice's values in HU, with padding as -1000.

    Returns:
        The values (y, x), as int16 if that holds everything the header allows, else as int32, int64 or float64; and
        the least value that the header calls padding but that does not look like it and is kept, or None.

    Raises:
        ImageError: the pixel data or the rescaling are damaged.
        OSError: the file cannot be read.
    """
    file = one.file
    try:
        cells = _native(file, one.index) if file.pixel_data.length is not None else _decoded(file, one.index)
        stored = _without_unused_bits(cells, file)
        hu = _rescaled(stored, one)
    except (ImageError, OSError):
        raise
    except Exception as error:  # neither pydicom's decoders nor GDCM have an exception of their own
        if out_of_memory(error):
            raise
        raise _undecodable(file) from error
    padding = _padding(cells, stored, file)
    if padding is None or not padding.any():
        return hu, None
    if not _is_outside(padding, values := hu[padding]):
        return hu, values.min().item()
    hu[padding] = AIR_HU
    return hu, None


def _undecodable(file: DicomFile) -> ImageError:
    if file.pixel_data.length is not None:
        return damaged(file.path)
    syntax = file.syntax.name[:60]
    return ImageError(f"cannot decode {syntax}", file.path, "copy the file again, or export the series uncompressed")


def _native(file: DicomFile, index: int) -> Array:
    """Return the cells of an uncompressed frame."""
    pixels = file.pixel_data
    with file.opened() as stream:
        stream.seek(pixels.offset + index * file.frame_bytes)
        content = stream.read(file.frame_bytes)
    if len(content) < file.frame_bytes:
        raise damaged(file.path)
    options = _format(file) | {
        "correct_unused_bits": False,
        "view_only": True,
        "number_of_frames": 1,
        "pixel_keyword": pixels.keyword,
        "pixel_vr": pixels.vr or "OW",
    }
    cells, _ = get_decoder(file.syntax).as_array(content, raw=True, **options)
    return cells


def _decoded(file: DicomFile, index: int) -> Array:
    """Return the cells of a compressed frame."""
    offset = file.pixel_data.offset
    with file.opened() as stream:
        stream.seek(offset)
        _check_fragments(stream, file)
        stream.seek(offset)
        frame = get_frame(stream, index, number_of_frames=file.number_of_frames)
    return decode(file, frame)


def decode(file: DicomFile, frame: bytes) -> Array:
    """Decode the cells (y, x) of a frame from its compressed bytes; GDCM raises RuntimeErrors."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = file.syntax
    data.SOPClassUID, data.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    for name, value in _format(file).items():
        setattr(data, "".join(word.capitalize() for word in name.split("_")), value)
    data.HighBit = data.BitsStored - 1
    data.PixelData = encapsulate([frame])
    with tempfile.NamedTemporaryFile(suffix=".dcm") as copy:
        data.save_as(copy, enforce_file_format=True)
        copy.flush()
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(copy.name)
        cells = sitk.GetArrayFromImage(reader.Execute())
    return cells.reshape(file.numbers["Rows"], file.numbers["Columns"])


def _check_fragments(stream: BinaryIO, file: DicomFile) -> None:
    """Refuse compressed pixel data that end before their delimiter: a decoder would invent the rest."""
    parse_basic_offsets(stream)
    _, offsets = parse_fragments(stream)
    if offsets:
        stream.seek(offsets[-1] + 4)
        stream.seek(int.from_bytes(stream.read(4), "little"), 1)
    if stream.read(4) != _DELIMITER:
        raise damaged(file.path)


def _format(file: DicomFile) -> dict[str, Any]:
    """Return the pixels' format by pydicom's names; settings for display change no value."""
    numbers = file.numbers
    bits = numbers["BitsAllocated"]
    return {
        "rows": numbers["Rows"],
        "columns": numbers["Columns"],
        "samples_per_pixel": 1,
        "photometric_interpretation": "MONOCHROME2",
        "bits_allocated": bits,
        "bits_stored": _stored_bits(file),
        "pixel_representation": numbers.get("PixelRepresentation", 0) & 1,
    }


def _stored_bits(file: DicomFile) -> int:
    return file.numbers.get("BitsStored", file.numbers["BitsAllocated"])


def _without_unused_bits(cells: Array, file: DicomFile) -> Array:
    """Return the stored values of cells, the unused upper bits of which may hold anything."""
    unused = file.numbers["BitsAllocated"] - _stored_bits(file)
    return cells << unused >> unused if unused and cells.dtype.kind != "f" else cells


def _rescaled(stored: Array, one: Slice) -> Array:
    file = one.file
    if file.lookup is not None:
        return apply_rescale(stored, file.lookup).astype(np.int32)
    slope, intercept = 1.0, 0.0
    if {"RescaleSlope", "RescaleIntercept"} & set(one.texts):
        (slope,), (intercept,) = one.numbers("RescaleSlope", 1), one.numbers("RescaleIntercept", 1)
    if not (np.isfinite([slope, intercept]).all() and slope != 0):
        shown = " and intercept ".join(repr(one.texts.get(f"Rescale{n}", "")[:32]) for n in ("Slope", "Intercept"))
        raise ImageError(f"the rescaling has slope {shown}", one.where, "export the series again")
    if stored.dtype.kind == "f" or slope % 1 or intercept % 1:
        return stored.astype(np.float64) * slope + intercept
    largest = (1 << _stored_bits(file)) * abs(slope) + abs(intercept)
    type_ = next((t for t in (np.int16, np.int32, np.int64) if largest <= np.iinfo(t).max), np.float64)
    hu: Array = stored.astype(type_)
    if slope != 1:
        hu *= type_(slope)
    hu += type_(intercept)
    return hu


def _padding(cells: Array, stored: Array, file: DicomFile) -> Array | None:
    """Return a mask of the pixels that the file calls padding; None without a value for them, or a possible one.

    The value counts modulo the cells' bits: -2000 of signed pixels and 63536 of unsigned ones are written alike.
    """
    first = file.numbers.get("PixelPaddingValue")
    if first is None or first >> 8 * cells.dtype.itemsize:
        return None
    stated = np.array([first, file.numbers.get("PixelPaddingRangeLimit", first)], np.uint16)
    bounds = (stated.view(np.int16) if cells.dtype.kind == "i" else stated).astype(cells.dtype)
    # A value beyond the stored bits is in the unused ones.
    values = stored if (_without_unused_bits(bounds, file) == bounds).all() else cells
    low, high = bounds.min(), bounds.max()
    padding: Array = values == low if low == high else (values >= low) & (values <= high)
    return padding


def _is_outside(padding: Array, values: Array) -> bool:
    """Whether so-called padding is real: it lies in a corner, beside a round field of view, or is no tissue's value.

    A program that has rewritten the values may have left the old padding value, which may now be a tissue's.
    """
    corners = padding[[0, 0, -1, -1], [0, -1, 0, -1]]
    return bool(corners.any() or values.min() >= _LARGEST_HU or values.max() <= AIR_HU)
