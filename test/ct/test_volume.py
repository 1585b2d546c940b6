import gzip
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from conftest import centre_of, make_ct, rotation, without_privileges
from dicom import write_dicom_series
from pydicom.uid import RLELossless

from nodulemc.ct.volume import Volume, read_volume
from nodulemc.errors import ImageError


@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nii", ".nii.gz", ".nrrd"])
def test_every_format_gives_the_same_voxels_and_geometry(tmp_path, suffix):
    image = make_ct(direction=rotation(10, -5, 20))
    sitk.WriteImage(image, str(tmp_path / f"ct{suffix}"))
    volume = read_volume(tmp_path / f"ct{suffix}")
    np.testing.assert_array_equal(sitk.GetArrayViewFromImage(volume.image), sitk.GetArrayViewFromImage(image))
    far = [n - 1 for n in image.GetSize()]
    for index in ([0, 0, 0], far):
        expected = image.TransformIndexToPhysicalPoint(index)
        assert volume.image.TransformIndexToPhysicalPoint(index) == pytest.approx(expected, abs=1e-4)


def test_nifti_geometry_agrees_with_nibabel(shared_data):
    path = shared_data / "ct" / "chest_ct.nii.gz"
    volume = read_volume(path)
    other = nibabel.load(path)
    index = (11, 57, 33)
    ras = other.affine @ [*index, 1]
    assert volume.image.TransformIndexToPhysicalPoint(index) == pytest.approx([-ras[0], -ras[1], ras[2]], abs=1e-3)
    assert volume.image[index] == pytest.approx(float(other.dataobj[index]))


@pytest.mark.heavy
def test_dicom_series_agrees_with_pydicom(shared_data):
    folder = shared_data / "ct" / "dicom_series"
    volume = read_volume(folder)
    slices = sorted(map(pydicom.dcmread, folder.glob("*.dcm")), key=lambda s: float(s.ImagePositionPatient[2]))
    assert volume.image.GetSize() == (slices[0].Columns, slices[0].Rows, len(slices))
    assert volume.series_uid == slices[0].SeriesInstanceUID
    for k in (0, 7, 19):
        hu = slices[k].pixel_array * float(slices[k].RescaleSlope) + float(slices[k].RescaleIntercept)
        np.testing.assert_allclose(sitk.GetArrayViewFromImage(volume.image)[k], hu)
        position = volume.image.TransformIndexToPhysicalPoint((0, 0, k))
        assert position == pytest.approx([float(c) for c in slices[k].ImagePositionPatient], abs=1e-3)


def test_written_dicom_series_is_read_back(tmp_path):
    image = make_ct(direction=rotation(8, 0, 0))
    write_dicom_series(image, tmp_path)
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(sitk.GetArrayViewFromImage(volume.image), sitk.GetArrayViewFromImage(image))
    assert volume.image.GetDirection() == pytest.approx(image.GetDirection(), abs=1e-6)


@pytest.mark.heavy
@pytest.mark.parametrize("source", ["real", "oblique"])
def test_dicom_series_has_the_geometry_that_itk_gives_it(tmp_path, shared_data, source):
    folder = shared_data / "ct" / "dicom_series"
    if source == "oblique":
        folder = tmp_path
        write_dicom_series(make_ct(size=(20, 20, 12), direction=rotation(8, 20, -5)), folder)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    expected = reader.Execute()
    image = read_volume(folder).image
    assert image.GetPixelID() == expected.GetPixelID()
    np.testing.assert_array_equal(sitk.GetArrayViewFromImage(image), sitk.GetArrayViewFromImage(expected))
    assert image.GetOrigin() == expected.GetOrigin()
    assert image.GetSpacing() == pytest.approx(expected.GetSpacing(), rel=1e-12)
    assert image.GetDirection() == expected.GetDirection()


@pytest.mark.heavy
def test_compressed_dicom_slices_are_read_in_their_order(tmp_path):
    image = make_ct()
    write_dicom_series(image, tmp_path)
    for file in tmp_path.iterdir():
        data = pydicom.dcmread(file)
        data.compress(RLELossless)
        data.save_as(file)
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(sitk.GetArrayViewFromImage(volume.image), sitk.GetArrayViewFromImage(image))


def test_dicom_slices_with_rescaling_of_their_own_keep_their_hu(tmp_path):
    image = make_ct(size=(20, 20, 4))
    write_dicom_series(image, tmp_path)
    for k, (slope, intercept) in enumerate([("1", "-1024"), ("0.5", "-1024.25"), ("1", "-2000"), ("40", "0")]):
        data = pydicom.dcmread(tmp_path / f"{k:03}.dcm")
        data.RescaleSlope, data.RescaleIntercept = slope, intercept
        data.save_as(tmp_path / f"{k:03}.dcm")
    read = sitk.GetArrayFromImage(read_volume(tmp_path).image)
    for k, file in enumerate(sorted(tmp_path.iterdir())):
        data = pydicom.dcmread(file)
        np.testing.assert_array_equal(read[k], data.pixel_array * data.RescaleSlope + data.RescaleIntercept)


def test_a_dicom_slice_of_another_size_is_refused(tmp_path):
    write_dicom_series(make_ct(size=(20, 20, 4)), tmp_path)
    data = pydicom.dcmread(tmp_path / "002.dcm")
    data.Rows, data.PixelData = 10, data.PixelData[:400]
    data.save_as(tmp_path / "002.dcm")
    with pytest.raises(ImageError, match=r"size 20×10×1, unlike the first: \S*002\.dcm"):
        read_volume(tmp_path)


@pytest.mark.parametrize("position", [["1", "2"], ["1", "2", "3", "4"]])
def test_a_dicom_position_that_is_no_point_is_refused(tmp_path, position):
    write_dicom_series(make_ct(size=(20, 20, 4)), tmp_path)
    data = pydicom.dcmread(tmp_path / "001.dcm")
    data.ImagePositionPatient = position
    data.save_as(tmp_path / "001.dcm")
    with pytest.raises(ImageError):
        read_volume(tmp_path)


def test_a_direction_of_tiny_numbers_keeps_points_in_place(tmp_path):
    """ITK's inverse of it is NaN."""
    affine = np.diag([-0.7, -0.8, 1.5, 1.0])
    affine[1, :3] += [2e-319, 0, 1e-310]
    image = nibabel.Nifti2Image(np.zeros((6, 5, 4), np.int16), affine)
    image.set_sform(affine, 1)
    nibabel.save(image, tmp_path / "ct.nii")
    volume = read_volume(tmp_path / "ct.nii")
    point = volume.image.TransformIndexToPhysicalPoint((1, 2, 3))
    assert point == pytest.approx((0.7, 1.6, 4.5))
    assert volume.image.TransformPhysicalPointToContinuousIndex(point) == pytest.approx((1, 2, 3))


def test_distance_outside_is_measured_from_the_outer_face():
    image = make_ct(direction=rotation(0, 0, 30))
    volume = Volume(image, Path("ct"))
    assert volume.distance_outside_mm(centre_of(image)) == 0
    face = image.TransformContinuousIndexToPhysicalPoint((-0.49, 40, 25))
    assert volume.distance_outside_mm(face) == 0
    # 10 voxels of 0.7 mm beyond the face along x, 5 of 1.5 mm along z.
    beyond = image.TransformContinuousIndexToPhysicalPoint((-10.5, 40, 54.5))
    assert volume.distance_outside_mm(beyond) == pytest.approx(np.hypot(7.0, 7.5))


def test_missing_slice_is_refused(tmp_path):
    write_dicom_series(make_ct(size=(20, 20, 12)), tmp_path)
    (tmp_path / "005.dcm").unlink()
    with pytest.raises(ImageError, match="from its place in an even stack"):
        read_volume(tmp_path)


def test_gantry_tilt_is_refused(tmp_path):
    write_dicom_series(make_ct(size=(20, 20, 12)), tmp_path, shear_mm=0.5)
    with pytest.raises(ImageError, match="from its place in an even stack"):
        read_volume(tmp_path)


def test_two_series_in_one_folder_are_refused(tmp_path):
    write_dicom_series(make_ct(size=(20, 20, 4)), tmp_path / "a")
    write_dicom_series(make_ct(size=(20, 20, 4)), tmp_path / "b")
    for file in (tmp_path / "b").iterdir():
        shutil.copy(file, tmp_path / "a" / f"other_{file.name}")
    with pytest.raises(ImageError, match="2 DICOM series"):
        read_volume(tmp_path / "a")


def test_slices_with_most_tags_missing_are_read(shared_data, tmp_path):
    slices = [shared_data / "ct" / f"chest_slice_{k}.dcm" for k in range(2)]
    for file in slices:
        shutil.copy(file, tmp_path)
    volume = read_volume(tmp_path)
    assert volume.image.GetSize() == (512, 512, 2)
    assert volume.image.GetSpacing() == (0.625, 0.625, 1.0)
    for k, file in enumerate(slices):
        np.testing.assert_array_equal(sitk.GetArrayViewFromImage(volume.image)[k], pydicom.dcmread(file).pixel_array)


def test_slices_without_position_are_refused(tmp_path):
    write_dicom_series(make_ct(size=(20, 20, 4)), tmp_path)
    for file in tmp_path.iterdir():
        data = pydicom.dcmread(file)
        del data.ImagePositionPatient
        data.save_as(file)
    with pytest.raises(ImageError, match="no Image Position"):
        read_volume(tmp_path)


@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nii.gz", ".nrrd", ".nii"])
@pytest.mark.parametrize("compressed", [False, True])
def test_truncated_file_is_refused(tmp_path, suffix, compressed, capfd):
    path = tmp_path / f"ct{suffix}"
    sitk.WriteImage(make_ct(), str(path), useCompression=compressed)
    data = next((p for p in tmp_path.iterdir() if "raw" in p.suffix), path)
    content = data.read_bytes()
    data.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(ImageError):
        read_volume(path)
    assert capfd.readouterr().err == ""  # no reader's chatter beside the one line of the error


@pytest.mark.parametrize("suffix", [".mha", ".nii.gz", ".nrrd"])
def test_one_flipped_bit_in_compressed_voxels_is_found(tmp_path, suffix, capfd):
    path = tmp_path / f"ct{suffix}"
    sitk.WriteImage(make_ct(), str(path), useCompression=True)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(ImageError):
        read_volume(path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("pixel", [sitk.sitkInt16, sitk.sitkUInt8, sitk.sitkInt32, sitk.sitkFloat32, sitk.sitkFloat64])
@pytest.mark.parametrize("suffix", [".mha", ".mhd"])
def test_a_compressed_meta_image_is_what_itk_reads(tmp_path, suffix, pixel):
    path = tmp_path / f"ct{suffix}"
    sitk.WriteImage(sitk.Cast(make_ct(direction=rotation(5, 6, 7)), pixel), str(path), useCompression=True)
    expected, found = sitk.ReadImage(str(path)), read_volume(path).image
    assert found.GetPixelID() == pixel
    np.testing.assert_array_equal(sitk.GetArrayViewFromImage(found), sitk.GetArrayViewFromImage(expected))
    for geometry in ("GetSize", "GetOrigin", "GetSpacing", "GetDirection"):
        assert getattr(found, geometry)() == getattr(expected, geometry)()


@pytest.mark.parametrize("field", ["BinaryDataByteOrderMSB", "ElementByteOrderMSB"])
@pytest.mark.parametrize("length", [None, "10"])
def test_a_compressed_big_endian_meta_image_needs_no_stated_length(tmp_path, field, length):
    image = make_ct()
    fields = {
        "NDims": 3, "BinaryData": True, field: True, "CompressedData": True, "CompressedDataSize": length,
        "ElementSpacing": "0.7 0.8 1.5", "DimSize": "90 80 50", "ElementType": "MET_SHORT", "ElementDataFile": "LOCAL",
    }  # fmt: skip
    header = "".join(f"{key} = {value}\n" for key, value in fields.items() if value is not None)
    voxels = sitk.GetArrayFromImage(image)
    (tmp_path / "ct.mha").write_bytes(header.encode() + zlib.compress(voxels.astype(">i2").tobytes()))
    read = read_volume(tmp_path / "ct.mha").image
    assert read.GetPixelID() == sitk.sitkInt16
    np.testing.assert_array_equal(sitk.GetArrayViewFromImage(read), voxels)


@pytest.mark.heavy
@pytest.mark.parametrize("suffix", [".mha", ".nii.gz", ".nrrd", ".nii"])
def test_voxels_are_held_once(tmp_path, suffix):
    voxels = np.random.default_rng(0).integers(-1000, 1000, (100, 512, 512)).astype(np.int16)  # 50 MiB
    image = sitk.GetImageFromArray(voxels)
    sitk.WriteImage(image, str(tmp_path / f"ct{suffix}"), useCompression=True, compressionLevel=1)
    code = (  # not getrusage, which counts the parent's memory, from before the program was started
        "import re, sys; from nodulemc.ct.volume import read_volume\n"
        "def peak(): return int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) >> 10\n"
        "before = peak(); image = read_volume(sys.argv[1]).image; print(peak() - before)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / f"ct{suffix}")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert int(done.stdout) < 80


def test_a_nifti_of_two_orientations_is_read_where_its_spacings_agree(tmp_path):
    sitk.WriteImage(make_ct(), str(tmp_path / "ct.nii"))
    content = bytearray((tmp_path / "ct.nii").read_bytes())
    struct.pack_into("<3f", content, 80, 0.7003, 0.8, 1.4995)  # rounded otherwise than the affine
    (tmp_path / "ct.nii").write_bytes(content)
    assert read_volume(tmp_path / "ct.nii").image.GetSpacing() == pytest.approx((0.7, 0.8, 1.5))  # nibabel's


@pytest.mark.parametrize("compressor", ["NoCompression", "Deflate", "LZW", "PackBits"])
def test_every_kind_of_tiff_is_read(tmp_path, compressor):
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(tmp_path / "ct.tif"))
    writer.SetUseCompression(compressor != "NoCompression")
    writer.SetCompressor(compressor)
    writer.Execute(make_ct())
    read = sitk.GetArrayFromImage(read_volume(tmp_path / "ct.tif").image)
    np.testing.assert_array_equal(read, sitk.GetArrayFromImage(make_ct()))


def test_a_cut_strip_of_a_deflated_tiff_is_refused(tmp_path):
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(tmp_path / "ct.tif"))
    writer.UseCompressionOn()
    writer.SetCompressor("Deflate")
    writer.Execute(make_ct())
    content = bytearray((tmp_path / "ct.tif").read_bytes())
    at = content.index(struct.pack("<HH", 279, 4))  # StripByteCounts, LONG
    (count, where) = struct.unpack_from("<II", content, at + 4)
    (length,) = struct.unpack_from("<I", content, where if count > 1 else at + 8)
    struct.pack_into("<I", content, where if count > 1 else at + 8, length - 1)
    (tmp_path / "ct.tif").write_bytes(content)
    with pytest.raises(ImageError, match="end too early"):
        read_volume(tmp_path / "ct.tif")


@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nii", ".nii.gz", ".nrrd", ".tif", ""])
def test_a_ct_that_may_not_be_read_is_refused(public_folder, suffix):
    path = public_folder / f"ct{suffix}"
    if suffix:
        sitk.WriteImage(make_ct(size=(8, 8, 8)), str(path))
    else:
        write_dicom_series(make_ct(size=(8, 8, 8)), path)
    read_volume(path)
    path.chmod(0)
    with without_privileges(), pytest.raises(ImageError, match=r"cannot read the CT \(Permission denied\): .*/ct"):
        read_volume(path)


@pytest.mark.parametrize("name", ["\udcff.mha", "\udcff.nii.gz", "\udcff"])
def test_a_path_that_is_not_utf_8_is_refused(tmp_path, name):
    with pytest.raises(ImageError, match=r"the path is not UTF-8: .*\\udcff"):
        read_volume(tmp_path / name)


def test_voxels_beyond_what_the_header_promises_are_refused(tmp_path):
    path = tmp_path / "ct.mha"
    sitk.WriteImage(make_ct(), str(path), useCompression=True)
    size = make_ct().GetSize()
    header = f"DimSize = {size[0]} {size[1]} {size[2]}".encode()
    content = path.read_bytes()
    assert header in content
    path.write_bytes(content.replace(header, f"DimSize = {size[0]} {size[1]} {size[2] - 1}".encode()))
    with pytest.raises(ImageError, match="holds more than"):
        read_volume(path)


def test_header_without_its_voxels_is_refused(tmp_path):
    sitk.WriteImage(make_ct(), str(tmp_path / "ct.mhd"))
    (tmp_path / "ct.raw").unlink()
    with pytest.raises(ImageError, match=r"the file with the voxels is missing: .*ct\.raw"):
        read_volume(tmp_path / "ct.mhd")


def test_gzip_of_several_members_is_read(tmp_path):
    image = make_ct()
    sitk.WriteImage(image, str(tmp_path / "ct.nii"))
    content = (tmp_path / "ct.nii").read_bytes()
    parts = [content[:100_000], content[100_000:]]
    (tmp_path / "ct.nii.gz").write_bytes(b"".join(map(gzip.compress, parts)))
    voxels = sitk.GetArrayFromImage(read_volume(tmp_path / "ct.nii.gz").image)
    np.testing.assert_array_equal(voxels, sitk.GetArrayViewFromImage(image))


NIFTI_KINDS = {
    "int16": {},
    "uint8": {"voxel": np.uint8},
    "float32": {"voxel": np.float32},
    "float64": {"voxel": np.float64},
    "big-endian": {"byte_order": ">"},
    "rescaled": {"slope": 2.0, "intercept": -1024.0},
    "slope not set": {"slope": 0.0, "intercept": 0.0},
    "with an extension": {"extension": b"x" * 40},
    "padded": {"padding": 512},
}


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("kind", NIFTI_KINDS)
def test_every_kind_of_nifti_has_the_values_that_nibabel_reads(tmp_path, kind, compressed):
    options = {"voxel": np.int16, "byte_order": "<", "extension": None, "padding": 0}
    options |= {"slope": 1.0, "intercept": 0.0} | NIFTI_KINDS[kind]
    stored = np.random.default_rng(1).integers(0, 200, (9, 8, 7)).astype(options["voxel"])
    image = nibabel.Nifti1Image(stored, np.diag([-0.7, -0.8, 1.5, 1.0]))
    image.header.set_xyzt_units("mm")
    if options["extension"]:
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", options["extension"]))
    image = nibabel.Nifti1Image(stored, image.affine, image.header.as_byteswapped(options["byte_order"]))
    image.to_filename(tmp_path / "ct.nii")
    content = bytearray((tmp_path / "ct.nii").read_bytes())
    # nibabel leaves the slope out where it is 1.
    struct.pack_into(options["byte_order"] + "2f", content, 112, options["slope"], options["intercept"])
    content += bytes(options["padding"])
    path = tmp_path / ("ct.nii.gz" if compressed else "ct.nii")
    path.write_bytes(gzip.compress(content) if compressed else content)
    volume = read_volume(path)
    expected = nibabel.load(path)
    np.testing.assert_array_equal(sitk.GetArrayViewFromImage(volume.image).T, expected.get_fdata())
    assert volume.image.GetSpacing() == pytest.approx((0.7, 0.8, 1.5))


@pytest.mark.parametrize("change", [lambda c: c[:-1], lambda c: c + bytes(2 << 20)], ids=["short", "long"])
def test_a_compressed_nifti_of_another_length_is_refused(tmp_path, change):
    sitk.WriteImage(make_ct(), str(tmp_path / "whole.nii"))
    (tmp_path / "ct.nii.gz").write_bytes(gzip.compress(change((tmp_path / "whole.nii").read_bytes())))
    with pytest.raises(ImageError, match="the file holds"):
        read_volume(tmp_path / "ct.nii.gz")


@pytest.mark.heavy
def test_pydicom_is_imported_for_dicom_only(tmp_path):
    sitk.WriteImage(make_ct(size=(8, 8, 8)), str(tmp_path / "ct.mha"))
    write_dicom_series(make_ct(size=(8, 8, 8)), tmp_path / "series")
    for name, expected in (("ct.mha", "False"), ("series", "True")):
        code = (
            "import sys; from nodulemc.ct.volume import read_volume; "
            f"read_volume({str(tmp_path / name)!r}); print('pydicom' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected


def test_bad_images_are_refused(tmp_path):
    with pytest.raises(ImageError, match="no such CT"):
        read_volume(tmp_path / "none.mha")
    (tmp_path / "ct.xyz").write_bytes(b"x")
    with pytest.raises(ImageError, match="unknown CT file type"):
        read_volume(tmp_path / "ct.xyz")
    (tmp_path / "ct.mha").write_bytes(b"not an image")
    with pytest.raises(ImageError, match="cannot read the CT"):
        read_volume(tmp_path / "ct.mha")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="no DICOM series"):
        read_volume(tmp_path / "empty")
    four = sitk.JoinSeries([make_ct(size=(8, 8, 8))] * 3)
    sitk.WriteImage(four, str(tmp_path / "four.nii.gz"))
    with pytest.raises(ImageError, match="8×8×8×3"):
        read_volume(tmp_path / "four.nii.gz")
    vector = sitk.Compose([make_ct(size=(8, 8, 8))] * 3)
    sitk.WriteImage(vector, str(tmp_path / "vector.mha"))
    with pytest.raises(ImageError, match="one real number per voxel"):
        read_volume(tmp_path / "vector.mha")
