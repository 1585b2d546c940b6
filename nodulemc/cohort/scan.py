"""One scan of a cohort, as the manifest lists it."""

from dataclasses import dataclass
from pathlib import Path

from nodulemc.errors import NoduleMCError
from nodulemc.points import Nodule


@dataclass(frozen=True)
class Scan:
    """A scan and its nodules.

    Attributes:
        name: the path as the manifest has it; names the scan in the cohort.
        path: the CT, a file or a DICOM folder.
        points: the nodules, or the file that holds them.
        labels: 1 malignant, 0 benign, None unknown: one for each nodule, or a single one for all.
        fault: why the manifest's rows cannot be used, None where they can.
    """

    name: str
    path: Path
    points: tuple[Nodule, ...] | Path
    labels: tuple[int | None, ...] | int | None = None
    fault: NoduleMCError | None = None
