"""One scan of a cohort, as the manifest lists it."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from nodulemc.ct.scan_ids import ScanIds
from nodulemc.errors import NoduleMCError
from nodulemc.points.nodules import Nodule
from nodulemc.points.reading import scan_name


@dataclass(frozen=True)
class Scan:
    """A scan and its nodules.

    Attributes:
        name: The path in the manifest, which names the scan in the cohort.
        path: The CT: a file or a DICOM folder.
        points: The nodules, or the file that holds them.
        labels: 1 malignant, 0 benign, None unknown: one for each nodule, or a single one for all.
        patient: The PatientID. None if the manifest does not state it.
        uids: The SeriesInstanceUIDs in the manifest.
        fault: The reason why the manifest's rows cannot be used. None if they can.
        series: The SeriesInstanceUID of the series to read in a DICOM folder. None for its only CT.
    """

    name: str
    path: Path
    points: tuple[Nodule, ...] | Path
    labels: tuple[int | None, ...] | int | None = None
    patient: str | None = None
    fault: NoduleMCError | None = None
    uids: frozenset[str] = frozenset()
    series: str | None = None

    @property
    def ids(self) -> ScanIds:
        """The scan's identifiers before it is read."""
        return ScanIds(self.uids | {scan_name(self.path)}, self.patient)

    @property
    def points_hash(self) -> str:
        """A hash of the points in the manifest, or of their file's path relative to the CT."""
        content: object
        if isinstance(self.points, Path):
            content = os.path.relpath(self.points, self.path)  # the same wherever the data are mounted
        else:
            content = [[nodule.name, *nodule.point] for nodule in self.points]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()
