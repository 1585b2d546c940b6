"""Restoring the errors of processes that read samples from PyTorch's form of them."""

import re

from nodulemc import errors
from nodulemc.errors import NoduleMCError, ResourceError

# The wording of torch.utils.data: for a worker's traceback as text, and for the end of a worker.
_RAISED = re.compile(r"^nodulemc\.errors\.(\w+): (.*)", re.MULTILINE)
_KILLED = re.compile(r"DataLoader worker \(pid.*(killed by signal|exited unexpectedly)")


def reading_error(error: RuntimeError, workers: int) -> NoduleMCError | None:
    """Return the user's error behind a DataLoader's error. None if there is none.

    Args:
        error: The error that a DataLoader raised.
        workers: The DataLoader's number of processes.
    """
    raised = _RAISED.search(str(error))
    if raised:
        # Only the error's line is left, in which its three parts are joined in this way.
        found: NoduleMCError = getattr(errors, raised[1])(*raised[2].split(": ", 2))
        return found
    if _KILLED.search(str(error)):
        return ResourceError(
            "a process that reads samples has died",
            f"run.workers {workers}",
            "see the messages above; memory may be short: set fewer and go on with --resume",
        )
    return None
