"""The files of a folder with a CT, including those in folders below."""

import os
from collections.abc import Iterator
from pathlib import Path


def files_below(folder: Path) -> Iterator[Path]:
    """Return the files in a folder and below, sorted by folder; links to folders are not followed.

    Raises:
        OSError: a folder cannot be read.
    """
    for parent, folders, names in os.walk(folder, onerror=_raise):
        folders.sort()
        yield from (Path(parent, name) for name in sorted(names))


def folders_below(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield a folder and those below it, sorted, with the names of their files; hidden ones are left out.

    Links to folders are followed, since a part of a large download is often made of links. Each folder comes once.

    Raises:
        OSError: a folder cannot be read.
    """
    seen = set()
    for parent, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        if (place := os.path.realpath(parent)) in seen:
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(parent), sorted(name for name in names if not name.startswith("."))


def is_hidden(path: Path, folder: Path) -> bool:
    """Return whether a file of ``folder``, or a folder between the two, is hidden, as macOS's attribute files are."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _raise(error: OSError) -> None:
    raise error
