"""The errors of measurements: balls by size and slice thickness, their growth, phantoms, LIDC nodules.

Masks are known, so the errors are those of measuring, not of an ensemble. Balls lie at random places on random grids.
Their mask on the patch's grid is either the share of each voxel (soft) or in and out (hard). A decoder's mask is
between the two. The script is deterministic and takes about four minutes on one core:

    python benchmarks/measurements.py [--data ../shared/data]
"""

import argparse
import csv
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nodulemc.ct.volume import Volume, read_volume
from nodulemc.geometry import Grid
from nodulemc.measure.growth import volume_change_percent
from nodulemc.measure.mask import NoduleMask, nodule_mask
from nodulemc.measure.sizes import Measurements, measure
from nodulemc.patch import CENTRE_INDEX, SIZE, VOXEL_MM
from nodulemc.phantom.malignancy import Traits
from nodulemc.phantom.nodule import render_nodule, sample_nodule

SEED = 7
PIXEL_MM = 0.7
SLICES_MM = (1.0, 1.25, 2.5, 3.2)
DIAMETERS_MM = (4, 6, 8, 10, 15, 20, 30)
REPEATS = 12
GROWTH_PERCENT = 50
MARGINS = ("smooth", "lobulated", "spiculated")
EXTENT_MM = 70.0


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with lidc/")
    args = parser.parse_args()
    rng = np.random.default_rng(SEED)
    for edge in ("soft", "hard"):
        print(f"\nballs, {edge} edge: errors of volume in %, of long and short axis in mm, each mean and largest\n")
        print("| diameter | " + " | ".join(f"slices of {mm:g} mm" for mm in SLICES_MM) + " |")
        print("|---" * (len(SLICES_MM) + 1) + "|")
        for diameter in DIAMETERS_MM:
            cells = [_errors([_ball(rng, diameter, mm, edge) for _ in range(REPEATS)], diameter) for mm in SLICES_MM]
            print(f"| {diameter} mm | " + " | ".join(cells) + " |", flush=True)
    _growth(np.random.default_rng(SEED))
    _phantoms(rng)
    _lidc(args.data / "lidc" / "cubes")


def _ball(rng: np.random.Generator, diameter: float, slice_mm: float, edge: str) -> Measurements:
    """Return the measurements of a ball at a random place of patch and scan."""
    ct = _scan((PIXEL_MM, PIXEL_MM, slice_mm))
    middle = np.array(ct.GetSize()) / 2 + rng.uniform(-0.5, 0.5, 3)
    place = np.indices((SIZE,) * 3).transpose(1, 2, 3, 0)
    away = np.linalg.norm((place - CENTRE_INDEX) * VOXEL_MM - rng.uniform(-0.4, 0.4, 3), axis=-1)
    inwards = (diameter / 2 - away) / VOXEL_MM + 0.5
    share = np.clip(inwards, 0, 1) if edge == "soft" else (inwards > 0.5).astype(float)
    volume = Volume(ct, Path("ball"))
    return measure(volume, nodule_mask(volume, ct.TransformContinuousIndexToPhysicalPoint(middle.tolist()), share))


def _scan(spacing: Sequence[float]) -> sitk.Image:
    ct = sitk.Image([round(EXTENT_MM / mm) for mm in spacing], sitk.sitkInt16)
    ct.SetSpacing(spacing)
    return ct


def _errors(found: Iterable[Measurements], diameter: float) -> str:
    """Return one cell: errors of volume, long and short axis, and the number of balls that fell between the slices."""
    found = list(found)
    there = [m for m in found if m.volume_mm3 is not None]
    if not there:
        return "none found"
    volumes = [100 * (m.volume_mm3 / (math.pi / 6 * diameter**3) - 1) for m in there]
    axes = ([m.long_axis_mm - diameter for m in there], [m.short_axis_mm - diameter for m in there])
    lost = f" ({len(found) - len(there)} lost)" if len(there) < len(found) else ""
    return f"{_both(volumes, 1)} %; {_both(axes[0], 2)}; {_both(axes[1], 2)}{lost}"


def _both(errors: Sequence[float], digits: int) -> str:
    """Return the mean error, and the largest of either sign."""
    return f"{np.mean(errors):+.{digits}f} (≤ {np.abs(errors).max():.{digits}f})"


def _growth(rng: np.random.Generator) -> None:
    print(f"\nballs that grow by {GROWTH_PERCENT} %, hard and soft edge: error in points, mean and largest\n")
    print("| diameter | " + " | ".join(f"slices of {mm:g} mm" for mm in SLICES_MM) + " |")
    print("|---" * (len(SLICES_MM) + 1) + "|")
    for diameter in DIAMETERS_MM:
        cells = [_both([_change_error(rng, diameter, mm, k) for k in range(2 * REPEATS)], 1) for mm in SLICES_MM]
        print(f"| {diameter} mm | " + " | ".join(cells) + " |", flush=True)


def _change_error(rng: np.random.Generator, diameter: float, slice_mm: float, k: int) -> float:
    """Return the error, in percentage points, of the change between a ball and a larger one, each at a random place."""
    edge = ("soft", "hard")[k % 2]
    larger = diameter * (1 + GROWTH_PERCENT / 100) ** (1 / 3)
    before, after = (_ball(rng, mm, slice_mm, edge).volume_mm3 for mm in (diameter, larger))
    return volume_change_percent(before or math.nan, after or math.nan) - GROWTH_PERCENT


def _phantoms(rng: np.random.Generator) -> None:
    print("\nphantoms of 6 to 20 mm with their own masks: error of volume in %, mean and largest\n")
    print("| margin | " + " | ".join(f"slices of {mm:g} mm" for mm in SLICES_MM) + " |")
    print("|---" * (len(SLICES_MM) + 1) + "|")
    for margin in MARGINS:
        cells = [_both([_phantom(rng, margin, mm) for _ in range(REPEATS)], 1) for mm in SLICES_MM]
        print(f"| {margin} | " + " | ".join(f"{cell} %" for cell in cells) + " |", flush=True)


def _phantom(rng: np.random.Generator, margin: str, slice_mm: float) -> float:
    """Return the error in % of the volume of a phantom nodule's mask. The true volume is exact by construction."""
    diameter = rng.uniform(6, 20)
    nodule = sample_nodule(rng, Traits(margin, "solid", "none", "free"), np.array([1.0, 0, 0]))
    ct = _scan((PIXEL_MM, PIXEL_MM, slice_mm))
    grid = Grid.of(ct)
    centre = grid.to_world(np.array(grid.size) / 2 + rng.uniform(-0.5, 0.5, 3))
    drawn = render_nodule(nodule, centre, diameter, grid, (0.6, 0.6, 0.6))
    mask = NoduleMask(tuple(drawn.lower.tolist()), drawn.mask.astype(np.float32), 0.0, ())
    return 100 * (measure(Volume(ct, Path("phantom")), mask).volume_mm3 / (math.pi / 6 * diameter**3) - 1)


def _lidc(folder: Path) -> None:
    if not folder.is_dir():
        print(f"\nLIDC: not found at {folder}", file=sys.stderr)
        return
    with (folder / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    long = np.array([_of_reader(folder, row).long_axis_mm for row in rows])
    readers = np.array([float(row["diameter_mm"]) for row in rows])
    low, middle, high = np.percentile(long - readers, (10, 50, 90))
    print(f"\nLIDC: {len(rows)} masks of one reader each, long axis minus the readers' mean diameter:")
    correlation = np.corrcoef(long, readers)[0, 1]
    print(f"median {middle:+.2f} mm, 80 % from {low:+.2f} to {high:+.2f} mm, correlation {correlation:.3f}")


def _of_reader(folder: Path, row: dict[str, str]) -> Measurements:
    ct = read_volume(folder / "ct" / f"{row['SeriesInstanceUID']}.mha")
    image = read_volume(folder / "masks" / f"{row['AnnotationID']}.mha").image
    lower = ct.image.TransformPhysicalPointToIndex(image.GetOrigin())
    return measure(ct, NoduleMask(lower, (sitk.GetArrayFromImage(image) > 0).astype(np.float32), 0.0, ()))


if __name__ == "__main__":
    main()
