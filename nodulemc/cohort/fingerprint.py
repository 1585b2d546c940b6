"""The inputs that a scan's result depends on: a quickly read signature of its files, and a hash of their content.

The hash is BLAKE3. Every CT is hashed while it is read, and SHA-256 would take a seventh of the reading time.
"""

import json
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodulemc.cohort.scan import Scan
from nodulemc.ct.folder_files import files_below, is_hidden
from nodulemc.ct.meta_image import SUFFIXES, locate_voxels
from nodulemc.errors import ImageError
from nodulemc.points.nodules import Nodule
from nodulemc.util.extras import import_extra

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Fingerprint:
    """A scan's inputs.

    Attributes:
        signature: The paths, sizes and times of all files, and points given in the manifest. It stays the same as long
            as nothing has been touched.
        ct: A hash of the CT's file. If there are several, a hash of the list of their hashes and names, and of the
            series to read among them, if one is named. A DICOM folder's hidden files do not count.
        points: A hash of the points' file or files, in the same way, or of the points in the manifest.
    """

    signature: str
    ct: str | None = None
    points: str | None = None

    def same_content(self, other: "Fingerprint") -> bool:
        """Return whether CT and points have the same content, with any names and times."""
        return (self.ct, self.points) == (other.ct, other.points)


def stat_signature(scan: Scan) -> str:
    """Return the signature (see ``Fingerprint.signature``); this reads headers at most."""
    files = [*_files(scan.path), *(_files(scan.points) if isinstance(scan.points, Path) else [])]
    inline = None if isinstance(scan.points, Path) else _points_hash(scan.points)
    return json.dumps([[_stat(path) for path in files], inline])


def hash_inputs(scan: Scan) -> Fingerprint:
    """Read and hash all inputs of a scan.

    Raises:
        OSError: a file cannot be read.
        ImageError: it is no regular file.
        ConfigError: blake3 is not installed.
    """
    signature = stat_signature(scan)  # first: a file that changes from here on looks different the next time
    ct = _content_hash(scan.path, scan.series)
    return Fingerprint(
        signature, ct, _content_hash(scan.points) if isinstance(scan.points, Path) else _points_hash(scan.points)
    )


def _content_hash(given: Path, series: str | None = None) -> str:
    """Hash a file, or the files that belong to it or lie in it as a folder, and the series to read among them."""
    files = _files(given)
    if given.is_dir():
        files = [path for path in files if not is_hidden(path, given)]
    hashes = [_file_hash(path) for path in files]
    if len(files) == 1:
        return hashes[0]
    base = given if given.is_dir() else given.parent
    names = (os.path.relpath(path, base) for path in files)
    lines = "".join(f"{digest}  {name}\n" for digest, name in zip(hashes, names, strict=True))
    return _hash_of(os.fsencode(lines + (series or "")))


def _files(path: Path) -> list[Path]:
    try:
        if path.is_dir():
            return [file for file in files_below(path) if file.is_file()]
        if path.is_file() and path.name.lower().endswith(SUFFIXES):
            return list(dict.fromkeys([path, locate_voxels(path).file]))
    except (ImageError, OSError):
        pass  # reading it will say what is wrong
    return [path]


def _stat(path: Path) -> list[str | int | None]:
    try:
        status = path.stat()
    except OSError:
        return [str(path), None, None]
    return [str(path), status.st_size, status.st_mtime_ns]


def _file_hash(path: Path) -> str:
    if stat.S_IFMT(path.stat().st_mode) not in (stat.S_IFREG, stat.S_IFDIR):  # a pipe's end may never come
        raise ImageError("not a regular file", path, "give a file or a DICOM folder")
    digest = _hash(b"")
    buffer = memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as file:
        while length := file.readinto(buffer):
            digest.update(buffer[:length])
    hexadecimal: str = digest.hexdigest()
    return hexadecimal


def _points_hash(nodules: Sequence[Nodule]) -> str:
    return _hash_of(json.dumps([[nodule.name, *nodule.point] for nodule in nodules]).encode())


def _hash_of(content: bytes) -> str:
    hexadecimal: str = _hash(content).hexdigest()
    return hexadecimal


def _hash(content: bytes) -> Any:
    return import_extra("blake3", "cohort").blake3(content)
