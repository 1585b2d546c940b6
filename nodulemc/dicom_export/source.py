"""The parts of a CT that a SEG and an SR need: patient and study, and the instances they refer to."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.uid import UID, CTImageStorage

from nodulemc.arrays import Array
from nodulemc.ct.dicom_file import damaged, read_header
from nodulemc.ct.dicom_stack import Slice, axes, heights
from nodulemc.ct.volume import Volume
from nodulemc.errors import ImageError, out_of_memory
from nodulemc.points.nodules import shortened

_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID", "SOPClassUID")
_NEEDED = ("PatientID", *_UIDS)
_UID = re.compile(r"(?=.{1,64}$)\d+(\.\d+)*", re.ASCII)
# Elements that an object must have, but may have empty, and the values that DICOM allows for them (PS3.5 6.2, PS3.3
# C.7.1.1, C.7.2.1).
_ANY = re.compile(".*", re.DOTALL)
_DATE = re.compile(r"(\d{8})?", re.ASCII)
_MAY_BE_EMPTY = {
    "AccessionNumber": _ANY,
    "PatientBirthDate": _DATE,
    "PatientName": _ANY,
    "PatientSex": re.compile("[MFO]?"),
    "ReferringPhysicianName": _ANY,
    "StudyDate": _DATE,
    "StudyID": _ANY,
    "StudyTime": re.compile(r"(([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?)?", re.ASCII),
}
_FRAMES = "PerFrameFunctionalGroupsSequence"
_OF_SLICE = ("SOPInstanceUID", "ImagePositionPatient")
_REMEDY = "fetch the series from the archive as it is, or leave out --dicom"


@dataclass(frozen=True)
class Source:
    """A CT's instances.

    Attributes:
        slices: The slices, in the order of the CT's image.
        images: The instances' headers for highdicom: one for each slice, or that of the one multi-frame file.
        spacing_mm: The distance from slice to slice.
        emptied: Warnings about values that are left empty.
    """

    slices: Sequence[Slice]
    images: list[Dataset]
    spacing_mm: float
    emptied: tuple[str, ...]

    @property
    def series_uid(self) -> str:
        """The CT's SeriesInstanceUID."""
        return self.slices[0].file.series

    @property
    def is_multi_frame(self) -> bool:
        """Whether all slices are frames of one instance."""
        return bool(self.images[0].SOPClassUID != CTImageStorage)

    def reference(self, index: int) -> tuple[str, str, list[int] | None]:
        """Return an SR's reference to a slice: SOP class, SOP instance and, for a multi-frame one, the frame number."""
        image = self.images[0 if self.is_multi_frame else index]
        return image.SOPClassUID, image.SOPInstanceUID, [self.slices[index].index + 1] if self.is_multi_frame else None

    def nearest(self, point: Sequence[float]) -> int:
        """Return the slice that is nearest to a point x, y, z in mm (LPS)."""
        return int(abs(self._heights - np.array(point) @ axes(self.slices[0])[2]).argmin())

    @cached_property
    def _heights(self) -> Array:
        return heights(self.slices)


def read_source(volume: Volume) -> Source:
    """Return the instances of a CT that was read from a DICOM series.

    Texts are converted to UTF-8. Values that may be empty are left empty if they are not valid in DICOM.

    Raises:
        ImageError: it is no DICOM series, its instances cannot be told apart, they do not say whose they are, or the
            first one cannot be read any more.
    """
    slices = volume.slices
    if not slices:
        raise ImageError("--dicom with a CT that is no DICOM series", volume.source, "give its folder, or leave it out")
    _check_tags(slices, volume)
    _check_instances(slices, volume)
    header, emptied = _header(slices[0])
    spacing_mm = volume.image.GetSpacing()[2]
    header.SliceThickness = slices[0].texts.get("SliceThickness") or f"{spacing_mm:.10g}"
    is_multi_frame = header.SOPClassUID != CTImageStorage
    images = [_of_frames(header, slices)] if is_multi_frame else [_of_slice(header, one) for one in slices]
    return Source(slices, images, spacing_mm, emptied)


def _check_tags(slices: Sequence[Slice], volume: Volume) -> None:
    missing = [name for name in _NEEDED if not all(one.texts.get(name) for one in slices)]
    if missing:
        raise ImageError(f"the DICOM series lacks {', '.join(missing)}", volume.source, _REMEDY)
    for name in _UIDS:
        wrong = next((one for one in slices if not _UID.fullmatch(one.texts[name])), None)
        if wrong:
            raise ImageError(f"the {name} is {shortened(wrong.texts[name])}", wrong.where, _REMEDY)


def _check_instances(slices: Sequence[Slice], volume: Volume) -> None:
    """Check that the slices are CT images, each an instance of its own, or frames of one."""
    strange = next((one for one in slices if not one.file.is_ct), None)
    if strange:
        found = UID(strange.texts["SOPClassUID"]).name
        raise ImageError(f"the DICOM file is no CT image ({found[:60]})", strange.where, _REMEDY)
    files = {one.file.path for one in slices}
    if slices[0].texts["SOPClassUID"] != CTImageStorage and len(files) > 1:
        raise ImageError(
            f"a multi-frame CT in {len(files)} files", volume.source, "join them to one, or leave out --dicom"
        )
    if len({one.texts["SOPInstanceUID"] for one in slices}) != len(files):
        raise ImageError("two slices have the same SOPInstanceUID", volume.source, _REMEDY)


def _header(first: Slice) -> tuple[Dataset, tuple[str, ...]]:
    """Return the first slice's header in a form that highdicom accepts, and warnings about values left empty."""
    header = _decoded(first)
    header.SpecificCharacterSet = "ISO_IR 192"
    for name in {*_UIDS} - {*_OF_SLICE}:
        setattr(header, name, first.texts[name])
    values = {name: str(header.get(name) or "").strip() for name in _MAY_BE_EMPTY}
    strange = [name for name, value in values.items() if not _MAY_BE_EMPTY[name].fullmatch(value)]
    for name in values:
        if name in strange or not values[name]:
            setattr(header, name, "")
    header.ImageOrientationPatient = _values(first, "ImageOrientationPatient")
    header.PixelSpacing = _values(first, "PixelSpacing")
    return header, tuple(
        f"{first.where}: {name} is {shortened(values[name])} and is left empty in the DICOM objects" for name in strange
    )


def _decoded(first: Slice) -> Dataset:
    """Return the first slice's header without each slice's own elements. Copies would share the existing elements."""
    try:
        with disable_value_validation():
            header = read_header(first.file)
            for name in (_FRAMES, *_OF_SLICE):
                header.pop(name, None)
            header.decode()
    except Exception as error:  # pydicom's parser has no own exception
        if out_of_memory(error):
            raise
        raise damaged(first.file.path) from error
    return header


def _values(one: Slice, name: str) -> list[str]:
    return [number.strip(" ") for number in one.texts[name].split("\\")]


def _of_slice(header: Dataset, one: Slice) -> Dataset:
    image = Dataset(dict(header.items()))
    image.SOPInstanceUID = one.texts["SOPInstanceUID"]
    image.ImagePositionPatient = _values(one, "ImagePositionPatient")
    return image


def _of_frames(header: Dataset, slices: Sequence[Slice]) -> Dataset:
    """Return a multi-frame instance's header: the elements that all frames share, then the frames' positions.

    The positions are in the file's order.
    """
    shared = Dataset()
    shared.PlaneOrientationSequence = [_only(header, "ImageOrientationPatient")]
    shared.PixelMeasuresSequence = [_only(header, "PixelSpacing", "SliceThickness")]
    header.SharedFunctionalGroupsSequence = [shared]
    header.SOPInstanceUID = slices[0].texts["SOPInstanceUID"]
    frames = []
    for one in sorted(slices, key=lambda one: one.index):
        frame, position = Dataset(), Dataset()
        position.ImagePositionPatient = _values(one, "ImagePositionPatient")
        frame.PlanePositionSequence = [position]
        frames.append(frame)
    setattr(header, _FRAMES, frames)
    return header


def _only(header: Dataset, *names: str) -> Dataset:
    item = Dataset()
    for name in names:
        setattr(item, name, header[name].value)
    return item
