"""Label images against SciPy's centres of mass and closed forms."""

import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from conftest import make_ct, rotation
from scipy import ndimage
from segmentations import write_segments

from nodulemc import limits
from nodulemc.ct.volume import Volume
from nodulemc.errors import PointsError
from nodulemc.points.reading import read_points

SUFFIXES = [".nii.gz", ".nii", ".nrrd", ".seg.nrrd", ".mha", ".mhd"]
CT = make_ct(direction=rotation(4, -3, 30))
VOLUME = Volume(CT, Path("ct.mha"))


def on_grid(labels: np.ndarray, grid: sitk.Image = CT) -> sitk.Image:
    image = sitk.GetImageFromArray(labels)
    image.CopyInformation(grid)
    return image


def labels_of(*nodules: tuple[slice, ...], grid: sitk.Image = CT, type_=np.uint8) -> np.ndarray:
    """Boxes (z, y, x) with the labels 1, 2, …"""
    labels = np.zeros(grid.GetSize()[::-1], type_)
    for label, box in enumerate(nodules, start=1):
        labels[box] = label
    return labels


TWO = labels_of(np.s_[5:9, 10:14, 20:23], np.s_[20:25, 40:47, 50:60])


def scipys(labels: np.ndarray, grid: sitk.Image = CT) -> list[tuple[float, ...]]:
    """The centres of mass of all labels, in mm."""
    found = ndimage.center_of_mass(labels > 0, labels, np.unique(labels[labels > 0]))
    return [grid.TransformContinuousIndexToPhysicalPoint(centre[::-1]) for centre in found]


def check(path: Path, expected: dict[str, tuple[float, ...]], volume: Volume = VOLUME) -> None:
    nodules = read_points(path, volume)
    assert [nodule.name for nodule in nodules] == list(expected)
    np.testing.assert_allclose([nodule.point for nodule in nodules], list(expected.values()), atol=2e-4)


def write_table(path: Path, labels: np.ndarray, table: str) -> None:
    """A NIfTI file with the table that TotalSegmentator writes behind the header."""
    sitk.WriteImage(on_grid(labels), str(path))
    image = nibabel.load(path)
    xml = f'<?xml version="1.0"?> <CaretExtension> <VolumeInformation Index="0"> <LabelTable>{table}</LabelTable>'
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension(0, xml.encode()))
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header), path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_each_label_is_a_nodule(tmp_path, suffix):
    path = tmp_path / f"l{suffix}"
    sitk.WriteImage(on_grid(TWO), str(path))
    check(path, dict(zip("12", scipys(TWO), strict=True)))


@pytest.mark.parametrize(
    "type_", [np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.float32, np.float64]
)
def test_whole_numbers_of_every_type_are_labels(tmp_path, type_):
    labels = TWO.astype(type_)
    labels[labels == 2] = 100
    sitk.WriteImage(on_grid(labels), str(tmp_path / "l.nrrd"))
    check(tmp_path / "l.nrrd", dict(zip(["1", "100"], scipys(labels), strict=True)))


def test_flipped_axes_and_a_grid_beside_the_cts_are_read(tmp_path):
    grid = make_ct(size=(40, 30, 20), spacing=(1.1, 0.9, 2.5), direction=np.diag([-1, -1, 1]), origin=(10, 40, -130))
    labels = labels_of(np.s_[3:7, 5:9, 10:16], np.s_[10:12, 20:24, 30:33], grid=grid)
    sitk.WriteImage(on_grid(labels, grid), str(tmp_path / "l.nii.gz"))
    check(tmp_path / "l.nii.gz", dict(zip("12", scipys(labels, grid), strict=True)), Volume(make_ct(), Path("ct.mha")))


def test_an_ellipsoid_is_where_it_was_drawn(tmp_path):
    centre = np.array(CT.TransformContinuousIndexToPhysicalPoint([41.3, 37.8, 25.4]))
    index = np.indices(CT.GetSize()).reshape(3, -1).T
    steps = np.array(CT.GetDirection()).reshape(3, 3) * CT.GetSpacing()
    points = index @ steps.T + CT.GetOrigin()
    inside = (((points - centre) / (6, 8, 11)) ** 2).sum(axis=1) <= 1
    sitk.WriteImage(on_grid(inside.reshape(CT.GetSize()).T.astype(np.uint8)), str(tmp_path / "l.nrrd"))
    (nodule,) = read_points(tmp_path / "l.nrrd", VOLUME)
    assert nodule.point == pytest.approx(centre, abs=0.05)


def test_parts_of_the_only_label_are_nodules(tmp_path):
    """As in TotalSegmentator's lung_nodules.nii.gz; voxels that touch at a corner are of one part."""
    labels = labels_of(np.s_[5:9, 10:14, 20:22])
    labels[9, 14, 22] = 1
    labels[20:25, 40:44, 50:60] = 1
    parts, _ = ndimage.label(labels, np.ones((3, 3, 3)))
    sitk.WriteImage(on_grid(labels), str(tmp_path / "l.nii.gz"))
    check(tmp_path / "l.nii.gz", dict(zip(["1-1", "1-2"], scipys(parts), strict=True)))


@pytest.mark.parametrize("spelling", ["<![CDATA[{}]]>", "{}"])
def test_names_in_a_nifti_table_are_the_nodules(tmp_path, spelling):
    table = "".join(
        f'<Label Key="{key}" Red="1" Green="0" Blue="0" Alpha="1">{spelling.format(name)}</Label>\n'
        for key, name in [(1, "upper lobe"), (2, "lower lobe"), (3, "none")]
    )
    write_table(tmp_path / "l.nii.gz", TWO, table)
    check(tmp_path / "l.nii.gz", dict(zip(["upper lobe", "lower lobe"], scipys(TWO), strict=True)))


def test_of_totalsegmentators_labels_only_the_nodules_count(tmp_path):
    """Its multi-label image of the task has the lung, too, and all nodules in one label."""
    labels = labels_of(np.s_[2:48, 2:78, 2:88])
    labels[TWO > 0] = 2
    table = '<Label Key="1"><![CDATA[lung]]></Label><Label Key="2"><![CDATA[lung_nodules]]></Label>'
    write_table(tmp_path / "l.nii.gz", labels, table)
    check(tmp_path / "l.nii.gz", dict(zip(["lung_nodules-1", "lung_nodules-2"], scipys(TWO), strict=True)))


def test_slicers_segments_have_names_layers_and_labels(tmp_path):
    first, second = TWO, labels_of(np.s_[6:12, 12:30, 20:25], np.s_[30:33, 30:33, 30:33])
    keys = (
        "Segment0_ID:=Segment_1\nSegment0_LabelValue:=1\nSegment0_Layer:=0\nSegment0_Name:=RUL: solid\n"
        "Segment1_LabelValue:=2\nSegment1_Layer:=0\nSegment1_Name:=twin\n"
        "Segment2_LabelValue:=1\nSegment2_Layer:=1\nSegment2_Name:=twin\n"
        "Segment3_LabelValue:=2\nSegment3_Layer:=9\nSegment3_Name:=nowhere\n"
    )
    path = write_segments(tmp_path / "s.seg.nrrd", [first, second], keys, CT)
    check(path, dict(zip(["RUL: solid", "twin-1", "twin-2", "2"], [*scipys(first), *scipys(second)], strict=True)))


def test_old_files_of_slicer_have_a_layer_for_each_segment(tmp_path):
    layers = [(label == TWO).astype(np.uint8) for label in (1, 2)]
    path = write_segments(tmp_path / "s.seg.nrrd", layers, "Segment0_Name:=a\nSegment1_Name:=b\n", CT)
    check(path, dict(zip("ab", scipys(TWO), strict=True)))


def test_one_segment_of_slicers_in_one_layer(tmp_path):
    keys = "Segment0_LabelValue:=1\nSegment0_Layer:=0\nSegment0_Name:=nodule\n"
    path = write_segments(tmp_path / "s.seg.nrrd", [(TWO == 1).astype(np.uint8)], keys, CT)
    check(path, {"nodule": scipys(TWO)[0]})


def test_a_ring_is_said_to_be_one(tmp_path, caplog):
    labels = labels_of(np.s_[20:24, 30:40, 30:40])
    labels[20:24, 33:37, 33:37] = 0
    sitk.WriteImage(on_grid(labels), str(tmp_path / "l.mha"))
    check(tmp_path / "l.mha", {"1": scipys(labels)[0]})
    assert "nodule '1': its centre of mass lies outside its own region" in caplog.text


def shifted(mm: float) -> sitk.Image:
    image = on_grid(TWO)
    image.SetOrigin([c + mm for c in image.GetOrigin()])
    return image


def noise() -> np.ndarray:
    voxels = np.zeros(CT.GetSize()[::-1], np.uint8)
    voxels[::3, ::3, ::3] = 1
    return voxels


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (on_grid(np.zeros_like(TWO)), "nothing is segmented"),
        (on_grid(TWO / np.float32(3)), "not all whole numbers from 0 to 0.666667, no labels"),
        (on_grid(np.where(TWO, np.nan, 0).astype(np.float32)), "not all whole numbers"),
        (CT, r"whole numbers from -\d+ to \d+, no labels"),
        (on_grid(noise()), "more than 1000 nodules"),
        (on_grid(np.arange(TWO.size).reshape(TWO.shape).astype(np.uint32) % 2000), "more than 1000 nodules"),
        (shifted(500), "outside the CT, by .* give a segmentation of ct.mha"),
        (sitk.JoinSeries([CT, CT]), "the image has"),
    ],
)
@pytest.mark.parametrize("suffix", [".nrrd", ".nii.gz", ".mha"])
def test_unusable_label_images_are_refused(tmp_path, image, message, suffix):
    sitk.WriteImage(image, str(tmp_path / f"l{suffix}"))
    with pytest.raises(PointsError, match=message):
        read_points(tmp_path / f"l{suffix}", VOLUME)


def test_a_lung_is_no_nodule(tmp_path):
    image = on_grid(np.ones_like(TWO))
    image.SetSpacing([2, 2, 2])
    sitk.WriteImage(image, str(tmp_path / "l.mha"))
    with pytest.raises(PointsError, match=r"the labels fill 2\.9 litres.*nodules and of nothing else"):
        read_points(tmp_path / "l.mha", VOLUME)


def test_the_work_is_bounded_where_voxels_are_tiny(tmp_path, monkeypatch):
    monkeypatch.setattr("nodulemc.points.label_image.MAX_NODULE_VOXELS", int(np.count_nonzero(TWO)) - 1)
    sitk.WriteImage(on_grid(TWO), str(tmp_path / "l.mha"))
    with pytest.raises(PointsError, match="398 voxels are labelled"):
        read_points(tmp_path / "l.mha", VOLUME)
    assert limits.MAX_NODULE_VOXELS * 0.3**3 / 1000 < limits.MAX_NODULE_ML


def test_geometry_faults_are_refused_as_a_cts_are(tmp_path):
    path = tmp_path / "l.mha"
    sitk.WriteImage(on_grid(TWO), str(path))
    path.write_bytes(path.read_bytes().replace(b"ElementSpacing = 0", b"ElementSpacing = -"))
    with pytest.raises(PointsError, match=r"the voxel spacing is .*l\.mha"):
        read_points(path, VOLUME)
    path.write_bytes(b"no image")
    with pytest.raises(PointsError, match=r"cannot read the image \(no MetaImage header"):
        read_points(path, VOLUME)
    with pytest.raises(PointsError, match="cannot read"):
        read_points(tmp_path / "none.nii", VOLUME)


def test_reading_labels_imports_no_pydicom(tmp_path):
    sitk.WriteImage(on_grid(TWO), str(tmp_path / "l.nii.gz"))
    sitk.WriteImage(CT, str(tmp_path / "ct.mha"))
    code = (
        "import sys; from nodulemc.points.reading import read_points; from nodulemc.ct.volume import read_volume; "
        "read_points(sys.argv[2], read_volume(sys.argv[1])); print({'pydicom', 'highdicom', 'scipy'} & {*sys.modules})"
    )
    command = [sys.executable, "-c", code, tmp_path / "ct.mha", tmp_path / "l.nii.gz"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "set()"
