from pathlib import Path

import numpy as np
import pytest
from conftest import make_ct, rotation
from training.luna25_files import write_challenge_block

from nodulemc.data.luna25_blocks import block_grid, map_array
from nodulemc.errors import ImageError


@pytest.mark.parametrize("direction", [None, np.diag([-1.0, -1.0, 1.0]), rotation(20, -15, 30)])
def test_geometry_is_simpleitks(direction, tmp_path: Path):
    image = make_ct(size=(9, 8, 7), direction=direction)
    write_challenge_block(tmp_path, "n", image)
    grid = block_grid(tmp_path, "n")
    assert grid.size == (9, 8, 7)
    for index in ((0, 0, 0), (8, 0, 0), (0, 7, 0), (0, 0, 6), (3, 5, 2)):
        world = grid.origin + grid.matrix @ index
        np.testing.assert_allclose(world, image.TransformIndexToPhysicalPoint(index), atol=1e-9)


@pytest.mark.parametrize("name", ["image", "metadata"])
def test_every_damage_is_an_error_or_harmless(name: str, tmp_path: Path):
    write_challenge_block(tmp_path, "n", make_ct(size=(4, 4, 4)))
    path = tmp_path / name / "n.npy"
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), random.integers(1, 4)):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged[: random.integers(1, len(whole) + 1)] if random.random() < 0.3 else damaged)
        try:
            block_grid(tmp_path, "n")
        except ImageError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spacing": np.array([1.0, 1.0])}, r"have shapes \(3,\), \(2,\), \(3, 3\)"),
        ({"transform": np.eye(3) * 1.1}, "contradict each other"),
        ({"spacing": np.array([-1.5, 0.8, 0.7])}, "contradict each other"),
        ({"transform": np.zeros((3, 3))}, "contradict each other"),
        ({"origin": np.array([np.nan, 0, 0])}, "contradict each other"),
        ({"origin": None}, "cannot read the metadata"),
    ],
)
def test_metadata_that_make_no_sense(change: dict, message: str, tmp_path: Path):
    write_challenge_block(tmp_path, "n", make_ct(size=(4, 4, 4)))
    path = tmp_path / "metadata" / "n.npy"
    np.save(path, np.load(path, allow_pickle=True).item() | change)
    with pytest.raises(ImageError, match=message):
        block_grid(tmp_path, "n")


def test_missing_key(tmp_path: Path):
    write_challenge_block(tmp_path, "n", make_ct(size=(4, 4, 4)))
    np.save(tmp_path / "metadata" / "n.npy", {"origin": np.zeros(3)})
    with pytest.raises(ImageError, match="no origin, spacing and transform"):
        block_grid(tmp_path, "n")


def test_arrays_of_objects_are_no_voxels(tmp_path: Path):
    for content, message in (
        (np.array([[[{}]]], object), "cannot read the array"),
        (np.zeros((3, 3)), "float64 3×3"),
        (np.array([[["a"]]]), "<U1 1×1×1"),
    ):
        np.save(tmp_path / "a.npy", content, allow_pickle=True)
        with pytest.raises(ImageError, match=message):
            map_array(tmp_path / "a.npy")
    with pytest.raises(ImageError, match="cannot read the array"):
        map_array(tmp_path / "absent.npy")
