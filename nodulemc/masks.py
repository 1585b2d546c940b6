"""Nodule masks from the ensemble's decoders."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nodulemc.ensemble import Ensemble
from nodulemc.errors import CaseError
from nodulemc.patch import VOXEL_MM, patch_origin
from nodulemc.points import Nodule
from nodulemc.prediction import extract_patches
from nodulemc.volume import Volume


def write_masks(folder: Path, volume: Volume, nodules: Sequence[Nodule], ensemble: Ensemble) -> list[Path]:
    """Segment each nodule and write ``<name>.mha`` on its patch's grid (64³ voxels over 50 mm, world-aligned).

    Returns:
        The files, in the nodules' order; a nodule without a name gets its position, counted from 1.

    Raises:
        CaseError: two nodules share a name, a name is no file name, or a file cannot be written.
    """
    names = [nodule.name or str(k) for k, nodule in enumerate(nodules, start=1)]
    for name in names:
        if names.count(name) > 1 or Path(name).name != name:
            raise CaseError(f"nodule name {name!r} gives no file of its own", folder, "rename the nodule")
    probabilities = ensemble.mask_probabilities(extract_patches(volume, nodules))
    paths = [folder / f"{name}.mha" for name in names]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, nodule, probability in zip(paths, nodules, probabilities, strict=True):
            mask = sitk.GetImageFromArray((probability > 0.5).astype(np.uint8))
            mask.SetSpacing((VOXEL_MM,) * 3)
            mask.SetOrigin(patch_origin(nodule.point))
            sitk.WriteImage(mask, str(path), useCompression=True)
    except (OSError, RuntimeError) as error:
        raise CaseError(f"cannot write masks ({error})", folder, "check that it is writable and not full") from error
    return paths
