"""Files with nodules' masks: one for each nodule on a part of the CT's grid, and two label images of all."""

import os
from collections.abc import Sequence
from pathlib import Path

from nodulemc.ct.meta_image import mask_file
from nodulemc.ct.volume import Volume
from nodulemc.errors import CaseError
from nodulemc.measure.label_image import Segment, label_image, slicer_segmentation
from nodulemc.measure.mask import NoduleMask
from nodulemc.output.slicer_colours import colour
from nodulemc.points.nodules import Nodule, shortened
from nodulemc.points.reading import scan_name
from nodulemc.prediction import NodulePrediction
from nodulemc.util.files import make_folder, none_on_failure, write_atomically

# Bytes; file systems take 255, which hold the suffix and what a temporary file's name adds, too.
_LONGEST_NAME = 240


def mask_paths(folder: Path, nodules: Sequence[Nodule], inputs: Sequence[Path]) -> list[Path]:
    """Return the paths for ``write_masks``: ``<name>.mha`` for each nodule, or its position from 1 without a name.

    Raises:
        CaseError: Two nodules share a name, or a name cannot be a file name or is an input's.
    """
    names = [nodule.name or str(k) for k, nodule in enumerate(nodules, start=1)]
    taken = {path.resolve() for path in inputs}
    for name in names:
        no_file_name = Path(name).name != name or "\0" in name or len(os.fsencode(name)) > _LONGEST_NAME
        if no_file_name or names.count(name) > 1 or folder.resolve() / f"{name}.mha" in taken:
            raise CaseError(f"nodule name {shortened(name)} gives no file of its own", folder, "rename the nodule")
    return [folder / f"{name}.mha" for name in names]


def label_image_paths(folder: Path, volume: Volume, inputs: Sequence[Path]) -> list[Path]:
    """Return the paths of the label images: ``<case>.seg.nrrd`` for 3D Slicer and ``<case>.nii.gz``.

    ``<case>`` is the CT's file name or the series' UID.

    Raises:
        CaseError: one of them is one of the inputs.
    """
    name = volume.series_uid or scan_name(volume.source)
    paths = [folder / f"{name}{suffix}" for suffix in (".seg.nrrd", ".nii.gz")]
    taken = {given.resolve() for given in inputs}
    for path in paths:
        if path.resolve() in taken:
            raise CaseError("the label image would replace an input", path, "name another folder for the masks")
    return paths


def write_masks(
    folder: Path, volume: Volume, predictions: Sequence[NodulePrediction], masks: Sequence[NoduleMask]
) -> list[Path]:
    """Write each nodule's mask on its part of the CT's grid, and label images on the whole grid.

    If a file cannot be written, none of them stays, nor do earlier ones with these names.

    Args:
        folder: The folder for the files.
        volume: The CT.
        predictions: The predictions for its nodules.
        masks: The nodules' masks, from ``nodulemc.measure.mask.segment``.

    Returns:
        The nodules' files in their order, and the label images for 3D Slicer and for others.

    Raises:
        CaseError: as ``mask_paths`` and ``label_image_paths``.
        FileError: a file cannot be written.
    """
    nodules = [prediction.nodule for prediction in predictions]
    paths = mask_paths(folder, nodules, [volume.source])
    segmentation, labels = label_image_paths(folder, volume, [volume.source])
    make_folder(folder)
    ct = volume.image
    with none_on_failure([*paths, segmentation, labels]):
        for path, mask in zip(paths, masks, strict=True):
            origin = ct.TransformIndexToPhysicalPoint(mask.lower)
            write_atomically(path, mask_file(mask.voxels, origin, ct.GetSpacing(), ct.GetDirection()))
        segments = [
            Segment(nodule.name or str(k), colour(prediction.probability), prediction.probability)
            for k, (nodule, prediction) in enumerate(zip(nodules, predictions, strict=True), start=1)
        ]
        write_atomically(segmentation, slicer_segmentation(ct, masks, segments))
        write_atomically(labels, label_image(ct, masks))
    return [*paths, segmentation, labels]
