"""Bad, odd and hostile inputs, one row each: what is done to a good case, and what must become of it.

The rows drive `test_bad_inputs.py` and, through `scripts/reliability.py`, the tables of `docs/reliability.md`.
``python test/bad_inputs.py NAME…`` judges rows in a process of their own and prints each one's outcome as JSON.
"""

import gzip
import json
import os
import shutil
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import SimpleITK as sitk
from cases import MeanOfPatch, make_case
from conftest import centre_of, make_ct, rotation
from dicom import change_dicom, write_dicom_series, write_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    SecondaryCaptureImageStorage,
    XRayRadiationDoseSRStorage,
)
from segmentations import change_syntax, contour, write_rtstruct, write_seg, write_segments

from nodulemc import predict
from nodulemc.ct.volume import read_volume
from nodulemc.dicom_export.files import prepare_dicom
from nodulemc.errors import NoduleMCError
from nodulemc.grand_challenge.case import run_case
from nodulemc.points.reading import read_points

REFUSED, WARNED, READ = "refused", "warned", "read"


@dataclass(frozen=True)
class BadInput:
    """One row.

    Attributes:
        name: what is wrong, in words for the table.
        make: given a folder with a good case, spoils it; returns (CT, points) where these are not the case's own.
        outcome: "refused" (exit code 2, no output), "warned" (scored, with a warning) or "read" (scored as it is).
        message: part of the error or of the warning.
        hostile: its time and memory are measured.
        exported: whether `predict --dicom` is meant.
    """

    name: str
    make: Callable[[Path], tuple[Path, Path] | None]
    outcome: str
    message: str = ""
    hostile: bool = False
    exported: bool = False


def good_points() -> list[dict]:
    return [{"name": "n1", "point": list(centre_of(make_ct()))}]


def judge(row: BadInput, folder: Path) -> tuple[str, str]:
    """Outcome and messages of a row, made in an empty folder; a refused case must leave no output."""
    source, target = folder / "input", folder / "output"
    source.mkdir()
    target.mkdir()
    make_case(source, good_points())
    files = row.make(source)
    try:
        if row.exported:
            volume = read_volume(files[0])
            prepare_dicom(target, volume, read_points(files[1], volume), files)
        predictions = predict(*files, MeanOfPatch()) if files else run_case(source, target, MeanOfPatch)
    except NoduleMCError as error:
        left = [path.name for path in target.iterdir()]
        assert not left, f"a refused case leaves {left}"
        return REFUSED, str(error)
    warnings = sorted({warning for prediction in predictions for warning in prediction.warnings})
    return (WARNED if warnings else READ), "; ".join(warnings)


# --- JSON and paths


def file(name: str, content: str | bytes):
    def make(folder: Path) -> None:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return make


points_text = partial(file, "nodule-locations.json")
ct_bytes = partial(file, "images/chest-ct/ct.mha")


def coordinate(text: str):
    return points_text(f'{{"points": [{{"name": "n1", "point": [1, 2, {text}]}}]}}')


def named(name: bytes):
    content = json.dumps({"points": [good_points()[0] | {"name": "@"}]}).encode()
    return points_text(content.replace(b"@", name))


def many_points(count: int):
    return points_text(json.dumps({"points": good_points() * count}))


def on_the_face(beyond_mm: float):
    """A nodule on the scan's first corner, or so far beyond it."""
    ct = make_ct()
    x, y, z = ct.TransformContinuousIndexToPhysicalPoint([-0.5] * 3)
    return points_text(json.dumps({"points": [{"name": "n1", "point": [x - beyond_mm, y, z]}]}))


def listing(*sockets: tuple[str, str]):
    entries = [{"socket": {"slug": slug, "relative_path": path}} for slug, path in sockets]
    return file("inputs.json", json.dumps(entries))


def link_out(name: str):
    """Move an input out of the folder and leave a symbolic link to it."""

    def make(folder: Path) -> None:
        elsewhere = folder.parent / "elsewhere"
        (folder / name).rename(elsewhere)
        (folder / name).symlink_to(elsewhere)

    return make


def link_inside(folder: Path) -> None:
    (folder / "nodule-locations.json").rename(folder / "points.json")
    (folder / "nodule-locations.json").symlink_to("points.json")


def link_circle(folder: Path) -> None:
    (folder / "nodule-locations.json").unlink()
    (folder / "nodule-locations.json").symlink_to("nodule-locations.json")


def listing_outside(folder: Path) -> None:
    listing(("nodule-locations", "nodule-locations.json"))(folder)
    link_out("inputs.json")(folder)


def pipe(folder: Path) -> None:
    (folder / "nodule-locations.json").unlink()
    os.mkfifo(folder / "nodule-locations.json")


def pipe_as_ct(folder: Path) -> None:
    ct_of(folder).unlink()
    os.mkfifo(ct_of(folder))


def folder_as_ct(folder: Path) -> None:
    """Links to a DICOM series elsewhere."""
    ct_of(folder).unlink()
    ct_of(folder).mkdir()
    elsewhere = folder.parent / "elsewhere"
    write_dicom_series(make_ct(), elsewhere)
    for file in elsewhere.iterdir():
        (ct_of(folder) / file.name).symlink_to(file)


def voxels_linked_out(folder: Path) -> None:
    content = ct_of(folder).read_bytes()
    header(ElementDataFile="ct.raw")(folder)
    elsewhere = folder.parent / "elsewhere"
    elsewhere.write_bytes(content[content.index(b"LOCAL\n") + len(b"LOCAL\n") :])
    ct_of(folder).with_suffix(".raw").symlink_to(elsewhere)


# --- MetaImage


def ct_of(folder: Path) -> Path:
    return folder / "images" / "chest-ct" / "ct.mha"


def image(change: Callable[[sitk.Image], sitk.Image], **options):
    """The case's CT as another image."""
    return lambda folder: sitk.WriteImage(change(make_ct(**options)), str(ct_of(folder)))


def header(**changes: str | None):
    """The case's CT with other header fields; None takes a field away."""

    def make(folder: Path) -> None:
        fields = dict(changes)
        content = ct_of(folder).read_bytes()
        start = content.index(b"LOCAL\n") + len(b"LOCAL\n")
        lines = dict(line.split(" = ", 1) for line in content[:start].decode().splitlines())
        last = lines.pop("ElementDataFile")
        last = {"ElementDataFile": fields.pop("ElementDataFile", last)}
        lines = {key: value for key, value in (lines | fields | last).items() if value is not None}
        text = "".join(f"{key} = {value}\n" for key, value in lines.items())
        ct_of(folder).write_bytes(text.encode() + content[start:])

    return make


def meta_text(text: str):
    """The case's CT with more text in its header."""

    def make(folder: Path) -> None:
        ct_of(folder).write_bytes(ct_of(folder).read_bytes().replace(b"DimSize", text.encode() + b"DimSize", 1))

    return make


def mha_bomb(folder: Path) -> None:
    header(CompressedData="True")(folder)
    content = ct_of(folder).read_bytes()
    start = content.index(b"LOCAL\n") + len(b"LOCAL\n")
    ct_of(folder).write_bytes(content[:start] + zlib.compress(bytes(256 << 20)))


def flipped_bit(path: Path) -> None:
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(path))
    writer.UseCompressionOn()
    if path.suffix == ".tif":
        writer.SetCompressor("Deflate")
    writer.Execute(make_ct())
    content = bytearray(path.read_bytes())
    content[5000] ^= 1  # behind an .mha's header, in a TIFF's first slice
    path.write_bytes(content)


def truncated(folder: Path) -> None:
    content = ct_of(folder).read_bytes()
    ct_of(folder).write_bytes(content[: len(content) // 2])


def nan_at(*index: int):
    def change(ct: sitk.Image) -> sitk.Image:
        ct = sitk.Cast(ct, sitk.sitkFloat32)
        ct[index] = float("nan")
        return ct

    return image(change)


def mr(ct: sitk.Image) -> sitk.Image:
    """Grey values as an MR scanner gives them: 0 in air, some hundred in tissue."""
    return sitk.Cast(sitk.Clamp((ct + 1000) * 0.4, lowerBound=0), sitk.sitkUInt16)


def in_cm(spacing_mm: float):
    def make(folder: Path) -> tuple[Path, Path]:
        ct = make_ct(spacing=(spacing_mm / 10,) * 3, origin=(1, 2, 3))
        sitk.WriteImage(ct, str(ct_of(folder)))
        points_text(json.dumps({"points": [{"name": "n1", "point": list(centre_of(ct))}]}))(folder)

    return make


# --- other CT formats


def other_ct(name: str, write: Callable[[Path], None]):
    """A CT of another format, scored with the case's points."""

    def make(folder: Path) -> tuple[Path, Path]:
        write(folder / name)
        return folder / name, folder / "nodule-locations.json"

    return make


def nifti(offset: int, layout: str, *values: float):
    """A NIfTI file with other header bytes."""

    def write(path: Path) -> None:
        sitk.WriteImage(make_ct(), str(path))
        content = bytearray(path.read_bytes())
        struct.pack_into("<" + layout, content, offset, *values)
        path.write_bytes(content)

    return other_ct("ct.nii", write)


def nifti_affine(shear: float):
    """A NIfTI file of nibabel's, whose qform is not set."""

    def write(path: Path) -> None:
        sitk.WriteImage(make_ct(), str(path))
        first = nibabel.load(path)
        affine = first.affine.copy()
        affine[1, 2] += shear * 1.5
        nibabel.Nifti1Image(first.dataobj.get_unscaled().copy(), affine).to_filename(path)

    return other_ct("ct.nii", write)


def nifti_sibling(path: Path) -> None:
    sitk.WriteImage(make_ct() - 2000, str(path.with_suffix("")))
    sitk.WriteImage(make_ct() * 2, str(path))
    content = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into("<f", content, 112, 0.5)
    path.write_bytes(gzip.compress(content))


def nifti_padded(path: Path) -> None:
    sitk.WriteImage(make_ct(), str(path))
    path.write_bytes(path.read_bytes() + bytes(512))


def nifti_capitals(path: Path) -> None:
    sitk.WriteImage(make_ct(), str(path.with_name("ct.nii.gz")))
    path.with_name("ct.nii.gz").rename(path)


def nifti_2(path: Path) -> None:
    sitk.WriteImage(make_ct(), str(path))
    first = nibabel.load(path)
    nibabel.Nifti2Image(first.dataobj.get_unscaled().copy(), first.affine).to_filename(path)


def nifti_bomb(path: Path) -> None:
    sitk.WriteImage(make_ct(), str(path.with_suffix("")))
    plain = path.with_suffix("").read_bytes()
    zeros = gzip.compress(bytes(64 << 20))
    path.write_bytes(gzip.compress(plain) + zeros * 72)


def nrrd(*changes: str):
    """An NRRD file with other header texts: old, new, and so on."""

    def write(path: Path) -> None:
        sitk.WriteImage(make_ct(), str(path))
        content = path.read_bytes()
        for old, new in zip(changes[::2], changes[1::2], strict=True):
            assert old.encode() in content
            content = content.replace(old.encode(), new.encode())
        path.write_bytes(content)

    return other_ct("ct.nrrd", write)


def dicom(first: int = 0, end: int | None = None, **attributes: object):
    """A DICOM series with other attributes in some slices."""

    return dicom_folder(lambda path: change_dicom(*sorted(path.iterdir())[first:end], **attributes))


def dicom_folder(change: Callable[[Path], None]):
    def write(path: Path) -> None:
        write_dicom_series(make_ct(), path)
        change(path)

    return other_ct("series", write)


def truncated_slice(name: str, length: int):
    return dicom_folder(lambda path: (path / name).write_bytes((path / name).read_bytes()[:length]))


def frames_without_geometry(path: Path) -> None:
    """The series as one file that states where its first frame lies, and no more."""
    files = sorted(path.iterdir())
    data = pydicom.dcmread(files[0])
    data.NumberOfFrames = len(files)
    data.PixelData = b"".join(pydicom.dcmread(file).PixelData for file in files)
    for file in files:
        file.unlink()
    data.save_as(path / "frames.dcm")


def files_beside_slices(path: Path) -> None:
    """What lies beside slices on a CD: an index, a dose report, notes, and macOS's copies of file attributes."""
    for name, kind in (("DICOMDIR", MediaStorageDirectoryStorage), ("report.dcm", XRayRadiationDoseSRStorage)):
        data = pydicom.dcmread(path / "000.dcm")
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = kind
        del data.PixelData
        data.save_as(path / name)
    (path / "notes.txt").write_text("a note")
    (path / "._000.dcm").write_bytes(bytes(4096))


def unsigned_padding(path: Path) -> None:
    """A round field of view in unsigned pixels; -2000 around it is written as 63536."""
    for file in path.iterdir():
        data = pydicom.dcmread(file)
        pixels = np.frombuffer(data.PixelData, "<i2").reshape(data.Rows, data.Columns).clip(0).astype("<u2")
        pixels[:10] = 63536
        data.PixelData, data.PixelRepresentation = pixels.tobytes(), 0
        data.add_new(0x00280120, "US", 63536)
        data.save_as(file)


def padding_inside(path: Path) -> None:
    """A padding value that a program has left which rewrote the pixels."""
    for file in path.iterdir():
        data = pydicom.dcmread(file)
        pixels = np.frombuffer(data.PixelData, "<i2").reshape(data.Rows, data.Columns).copy()
        pixels[pixels == 1064] = 1065
        pixels[data.Rows // 2, data.Columns // 2] = 1064
        data.PixelData = pixels.tobytes()
        data.add_new(0x00280120, "SS", 1064)
        data.save_as(file)


def one_slice(folder: Path) -> tuple[Path, Path]:
    write_dicom_series(make_ct(), folder / "series")
    return folder / "series" / "000.dcm", folder / "nodule-locations.json"


def two_kernels(path: Path) -> None:
    for k, file in enumerate(sorted(path.iterdir())):
        data = pydicom.dcmread(file)
        data.ConvolutionKernel = ("B30f", "B80f")[k % 2]
        data.save_as(file)


def a_kernel_in_half(path: Path) -> None:
    change_dicom(*sorted(path.iterdir())[::2], ConvolutionKernel="B30f")


def every_second_derived(path: Path) -> None:
    files = sorted(path.iterdir())
    change_dicom(*files, ImageType=["ORIGINAL", "PRIMARY", "AXIAL"])
    change_dicom(*files[1::2], ImageType=["DERIVED", "SECONDARY", "AXIAL"])


def two_runs(path: Path) -> None:
    for k, file in enumerate(sorted(path.iterdir())):
        change_dicom(file, InstanceNumber=k // 2 + 1 + k % 2 * 100)


def localizer(path: Path) -> None:
    data = pydicom.dcmread(path / "000.dcm")
    data.ImageType, data.ImageOrientationPatient = ["ORIGINAL", "PRIMARY", "LOCALIZER"], [1, 0, 0, 0, 0, -1]
    data.save_as(path / "scout.dcm")


def nested(path: Path) -> None:
    files = list(path.iterdir())
    (path / "study" / "series").mkdir(parents=True)
    for file in files:
        file.rename(path / "study" / "series" / file.name)


def deflated(path: Path) -> None:
    for file in path.iterdir():
        data = pydicom.dcmread(file)
        data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        data.save_as(file)


def deflated_bomb(path: Path) -> None:
    deflated(path)
    content = (path / "030.dcm").read_bytes()
    begin = 144 + int.from_bytes(content[140:144], "little")
    whole = zlib.decompress(content[begin:], -15) + bytes(256 << 20)
    deflater = zlib.compressobj(wbits=-15)
    (path / "030.dcm").write_bytes(content[:begin] + deflater.compress(whole) + deflater.flush())


# --- other points formats


def other_points(name: str, text: str, encoding: str = "utf-8"):
    def make(folder: Path) -> tuple[Path, Path]:
        (folder / name).write_bytes(text.encode(encoding))
        return ct_of(folder), folder / name

    return make


def in_place(name: str, text: str, decimal: str = ".", **options: str):
    """A points file with a nodule's x, y and z at {x}, {y}, {z}."""
    numbers = (f"{c:.3f}".replace(".", decimal) for c in centre_of(make_ct()))
    return other_points(name, text.format(**dict(zip("xyz", numbers, strict=True))), **options)


def fcsv(line: str, system: str = "# CoordinateSystem = LPS\n"):
    columns = "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
    return in_place("n.fcsv", f"# Markups fiducial file version = 4.11\n{system}{columns}{line}\n")


def slicer(name: str = "n.mrk.json", **markup: object):
    point = {"label": "F-1", "position": list(centre_of(make_ct())), "positionStatus": "defined"}
    content = {"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints": [point]} | markup
    return other_points(name, json.dumps({"markups": [content]}))


# --- segmentations as points

MIDDLE = np.s_[24:26, 39:41, 44:46]  # its centre of mass is the CT's centre


def labelled(box: object = MIDDLE, value: float = 1, type_: type = np.uint8) -> sitk.Image:
    """A label image on the CT's grid."""
    voxels = np.zeros(make_ct().GetSize()[::-1], type_)
    voxels[box] = value
    image = sitk.GetImageFromArray(voxels)
    image.CopyInformation(make_ct())
    return image


def labels(make: Callable[[], sitk.Image], name: str = "l.nii.gz"):
    def write(folder: Path) -> tuple[Path, Path]:
        sitk.WriteImage(make(), str(folder / name))
        return ct_of(folder), folder / name

    return write


def moved(image: sitk.Image, mm: float) -> sitk.Image:
    image.SetOrigin([c + mm for c in image.GetOrigin()])
    return image


def coarse(image: sitk.Image) -> sitk.Image:
    image.SetSpacing([2, 2, 2])
    return image


def segments(sizes: str | None = None):
    """3D Slicer's two overlapping segments; with other sizes than they have."""

    def write(folder: Path) -> tuple[Path, Path]:
        layer = sitk.GetArrayFromImage(labelled())
        keys = "Segment0_Name:=a\nSegment1_Name:=b"
        path = write_segments(folder / "s.seg.nrrd", [layer, layer], keys, make_ct())
        if sizes:
            path.write_bytes(path.read_bytes().replace(b"sizes: 2 90 80 50", f"sizes: {sizes}".encode()))
        return ct_of(folder), path

    return write


def seg(change: Callable[[Path], None] | None = None, *, with_series: bool = False):
    """A SEG of the CT as a DICOM series, changed; with that series, or the case's CT."""

    def write(folder: Path) -> tuple[Path, Path]:
        write_dicom_series(make_ct(), folder / "series")
        change_dicom(*(folder / "series").iterdir(), FrameOfReferenceUID="1.2.3")
        masks = sitk.GetArrayFromImage(labelled())[..., None]
        path = write_seg(folder / "series", masks, labels=["a"])
        if change:
            change(path)
        return folder / "series" if with_series else ct_of(folder), path

    return write


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-500])


def many_frames(path: Path) -> None:
    change_dicom(path, NumberOfFrames=2_000_000_000)


def other_frame(path: Path) -> None:
    change_dicom(path, FrameOfReferenceUID="9.8.7")


def bomb_behind(path: Path) -> None:
    """Deflate a file, with 80 MiB of zeros behind its content."""
    change_syntax(path, DeflatedExplicitVRLittleEndian)
    content = path.read_bytes()
    begin = 144 + int.from_bytes(content[140:144], "little")
    whole = zlib.decompress(content[begin:], -15) + bytes(80 << 20)
    deflater = zlib.compressobj(wbits=-15)
    path.write_bytes(content[:begin] + deflater.compress(whole) + deflater.flush())


def rtstruct(offsets: np.ndarray, kind: str = "CLOSED_PLANAR", change: Callable[[Path], None] | None = None):
    """An RTSTRUCT of one contour, its points given from the CT's centre."""

    def write(folder: Path) -> tuple[Path, Path]:
        points = np.column_stack([offsets, np.zeros(len(offsets))]) + centre_of(make_ct())
        path = write_rtstruct(folder / "r.dcm", [("a", [contour(points, kind)])])
        if change:
            change(path)
        return ct_of(folder), path

    return write


def slice_as_points(folder: Path) -> tuple[Path, Path]:
    write_dicom_series(make_ct(), folder / "series")
    return ct_of(folder), folder / "series" / "000.dcm"


SQUARE = np.array([[-3, -3], [3, -3], [3, 3], [-3, 3]])
ZIGZAG = np.column_stack([np.tile([-1, 1], 2500) * (3 + np.arange(5000) / 5000), np.arange(5000) / 500])

CSV = "AnnotationID,CoordX,CoordY,CoordZ\n"
DEEP = "[" * 1_000_000
MANY_KEYS = "{" + ",".join(f'"{k}":0' for k in range(1_000_000)) + ',"0":0}'

JSON_ROWS = [
    BadInput("a coordinate NaN", coordinate("NaN"), REFUSED, "NaN is not JSON"),
    BadInput("a coordinate Infinity", coordinate("-Infinity"), REFUSED, "Infinity is not JSON"),
    BadInput("a coordinate 1e308", coordinate("1e308"), REFUSED, "give three finite numbers"),
    BadInput("a coordinate 1e309, beyond a float", coordinate("1e309"), REFUSED, "beyond a float's range"),
    BadInput("a coordinate of 400 digits", coordinate("9" * 400), REFUSED, "give three finite numbers"),
    BadInput("a coordinate of 100,000 digits", coordinate("9" * 100_000), REFUSED, "malformed JSON", hostile=True),
    BadInput("a point of two numbers", points_text('{"points": [{"point": [1, 2]}]}'), REFUSED, "three finite"),
    BadInput("a point outside the scan", points_text('{"points": [{"point": [9999, 0, 0]}]}'), REFUSED, "outside the"),
    BadInput("a point on the scan's outer face, in rounded digits", on_the_face(0.0005), WARNED, "beyond the scan"),
    BadInput("a point 0.01 mm outside the scan", on_the_face(0.01), REFUSED, "lies 0.01 mm outside"),
    BadInput("a key twice", points_text('{"points": [], "points": []}'), REFUSED, "repeated key 'points'"),
    BadInput("a million keys, one twice", points_text(MANY_KEYS), REFUSED, "repeated key", hostile=True),
    BadInput("lists nested a million deep", points_text(DEEP), REFUSED, "malformed JSON", hostile=True),
    BadInput("objects nested a million deep", points_text('{"a":' * 1_000_000), REFUSED, "malformed", hostile=True),
    BadInput("100,000 nodules", many_points(100_000), REFUSED, "give at most 1000", hostile=True),
    BadInput("a file above 16 MiB", points_text(" " * (17 << 20)), REFUSED, "more than 16 MiB", hostile=True),
    BadInput("a name of 10,000 letters", points_text(json.dumps({"points": [{"name": "n" * 10_000}]})), REFUSED,
             "at most 1000 characters"),
    BadInput("half a character in a name", points_text(r'{"points": [{"name": "\ud800"}]}'), REFUSED, "surrogates"),
    BadInput("half a character in a name, as bytes", named(b"\xed\xa0\x80"), REFUSED, "malformed JSON"),
    BadInput("UTF-16 with half a character in a name", points_text(
        json.dumps({"points": [good_points()[0] | {"name": "\ud800"}]}, ensure_ascii=False).encode(
            "utf-16", "surrogatepass")), REFUSED, "malformed JSON"),
    BadInput("not UTF-8", points_text(b'{"\xff": 1}'), REFUSED, "malformed JSON"),
    BadInput("a named pipe", pipe, REFUSED, "not a regular file", hostile=True),
    BadInput("clinical information null", file("clinical-information-lung-ct.json", "null"), READ),
    BadInput("clinical information that is no object",
             file("clinical-information-lung-ct.json", "[71]"), REFUSED, "no JSON object"),
]  # fmt: skip

PATH_ROWS = [
    BadInput("macOS's ._ct.mha beside the CT", file("images/chest-ct/._ct.mha", bytes(4096)), READ),
    BadInput("nodule locations linked out of /input", link_out("nodule-locations.json"), REFUSED, "leads out of"),
    BadInput("clinical information linked out", link_out("clinical-information-lung-ct.json"), REFUSED, "leads out"),
    BadInput("inputs.json linked out", listing_outside, REFUSED, "leads out of"),
    BadInput("the CT's folder linked out", link_out("images/chest-ct"), REFUSED, "leads out of"),
    BadInput("the CT linked out", link_out("images/chest-ct/ct.mha"), REFUSED, "leads out of"),
    BadInput("a link in a circle", link_circle, REFUSED, "is unusable"),
    BadInput("a link within /input", link_inside, READ),
    BadInput("a listed path with ..", listing(("chest-ct", "../elsewhere")), REFUSED, "leads out of"),
    BadInput("a listed path /etc/passwd", listing(("nodule-locations", "/etc/passwd")), REFUSED, "leads out of"),
    BadInput("a listed path with a null byte", listing(("chest-ct", "a\0b")), REFUSED, "is unusable"),
    BadInput("a listed path of 5,000 letters", listing(("chest-ct", "a" * 5_000)), REFUSED, "is unusable"),
    BadInput("a socket listed twice", listing(*[("chest-ct", "images/chest-ct")] * 2), REFUSED, "listed twice"),
    BadInput("inputs.json that holds no list", file("inputs.json", "{}"), REFUSED, "expected a list"),
    BadInput("a folder named inputs.json", lambda folder: (folder / "inputs.json").mkdir(), REFUSED, "not a regular"),
    BadInput("a pipe named inputs.json", lambda folder: os.mkfifo(folder / "inputs.json"), REFUSED, "not a regular"),
    BadInput(
        "inputs.json linked to nowhere",
        lambda folder: (folder / "inputs.json").symlink_to("nowhere"),
        REFUSED,
        "cannot read",
    ),
    BadInput("a pipe as CT", pipe_as_ct, REFUSED, "not a regular file"),
    BadInput("a folder of DICOM links named .mha", folder_as_ct, REFUSED, "not a regular file"),
    BadInput("the .mha's voxels linked out", voxels_linked_out, REFUSED, "leads out of"),
    BadInput(
        "a CT's name that is not UTF-8",
        lambda folder: ct_of(folder).rename(ct_of(folder).with_name("\udcff.mha")) and None,
        REFUSED,
        "not UTF-8",
    ),
]

CT_ROWS = [
    BadInput("a header that promises 2 TB", header(DimSize="10000 10000 10000"), REFUSED, "promises 2000000000000",
             hostile=True),
    BadInput("a header that promises 4 GiB", header(DimSize="1024 1024 2048"), REFUSED, "of 4294967296 bytes",
             hostile=True),
    BadInput("4 GiB promised, compressed", header(DimSize="1024 1024 2048", CompressedData="True"), REFUSED,
             "at most 743040000 of 4294967296 bytes", hostile=True),
    BadInput("a compressed bomb (.mha)", mha_bomb, REFUSED, "holds more than", hostile=True),
    BadInput("a compressed bomb (.nii.gz, 4.5 GiB)", other_ct("ct.nii.gz", nifti_bomb), REFUSED, "holds more than",
             hostile=True),
    BadInput("a million dimensions", header(NDims="1000000"), REFUSED, "'1000000' dimensions"),
    BadInput("a negative size", header(DimSize="-1 80 50"), REFUSED, "the image has size -1×80×50"),
    BadInput("size 0", header(DimSize="0 80 50"), REFUSED, "the image has size 0×80×50"),
    BadInput("one slice", header(DimSize="90 80 1"), REFUSED, "the image has size 90×80×1"),
    BadInput("two dimensions", image(lambda ct: ct[:, :, 20]), REFUSED, "'2' dimensions"),
    BadInput("four dimensions", image(lambda ct: sitk.JoinSeries([ct, ct])), REFUSED, "'4' dimensions"),
    BadInput("a vector per voxel", image(lambda ct: sitk.Compose([ct, ct])), REFUSED, "vector of 16-bit"),
    BadInput("complex voxels", other_ct("ct.nii", lambda p: sitk.WriteImage(
        sitk.RealAndImaginaryToComplex(*[sitk.Cast(make_ct(), sitk.sitkFloat32)] * 2), str(p))), REFUSED, "complex of"),
    BadInput("spacing 0", header(ElementSpacing="0 0.8 1.5"), REFUSED, "the voxel spacing is 0 0.8 1.5"),
    BadInput("spacing below 0", header(ElementSpacing="-0.7 0.8 1.5"), REFUSED, "the voxel spacing is -0.7"),
    BadInput("spacing NaN", header(ElementSpacing="nan 0.8 1.5"), REFUSED, "give 3 finite numbers"),
    BadInput("spacing infinite", header(ElementSpacing="inf 0.8 1.5"), REFUSED, "give 3 finite numbers"),
    BadInput("spacing 1_0.5, in Python 10.5", header(ElementSpacing="0.7 0.8 1_0.5"), REFUSED, "give 3 finite numbers"),
    BadInput("spacing 1e308", header(ElementSpacing="1e308 0.8 1.5"), REFUSED, "the voxel spacing is 1e+308"),
    BadInput("no spacing", header(ElementSpacing=None), REFUSED, "no ElementSpacing"),
    BadInput("origin NaN", header(Offset="nan 0 0"), REFUSED, "give 3 finite numbers"),
    BadInput("origin 1e300", header(Offset="1e300 0 0"), REFUSED, "the origin is 1e+300"),
    BadInput("origin stated twice", header(Position="0 0 0"), REFUSED, "both Offset and Position"),
    BadInput("a singular direction matrix", header(TransformMatrix="1 0 0 1 0 0 0 0 1"), REFUSED, "direction matrix"),
    BadInput("a direction matrix of zeros", header(TransformMatrix=" ".join("0" * 9)), REFUSED, "direction matrix"),
    BadInput("a sheared direction matrix", header(TransformMatrix="1 0.5 0 0 1 0 0 0 1"), REFUSED, "direction matrix"),
    BadInput("a scaled direction matrix", header(TransformMatrix="2 0 0 0 2 0 0 0 2"), REFUSED, "direction matrix"),
    BadInput("a reflected direction matrix",
             image(lambda ct: sitk.Flip(ct, (True, False, False)), direction=rotation(3, 4, 5)), READ),
    BadInput("voxels in another file (.mha)", header(ElementDataFile="/etc/passwd"), REFUSED, "beside the header"),
    BadInput("voxels in another folder", header(ElementDataFile="../../nodule-locations.json"), REFUSED, "beside the"),
    BadInput("voxels in a list of files", header(ElementDataFile="LIST"), REFUSED, "beside the header"),
    BadInput("an unusual separator before another file", header(**{"ElementDataFile": None, "Comment": "a\n"
             " ElementDataFile : /etc/passwd"}), REFUSED, "no MetaImage header"),
    BadInput("DICOM tags in the header, with line breaks and long values", meta_text("0008|0081 = A street 1\nBasel"
             "\n0029|1010 = " + "QUJD" * 20_000 + "\nSeries Description = CT: thorax\n"), READ),
    BadInput("a header of 4 MiB", meta_text("k = v\n" * 700_000), REFUSED, "no MetaImage header", hostile=True),
    BadInput("a field of the header twice", meta_text("a = b\nOffset = 1 2 3\n"), REFUSED, "'Offset' is stated twice"),
    BadInput("one volume in four dimensions", image(lambda ct: sitk.JoinSeries([ct])), READ),
    BadInput("byte orders that differ", header(ElementByteOrderMSB="True"), REFUSED, "they mean the same"),
    BadInput("compressed: Yes", header(CompressedData="Yes"), REFUSED, "write True or False"),
    BadInput("voxels as text", header(BinaryData="False"), REFUSED, "not plain binary data"),
    BadInput("an unknown voxel type", header(ElementType="MET_SHORTER"), REFUSED, "cannot read the CT"),
    BadInput("no image at all", ct_bytes(b"hello"), REFUSED, "cannot read the CT"),
    BadInput("a PNG named .mha", ct_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100)), REFUSED, "cannot read the CT"),
    BadInput("an empty file", ct_bytes(b""), REFUSED, "cannot read the CT"),
    BadInput("a truncated file", truncated, REFUSED, "the file holds"),
    BadInput("a flipped bit in compressed voxels", lambda folder: flipped_bit(ct_of(folder)), REFUSED,
             "corrupt"),
    BadInput("a voxel under the patch NaN", nan_at(45, 40, 25), REFUSED, "NaN or infinite"),
    BadInput("a voxel elsewhere NaN", nan_at(0, 0, 0), READ),
    BadInput("a scan in cm (0.07 per voxel)", in_cm(0.7), REFUSED, "write it in mm"),
    BadInput("a coarse scan in cm (0.15 per voxel)", in_cm(1.5), WARNED, "spacing is not in mm"),
    BadInput("unsigned 12 bit without rescale", image(lambda ct: sitk.Cast(sitk.Clamp(
        ct + 1024, lowerBound=0, upperBound=4095), sitk.sitkUInt16)), WARNED, "shifted by +1024"),
    BadInput("HU 1024 too high", image(lambda ct: ct + 1024), WARNED, "shifted by +1024"),
    BadInput("HU 1024 too low", image(lambda ct: ct - 1024), WARNED, "shifted by -1024"),
    BadInput("MR instead of CT", image(mr), WARNED, "do not look like a chest CT's"),
    BadInput("slices of 5 mm", image(lambda ct: ct, spacing=(0.7, 0.8, 5)), WARNED, "slice spacing 5.00 mm"),
    BadInput("pixels of 1.5 mm", image(lambda ct: ct, spacing=(1.5, 0.8, 1.5)), WARNED, "pixel spacing 1.50 mm"),
]  # fmt: skip

FORMAT_ROWS = [
    BadInput("NIfTI: spacing 0", nifti(76, "4f", 1, 0, 0.8, 1.5), REFUSED, "the voxel spacing is 0"),
    BadInput("NIfTI: spacing NaN", nifti(76, "4f", 1, float("nan"), 0.8, 1.5), REFUSED, "the voxel spacing is nan"),
    BadInput("NIfTI: spacing in metres", nifti(123, "B", 1), REFUSED, "write it in mm"),
    BadInput("NIfTI: spacing in µm", nifti(123, "B", 3), REFUSED, "write it in mm"),
    BadInput("NIfTI: no orientation", nifti(252, "2h", 0, 0), REFUSED, "neither qform nor sform"),
    BadInput("NIfTI: qform 0.5 mm from the sform", nifti(268, "f", 31.75), REFUSED,
             "a corner of the scan 0.50 mm apart"),
    BadInput("NIfTI: qform 0.05 mm from the sform", nifti(268, "f", 31.3), READ),
    BadInput("NIfTI: a sheared sform", nifti_affine(0.02), REFUSED, "direction matrix"),
    BadInput("NIfTI: a slightly sheared sform", nifti_affine(0.005), READ),
    BadInput("NIfTI: sform_code 9", nifti(254, "h", 9), REFUSED, "sform_code is 9"),
    BadInput("NIfTI: a quaternion longer than 1", nifti(256, "3f", 1, 1, 0), REFUSED, "longer than 1"),
    BadInput("NIfTI: a slope NaN", nifti(112, "2f", float("nan"), 0), REFUSED, "scl_slope is nan"),
    BadInput("NIfTI: a slope, and another file of the stem", other_ct("ct.nii.gz", nifti_sibling), READ),
    BadInput("NIfTI: zeros behind the gzip stream", other_ct("ct.nii.gz", nifti_padded), READ),
    BadInput("NIfTI: ct.Nii.Gz", other_ct("ct.Nii.Gz", nifti_capitals), READ),
    BadInput("NIfTI: pixdim unlike the affine", nifti(80, "3f", 0.9, 0.8, 1.5), REFUSED, "by the sform"),
    BadInput("NIfTI: an intercept without a slope", nifti(112, "2f", 0, 24), REFUSED, "scl_slope is 0"),
    BadInput("NIfTI: voxels from byte 0 on", nifti(108, "f", 0), REFUSED, "vox_offset is 0"),
    BadInput("NIfTI: voxels from byte NaN on", nifti(108, "f", float("nan")), REFUSED, "vox_offset is nan"),
    BadInput("NIfTI: voxels that begin too late", nifti(108, "f", 400_000), REFUSED, "320352 of 720000 bytes"),
    BadInput("NIfTI: header and voxels apart", nifti(344, "4s", b"ni1\0"), REFUSED, "no NIfTI header"),
    BadInput("NIfTI-2", other_ct("ct.nii", nifti_2), READ),
    BadInput("NIfTI: 35 TB promised", nifti(40, "4h", 3, 32767, 32767, 32767), REFUSED, "promises", hostile=True),
    BadInput("NRRD: voxels in another file", nrrd("encoding: raw", "encoding: raw\ndata file: /etc/passwd"), REFUSED,
             "the voxels are in another file"),
    BadInput("NRRD: no patient coordinates", nrrd("space: left-posterior-superior\n", ""), REFUSED, "no patient"),
    BadInput("NRRD: a direction missing", nrrd("(0,0,1.5)", "none"), REFUSED, "give three vectors"),
    BadInput("NRRD: a direction (0,0,1_5)", nrrd("(0,0,1.5)", "(0,0,1_5)"), REFUSED, "give three vectors"),
    BadInput("NRRD: no origin", nrrd("(-31.25,12.5,-140.75)", "none"), REFUSED, "space origin is 'none'"),
    BadInput("NRRD: sizes 9_0", nrrd("sizes: 90", "sizes: 9_0"), REFUSED, "give 3 whole numbers"),
    BadInput("NRRD: in cm", nrrd("endian: little", 'endian: little\nspace units: "cm" "cm" "cm"'), REFUSED, "in mm"),
    BadInput("NRRD: one volume in four dimensions", other_ct("ct.nrrd", lambda path: sitk.WriteImage(
        sitk.JoinSeries([make_ct()]), str(path))), READ),
    BadInput("NRRD: a further axis of one voxel", nrrd("dimension: 3", "dimension: 4", "sizes: 90", "sizes: 1 90",
             "space directions: ", "space directions: none ", "kinds:", "kinds: list"), READ),
    BadInput("NRRD: a further axis of 50 voxels", nrrd("sizes: 90 80 50", "sizes: 90 80 1 50", "dimension: 3",
             "dimension: 4", "(0,0,1.5)", "(0,0,1.5) none"), REFUSED, "size 90×80×1×50"),
    BadInput("NRRD: 2 TB promised", nrrd("sizes: 90 80 50", "sizes: 10000 10000 10000"), REFUSED, "promises",
             hostile=True),
    BadInput("TIFF: a flipped bit in deflated voxels", other_ct("ct.tif", flipped_bit), REFUSED, "corrupt"),
    BadInput("DICOM: modality MR", dicom(Modality="MR"), WARNED, "the DICOM modality is 'MR'"),
    BadInput("DICOM: no rescale", dicom(RescaleIntercept="0"), WARNED, "shifted by +1024"),
    BadInput("DICOM: contrast agent", dicom(ContrastBolusAgent="Iohexol"), WARNED, "a contrast agent was given"),
    BadInput("DICOM: slice thickness 5 mm", dicom(SliceThickness="5"), WARNED, "slice thickness 5 mm"),
    BadInput("DICOM: pixel spacing 0", dicom(PixelSpacing=["0", "0"]), REFUSED, "pixel spacing is"),
    BadInput("DICOM: another pixel spacing from the 11th slice on", dicom(10, PixelSpacing=["0.5"] * 2),
             REFUSED, "spacing is '0.5 0.5', unlike the first"),
    BadInput("DICOM: one slice of another orientation", dicom(25, 26, ImageOrientationPatient=[1, 0, 0, 0, 0, 1]),
             REFUSED, "unlike the first slice's"),
    BadInput("DICOM: no orientation", dicom(ImageOrientationPatient=None), REFUSED, "the image orientation is ''"),
    BadInput("DICOM: an orientation of zeros", dicom(ImageOrientationPatient=[0] * 6), REFUSED, "image orientation is"),
    BadInput("DICOM: an orientation not at right angles", dicom(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), REFUSED,
             "image orientation is"),
    BadInput("DICOM: pixel data of one slice cut", dicom(25, 26, PixelData=bytes(1000)), REFUSED,
             "no pixel data of 14400 bytes"),
    BadInput("DICOM: the first slice's file truncated", truncated_slice("000.dcm", 5000), REFUSED, "file is damaged"),
    BadInput("DICOM: the last slice's file truncated", truncated_slice("049.dcm", 140), REFUSED, "file is damaged"),
    BadInput("DICOM: the last slice's file empty", truncated_slice("049.dcm", 0), REFUSED, "file is damaged"),
    BadInput("DICOM: frames without a position each", dicom_folder(frames_without_geometry), REFUSED,
             "1 positions for 50 frames"),
    BadInput("DICOM: a file's name is not UTF-8", dicom_folder(lambda p: (p / "049.dcm").rename(p / "\udcff.dcm")),
             REFUSED, "not UTF-8"),
    BadInput("DICOM: a link to nowhere", dicom_folder(lambda p: (p / "050.dcm").symlink_to("nowhere")), REFUSED,
             "No such file"),
    BadInput("DICOM: a named pipe", dicom_folder(lambda p: os.mkfifo(p / "pipe")), REFUSED, "named pipe"),
    BadInput("DICOM: index, dose report and notes beside", dicom_folder(files_beside_slices), READ),
    BadInput("DICOM: padding of unsigned pixels", dicom_folder(unsigned_padding), READ),
    BadInput("DICOM: a padding value that is a tissue's", dicom_folder(padding_inside), WARNED, "calls 40 HU padding"),
    BadInput("DICOM: a slice's file instead of the folder", one_slice, REFUSED, "a single DICOM file"),
    BadInput("DICOM: MONOCHROME1", dicom(PhotometricInterpretation="MONOCHROME1"), READ),
    BadInput("DICOM: one slice without rescaling", dicom(25, 26, RescaleSlope=None, RescaleIntercept=None), REFUSED,
             "no RescaleSlope, unlike 000.dcm"),
    BadInput("DICOM: no slice states a rescaling", dicom(RescaleSlope=None, RescaleIntercept=None), WARNED,
             "states no rescaling"),
    BadInput("DICOM: a rescale slope of 0", dicom(RescaleSlope="0"), REFUSED, "the rescaling has slope '0'"),
    BadInput("DICOM: no HU by its rescale type", dicom(RescaleType="US"), WARNED, "rescale type is 'US', not HU"),
    BadInput("DICOM: slices of two patients", dicom(20, PatientID="another"), REFUSED,
             "PatientID is 'another', and 'phantom'"),
    BadInput("DICOM: two reconstructions in one series", dicom_folder(two_kernels), REFUSED, "ConvolutionKernel is"),
    BadInput("DICOM: every second slice without the others' kernel", dicom_folder(a_kernel_in_half), REFUSED,
             "ConvolutionKernel is none, and 'B30f'"),
    BadInput("DICOM: every second slice derived", dicom_folder(every_second_derived), REFUSED, "ImageType is"),
    BadInput("DICOM: slices of two studies", dicom(20, StudyInstanceUID="1.2.3"), REFUSED, "StudyInstanceUID is"),
    BadInput("DICOM: instance numbers of two runs in turn", dicom_folder(two_runs), REFUSED, "goes 1, 101, 2, 102"),
    BadInput("DICOM: colours", dicom(SamplesPerPixel=3), REFUSED, "3 samples per pixel"),
    BadInput("DICOM: a slice missing", dicom_folder(lambda p: (p / "030.dcm").unlink()), REFUSED, "after 029.dcm"),
    BadInput("DICOM: a slice doubled", dicom_folder(lambda p: shutil.copy(p / "030.dcm", p / "030 (1).dcm")), REFUSED,
             "the slice is doubled"),
    BadInput("DICOM: a localizer in the series", dicom_folder(localizer), READ),
    BadInput("DICOM: two CTs", dicom_folder(lambda p: write_dicom_series(make_ct(seed=1), p / "other")), REFUSED,
             "2 DICOM series"),
    BadInput("DICOM: in a folder below", dicom_folder(nested), READ),
    BadInput("DICOM: deflated", dicom_folder(deflated), READ),
    BadInput("DICOM: a deflated file that inflates to 256 MiB more than it promises", dicom_folder(deflated_bomb), READ,
             hostile=True),
    BadInput("DICOM: contrast agent NONE", dicom(ContrastBolusAgent="NONE"), READ),
    BadInput("CSV: 100,000 nodules", other_points("t.csv", CSV + "n,0,0,0\n" * 100_000), REFUSED, "at most 1000",
             hostile=True),
    BadInput("CSV: a coordinate NaN", other_points("t.csv", CSV + "n,0,nan,0\n"), REFUSED, "line 2"),
    BadInput("CSV: a coordinate 1_0", other_points("t.csv", CSV + "n,0,1_0,0\n"), REFUSED, "line 2"),
    BadInput("CSV: a cell of 200,000 letters", other_points("t.csv", CSV + "n" * 200_000 + ",0,0,0\n"), REFUSED,
             "field larger than"),
    BadInput("CSV: a column twice", other_points("t.csv", CSV.replace("\n", ",CoordX\n")), REFUSED, "repeated"),
    BadInput("CSV: a short row", other_points("t.csv", CSV + "n,0\n"), REFUSED, "2 cells"),
    BadInput("CSV: decimal commas", other_points("t.csv", CSV + "n,-110,62,-44,65,-217,78\n"), REFUSED, "7 cells"),
    BadInput("CSV: a quote without its end", other_points("t.csv", CSV + '"n,0,0,0\n'), REFUSED,
             "cannot read the table"),
    BadInput("CSV: six million short rows", other_points("t.csv", CSV + "n\n" * 6_000_000), REFUSED, "1 cell:",
             hostile=True),
    BadInput("CSV: two million rows of another scan", other_points("t.csv", "SeriesInstanceUID," + CSV
             + "u,n,0,0,0\n" * 2_000_000), REFUSED, "more than 1000000 rows", hostile=True),
    BadInput("CSV: decimal commas in quotes", other_points("t.csv", CSV + 'n,"-110,62","-44,65","-217,78"\n'), REFUSED,
             "with decimal points"),
    BadInput("CSV: decimal commas, the header padded", other_points("t.csv", CSV.replace("\n", ",,,\n")
             + "n,-110,62,-44,65,-217,78\n"), REFUSED, "7 cells"),
    BadInput("CSV: decimal commas between semicolons", in_place("t.csv", "name;x;y;z\nn;{x};{y};{z}\n", ","), READ),
    BadInput("CSV: decimal commas and points between semicolons", other_points("t.csv", "x;y;z\n1,5;2.5;3\n"), REFUSED,
             "decimal points and decimal commas"),
    BadInput("CSV: decimal commas between tabs", other_points("t.csv", "x\ty\tz\n1,5\t2,5\t3\n"), REFUSED,
             "with decimal points"),
    BadInput("CSV: tabs, UTF-16", in_place("t.csv", "x\ty\tz\n{x}\t{y}\t{z}\n", encoding="utf-16"), READ),
    BadInput("CSV: empty rows and columns", in_place("t.csv", "\n,x,y,z,,\n,,,,,\n,{x},{y},{z},,\n,,,,,\n"), READ),
    BadInput("CSV: two million empty rows", in_place("t.csv", "x,y,z\n{x},{y},{z}\n" + ",,\n" * 2_000_000), READ,
             hostile=True),
    BadInput("CSV: LUNA16's columns", in_place("t.csv", "seriesuid,coordX,coordY,coordZ,class\nct,{x},{y},{z},1\n"),
             READ),
    BadInput("CSV: coordinates twice", other_points("t.csv", CSV.replace("\n", ",x,y,z\n") + "n,0,0,0,1,1,1\n"),
             REFUSED, "columns are ambiguous"),
    BadInput("CSV: rows of other CTs", other_points("t.csv", "ct,x,y,z\na.mha,0,0,0\nb.mha,0,0,0\n"), REFUSED,
             "no row has the ct"),
    BadInput("CSV: cells beyond the last column", other_points("t.csv", CSV + "n,0,0,0,1\n"), REFUSED, "5 cells"),
    BadInput("points and Slicer's markups in one file", other_points("n.json", '{"points": [], "markups": []}'),
             REFUSED, "both points and markups"),
    BadInput("Slicer: markups named .json", slicer("n.json"), READ),
    BadInput("Slicer: .fcsv", fcsv("1,{x},{y},{z},0,0,0,1,1,1,0,F-1,,"), READ),
    BadInput("Slicer: .fcsv, hidden and not selected", fcsv("1,{x},{y},{z},0,0,0,1,0,0,0,F-1,,,2,0"), READ),
    BadInput("Slicer: .fcsv, a point not placed", fcsv("1,{x},{y},{z},0,0,0,1,1,1,0,F-1,,,0,0"), REFUSED,
             "no defined position"),
    BadInput("Slicer: .fcsv, no coordinate system", fcsv("1,{x},{y},{z},0,0,0,1,1,1,0,F-1,,", ""), REFUSED,
             "coordinate system is not stated"),
    BadInput("Slicer: .fcsv in voxels", fcsv("1,{x},{y},{z},0,0,0,1,1,1,0,F-1,,", "# CoordinateSystem = 2\n"), REFUSED,
             "coordinate system is '2'"),
    BadInput("Slicer: .fcsv, decimal commas", fcsv("1,12,5,-3,4,7,0,0,0,1,1,1,0,F-1,,"), REFUSED,
             "no point in 16 cells"),
    BadInput("Slicer: a label that is no text", slicer(controlPoints=[{"label": ["F"], "position": [0, 0, 0]}]),
             REFUSED, "the name of nodule 1"),
    BadInput("Slicer: coordinates in µm", slicer(coordinateUnits="um"), REFUSED, "give a point list in mm"),
]  # fmt: skip

SEGMENTATION_ROWS = [
    BadInput("label image: one nodule", labels(labelled), READ),
    BadInput("label image: Slicer's overlapping segments", segments(), READ),
    BadInput("label image: empty", labels(lambda: labelled(value=0)), REFUSED, "nothing is segmented"),
    BadInput("label image: a probability map", labels(lambda: labelled(value=0.7, type_=np.float32)), REFUSED,
             "not all whole numbers"),
    BadInput("label image: the CT", labels(make_ct), REFUSED, "no labels"),
    BadInput("label image: the lungs", labels(lambda: coarse(labelled(np.s_[:]))), REFUSED, "2.9 litres"),
    BadInput("label image: 7,290 specks", labels(lambda: labelled(np.s_[::3, ::3, ::3])), REFUSED,
             "more than 1000 nodules", hostile=True),
    BadInput("label image: of another place", labels(lambda: moved(labelled(), 500)), REFUSED, "outside the CT"),
    BadInput("label image: no image", other_points("l.mha", "no image"), REFUSED, "cannot read the image"),
    BadInput("label image: 10,000 layers promised", segments("10000 90 80 50"), REFUSED, "3600000000 bytes",
             hostile=True),
    BadInput("label image: a compressed bomb", segments("2 90 8 50"), REFUSED, "holds more than", hostile=True),
    BadInput("SEG: binary", seg(with_series=True), READ),
    BadInput("SEG: with a CT that is not DICOM", seg(), READ),
    BadInput("SEG: another frame of reference", seg(other_frame, with_series=True), REFUSED, "frame of reference"),
    BadInput("SEG: cut", seg(cut), REFUSED, "damaged"),
    BadInput("SEG: two billion frames promised", seg(many_frames), REFUSED, "damaged", hostile=True),
    BadInput("SEG: a deflated bomb behind the pixels", seg(bomb_behind), READ, hostile=True),
    BadInput("RTSTRUCT: a closed contour", rtstruct(SQUARE), READ),
    BadInput("RTSTRUCT: a point", rtstruct(SQUARE[:1] * 0, "POINT"), READ),
    BadInput("RTSTRUCT: an open contour", rtstruct(SQUARE, "OPEN_PLANAR"), REFUSED, "type 'OPEN_PLANAR'"),
    BadInput("RTSTRUCT: a body's contour", rtstruct(SQUARE * 400), REFUSED, "litres"),
    BadInput("RTSTRUCT: 5,000 points in a zigzag", rtstruct(ZIGZAG), REFUSED, "too rough", hostile=True),
    BadInput("RTSTRUCT: cut", rtstruct(SQUARE, change=cut), REFUSED, "damaged"),
    BadInput("RTSTRUCT: a deflated bomb", rtstruct(SQUARE, change=bomb_behind), REFUSED, "inflates to more than 64 MiB",
             hostile=True),
    BadInput("a DICOM slice as points", slice_as_points, REFUSED, "no SEG or RTSTRUCT"),
]  # fmt: skip


# --- DICOM objects


def whole(first: int = 0, end: int | None = None, **attributes: object):
    """A DICOM series that says whose it is, with other attributes in some slices."""

    def change(path: Path) -> None:
        change_dicom(*path.iterdir(), FrameOfReferenceUID="1.2.3")
        change_dicom(*sorted(path.iterdir())[first:end], **attributes)

    return dicom_folder(change)


def in_two_files(path: Path) -> None:
    for file in path.iterdir():
        file.unlink()
    for name, frames in (("a.dcm", range(25)), ("b.dcm", range(25, 50))):
        write_frames(make_ct(), path / name, frames)
    change_dicom(*path.iterdir(), SeriesInstanceUID="1.2", StudyInstanceUID="1.2", FrameOfReferenceUID="1.2.3")


def no_points(folder: Path) -> tuple[Path, Path]:
    points_text('{"points": []}')(folder)
    return whole()(folder)


EXPORT_ROWS = [
    BadInput("--dicom: a whole series", whole(), READ, exported=True),
    BadInput("--dicom: no FrameOfReferenceUID", dicom(), REFUSED, "lacks FrameOfReferenceUID", exported=True),
    BadInput("--dicom: no patient and no study", whole(PatientID="", StudyInstanceUID=None), REFUSED,
             "lacks PatientID, StudyInstanceUID", exported=True),
    BadInput("--dicom: one slice without a SOPInstanceUID", whole(6, 7, SOPInstanceUID=""), REFUSED,
             "lacks SOPInstanceUID", exported=True),
    BadInput("--dicom: a UID that is none", whole(StudyInstanceUID="../1"), REFUSED, "StudyInstanceUID is '../1'",
             exported=True),
    BadInput("--dicom: all slices have one SOPInstanceUID", whole(SOPInstanceUID="1.2.3"), REFUSED,
             "the same SOPInstanceUID", exported=True),
    BadInput("--dicom: secondary captures", whole(SOPClassUID=SecondaryCaptureImageStorage), REFUSED,
             "no CT image (Secondary Capture", exported=True),
    BadInput("--dicom: a multi-frame CT in two files", dicom_folder(in_two_files), REFUSED, "in 2 files",
             exported=True),
    BadInput("--dicom: a patient's sex that DICOM does not know", whole(PatientSex="X"), READ, exported=True),
    BadInput("--dicom: a CT that is no DICOM series", nifti(0, "i", 348), REFUSED, "no DICOM series", exported=True),
    BadInput("--dicom: no nodule", no_points, REFUSED, "without a nodule", exported=True),
]  # fmt: skip

GROUPS = {
    "JSON": JSON_ROWS,
    "Paths and links": PATH_ROWS,
    "CT (.mha, as on Grand-Challenge)": CT_ROWS,
    "Other formats (`nodulemc predict`)": FORMAT_ROWS,
    "Segmentations as points": SEGMENTATION_ROWS,
    "DICOM objects (`nodulemc predict --dicom`)": EXPORT_ROWS,
}
ROWS = [row for rows in GROUPS.values() for row in rows]


def main(names: list[str]) -> None:
    """Judge rows one after the other; the memory is the process's largest so far."""
    by_name = {row.name: row for row in ROWS}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            outcome, message = judge(by_name[name], Path(folder))
            seconds = time.perf_counter() - start
        print(json.dumps({"outcome": outcome, "message": message, "seconds": seconds, "mib": _peak_mib()}))


def _peak_mib() -> float:
    """The process's largest memory so far; getrusage would count the parent's, from before the program was started."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    main(sys.argv[1:])
