"""Patches of phantom and real nodules for benchmarks/gpu.py, in one file.

    python benchmarks/gpu_parts/nodules.py FILE.npz [--cubes DIR]

Drawing phantoms and reading scans needs SimpleITK. A machine without it gets the file with --patches FILE.npz. Patches
are stored in fp16, exact to half a Hounsfield unit.
"""

import argparse
import csv
from pathlib import Path

import numpy as np

from nodulemc.ensemble.synthetic_patches import probe_patches

SEED, NODULES = 25, 32
CUBES = Path(__file__).resolve().parents[3] / "shared" / "data" / "lidc" / "cubes"


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, metavar="FILE.npz")
    parser.add_argument("--cubes", type=Path, default=CUBES, metavar="DIR", help="real nodules: ct/ and table.csv")
    args = parser.parse_args()
    patches, words = collect(args.cubes, NODULES, 2)
    np.savez_compressed(args.file, patches=patches.astype(np.float16), words=words)
    print(f"{args.file}: {words}")


def collect(cubes: Path, count: int, workers: int) -> tuple[np.ndarray, str]:
    """Return up to this number of probes, phantom nodules and real ones each, and a description.

    The patches are float32 (N, 64, 64, 64).
    """
    parts = {"probes": probe_patches()[:count], "phantom": phantom_patches(count, workers)}
    if (cubes / "table.csv").is_file():
        parts["LIDC-IDRI"] = real_patches(cubes, count)
    words = ", ".join(f"{len(patches)} {name}" for name, patches in parts.items())
    return np.concatenate(list(parts.values())), words


def read_patches(path: Path) -> tuple[np.ndarray, str]:
    """Read the file that ``main`` wrote."""
    with np.load(path) as content:
        return content["patches"].astype(np.float32), str(content["words"])


def phantom_patches(count: int, workers: int) -> np.ndarray:
    """Return patches of the first nodules of a cohort that no ensemble was trained on."""
    from nodulemc.ct.volume import Volume
    from nodulemc.data.nodule_table import COORDINATES
    from nodulemc.patch import extract_patch
    from nodulemc.phantom.generate import iter_patients_blocks

    patches = []
    for blocks in iter_patients_blocks(SEED, range(count), workers):
        for block in blocks:
            volume = Volume(block.grid.image(block.voxels), Path(block.row["AnnotationID"]))
            patches.append(extract_patch(volume, [block.row[column] for column in COORDINATES]))
        if len(patches) >= count:
            break
    return np.stack(patches[:count])


def real_patches(cubes: Path, count: int) -> np.ndarray:
    """Return patches of the first nodules of a folder with ct/ and table.csv."""
    from nodulemc.ct.volume import read_volume
    from nodulemc.data.nodule_table import COORDINATES
    from nodulemc.patch import extract_patch

    with (cubes / "table.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))[:count]
    return np.stack(
        [
            extract_patch(
                read_volume(cubes / "ct" / f"{row['SeriesInstanceUID']}.mha"), [float(row[c]) for c in COORDINATES]
            )
            for row in rows
        ]
    )


if __name__ == "__main__":
    main()
