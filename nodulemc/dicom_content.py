"""What a DICOM file holds that SimpleITK does not tell: how long its pixel data are, and attributes of its frames.

Both are looked for by their bytes, wherever they stand: they only confirm what GDCM has read, which knows far more of
malformed headers than a second parser would.
"""

import mmap
import re
from pathlib import Path

from nodulemc.errors import ImageError

# Tag, representation unless that is implicit, length; little-endian or (retired) big-endian.
_PIXEL_DATA = re.compile(rb"\xe0\x7f\x10\0(?:(?:OB|OW|UN)\0\0)?(.{4})|\x7f\xe0\0\x10(?:OB|OW|UN)\0\0(.{4})", re.DOTALL)
_COMPRESSED = 0xFFFFFFFF


def check_pixel_data(file: str, promised: float) -> None:
    """Refuse pixel data shorter than the header promises, which GDCM fills up; it finds the faults of compressed ones.

    Args:
        file: the DICOM file.
        promised: bytes of the decoded voxels.
    """
    with Path(file).open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for found in _PIXEL_DATA.finditer(content):
            length = int.from_bytes(found[1], "little") if found[1] else int.from_bytes(found[2], "big")
            if length == _COMPRESSED or length >= promised:
                return
    raise ImageError(
        f"no pixel data of {promised:.0f} bytes", file, "the slice is damaged or deflated; export it again"
    )


def frame_values(file: str, tag: str) -> list[str]:
    """The values of a decimal attribute ("0020|0032") in all its places in the file, in their order."""
    group, element = (int(half, 16).to_bytes(2, "little") for half in tag.split("|"))
    attribute = re.compile(re.escape(group + element) + rb"(?:DS(..)|(..)\0\0)", re.DOTALL)
    values = []
    with Path(file).open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for found in attribute.finditer(content):
            length = int.from_bytes(found[1] or found[2], "little")
            values.append(content[found.end() : found.end() + length].decode("ascii", "replace").strip("\0 "))
    return values
