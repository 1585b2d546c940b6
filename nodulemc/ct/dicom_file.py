"""What one DICOM file says, read with pydicom, and where its pixel data are.

Only the attributes that reading a CT needs are kept, as the file writes them; the pixel data stay in the file.
"""

import io
import mmap
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Literal, cast

from pydicom.config import disable_value_validation
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.filereader import read_dataset, read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    LegacyConvertedEnhancedCTImageStorage,
)

from nodulemc import limits
from nodulemc.errors import ImageError, out_of_memory

_CT_CLASSES = {CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage}
# The functional groups in which an Enhanced CT states attributes of its frames.
_GROUPS = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness"),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept", "RescaleType"),
    "CTReconstructionSequence": ("ConvolutionKernel", "ReconstructionDiameter"),
    "CTXRayDetailsSequence": ("FilterType", "KVP"),
    "CTImageFrameTypeSequence": ("FrameType",),
}
_SHARED, _PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
_TEXTS = {
    Tag(name): name
    for name in (
        *chain(*_GROUPS.values()), "AcquisitionDate", "AcquisitionDateTime", "AcquisitionNumber", "ConcatenationUID",
        "ContrastBolusAgent", "FrameOfReferenceUID", "ImageType", "InstanceNumber", "Modality", "NumberOfFrames",
        "PatientBirthDate", "PatientID", "PatientName", "PatientSex", "PhotometricInterpretation", "SOPClassUID",
        "SOPInstanceUID", "SeriesDate", "SeriesDescription", "SeriesInstanceUID", "SeriesNumber", "StudyDate",
        "StudyInstanceUID",
    )
} | {Tag("MediaStorageSOPClassUID"): "SOPClassUID"}  # fmt: skip
_NUMBERS = {
    Tag(name): name
    for name in (
        "BitsAllocated", "BitsStored", "Columns", "HighBit", "InConcatenationTotalNumber", "PixelPaddingRangeLimit",
        "PixelPaddingValue", "PixelRepresentation", "Rows", "SamplesPerPixel",
    )
}  # fmt: skip
_KEPT: list[BaseTag | int] = [*_TEXTS, *_NUMBERS, *map(Tag, (_SHARED, _PER_FRAME, "ModalityLUTSequence"))]
PIXEL_DATA = {Tag(name): name for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")}
_LONG_LENGTH = {"OB", "OD", "OF", "OL", "OV", "OW", "UN"}  # the length's field has four bytes, after two unused ones
_UNDEFINED_LENGTH = 0xFFFFFFFF
_COUNT = re.compile(r"0*[1-9]\d{0,8}", re.ASCII)
_MAGIC = slice(128, 132)
_HEAD_BYTES = 132
_META_BYTES = 4096
_META_LENGTH = re.compile(rb"\x02\0\0\0UL\x04\0(.{4})", re.DOTALL)
_DEFLATED = re.compile(rb"\x02\0\x10\0UI..1\.2\.840\.10008\.1\.2\.1\.99\0?", re.DOTALL)
# Files from before the magic begin with a group's length or its first elements.
_FIRST_TAGS = {b"\x02\0\0\0", b"\x08\0\0\0", b"\x08\0\x01\0", b"\x08\0\x05\0", b"\x08\0\x08\0", b"\x08\0\x16\0"}
_SUFFIXES = {".dcm", ".dicom", ".ima"}
# The part of a deflated file in which its header must end; 2,000 frames of an Enhanced CT take 6 MiB.
DEFLATED_HEADER_BYTES = 16 << 20


@dataclass(frozen=True)
class PixelData:
    """Where a file's pixel data are.

    Attributes:
        keyword: "PixelData", or that of floating-point data.
        offset: of the value from the file's start, or from the inflated content's.
        length: in bytes, None where they are compressed.
        vr: value representation, None where it is implicit.
    """

    keyword: str
    offset: int
    length: int | None
    vr: str | None


@dataclass(frozen=True)
class DicomFile:
    """A DICOM file.

    Attributes:
        path: the file.
        texts: values by keyword; empty ones are left out, and several are separated by a backslash.
        numbers: values of binary whole numbers by keyword, unsigned.
        frames: for each frame of an Enhanced CT the values that are its own or that all frames share; else empty.
        lookup: the data set with the modality lookup table, where there is one.
        syntax: transfer syntax.
        pixels: where the pixel data are; None where there are none or the file ends too early.
        deflated_from: where the deflated part of the file begins; None where it is not deflated.
    """

    path: Path
    texts: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    frames: tuple[dict[str, str], ...] = ()
    lookup: Dataset | None = None
    syntax: UID = ImplicitVRLittleEndian
    pixels: PixelData | None = None
    deflated_from: int | None = None

    @property
    def series(self) -> str:
        """SeriesInstanceUID, empty where it is missing."""
        return self.texts.get("SeriesInstanceUID", "")

    @property
    def is_ct(self) -> bool:
        """Whether it is a CT's by its class, or by its modality where it states no class."""
        kind = self.texts.get("SOPClassUID")
        return self.texts.get("Modality", "CT") == "CT" if kind is None else kind in _CT_CLASSES

    @property
    def is_localizer(self) -> bool:
        """Whether it says that it is a localizer."""
        return "LOCALIZER" in self.texts.get("ImageType", "").upper().split("\\")

    @property
    def number_of_frames(self) -> int:
        """How many frames it holds."""
        text = self.texts.get("NumberOfFrames", "")
        return int(text) if _COUNT.fullmatch(text) else 1

    @property
    def frame_bytes(self) -> int:
        """How many bytes a frame has when it is not compressed."""
        return self.numbers.get("Rows", 0) * self.numbers.get("Columns", 0) * self.numbers.get("BitsAllocated", 0) // 8

    @property
    def pixel_bytes(self) -> int:
        """How many bytes all frames have when they are not compressed; frames of single bits follow without a gap."""
        pixels = self.numbers.get("Rows", 0) * self.numbers.get("Columns", 0) * self.number_of_frames
        return -(-pixels * self.numbers.get("BitsAllocated", 0) // 8)

    @property
    def pixel_data(self) -> PixelData:
        """``pixels``, of a file that has some.

        Raises:
            ImageError: it has none.
        """
        if self.pixels is None:
            raise damaged(self.path)
        return self.pixels

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """The file, or its content inflated as far as its pixel data are needed."""
        if self._inflated is None:
            with self.path.open("rb") as stream:
                yield stream
        else:
            yield io.BytesIO(self._inflated)

    @cached_property
    def _inflated(self) -> bytes | None:
        """The inflated content; None where the file is not deflated."""
        if self.deflated_from is None:
            return None
        # A file that inflates to more than it promises is read no further.
        return inflate(self.path.read_bytes(), self.deflated_from, self.pixel_data.offset + self.pixel_bytes)


def read_file(path: Path) -> DicomFile | None:
    """Read a file's header.

    Returns:
        None where it is no DICOM file. One that is damaged has no ``pixels``, as has one that is no image.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
        if head[_MAGIC] != b"DICM" and head[:4] not in _FIRST_TAGS:
            return DicomFile(path) if path.suffix.lower() in _SUFFIXES else None
        # Unlike a file, a map never gives out memory for what a damaged length asks for.
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content, disable_value_validation():
            try:
                return _parse(path, content)
            except Exception as error:  # pydicom's parser has no exception of its own
                if out_of_memory(error):
                    raise
                return DicomFile(path)


def read_header(file: DicomFile) -> Dataset:
    """All that a file states before its pixel data.

    Raises:
        OSError: the file cannot be read.
        Exception: it is damaged; pydicom has no exception of its own.
    """

    def at_pixel_data(tag: BaseTag, vr: str | None, length: int) -> bool:
        return tag in PIXEL_DATA

    with file.path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if file.deflated_from is None:
            return read_mapped(content, at_pixel_data)
        inflated = io.BytesIO(inflate(content, file.deflated_from, DEFLATED_HEADER_BYTES))
        return read_dataset(inflated, False, True, stop_when=at_pixel_data)


def read_mapped(
    content: mmap.mmap,
    stop_when: Callable[[BaseTag, str | None, int], bool] | None = None,
    specific_tags: list[BaseTag | int] | None = None,
) -> FileDataset:
    """What pydicom's ``read_partial`` reads of a file that is mapped, with or without DICOM's preamble."""
    # A map has all methods of a file that pydicom calls, but not all that a BinaryIO has.
    return read_partial(cast(BinaryIO, content), stop_when, force=True, specific_tags=specific_tags)


def _parse(path: Path, content: mmap.mmap) -> DicomFile:
    where: list[PixelData] = []

    def at_pixel_data(tag: BaseTag, vr: str | None, length: int) -> bool:
        if tag in PIXEL_DATA:
            stored = None if length == _UNDEFINED_LENGTH else length
            where.append(PixelData(PIXEL_DATA[tag], 0, stored, vr))
        return tag in PIXEL_DATA

    data: Dataset
    begin = begin_of_deflated(content)
    if begin is None:
        data = read_mapped(content, at_pixel_data, _KEPT)
        syntax = data.file_meta.get("TransferSyntaxUID") or _guessed_syntax(data)
        texts, end, size = _texts(data.file_meta) | _texts(data), content.tell(), len(content)
    else:
        stream = io.BytesIO(inflate(content, begin, DEFLATED_HEADER_BYTES))
        data = read_dataset(stream, False, True, stop_when=at_pixel_data, specific_tags=_KEPT)
        syntax = DeflatedExplicitVRLittleEndian
        texts, end, size = _texts(data), stream.tell(), limits.MAX_CT_BYTES
    pixels = _located(where[-1], end, size) if where else None
    lookup = data if "ModalityLUTSequence" in data else None
    return DicomFile(path, texts, _numbers(data), tuple(_frames(data)), lookup, syntax, pixels, begin)


def _located(pixels: PixelData, element: int, size: int) -> PixelData | None:
    """Pixel data whose element begins there in so many bytes; None where they end too early."""
    offset = element + (12 if pixels.vr in _LONG_LENGTH else 8)
    return replace(pixels, offset=offset) if offset + (pixels.length or 0) <= size else None


def begin_of_deflated(content: mmap.mmap) -> int | None:
    """Where the deflated part of a file begins, after its meta information; None where nothing is deflated."""
    meta = content[: _HEAD_BYTES + _META_BYTES]
    length = _META_LENGTH.match(meta, _HEAD_BYTES)
    if length is None:
        return None
    end = length.end() + int.from_bytes(length[1], "little")
    return end if _DEFLATED.search(meta, length.end(), min(end, len(meta))) else None


def inflate(content: bytes | mmap.mmap, begin: int, most: int) -> bytes:
    """The content from ``begin`` on, inflated; at most so many bytes."""
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(content[begin:], most)


def _guessed_syntax(data: Dataset) -> UID:
    """The syntax that pydicom has found in a file that states none."""
    implicit, little = data.original_encoding
    return ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def _frames(data: Dataset) -> Iterator[dict[str, str]]:
    shared = _group_texts(item) if (item := next(iter(data.get(_SHARED) or ()), None)) else {}
    for item in data.get(_PER_FRAME) or ():
        yield shared | _group_texts(item)


def _group_texts(item: Dataset) -> dict[str, str]:
    """What an item of functional groups states."""
    texts: dict[str, str] = {}
    for group, names in _GROUPS.items():
        if sequence := item.get(group):
            texts |= {name: text for name, text in _texts(sequence[0]).items() if name in names}
    return texts


def _texts(data: Dataset) -> dict[str, str]:
    """The wanted values that are there and not empty, as text."""
    values = ((_TEXTS.get(tag), value) for tag, value in _raw(data))
    return {name: text for name, value in values if name and (text := value.decode("utf-8", "replace").strip("\0 "))}


def _numbers(data: Dataset) -> dict[str, int]:
    """The wanted whole numbers of 16 bits, unsigned."""
    order: Literal["big", "little"] = "big" if data.original_encoding[1] is False else "little"
    values = ((_NUMBERS.get(tag), value) for tag, value in _raw(data))
    return {name: int.from_bytes(value, order) for name, value in values if name and len(value) == 2}


def _raw(data: Dataset) -> Iterator[tuple[BaseTag, bytes]]:
    """The whole elements whose bytes pydicom has not converted, which would cost more than all else."""
    for element in data.elements():
        if isinstance(element, RawDataElement) and element.value and len(element.value) == element.length:
            yield element.tag, element.value


def damaged(path: Path) -> ImageError:
    """The error of a file whose content does not fit its header."""
    return ImageError("the DICOM file is damaged", path, "copy it again, or remove it if it is no slice")
