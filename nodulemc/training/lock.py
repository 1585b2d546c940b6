"""One writer for each block store and training run: a lock that ends with its process, however that ends."""

import errno
import fcntl
from typing import IO, Any

# What flock(2) says on file systems without locks, such as Lustre mounted without `flock`.
_NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK}


def try_to_lock(file: IO[Any]) -> bool:
    """Lock an open file until it is closed, where its file system can; whether nobody else holds it.

    A forked child would hold it, too; one that is spawned does not.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True
