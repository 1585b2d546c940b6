"""The label image as nibabel and ITK read it."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from conftest import rotation
from digital_shapes import ball, make_volume, middle

from nodulemc.measure.label_image import label_image
from nodulemc.measure.mask import nodule_mask
from nodulemc.volume import read_volume


def written(path: Path, volume, masks) -> Path:
    path.write_bytes(label_image(volume.image, masks))
    return path


@pytest.mark.parametrize("direction", [None, np.diag([-1, -1, 1]), rotation(12, -8, 20)])
def test_it_overlays_the_ct_in_itk_nibabel_and_here(tmp_path, direction):
    volume = make_volume(direction=direction)
    places = [(-14, 3, 2), (10, -5, -4)]
    masks = [nodule_mask(volume, middle(volume, place), ball(9)) for place in places]
    path = written(tmp_path / "labels.nii.gz", volume, masks)
    array = np.zeros(volume.image.GetSize()[::-1], np.uint8)
    for label, mask in enumerate(masks, start=1):
        array[mask.slices][mask.voxels] = label
    for image in (sitk.ReadImage(str(path)), read_volume(path).image):
        assert image.GetPixelID() == sitk.sitkUInt8
        assert (sitk.GetArrayViewFromImage(image) == array).all()
        for corner in ((0, 0, 0), volume.image.GetSize()):
            theirs = image.TransformContinuousIndexToPhysicalPoint([float(c) for c in corner])
            ours = volume.image.TransformContinuousIndexToPhysicalPoint([float(c) for c in corner])
            assert theirs == pytest.approx(ours, abs=1e-3)
    other = nibabel.load(path)
    assert other.header.get_xyzt_units()[0] == "mm"
    assert (array == np.asarray(other.dataobj).T).all()
    for place, label in zip(places, (1, 2), strict=True):
        index = np.linalg.inv(other.affine) @ [*np.array(middle(volume, place)) * (-1, -1, 1), 1]
        assert other.dataobj[tuple(np.rint(index[:3]).astype(int))] == label


@pytest.mark.parametrize("strong_first", [False, True])
def test_where_masks_overlap_the_higher_probability_counts(tmp_path, strong_first):
    volume = make_volume()
    weak, strong = (nodule_mask(volume, middle(volume), p) for p in (0.8 * ball(12), ball(8)))
    masks = [strong, weak] if strong_first else [weak, strong]
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(written(tmp_path / "l.nii.gz", volume, masks))))
    assert set(np.unique(labels)) == {0, 1, 2}
    assert (labels[weak.slices][weak.voxels] > 0).all()
    assert (labels[strong.slices][strong.voxels] == (1 if strong_first else 2)).mean() > 0.5


def test_many_nodules_have_two_bytes(tmp_path):
    volume = make_volume((4.0, 4.0, 4.0))
    masks = [nodule_mask(volume, middle(volume), ball(9))] * 255 + [
        nodule_mask(volume, middle(volume, (6, 0, 0)), ball(9))
    ]
    image = sitk.ReadImage(str(written(tmp_path / "l.nii.gz", volume, masks)))
    assert image.GetPixelID() == sitk.sitkUInt16
    assert sitk.GetArrayFromImage(image).max() == 256
