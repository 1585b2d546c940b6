from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from conftest import make_ct, rotation
from training.luna25_files import ball, cropped, image_like, write_challenge_block

from nodulemc.data.nodule_masks import MaskFolder
from nodulemc.errors import ImageError
from nodulemc.geometry import Grid

ROW = {"AnnotationID": "11_1_19990102", "SeriesInstanceUID": "1.2.3"}


@pytest.fixture(params=[None, rotation(14, -8, 21)], ids=["straight", "oblique"])
def ct(request: pytest.FixtureRequest) -> sitk.Image:
    return make_ct(size=(40, 38, 30), direction=request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "image").mkdir()
    return tmp_path


def point_in(ct: sitk.Image) -> tuple[float, float, float]:
    return ct.TransformContinuousIndexToPhysicalPoint((17.2, 22.9, 13.4))


def nodule(ct: sitk.Image) -> sitk.Image:
    return image_like(ball(ct, point_in(ct)), ct)


def cut_whole(folder: Path, ct: sitk.Image, *, part: sitk.Image | None = None) -> np.ndarray:
    """The mask that the folder has for the CT's nodule, on the CT's grid or on that of a part of it."""
    masks, grid = MaskFolder(folder), Grid.of(part or ct)
    fitted = masks.fit(masks.find(ROW), ROW, grid, whole_scan=part is None)
    return fitted.cut(fitted.read(), grid, (0, 0, 0), point_in(ct))


def write_nibabel(mask: sitk.Image, path: Path) -> None:
    """With 32-bit header fields, as most NIfTI files have them; RAS instead of LPS."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(mask.GetDirection()).reshape(3, 3) * mask.GetSpacing()
    affine[:3, 3] = mask.GetOrigin()
    image = nibabel.Nifti1Image(sitk.GetArrayFromImage(mask).T, np.diag([-1, -1, 1, 1]) @ affine)
    image.set_qform(image.affine, code=1)
    nibabel.save(image, path)


WRITERS: dict[str, Callable[[Path, sitk.Image], None]] = {
    "mha": lambda folder, mask: sitk.WriteImage(mask, str(folder / f"{ROW['AnnotationID']}.mha")),
    "cropped mha": lambda folder, mask: sitk.WriteImage(cropped(mask), str(folder / f"{ROW['AnnotationID']}.mha")),
    "nii.gz": lambda folder, mask: sitk.WriteImage(mask, str(folder / f"{ROW['AnnotationID']}.nii.gz")),
    "cropped nii": lambda folder, mask: write_nibabel(cropped(mask), folder / f"{ROW['AnnotationID']}.nii"),
    "other number": lambda folder, mask: sitk.WriteImage(
        sitk.Cast(mask, sitk.sitkFloat32) * 255, str(folder / f"{ROW['AnnotationID']}.mha")
    ),
    "npy": lambda folder, mask: np.save(folder / f"{ROW['AnnotationID']}.npy", sitk.GetArrayFromImage(mask)),
    "boolean npy": lambda folder, mask: np.save(
        folder / "image" / f"{ROW['AnnotationID']}.npy", sitk.GetArrayFromImage(mask) > 0
    ),
    "npy with metadata": lambda folder, mask: write_challenge_block(
        folder, ROW["AnnotationID"], sitk.ConstantPad(cropped(mask), [30] * 3, [30] * 3, 0)
    ),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_gives_the_same_mask(name: str, ct: sitk.Image, folder: Path):
    WRITERS[name](folder, nodule(ct))
    mask = cut_whole(folder, ct)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, sitk.GetArrayFromImage(nodule(ct)))
    assert mask.sum() > 100


def test_mask_cut_to_a_part_of_the_image(ct: sitk.Image, folder: Path):
    WRITERS["cropped mha"](folder, nodule(ct))
    masks = MaskFolder(folder)
    fitted = masks.fit(masks.find(ROW), ROW, Grid.of(ct), whole_scan=True)
    part = ct[12:25, 20:38, 10:19]
    mask = fitted.cut(fitted.read(), Grid.of(part), (12, 20, 10), point_in(ct))
    expected = sitk.GetArrayFromImage(nodule(ct))[10:19, 20:38, 12:25]
    np.testing.assert_array_equal(mask, expected)
    assert 0 < expected.sum() < sitk.GetArrayFromImage(nodule(ct)).sum()


def write_scan_mask(folder: Path, ct: sitk.Image, *balls: tuple[tuple[float, float, float], float, int]) -> None:
    """One number per nodule, given by offset in mm from the point, radius in mm and number."""
    numbers = np.zeros(ct.GetSize()[::-1], np.uint8)
    for offset, radius, number in balls:
        numbers[ball(ct, np.add(point_in(ct), offset), radius) > 0] = number
    sitk.WriteImage(image_like(numbers, ct), str(folder / f"{ROW['SeriesInstanceUID']}.nii.gz"))


def test_number_of_a_scans_mask_is_the_one_at_the_point(ct: sitk.Image, folder: Path):
    write_scan_mask(folder, ct, ((0, 0, 0), 4, 7), ((9, 0, 0), 4, 2))
    np.testing.assert_array_equal(cut_whole(folder, ct), ball(ct, point_in(ct), 4))


def test_number_of_a_scans_mask_near_the_point(ct: sitk.Image, folder: Path):
    """The point lies 3 mm beside nodule 2 and 1 mm beside nodule 7, which is the smaller one."""
    write_scan_mask(folder, ct, ((0, 9, 0), 6, 2), ((0, -4, 0), 3, 7))
    expected = ball(ct, np.add(point_in(ct), (0, -4, 0)), 3)
    np.testing.assert_array_equal(cut_whole(folder, ct), expected)


def test_nearness_is_in_mm(ct: sitk.Image, folder: Path):
    """Nodule 7 is 3 mm away along x, which is 4 voxels; nodule 2 is 4 mm away along z, which is less than 3."""
    write_scan_mask(folder, ct, ((6, 0, 0), 3, 7), ((0, 0, 7), 3, 2))
    np.testing.assert_array_equal(cut_whole(folder, ct), ball(ct, np.add(point_in(ct), (6, 0, 0)), 3))


@pytest.mark.parametrize("balls", [(), (((0, 10, 0), 3, 1),)])
def test_scans_mask_without_the_nodule(balls, ct: sitk.Image, folder: Path):
    write_scan_mask(folder, ct, *balls)
    assert not cut_whole(folder, ct).any()


def test_own_mask_goes_before_the_scans(ct: sitk.Image, folder: Path):
    write_scan_mask(folder, ct, ((0, 0, 0), 2, 1))
    WRITERS["mha"](folder, nodule(ct))
    np.testing.assert_array_equal(cut_whole(folder, ct), sitk.GetArrayFromImage(nodule(ct)))


def test_nodule_named_after_its_scan(ct: sitk.Image, folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Its own mask may have several numbers, all of which are nodule."""
    monkeypatch.setitem(ROW, "AnnotationID", "1.2.3_1")
    two = sitk.GetArrayFromImage(nodule(ct))
    two[:13] *= 2
    WRITERS["mha"](folder, image_like(two, ct))
    np.testing.assert_array_equal(cut_whole(folder, ct), two > 0)


def shifted(mask: sitk.Image, *mm: float) -> sitk.Image:
    mask.SetOrigin(np.add(mask.GetOrigin(), mm).tolist())
    return mask


def spaced(mask: sitk.Image, factor: float) -> sitk.Image:
    mask.SetSpacing([factor * s for s in mask.GetSpacing()])
    return mask


def turned(mask: sitk.Image) -> sitk.Image:
    direction = np.array(mask.GetDirection()).reshape(3, 3) @ rotation(0, 0, 2)
    mask.SetDirection(direction.ravel().tolist())
    return mask


def without_geometry(mask: sitk.Image) -> sitk.Image:
    return sitk.GetImageFromArray(sitk.GetArrayFromImage(mask))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda mask: shifted(mask, 0.3, 0, 0), "does not lie on the voxels of its image"),
        (lambda mask: spaced(mask, 1.02), "does not lie on the voxels"),
        (turned, "does not lie on the voxels"),
        (without_geometry, "does not lie on the voxels"),
        (
            lambda mask: sitk.ConstantPad(mask, [0] * 3, [0, 0, 1], 0),
            "of 40×38×31 voxels reaches beyond its scan of 40",
        ),
        (lambda mask: sitk.ConstantPad(mask, [1, 0, 0], [0] * 3, 0), "of 41×38×30 voxels reaches beyond its scan"),
    ],
)
def test_mask_of_another_geometry(change, message: str, ct: sitk.Image, folder: Path):
    WRITERS["mha"](folder, change(nodule(ct)))
    with pytest.raises(ImageError, match=message + r".*11_1_19990102\.mha: write the mask on the grid of its CT"):
        cut_whole(folder, ct)


@pytest.mark.parametrize("place", [".", "image"])
def test_array_of_another_shape(place: str, ct: sitk.Image, folder: Path):
    np.save(folder / place / f"{ROW['AnnotationID']}.npy", sitk.GetArrayFromImage(nodule(ct))[1:])
    with pytest.raises(ImageError, match=r"mask of 40×38×29 voxels .* another shape than its image of 40×38×30 voxels"):
        cut_whole(folder, ct)


def test_mask_may_reach_beyond_a_block(ct: sitk.Image, folder: Path):
    WRITERS["mha"](folder, nodule(ct))
    part = ct[10:30, 10:30, 5:20]
    mask = cut_whole(folder, ct, part=part)
    np.testing.assert_array_equal(mask, sitk.GetArrayFromImage(nodule(ct))[5:20, 10:30, 10:30])


def test_unusable_folders_and_files(ct: sitk.Image, folder: Path):
    with pytest.raises(ImageError, match=r"no such folder of masks: .*absent"):
        MaskFolder(folder / "absent")
    assert MaskFolder(folder).find(ROW) is None
    WRITERS["mha"](folder, nodule(ct))
    WRITERS["npy"](folder, nodule(ct))
    with pytest.raises(ImageError, match=r"2 masks for one name: .*\.mha: keep one of it and .*\.npy"):
        MaskFolder(folder).find(ROW)
    (folder / f"{ROW['AnnotationID']}.npy").unlink()
    (folder / f"{ROW['AnnotationID']}.mha").write_bytes(b"ObjectType = Image")
    with pytest.raises(ImageError, match="cannot read the CT"):
        cut_whole(folder, ct)


def test_a_mask_away_from_its_point_is_not_taken(ct: sitk.Image, folder: Path):
    sitk.WriteImage(nodule(ct), str(folder / f"{ROW['AnnotationID']}.mha"))
    masks, grid = MaskFolder(folder), Grid.of(ct)
    fitted = masks.fit(masks.find(ROW), ROW, grid, whole_scan=True)
    numbers = fitted.read()
    filled = np.argwhere(numbers)[:, ::-1]
    # Along x from the mask's last voxel; the nearest voxel is that one.
    edge = filled[filled[:, 0].argmax()]
    for away, there in ((4.9, True), (5.1, False)):
        point = ct.TransformContinuousIndexToPhysicalPoint((edge + [away / ct.GetSpacing()[0], 0, 0]).tolist())
        assert fitted.cut(numbers, grid, (0, 0, 0), point).any() == there
