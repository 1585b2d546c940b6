"""The label images as nibabel, ITK, pynrrd and slicerio read them."""

from pathlib import Path

import nibabel
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
import slicerio
from conftest import rotation
from digital_shapes import ball, make_volume, middle

from nodulemc.ct.volume import read_volume
from nodulemc.measure.label_image import Segment, label_image, slicer_segmentation
from nodulemc.measure.mask import NoduleMask, nodule_mask
from nodulemc.points.reading import read_points


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


def segmentation(path: Path, volume, masks, names=None) -> Path:
    names = names or [f"n{k}" for k in range(len(masks))]
    segments = [Segment(name, (0.25, 0.5, k / len(masks)), k / 16) for k, name in enumerate(names)]
    path.write_bytes(slicer_segmentation(volume.image, masks, segments))
    return path


@pytest.mark.parametrize("direction", [None, np.diag([-1, -1, 1]), rotation(12, -8, 20)])
def test_slicers_segmentation_in_slicerio_pynrrd_itk_and_here(tmp_path, direction):
    volume = make_volume(direction=direction)
    places = [(-14, 3, 2), (10, -5, -4)]
    masks = [nodule_mask(volume, middle(volume, place), ball(9)) for place in places]
    masks.append(nodule_mask(volume, middle(volume), np.zeros((64,) * 3)))
    path = segmentation(tmp_path / "s.seg.nrrd", volume, masks, ["first one", "n2: 0.87", "none\nat all"])
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(written(tmp_path / "l.nii.gz", volume, masks))))
    image = sitk.ReadImage(str(path))
    assert (sitk.GetArrayViewFromImage(image) == expected).all()
    assert image.GetOrigin() == pytest.approx(volume.image.GetOrigin())
    assert image.GetSpacing() == pytest.approx(volume.image.GetSpacing())
    assert image.GetDirection() == pytest.approx(volume.image.GetDirection())
    voxels, header = nrrd.read(str(path))
    assert (voxels == expected.T).all()
    assert header["space"] == "left-posterior-superior"
    assert header["Segmentation_SourceRepresentation"] == "Binary labelmap"
    found = slicerio.read_segmentation(str(path))
    assert slicerio.segment_names(found) == ["first one", "n2: 0.87", "none\\nat all"]
    assert found["containedRepresentationNames"] == ["Binary labelmap"]
    for k, segment in enumerate(found["segments"]):
        assert (segment["labelValue"], segment["layer"], segment["id"]) == (k + 1, 0, f"Segment_{k + 1}")
        assert segment["color"] == pytest.approx([0.25, 0.5, k / 3], abs=1e-5)
        assert segment["terminology"]["type"] == ["SCT", "27925004", "Nodule"]
        assert segment["terminology"]["anatomicRegion"] == ["SCT", "39607008", "Lung"]
        assert segment["tags"]["NoduleMC.Probability"] == f"{k / 16:.4f}"
        filled = np.argwhere(np.equal(expected.T, k + 1))
        ends = np.stack([filled.min(axis=0), filled.max(axis=0)], axis=1).ravel() if len(filled) else [0, -1] * 3
        assert segment["extent"] == [*ends]
    points = read_points(path, volume)
    assert [point.name for point in points] == ["first one", "n2: 0.87"]
    for point, place in zip(points, places, strict=True):
        assert point.point == pytest.approx(middle(volume, place), abs=0.3)


def test_many_segments_have_two_bytes(tmp_path):
    volume = make_volume((4.0, 4.0, 4.0))
    places = [(k % 16 + 1, k // 16 + 1, 5) for k in range(300)]
    masks = [NoduleMask(place, np.ones((1, 1, 1), np.float32), 0.0, ()) for place in places]
    names = [f"ä {k}" for k in range(300)]
    path = segmentation(tmp_path / "s.seg.nrrd", volume, masks, names)
    assert [point.name for point in read_points(path, volume)] == names
    image = sitk.ReadImage(str(path))
    assert image.GetPixelID() == sitk.sitkUInt16
    assert [image[place] for place in places] == [*range(1, 301)]
