"""Checks that DICOM slices are one even stack from one acquisition of one patient, as in a CT."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nodulemc.arrays import Array
from nodulemc.ct.dicom_file import DicomFile
from nodulemc.errors import ImageError
from nodulemc.util.text import plain_number

# What all slices of one reconstruction of one patient have in common: all state it alike, or none does.
_COMMON = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "AcquisitionDate", "AcquisitionNumber",
    "ConvolutionKernel", "FilterType", "ReconstructionDiameter", "SliceThickness", "KVP", "ContrastBolusAgent",
    "Modality", "RescaleType", "SeriesNumber", "SeriesDescription", "FrameOfReferenceUID",
)  # fmt: skip
# What a CT slice means that does not state it.
_IMPLIED = {"Modality": "CT", "RescaleType": "HU"}
# Whether the pixels are original, and whether they are of the examination itself; then the kind of slice, which some
# leave out, and values of the vendor's own.
_TYPES = ("ImageType", "FrameType")
_EMPTY_NAME_PARTS = re.compile(r"[\^ ]+(=|$)")
# As many slices of each run before their numbers tell of two or three runs: those of few are so by chance.
_LEAST_OF_RUN = 4
_SAME_IN_FRAMES = ("ImageOrientationPatient", "PixelSpacing", "RescaleIntercept", "RescaleSlope")
# Slice positions are written with few decimals; a missing slice is off by a whole slice spacing.
_SLICE_TOLERANCE = 0.1
# Between slices, and of the axes from right angles: cosines have three decimals or more.
_COSINE_TOLERANCE, _SPACING_TOLERANCE_MM = 1e-3, 1e-4
_NO_GEOMETRY = "export the series with its geometry; nodule coordinates mean nothing without it"
_STRANGER = "remove it if it is a localizer or of another series; else export the series with its geometry"


@dataclass(frozen=True)
class Slice:
    """One slice: a file, or one of its frames.

    Attributes:
        file: The file.
        index: The frame's index, from 0.
        texts: The file's values, replaced by the frame's own if it has some.
    """

    file: DicomFile
    index: int
    texts: dict[str, str]

    @property
    def where(self) -> str:
        """The slice's place, for messages."""
        return f"{self.file.path}{self._frame}"

    @property
    def name(self) -> str:
        """A shorter form of ``where``."""
        return f"{self.file.path.name}{self._frame}"

    @property
    def _frame(self) -> str:
        return f", frame {self.index + 1}" if self.file.number_of_frames > 1 else ""

    def numbers(self, name: str, count: int) -> Array:
        """Return the ``count`` decimal numbers of an attribute, NaN if it does not have as many."""
        numbers = [plain_number(number.strip(" ")) for number in self.texts.get(name, "").split("\\")]
        return np.array(numbers if len(numbers) == count and None not in numbers else [np.nan] * count)


def slices_of(file: DicomFile) -> list[Slice]:
    """Return all slices of a file.

    Raises:
        ImageError: The file has several frames, but not a position for each.
    """
    if file.number_of_frames == 1:
        return [Slice(file, 0, file.texts | (file.frames[0] if file.frames else {}))]
    stated = sum("ImagePositionPatient" in frame for frame in file.frames)
    if not stated == len(file.frames) == file.number_of_frames:
        found = stated or int("ImagePositionPatient" in file.texts)
        raise ImageError(
            f"{found} positions for {file.number_of_frames} frames", file.path, "export one file for each slice"
        )
    if any(len({frame.get(name) for frame in file.frames}) > 1 for name in _SAME_IN_FRAMES):
        raise ImageError(
            "frames of different orientation, spacing or rescaling", file.path, "export one file for each slice"
        )
    return [Slice(file, k, file.texts | frame) for k, frame in enumerate(file.frames)]


def axes(one: Slice) -> Array:
    """Return unit vectors along a slice's rows, columns and normal, (3, 3); NaN if it states none."""
    along_row, along_column = one.numbers("ImageOrientationPatient", 6).reshape(2, 3)
    with np.errstate(invalid="ignore", divide="ignore"):
        normal = np.cross(along_row, along_column)
        normal /= np.linalg.norm(normal)
        # As ITK does with cosines of few decimals.
        along_row = np.cross(along_column, normal)
        along_row /= np.linalg.norm(along_row)
        return np.array([along_row, np.cross(normal, along_row), normal])


def heights(slices: Sequence[Slice]) -> Array:
    """Return the slices' positions along the first one's normal, in mm."""
    heights_mm: Array = np.array([one.numbers("ImagePositionPatient", 3) for one in slices]) @ axes(slices[0])[2]
    return heights_mm


def stack(slices: Sequence[Slice]) -> tuple[list[Slice], float]:
    """Sort slices along their normal, and check that they are an even stack.

    Returns:
        The slices, and their distance in mm (1 for a single slice).

    Raises:
        ImageError: The slices differ in size, orientation, spacing or an attribute of the acquisition, state no
            geometry, or are not evenly stacked.
    """
    model = _usual(slices)
    _check_orientation(slices, model)
    _check_common(slices)
    _check_pixels(slices, model)
    along = heights(slices)
    order = np.argsort(along, kind="stable")
    slices = [slices[k] for k in order]
    _check_gaps(slices, along[order])
    step = (along[order[-1]] - along[order[0]]) / max(len(slices) - 1, 1)
    _check_places(slices, step)
    _check_runs(slices)
    return slices, float(step) or 1.0


def _check_common(slices: Sequence[Slice]) -> None:
    for name in _COMMON:
        _check_same(slices, name)
    # Parts of an Enhanced CT may each have a study of their own.
    _check_same([one for one in slices if not one.file.frames], "StudyInstanceUID")
    for name in _TYPES:
        _check_same(slices, name, 2)
        _check_same([one for one in slices if len(_told(one, name)) > 2], name, 3)
    for name in ("RescaleSlope", "RescaleIntercept"):
        without = [one for one in slices if name not in one.texts]
        if 0 < len(without) < len(slices):
            other = next(one for one in slices if name in one.texts)
            raise ImageError(
                f"no {name}, unlike {other.name} with {_shown(other, name)}",
                without[0].where,
                "export the series again; its values mean nothing without it",
            )


def _check_same(slices: Sequence[Slice], name: str, most: int | None = None) -> None:
    """Check that all slices have the same values of an attribute, at most ``most`` of them, or all have none."""
    expected = _told(slices[0], name)[:most] if slices else ()
    for one in slices:
        if _told(one, name)[:most] != expected:
            raise ImageError(
                f"slices of more than one acquisition: {name} is {_shown(one, name, 'none')}, and"
                f" {_shown(slices[0], name, 'none')} in {slices[0].name}",
                one.where,
                "keep the slices of one in the folder",
            )


def _told(one: Slice, name: str) -> list[str]:
    """Return an attribute's values in one way of writing; one empty value if it has none."""
    text = one.texts.get(name, _IMPLIED.get(name, ""))
    if name == "PatientName":
        text = _EMPTY_NAME_PARTS.sub(r"\1", text).rstrip("=")
    return [value.strip(" ") for value in text.split("\\")]


def _check_runs(slices: Sequence[Slice]) -> None:
    """Check that sorted slices are not numbered in turn by two or three runs, as are interleaved reconstructions."""
    numbers = np.array([one.numbers("InstanceNumber", 1)[0] for one in slices])
    for runs in (2, 3):
        if len(slices) >= runs * _LEAST_OF_RUN and (abs(numbers[runs:] - numbers[:-runs]) == 1).all():
            shown = ", ".join(f"{number:g}" for number in numbers[: 2 * runs])
            raise ImageError(
                f"slices of {runs} reconstructions between each other: the InstanceNumber goes {shown}, …",
                slices[0].where,
                "keep the slices of one in the folder",
            )


def _usual(slices: Sequence[Slice]) -> Slice:
    """Return the first slice with the most common size and orientation: a localizer may be the very first."""
    planes = [_plane(one) for one in slices]
    (usual, _), *_ = Counter(planes).most_common(1)
    return slices[planes.index(usual)]


def _check_orientation(slices: Sequence[Slice], model: Slice) -> None:
    for one in slices:
        if np.isnan(one.numbers("ImagePositionPatient", 3)).any():
            raise ImageError("no Image Position (Patient)", one.where, _NO_GEOMETRY)
    cosines = axes(model)[:2].ravel()
    _check_alike(slices, model, ("image orientation", "ImageOrientationPatient", cosines, _COSINE_TOLERANCE))


def _check_pixels(slices: Sequence[Slice], model: Slice) -> None:
    for one in slices:
        if _size(one) != _size(model):
            shown = "×".join(map(str, (*_size(one), 1)))
            unlike = "the first" if model is slices[0] else "the others"
            raise ImageError(f"the slice has size {shown}, unlike {unlike}", one.where, _STRANGER)
    spacing = model.numbers("PixelSpacing", 2)
    spacing[spacing <= 0] = np.nan
    _check_alike(slices, model, ("pixel spacing", "PixelSpacing", spacing, _SPACING_TOLERANCE_MM))


def _check_alike(slices: Sequence[Slice], model: Slice, attribute: tuple[str, str, Array, float]) -> None:
    """Check that an attribute has the model's value in all slices; this may be NaN."""
    what, name, expected, tolerance = attribute
    for one in slices:
        if not np.allclose(one.numbers(name, len(expected)), expected, rtol=0, atol=tolerance):
            found = f"the {what} is {_shown(one, name)}"
            if one is model:
                raise ImageError(found, one.where, _NO_GEOMETRY)
            unlike = "the first slice's" if model is slices[0] else "the others'"
            raise ImageError(f"{found}, unlike {unlike} {_shown(model, name)}", one.where, _STRANGER)


def _check_gaps(slices: Sequence[Slice], along: Array) -> None:
    """Refuse a missing or doubled slice, and name its neighbours."""
    gaps = np.diff(along)
    apart = np.sort(gaps[gaps > 0])
    usual = apart[(len(apart) - 1) // 2] if apart.size else 1.0
    for before, one, gap in zip(slices, slices[1:], gaps, strict=False):
        if abs(gap - usual) <= _SLICE_TOLERANCE * usual:
            continue
        if gap < _SLICE_TOLERANCE * usual:
            remedy = "the slice is doubled; remove one of the two"
        elif gap > (2 - _SLICE_TOLERANCE) * usual:
            remedy = "slices between the two are missing; export the series again"
        else:
            remedy = "the slices are unevenly spaced; resample the series first"
        raise ImageError(
            f"the slice lies {abs(gap - usual):.2f} mm from its place in an even stack: {gap:.2f} mm after"
            f" {before.name}, where others are {usual:.2f} mm apart",
            one.where,
            remedy,
        )


def _check_places(slices: Sequence[Slice], step: float) -> None:
    """Check that the slices lie behind each other, evenly from the first to the last."""
    positions = np.array([one.numbers("ImagePositionPatient", 3) for one in slices])
    even = positions[0] + np.outer(np.arange(len(slices)) * step, axes(slices[0])[2])
    for one, off in zip(slices, np.linalg.norm(positions - even, axis=1), strict=True):
        if off > _SLICE_TOLERANCE * step:
            raise ImageError(
                f"the slice lies {off:.2f} mm from its place in an even stack",
                one.where,
                "the gantry was tilted, or slices are unevenly spaced; resample the series first",
            )


def _plane(one: Slice) -> tuple[float, ...]:
    """Return the values that all slices of a stack share, up to rounding."""
    return (*_size(one), *one.numbers("ImageOrientationPatient", 6).round(2).tolist())


def _size(one: Slice) -> tuple[int, int]:
    """Return the columns and rows."""
    return one.file.numbers.get("Columns", 0), one.file.numbers.get("Rows", 0)


def _shown(one: Slice, name: str, missing: str = "''") -> str:
    return repr(one.texts[name][:80].replace("\\", " ")) if name in one.texts else missing
