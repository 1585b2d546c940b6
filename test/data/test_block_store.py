import errno
import fcntl
import multiprocessing
import os
import pickle
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nodulemc.data.block_store import BlockStore, BlockWriter, NoduleBlock
from nodulemc.errors import TableError

FILES = ("table.parquet", "voxels.i16", "masks.u8")


def make_block(number: int, *, mask: bool = True) -> NoduleBlock:
    random = np.random.default_rng(number)
    shape = tuple(random.integers(2, 9, 3).tolist())
    point = random.normal(size=3)
    return NoduleBlock(
        voxels=random.integers(-(2**15), 2**15, shape).astype(np.int16),
        mask=random.integers(0, 2, shape).astype(np.uint8) if mask else None,
        origin=random.normal(size=3),
        matrix=random.normal(size=(3, 3)),
        point=point,
        scan_bounds=(np.array([-0.5, -np.inf, -20.5]), np.array([33.5, np.inf, 7.5])),
        row={
            "PatientID": number,
            "AnnotationID": f"{number}_1",
            **dict(zip(("CoordX", "CoordY", "CoordZ"), point.tolist(), strict=True)),
            "label": number % 2,
            "margin": None if number % 3 else "smooth",
        },
    )


def assert_same(stored: NoduleBlock, block: NoduleBlock) -> None:
    assert stored.voxels.dtype == np.int16
    np.testing.assert_array_equal(stored.voxels, block.voxels)
    if block.mask is None:
        assert stored.mask is None
    else:
        assert stored.mask.dtype == np.uint8
        np.testing.assert_array_equal(stored.mask, block.mask)
    for name in ("origin", "matrix", "point"):
        np.testing.assert_array_equal(getattr(stored, name), getattr(block, name))
    np.testing.assert_array_equal(stored.scan_bounds, block.scan_bounds)


def write(folder: Path, numbers) -> None:
    with BlockWriter(folder) as writer:
        for number in numbers:
            writer.add(make_block(number))


def contents(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in FILES]


def test_blocks_come_back_as_they_were_written(tmp_path: Path):
    write(tmp_path, range(5))
    store = BlockStore(tmp_path)
    assert len(store) == 5
    for number in (3, 0, 4, 1, 2):
        assert_same(store[number], make_block(number))
    assert store.table[3] == store[3].row
    row = make_block(3).row
    assert store[3].row == row | {"PatientID": "3", "margin": "smooth"}
    assert store[4].row["margin"] == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    with pytest.raises(IndexError):
        store[5]


def test_files_are_little_endian_and_one_block_after_the_other(tmp_path: Path):
    write(tmp_path, range(2))
    expected = b"".join(make_block(k).voxels.astype("<i2").tobytes() for k in range(2))
    assert (tmp_path / "voxels.i16").read_bytes() == expected


def test_block_without_mask(tmp_path: Path):
    with BlockWriter(tmp_path) as writer:
        for number in range(3):
            writer.add(make_block(number, mask=number != 1))
    store = BlockStore(tmp_path)
    assert_same(store[1], make_block(1, mask=False))
    assert_same(store[2], make_block(2))


def test_a_copy_for_another_process_reads_the_same(tmp_path: Path):
    write(tmp_path, range(3))
    store = BlockStore(tmp_path)
    assert_same(store[0], make_block(0))
    sent = pickle.dumps(store)
    assert len(sent) < 500
    assert_same(pickle.loads(sent)[2], make_block(2))  # noqa: S301 (what worker processes do)


def test_blocks_are_not_loaded_until_asked_for(tmp_path: Path):
    write(tmp_path, range(3))
    store = BlockStore(tmp_path)
    block = store[1]
    # What is written to the file now is seen, so it has not been copied.
    with (tmp_path / "voxels.i16").open("r+b") as file:
        file.seek(store[0].voxels.nbytes)
        file.write(np.array([-77], "<i2").tobytes())
    assert block.voxels[0, 0, 0] == -77
    with pytest.raises(ValueError, match="read-only"):
        block.voxels[0, 0, 0] = 0


def test_blocks_added_later(tmp_path: Path):
    write(tmp_path / "at_once", range(5))
    write(tmp_path / "in_turn", range(2))
    write(tmp_path / "in_turn", range(5))
    assert contents(tmp_path / "in_turn") == contents(tmp_path / "at_once")


class StopError(Exception):
    pass


def write_and_stop(folder: Path, numbers) -> None:
    with BlockWriter(folder) as writer:
        for number in numbers:
            writer.add(make_block(number))
        raise StopError


def interrupt(folder: Path, numbers) -> None:
    with pytest.raises(StopError):
        write_and_stop(folder, numbers)


def test_stopped_run_is_no_store_until_it_is_finished(tmp_path: Path):
    write(tmp_path / "at_once", range(5))
    interrupt(tmp_path / "stopped", range(3))
    with pytest.raises(TableError, match="unfinished"):
        BlockStore(tmp_path / "stopped")
    with BlockWriter(tmp_path / "stopped") as writer:
        assert list(writer.rows) == ["0_1", "1_1", "2_1"]
        assert "2_1" in writer
        assert "3_1" not in writer
        for number in range(3, 5):
            writer.add(make_block(number))
    assert contents(tmp_path / "stopped") == contents(tmp_path / "at_once")


def write_and_be_killed(folder: Path) -> None:
    with BlockWriter(folder) as writer:
        for number in range(3):
            writer.add(make_block(number))
        os.kill(os.getpid(), signal.SIGKILL)


def test_killed_run_keeps_its_blocks(tmp_path: Path):
    process = multiprocessing.get_context("fork").Process(target=write_and_be_killed, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with BlockWriter(tmp_path) as writer:
        assert list(writer.rows) == ["0_1", "1_1", "2_1"]
    for number in range(3):
        assert_same(BlockStore(tmp_path)[number], make_block(number))


def test_one_writer_at_a_time(tmp_path: Path):
    with BlockWriter(tmp_path) as writer:
        writer.add(make_block(0))
        before = [(path, path.stat().st_size) for path in sorted(tmp_path.iterdir())]
        with pytest.raises(TableError, match="another run is writing this block store"), BlockWriter(tmp_path):
            pass
        assert [(path, path.stat().st_size) for path in sorted(tmp_path.iterdir())] == before
        writer.add(make_block(1))
    write(tmp_path, [2])
    for number in range(3):
        assert_same(BlockStore(tmp_path)[number], make_block(number))


def test_a_file_system_without_locks_can_hold_a_store(tmp_path: Path, monkeypatch):
    def flock(file, operation):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    write(tmp_path, range(2))
    assert len(BlockStore(tmp_path)) == 2


@pytest.mark.parametrize(
    ("name", "lost"),
    [("voxels.i16", 1), ("voxels.i16", -3), ("masks.u8", 1), ("masks.u8", -1), ("unfinished.jsonl", 1)],
)
def test_torn_last_block_is_written_again(name: str, lost: int, tmp_path: Path):
    """A kill between two writes leaves bytes missing (lost > 0) or bytes that no entry knows of."""
    write(tmp_path / "at_once", range(4))
    interrupt(tmp_path / "torn", range(3))
    path = tmp_path / "torn" / name
    if lost > 0:
        os.truncate(path, path.stat().st_size - lost)
    else:
        path.write_bytes(path.read_bytes() + b"\1" * -lost)
    with BlockWriter(tmp_path / "torn") as writer:
        assert list(writer.rows) == ["0_1", "1_1", "2_1"][: 2 if lost > 0 else 3]
        for number in range(4):
            writer.add(make_block(number))
    assert contents(tmp_path / "torn") == contents(tmp_path / "at_once")


def test_stop_while_adding_to_a_finished_store(tmp_path: Path):
    write(tmp_path / "at_once", range(4))
    write(tmp_path / "added", range(2))
    interrupt(tmp_path / "added", range(3))
    with pytest.raises(TableError, match="unfinished"):
        BlockStore(tmp_path / "added")
    write(tmp_path / "added", range(4))
    assert contents(tmp_path / "added") == contents(tmp_path / "at_once")


def test_failure_before_anything_is_added_leaves_a_finished_store(tmp_path: Path):
    write(tmp_path, range(2))
    before = contents(tmp_path)
    interrupt(tmp_path, range(2))
    assert contents(tmp_path) == before
    assert len(BlockStore(tmp_path)) == 2


def test_other_row_of_a_stored_nodule_is_refused(tmp_path: Path):
    write(tmp_path, range(2))
    block = make_block(1)
    with BlockWriter(tmp_path) as writer, pytest.raises(TableError, match=r"1_1 is stored with label 1, not 0: .*new"):
        writer.add(replace(block, row=block.row | {"label": 0}))


@pytest.mark.parametrize(
    "change",
    [
        {"voxels": make_block(1).voxels.astype(np.float32)},
        {"voxels": make_block(1).voxels[0]},
        {"mask": make_block(1).mask[1:]},
        {"mask": make_block(1).mask.astype(bool)},
        {"point": np.zeros(3)},
        {"row": {name: value for name, value in make_block(1).row.items() if name != "margin"}},
    ],
)
def test_malformed_block_is_refused_and_nothing_written(change: dict, tmp_path: Path):
    with BlockWriter(tmp_path) as writer:
        writer.add(make_block(0))
        with pytest.raises(ValueError, match=r"voxels|mask|point|columns"):
            writer.add(replace(make_block(1), **change))
    assert len(BlockStore(tmp_path)) == 1


def test_column_with_a_name_of_the_store(tmp_path: Path):
    block = make_block(0)
    with BlockWriter(tmp_path) as writer, pytest.raises(TableError, match="column 'block_offset'"):
        writer.add(replace(block, row=block.row | {"block_offset": 1}))


def test_unusable_stores(tmp_path: Path):
    with pytest.raises(TableError, match=r"no block store: .*absent: write one with `nodulemc prepare`"):
        BlockStore(tmp_path / "absent")
    write(tmp_path / "empty", [])
    with pytest.raises(TableError, match="empty"):
        BlockStore(tmp_path / "empty")
    write(tmp_path / "cut", range(2))
    os.truncate(tmp_path / "cut" / "masks.u8", 7)
    with pytest.raises(TableError, match=r"the file holds 7 of \d+ bytes: .*masks\.u8"):
        BlockStore(tmp_path / "cut")
    write(tmp_path / "damaged", range(2))
    (tmp_path / "damaged" / "table.parquet").write_bytes(b"PAR1 no longer")
    with pytest.raises(TableError, match="cannot read the table"):
        BlockStore(tmp_path / "damaged")
    (tmp_path / "file").touch()
    with pytest.raises(TableError, match="cannot write the block store"), BlockWriter(tmp_path / "file"):
        pass
