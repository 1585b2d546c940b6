"""One writer for each store: a lock that ends with its process, however that ends."""

import fcntl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nodulemc.errors import ConfigError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Hold a store as its only writer.

    Raises:
        ConfigError: another process holds it.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(_lock_file(path).open("w"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                "another run is at work on this cohort", path, "wait for it, or see `nodulemc status`"
            ) from error
        except OSError as error:
            raise ConfigError(
                f"cannot lock the store ({error.strerror})", path, "name a folder that can be written and locked"
            ) from error
        yield


def is_being_written(path: Path) -> bool:
    """Whether a run is at work on a store."""
    try:
        with _lock_file(path).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no run has ever locked it, or not where this machine sees it
        return False
    return False


def _lock_file(path: Path) -> Path:
    return path.with_suffix(".lock")
