"""The error of a nodule's place in an earlier scan, the similarity of the scans there, and the time it takes.

Real scans are moved, resampled to another grid and given noise, and a breath bends them. Other patients' scans show the
effect of a wrong registration. The script is deterministic and takes about five minutes on one core:

    python benchmarks/registration.py [--data ../shared/data]
"""

import argparse
import csv
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nodulemc.ct.volume import Volume, read_volume
from nodulemc.data.lidc_nodules import nodules_of
from nodulemc.data.lidc_xml import read_reading
from nodulemc.geometry import Grid
from nodulemc.measure.mask import NoduleMask
from nodulemc.measure.registration import Alignment, Registration

SEED = 11
NOISE_HU = 25.0
MOST_TURN_DEG, MOST_SHIFT_MM = 8.0, 60.0
BREATH_MM = 8.0
CUBE_MM = 42.0  # the used part of a cube of 51 mm, so that it stays inside when turned
NOTHING = NoduleMask((0, 0, 0), np.zeros((1, 1, 1), np.float32), None, ())

Place = Sequence[float]


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with lidc/")
    data = parser.parse_args().data / "lidc"
    if not data.is_dir():
        sys.exit(f"LIDC: not found at {data}")
    rng = np.random.default_rng(SEED)
    _whole_scan(rng, data / "scans" / "LIDC-IDRI-0003")
    _cubes(rng, data / "cubes")


def _whole_scan(rng: np.random.Generator, folder: Path) -> None:
    scan = read_volume(folder)
    nodules = _nodules(folder, scan)
    print("| LIDC-IDRI-0003, earlier scan | error in mm, each nodule | correlation | whole, s | a nodule, s |")
    print("|---|---|---|---|---|")
    for name, spacing, breath in (
        ("moved", (0.7, 0.7, 1.25), 0.0),
        (f"moved, breath of {BREATH_MM:g} mm", (0.7, 0.7, 1.25), BREATH_MM),
        (f"moved, breath of {BREATH_MM:g} mm, slices of 5 mm", (0.9, 0.9, 5.0), BREATH_MM),
    ):
        earlier, truth = _moved(rng, scan.image, spacing, breath)
        _row(name, scan, Volume(earlier, Path("earlier")), nodules, truth)
    mirrored = sitk.GetImageFromArray(sitk.GetArrayViewFromImage(scan.image)[:, :, ::-1].copy())
    mirrored.CopyInformation(scan.image)
    _row("mirrored: another patient's", scan, Volume(mirrored, Path("earlier")), nodules, None)


def _row(
    name: str,
    scan: Volume,
    earlier: Volume,
    nodules: Sequence[tuple[Place, NoduleMask]],
    truth: Callable[[Place], np.ndarray] | None,
) -> None:
    began = time.perf_counter()
    registration = Registration(scan, earlier)
    whole = time.perf_counter() - began
    found = [registration.around(*nodule) for nodule in nodules]
    each = (time.perf_counter() - began - whole) / len(nodules)
    errors = "" if truth is None else ", ".join(
        f"{_error(one, place, truth):.1f}" for one, (place, _) in zip(found, nodules, strict=True)
    )  # fmt: skip
    like = ", ".join("none" if one is None else f"{one.similarity:.2f}" for one in found)
    print(f"| {name} | {errors} | {like} | {whole:.1f} | {each:.1f} |", flush=True)


def _error(found: Alignment | None, place: Place, truth: Callable[[Place], np.ndarray]) -> float:
    if found is None:
        return float("nan")
    return float(np.linalg.norm(np.array(found.motion.TransformPoint(list(place))) - truth(place)))


def _cubes(rng: np.random.Generator, folder: Path) -> None:
    with (folder / "table.csv").open() as file:
        uids = [row["SeriesInstanceUID"] for row in csv.DictReader(file)]
    cubes = [read_volume(folder / "ct" / f"{uid}.mha") for uid in uids]
    same, errors, others = [], [], []
    for k, cube in enumerate(cubes):
        earlier, truth = _moved(rng, cube.image, (0.9, 0.9, 1.5), 0.0, CUBE_MM)
        if found := Registration(cube, Volume(earlier, Path("earlier"))).around((0.0, 0.0, 0.0), NOTHING):
            same.append(found.similarity)
            errors.append(_error(found, (0.0, 0.0, 0.0), truth))
        if found := Registration(cube, cubes[(k + 1) % len(cubes)]).around((0.0, 0.0, 0.0), NOTHING):
            others.append(found.similarity)
    print(f"\n{len(cubes)} cubes of 51 mm, {len(same)} with lung enough; percentiles 0, 10, 50, 90, 100:")
    for name, values in (("correlation, moved", same), ("error in mm", errors), ("correlation, other patient", others)):
        print(f"{name}: " + ", ".join(f"{value:.2f}" for value in np.percentile(values, (0, 10, 50, 90, 100))))


def _moved(
    rng: np.random.Generator, image: sitk.Image, spacing: Sequence[float], breath: float, extent: float | None = None
) -> tuple[sitk.Image, Callable[[Place], np.ndarray]]:
    """Return the scan before a known motion, and a function that returns a point's place in it."""
    size = np.array(image.GetSize())
    centre = np.array(image.TransformContinuousIndexToPhysicalPoint(((size - 1) / 2).tolist()))
    turn, shift = rng.uniform(-MOST_TURN_DEG, MOST_TURN_DEG, 3), rng.uniform(-MOST_SHIFT_MM, MOST_SHIFT_MM, 3)
    motion = sitk.Euler3DTransform(centre.tolist(), *np.radians(turn).tolist(), shift.tolist())
    extents = size * image.GetSpacing() if extent is None else np.full(3, extent)
    back = sitk.CompositeTransform([_breath(centre, extents, breath), motion.GetInverse()])
    count = np.ceil(extents / spacing).astype(int)
    origin = centre + shift - (count - 1) / 2 * spacing
    grid = sitk.Image(count.tolist(), sitk.sitkUInt8)
    grid.SetSpacing([float(mm) for mm in spacing])
    grid.SetOrigin(origin.tolist())
    hu = sitk.GetArrayFromImage(sitk.Resample(image, grid, back, sitk.sitkLinear, -1000.0, sitk.sitkFloat32))
    hu += NOISE_HU * rng.standard_normal(hu.shape, dtype=np.float32)
    earlier = sitk.GetImageFromArray(hu.round().astype(np.int16))
    earlier.CopyInformation(grid)

    def truth(place: Place) -> np.ndarray:
        found = np.array(motion.TransformPoint([float(c) for c in place]))
        for _ in range(50):
            found -= np.array(back.TransformPoint(found.tolist())) - place
        return found

    return earlier, truth


def _breath(centre: np.ndarray, extents: np.ndarray, most: float) -> sitk.Transform:
    """Return a smooth displacement, mostly along the body and largest towards the feet."""
    step = 8.0
    low = centre - extents / 2 - 60
    axes = [low[k] + step * np.arange(int((extents[k] + 120) / step) + 2) for k in range(3)]
    x, y, z = np.meshgrid(*(axis - middle for axis, middle in zip(axes, centre, strict=True)), indexing="ij")
    wave = 2 * np.pi / 220
    along = np.cos(wave * x) * np.exp(-(((z + 80) / 120) ** 2))
    field = most * np.stack([0.3 * np.sin(wave * y), 0.5 * np.sin(wave * z), along], axis=-1)
    image = sitk.GetImageFromArray(np.ascontiguousarray(field.transpose(2, 1, 0, 3)), isVector=True)
    image.SetOrigin(low.tolist())
    image.SetSpacing([step] * 3)
    return sitk.DisplacementFieldTransform(image)


def _nodules(folder: Path, scan: Volume) -> list[tuple[Place, NoduleMask]]:
    """Return the centres and masks of the nodules that the scan's readers outlined."""
    (reading,) = filter(None, map(read_reading, folder.glob("*.xml")))
    found = nodules_of(reading.markings, Grid.of(scan.image))
    return [
        (
            scan.image.TransformContinuousIndexToPhysicalPoint(nodule.centre.tolist()),
            NoduleMask(nodule.lower, nodule.mask.astype(np.float32), 0.0, ()),
        )
        for nodule in found
    ]


if __name__ == "__main__":
    main()
