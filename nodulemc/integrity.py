"""Finding damaged CT files before ITK reads them.

ITK reads cut voxels of some formats as zeros without raising an error; a damaged scan must never become a
probability. NRRD's reader checks for itself; DICOM and TIFF are checked in their own modules.
"""

import math

import SimpleITK as sitk

from nodulemc.errors import ImageError
from nodulemc.headers import voxel_type
from nodulemc.inflating import inflated_length
from nodulemc.stored_voxels import StoredVoxels


def check_integrity(voxels: StoredVoxels, reader: sitk.ImageFileReader) -> None:
    """Check that a file holds all voxels its header promises, and its checksum where it has one.

    Args:
        voxels: where the file keeps them.
        reader: has read the file's image information.

    Raises:
        ImageError: the voxels are cut, corrupt or too few.
    """
    # Rescaled NIfTI voxels are stored in fewer bits than ITK makes of them.
    bits = int(reader.GetMetaData("bitpix")) if voxels.rescaled else 8 * voxel_type(reader).itemsize
    needed = voxels.skip + math.prod(reader.GetSize()) * bits // 8
    if voxels.compressed:
        found = inflated_length(voxels.file, voxels.start)
    else:
        found = voxels.file.stat().st_size - voxels.start
    if found < needed:
        raise ImageError(f"the file holds {max(found, 0)} of {needed} bytes", voxels.file, "copy the file again")
