"""A nodule's name and place, and the checks of both."""

import math
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass
from typing import Any

from nodulemc.errors import PointsError
from nodulemc.limits import MAX_NAME_LENGTH, MAX_NODULES


@dataclass(frozen=True)
class Nodule:
    """One nodule: where it is, and what it is called.

    Attributes:
        name: The nodule's name. None if its file gives none.
        point: A point in the nodule, best its centre: x, y, z in mm (LPS).

    Examples:
        >>> from nodulemc import Nodule
        >>> Nodule("left upper lobe", (61.1, -163.3, -177.8))
        Nodule(name='left upper lobe', point=(61.1, -163.3, -177.8))
    """

    name: str | None
    point: tuple[float, float, float]


def as_nodules(points: Iterable[Any]) -> list[Nodule]:
    """Make nodules from Python values: each is a ``Nodule``, or a sequence or array x, y, z in mm (LPS).

    Raises:
        PointsError: a name is no text or too long, or a point is not three finite numbers.
    """
    nodules = []
    for position, given in enumerate(points, start=1):
        name, point = (given.name, given.point) if isinstance(given, Nodule) else (None, given)
        nodules.append(make_nodule(name, _plain(point), position, "points"))
    return nodules


def make_nodule(name: Any, point: Any, position: int, source: object) -> Nodule:
    """Check one nodule; ``position`` counts from 1 and stands in for a missing name in messages.

    Raises:
        PointsError: the name is no text or too long, or the point is not three finite numbers.
    """
    if not (name is None or (isinstance(name, str) and len(name) <= MAX_NAME_LENGTH)):
        raise PointsError(
            f"the name of nodule {position} is {shortened(name)}",
            source,
            f"give a text of at most {MAX_NAME_LENGTH} characters",
        )
    is_point = (
        isinstance(point, Sequence)
        and len(point) == 3
        and all(isinstance(c, (int, float)) and not isinstance(c, bool) for c in point)
    )
    # An integer too large for a float is no coordinate either.
    if not is_point or not all(abs(c) < 1e9 and math.isfinite(c) for c in point):
        raise PointsError(
            f"the point of nodule {shortened(name or position)} is {shortened(point)}",
            source,
            "give three finite numbers: x, y, z in mm, with decimal points",
        )
    return Nodule(name, tuple(point))


def shortened(value: Any) -> str:
    """Return a value for a message, shortened and with control characters escaped."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def check_count(nodules: Sized, source: object) -> None:
    """Refuse more nodules than a scan may have.

    Raises:
        PointsError: they are more.
    """
    if len(nodules) > MAX_NODULES:
        raise PointsError(f"more than {MAX_NODULES} nodules", source, f"give at most {MAX_NODULES} per scan")


def _plain(point: Any) -> Any:
    """Return a point without array types; the arrays and scalars of numpy and torch have ``tolist``."""
    point = point.tolist() if hasattr(point, "tolist") else point
    if isinstance(point, (list, tuple)):
        return [c.tolist() if hasattr(c, "tolist") else c for c in point]
    return point
