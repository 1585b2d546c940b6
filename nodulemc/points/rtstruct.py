"""DICOM RTSTRUCTs: each region of interest (ROI) is a nodule, and its point is the centre of mass of its region.

In each plane, the region is where an odd number of contours surround a place. So a contour within another is a hole,
and so is a keyhole's. Contours of type POINT are nodules of their own.
Source: DICOM PS3.3 C.8.8.5, C.8.8.6 (https://dicom.nema.org/medical/dicom/current/output/chtml/part03/sect_C.8.8.html)
"""

import logging
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from nodulemc.arrays import Array
from nodulemc.ct.dicom_file import DicomFile
from nodulemc.errors import PointsError
from nodulemc.limits import MAX_COORDINATE_MM, MAX_CROSSINGS, MAX_DISAGREEMENT_MM
from nodulemc.points.nodules import check_count, shortened
from nodulemc.points.regions import Region, check_litres

logger = logging.getLogger(__name__)
_POINT, _CLOSED = "POINT", {"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"}
_MOST_TILT_MM = 0.5  # of a contour against the ROI's plane; some programs round to 0.1 mm
_GAUSS = (0.5 - np.sqrt(1 / 12), 0.5 + np.sqrt(1 / 12))  # two points, exact up to cubic polynomials


def read_rtstruct(file: DicomFile, data: Dataset) -> tuple[list[Region], Collection[str]]:
    """Return an RTSTRUCT's ROIs with contours, in its order, and their frames of reference, empty if not stated.

    Args:
        file: The file.
        data: Its data set.

    Raises:
        PointsError: an ROI's contours are open or not in parallel planes, or the contours are too many or too large.
        Exception: the file is damaged; pydicom has no exception of its own.
    """
    rois = data.StructureSetROISequence
    check_count(rois, file.path)
    contours = {int(item.ReferencedROINumber): item.get("ContourSequence") for item in data.ROIContourSequence}
    general = [item.get("FrameOfReferenceUID") for item in data.get("ReferencedFrameOfReferenceSequence") or ()]
    reader = _Contours(file.path)
    regions, frames = [], set()
    for roi in rois:
        number = int(roi.ROINumber)
        name = str(roi.get("ROIName") or "").strip() or str(number)
        found = [contour for contour in contours.get(number) or () if contour.get_item("ContourData").value]
        if found:
            regions += reader.regions(name, found)
            frames.add(str(roi.get("ReferencedFrameOfReferenceUID") or next(iter(general), None) or ""))
        else:
            logger.warning("%s: ROI %s has no contours and is left out", file.path, shortened(name))
    check_litres(reader.mm3 / 1000, "the contours enclose", file.path)
    return regions, frames


class _Contours:
    """Reads contours, and counts the volume inside and the work done.

    Attributes:
        mm3: The volume inside all contours so far.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._crossings = 0
        self.mm3 = 0.0

    def regions(self, name: str, contours: Sequence[Dataset]) -> list[Region]:
        """Return an ROI's region, or its points."""
        kinds = [str(contour.ContourGeometricType) for contour in contours]
        points = [_points(contour) for contour in contours]
        if others := set(kinds) - {_POINT, *_CLOSED}:
            what = f"ROI {shortened(name)} has contours of type {shortened(min(others))}"
            raise PointsError(what, self._path, "draw closed contours, or points")
        closed = [outline for kind, outline in zip(kinds, points, strict=True) if kind in _CLOSED]
        if closed:
            return [self._region(name, closed)]
        return [Region(name, point) for outline in points for point in outline]

    def _region(self, name: str, outlines: Sequence[Array]) -> Region:
        """Return the region of closed outlines, each (N, 3); if it is empty, the middle of their points."""
        start = outlines[0][0]
        outlines = [outline - start for outline in outlines]
        basis = _basis(outlines)
        if basis is None:
            return Region(name, np.concatenate(outlines).mean(axis=0) + start)
        planes = self._planes(name, [outline @ basis.T for outline in outlines])
        heights = np.array([np.mean(np.concatenate(plane)[:, 2]) for plane in planes])
        moments = np.array([self._moments(plane) for plane in planes])
        area = moments[:, 0].sum()
        if not area > 0:
            return Region(name, np.concatenate(outlines).mean(axis=0) + start)
        step = float(np.median(np.diff(heights))) if len(heights) > 1 else 1.0
        self.mm3 += area * step
        centre = np.array([*moments[:, 1:].sum(axis=0), heights @ moments[:, 0]]) / area
        nearest = int(np.argmin(abs(heights - centre[2])))
        is_hollow = abs(heights[nearest] - centre[2]) > step or not _encloses(planes[nearest], centre)
        return Region(name, centre @ basis + start, is_hollow)

    def _planes(self, name: str, outlines: Sequence[Array]) -> list[list[Array]]:
        """Group outlines by plane, in the order of their heights, which are their third coordinates."""
        if max(np.ptp(outline[:, 2]) for outline in outlines) > _MOST_TILT_MM:
            what = f"the contours of ROI {shortened(name)} are not in parallel planes"
            raise PointsError(what, self._path, "draw them slice by slice in one orientation")
        outlines = sorted(outlines, key=lambda outline: outline[:, 2].mean())
        heights = [outline[:, 2].mean() for outline in outlines]
        planes: list[list[Array]] = []
        for outline, step in zip(outlines, np.diff(heights, prepend=-np.inf), strict=True):
            if step > MAX_DISAGREEMENT_MM:
                planes.append([])
            planes[-1].append(outline)
        return planes

    def _moments(self, outlines: Sequence[Array]) -> tuple[float, float, float]:
        """Return the area inside a plane's outlines, and this area times its centre's first and second coordinate.

        Lines through all points, along the first axis, cut the plane into bands. The sides that cross a band enter and
        leave the region in turn, so the area between them is integrated exactly, unless sides cross within a band.
        """
        begin, end = _sides(outlines)
        lines = np.unique(begin[:, 1])
        low, high = (np.searchsorted(lines, y) for y in np.sort([begin[:, 1], end[:, 1]], axis=0))
        crossed = high - low
        self._crossings += int(crossed.sum())
        if self._crossings > MAX_CROSSINGS:
            raise PointsError(
                "the contours are too rough to be a nodule's", self._path, "smooth them, or leave them out"
            )
        side = np.repeat(np.arange(len(begin)), crossed)
        band = low[side] + np.arange(len(side)) - np.repeat(np.cumsum(crossed) - crossed, crossed)
        height, turn = np.diff(lines)[band], np.resize([-1.0, 1.0], len(side))
        sums = np.zeros(3)
        for share in _GAUSS:
            y = lines[band] + share * height
            x = begin[side, 0] + (y - begin[side, 1]) * ((end - begin)[side, 0] / (end - begin)[side, 1])
            order = np.lexsort((x, band))
            x, y, weight = x[order], y[order], turn * height[order] / len(_GAUSS)
            sums += weight @ x, weight @ x**2 / 2, weight @ (x * y)
        first, second, third = sums.tolist()
        return first, second, third


def _points(contour: Dataset) -> Array:
    """Return a contour's points (N, 3): x, y, z in mm (LPS)."""
    raw = contour.get_item("ContourData").value
    points = np.array(raw.split(b"\\") if isinstance(raw, bytes) else raw).astype(float).reshape(-1, 3)
    if not (abs(points) <= MAX_COORDINATE_MM).all():
        raise ValueError("a coordinate is none")
    return points


def _basis(outlines: Sequence[Array]) -> Array | None:
    """Return two unit vectors in the largest outline's plane, and its normal, as rows (3, 3); None without an area.

    Source: Newell's method.
    """
    normals = [np.cross(outline, np.roll(outline, -1, axis=0)).sum(axis=0) for outline in outlines]
    normal = max(normals, key=np.linalg.norm)
    length = np.linalg.norm(normal)
    if not length > 0:
        return None
    normal = normal / length
    first = np.cross(normal, np.eye(3)[np.argmin(abs(normal))])
    first /= np.linalg.norm(first)
    return np.array([first, np.cross(normal, first), normal])


def _sides(outlines: Sequence[Array]) -> tuple[Array, Array]:
    """Return the starts and ends of all sides of closed outlines, each (N, 3)."""
    return np.concatenate(outlines), np.concatenate([np.roll(outline, -1, axis=0) for outline in outlines])


def _encloses(outlines: Sequence[Array], point: Array) -> bool:
    """Return whether a plane's outlines enclose one of its points, by counting the sides that lie to one side of it."""
    begin, end = _sides(outlines)
    crossing = (begin[:, 1] <= point[1]) != (end[:, 1] <= point[1])
    begin, end = begin[crossing], end[crossing]
    x = begin[:, 0] + (point[1] - begin[:, 1]) * (end - begin)[:, 0] / (end - begin)[:, 1]
    return np.count_nonzero(x > point[0]) % 2 == 1
