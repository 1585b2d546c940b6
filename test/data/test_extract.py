from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import rotation
from training.luna25_files import Cohort, point_of, write_challenge_block

from nodulemc.ct.volume import Volume
from nodulemc.data.block_store import NoduleBlock
from nodulemc.data.extract import ChallengeBlockSource, Excluded, Sample, ScanSource
from nodulemc.data.nodule_masks import MaskFile, MaskFolder
from nodulemc.data.nodule_table import read_table
from nodulemc.errors import ImageError
from nodulemc.patch import SIZE, VOXEL_MM, extract_patch


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return Cohort(tmp_path_factory.mktemp("cohort") / "cohort")


def sample(cohort: Cohort, row: dict) -> Sample:
    masks = MaskFolder(cohort.folder / "masks")
    grid = ScanSource(cohort.folder / "ct").grid(row)
    return Sample(row, masks.fit(masks.find(row), row, grid, whole_scan=True))


def cut(cohort: Cohort) -> list[tuple[dict, NoduleBlock]]:
    """Every nodule that has a mask, with its row as the test wrote it."""
    read = read_table(cohort.folder / "table.csv").rows
    return [
        (written, *ScanSource(cohort.folder / "ct").cut([sample(cohort, row)]))
        for row, written in zip(read, cohort.rows, strict=True)
        if cohort.mask_path(row).is_file()
    ]


def as_image(block: NoduleBlock) -> sitk.Image:
    image = sitk.GetImageFromArray(block.voxels)
    spacing = np.linalg.norm(block.matrix, axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(block.origin.tolist())
    image.SetDirection((block.matrix / spacing).ravel().tolist())
    return image


@pytest.mark.heavy
def test_voxels_and_mask_are_those_of_the_scan(cohort: Cohort):
    blocks = cut(cohort)
    assert len(blocks) == 4
    for row, block in blocks:
        ct, mask = cohort.ct_of(row), cohort.mask_of(row)
        low = ct.TransformPhysicalPointToIndex(block.origin.tolist())
        box = tuple(slice(a, a + n) for a, n in zip(low[::-1], block.voxels.shape, strict=True))
        assert block.voxels.dtype == np.int16
        np.testing.assert_array_equal(block.voxels, sitk.GetArrayFromImage(ct)[box])
        assert block.mask.dtype == np.uint8
        np.testing.assert_array_equal(block.mask, sitk.GetArrayFromImage(mask)[box])
        assert block.mask.sum() == sitk.GetArrayFromImage(mask).sum() > 100
        np.testing.assert_array_equal(block.point, point_of(row))
        last = np.array(block.voxels.shape[::-1]) - 1
        world = block.origin + block.matrix @ last
        np.testing.assert_allclose(world, ct.TransformIndexToPhysicalPoint((np.array(low) + last).tolist()), atol=1e-9)


def test_scan_bounds_are_the_scans_outer_faces(cohort: Cohort):
    for row, block in cut(cohort):
        ct = cohort.ct_of(row)
        for face, index in zip(block.scan_bounds, ([-0.5] * 3, [n - 0.5 for n in ct.GetSize()]), strict=True):
            expected = ct.TransformContinuousIndexToPhysicalPoint(index)
            np.testing.assert_allclose(block.origin + block.matrix @ face, expected, atol=1e-9)


def test_block_reaches_as_far_as_a_turned_patch(cohort: Cohort):
    """A corner of a 50 mm cube is 25·√3 mm from its centre, which may move by 2.5 mm, along any axis of the scan."""
    borders = 0
    for row, block in cut(cohort):
        ct = cohort.ct_of(row)
        reach = (25 * np.sqrt(3) + 2.5) / np.array(ct.GetSpacing())
        low = np.array(ct.TransformPhysicalPointToIndex(block.origin.tolist()))
        high = low + block.voxels.shape[::-1] - 1
        centre = np.array(ct.TransformPhysicalPointToContinuousIndex(point_of(row).tolist()))
        assert (low == np.maximum(np.floor(centre - reach), 0)).all()
        assert (high >= np.minimum(np.ceil(centre + reach), np.array(ct.GetSize()) - 1)).all()
        borders += (low == 0).sum()
    assert 0 < borders < 12


@pytest.mark.heavy
def test_no_augmentation_leaves_the_block(cohort: Cohort):
    """Patches turned by any angle and shifted by 2.5 mm are the same from the block as from the whole scan."""
    random = np.random.default_rng(0)
    smaller = 0
    for row, block in cut(cohort):
        ct = cohort.ct_of(row)
        smaller += block.voxels.size < sitk.GetArrayFromImage(ct).size
        for _ in range(12):
            shift = random.normal(size=3)
            turn = sitk.Euler3DTransform(point_of(row).tolist(), *random.uniform(-np.pi, np.pi, 3).tolist())
            turn.SetTranslation((2.5 * shift / np.linalg.norm(shift)).tolist())
            resample = sitk.ResampleImageFilter()
            resample.SetSize([SIZE] * 3)
            resample.SetOutputSpacing([VOXEL_MM] * 3)
            resample.SetOutputOrigin((point_of(row) - (SIZE - 1) / 2 * VOXEL_MM).tolist())
            resample.SetTransform(turn)
            resample.SetDefaultPixelValue(-1000)
            patches = [
                sitk.GetArrayFromImage(resample.Execute(sitk.Cast(image, sitk.sitkFloat32)))
                for image in (ct, as_image(block))
            ]
            np.testing.assert_allclose(patches[1], patches[0], atol=0.01)
    assert smaller >= 2


def test_patch_is_that_of_inference(cohort: Cohort):
    for row, block in cut(cohort):
        of_scan = extract_patch(Volume(cohort.ct_of(row), Path("ct")), point_of(row))
        of_block = extract_patch(Volume(as_image(block), Path("block")), block.point)
        np.testing.assert_allclose(of_block, of_scan, atol=1e-5)


@pytest.mark.parametrize("direction", [None, rotation(0, 0, 90), np.diag([-1.0, -1, 1]), rotation(12, 5, -9)])
def test_challenge_block_gives_the_patch_of_its_scan(direction, tmp_path: Path):
    cohort = Cohort(tmp_path / "cohort")
    row = read_table(tmp_path / "cohort" / "table.csv").rows[0]
    ct = cohort.ct_of(cohort.rows[0])
    if direction is not None:
        ct.SetDirection(direction.ravel().tolist())
    size = np.array([128, 128, 64])
    row |= dict(
        zip(("CoordX", "CoordY", "CoordZ"), ct.TransformContinuousIndexToPhysicalPoint((70.3, 66.8, 40.1)), strict=True)
    )
    low = np.array(ct.TransformPhysicalPointToIndex(point_of(row).tolist())) - size // 2
    # The block starts before the scan does, where the challenge has padding.
    padded = sitk.ConstantPad(ct, [9] * 3, [99] * 3, -1024)
    part = padded[tuple(slice(int(a) + 9, int(a + n) + 9) for a, n in zip(low, size, strict=True))]
    write_challenge_block(tmp_path / "blocks", row["AnnotationID"], part)
    mask = np.zeros(size[::-1], np.uint8)
    mask[30:35, 60:66, 61:67] = 1
    (tmp_path / "masks" / "image").mkdir(parents=True)
    np.save(tmp_path / "masks" / "image" / f"{row['AnnotationID']}.npy", mask)

    source, masks = ChallengeBlockSource(tmp_path / "blocks"), MaskFolder(tmp_path / "masks")
    fitted = masks.fit(masks.find(row), row, source.grid(row), whole_scan=False)
    [block] = source.cut([Sample(row, fitted)])
    np.testing.assert_array_equal(block.mask, mask)
    assert block.voxels.shape == (64, 128, 128)
    assert np.isinf(block.scan_bounds).all()
    patches = [extract_patch(Volume(image, Path("ct")), point_of(row)) for image in (ct, as_image(block))]
    np.testing.assert_allclose(patches[1], patches[0], atol=1e-5)
    assert patches[0].std() > 0.1


def test_hu_of_other_types_are_rounded_and_kept_in_range(tmp_path: Path):
    cohort = Cohort(tmp_path / "cohort")
    row = read_table(cohort.folder / "table.csv").rows[0]
    ct = sitk.Cast(cohort.ct_of(cohort.rows[0]), sitk.sitkFloat32) + 0.3
    middle = ct.TransformPhysicalPointToIndex(point_of(row).tolist())
    ct[middle] = 1e6
    sitk.WriteImage(ct, str(cohort.folder / "ct" / "1.2.3.mha"))
    [block] = ScanSource(cohort.folder / "ct").cut([sample(cohort, row)])
    low = ct.TransformPhysicalPointToIndex(block.origin.tolist())
    place = tuple(np.subtract(middle, low)[::-1])
    assert block.voxels[place] == 32767
    neighbour = (place[0], place[1], place[2] + 1)
    assert block.voxels[neighbour] == cohort.ct_of(row)[middle[0] + 1, middle[1], middle[2]]

    ct[middle] = float("nan")
    sitk.WriteImage(ct, str(cohort.folder / "ct" / "1.2.3.mha"))
    with pytest.raises(ImageError, match=r"NaN or infinite: .*1\.2\.3\.mha"):
        ScanSource(cohort.folder / "ct").cut([sample(cohort, row)])


def test_nodule_that_its_mask_does_not_have_is_excluded(cohort: Cohort, tmp_path: Path):
    row = read_table(cohort.folder / "table.csv").rows[0]
    ct = cohort.ct_of(row)
    path = tmp_path / f"{row['AnnotationID']}.nii.gz"
    sitk.WriteImage(sitk.Cast(ct * 0, sitk.sitkUInt8), str(path))
    [result] = ScanSource(cohort.folder / "ct").cut([Sample(row, MaskFile(path, (0, 0, 0), False))])
    assert result == Excluded("11_1_19990102", "11_1_19990102.nii.gz has no voxel of it within 5 mm of its point")
