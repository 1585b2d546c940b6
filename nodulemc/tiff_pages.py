"""A TIFF's directories of pages, walked before ITK does.

ITK never returns from a chain of pages that leads back to itself, and writes beyond its memory where pages differ.

Source: TIFF 6.0, section 2; BigTIFF as in libtiff's documentation.
"""

import mmap
import struct
from pathlib import Path

from nodulemc.errors import ImageError

_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INTEGER = {1: "B", 3: "H", 4: "I", 16: "Q"}
# What decides how much memory a page takes: its kind, size, bits, compression, strips or tiles, samples.
_LAYOUT = (254, 256, 257, 258, 259, 262, 266, 274, 277, 278, 284, 317, 322, 323, 338, 339)
_WIDTH, _HEIGHT, _SAMPLES, _STRIPS, _TILES = 256, 257, 277, 273, 324
_MOST_PAGES = 10_000
_MOST_TAGS = 200


def check_pages(path: Path) -> None:
    """Check that the pages form a chain that ends and are all alike, and that every tag's values lie in the file.

    Raises:
        ImageError: they do not.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            layouts = _layouts(content)
    except (struct.error, ValueError, KeyError, OverflowError) as error:
        raise ImageError(f"cannot read the CT (malformed TIFF: {error})", path, "the file is damaged") from error
    if len(set(layouts)) != 1:
        raise ImageError(f"pages of {len(set(layouts))} kinds", path, "write one page per slice, all alike")


def _layouts(content: mmap.mmap) -> list[tuple[int | None, ...]]:
    order = {b"II": "<", b"MM": ">"}[content[:2]]
    (magic,) = struct.unpack_from(f"{order}H", content, 2)
    big = {42: False, 43: True}[magic]
    word, entry_bytes, count_layout, pointer = (8, 20, "Q", "Q") if big else (4, 12, "H", "I")
    (offset,) = struct.unpack_from(order + pointer, content, 8 if big else 4)
    layouts: list[tuple[int | None, ...]] = []
    visited: set[int] = set()
    while offset:
        if offset in visited or len(visited) >= _MOST_PAGES:
            raise ValueError(f"its pages do not end after {len(visited)}")
        visited.add(offset)
        (tags,) = struct.unpack_from(order + count_layout, content, offset)
        if tags > _MOST_TAGS:
            raise ValueError(f"a page has {tags} tags")
        offset += struct.calcsize(order + count_layout)
        found: dict[int, int | None] = {}
        for _ in range(tags):
            tag, kind, count = struct.unpack_from(f"{order}HH{pointer}", content, offset)
            if found and tag <= max(found):
                raise ValueError("tags out of order")
            length = _BYTES[kind] * count
            at = offset + 4 + word
            if length > word:
                (at,) = struct.unpack_from(order + pointer, content, at)
            if at + length > len(content):
                raise ValueError(f"tag {tag} lies outside the file")
            found[tag] = (
                struct.unpack_from(order + _INTEGER[kind], content, at)[0] if kind in _INTEGER and count else None
            )
            offset += entry_bytes
        if not (found.get(_WIDTH) and found.get(_HEIGHT) and (_STRIPS in found or _TILES in found)):
            raise ValueError("a page without voxels")
        if found.get(_SAMPLES, 1) != 1:
            raise ValueError("several samples per voxel")
        layouts.append(tuple(found.get(tag) for tag in _LAYOUT))
        (offset,) = struct.unpack_from(order + pointer, content, offset)
    return layouts
