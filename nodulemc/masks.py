"""Nodule masks from the ensemble's decoders."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nodulemc.ensemble import Ensemble
from nodulemc.errors import CaseError
from nodulemc.json_files import make_folder, none_on_failure, write_atomically
from nodulemc.meta_image import mask_file
from nodulemc.patch import VOXEL_MM, patch_origin
from nodulemc.points import Nodule, shortened
from nodulemc.progress import QUIET_S, progress
from nodulemc.quality import mask_notes
from nodulemc.volume import Volume

# Bytes; file systems take 255, which hold the suffix and what a temporary file's name adds, too.
_LONGEST_NAME = 240


def mask_paths(folder: Path, nodules: Sequence[Nodule], inputs: Sequence[Path]) -> list[Path]:
    """Where ``write_masks`` writes: ``<name>.mha`` for each nodule, a nodule without a name by its position from 1.

    Raises:
        CaseError: two nodules share a name, or a name is no file name or an input's.
    """
    names = [nodule.name or str(k) for k, nodule in enumerate(nodules, start=1)]
    taken = {path.resolve() for path in inputs}
    for name in names:
        no_file_name = Path(name).name != name or "\0" in name or len(os.fsencode(name)) > _LONGEST_NAME
        if no_file_name or names.count(name) > 1 or folder.resolve() / f"{name}.mha" in taken:
            raise CaseError(f"nodule name {shortened(name)} gives no file of its own", folder, "rename the nodule")
    return [folder / f"{name}.mha" for name in names]


def write_masks(
    folder: Path, volume: Volume, nodules: Sequence[Nodule], patches: np.ndarray, ensemble: Ensemble
) -> tuple[list[Path], list[tuple[str, ...]]]:
    """Segment each nodule and write its mask on its patch's grid (64³ voxels over 50 mm, world-aligned).

    Where a file cannot be written none of them stays, nor do earlier ones of these names.

    Args:
        folder: where the files go.
        volume: the CT.
        nodules: its nodules.
        patches: theirs, from ``nodulemc.prediction.extract_patches``.
        ensemble: loaded with ``masks=True``.

    Returns:
        The files, and each mask's warnings, in the nodules' order.

    Raises:
        CaseError: as ``mask_paths``, or a file cannot be written.
    """
    paths = mask_paths(folder, nodules, [volume.source])
    make_folder(folder, CaseError)
    # One at a time: all probabilities of a thousand nodules take gigabytes.
    found = (ensemble.mask_probabilities(patches[k : k + 1])[0] > 0.5 for k in range(len(patches)))
    masks = list(progress(found, len(patches), "masks", quiet_s=QUIET_S))
    with none_on_failure(paths):
        for path, nodule, mask in zip(paths, nodules, masks, strict=True):
            write_atomically(path, mask_file(mask, patch_origin(nodule.point), [VOXEL_MM] * 3), CaseError)
    return paths, [mask_notes(mask) for mask in masks]
