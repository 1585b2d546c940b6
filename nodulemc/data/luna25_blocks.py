"""The challenge's own nodule blocks: ``image/<AnnotationID>.npy`` and ``metadata/<AnnotationID>.npy``.

An image has axes z, y, x. It holds 64 × 128 × 128 voxels of the scan, with -1024 HU beyond the scan and the nodule's
voxel at index 32, 64, 64. A metadata file is a pickled dict of arrays in z, y, x order: ``origin`` (3,), the world
position of the first voxel; ``spacing`` (3,); and ``transform`` (3, 3). Row i of the latter, times the spacing column
by column, is the world step along image axis i. Source: dataloader.py, preprocessing/extract_nodules.py and
preprocessing/utils.py (``itk_image_to_numpy_image``) of the LUNA25 baseline,
https://github.com/DIAGNijmegen/luna25-baseline-public.
"""

from pathlib import Path
from tokenize import TokenError

import numpy as np

from nodulemc.arrays import Array
from nodulemc.errors import ImageError
from nodulemc.geometry import Grid, in_words, size_of
from nodulemc.util.unpickle import read_plain_dict

_SAME_LENGTH = 1e-3
_REMEDY = "download the challenge's nodule blocks again"


def image_path(folder: Path, annotation_id: str) -> Path:
    """Return the path of a block's voxels, or of its mask."""
    return folder / "image" / f"{annotation_id}.npy"


def metadata_path(folder: Path, annotation_id: str) -> Path:
    """Return the path of a block's geometry."""
    return folder / "metadata" / f"{annotation_id}.npy"


def map_array(path: Path) -> Array:
    """Map a three-dimensional array of numbers, axes z, y, x, without loading it.

    Raises:
        ImageError: the file is missing, damaged or something else.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    # NumPy parses the header as Python, so a damaged header may raise any of Python's errors.
    except (OSError, ValueError, EOFError, TypeError, OverflowError, SyntaxError, TokenError) as error:
        raise ImageError(f"cannot read the array ({error})", path, "give a .npy file of numbers") from error
    if not isinstance(array, np.ndarray) or array.ndim != 3 or array.dtype.kind not in "biuf":
        found = f"{array.dtype} {in_words(array.shape)}" if isinstance(array, np.ndarray) else "no single array"
        raise ImageError(f"the file holds {found}", path, "give an array of numbers with axes z, y, x")
    return array


def block_grid(folder: Path, annotation_id: str) -> Grid:
    """Return the grid of a block, from its metadata and its image's shape.

    Raises:
        ImageError: a file is missing or damaged, or the metadata do not have the form above.
    """
    size = size_of(map_array(image_path(folder, annotation_id)))
    path = metadata_path(folder, annotation_id)
    content = read_plain_dict(path)
    try:
        origin, spacing, transform = (np.asarray(content[key], float) for key in ("origin", "spacing", "transform"))
    except (KeyError, TypeError, ValueError) as error:
        raise ImageError(f"no origin, spacing and transform ({error})", path, _REMEDY) from error
    if (origin.shape, spacing.shape, transform.shape) != ((3,), (3,), (3, 3)):
        shapes = ", ".join(map(str, (origin.shape, spacing.shape, transform.shape)))
        raise ImageError(f"origin, spacing and transform have shapes {shapes}", path, _REMEDY)
    steps = (transform * spacing).T
    with np.errstate(invalid="ignore"):
        lengths = np.linalg.norm(steps, axis=0)
    if not np.isfinite(origin).all() or not (spacing > 0).all() or not np.allclose(lengths, spacing, _SAME_LENGTH):
        raise ImageError(f"transform and spacing {spacing.tolist()} contradict each other", path, _REMEDY)
    return Grid.from_matrix(size, origin[::-1], steps[::-1, ::-1])
