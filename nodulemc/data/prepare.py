"""Making a block store from LUNA25's files, or from phantoms."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nodulemc.data.block_store import BlockWriter, NoduleBlock
from nodulemc.data.extract import Excluded, Sample, VoxelSource
from nodulemc.data.nodule_masks import MaskFolder
from nodulemc.data.nodule_table import Row, Table, point_of
from nodulemc.errors import ImageError, TableError
from nodulemc.util.csv_files import write_csv_atomically
from nodulemc.util.progress import progress
from nodulemc.util.worker_pool import in_order

if TYPE_CHECKING:
    from nodulemc.ct.folder import CtPlace

EXCLUDED_NAME = "excluded.csv"
NO_MASK = "no mask"


@dataclass(frozen=True)
class Job:
    """The nodules of one image, cut by one worker."""

    source: VoxelSource
    samples: list[Sample]

    def run(self) -> list[NoduleBlock | Excluded]:
        """Cut the blocks."""
        return self.source.cut(self.samples)


@dataclass(frozen=True)
class Prepared:
    """The outcome for a table's nodules.

    Attributes:
        rows: The rows of the nodules in the store, in its order.
        excluded: The other nodules, in the table's order, after those that were left out before.
    """

    rows: list[Row]
    excluded: list[Excluded]


def prepare(
    table: Table, source: VoxelSource, masks: Path, output: Path, workers: int, left_out: Sequence[Excluded] = ()
) -> Prepared:
    """Write a block store and, beside it, the list of excluded nodules.

    The table, the existence and headers of all files, the coordinates and the masks' geometry are checked before the
    first block is written. Blocks are ordered by their CTs' first appearance in the table, for any number of workers.
    An unfinished store of an earlier run is continued.

    Args:
        table: The nodules.
        source: The source of their voxels.
        masks: The folder of masks, see ``nodulemc.data.nodule_masks``.
        output: The folder of the store.
        workers: The number of processes.
        left_out: Nodules that are not in the table, to be listed before the excluded ones.

    Raises:
        FileError: a file cannot be read or written.
        ImageError, TableError: a CT is missing, unreadable or damaged or does not contain the nodule's point, a mask
            does not fit its CT, no nodule has a mask, or the store holds other nodules. The message names row and file.
    """
    samples, excluded = _check(table, source, MaskFolder(masks))
    if not samples:
        raise TableError("no nodule has a mask", masks, "name masks <AnnotationID>.mha, .nii.gz, .nii or .npy")
    by_image: dict[CtPlace | None, list[Sample]] = {}
    for sample in samples:
        by_image.setdefault(sample.place, []).append(sample)
    with BlockWriter(output) as writer:
        _require_same_nodules(writer, samples, output)
        todo = [[sample for sample in group if sample.row["AnnotationID"] not in writer] for group in by_image.values()]
        jobs = [Job(source, group) for group in todo if group]
        for results in progress(in_order(Job.run, jobs, workers), len(jobs), "preparing"):
            for result in results:
                if isinstance(result, Excluded):
                    excluded[result.annotation_id] = result.reason
                else:
                    writer.add(result)
        rows = list(writer.rows.values())
    in_table_order = [
        Excluded(row["AnnotationID"], excluded[row["AnnotationID"]])
        for row in table.rows
        if row["AnnotationID"] in excluded
    ]
    listed = [*left_out, *in_table_order]
    _write_excluded(output / EXCLUDED_NAME, listed)
    return Prepared(rows, listed)


def _check(table: Table, source: VoxelSource, masks: MaskFolder) -> tuple[list[Sample], dict[str, str]]:
    """Return the nodules that have a fitting mask, and for the others the reasons against them by AnnotationID."""
    samples: list[Sample] = []
    excluded: dict[str, str] = {}
    for row, where in progress(table.located(), len(table), "checking"):
        try:
            mask = masks.find(row)
            if mask is None:
                excluded[row["AnnotationID"]] = NO_MASK
                continue
            place, grid = source.place(row), source.grid(row)
            if not grid.contains(point_of(row)):
                raise ImageError(
                    f"the CT does not contain the nodule's point {point_of(row)}",
                    place.path,
                    "check the coordinates (x, y, z in mm, LPS) and that the file is the row's scan",
                )
            fitting = masks.fit(mask, row, grid, whole_scan=source.whole_scans)
            samples.append(Sample(row, fitting, place))
        except ImageError as error:
            raise ImageError(error.what, f"{where}, {error.where}", error.remedy) from error
    return samples, excluded


def _require_same_nodules(writer: BlockWriter, samples: Iterable[Sample], output: Path) -> None:
    """Refuse to continue a store that was started with other nodules."""
    rows = {sample.row["AnnotationID"]: sample.row for sample in samples}
    for name in writer.rows:
        if name not in rows:
            raise TableError(f"the store holds {name}, which is not to be prepared", output, "write to a new folder")
        writer.require(rows[name])


def _write_excluded(path: Path, excluded: Iterable[Excluded]) -> None:
    rows = [(nodule.annotation_id, nodule.reason) for nodule in excluded]
    write_csv_atomically(path, [("AnnotationID", "reason"), *rows])
