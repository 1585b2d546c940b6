"""Finding damaged CT files before they are read.

ITK reads a corrupt compressed .mha as noise and a cut .nii.gz as zeros without raising an error; a damaged
scan must never become a probability. NRRD and DICOM readers check for themselves.
"""

import math
from pathlib import Path

import SimpleITK as sitk

from nodulemc import nifti
from nodulemc.errors import ImageError
from nodulemc.headers import voxel_type
from nodulemc.inflating import inflated_length
from nodulemc.limits import MAX_CT_BYTES
from nodulemc.meta_image import SUFFIXES, locate_voxels

_NIFTI_HEADER = 348


def check_integrity(path: Path, reader: sitk.ImageFileReader) -> None:
    """Check that a MetaImage or NIfTI file holds all voxels its header promises, and its checksum where it has one.

    Args:
        path: the file.
        reader: has read the file's image information.

    Raises:
        ImageError: the voxels are cut, corrupt, too few or missing.
    """
    voxels = math.prod(reader.GetSize())
    name = path.name.lower()
    if name.endswith(SUFFIXES):
        data, start, compressed = locate_voxels(path)
        needed = voxels * voxel_type(reader).itemsize
    elif name.endswith(nifti.SUFFIXES):
        data, start, compressed = path, 0, name.endswith(".gz")
        needed = _NIFTI_HEADER + voxels * int(reader.GetMetaData("bitpix")) // 8
    else:
        return
    if not data.is_file():
        raise ImageError("the file with the voxels is missing", data, f"copy it beside {path.name}")
    found = inflated_length(data, start, MAX_CT_BYTES) if compressed else data.stat().st_size - start
    if found < needed:
        raise ImageError(f"the file holds {found} of {needed} bytes", data, "copy the file again")
