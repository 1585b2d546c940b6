"""Files: reading within limits, and outputs that are either complete or absent."""

import errno
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from nodulemc.errors import ConfigError, FileError

_HIDDEN = "."


def require_regular(path: Path) -> None:
    """Refuse anything but a regular file: reading a pipe would never end.

    Raises:
        FileError: it is no regular file.
        OSError: it is missing, or its folder cannot be read.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise FileError("not a regular file", path, "give a file")


def visible(paths: Iterable[Path]) -> list[Path]:
    """Return a folder's entries, sorted, without hidden ones such as macOS's files of attributes (._ct.mha)."""
    return sorted(path for path in paths if not path.name.startswith(_HIDDEN))


def read_limited(path: Path, limit: int) -> bytes:
    """Return a regular file's content.

    Raises:
        FileError: it is missing, unreadable, no regular file, or holds more than ``limit`` bytes.
    """
    with _told_as("cannot read the file", path, "check that it exists"):
        require_regular(path)
        with path.open("rb") as file:
            content = file.read(limit + 1)
    if len(content) > limit:
        raise FileError(f"the file holds more than {limit >> 20} MiB", path, "give a smaller file")
    return content


def make_folder(folder: Path) -> None:
    """Make a folder, and its parents, if they are missing. Call it before any work, as it also tries to write there.

    Raises:
        FileError: it cannot be made, or files cannot be written into it.
    """
    remedy = "name one that can be written"
    with _told_as("cannot make the folder", folder, remedy):
        folder.mkdir(parents=True, exist_ok=True)
    with _told_as("cannot write", folder, remedy):
        _try_to_write(folder)


def refuse_input(path: Path, inputs: Iterable[Path], what: str) -> None:
    """Raise ConfigError if a file to be written, called ``what`` in the message, is one of the inputs."""
    if any(os.path.realpath(path) == os.path.realpath(given) for given in inputs):
        raise ConfigError(f"the {what} is an input, too", path, "name another file")


def prepare_output(path: Path) -> None:
    """Before any work, make an output file's folder, and remove an earlier run's output.

    Raises:
        FileError: the folder cannot be made or written, or the file cannot be removed.
    """
    make_folder(path.parent)
    remove_old(path)


def remove_old(path: Path) -> None:
    """Remove an earlier run's output, which must never be taken for this run's.

    Raises:
        FileError: it cannot be removed.
    """
    with _told_as("cannot remove the old output", path, "make the folder writable or name another file"):
        path.unlink(missing_ok=True)


@contextmanager
def none_on_failure(paths: Sequence[Path]) -> Iterator[None]:
    """Remove these files if the block does not finish."""
    try:
        yield
    except BaseException:
        for path in paths:
            with suppress(OSError, ValueError):
                path.unlink(missing_ok=True)
        raise


@contextmanager
def no_empty_folders(*folders: Path) -> Iterator[None]:
    """If the block does not finish, remove those of these folders and their parents that are new and empty."""
    new = [path for folder in folders for path in (folder, *folder.parents) if not os.access(path, os.F_OK)]
    try:
        yield
    except BaseException:
        for path in new:
            with suppress(OSError):
                path.rmdir()
        raise


def write_atomically(path: Path, content: bytes) -> None:
    """Write bytes. ``path`` holds either the whole content or its previous content.

    Raises:
        FileError: the file cannot be written.
    """
    with _told_as("cannot write", path, "check that the folder exists, is writable and not full"):
        if not _write_unnamed(path, content):
            _write_and_rename(path, content)


@contextmanager
def _told_as(what: str, path: Path, remedy: str) -> Iterator[None]:
    """Report a file system's refusal in one line."""
    try:
        yield
    except (OSError, ValueError) as problem:  # ValueError is for a null byte in the path
        raise FileError(f"{what} ({getattr(problem, 'strerror', problem)})", path, remedy) from problem


def _try_to_write(folder: Path) -> None:
    """Open a file without a name, of which nothing can be left behind. Do nothing on a system without such files."""
    try:
        os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY))
    except AttributeError:  # not Linux
        return
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.EOPNOTSUPP):  # not on this file system
            raise


def _write_unnamed(path: Path, content: bytes) -> bool:
    """Write a file that gets its name only when it is complete, so that not even SIGKILL leaves a part of it.

    Returns:
        False if the system has no such files, or ``path`` exists.
    """
    try:
        descriptor = os.open(path.parent, os.O_TMPFILE | os.O_WRONLY, 0o644)
    except (AttributeError, OSError):  # not Linux, not on this file system, or no such folder
        return False
    with os.fdopen(descriptor, "wb") as file:
        _fill(file, content)
        try:
            # A source folder's descriptor makes Python follow the link to the file (linkat's AT_SYMLINK_FOLLOW).
            os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor, follow_symlinks=True)
        except OSError:
            return False
    return True


def _write_and_rename(path: Path, content: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            _fill(file, content)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _fill(file: IO[bytes], content: bytes) -> None:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
    # The reader is usually another user, so this user's umask must not matter.
    os.fchmod(file.fileno(), 0o644)
