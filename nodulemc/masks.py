"""Nodule masks from the ensemble's decoders."""

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nodulemc.ensemble import Ensemble
from nodulemc.errors import CaseError
from nodulemc.json_files import none_on_failure, write_atomically
from nodulemc.patch import SIZE, VOXEL_MM, patch_origin
from nodulemc.points import Nodule, shortened
from nodulemc.prediction import extract_patches
from nodulemc.quality import mask_notes
from nodulemc.volume import Volume


def write_masks(
    folder: Path, volume: Volume, nodules: Sequence[Nodule], ensemble: Ensemble
) -> tuple[list[Path], list[tuple[str, ...]]]:
    """Segment each nodule and write ``<name>.mha`` on its patch's grid (64³ voxels over 50 mm, world-aligned).

    Where a file cannot be written none of them stays, nor do earlier ones of these names.

    Returns:
        The files, and each mask's warnings, in the nodules' order; a nodule without a name gets its position, counted
        from 1.

    Raises:
        CaseError: two nodules share a name, a name is no file name or the CT's, or a file cannot be written.
    """
    names = [nodule.name or str(k) for k, nodule in enumerate(nodules, start=1)]
    paths = [folder / f"{name}.mha" for name in names]
    ct = volume.source.resolve()
    for name in names:
        if names.count(name) > 1 or Path(name).name != name or folder.resolve() / f"{name}.mha" == ct:
            raise CaseError(f"nodule name {shortened(name)} gives no file of its own", folder, "rename the nodule")
    masks = ensemble.mask_probabilities(extract_patches(volume, nodules)) > 0.5
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CaseError(f"cannot make the folder ({error.strerror})", folder, "name one that can be written") from error
    with none_on_failure(paths):
        for path, nodule, mask in zip(paths, nodules, masks, strict=True):
            write_atomically(path, _meta_image(mask, patch_origin(nodule.point)), CaseError)
    return paths, [mask_notes(mask) for mask in masks]


def _meta_image(mask: np.ndarray, origin: Sequence[float]) -> bytes:
    """A MetaImage file of a mask on a patch's grid, bool (64, 64, 64), axes z, y, x; ITK's writer is silent when the
    disk is full.

    Source: https://itk.org/Wiki/ITK/MetaIO/Documentation
    """
    voxels = zlib.compress(mask.astype(np.uint8).tobytes())
    fields = {
        "ObjectType": "Image",
        "NDims": 3,
        "BinaryData": True,
        "BinaryDataByteOrderMSB": False,
        "CompressedData": True,
        "CompressedDataSize": len(voxels),
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": " ".join(map(repr, origin)),
        "ElementSpacing": " ".join([str(VOXEL_MM)] * 3),
        "DimSize": " ".join([str(SIZE)] * 3),
        "ElementType": "MET_UCHAR",
        "ElementDataFile": "LOCAL",
    }
    header = "".join(f"{name} = {value}\n" for name, value in fields.items())
    return header.encode() + voxels
