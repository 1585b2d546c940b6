"""MetaImage files: their header, and where their voxels are.

ITK reads a corrupt compressed .mha as noise without raising an error, and one whose CompressedDataSize is missing or
wrong as whatever was in memory: compressed voxels are never left to it.
"""

import re
from pathlib import Path

from nodulemc.errors import ImageError
from nodulemc.stored_voxels import StoredVoxels

SUFFIXES = (".mha", ".mhd")
_HEADER = 1 << 16
_LONGEST_LINE = 4_000
_LINE = re.compile(rb"[ \t]*([^\s=:]+)[ \t]*=[ \t]*([^\r\n]*?)[ \t]*(?:\r?\n|\Z)")
_LAST = "ElementDataFile"
_BYTE_ORDER = ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")


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


def locate_voxels(path: Path) -> StoredVoxels:
    """Where a MetaImage's voxels are.

    Raises:
        ImageError: the header is malformed, or the voxels are missing, in several files or in another folder.
    """
    fields, end = read_header(path)
    data = fields[_LAST]
    if data.upper() == "LOCAL":
        file, start = path, end
    elif data.upper().startswith("LIST") or "%" in data or Path(data).name != data or "\\" in data or "\0" in data:
        raise ImageError(f"the voxels are in {data[:60]!r}", path, "keep them in one file beside the header")
    else:
        file, start = path.parent / data, 0
    if not file.is_file():
        raise ImageError("the file with the voxels is missing", file, f"copy it beside {path.name}")
    big_endian = {_flag(fields, key, path) for key in _BYTE_ORDER if key in fields}
    if len(big_endian) > 1:
        raise ImageError(f"{' and '.join(_BYTE_ORDER)} differ", path, "keep one; they mean the same")
    byte_order = ">" if True in big_endian else "<"
    return StoredVoxels(file, start, _flag(fields, "CompressedData", path), byte_order=byte_order)


def _flag(fields: dict[str, str], key: str, path: Path) -> bool:
    value = fields.get(key, "False").lower()
    if value not in ("true", "false"):
        raise ImageError(f"{key} is {value[:60]!r}", path, "write True or False")
    return value == "true"
