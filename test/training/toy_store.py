"""Small blocks in memory; readers in processes of their own import nothing more for them."""

import os
import signal

import numpy as np

from nodulemc.data.block_store import NoduleBlock
from nodulemc.errors import TableError


class ToyStore:
    """Blocks of bright (malignant) and faint (benign) spheres; picklable, made on demand."""

    folder = "toys"

    def __init__(self, count: int, table: list[dict] | None = None) -> None:
        self.count = count
        self.table = table

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> NoduleBlock:
        random = np.random.default_rng([99, index])
        shape = np.array((24, 30 + index % 3, 28))
        z, y, x = np.indices(shape) - ((shape - 1) / 2)[:, None, None, None]
        mask = (np.sqrt(z**2 + y**2 + x**2) < 5).astype(np.uint8)
        hu = -850 + random.normal(0, 40, shape) + mask.astype(float) * (900 if index % 2 else 300)
        matrix = np.diag([2.0, 2.0, 2.2])
        return NoduleBlock(
            hu.round().astype(np.int16),
            mask,
            origin=np.zeros(3),
            matrix=matrix,
            point=matrix @ ((shape[::-1] - 1) / 2),
            scan_bounds=(np.full(3, -0.5), shape[::-1] - 0.5),
            row={},
        )


class UnreadableStore(ToyStore):
    """Raises at block 0, and block 1 kills whoever reads it."""

    def __getitem__(self, index: int) -> NoduleBlock:
        if index == 0:
            raise TableError("the file holds 7 of 9 bytes", "store: voxels", "copy it again")
        os.kill(os.getpid(), signal.SIGKILL)
