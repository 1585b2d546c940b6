"""Label images, on the CT's grid or another: each label is a nodule. If there is only one label, each part of it is.

Names are those of 3D Slicer in a ``.seg.nrrd``, or those of the table in a NIfTI file; else the labels' numbers.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nodulemc.arrays import Array
from nodulemc.ct import meta_image, nifti, nrrd
from nodulemc.ct.checks import check_image_header, check_path
from nodulemc.ct.volume import Volume, read_stored, reading, require_image_header
from nodulemc.errors import ImageError, PointsError
from nodulemc.limits import MAX_NODULE_VOXELS
from nodulemc.points.nodules import Nodule, check_count
from nodulemc.points.regions import Region, check_litres, nodules_of
from nodulemc.util.files import require_regular

SUFFIXES = (*meta_image.SUFFIXES, *nifti.SUFFIXES, *nrrd.SUFFIXES)
# TotalSegmentator's task of this name labels the lung as well, and all nodules alike.
_ALL_NODULES = "lung_nodules"
_SEGMENT = re.compile(r"Segment(\d{1,6})_(Name|LabelValue|Layer)", re.ASCII)
_LARGEST_LABEL = 2**32 - 1

# Names by layer and label.
_Names = dict[tuple[int, int], str]


def read_label_image(path: Path, volume: Volume) -> list[Nodule]:
    """Read a label image's nodules, in the order of their labels, or of their parts' first voxels.

    Parts are separate if not even the corners of their voxels touch. If a label is named ``lung_nodules``, as written
    by TotalSegmentator, only this label counts.

    Raises:
        FileError: It is not a regular file.
        PointsError: The file cannot be read, its values are not labels, nothing or too much is labelled, or all of it
            lies outside the CT.
    """
    with _reading(path):
        grid, layers, names = _read(path)
    for layer in layers:
        _check_values(layer, path)
    if nodules := next((key for key, name in names.items() if name == _ALL_NODULES), None):
        layers, names = [layers[nodules[0]] == nodules[1]], {(0, 1): _ALL_NODULES}
    _check_size(layers, grid, path)
    boxes = {k: _box(layer, grid) for k, layer in enumerate(layers) if layer.any()}
    return nodules_of(_regions(boxes, names, path), path, volume)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raise a CT's errors as those of a label image."""
    try:
        check_path(path)
        with reading(path):
            require_regular(path)
            yield
    except ImageError as error:
        what, remedy = (text.replace("the CT", "the image") for text in (error.what, error.remedy))
        raise PointsError(what, error.where, remedy) from error


def _read(path: Path) -> tuple[sitk.Image, list[Array], _Names]:
    """Return an image on the file's grid, the layers' labels (z, y, x), and their names."""
    if path.name.lower().endswith(nrrd.SUFFIXES):
        return _read_nrrd(path)
    image = read_stored(require_image_header(path))
    is_nifti = path.name.lower().endswith(nifti.SUFFIXES)
    names = {(0, label): name for label, name in nifti.read_label_names(path).items()} if is_nifti else {}
    return image, [sitk.GetArrayViewFromImage(image)], names


def _read_nrrd(path: Path) -> tuple[sitk.Image, list[Array], _Names]:
    found = nrrd.read_layers(path)
    check_image_header(found.image, path)
    check_image_header(found.stored, path)
    image = read_stored(found.stored)
    voxels = sitk.GetArrayViewFromImage(image)
    layers = np.moveaxis(voxels.reshape(*found.image.size[::-1], found.count), -1, 0)
    return image, list(layers), _segment_names(found)


def _segment_names(found: nrrd.Layers) -> _Names:
    """Return 3D Slicer's names. Old files state neither layer nor label: they are the segment's number and 1.

    Source: vtkMRMLSegmentationStorageNode (https://github.com/Slicer/Slicer).
    """
    segments: dict[int, dict[str, str]] = {}
    for key, value in found.keys.items():
        if match := _SEGMENT.fullmatch(key):
            segments.setdefault(int(match[1]), {})[match[2]] = value
    names = {}
    for number, segment in sorted(segments.items()):
        layer, label = segment.get("Layer", str(number)), segment.get("LabelValue", "1")
        if segment.get("Name") and layer.isdecimal() and label.isdecimal() and int(layer) < found.count:
            names[int(layer), int(label)] = segment["Name"]
    return names


def _check_values(layer: Array, path: Path) -> None:
    """Refuse voxels that are not labels, such as those of a probability map or a CT."""
    low, high = layer.min(), layer.max()
    is_whole = layer.dtype.kind != "f" or all(np.array_equal(part, np.rint(part)) for part in layer)
    if not is_whole or low < 0 or high > _LARGEST_LABEL:
        found = "whole numbers" if is_whole else "not all whole numbers"
        raise PointsError(
            f"the voxels are {found} from {low:g} to {high:g}, no labels",
            path,
            "give a label image: 0, and whole numbers above 0 where nodules are",
        )


def _check_size(layers: Sequence[Array], grid: sitk.Image, path: Path) -> None:
    voxels = sum(np.count_nonzero(layer) for layer in layers)
    check_litres(voxels * float(np.prod(grid.GetSpacing())) / 1000, "the labels fill", path)
    if voxels > MAX_NODULE_VOXELS:
        raise PointsError(f"{voxels} voxels are labelled", path, "resample the image to the CT's grid")


def _box(layer: Array, grid: sitk.Image) -> sitk.Image:
    """Return the smallest image that holds all labels of a layer, at the same place."""
    slices = []
    for axis in range(3):
        at = np.flatnonzero(layer.any(axis=tuple({0, 1, 2} - {axis})))
        slices.append(slice(int(at[0]), int(at[-1]) + 1))
    box = sitk.GetImageFromArray(layer[tuple(slices)].astype(np.uint32))
    box.SetOrigin(grid.TransformIndexToPhysicalPoint([part.start for part in slices[::-1]]))
    box.SetSpacing(grid.GetSpacing())
    box.SetDirection(grid.GetDirection())
    return box


def _regions(boxes: dict[int, sitk.Image], names: _Names, path: Path) -> list[Region]:
    """Return the regions of labels by layer."""
    shapes = [(layer, label, place) for layer, box in boxes.items() for label, place in _shapes(box, path)]
    if len(shapes) == 1:
        ((layer, label, _),) = shapes
        parts = _shapes(sitk.ConnectedComponent(boxes[layer], True), path)
        shapes = [(layer, label, place) for _, place in parts]
    return [Region(names.get((layer, label), str(label)), *place) for layer, label, place in shapes]


def _shapes(box: sitk.Image, path: Path) -> list[tuple[int, tuple[tuple[float, ...], bool]]]:
    """Return each label, its centre of mass x, y, z in mm (LPS), and whether the centre lies outside it."""
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.ComputePerimeterOff()
    statistics.Execute(box)
    check_count(range(statistics.GetNumberOfLabels()), path)
    centres = {label: statistics.GetCentroid(label) for label in statistics.GetLabels()}
    return [(k, (centre, box[box.TransformPhysicalPointToIndex(centre)] != k)) for k, centre in centres.items()]
