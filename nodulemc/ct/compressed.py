"""Reading voxels from a file, plain or in zlib and gzip streams, whose checksums are verified."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from zlib_ng import zlib_ng

from nodulemc.ct.stored_voxels import StoredVoxels
from nodulemc.errors import ImageError
from nodulemc.limits import MAX_CT_BYTES

_CHUNK = 1 << 20
_PIECE = 1 << 30  # Linux reads at most 2 GiB at once
_ZLIB_OR_GZIP = 47  # window bits that recognise either header (zlib.h, inflateInit2)
_LARGEST_RATIO = 1032  # of deflate (https://zlib.net/zlib_tech.html)


def check_length(voxels: StoredVoxels, length: int) -> None:
    """Refuse a file that cannot hold ``length`` bytes of voxels, before memory is allocated for them.

    Raises:
        ImageError: The file is too small.
    """
    most = max(voxels.file.stat().st_size - voxels.start, 0)
    if voxels.compressed and most * _LARGEST_RATIO < length:
        found = f"at most {most * _LARGEST_RATIO}"
    elif not voxels.compressed and most < length:
        found = str(most)
    else:
        return
    raise ImageError(f"the file holds {found} of {length} bytes", voxels.file, "copy the file again")


def read_voxels(voxels: StoredVoxels, target: memoryview) -> None:
    """Fill ``target`` with a file's voxels, as they are stored.

    Raises:
        ImageError: The voxels are corrupt, cut, or too few; or, if compressed, too many.
    """
    if voxels.compressed:
        _inflate(voxels, target)
        return
    with voxels.file.open("rb", buffering=0) as file:
        file.seek(voxels.start)
        done = 0
        while done < len(target):
            length = file.readinto(target[done : done + _PIECE])
            if not length:
                raise ImageError(f"the file holds {done} of {len(target)} bytes", voxels.file, "copy the file again")
            done += length


def _inflate(voxels: StoredVoxels, target: memoryview) -> None:
    """Fill ``target`` with the voxels of a compressed stream.

    Raises:
        ImageError: The stream is corrupt or cut, or holds fewer bytes than ``target``, or more than it with the
            padding.
    """
    end = voxels.skip + len(target)
    done = 0
    for part in _decoded(_chunks(voxels.file, voxels.start), voxels.file):
        if done + len(part) > end + voxels.padding:
            raise ImageError(f"the file holds more than {end} bytes", voxels.file, "its header does not fit its data")
        wanted = part[max(voxels.skip - done, 0) : max(end - done, 0)]
        at = max(done - voxels.skip, 0)
        target[at : at + len(wanted)] = wanted
        done += len(part)
    if done < end:
        raise ImageError(f"the file holds {done} of {end} bytes", voxels.file, "copy the file again")


def decoded_length(chunks: Iterable[bytes], path: Path, before: int = 0) -> int:
    """Return the uncompressed length of a zlib or gzip stream (of one or more gzip members), plus ``before``.

    Args:
        chunks: The stream in pieces.
        path: Its file, for messages.
        before: The bytes counted before it.

    Raises:
        ImageError: the stream is corrupt, cut, or longer than any CT.
    """
    length = before
    for part in _decoded(chunks, path):
        length += len(part)
        if length > MAX_CT_BYTES:
            limit = f"{MAX_CT_BYTES >> 30} GiB"
            raise ImageError(f"the file inflates to more than {limit}", path, "crop the CT to the lungs")
    return length


def _chunks(path: Path, start: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        while chunk := file.read(_CHUNK):
            yield chunk


def _decoded(chunks: Iterable[bytes], path: Path) -> Iterator[bytes]:
    decoder = zlib_ng.decompressobj(_ZLIB_OR_GZIP)
    for chunk in chunks:
        while chunk:
            if decoder.eof:
                chunk = chunk.lstrip(b"\0")  # block storage pads files with zeros; no stream begins with one
                if not chunk:
                    break
                decoder = zlib_ng.decompressobj(_ZLIB_OR_GZIP)
            try:
                yield decoder.decompress(chunk, 16 * _CHUNK)
                while decoder.unconsumed_tail and not decoder.eof:  # at the end it keeps its last value
                    yield decoder.decompress(decoder.unconsumed_tail, 16 * _CHUNK)
            except zlib_ng.error as error:  # type: ignore[misc]  # its stub takes the class for an instance
                raise ImageError(f"the compressed voxels are corrupt ({error})", path, "copy it again") from error
            chunk = decoder.unused_data
    if not decoder.eof:
        raise ImageError("the compressed voxels end too early", path, "copy the file again")
