"""The block store: each nodule's surroundings, cut once from its scan, in flat memory-mapped files.

A store is a folder with ``table.parquet`` (the nodules' rows, and each block's geometry and place in the files),
``voxels.i16`` (HU, little-endian) and ``masks.u8``. Both hold one block after the other, z slowest. While a store is
being written, ``unfinished.jsonl`` lists the blocks that are safely on disk.
"""

import json
import mmap
import os
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod, sqrt
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from nodulemc.arrays import Array
from nodulemc.data.nodule_table import Row, point_of, typed
from nodulemc.errors import TableError
from nodulemc.geometry import Grid, size_of
from nodulemc.patch import EXTENT_MM
from nodulemc.util.files import write_atomically
from nodulemc.util.locks import try_to_lock

# The longest shift that augmentation may draw (from MClab's public code, dataloader_mask.py).
MAX_SHIFT_MM = 2.5
# A patch turned by any angle and shifted stays within this cube, whose inscribed sphere holds its corners.
BLOCK_MM = EXTENT_MM * sqrt(3) + 2 * MAX_SHIFT_MM

_TABLE, _VOXELS, _MASKS, _JOURNAL = "table.parquet", "voxels.i16", "masks.u8", "unfinished.jsonl"
_VOXEL_TYPE, _MASK_TYPE = np.dtype("<i2"), np.dtype("u1")
# The block's own columns in the table.
_PREFIX = "block_"
# The bounds of a scan whose extent is not known.
UNKNOWN_BOUNDS = (np.full(3, -np.inf), np.full(3, np.inf))
_AGAIN = "run the command that writes the store again; it continues where it stopped"


@dataclass(frozen=True)
class NoduleBlock:
    """A nodule with its surroundings, on its scan's own grid.

    Attributes:
        voxels: int16 (D, H, W), axes z, y, x, HU. Read-only if it comes from a store.
        mask: uint8, the same shape, 1 on the nodule. Or None.
        origin: float64 (3,), the world point x, y, z (mm, LPS) of the centre of voxel (0, 0, 0).
        matrix: float64 (3, 3), direction @ diag(spacing). It maps an index x, y, z to the world offset x, y, z in mm.
        point: float64 (3,), the nodule's world point x, y, z in mm.
        scan_bounds: The scan's outer faces, low (3,) and high (3,), as indices of this block in x, y, z order. A scan
            that starts with the block's first voxel has low -0.5. Infinite if the scan's extent is not known.
        row: The table's columns (see ``nodulemc.data.nodule_table.read_table``).
    """

    voxels: Array
    mask: Array | None
    origin: Array
    matrix: Array
    point: Array
    scan_bounds: tuple[Array, Array]
    row: Row

    @classmethod
    def on(cls, grid: Grid, voxels: Array, mask: Array, scan_bounds: tuple[Array, Array], row: Row) -> "NoduleBlock":
        """Return the block of a row's nodule on this grid."""
        return cls(voxels, mask, np.array(grid.origin), grid.matrix, np.array(point_of(row)), scan_bounds, row)

    @property
    def grid(self) -> Grid:
        """The block's own grid."""
        return Grid.from_matrix(size_of(self.voxels), self.origin, self.matrix)


class BlockStore:
    """Reads the blocks of a finished store, in the order they were written.

    Files are mapped, not loaded, when a block is first asked for. A copy in another process maps its own.

    Attributes:
        folder: The store's folder.
        table: The blocks' rows.
    """

    def __init__(self, folder: str | Path) -> None:
        """Open a store.

        Raises:
            TableError: there is no store, it is unfinished or empty, or its files are cut short.
        """
        self.folder = Path(folder)
        if not (self.folder / _TABLE).is_file() and not (self.folder / _JOURNAL).is_file():
            raise TableError("no block store", self.folder, "write one with `nodulemc prepare`")
        if (self.folder / _JOURNAL).is_file():
            raise TableError("the block store is unfinished", self.folder, _AGAIN)
        entries = _read_table(self.folder)
        if not entries:
            raise TableError("the block store is empty", self.folder, "prepare nodules that have masks")
        self.table: list[Row] = [_row_of(entry) for entry in entries]
        self._entries = entries
        self._length = _end(entries[-1])
        for name, dtype in ((_VOXELS, _VOXEL_TYPE), (_MASKS, _MASK_TYPE)):
            found = (self.folder / name).stat().st_size if (self.folder / name).is_file() else 0
            if found != self._length * dtype.itemsize:
                raise TableError(
                    f"the file holds {found} of {self._length * dtype.itemsize} bytes",
                    self.folder / name,
                    "copy the store again or write it anew",
                )
        self._voxels: _MappedFile | None = None
        self._masks: _MappedFile | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder,)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> NoduleBlock:
        """Return the block with this number. Its arrays are views of the mapped files."""
        if self._voxels is None or self._masks is None:
            self._voxels = _MappedFile(self.folder / _VOXELS, _VOXEL_TYPE)
            self._masks = _MappedFile(self.folder / _MASKS, _MASK_TYPE)
        entry, row = self._entries[index], self.table[index]
        shape = tuple(entry["block_shape"])
        place = slice(entry["block_offset"], _end(entry))
        return NoduleBlock(
            voxels=self._voxels.read_ahead(place).reshape(shape),
            mask=self._masks.read_ahead(place).reshape(shape) if entry["block_has_mask"] else None,
            origin=np.array(entry["block_origin"]),
            matrix=np.array(entry["block_matrix"]).reshape(3, 3),
            point=np.array(point_of(row)),
            scan_bounds=(np.array(entry["block_scan_low"]), np.array(entry["block_scan_high"])),
            row=dict(row),
        )


class _MappedFile:
    """A file of numbers, mapped for reading."""

    def __init__(self, path: Path, dtype: np.dtype[Any]) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._array = np.frombuffer(self._map, dtype)

    def read_ahead(self, place: slice) -> Array:
        """Return a view of some of the numbers, after telling the system to fetch all of them at once.

        If the system fetched page by page, blocks outside the page cache would come at less than half the rate.
        """
        if hasattr(mmap, "MADV_WILLNEED"):  # not on Windows
            size = self._array.itemsize
            start = place.start * size // mmap.PAGESIZE * mmap.PAGESIZE
            self._map.madvise(mmap.MADV_WILLNEED, start, place.stop * size - start)
        return self._array[place]


class BlockWriter:
    """Writes a store; use it as a context manager.

    A block counts once its voxels are on disk. If a run was killed, the rest of its last block is dropped when the
    store is opened again, and existing blocks are not written twice. The store is readable after the ``with`` statement
    has ended without an exception.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._entries: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> "BlockWriter":
        """Open the store, and create it if it does not exist.

        Raises:
            TableError, FileError: the folder cannot be written, holds a damaged store, or another run is writing it.
        """
        try:
            with ExitStack() as files:
                self._folder.mkdir(parents=True, exist_ok=True)
                # The journal is opened first and closed last, because its lock is the store's.
                self._voxels = self._open(files, _VOXELS)
                if not try_to_lock(self._voxels):
                    raise TableError("another run is writing this block store", self._folder, "wait for it")
                self._masks = self._open(files, _MASKS)
                entries = _read_table(self._folder) if (self._folder / _TABLE).is_file() else []
                self._entries = {entry["AnnotationID"]: entry for entry in [*entries, *_read_journal(self._folder)]}
                self._drop_torn_blocks()
                for file, dtype in ((self._voxels, _VOXEL_TYPE), (self._masks, _MASK_TYPE)):
                    file.truncate(self._end() * dtype.itemsize)
                since_table = list(self._entries.values())[len(entries) :]
                write_atomically(self._folder / _JOURNAL, b"".join(map(_line, since_table)))
                self._journal = self._open(files, _JOURNAL)
                self._files = files.pop_all()
        except OSError as error:
            raise self._failure(error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._files:
            if kind is None:
                _write_table(self._folder, list(self._entries.values()))
            journal = self._folder / _JOURNAL
            # A finished store to which nothing was added remains finished.
            if kind is None or ((self._folder / _TABLE).is_file() and not journal.stat().st_size):
                journal.unlink()

    def __contains__(self, annotation_id: str) -> bool:
        return annotation_id in self._entries

    @property
    def rows(self) -> dict[str, Row]:
        """Return the rows of the blocks written so far, by AnnotationID, in order."""
        return {name: _row_of(entry) for name, entry in self._entries.items()}

    def add(self, block: NoduleBlock) -> None:
        """Append a block, unless the store holds it already.

        Raises:
            TableError: the store holds a block of this AnnotationID with another row, a column has one of the store's
                own names, or the files cannot be written.
            ValueError: the block does not fit the description of ``NoduleBlock``, or its columns differ from the other
                blocks'.
        """
        row = typed(block.row)
        name = row["AnnotationID"]
        if name in self._entries:
            self.require(row)
            return
        entry = _entry(row, block, offset=self._end())
        if self._entries and entry.keys() != next(iter(self._entries.values())).keys():
            raise ValueError(f"columns {list(row)} differ from those of the first block")
        mask = np.zeros(block.voxels.shape, np.uint8) if block.mask is None else block.mask
        try:
            for file, array, dtype in ((self._voxels, block.voxels, _VOXEL_TYPE), (self._masks, mask, _MASK_TYPE)):
                file.write(np.ascontiguousarray(array, dtype).data)
                file.flush()
                os.fsync(file.fileno())
            self._journal.write(_line(entry))
            self._journal.flush()
        except OSError as error:
            raise self._failure(error) from error
        self._entries[name] = entry

    def require(self, row: Row) -> None:
        """Check that the block of this row's AnnotationID was written for the same row.

        Raises:
            TableError: it was not.
        """
        stored = _row_of(self._entries[row["AnnotationID"]])
        if stored != row:
            column = next(name for name in {**stored, **row} if stored.get(name) != row.get(name))
            raise TableError(
                f"{row['AnnotationID']} is stored with {column} {stored.get(column)!r}, not {row.get(column)!r}",
                self._folder,
                "write to a new folder",
            )

    def _end(self) -> int:
        return _end(next(reversed(self._entries.values()))) if self._entries else 0

    def _drop_torn_blocks(self) -> None:
        """Keep the entries with complete voxels and mask."""
        whole = min(
            (self._folder / name).stat().st_size // dtype.itemsize
            for name, dtype in ((_VOXELS, _VOXEL_TYPE), (_MASKS, _MASK_TYPE))
        )
        self._entries = {name: entry for name, entry in self._entries.items() if _end(entry) <= whole}

    def _open(self, files: ExitStack, name: str) -> BinaryIO:
        return files.enter_context((self._folder / name).open("ab"))

    def _failure(self, error: OSError) -> TableError:
        return TableError(
            f"cannot write the block store ({error.strerror})", self._folder, "check that it is writable and not full"
        )


def _entry(row: Row, block: NoduleBlock, offset: int) -> dict[str, Any]:
    """Return a line of the table: the row's columns and the block's."""
    reserved = next((name for name in row if name.startswith(_PREFIX)), None)
    if reserved is not None:
        raise TableError(f"column {reserved!r}", row["AnnotationID"], f"rename it: {_PREFIX}… is the store's own")
    if block.voxels.ndim != 3 or block.voxels.dtype != np.int16:
        raise ValueError(f"voxels are {block.voxels.dtype} {block.voxels.shape}, not int16 (D, H, W)")
    if block.mask is not None and (block.mask.shape != block.voxels.shape or block.mask.dtype != np.uint8):
        raise ValueError(f"mask is {block.mask.dtype} {block.mask.shape}, voxels are {block.voxels.shape}")
    if not np.array_equal(block.point, point_of(row)):
        raise ValueError(f"point {block.point} is not the row's")
    low, high = block.scan_bounds
    return {
        **row,
        "block_offset": offset,
        "block_shape": list(block.voxels.shape),
        "block_has_mask": block.mask is not None,
        "block_origin": np.asarray(block.origin, float).tolist(),
        "block_matrix": np.asarray(block.matrix, float).ravel().tolist(),
        "block_scan_low": np.asarray(low, float).tolist(),
        "block_scan_high": np.asarray(high, float).tolist(),
    }


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry).encode() + b"\n"


def _row_of(entry: dict[str, Any]) -> Row:
    return {name: value for name, value in entry.items() if not name.startswith(_PREFIX)}


def _end(entry: dict[str, Any]) -> int:
    """Return the number of voxels up to the end of this block."""
    end: int = entry["block_offset"] + prod(entry["block_shape"])
    return end


def _read_table(folder: Path) -> list[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        entries: list[dict[str, Any]] = pyarrow.parquet.read_table(folder / _TABLE).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise TableError(f"cannot read the table ({error})", folder / _TABLE, "write the store anew") from error
    return entries


def _write_table(folder: Path, entries: list[dict[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    buffer = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(entries), buffer)
    write_atomically(folder / _TABLE, buffer.getvalue().to_pybytes())


def _read_journal(folder: Path) -> list[dict[str, Any]]:
    """Return the blocks written after the table; an incomplete last line of a killed run is dropped."""
    path = folder / _JOURNAL
    if not path.is_file():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    try:
        return [json.loads(line) for line in lines]
    except ValueError as error:
        raise TableError(f"damaged list of blocks ({error})", path, "delete the store and write it anew") from error
