"""One label image for all nodules of a CT, on the CT's grid: a NIfTI-1 file, as segmentation tools write them.

Source: https://nifti.nimh.nih.gov (nifti1.h). The geometry stands in the sform, as nibabel writes it.
"""

import struct
from collections.abc import Iterator, Sequence

import numpy as np
import SimpleITK as sitk
from zlib_ng import zlib_ng

from nodulemc.measure.mask import THRESHOLD, NoduleMask

_GZIP = 31  # window bits that make zlib write gzip
_LEVEL = 1  # most of the image is 0
_HEADER = 352
_TO_RAS = np.diag([-1.0, -1.0, 1.0])
_MM = 2
_SCANNER = 1  # the sform's code: coordinates of the scanner
_CODES = {np.dtype(np.uint8): 2, np.dtype(np.uint16): 512}


def label_image(ct: sitk.Image, masks: Sequence[NoduleMask]) -> bytes:
    """A .nii.gz file of the CT's grid: 0, or the position from 1 of the nodule whose mask a voxel belongs to.

    Of several masks that hold a voxel, the one with the highest probability there has it.
    """
    type_ = np.dtype(np.uint8 if len(masks) < 256 else np.uint16)
    packer = zlib_ng.compressobj(_LEVEL, zlib_ng.DEFLATED, _GZIP)
    slices = (packer.compress(labels.tobytes()) for labels in _slices(ct.GetSize(), masks, type_.newbyteorder("<")))
    return b"".join([packer.compress(_header(ct, type_)), *slices, packer.flush()])


def _slices(size: Sequence[int], masks: Sequence[NoduleMask], type_: np.dtype) -> Iterator[np.ndarray]:
    """The label image slice by slice, (rows, columns): a whole one would take as much memory as the CT."""
    columns, rows, count = size
    for z in range(count):
        labels, best = np.zeros((rows, columns), type_), np.full((rows, columns), THRESHOLD, np.float32)
        for label, mask in enumerate(masks, start=1):
            along, *place = mask.slices
            if along.start <= z < along.stop:
                probability = mask.probability[z - along.start]
                better = probability > best[tuple(place)]
                labels[tuple(place)][better] = label
                best[tuple(place)][better] = probability[better]
        yield labels


def _header(ct: sitk.Image, type_: np.dtype) -> bytes:
    """A NIfTI-1 header with the CT's grid."""
    matrix = _TO_RAS @ (np.reshape(ct.GetDirection(), (3, 3)) * ct.GetSpacing())
    sform = np.column_stack([matrix, _TO_RAS @ ct.GetOrigin()])
    header = bytearray(_HEADER)
    for offset, layout, values in (
        (0, "<i", [348]),
        (40, "<8h", [3, *ct.GetSize(), 1, 1, 1, 1]),
        (70, "<2h", [_CODES[type_], 8 * type_.itemsize]),
        (76, "<8f", [1, *ct.GetSpacing(), 0, 0, 0, 0]),
        (108, "<3f", [_HEADER, 1, 0]),
        (123, "<B", [_MM]),
        (252, "<2h", [0, _SCANNER]),
        (280, "<12f", sform.ravel()),
        (344, "<4s", [b"n+1\0"]),
    ):
        struct.pack_into(layout, header, offset, *values)
    return bytes(header)
