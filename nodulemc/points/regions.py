"""From regions to nodules: the part that label images, DICOM SEGs and RTSTRUCTs have in common.

A nodule's point is its region's centre of mass, and its name the region's.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from nodulemc.ct.volume import Volume
from nodulemc.errors import PointsError
from nodulemc.limits import FACE_TOLERANCE_MM, MAX_NODULE_ML
from nodulemc.points.nodules import Nodule, check_count, make_nodule, shortened

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Region:
    """A region that is a nodule.

    Attributes:
        name: Its name in the file.
        point: Its centre of mass x, y, z in mm (LPS).
        is_hollow: Whether the point lies outside it, as for a ring.
    """

    name: str
    point: Sequence[float]
    is_hollow: bool = False


def nodules_of(regions: Sequence[Region], path: Path, volume: Volume) -> list[Nodule]:
    """Return the nodules of a file's regions, in their order; equal names are numbered.

    Raises:
        PointsError: there is none, there are too many, or all lie outside the CT.
    """
    if not regions:
        raise PointsError("no nodule: nothing is segmented", path, "give a segmentation of the nodules")
    check_count(regions, path)
    names = _apart([region.name for region in regions])
    nodules = [
        make_nodule(name, tuple(map(float, region.point)), k, path)
        for k, (name, region) in enumerate(zip(names, regions, strict=True), start=1)
    ]
    _check_place(nodules, path, volume)
    for nodule, region in zip(nodules, regions, strict=True):
        if region.is_hollow:
            logger.warning(
                "%s: nodule %s: its centre of mass lies outside its own region", path, shortened(nodule.name)
            )
    return nodules


def check_litres(millilitres: float, what: str, path: Path) -> None:
    """Refuse a segmentation that is larger than all nodules of a patient, such as a lung.

    Raises:
        PointsError: It is larger.
    """
    if millilitres > MAX_NODULE_ML:
        raise PointsError(
            f"{what} {millilitres / 1000:.1f} litres", path, "give a segmentation of the nodules and of nothing else"
        )


def _apart(names: Sequence[str]) -> list[str]:
    """Return the names, equal ones numbered from 1: "a-1", "a-2"."""
    used = Counter(names)
    numbers = {name: count(1) for name in used}

    def own(name: str) -> str:
        numbered = (f"{name}-{k}" for k in numbers[name])
        return name if used[name] == 1 else next(new for new in numbered if new not in used)

    return [own(name) for name in names]


def _check_place(nodules: Sequence[Nodule], path: Path, volume: Volume) -> None:
    nearest = min(volume.distance_outside_mm(nodule.point) for nodule in nodules)
    if nearest > FACE_TOLERANCE_MM:
        raise PointsError(
            f"all that is segmented lies outside the CT, by {nearest:.0f} mm or more",
            path,
            f"give a segmentation of {volume.source.name}, with its position in space",
        )
