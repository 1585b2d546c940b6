"""The warnings about points: real nodules, phantom nodules, random points, and files in other conventions.

The script chooses the least contrast on the LIDC-IDRI patients of even number. It prints the effect of the warnings on
those of odd number, on phantoms, and on random points in air, lung, airways, chest wall and mediastinum. Then it prints
how files with RAS, voxel indices or swapped axes are treated. It is deterministic and takes about three minutes on one
core:

    python benchmarks/placement.py [--data ../shared/data]

The data are real nodules of LIDC-IDRI with their surroundings, one whole scan of it with the readers' XML, and a
contrast CT of a part of the chest.
"""

import argparse
import csv
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from nodulemc.ct.volume import Volume, read_volume
from nodulemc.errors import PointsError
from nodulemc.patch import extract_patch
from nodulemc.phantom.generate import iter_nodule_blocks
from nodulemc.phantom.insertion import Host, insert
from nodulemc.phantom.patient import Patient
from nodulemc.phantom.render import draw_nodules, render
from nodulemc.points.nodules import Nodule
from nodulemc.points.placement import LEAST_CONTRAST_HU, OpenAir, Surroundings, surroundings
from nodulemc.prediction import prepare_inputs
from nodulemc.quality import patch_warnings

SEED = 11
PHANTOM_BLOCKS, PHANTOM_SCANS, INSERTED_SCANS = 80, 5, 12  # patients
POINTS = 150  # per kind and scan
CUBE_POINTS = 20
MOST_WARNED = 0.015  # the share of the nodules used for choosing the contrast; 2 % are allowed
GRID_MM = 2.0
USUAL_LUNG_HU = -850
TEXTURES = ("ground glass", "part-solid", "solid")
WARNINGS = ("outside the body", "nothing denser", "no lung")
READINGS: dict[str | None, Callable[[Volume, Sequence[float]], Sequence[float]]] = {
    None: lambda _, p: p,
    "RAS": lambda _, p: (-p[0], -p[1], p[2]),
    "voxel indices, not": lambda volume, p: volume.image.TransformPhysicalPointToContinuousIndex(p),
    "voxel indices in": lambda volume, p: volume.image.TransformPhysicalPointToContinuousIndex(p)[::-1],
    "z, y, x": lambda _, p: (p[2], p[1], p[0]),
    "y, x, z": lambda _, p: (p[1], p[0], p[2]),
    "x, z, y": lambda _, p: (p[0], p[2], p[1]),
}


@dataclass(frozen=True)
class Found:
    """A point: its kind, its surroundings, and those of WARNINGS that it gets."""

    kind: str
    around: Surroundings
    warnings: tuple[bool, ...]


def main() -> int:
    """Parse the command line and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=shared, metavar="DIR", help=f"default: {shared}")
    data = parser.parse_args().data
    if not (data / "lidc").is_dir():
        print(f"error: no data: {data / 'lidc'}: give --data DIR", file=sys.stderr)
        return 2
    real = read_volume(data / "lidc" / "scans" / "LIDC-IDRI-0003")
    part = read_volume(data / "ct" / "chest_ct.nii.gz")
    phantoms = list(phantom_scans())
    found = [*lidc_nodules(data / "lidc"), *cube_points(data / "lidc"), *phantom_nodules()]
    for scan, volume in (("LIDC-IDRI-0003", real), *(("phantoms", volume) for volume, _ in phantoms)):
        found += region_points(volume, scan)
    lung = sample(_lung_of_part(part.image), part.image, POINTS)
    found += judge(part, "lung, part of a chest with contrast agent", lung)
    print_points(found)
    outlines = lidc_points(data / "lidc" / "scans" / "LIDC-IDRI-0003" / "072.xml", real)
    print_readings([(real, outlines), *phantoms, *inserted_scans(part)])
    print_times(real, outlines[0])
    return 0


def judge(volume: Volume, kind: str, points: Sequence[Sequence[float]]) -> Iterator[Found]:
    """Yield the warnings about each point that lies inside the scan."""
    air = OpenAir(volume)
    for point in points:
        if volume.distance_outside_mm(point) == 0:
            around = surroundings(extract_patch(volume, point))
            warnings = patch_warnings(volume, Nodule(None, tuple(point)), around, air)
            yield Found(kind, around, tuple(any(words in warning for warning in warnings) for words in WARNINGS))


def half(patient: str) -> str:
    """Return the half of LIDC-IDRI's patients that one belongs to."""
    return "chosen on" if int(patient[-4:]) % 2 == 0 else "judged on"


def lidc_nodules(folder: Path) -> Iterator[Found]:
    """Yield cubes, and slabs continued by usual lung above and below; each also with its point 2 mm off."""
    rng = np.random.default_rng(SEED)
    for source in ("cubes", "slabs"):
        for row in _rows(folder / source / "table.csv"):
            image = sitk.ReadImage(str(folder / source / "ct" / f"{row['SeriesInstanceUID']}.mha"))
            if source == "slabs":
                slices = round(30 / image.GetSpacing()[2])
                image = sitk.ConstantPad(image, [0, 0, slices], [0, 0, slices], USUAL_LUNG_HU)
            volume = Volume(image, folder)
            kind = f"{half(row['PatientID'])}, {source}"
            texture = TEXTURES[np.searchsorted([2, 4], float(row["texture"]), "right")]
            way = rng.normal(size=3)
            yield from judge(volume, f"{kind}, {texture}", [(0, 0, 0)])
            yield from judge(volume, f"{kind}, 2 mm off", [2 * way / np.linalg.norm(way)])


def cube_points(folder: Path) -> Iterator[Found]:
    """Yield random points in the lung of the cubes, 5 mm or more from the nodule and from the cube's faces."""
    for row in _rows(folder / "cubes" / "table.csv"):
        image = sitk.ReadImage(str(folder / "cubes" / "ct" / f"{row['SeriesInstanceUID']}.mha"))
        mask = sitk.ReadImage(str(folder / "cubes" / "masks" / f"{row['AnnotationID']}.mha"))
        spacing = image.GetSpacing()[::-1]
        lung = _lung_of_part(image)
        lung &= ndimage.distance_transform_edt(sitk.GetArrayViewFromImage(mask) == 0, sampling=spacing) > 5
        inner = np.zeros_like(lung)
        inner[tuple(slice(int(5 / mm), -int(5 / mm)) for mm in spacing)] = True
        points = sample(lung & inner, image, CUBE_POINTS)
        yield from judge(Volume(image, folder), f"{half(row['PatientID'])}, random lung points", points)


def phantom_nodules() -> Iterator[Found]:
    """Yield phantom nodules by their density."""
    for block in iter_nodule_blocks(SEED, range(PHANTOM_BLOCKS)):
        centre = [block.row[name] for name in ("CoordX", "CoordY", "CoordZ")]
        yield from judge(
            Volume(block.grid.image(block.voxels), Path("phantom")),
            f"phantom nodules, {block.row['density']}",
            [centre],
        )


def phantom_scans() -> Iterator[tuple[Volume, list[Sequence[float]]]]:
    """Yield whole phantom scans and their nodules."""
    for patient in (Patient(SEED, index) for index in range(PHANTOM_SCANS)):
        scene = patient.scene(0)
        image = scene.grid.image(render(scene, draw_nodules(scene)))
        yield Volume(image, Path("phantom")), [list(nodule.centroid) for nodule in scene.nodules]


def inserted_scans(volume: Volume) -> Iterator[tuple[Volume, list[Sequence[float]]]]:
    """Yield a real scan with phantom nodules in it, and these nodules."""
    host = Host.measure(volume)
    for patient in (Patient(SEED, index) for index in range(INSERTED_SCANS)):
        hu, placed = insert(host, patient, 0)
        yield Volume(host.grid.image(hu), Path("inserted")), [list(centroid) for _, centroid, _ in placed]


def lidc_points(xml: Path, volume: Volume) -> list[Sequence[float]]:
    """Return the nodules of the readers' XML: centres of outlines. Centres within 8 mm of each other are one nodule."""
    space = {"": "http://www.nih.gov"}
    nodules: list[list[np.ndarray]] = []
    for outlined in ElementTree.parse(xml).getroot().iterfind(".//unblindedReadNodule", space):  # noqa: S314 - the archive's
        if outlined.find("characteristics", space) is None:  # below 3 mm: marked, not outlined
            continue
        corners = [corner for roi in outlined.iterfind("roi", space) for corner in _corners(roi, space, volume)]
        centre = np.mean(corners, axis=0)
        near = [group for group in nodules if np.linalg.norm(np.mean(group, axis=0) - centre) < 8]
        if near:
            near[0].append(centre)
        else:
            nodules.append([centre])
    return [np.mean(group, axis=0).tolist() for group in nodules]


def _corners(roi: ElementTree.Element, space: dict[str, str], volume: Volume) -> list[Sequence[float]]:
    z = float(roi.findtext("imageZposition", namespaces=space))
    plane = [
        [float(edge.findtext(name, namespaces=space)) for name in ("xCoord", "yCoord")]
        for edge in roi.iterfind("edgeMap", space)
    ]
    return [(*volume.image.TransformContinuousIndexToPhysicalPoint([x, y, 0.0])[:2], z) for x, y in plane]


def region_points(volume: Volume, scan: str) -> Iterator[Found]:
    """Yield random points of a whole scan: in air, at the skin, in lung, airways, chest wall, and deeper inside."""
    image = _coarse(volume.image)
    hu = sitk.GetArrayFromImage(image)
    body = _body(hu)
    low = _large((hu < -500) & ndimage.binary_erosion(body, iterations=2), 2000)
    airway = ndimage.binary_opening(low & (ndimage.gaussian_filter(hu, 1) < -930))
    lung = ndimage.binary_closing(low & ~airway, iterations=4) & body  # with its vessels
    depth = ndimage.distance_transform_edt(body) * GRID_MM
    beyond = ndimage.distance_transform_edt(~body) * GRID_MM
    tissue = body & ~ndimage.binary_dilation(lung | airway, iterations=3)
    air = ndimage.uniform_filter(hu, 3)
    regions = {
        "air, 4 mm and more from the body": (beyond >= 4) & (air > -1100) & (air < -900),
        "table and clothes": (beyond >= 4) & (air > -700),
        "within 4 mm of the skin": (beyond < 4) & (depth < 4),
        "random lung points": ndimage.binary_erosion(lung),
        "windpipe and large bronchi": ndimage.binary_erosion(airway),
        "chest wall": tissue & (depth > 4) & (depth < 30),
        "mediastinum, abdomen": tissue & (depth > 40),
        "anywhere": np.ones(hu.shape, bool),
    }
    for name, region in regions.items():
        yield from judge(volume, f"{scan}, {name}", sample(region, image, POINTS))


def sample(region: np.ndarray, image: sitk.Image, count: int) -> list[Sequence[float]]:
    """Return random points in a region (bool, axes z, y, x) on an image's grid; fewer if it has fewer voxels."""
    rng = np.random.default_rng(SEED)
    voxels = np.argwhere(region)
    chosen = rng.choice(len(voxels), min(count, len(voxels)), replace=False)
    indices = (voxels[chosen] + rng.uniform(-0.5, 0.5, (len(chosen), 3)))[:, ::-1]
    return [image.TransformContinuousIndexToPhysicalPoint(index) for index in indices.tolist()]


def _coarse(image: sitk.Image) -> sitk.Image:
    size = [round(n * mm / GRID_MM) for n, mm in zip(image.GetSize(), image.GetSpacing(), strict=True)]
    grid = (size, sitk.Transform(), sitk.sitkLinear, image.GetOrigin(), [GRID_MM] * 3, image.GetDirection())
    return sitk.Resample(sitk.Cast(image, sitk.sitkFloat32), *grid, -1000)


def _body(hu: np.ndarray) -> np.ndarray:
    """Return the largest piece of tissue with everything that it encloses in a slice, without table and clothes."""
    tissue = ndimage.binary_opening(hu > -400, iterations=3)
    labels, count = ndimage.label(tissue)
    body = labels == 1 + np.argmax(ndimage.sum_labels(tissue, labels, range(1, count + 1)))
    closed = ndimage.binary_closing(np.pad(body, 5), np.ones((1, 3, 3)), iterations=4)[5:-5, 5:-5, 5:-5]
    return np.array([ndimage.binary_fill_holes(layer) for layer in closed])


def _lung_of_part(image: sitk.Image) -> np.ndarray:
    """Return lung with its vessels, for a scan that does not show the body's outline."""
    hu = ndimage.gaussian_filter(sitk.GetArrayFromImage(image).astype(np.float32), 1)
    lung = _large((hu > -950) & (hu < -600), 2000)
    margin = 8
    padded = np.pad(lung, margin, mode="edge")
    return ndimage.binary_closing(padded, iterations=4)[margin:-margin, margin:-margin, margin:-margin]


def _large(region: np.ndarray, voxels: int) -> np.ndarray:
    labels, count = ndimage.label(region)
    sizes = ndimage.sum_labels(region, labels, range(count + 1))
    return np.isin(labels, np.flatnonzero(sizes >= voxels))


def _rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def print_points(found: Sequence[Found]) -> None:
    """Print the chosen contrast and the table of points."""
    chosen_on = [f.around.contrast_hu for f in found if f.kind.startswith("chosen on") and f.kind.endswith(TEXTURES)]
    at_most = np.quantile(chosen_on, MOST_WARNED)
    print(f"least contrast {LEAST_CONTRAST_HU} HU; {at_most:.0f} HU would warn {MOST_WARNED:.1%} of {len(chosen_on)}\n")
    for name in ("chosen on", "judged on"):
        warned = [any(f.warnings) for f in found if f.kind.startswith(name) and f.kind.endswith(TEXTURES)]
        print(f"real nodules {name}: {sum(warned)} of {len(warned)} warned, {np.mean(warned):.1%}\n")
    columns = ("points", "n", "warned", *WARNINGS, "amid lung")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for kind in dict.fromkeys(f.kind for f in found):
        own = [f for f in found if f.kind == kind]
        warnings = np.array([f.warnings for f in own])
        shares = (warnings.any(axis=1).mean(), *warnings.mean(axis=0), np.mean([f.around.is_amid_lung for f in own]))
        print(f"| {kind} | {len(own)} | {' | '.join(f'{share:.1%}' for share in shares)} |")


def print_readings(files: Sequence[tuple[Volume, Sequence[Sequence[float]]]]) -> None:
    """Print how many files are recognised in each convention, separately for files of one nodule and of several."""
    print("\n| file holds | of one nodule | of several | taken for something else |\n|---|---|---|---|")
    for name, write in READINGS.items():
        said = {True: [], False: []}
        for volume, points in files:
            for some in [*([points] if len(points) > 1 else []), *([p] for p in points)]:
                said[len(some) == 1].append(reading(volume, [write(volume, p) for p in some]))
        right = {single: sum(said_ == name for said_ in found) for single, found in said.items()}
        wrong = sum(said_ not in (name, None) for found in said.values() for said_ in found)
        counts = " | ".join(f"{right[single]} of {len(said[single])}" for single in (True, False))
        print(f"| {name or 'x, y, z in mm, LPS'} | {counts} | {wrong} |")


def reading(volume: Volume, points: Sequence[Sequence[float]]) -> str | None:
    """Return the key of READINGS that the warning or the error names."""
    try:
        warnings = prepare_inputs(volume, [Nodule(None, tuple(p)) for p in points])[1].scan
    except PointsError as error:
        warnings = (error.remedy,)
    return next(
        (name for name in READINGS if name and any(f"look like {name}" in warning for warning in warnings)), None
    )


def print_times(volume: Volume, point: Sequence[float]) -> None:
    """Print the cost of a nodule and, if a point is dark, of a scan."""
    patch = extract_patch(volume, point)
    surroundings(patch)
    start = time.perf_counter()
    for _ in range(100):
        surroundings(patch)
    middle = time.perf_counter()
    OpenAir(volume).holds(point)
    per_nodule, per_scan = (middle - start) * 10, (time.perf_counter() - middle) * 1000
    print(f"\n{per_nodule:.2f} ms a nodule; {per_scan:.0f} ms more for a scan with a dark point ({volume.source.name})")


if __name__ == "__main__":
    sys.exit(main())
