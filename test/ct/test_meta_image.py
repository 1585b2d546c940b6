"""MetaImages against SimpleITK, which wrote them."""

import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import make_ct, rotation
from hypothesis import given, settings
from hypothesis import strategies as st

from nodulemc.ct.volume import read_volume
from nodulemc.errors import ImageError

CT = make_ct(size=(9, 8, 7), direction=rotation(4, -3, 30))


def check_same(image, expected):
    np.testing.assert_array_equal(sitk.GetArrayViewFromImage(image), sitk.GetArrayViewFromImage(expected))
    for geometry in ("GetPixelID", "GetSize", "GetOrigin", "GetSpacing", "GetDirection"):
        assert getattr(image, geometry)() == getattr(expected, geometry)()


def with_header(path, *, before=b"Offset", insert=b"", **changes):
    """The CT with something before a field of its header, and other values; None takes a field away."""
    sitk.WriteImage(CT, str(path))
    head, voxels = path.read_bytes().split(b"LOCAL\n", 1)
    lines = dict(line.split(b" = ", 1) for line in (head + b"LOCAL").split(b"\n"))
    last = lines.pop(b"ElementDataFile")
    lines |= {key.encode(): value for key, value in changes.items()} | {b"ElementDataFile": last}
    content = b"".join(
        (insert if key == before else b"") + key + b" = " + value + b"\n" for key, value in lines.items() if value
    )
    path.write_bytes(content + voxels)
    return path


@pytest.mark.heavy
@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(codec="latin-1", exclude_characters="\0\r\n=:"), min_size=1, max_size=20),
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=200),
        max_size=5,
    )
)
def test_whatever_text_simpleitk_writes_into_a_header_is_passed_over(texts):
    image = sitk.Image(CT)
    for key, value in texts.items():
        image.SetMetaData(key, value)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ct.mha"
        sitk.WriteImage(image, str(path))
        check_same(read_volume(path).image, CT)


@pytest.mark.parametrize(
    "insert",
    [
        b"0018|1030 = Chest 1.0\nB30f: lung = sharp\nno separator\n\n",
        b"0029|1020 = " + b"QUJD" * 40_000 + b"\n",
        b"Patient Comment = Offset and Position = 9 9 9\n",
        b"a = \n",
        b"a = 1\na = 2\n",
        b"\xff\xfe = \xff\0\n",
        b"\r\n\r\n",
        b"Offsets = 9 9 9\nMyOffset = 9 9 9\noffset = 9 9 9\n",
    ],
    ids=lambda insert: repr(insert[:20]),
)
def test_what_decides_nothing_may_be_anything(tmp_path, insert):
    check_same(read_volume(with_header(tmp_path / "ct.mha", insert=insert)).image, CT)


@pytest.mark.parametrize(
    ("insert", "message"),
    [
        (b"Comment = two lines\nOffset = 1 2 3\n", "'Offset' is stated twice"),
        (b"Comment = two lines\n Offset: 1 2 3\n", "no MetaImage header"),
        (b"\v\tDimSize\n = 1 2 3\n", "no MetaImage header"),
        (b"DimSize\r = 1 2 3\n", "no MetaImage header"),
        (b"HeaderSize = 12\n", "not plain binary data"),
        (b"ElementNumberOfChannels = 3\n", "vector of 16-bit"),
        (b"Position = 0 0 0\n", "both Offset and Position"),
        (b"Comment = " + b"x" * (1 << 20) + b"\n", "no MetaImage header"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_what_decides_is_stated_once_and_plainly(tmp_path, insert, message):
    with pytest.raises(ImageError, match=message):
        read_volume(with_header(tmp_path / "ct.mha", insert=insert))


def test_an_empty_file_is_refused_with_what_to_do(tmp_path):
    path = tmp_path / "ct.mha"
    path.touch()
    remedy = "the file is damaged or no image; copy it again, or name another"
    with pytest.raises(ImageError) as caught:
        read_volume(path)
    assert str(caught.value) == f"cannot read the CT (no MetaImage header): {path}: {remedy}"


@pytest.mark.parametrize("filler", [b"\n", b"a\n", b" ", b"\r", b"Offset", b"=\n", b"DimSize\t"])
def test_a_hostile_header_is_refused_at_once(tmp_path, filler):
    path = tmp_path / "ct.mha"
    path.write_bytes(filler * ((4 << 20) // len(filler)))
    start = time.perf_counter()
    with pytest.raises(ImageError):
        read_volume(path)
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".MHA", ".Mhd"])
def test_one_volume_in_four_dimensions_is_that_volume(tmp_path, suffix, compressed):
    path = tmp_path / f"ct{suffix.lower()}"
    sitk.WriteImage(sitk.JoinSeries([CT], 3.5, 2.0), str(path), useCompression=compressed)
    path = path.rename(tmp_path / f"ct{suffix}")
    check_same(read_volume(path).image, CT)


def test_two_volumes_are_refused(tmp_path):
    sitk.WriteImage(sitk.JoinSeries([CT, CT]), str(tmp_path / "ct.mhd"))
    with pytest.raises(ImageError, match="'4' dimensions"):
        read_volume(tmp_path / "ct.mhd")


@pytest.mark.parametrize("name", ["./ct.raw", "././ct.raw", "ct.raw"])
def test_voxels_beside_the_header_may_be_named_so(tmp_path, name):
    sitk.WriteImage(CT, str(tmp_path / "ct.mhd"))
    header = tmp_path / "ct.mhd"
    header.write_bytes(header.read_bytes().replace(b"ct.raw", name.encode()))
    check_same(read_volume(header).image, CT)


@pytest.mark.parametrize("name", ["../x/ct.raw", "./../x/ct.raw", "x/../ct.raw", "/ct.raw", ".", "./", r".\ct.raw"])
def test_voxels_elsewhere_are_refused(tmp_path, name):
    (tmp_path / "x").mkdir()
    header = tmp_path / "x" / "ct.mhd"
    sitk.WriteImage(CT, str(header))
    shutil.copy(tmp_path / "x" / "ct.raw", tmp_path / "ct.raw")
    header.write_bytes(header.read_bytes().replace(b"ct.raw", name.encode()))
    with pytest.raises(ImageError, match="beside"):
        read_volume(header)


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize(
    ("name", "type_"),
    [
        ("CHAR", "i1"), ("UCHAR", "u1"), ("SHORT", "i2"), ("USHORT", "u2"), ("INT", "i4"), ("UINT", "u4"),
        ("LONG", "i4"), ("ULONG", "u4"), ("LONG_LONG", "i8"), ("ULONG_LONG", "u8"), ("FLOAT", "f4"), ("DOUBLE", "f8"),
    ],
)  # fmt: skip
def test_every_type_and_byte_order_is_what_simpleitk_reads(tmp_path, name, type_, big_endian):
    header = {"ElementType": f"MET_{name}".encode(), "BinaryDataByteOrderMSB": str(big_endian).encode()}
    path = with_header(tmp_path / "ct.mha", **header)
    content = path.read_bytes()
    start = content.index(b"LOCAL\n") + 6
    voxels = np.random.default_rng(0).integers(0, 100, (7, 8, 9)).astype((">" if big_endian else "<") + type_)
    path.write_bytes(content[:start] + voxels.tobytes())
    check_same(read_volume(path).image, sitk.ReadImage(str(path)))


@pytest.mark.parametrize(
    "changes",
    [
        {"HeaderSize": b"-1"},
        {"Offset": None, "Origin": b"3 4 5"},
        {"TransformMatrix": None, "Rotation": b"0 1 0 -1 0 0 0 0 1"},
        {"TransformMatrix": None},
        {"Offset": None},
        {"ElementSize": b"9 9 9"},
        {"ElementSpacing": None, "ElementSize": b"2 2 3"},
        {"ElementSpacing": b"0.7\t0.8   1.5"},
    ],
    ids=str,
)
def test_other_words_are_read_as_simpleitk_reads_them(tmp_path, changes):
    path = with_header(tmp_path / "ct.mha", **changes)
    check_same(read_volume(path).image, sitk.ReadImage(str(path)))


def test_the_last_bytes_are_the_voxels_where_the_header_says_so(tmp_path):
    path = with_header(tmp_path / "ct.mha", HeaderSize=b"-1")
    content = path.read_bytes()
    start = content.index(b"LOCAL\n") + 6
    path.write_bytes(content[:start] + b"something else" + content[start:])
    check_same(read_volume(path).image, CT)


def test_zeros_behind_compressed_voxels_are_padding(tmp_path):
    path = tmp_path / "ct.mha"
    sitk.WriteImage(CT, str(path), useCompression=True)
    path.write_bytes(path.read_bytes() + bytes(700))
    check_same(read_volume(path).image, CT)
