"""Nodules of a block store: their table, their patches, and an ensemble's predictions for them."""

from pathlib import Path

import numpy as np

from nodulemc.arrays import Array
from nodulemc.columns import ANNOTATION, ATTRIBUTE_PREFIX, ENSEMBLE, PATIENT, SEED_PREFIX, TRAINED_ON
from nodulemc.ct.volume import Volume
from nodulemc.data.block_store import BlockStore, NoduleBlock
from nodulemc.ensemble.ensemble import Ensemble
from nodulemc.patch import extract_patch
from nodulemc.util.csv_files import write_csv_atomically
from nodulemc.util.progress import progress
from nodulemc.util.table_rows import TableRow

# The number of patches in memory at a time.
_BATCH = 16


class StoredNodules:
    """A block store, by AnnotationID.

    Attributes:
        table: The nodules' rows, in the form of ``nodulemc.evaluation.predictions.read_table``.
    """

    def __init__(self, folder: Path) -> None:
        """Open the store.

        Raises:
            TableError: it cannot be used.
        """
        self._store = BlockStore(folder)
        self._position = {row["AnnotationID"]: k for k, row in enumerate(self._store.table)}
        self.table = {
            row[ANNOTATION]: TableRow(folder, k, {column: "" if v is None else str(v) for column, v in row.items()})
            for k, row in enumerate(self._store.table, start=1)
        }

    def patch(self, name: str) -> Array | None:
        """Return a nodule's patch, float32 (64, 64, 64), axes z, y, x, values 0…1. None if it is not in the store."""
        return self._patch(name) if name in self._position else None

    def _patch(self, name: str) -> Array:
        block = self._store[self._position[name]]
        return extract_patch(_volume(block, self._store.folder / name), block.point.tolist())

    def predict(self, ensemble: Ensemble, output: Path) -> None:
        """Predict all nodules and write a CSV.

        Its columns are AnnotationID, label, probability, one for each member, PatientID, one for each attribute, and
        those that describe the ensemble.

        Raises:
            FileError: the file cannot be written.
        """
        names = list(self._position)
        batches = [names[start : start + _BATCH] for start in range(0, len(names), _BATCH)]
        parts = [
            ensemble.findings(np.stack([self._patch(name) for name in batch]))
            for batch in progress(batches, len(batches), "predict")
        ]
        by_member, attributes = (np.concatenate(part) for part in zip(*parts, strict=True))
        seeds = [SEED_PREFIX + name.removeprefix(SEED_PREFIX) for name in ensemble.manifest.member_names]
        origin = (ensemble.manifest.sha256, ensemble.manifest.trained_on)
        rows = [
            [name, self.table[name].cells["label"], vote, *values, self.table[name].cells[PATIENT], *told, *origin]
            for name, vote, values, told in zip(
                names, ensemble.vote(by_member).tolist(), by_member.tolist(), attributes.tolist(), strict=True
            )
        ]
        told = [ATTRIBUTE_PREFIX + name for name in ensemble.manifest.attributes]
        header = ["AnnotationID", "label", "probability", *seeds, PATIENT, *told, ENSEMBLE, TRAINED_ON]
        write_csv_atomically(output, [header, *rows])


def _volume(block: NoduleBlock, source: Path) -> Volume:
    """Return the block as a CT. It holds every voxel of the scan that a patch around its point can touch."""
    return Volume(block.grid.image(block.voxels), source)
