"""One writer for each output: a lock that ends with its process, however the process ends.

On a file system without locks all runs go on, and nothing prevents a second writer.
"""

import errno
import fcntl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from nodulemc.errors import ConfigError, FileError

# The errors of flock(2) on file systems without locks, such as Lustre mounted without `flock`.
_NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK}


def try_to_lock(file: IO[Any]) -> bool:
    """Lock an open file until it is closed, if its file system can. Return whether nobody else holds the lock.

    A forked child would hold it, too; a spawned one does not.
    """
    try:
        _lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def holding(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Hold a lock file, which is made if it is missing. Yield whether nobody else holds it; ``wait`` waits for that.

    Raises:
        FileError: the file cannot be written or locked.
    """
    with ExitStack() as files:
        try:
            file = files.enter_context(path.open("w"))
            if wait:
                _lock(file, fcntl.LOCK_EX)
            alone = wait or try_to_lock(file)
        except OSError as error:
            raise FileError(
                f"cannot lock ({error.strerror})", path, "name a folder that can be written and locked"
            ) from error
        yield alone


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Hold a store as its only writer.

    Raises:
        ConfigError: another process holds it.
        FileError: its lock cannot be written.
    """
    with holding(_lock_file(path)) as alone:
        if not alone:
            raise ConfigError(
                "another run is at work on this cohort", path, "wait for it, or see `nodulemc cohort-status`"
            )
        yield


def is_being_written(path: Path) -> bool:
    """Return whether a run is at work on a store. Needs no permission to write."""
    try:
        with _lock_file(path).open() as file:
            _lock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no run has ever locked it, or none that this machine can see
        return False
    return False


def _lock(file: IO[Any], operation: int) -> None:
    try:
        fcntl.flock(file, operation)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def _lock_file(path: Path) -> Path:
    return path.with_suffix(".lock")
