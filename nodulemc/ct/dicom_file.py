"""The header of one DICOM file, read with pydicom, and the place of its pixel data.

Only the attributes needed for reading a CT are kept, as the file writes them. The pixel data stay in the file.
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
    """The place of a file's pixel data.

    Attributes:
        keyword: "PixelData", or the keyword of floating-point data.
        offset: The value's offset from the start of the file, or of the inflated content.
        length: The length in bytes. None if they are compressed.
        vr: The value representation. None if it is implicit.
    """

    keyword: str
    offset: int
    length: int | None
    vr: str | None


@dataclass(frozen=True)
class DicomFile:
    """A DICOM file.

    Attributes:
        path: The file.
        texts: The values by keyword. Empty ones are left out; several are separated by a backslash.
        numbers: The values of binary whole numbers by keyword, unsigned.
        frames: For each frame of an Enhanced CT, its own values and those that all frames share; else empty.
        lookup: The data set with the modality lookup table, if there is one.
        syntax: The transfer syntax.
        pixels: The place of the pixel data. None if there are none, or the file ends too early.
        deflated_from: The offset at which the deflated part of the file begins. None if it is not deflated.
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
        """The SeriesInstanceUID, empty if missing."""
        return self.texts.get("SeriesInstanceUID", "")

    @property
    def is_ct(self) -> bool:
        """Whether it belongs to a CT, by its class, or by its modality if it states no class."""
        kind = self.texts.get("SOPClassUID")
        return self.texts.get("Modality", "CT") == "CT" if kind is None else kind in _CT_CLASSES

    @property
    def is_localizer(self) -> bool:
        """Whether it calls itself a localizer."""
        return "LOCALIZER" in self.texts.get("ImageType", "").upper().split("\\")

    @property
    def number_of_frames(self) -> int:
        """The number of frames."""
        text = self.texts.get("NumberOfFrames", "")
        return int(text) if _COUNT.fullmatch(text) else 1

    @property
    def frame_bytes(self) -> int:
        """The number of bytes of an uncompressed frame."""
        return self.numbers.get("Rows", 0) * self.numbers.get("Columns", 0) * self.numbers.get("BitsAllocated", 0) // 8

    @property
    def pixel_bytes(self) -> int:
        """The number of bytes of all uncompressed frames; frames of single bits follow each other without a gap."""
        pixels = self.numbers.get("Rows", 0) * self.numbers.get("Columns", 0) * self.number_of_frames
        return -(-pixels * self.numbers.get("BitsAllocated", 0) // 8)

    @property
    def pixel_data(self) -> PixelData:
        """The ``pixels`` of a file that has some.

        Raises:
            ImageError: it has none.
        """
        if self.pixels is None:
            raise damaged(self.path)
        return self.pixels

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """Open the file, or its inflated content as far as the pixel data need it."""
        if self._inflated is None:
            with self.path.open("rb") as stream:
                yield stream
        else:
            yield io.BytesIO(self._inflated)

    @cached_property
    def _inflated(self) -> bytes | None:
        """The inflated content. None if the file is not deflated."""
        if self.deflated_from is None:
            return None
        # A file that inflates to more than it promises is read no further.
        return inflate(self.path.read_bytes(), self.deflated_from, self.pixel_data.offset + self.pixel_bytes)


def read_file(path: Path) -> DicomFile | None:
    """Read a file's header.

    Returns:
        None if it is not a DICOM file. A damaged file has no ``pixels``, and neither has one that is not an image.

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
    """Return everything that a file states before its pixel data.

    Raises:
        OSError: the file cannot be read.
        Exception: The file is damaged; pydicom has no exception class of its own.
    """

    def at_pixel_data(tag: BaseTag, _vr: str | None, _length: int) -> bool:
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
    """Call pydicom's ``read_partial`` on a mapped file, with or without DICOM's preamble."""
    # A map has all methods of a file that pydicom calls, but not all that a BinaryIO has.
    return read_partial(cast("BinaryIO", content), stop_when, force=True, specific_tags=specific_tags)


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
    """Return pixel data whose element begins there in ``size`` bytes; None if they end too early."""
    offset = element + (12 if pixels.vr in _LONG_LENGTH else 8)
    return replace(pixels, offset=offset) if offset + (pixels.length or 0) <= size else None


def begin_of_deflated(content: mmap.mmap) -> int | None:
    """Return the offset of a file's deflated part, after its meta information; None if nothing is deflated."""
    meta = content[: _HEAD_BYTES + _META_BYTES]
    length = _META_LENGTH.match(meta, _HEAD_BYTES)
    if length is None:
        return None
    end = length.end() + int.from_bytes(length[1], "little")
    return end if _DEFLATED.search(meta, length.end(), min(end, len(meta))) else None


def inflate(content: bytes | mmap.mmap, begin: int, most: int) -> bytes:
    """Return the content from ``begin`` on, inflated to at most ``most`` bytes."""
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(content[begin:], most)


def _guessed_syntax(data: Dataset) -> UID:
    """Return the transfer syntax that pydicom has guessed for a file that states none."""
    implicit, little = data.original_encoding
    return ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def _frames(data: Dataset) -> Iterator[dict[str, str]]:
    shared = _group_texts(item) if (item := next(iter(data.get(_SHARED) or ()), None)) else {}
    for item in data.get(_PER_FRAME) or ():
        yield shared | _group_texts(item)


def _group_texts(item: Dataset) -> dict[str, str]:
    """Return the values in an item of functional groups."""
    texts: dict[str, str] = {}
    for group, names in _GROUPS.items():
        if sequence := item.get(group):
            texts |= {name: text for name, text in _texts(sequence[0]).items() if name in names}
    return texts


def _texts(data: Dataset) -> dict[str, str]:
    """Return the wanted values that are present and not empty, as text."""
    values = ((_TEXTS.get(tag), value) for tag, value in _raw(data))
    return {name: text for name, value in values if name and (text := value.decode("utf-8", "replace").strip("\0 "))}


def _numbers(data: Dataset) -> dict[str, int]:
    """Return the wanted whole numbers of 16 bits, unsigned."""
    order: Literal["big", "little"] = "big" if data.original_encoding[1] is False else "little"
    values = ((_NUMBERS.get(tag), value) for tag, value in _raw(data))
    return {name: int.from_bytes(value, order) for name, value in values if name and len(value) == 2}


def _raw(data: Dataset) -> Iterator[tuple[BaseTag, bytes]]:
    """Yield the elements as unconverted bytes; converting them would cost more than all the rest."""
    for element in data.elements():
        if isinstance(element, RawDataElement) and element.value and len(element.value) == element.length:
            yield element.tag, element.value


def damaged(path: Path) -> ImageError:
    """Return the error for a file with content that does not fit its header."""
    return ImageError("the DICOM file is damaged", path, "copy it again, or remove it if it is no slice")
