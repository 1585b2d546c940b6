"""Values of DICOM series against pydicom's, and padding as air."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from conftest import make_ct, rotation
from dicom import change_dicom, write_dicom_series
from pydicom.dataset import Dataset
from pydicom.pixels import apply_rescale
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    RLELossless,
)

from nodulemc.ct.volume import read_volume
from nodulemc.errors import ImageError
from nodulemc.quality import scan_warnings

CT = sitk.Clamp(make_ct(size=(20, 24, 6), direction=rotation(8, 20, -5)), lowerBound=-1024)
STORED = sitk.GetArrayFromImage(CT).astype(np.int32) + 1024  # up to 12 bits


@pytest.fixture
def series(tmp_path) -> list[Path]:
    write_dicom_series(CT, tmp_path)
    return sorted(tmp_path.iterdir())


def store(files: list[Path], values: np.ndarray, kind: str, **attributes: object) -> None:
    """Put values into files, in the way that ``attributes`` say."""
    for file, plane in zip(files, values, strict=True):
        change_dicom(file, PixelData=plane.astype(kind).tobytes(), **attributes)


def state_padding(files: list[Path], value: int, limit: int | None = None) -> None:
    for file in files:
        data = pydicom.dcmread(file)
        for tag, number in ((0x00280120, value), (0x00280121, limit)):
            if number is not None:
                data.add_new(tag, "SS" if number < 0 else "US", number)
        data.save_as(file)


def read(files: list[Path]) -> np.ndarray:
    return sitk.GetArrayFromImage(read_volume(files[0].parent).image)


def expected(files: list[Path]) -> np.ndarray:
    """HU by pydicom, of files whose names are in the slices' order."""
    return np.stack([apply_rescale((data := pydicom.dcmread(file)).pixel_array, data) for file in files])


@pytest.mark.parametrize("low_bits", [12, 14])
@pytest.mark.parametrize("signed", [0, 1])
def test_unused_bits_count_for_nothing(series, low_bits, signed):
    junk = np.random.default_rng(0).integers(0, 1 << 16 - low_bits, STORED.shape) << low_bits
    values = STORED - 1500 * signed
    form = {"BitsStored": low_bits, "HighBit": low_bits - 1, "PixelRepresentation": signed}
    store(series, (values & (1 << low_bits) - 1) | junk, "<u2", **form)
    np.testing.assert_array_equal(read(series), values - 1024)
    np.testing.assert_array_equal(read(series), expected(series))


def test_slices_of_either_sign_and_size_keep_their_values(series):
    store(series[:2], STORED[:2], "<u2", PixelRepresentation=0)
    store(series[2:3], STORED[2:3], "<i4", BitsAllocated=32, BitsStored=32, HighBit=31)
    store(series[3:4], STORED[3:4] // 16, "u1", BitsAllocated=8, BitsStored=8, HighBit=7, PixelRepresentation=0)
    np.testing.assert_array_equal(read(series), expected(series))


@pytest.mark.parametrize("slope", ["0.37", "-1", "3", "1e-3"])
def test_every_slope_is_applied(series, slope):
    change_dicom(*series, RescaleSlope=slope, RescaleIntercept="-7.5" if slope == "3" else "12")
    np.testing.assert_array_equal(read(series), expected(series))


def test_how_a_slice_is_displayed_changes_no_value(series):
    change_dicom(*series[1:4], PhotometricInterpretation="MONOCHROME1", WindowCenter="40", WindowWidth="400")
    np.testing.assert_array_equal(read(series), sitk.GetArrayViewFromImage(CT))


@pytest.mark.parametrize("name", ["FloatPixelData", "DoubleFloatPixelData"])
def test_floating_point_pixels_are_read(series, name):
    values = STORED + 0.25
    for file, plane in zip(series, values, strict=True):
        data = pydicom.dcmread(file)
        del data.PixelData
        data.BitsAllocated = 32 if name == "FloatPixelData" else 64
        setattr(data, name, plane.astype(f"<f{data.BitsAllocated // 8}").tobytes())
        data.save_as(file)
    np.testing.assert_array_equal(read(series), values - 1024)


def test_a_modality_lookup_table_is_applied(series):
    table = Dataset()
    table.LUTDescriptor = [4096, 0, 16]
    table.LUTData = (np.arange(4096) * 2 % 3001).astype("<u2").tobytes()
    table["LUTData"].VR = "OW"
    change_dicom(*series, ModalityLUTSequence=[table])
    np.testing.assert_array_equal(read(series), expected(series))
    assert len(np.unique(read(series))) > 500


@pytest.mark.parametrize("kind", ["implicit", "big-endian", "deflated", "without a preamble"])
def test_every_plain_transfer_syntax_is_read(series, kind):
    syntax = {"big-endian": ExplicitVRBigEndian, "deflated": DeflatedExplicitVRLittleEndian}
    for file in series:
        data = pydicom.dcmread(file)
        data.file_meta.TransferSyntaxUID = syntax.get(kind, ImplicitVRLittleEndian)
        if kind == "big-endian":
            list(data)  # what is not yet converted would be written as it is
            data.set_original_encoding(is_implicit_vr=False, is_little_endian=False)
            data.PixelData = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
        if kind == "without a preamble":
            data.preamble = None
            del data.file_meta
        data.save_as(file, implicit_vr=kind not in syntax, little_endian=kind != "big-endian")
    assert (series[0].read_bytes()[128:132] == b"DICM") == (kind != "without a preamble")
    np.testing.assert_array_equal(read(series), sitk.GetArrayViewFromImage(CT))


@pytest.mark.parametrize("compressor", ["RLE", "JPEG", "JPEG2000", "JPEGLS"])
@pytest.mark.parametrize("signed", [0, 1])
def test_compressed_slices_are_decoded(series, tmp_path_factory, compressor, signed):
    for file, plane in zip(series, STORED, strict=True):
        data = pydicom.dcmread(file)
        data.PhotometricInterpretation, data.PixelRepresentation = "MONOCHROME1", signed
        if compressor == "RLE":
            data.compress(RLELossless)
        else:
            copy = tmp_path_factory.mktemp("compressed") / "1.dcm"
            pixels = plane.astype(np.int16 if signed else np.uint16)
            sitk.WriteImage(sitk.GetImageFromArray(pixels[None]), copy, useCompression=True, compressor=compressor)
            other = pydicom.dcmread(copy)
            assert other.file_meta.TransferSyntaxUID.is_compressed
            data.PixelData, data.file_meta.TransferSyntaxUID = other.PixelData, other.file_meta.TransferSyntaxUID
            data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
        data.save_as(file)
    np.testing.assert_array_equal(read(series), sitk.GetArrayViewFromImage(CT))


def test_a_compressed_slice_cut_anywhere_is_refused(series):
    for file in series:
        data = pydicom.dcmread(file)
        data.compress(RLELossless)
        data.save_as(file)
    whole = series[3].read_bytes()
    for lost in (5, 8, 9, 100, 400):
        series[3].write_bytes(whole[:-lost])
        with pytest.raises(ImageError, match=r"the DICOM file is damaged: \S*003\.dcm"):
            read(series)


def test_an_unknown_compression_is_named(series):
    for file in series:
        data = pydicom.dcmread(file)
        data.compress(RLELossless)
        data.file_meta.TransferSyntaxUID = HTJ2KLossless
        data.save_as(file)
    with pytest.raises(ImageError, match=r"cannot decode High-Throughput JPEG 2000.*: \S*000\.dcm: .*uncompressed"):
        read(series)


@pytest.mark.parametrize(
    ("signed", "bits", "cells", "value", "limit"),
    [
        (0, 16, 63536, 63536, None),
        (1, 16, -2000, -2000, None),
        (1, 16, -32768, -32768, None),
        (0, 12, 63536, 63536, None),  # beyond the bits that are stored
        (0, 12, 4095, 4095, None),
        (0, 16, 40_000, 39_000, 41_000),
        (0, 16, 40_000, 41_000, 39_000),
        (1, 16, 20_000, 20_000, None),
    ],
)
def test_padding_is_air(series, signed, bits, cells, value, limit):
    padding = np.zeros(STORED.shape, bool)
    padding[:, :6] = padding[:, :, -2:] = True
    form = {"PixelRepresentation": signed, "BitsStored": bits, "HighBit": bits - 1}
    store(series, np.where(padding, cells, STORED) & 0xFFFF, "<u2", **form)
    state_padding(series, value, limit)
    hu = read(series)
    np.testing.assert_array_equal(hu[~padding], (STORED - 1024)[~padding])
    assert (hu[padding] == -1000).all()


def test_a_padding_value_that_is_a_tissues_changes_nothing(series):
    values = STORED.copy()
    values[:, 0] = values[:, -1] = 24
    store(series, values, "<i2")
    state_padding(series, 1064)  # 40 HU
    assert (values == 1064).any()
    np.testing.assert_array_equal(read(series), values - 1024)
    assert any("calls 40 HU padding" in warning for warning in scan_warnings(read_volume(series[0].parent)))


@pytest.mark.parametrize("value", [4095, -2000])
def test_padding_inside_that_is_no_tissues_is_air(series, value):
    values = STORED.copy()
    values[:, 5:9, 5:9] = value
    store(series, values, "<i2")
    state_padding(series, value)
    hu = read(series)
    assert not any("padding" in warning for warning in scan_warnings(read_volume(series[0].parent)))
    assert (hu[:, 5:9, 5:9] == -1000).all()
    np.testing.assert_array_equal(hu[:, 9:], values[:, 9:] - 1024)


def test_a_padding_value_that_no_pixel_has_changes_nothing(series):
    state_padding(series, -2000)
    np.testing.assert_array_equal(read(series), sitk.GetArrayViewFromImage(CT))


@pytest.mark.parametrize(
    ("slope", "intercept"), [("0", "-1024"), ("nan", "0"), ("1", "x"), ("1", None), (None, "-1024"), ("1\\2", "0")]
)
def test_a_rescaling_that_is_none_is_refused(series, slope, intercept):
    for file in series:
        data = pydicom.dcmread(file)
        data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        for name, text in (("RescaleSlope", slope), ("RescaleIntercept", intercept)):
            del data[name]
            if text is not None:
                data.add(pydicom.DataElement(name, "LO", text))  # DS would be checked
        data.save_as(file, implicit_vr=True, little_endian=True)
    with pytest.raises(ImageError, match=r"the rescaling has slope '.*' and intercept '.*': \S*000\.dcm"):
        read(series)


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("name", ["RescaleSlope", "RescaleIntercept"])
def test_a_slice_without_the_others_rescaling_is_refused(series, name, empty):
    data = pydicom.dcmread(series[4])
    data[name].value = None
    if not empty:
        del data[name]
    data.save_as(series[4])
    with pytest.raises(ImageError, match=rf"no {name}, unlike 000\.dcm with '-?1(024)?': \S*004\.dcm"):
        read(series)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "3 samples per pixel, RGB"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR"),
        ({"BitsStored": 12, "HighBit": 15}, "the highest of 12 bits is bit 15"),
        ({"BitsStored": 17}, "file is damaged"),
        ({"BitsAllocated": 12, "BitsStored": 12, "HighBit": 11}, "file is damaged"),
        ({"Rows": 0}, "file is damaged"),
    ],
)
def test_pixels_of_another_kind_are_refused(series, attributes, message):
    change_dicom(*series, **attributes)
    with pytest.raises(ImageError, match=message):
        read(series)


@pytest.mark.heavy
def test_real_series_have_pydicoms_values(shared_data):
    folder = shared_data / "lidc" / "scans" / "LIDC-IDRI-0003"
    files = sorted(folder.glob("*.dcm"), key=lambda file: float(pydicom.dcmread(file).ImagePositionPatient[2]))
    image = read_volume(folder).image
    np.testing.assert_array_equal(sitk.GetArrayViewFromImage(image)[::20], expected(files[::20]))
    for k in (0, 77, 139):
        position = [float(c) for c in pydicom.dcmread(files[k]).ImagePositionPatient]
        assert image.TransformIndexToPhysicalPoint((0, 0, k)) == pytest.approx(position, abs=1e-3)
