"""Random transforms of training samples. They are drawn here as numbers and applied by the resampling, in one step.

Source: MClab's public code (dataloader_mask.py, train_amp.py). docs/training.md lists the differences.
"""

from dataclasses import dataclass

import numpy as np

from nodulemc.arrays import Array
from nodulemc.training.config import AugmentationConfig


@dataclass(frozen=True)
class Augmentation:
    """The transform of one sample: flips and transposition of the patch, then rotation, then shift.

    Attributes:
        angles_deg: The rotation angles about the axes z, y, x, in degrees.
        shift_mm: The displacement of the patch's centre, z, y, x in mm.
        flips: Whether array axes 1 and 2 are reversed.
        transposed: Whether array axes 1 and 2 are exchanged.
    """

    angles_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    flips: tuple[bool, bool] = (False, False)
    transposed: bool = False

    def matrix(self) -> Array:
        """Return the matrix, float64 (3, 3), from an output voxel's offset to the world's offset.

        Both offsets are z, y, x, from the patch's centre.
        """
        return _rotation(self.angles_deg) @ _reflection(self.flips, self.transposed)


IDENTITY = Augmentation()


def draw_augmentation(config: AugmentationConfig, random: np.random.Generator) -> Augmentation:
    """Draw the transform of one sample.

    The angles are uniform. A shift has a uniformly random direction and a uniformly random length. So small shifts are
    the denser ones, as in the public code. Flips and transposition are fair coins, tossed for a share
    ``flip_probability`` of the samples. The first axis is never flipped.
    """
    angles = random.uniform(-config.rotation_degrees, config.rotation_degrees, 3)
    direction = random.normal(size=3)
    shift = direction / np.linalg.norm(direction) * random.uniform(0, config.shift_mm)
    coins = random.random(3) < 0.5
    if random.random() >= config.flip_probability:
        coins[:] = False
    flip_1, flip_2, transposed = coins.tolist()
    return Augmentation(tuple(angles.tolist()), tuple(shift.tolist()), (flip_1, flip_2), transposed)


def _rotation(angles_deg: tuple[float, float, float]) -> Array:
    """Return the product of the rotations about z, y and x. The last is applied first; array axes are z, y, x."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.radians(angles_deg)):
        one, other = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[one, one] = turn[other, other] = np.cos(angle)
        turn[one, other], turn[other, one] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    return matrix


def _reflection(flips: tuple[bool, bool], transposed: bool) -> Array:
    order = [0, 2, 1] if transposed else [0, 1, 2]
    signs = [1.0, *(-1.0 if flip else 1.0 for flip in flips)]
    return np.diag(signs) @ np.eye(3)[order]
