"""MetaImage files: where their voxels are, and inflating compressed ones.

ITK reads a corrupt compressed .mha as noise without raising an error, so the checksum has to be verified here; doing
that while inflating costs nothing, inflating twice would cost as much as all else in reading.
"""

import re
from pathlib import Path

import numpy as np

from nodulemc.errors import ImageError
from nodulemc.inflating import inflate

SUFFIXES = (".mha", ".mhd")
_HEADER = 1 << 16
_LONGEST_LINE = 4_000
_LINE = re.compile(rb"[ \t]*([^\s=:]+)[ \t]*=[ \t]*([^\r\n]*?)[ \t]*(?:\r?\n|\Z)")
_LAST = "ElementDataFile"


def read_header(path: Path) -> tuple[dict[str, str], int]:
    """A MetaImage's header fields, and the offset of the first byte behind them.

    Stricter than ITK, so that the two never read one file differently: each line is ``Key = value``, no key twice.

    Raises:
        ImageError: the file does not begin with such a header.
    """
    with path.open("rb") as file:
        head = file.read(_HEADER)
    fields: dict[str, str] = {}
    end = 0
    while _LAST not in fields:
        line = _LINE.match(head, end)
        if line is None or not line.group(2) or len(line.group()) > _LONGEST_LINE:
            shown = head[end : end + 40].split(b"\n")[0]
            raise ImageError(f"cannot read the CT (no MetaImage header: {shown!r})", path, "the file is damaged")
        key = line.group(1).decode("utf-8", "surrogateescape")
        if key in fields:
            raise ImageError(f"{key!r} is stated twice", path, "write the CT again")
        fields[key] = line.group(2).decode("utf-8", "surrogateescape")
        end = line.end()
    return fields, end


def locate_voxels(path: Path) -> tuple[Path, int, bool]:
    """Where a MetaImage's voxels are: file, offset, and whether compressed.

    Raises:
        ImageError: the header is malformed, or the voxels are in several files or another folder.
    """
    fields, end = read_header(path)
    compressed = _is_true(fields, "CompressedData")
    data = fields[_LAST]
    if data.upper() == "LOCAL":
        return path, end, compressed
    if data.upper().startswith("LIST") or "%" in data or Path(data).name != data or "\\" in data or "\0" in data:
        raise ImageError(f"the voxels are in {data[:60]!r}", path, "keep them in one file beside the header")
    return path.parent / data, 0, compressed


def read_compressed(path: Path, shape: tuple[int, ...], voxel: np.dtype) -> np.ndarray | None:
    """Read a compressed little-endian MetaImage; None where the file is not one.

    Args:
        path: the file.
        shape: (z, y, x).
        voxel: type of each voxel.

    Raises:
        ImageError: the voxels are cut, corrupt, too few, too many or missing.
    """
    data, start, compressed = locate_voxels(path)
    fields, _ = read_header(path)
    big_endian = _is_true(fields, "BinaryDataByteOrderMSB") or _is_true(fields, "ElementByteOrderMSB")
    if not compressed or big_endian:
        return None
    if not data.is_file():
        raise ImageError("the file with the voxels is missing", data, f"copy it beside {path.name}")
    voxels = np.empty(shape, voxel)
    inflate(data, start, memoryview(voxels).cast("B"))
    return voxels


def _is_true(fields: dict[str, str], key: str) -> bool:
    return fields.get(key, "").lower().startswith(("t", "1"))
