"""The work of a reading process: one scan from its files to the network's inputs."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from nodulemc.cohort.fingerprint import Fingerprint, hash_inputs, stat_signature
from nodulemc.ct.volume import Volume, read_volume
from nodulemc.errors import ImageError, NoduleMCError, ResourceError, out_of_memory
from nodulemc.measure.mask import nodule_part
from nodulemc.points.reading import read_points
from nodulemc.prediction import prepare_inputs

if TYPE_CHECKING:
    import SimpleITK as sitk

    from nodulemc.arrays import Array
    from nodulemc.cohort.scan import Scan
    from nodulemc.points.nodules import Nodule
    from nodulemc.quality import ScanWarnings
    from nodulemc.report.pictures import View


@dataclass(frozen=True)
class Job:
    """A scan to read.

    Attributes:
        scan: The scan.
        known: The inputs of an existing result, which counts as long as they stay the same.
        measure: Whether its nodules are to be measured; this needs more than the network's inputs.
        views: Whether its page is wanted; this needs still more.
        only_page: Whether its result counts and only its page is missing.
    """

    scan: Scan
    known: Fingerprint | None = None
    measure: bool = False
    views: bool = False
    only_page: bool = False


@dataclass(frozen=True)
class Read:
    """A scan's nodules, their patches (float32 (N, 64, 64, 64), see ``nodulemc.prediction``) and warnings.

    ``parts`` are the scan's own voxels in the nodules' cubes, empty if nothing is measured. ``views`` are the nodules'
    pictures for its page, empty if none is wanted.
    """

    fingerprint: Fingerprint
    nodules: tuple[Nodule, ...]
    patches: Array
    warnings: ScanWarnings
    parts: tuple[sitk.Image, ...] = ()
    views: tuple[View, ...] = ()


@dataclass(frozen=True)
class Unchanged:
    """The scan's files were touched, but have the same content."""

    fingerprint: Fingerprint


@dataclass(frozen=True)
class Failed:
    """The scan cannot be scored; ``traceback`` is for faults of this program."""

    fingerprint: Fingerprint
    error: NoduleMCError
    traceback: str | None = None


Reading: TypeAlias = Read | Unchanged | Failed


def read_scan(job: Job) -> Reading:
    """Read one scan. This never raises, so that no scan stops the others."""
    fingerprint = Fingerprint(stat_signature(job.scan))
    try:
        fingerprint = hash_inputs(job.scan)
        if job.known is not None and job.known.same_content(fingerprint):
            return Unchanged(fingerprint)
        with _logged_warnings() as said:
            volume = read_volume(job.scan.path, series=job.scan.series)
            points = job.scan.points
            nodules = points if isinstance(points, tuple) else tuple(read_points(points, volume))
            patches, warnings = prepare_inputs(volume, nodules)
            views = _views(volume, nodules) if job.views else ()
            parts = _parts(volume, nodules, views) if job.measure else ()
        return Read(fingerprint, nodules, patches, replace(warnings, scan=(*said, *warnings.scan)), parts, views)
    except NoduleMCError as error:
        return Failed(fingerprint, error)
    except Exception as error:
        return Failed(fingerprint, *_explained(error, job.scan))


def _parts(volume: Volume, nodules: Sequence[Nodule], views: Sequence[View]) -> tuple[sitk.Image, ...]:
    """Return the scan's voxels in the nodules' cubes; those of views are not copied."""
    return tuple(view.part for view in views) or tuple(nodule_part(volume, nodule.point) for nodule in nodules)


def _views(volume: Volume, nodules: Sequence[Nodule]) -> tuple[View, ...]:
    from nodulemc.report.pictures import look_at_nodule  # Pillow comes with an extra

    return tuple(look_at_nodule(volume, nodule) for nodule in nodules)


def _explained(error: Exception, scan: Scan) -> tuple[NoduleMCError, str | None]:
    if out_of_memory(error):
        return ResourceError("out of memory", scan.path, "use fewer --workers, then --retry-failed"), None
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        return ImageError(f"cannot read ({reason})", error.filename or scan.path, "check the path and the file"), None
    what = f"a fault of this program ({type(error).__name__}: {error})"
    remedy = "please report it with what `nodulemc cohort-status` shows"
    return NoduleMCError(what, scan.path, remedy), traceback.format_exc()


class _Collector(logging.Handler):
    """Collects messages in ``said``."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@contextmanager
def _logged_warnings() -> Iterator[list[str]]:
    """Collect the package's log messages in the block, instead of showing them."""
    logger = logging.getLogger("nodulemc")
    handler = _Collector()
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    try:
        yield handler.said
    finally:
        logger.propagate = propagate
        logger.removeHandler(handler)
