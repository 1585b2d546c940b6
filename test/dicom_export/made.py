"""A DICOM CT with what an archive needs, and an ensemble that finds balls in it."""

import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from cases import MeanOfPatch
from conftest import make_ct
from dicom import change_dicom, write_dicom_series
from digital_shapes import ball

from nodulemc import cli
from nodulemc.commands import predict

SIZE = (71, 61, 40)  # a frame of single bits ends within a byte
# Latin letters in Latin-1, as most archives have them; the objects are in UTF-8.
PATIENT = {
    "SpecificCharacterSet": "ISO_IR 100", "PatientID": "4711", "PatientName": "Müller^Zoë", "PatientSex": "F",
    "PatientBirthDate": "19600102", "StudyDate": "20240229", "StudyTime": "101112", "AccessionNumber": "A7",
    "StudyID": "S3", "FrameOfReferenceUID": "1.2.3.4", "Manufacturer": "Maker",
}  # fmt: skip
NAMES = ("left", "結節 2", "beside", None)  # the second and the third overlap, the last has no mask
PLACES = ((20, 20, 20), (45, 35, 22), (48, 37, 23), (15, 45, 10))


class Balls(MeanOfPatch):
    """An ensemble whose masks are balls of 8 mm; of a patch that is black at its middle, nothing."""

    def mask_probabilities(self, patches):
        return np.stack([ball(8) * (patch[32, 32, 32] > 0.1) for patch in patches])


def write_series(folder: Path, direction: np.ndarray | None = None) -> sitk.Image:
    """Write a series of tissue, black around the last nodule."""
    image = make_ct(size=SIZE, direction=direction)
    voxels = sitk.GetArrayFromImage(image)
    x, y, z = PLACES[-1]
    voxels[z - 3 : z + 4, y - 3 : y + 4, x - 3 : x + 4] = -1000
    black = sitk.GetImageFromArray(np.maximum(voxels, -1000))
    black.CopyInformation(image)
    write_dicom_series(black, folder)
    change_dicom(*folder.iterdir(), **PATIENT)
    return black


def write_points(file: Path, image: sitk.Image) -> list[tuple[float, float, float]]:
    """Write the nodules and return their points."""
    places = [image.TransformIndexToPhysicalPoint(place) for place in PLACES]
    points = [{"name": name, "point": list(place)} for name, place in zip(NAMES, places, strict=True)]
    file.write_text(json.dumps({"points": points}))
    return places


def run(folder: Path, *options: object) -> int:
    """Exit code of `predict` for the CT and the points in a folder."""
    return cli.main(["predict", str(folder / "ct"), "--points", str(folder / "points.json"), *map(str, options)])


def only(folder: Path, kind: str) -> Path:
    """The one file of a kind ("seg", "sr") in a folder."""
    (found,) = folder.glob(f"*_{kind}.dcm")
    return found


def use_balls(monkeypatch) -> None:
    monkeypatch.setattr(predict, "load_ensemble", lambda args, **wanted: Balls())
