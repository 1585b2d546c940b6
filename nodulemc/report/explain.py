"""Explaining a probability: the ensemble scores the patch with one part after the other replaced."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from nodulemc.measure.mask import THRESHOLD, NoduleMask
from nodulemc.patch import SIZE, VOXEL_MM, patch_origin
from nodulemc.report.explain_check import read_checks
from nodulemc.report.occlusion import MAP, PARTS, Cell, Occlusion, cell_slices, plane_cells
from nodulemc.util.progress import QUIET_S, progress

if TYPE_CHECKING:
    from nodulemc.arrays import Array
    from nodulemc.ct.volume import Volume
    from nodulemc.ensemble.ensemble import Ensemble
    from nodulemc.prediction import NodulePrediction


@dataclass(frozen=True)
class Explanation:
    """A nodule's probability without parts of its patch.

    Attributes:
        parts: The probabilities by the parts' names.
        cells: The probabilities by the cells of the three planes through the point. Cells with only lung are left out.
    """

    parts: dict[str, float]
    cells: dict[Cell, float]

    def changes(self, probability: float) -> Array:
        """Return how much each cell raises the probability, 0 if not known; float (64, 64, 64), axes z, y, x."""
        field = np.zeros((SIZE,) * 3)
        for cell, without in self.cells.items():
            field[cell_slices(cell)] = probability - without
        return field


def explanations_of(
    volume: Volume,
    predictions: Sequence[NodulePrediction],
    masks: Sequence[NoduleMask],
    patches: Array,
    ensemble: Ensemble,
) -> list[Explanation | None]:
    """Explain each nodule by the kinds of explanation that have passed the ensemble's check; None if none has.

    Args:
        volume: The CT.
        predictions: The predictions for its nodules.
        masks: The nodules' masks. Empty if the ensemble has no decoder.
        patches: The nodules' patches, from ``nodulemc.prediction.extract_patches``.
        ensemble: The ensemble that made the predictions.

    Raises:
        EnsembleError: the checks are malformed, or a member's numbers overflow.
    """
    checks = read_checks(ensemble.manifest) or {}
    passed = [name for name, check in checks.items() if check.passed]
    found: list[Explanation | None] = []
    for k, prediction in enumerate(predictions):
        mask = mask_on_patch(volume, prediction.nodule.point, masks[k]) if masks else None
        label = f"explaining nodule {k + 1} of {len(predictions)}"
        found.append(explain(patches[k], mask, ensemble, passed, label=label) if passed else None)
    return found


def explain(
    patch: Array, mask: Array | None, ensemble: Ensemble, what: Collection[str], *, label: str | None = None
) -> Explanation:
    """Score a patch without each of its parts.

    Args:
        patch: float32 (64, 64, 64), axes z, y, x, 0…1.
        mask: bool (64, 64, 64), the nodule. None if it is not known: then only the map can be made.
        ensemble: The ensemble that scores, with its own vote.
        what: The wanted ones of ``WHAT``.
        label: The label for progress. None shows no progress.

    Raises:
        EnsembleError: a member's numbers overflow.
    """
    occlusion = Occlusion(patch, mask)
    parts = {part: occlusion.without(part) for part in PARTS if part in what and mask is not None}
    cells = {cell: occlusion.without_cell(cell) for cell in plane_cells()} if MAP in what else {}
    dense = {cell: without for cell, without in cells.items() if without is not None}
    occluded = [*parts.values(), *dense.values()]
    votes: Iterable[float] = (ensemble.vote(ensemble.member_probabilities(without[None]))[0] for without in occluded)
    if label:
        votes = progress(votes, len(occluded), label, quiet_s=QUIET_S)
    found = [float(vote) for vote in votes]
    return Explanation(
        dict(zip(parts, found[: len(parts)], strict=True)), dict(zip(dense, found[len(parts) :], strict=True))
    )


def mask_on_patch(volume: Volume, point: Sequence[float], mask: NoduleMask) -> Array | None:
    """Return a nodule's mask on its patch's grid, bool (64, 64, 64), axes z, y, x; None if it is empty."""
    box = sitk.GetImageFromArray(mask.probability)
    box.SetSpacing(volume.image.GetSpacing())
    box.SetOrigin(volume.image.TransformIndexToPhysicalPoint(mask.lower))
    box.SetDirection(volume.image.GetDirection())
    inside = on_patch(box, point) > THRESHOLD
    return inside if inside.any() else None


def on_patch(image: sitk.Image, point: Sequence[float]) -> Array:
    """Return an image at a patch's voxels, linearly interpolated, 0 beyond it; (64, 64, 64), axes z, y, x."""
    spacing, direction = [VOXEL_MM] * 3, np.eye(3).ravel().tolist()
    placed = sitk.Resample(
        image, [SIZE] * 3, sitk.Transform(), sitk.sitkLinear, patch_origin(point), spacing, direction, 0.0
    )
    return sitk.GetArrayFromImage(placed)
