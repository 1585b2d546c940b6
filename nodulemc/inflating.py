"""Reading zlib and gzip streams with their checksums verified."""

from collections.abc import Iterator
from pathlib import Path

from zlib_ng import zlib_ng

from nodulemc.errors import ImageError

_CHUNK = 1 << 20
_ZLIB_OR_GZIP = 47  # window bits that recognise either header (zlib.h, inflateInit2)


def inflate(path: Path, start: int, target: memoryview, *, padding: int = 0) -> None:
    """Fill ``target`` with what the stream from byte ``start`` of a file on holds, but for ``padding`` bytes at most.

    Raises:
        ImageError: the stream is corrupt or cut, or holds fewer bytes than ``target``, or more than
            with the padding.
    """
    filled = 0
    for part in _parts(path, start):
        if filled + len(part) > len(target) + padding:
            raise ImageError(f"the file holds more than {len(target)} bytes", path, "its header does not fit its data")
        room = max(len(target) - filled, 0)
        target[filled : filled + len(part)] = part[:room]
        filled += len(part)
    if filled < len(target):
        raise ImageError(f"the file holds {filled} of {len(target)} bytes", path, "copy the file again")


def inflated_length(path: Path, start: int, limit: int) -> int:
    """Uncompressed length of the zlib or gzip stream (of one or more gzip members) from byte ``start`` on.

    Raises:
        ImageError: the stream is corrupt, cut, or longer than ``limit`` bytes.
    """
    length = 0
    for part in _parts(path, start):
        length += len(part)
        if length > limit:
            raise ImageError(f"the file inflates to more than {limit >> 30} GiB", path, "crop the CT to the lungs")
    return length


def _parts(path: Path, start: int) -> Iterator[bytes]:
    decoder = zlib_ng.decompressobj(_ZLIB_OR_GZIP)
    with path.open("rb") as file:
        file.seek(start)
        while chunk := file.read(_CHUNK):
            while chunk:
                if decoder.eof:
                    decoder = zlib_ng.decompressobj(_ZLIB_OR_GZIP)
                try:
                    yield decoder.decompress(chunk, 16 * _CHUNK)
                    while decoder.unconsumed_tail and not decoder.eof:  # at the end it keeps its last value
                        yield decoder.decompress(decoder.unconsumed_tail, 16 * _CHUNK)
                except zlib_ng.error as error:
                    raise ImageError(f"the compressed voxels are corrupt ({error})", path, "copy it again") from error
                chunk = decoder.unused_data
    if not decoder.eof:
        raise ImageError("the compressed voxels end too early", path, "copy the file again")
