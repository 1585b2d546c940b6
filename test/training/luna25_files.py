"""Small data sets in LUNA25's layout: a table, CTs and masks, and the challenge's own nodule blocks."""

import csv
from functools import cache
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from conftest import centre_of, make_ct, rotation

COLUMNS = (
    "PatientID", "SeriesInstanceUID", "StudyDate", "CoordX", "CoordY", "CoordZ", "LesionID", "AnnotationID",
    "NoduleID", "label", "Age_at_StudyDate", "Gender",
)  # fmt: skip
BALL_MM = 6.0


def table_row(patient: int, series: str, lesion: int, point, label: int, **extra) -> dict:
    x, y, z = point
    values = (patient, series, 19990102, x, y, z, lesion, f"{patient}_{lesion}_19990102", f"{patient}_{lesion}", label)
    return dict(zip(COLUMNS, (*values, 63, "Female"), strict=True)) | extra


def write_table(path: Path, rows: list[dict]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def ball(ct: sitk.Image, point, radius_mm: float = BALL_MM) -> np.ndarray:
    """Mask of a ball on the CT's grid; uint8, z, y, x. World positions come from SimpleITK."""
    physical = sitk.PhysicalPointSource(
        sitk.sitkVectorFloat64, ct.GetSize(), ct.GetOrigin(), ct.GetSpacing(), ct.GetDirection()
    )
    away = np.linalg.norm(sitk.GetArrayFromImage(physical) - np.array(point), axis=-1)
    return (away <= radius_mm).astype(np.uint8)


def image_like(array: np.ndarray, ct: sitk.Image) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.CopyInformation(ct)
    return image


def cropped(mask: sitk.Image, margin: int = 2) -> sitk.Image:
    """The box of a mask's voxels and a margin, with its own geometry."""
    filled = np.argwhere(sitk.GetArrayViewFromImage(mask))[:, ::-1]
    low = np.maximum(filled.min(axis=0) - margin, 0)
    high = np.minimum(filled.max(axis=0) + 1 + margin, mask.GetSize())
    return mask[tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))]


@cache
def make_scans() -> dict[str, sitk.Image]:
    return {
        "1.2.3": make_ct(size=(150, 140, 90), direction=rotation(8, -5, 12), seed=1),
        "1.2.4": make_ct(size=(80, 90, 60), seed=2),
        "1.2.5": make_ct(size=(70, 70, 40), seed=3),
    }


@cache
def make_mask(name: str, point: tuple[float, float, float]) -> sitk.Image:
    ct = make_scans()[name]
    return image_like(ball(ct, point), ct)


class Cohort:
    """Three scans of two patients, the first one oblique; four nodules with masks and one without.

    Attributes:
        folder: with table.csv, ct/ and masks/.
        rows: the table's.
        scans: CTs by SeriesInstanceUID.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scans = {name: sitk.Image(ct) for name, ct in make_scans().items()}
        middle = {name: np.array(centre_of(ct)) for name, ct in self.scans.items()}
        self.rows = [
            table_row(11, "1.2.3", 1, middle["1.2.3"] + [3.3, -8.1, 2.7], 1, note="first"),
            table_row(12, "1.2.4", 1, middle["1.2.4"] + [0.4, 6.6, -9.2], 0, note="a, b"),
            table_row(11, "1.2.3", 2, middle["1.2.3"] + [-20.2, 11.9, -30.4], 0, note=""),
            table_row(12, "1.2.5", 2, middle["1.2.5"] + [1, 1, 1], 0, note="no mask"),
            table_row(12, "1.2.4", 3, middle["1.2.4"] + [-14.0, -7.7, 12.1], 1, note="last"),
        ]
        (folder / "ct").mkdir(parents=True)
        (folder / "masks").mkdir()
        for name, ct in self.scans.items():
            sitk.WriteImage(ct, str(folder / "ct" / f"{name}.mha"))
        self.write_table()
        for row in self.rows:
            if row["note"] != "no mask":
                self.write_mask(row)

    def write_table(self) -> None:
        write_table(self.folder / "table.csv", self.rows)

    def ct_of(self, row: dict) -> sitk.Image:
        return self.scans[row["SeriesInstanceUID"]]

    def mask_of(self, row: dict) -> sitk.Image:
        """On the whole CT's grid."""
        return sitk.Image(make_mask(row["SeriesInstanceUID"], tuple(point_of(row))))

    def write_mask(self, row: dict) -> None:
        sitk.WriteImage(cropped(self.mask_of(row)), str(self.mask_path(row)), useCompression=True)

    def mask_path(self, row: dict) -> Path:
        return self.folder / "masks" / f"{row['AnnotationID']}.mha"


def point_of(row: dict) -> np.ndarray:
    return np.array([row[f"Coord{axis}"] for axis in "XYZ"])


def write_challenge_block(folder: Path, annotation_id: str, image: sitk.Image) -> None:
    """Voxels and metadata as the challenge gives them, from the positions of an image's voxels."""
    for name in ("image", "metadata"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    first = np.array(image.TransformIndexToPhysicalPoint((0, 0, 0)))
    spacing = np.array(image.GetSpacing()[::-1])
    steps = [np.array(image.TransformIndexToPhysicalPoint(one)) - first for one in ((0, 0, 1), (0, 1, 0), (1, 0, 0))]
    metadata = {
        "origin": first[::-1].copy(),
        "spacing": spacing,
        "transform": np.vstack([step[::-1] for step in steps]) / spacing,
    }
    np.save(folder / "image" / f"{annotation_id}.npy", sitk.GetArrayFromImage(image))
    np.save(folder / "metadata" / f"{annotation_id}.npy", metadata)
