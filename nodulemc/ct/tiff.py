"""A TIFF's directories of pages, checked before ITK reads them.

ITK never returns from a chain of pages that leads back to itself, writes beyond its memory if pages differ, and does
not verify the checksums of deflated voxels. So these are inflated here once more.

Source: TIFF 6.0, section 2; its technical note on deflate; BigTIFF as in libtiff's documentation.
"""

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nodulemc.ct.checks import DAMAGED
from nodulemc.ct.compressed import decoded_length
from nodulemc.errors import ImageError

_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INTEGER = {1: "B", 3: "H", 4: "I", 16: "Q"}
# What decides how much memory a page takes: its kind, size, bits, compression, strips or tiles, samples.
_LAYOUT = (254, 256, 257, 258, 259, 262, 266, 274, 277, 278, 284, 317, 322, 323, 338, 339)
_WIDTH, _HEIGHT, _COMPRESSION, _SAMPLES = 256, 257, 259, 277
_STRIPS, _TILES = 273, 324  # where they begin
_LENGTH_OF = {_STRIPS: 279, _TILES: 325}
_USED = {*_LAYOUT, *_LENGTH_OF, *_LENGTH_OF.values()}
_DEFLATE = (8, 32946)
_MOST_PAGES = 10_000
_MOST_TAGS = 200
_MOST_PIECES = 1 << 20  # strips and tiles of all pages: 2,048 pages of 512 rows, each a strip
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class _Values:
    """A tag's values: their number, their place in the file, and struct's letter, None if they are not integers."""

    count: int
    at: int
    letter: str | None


def check_pages(path: Path) -> None:
    """Check the chain of pages, the places of all tags' values, and the checksums of deflated voxels.

    Raises:
        ImageError: The chain does not end, pages differ, values lie outside the file, or a checksum is wrong.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            order = {b"II": "<", b"MM": ">"}[content[:2]]
            pages = list(_pages(content, order))
            layouts = {tuple(_first(content, order, page.get(tag)) for tag in _LAYOUT) for page in pages}
            if len(layouts) != 1:
                raise ImageError(f"pages of {len(layouts)} kinds", path, "write one page per slice, all alike")
            if _first(content, order, pages[0].get(_COMPRESSION)) in _DEFLATE:
                _check_deflated(content, order, pages, path)
    except (struct.error, ValueError, KeyError, OverflowError) as error:
        raise ImageError(f"cannot read the CT (malformed TIFF: {error})", path, DAMAGED) from error


def _pages(content: mmap.mmap, order: str) -> Iterator[dict[int, _Values]]:
    """Yield each page's tags that are used."""
    (magic,) = struct.unpack_from(f"{order}H", content, 2)
    big = {42: False, 43: True}[magic]
    word, entry_bytes, count_layout, pointer = (8, 20, "Q", "Q") if big else (4, 12, "H", "I")
    (offset,) = struct.unpack_from(order + pointer, content, 8 if big else 4)
    visited: set[int] = set()
    while offset:
        if offset in visited or len(visited) >= _MOST_PAGES:
            raise ValueError(f"its pages do not end after {len(visited)}")
        visited.add(offset)
        (tags,) = struct.unpack_from(order + count_layout, content, offset)
        if tags > _MOST_TAGS:
            raise ValueError(f"a page has {tags} tags")
        offset += struct.calcsize(order + count_layout)
        page: dict[int, _Values] = {}
        previous = -1
        for _ in range(tags):
            tag, kind, count = struct.unpack_from(f"{order}HH{pointer}", content, offset)
            if tag <= previous:
                raise ValueError("tags out of order")
            previous = tag
            length = _BYTES[kind] * count
            at = offset + 4 + word
            if length > word:
                (at,) = struct.unpack_from(order + pointer, content, at)
            if at + length > len(content):
                raise ValueError(f"tag {tag} lies outside the file")
            if tag in _USED:
                page[tag] = _Values(count, at, _INTEGER.get(kind))
            offset += entry_bytes
        first = {tag: _first(content, order, page.get(tag)) for tag in (_WIDTH, _HEIGHT, _SAMPLES)}
        if not (first[_WIDTH] and first[_HEIGHT] and (_STRIPS in page or _TILES in page)):
            raise ValueError("a page without voxels")
        if _SAMPLES in page and first[_SAMPLES] != 1:
            raise ValueError("several samples per voxel")
        yield page
        (offset,) = struct.unpack_from(order + pointer, content, offset)


def _first(content: mmap.mmap, order: str, values: _Values | None) -> int | None:
    """Return the first of a tag's values if they are integers, else None."""
    if values is None or values.letter is None or not values.count:
        return None
    first: int = struct.unpack_from(order + values.letter, content, values.at)[0]
    return first


def _check_deflated(content: mmap.mmap, order: str, pages: list[dict[int, _Values]], path: Path) -> None:
    """Inflate every strip and tile, which verifies its checksum."""
    if sum(page[tag].count for page in pages for tag in _LENGTH_OF if tag in page) > _MOST_PIECES:
        raise ValueError(f"more than {_MOST_PIECES} strips")
    decoded = 0
    for page in pages:
        for tag, length_tag in _LENGTH_OF.items():
            if tag in page:
                starts, lengths = (_all(content, order, page[t]) for t in (tag, length_tag))
                for start, length in zip(starts, lengths, strict=True):
                    if start + length > len(content):
                        raise ValueError("a strip lies outside the file")
                    decoded = decoded_length(_chunks(content, start, start + length), path, decoded)


def _all(content: mmap.mmap, order: str, values: _Values) -> tuple[int, ...]:
    if values.letter is None:
        raise ValueError("strips without place or length")
    return struct.unpack_from(f"{order}{values.count}{values.letter}", content, values.at)


def _chunks(content: mmap.mmap, start: int, end: int) -> Iterator[bytes]:
    return (content[at : min(at + _CHUNK, end)] for at in range(start, end, _CHUNK))
