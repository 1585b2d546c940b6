"""Reading the voxel grid from the header of an image file or a DICOM series."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nodulemc.ct.checks import check_geometry, refuse_size
from nodulemc.ct.volume import reading, require_image_header
from nodulemc.errors import ImageError
from nodulemc.geometry import Grid

if TYPE_CHECKING:
    from nodulemc.ct.dicom import SeriesHeader
    from nodulemc.ct.stored_voxels import ImageHeader


def read_grid(path: Path, series: str | None = None) -> Grid:
    """Return the grid of an image file or of a DICOM series: the folder's only one, or ``series``.

    Raises:
        ImageError: the file is missing or unreadable, or its header would be refused for a CT.
    """
    if path.is_dir():
        return _series_grid(path, series)
    if not path.is_file():
        raise ImageError("no such image", path, "check the path")
    with reading(path):
        header = require_image_header(path)
    return _grid(header)


def _series_grid(folder: Path, series: str | None) -> Grid:
    from nodulemc.ct.dicom import read_header  # pydicom takes a while to import

    with reading(folder):
        header = read_header(folder, series)
    if min(header.size) < 2:
        refuse_size(header.size, folder)
    check_geometry(header.spacing, header.origin, header.direction, folder)
    return _grid(header)


def _grid(header: ImageHeader | SeriesHeader) -> Grid:
    x, y, z = header.size
    return Grid((x, y, z), header.spacing, header.origin, header.direction)
