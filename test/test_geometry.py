from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import make_ct, rotation

from nodulemc.ct.grids import read_grid
from nodulemc.errors import ImageError
from nodulemc.geometry import Grid


@pytest.fixture(params=[None, rotation(14, -8, 21), np.diag([-1.0, 1, -1])], ids=["straight", "oblique", "flipped"])
def ct(request: pytest.FixtureRequest) -> sitk.Image:
    return make_ct(size=(20, 18, 12), direction=request.param)


def test_world_and_index_are_simpleitks(ct: sitk.Image):
    grid = Grid.of(ct)
    np.testing.assert_allclose(grid.spacing, ct.GetSpacing(), rtol=1e-12)
    indices = np.random.default_rng(0).uniform(-5, 25, (10, 3))
    points = np.array([ct.TransformContinuousIndexToPhysicalPoint(index) for index in indices.tolist()])
    np.testing.assert_allclose(grid.to_index(points), indices, atol=1e-9)
    np.testing.assert_allclose(grid.to_index(points[0]), indices[0], atol=1e-9)


@pytest.mark.parametrize(
    ("index", "inside"),
    [
        ((-0.49, 3, 3), True),
        ((-0.51, 3, 3), False),
        ((19.49, 17.49, 11.49), True),
        ((3, 17.51, 3), False),
        ((3, 3, 11.51), False),
    ],
)
def test_scan_ends_at_the_outer_faces_of_its_voxels(index, inside: bool, ct: sitk.Image):
    assert Grid.of(ct).contains(ct.TransformContinuousIndexToPhysicalPoint(index)) is inside


def test_offset_of_a_part(ct: sitk.Image):
    grid = Grid.of(ct)
    assert grid.offset_of(grid) == (0, 0, 0)
    assert grid.offset_of(Grid.of(ct[4:9, 3:18, 7:12])) == (4, 3, 7)
    assert Grid.of(ct[4:9, 3:18, 7:12]).offset_of(grid) == (-4, -3, -7)


def test_rounded_headers_are_the_same_grid(ct: sitk.Image, tmp_path: Path):
    part = ct[4:9, 3:18, 7:12]
    sitk.WriteImage(part, str(tmp_path / "part.nii.gz"))
    assert Grid.of(ct).offset_of(read_grid(tmp_path / "part.nii.gz")) == (4, 3, 7)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.SetOrigin(np.add(image.GetOrigin(), (0, 0.1, 0)).tolist()),
        lambda image: image.SetSpacing(np.multiply(image.GetSpacing(), (1, 1, 1.02)).tolist()),
        lambda image: image.SetDirection(
            (np.array(image.GetDirection()).reshape(3, 3) @ rotation(0, 0, 1)).ravel().tolist()
        ),
        lambda image: image.SetDirection((-np.array(image.GetDirection())).tolist()),
    ],
)
def test_other_grids_are_told_apart(change, ct: sitk.Image):
    other = sitk.Image(ct)
    change(other)
    assert Grid.of(ct).offset_of(Grid.of(other)) is None


def test_unusable_files(tmp_path: Path):
    with pytest.raises(ImageError, match=r"no such image: .*absent\.mha"):
        read_grid(tmp_path / "absent.mha")
    (tmp_path / "text.mha").write_text("no image")
    with pytest.raises(ImageError, match=r"cannot read the CT .*text\.mha"):
        read_grid(tmp_path / "text.mha")
    sitk.WriteImage(sitk.Image(4, 5, sitk.sitkInt16), str(tmp_path / "flat.mha"))
    with pytest.raises(ImageError, match="the image has '2' dimensions"):
        read_grid(tmp_path / "flat.mha")
